"""Waits for a descriptor to become readable: in a task, or by a callback without a task."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from .detect import in_trio
from .shield import done

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watch", "wait_until_readable"]


async def wait_until_readable(fd: int) -> None:
    """As `anyio.wait_readable`, for one waiter, and on asyncio without a turn of the event loop before.

    :param fd: the descriptor; a pidfd is readable when its process has ended.
    """
    if in_trio():
        import trio

        await trio.lowlevel.wait_readable(fd)
        return
    import asyncio

    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, done, readable)
    try:
        await readable
    finally:
        loop.remove_reader(fd)


class Watch:
    """Calls back once, in the running event loop, when a descriptor is readable; for a pidfd: when it has ended.

    :param fd: the descriptor. It is duplicated, so others may wait for it, too, and close it.
    :param callback: called with a duplicate of the descriptor, which is closed afterwards; it must not raise.
    :raises OSError: no descriptor is free.
    """

    def __init__(self, fd: int, callback: Callable[[int], object]) -> None:
        own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            self._cancel = (_watch_on_trio if in_trio() else _watch_on_asyncio)(own, callback)
        except BaseException:
            os.close(own)
            raise

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._cancel()


def _watch_on_asyncio(fd: int, callback: Callable[[int], object]) -> Callable[[], object]:
    import asyncio

    loop = asyncio.get_running_loop()
    watching = True

    def cancel() -> None:
        nonlocal watching
        if watching:
            watching = False
            if not loop.is_closed():
                loop.remove_reader(fd)
            os.close(fd)

    def ready() -> None:
        try:
            callback(fd)
        finally:
            cancel()

    loop.add_reader(fd, ready)
    return cancel


def _watch_on_trio(fd: int, callback: Callable[[int], object]) -> Callable[[], object]:
    import trio

    scope = trio.CancelScope()

    async def wait() -> None:
        # Only this task knows when nothing waits for the descriptor any more.
        try:
            with scope:
                await trio.lowlevel.wait_readable(fd)
            if not scope.cancel_called:
                callback(fd)
        finally:
            os.close(fd)

    # A system task: what it watches may outlive the nursery of whoever started it, not the run.
    trio.lowlevel.spawn_system_task(wait)
    return scope.cancel
