"""The small interface that every way to start a child implements."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._eventloop.readable import wait_until_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ChildMap(NamedTuple):
    """Which of the parent's descriptors the child gets, and under which numbers."""

    stdio: tuple[int, int, int]
    """Sources of 0, 1 and 2."""
    targets: tuple[int, ...]
    """Sources of 3, 4, …"""
    kept: tuple[int, ...]
    """Those that keep their number, the executable's last."""


@dataclass(frozen=True, slots=True)
class Request:
    """One child to start."""

    executable: str
    """The path to execute: absolute, or ``/proc/self/fd/N`` with N among the kept descriptors."""
    argv: Sequence[str]
    env: Mapping[str, str] | None
    """None is this process's own."""
    descriptors: ChildMap
    cwd: str | None = None
    process_group: bool = False
    """Whether the child leads a process group of its own."""


class Child(Protocol):
    """A started child. It must be waited for, once, by one task."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended and reap it; the exit status, ``-N`` when signal N ended it."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, if it has not ended yet."""
        ...


class PidfdChild:
    """A child of ours that no event loop knows, waited for by pidfd."""

    def __init__(self, pid: int, reap: Callable[[], int]) -> None:
        self.pid = pid
        self._reap = reap
        self._status: int | None = None
        try:
            self._pidfd = os.pidfd_open(pid)
        except BaseException:  # no descriptor is free: it would be nobody's child
            os.kill(pid, signal.SIGKILL)
            reap()
            raise

    async def wait(self) -> int:
        """See `Child.wait`."""
        if self._status is None:
            await wait_until_readable(self._pidfd)
            os.close(self._pidfd)
            self._status = self._reap()
        return self._status

    def kill(self) -> None:
        """See `Child.kill`."""
        if self._status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def reap(pid: int) -> int:
    """Reap an ended child of ours; its exit status, ``-N`` when signal N ended it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # somebody waits for every child there is; asyncio says 255, too
        return 255
