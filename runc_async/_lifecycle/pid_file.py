"""The private pid file of a call: it says whether the runtime has started anything, and what."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
from typing import TYPE_CHECKING

import anyio

from .._eventloop.readable import Watch
from .._linux.inotify import DirectoryWatch
from .._linux.procfs import read_pid_file

if TYPE_CHECKING:
    from collections.abc import Generator

    from .._process.process import Process

__all__ = ["PidFile"]

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two looks for the file, where no inotify instance is free."""


class PidFile:
    """The pid file that the runtime writes for one call, in a private directory, and the caller's copy of it.

    :ivar path: where the runtime writes it.
    :param directory: a directory that no other user can write to, and that only this call uses.
    :param copy: where the caller wants the pid, or None.
    :param name: the name of the file.
    :raises OSError: the caller's file cannot be written; named before anything is started.
    """

    def __init__(self, directory: str, copy: str | None = None, *, name: str = "pid") -> None:
        self.path = os.path.join(directory, name)
        self._directory = directory
        self._copy = copy
        self._draft = ""
        self._pid: int | None = None
        if copy is not None:
            # Written beside the caller's file and renamed, so that a reader never finds half a number.
            try:
                fd, self._draft = tempfile.mkstemp(prefix=f".{os.path.basename(copy)}.", dir=os.path.dirname(copy))
            except OSError as exc:
                raise OSError(
                    exc.errno, f"the pid file cannot be written: {os.strerror(exc.errno or 0)}", copy
                ) from None
            os.close(fd)

    def read(self) -> int | None:
        """The pid of what the runtime has started; None as long as it has started nothing."""
        if self._pid is None:
            self._pid = read_pid_file(self.path)
        return self._pid

    def publish(self) -> None:
        """Write the caller's copy, once, if the pid is known."""
        if self._draft and self._copy is not None and (pid := self.read()):
            with open(self._draft, "w") as file:
                file.write(str(pid))
            os.chmod(self._draft, 0o644)
            os.rename(self._draft, self._copy)
            self._draft = ""

    def close(self) -> None:
        """Remove the draft of a copy that was never written."""
        if self._draft:
            os.unlink(self._draft)

    @contextlib.contextmanager
    def publish_early(self) -> Generator[None]:
        """Write the caller's copy as soon as the runtime has written the pid, inside the context.

        Where no inotify instance is free, it is written when the command ends.
        """
        if not self._draft:
            yield
            return
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                written = stack.enter_context(DirectoryWatch(self._directory))
                self._watch(written, stack)
            yield

    def _watch(self, written: DirectoryWatch, stack: contextlib.ExitStack) -> None:
        def look(_: int) -> None:
            written.clear()
            self.publish()
            if self._draft:
                self._watch(written, stack)

        stack.callback(Watch(written.fileno(), look).close)

    async def wait(self, process: Process) -> int | None:
        """Wait until the runtime has written the pid, or has ended.

        :param process: the runtime process.
        :returns: the pid; None if the runtime has ended without starting anything.
        """
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it has ended, and the event loop has reaped it
            return self.read()
        try:
            with contextlib.ExitStack() as stack:
                try:
                    written = stack.enter_context(DirectoryWatch(self._directory))
                except OSError:
                    return await self._look_until_end(pidfd)
                events = stack.enter_context(select.epoll())
                events.register(written.fileno(), select.EPOLLIN)
                events.register(pidfd, select.EPOLLIN)
                while (pid := self.read()) is None and not _has_ended(pidfd):
                    await anyio.wait_readable(events.fileno())
                    written.clear()
                return pid or self.read()
        finally:
            os.close(pidfd)

    async def _look_until_end(self, pidfd: int) -> int | None:
        pause = FIRST_PAUSE
        while (pid := self.read()) is None and not _has_ended(pidfd):
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return pid or self.read()


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
