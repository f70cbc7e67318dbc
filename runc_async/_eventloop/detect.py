"""Which event loop runs, and its clock. Imports an event loop only where it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clock", "in_asyncio", "in_trio"]


def in_trio() -> bool:
    """Whether the caller runs on trio."""
    # Another thread may be importing trio just now: then the module is there, but not what is in it.
    in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and cast("bool", in_trio_run())


def in_asyncio() -> bool:
    """Whether the caller runs on one of asyncio's own event loops, which uvloop's is not."""
    if "asyncio" not in sys.modules:
        return False
    import asyncio

    try:
        return isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    except RuntimeError:
        return False


def clock() -> Callable[[], float]:
    """The running event loop's clock. Not anyio's: a callback of a loop that anyio did not start cannot ask it."""
    if in_trio():
        import trio

        return trio.current_time
    import asyncio

    return asyncio.get_running_loop().time
