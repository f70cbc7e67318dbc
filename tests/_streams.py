"""Reading streams to their end, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream


async def read_all(stream: ByteReceiveStream, into: bytearray | None = None) -> bytes:
    """Everything up to the end."""
    data = bytearray() if into is None else into
    async for chunk in stream:
        data += chunk
    return bytes(data)
