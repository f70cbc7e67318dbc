"""`Pidfd`: one process, meant for good, whatever becomes of its number."""

from __future__ import annotations

import fcntl
import os
import signal as signals
from typing import TYPE_CHECKING

import anyio

from .signals import signal_number

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Pidfd", "pid_of", "reap_ended"]


class Pidfd:
    """A process by its pidfd (``pidfd_open(2)``). A context manager.

    :param fd: a pidfd, which now belongs to this object.
    :raises ValueError: `fd` is not a pidfd.
    :raises ProcessLookupError: the process has ended and was reaped.

    :ivar pid: its pid. By the time it is used another process may have it, unlike the pidfd.
    """

    def __init__(self, fd: int) -> None:
        self.pid = pid_of(fd)
        self._fd = fd

    @classmethod
    def open(cls, pid: int) -> Self:
        """Open the process that has this number now.

        :param pid: the number, on the host.
        :raises ProcessLookupError: there is none.
        """
        fd = os.pidfd_open(pid)
        process = cls.__new__(cls)
        process.pid = pid
        process._fd = fd
        return process

    def __repr__(self) -> str:
        return f"<Pidfd pid={self.pid}{' closed' if self._fd < 0 else ''}>"

    def fileno(self) -> int:
        """The pidfd.

        :raises ValueError: it is closed.
        """
        if self._fd < 0:
            raise ValueError(f"{self!r} is closed")
        return self._fd

    def send_signal(self, signal: int | signals.Signals | str) -> None:
        """Send a signal (``pidfd_send_signal(2)``).

        :param signal: a number, a `signal.Signals` or a name, with or without ``SIG``; 0 sends none, but fails alike.
        :raises ProcessLookupError: the process has ended.
        """
        signals.pidfd_send_signal(self.fileno(), 0 if signal == 0 else signal_number(signal))

    async def wait(self) -> None:
        """Wait until the process has ended. Any number of tasks may at once; no status is taken."""
        # An event loop knows one waiter per descriptor.
        fd = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close it. Idempotent; waits under way go on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


def pid_of(fd: int) -> int:
    """The pid of a pidfd's process.

    :raises ValueError: `fd` is not a pidfd.
    :raises ProcessLookupError: the process has ended and was reaped.
    """
    with open(f"/proc/self/fdinfo/{fd}") as file:
        pid = next((int(line.split()[1]) for line in file if line.startswith("Pid:")), None)
    if pid is None:
        raise ValueError(f"descriptor {fd} is not a pidfd")
    if pid < 0:
        raise ProcessLookupError(f"the process of descriptor {fd} has ended")
    return pid


def reap_ended(pidfd: int, *, leave: bool = False) -> int | None:
    """Reap a child that has ended (``waitid(P_PIDFD)``).

    :param leave: whether it stays to be reaped, by somebody else.
    :returns: its exit status, ``-N`` when signal N ended it; None if it lives, or is not a child of this process
        that is still to be reaped.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | (os.WNOWAIT if leave else 0))
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
