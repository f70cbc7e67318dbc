"""How a child is started: one small interface, one file per way, and the choice between them."""

from __future__ import annotations

from .._errors import StatusUnknownError
from .._eventloop.detect import in_asyncio
from .._linux.exit_status import why_unknown
from .._linux.libc import sigchld_is_ignored
from .request import Child, ChildMap, Request

__all__ = ["Child", "ChildMap", "Request", "keeps_numbers", "start"]


def keeps_numbers() -> bool:
    """Whether the next child has its descriptors under the parent's numbers, as long as none has to be chosen.

    So it is on asyncio's own event loops, which start their children themselves, by `subprocess`.
    """
    return in_asyncio()


async def start(request: Request) -> Child:
    """Start a child in the way that the map of its descriptors needs.

    :raises StatusUnknownError: SIGCHLD is ignored. Nothing was started, since nobody could know how it ends: the
        kernel may forget the child before its pidfd can be opened.
    :raises OSError: it cannot be started or executed.
    """
    if sigchld_is_ignored():
        raise StatusUnknownError(f"the runtime was not started: {why_unknown()}")
    if request.descriptors.kept is None:
        from . import posix_spawn

        return await posix_spawn.start(request)
    from . import on_asyncio

    return await on_asyncio.start(request)
