"""How a child is started: one small interface, one file per way, and the choice between them."""

from __future__ import annotations

from .._eventloop.detect import in_trio
from .request import Child, Request

__all__ = ["Child", "Request", "start"]


async def start(request: Request) -> Child:
    """Start a child by the road that this event loop and this request need."""
    if not request.descriptors.targets:
        if in_trio():
            from . import on_trio

            return await on_trio.start(request)
        from . import on_asyncio

        if on_asyncio.can_start(request):
            return await on_asyncio.start(request)
    # Chosen numbers are what no event loop has (CPython issue 107573).
    from . import posix_spawn

    return await posix_spawn.start(request)
