"""A callback when a descriptor becomes readable, without a task of the caller's to wait for it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING

from ._shield import in_trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watch"]


class Watch:
    """Calls back once, in the running event loop, when a descriptor is readable; for a pidfd: when it has ended.

    :param fd: the descriptor. It is duplicated, so others may wait for it, too, and close it.
    :param callback: called without arguments; it must not raise.
    :raises OSError: no descriptor is free.
    """

    def __init__(self, fd: int, callback: Callable[[], object]) -> None:
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self._callback = callback
        try:
            self._cancel = _watch_on_trio(self) if in_trio() else _watch_on_asyncio(self)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def fd(self) -> int:
        """The duplicate that is watched."""
        return self._fd

    def ready(self) -> None:
        """The descriptor is readable: stop watching and call back."""
        self.close()
        self._callback()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        if self._fd >= 0:
            self._cancel()
            os.close(self._fd)
            self._fd = -1


def _watch_on_asyncio(watch: Watch) -> Callable[[], object]:
    loop = asyncio.get_running_loop()
    loop.add_reader(watch.fd, watch.ready)

    def cancel() -> None:
        if not loop.is_closed():
            loop.remove_reader(watch.fd)

    return cancel


def _watch_on_trio(watch: Watch) -> Callable[[], object]:
    import trio

    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await trio.lowlevel.wait_readable(watch.fd)
            watch.ready()

    # A system task: what it watches may outlive the nursery of whoever started it, not the run.
    trio.lowlevel.spawn_system_task(wait)
    return scope.cancel
