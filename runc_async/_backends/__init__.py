"""How a child is started: one small interface, one file per way, and the choice between them."""

from __future__ import annotations

from .._shield import in_trio
from ._base import Child, Request

__all__ = ["Child", "Request", "start"]


async def start(request: Request) -> Child:
    """Start a child by the road that this event loop and this request need."""
    if not request.descriptors.targets:
        if in_trio():
            from . import _trio

            return await _trio.start(request)
        from . import _asyncio

        if _asyncio.can_start(request):
            return await _asyncio.start(request)
    # Chosen numbers are what no event loop has (CPython issue 107573).
    from . import _posix_spawn

    return await _posix_spawn.start(request)
