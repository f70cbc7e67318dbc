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
            self._way = (_TrioWatch if in_trio() else _AsyncioWatch)(own, callback)
        except BaseException:
            os.close(own)
            raise

    @property
    def is_over(self) -> bool:
        """Whether it will not call back any more: it has, it was closed, or its event loop has ended."""
        return self._way.is_over

    def close(self) -> None:
        """Watch no more. Idempotent; in the thread of its event loop, unless that has ended."""
        self._way.close()


class _AsyncioWatch:
    def __init__(self, fd: int, callback: Callable[[int], object]) -> None:
        import asyncio

        self._fd = fd
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(fd, self._end)

    @property
    def is_over(self) -> bool:
        return self._closed or self._loop.is_closed()

    def _end(self) -> None:
        try:
            self._callback(self._fd)
        finally:
            self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)


class _TrioWatch:
    def __init__(self, fd: int, callback: Callable[[int], object]) -> None:
        import trio

        self._fd = fd
        self._callback = callback
        self._scope = trio.CancelScope()
        self.is_over = False
        # A system task: what it watches may outlive the nursery of the task that started it, but not the run.
        trio.lowlevel.spawn_system_task(self._wait)

    async def _wait(self) -> None:
        # Only this task knows when nothing waits for the descriptor any more.
        import trio

        try:
            with self._scope:
                await trio.lowlevel.wait_readable(self._fd)
            if not self._scope.cancel_called:
                self._callback(self._fd)
        finally:
            self.is_over = True
            os.close(self._fd)

    def close(self) -> None:
        if not self.is_over:
            self._scope.cancel()
