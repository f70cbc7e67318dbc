"""Who waits for the ends of detached containers, and knows their exit statuses."""

from __future__ import annotations

import abc
import ctypes
import fcntl
import os
import select
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from ._models import Exit
from ._watch import Watch

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._pidfd import Pidfd

__all__ = ["Monitor", "PidfdMonitor", "Subreaper"]

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37

# linux/pidfd.h
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
PIDFD_INFO_SIZE = 64
REAPED_WITHIN = 0.25
"""Seconds that an ended process's parent may take to reap it before its status counts as unknown."""


class Monitor(abc.ABC):
    """The interface of ``monitor=``: how the end of a detached process, which is nobody's child of ours, is known.

    The role of go-runc's ``ProcessMonitor``. `started` is called once for every container that `Runc.container`
    creates or `Runc.attach` takes over, `wait` at most once at a time and not again after it has returned.
    """

    def started(self, process: Pidfd) -> None:  # noqa: B027
        """A detached process runs. Called in the event loop, before anybody waits.

        :param process: its pidfd; it stays the caller's, who closes it after the process's end.
        """

    @abc.abstractmethod
    async def wait(self, process: Pidfd) -> Exit:
        """Wait for the end of a process.

        :param process: the same object that `started` was given.
        :returns: its `Exit`; the status is None where it cannot be known.
        """

    def forgotten(self, process: Pidfd) -> None:  # noqa: B027
        """Nobody will wait for this process any more, ended or not."""


class _Watched:
    """One process that is watched from its start, so that the time of its end is right whoever asks when."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.timestamp: datetime | None = None
        self.status: int | None = None
        self.watch: Watch | None = None


class PidfdMonitor(Monitor):
    """What `Runc` uses without a ``monitor=``: watches pidfds.

    The status is what the kernel tells of a process that its parent has reaped (``PIDFD_GET_INFO``, Linux 6.15
    and newer); elsewhere it is None.
    """

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}

    def started(self, process: Pidfd) -> None:
        """See `Monitor.started`."""
        watched = self._watched[id(process)] = _Watched()

        def end() -> None:
            watched.timestamp = datetime.now(UTC)
            watched.status = self._reap(process)
            watched.ended.set()

        watched.watch = Watch(process.fileno(), end)

    async def wait(self, process: Pidfd) -> Exit:
        """See `Monitor.wait`."""
        watched = self._watched[id(process)]
        await watched.ended.wait()
        if watched.status is None:
            watched.status = await status_when_reaped(process.fileno())
        assert watched.timestamp is not None
        return Exit(pid=process.pid, status=watched.status, timestamp=watched.timestamp)

    def forgotten(self, process: Pidfd) -> None:
        """See `Monitor.forgotten`."""
        watched = self._watched.pop(id(process), None)
        if watched is not None and watched.watch is not None:
            watched.watch.close()

    def _reap(self, process: Pidfd) -> int | None:
        """The status of an ended process, where it is ours to take."""
        return None


class Subreaper(PidfdMonitor):
    """Makes this process the reaper of the containers that it starts, so that their exit status is known.

    An async context manager, and the ``monitor=`` for supervisors::

        async with Subreaper() as monitor:
            runc = Runc(monitor=monitor)

    Containers, and processes that they leave to us when their parent ends, are re-parented to this process
    (``PR_SET_CHILD_SUBREAPER``), watched by pidfd and reaped by ``waitid``. There is no handler of SIGCHLD, and
    no wait for "any" child: the status of a child that somebody else started is never taken. Several may be
    open at once; the last one to close gives the role back.
    """

    _open = 0

    def __init__(self) -> None:
        super().__init__()
        self._orphans: dict[int, Watch] = {}
        self._sessions: set[int] = set()
        self._was_subreaper = False

    async def __aenter__(self) -> Self:
        if Subreaper._open == 0:
            self._set(True)
        Subreaper._open += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adopt()
        for watch in self._orphans.values():
            watch.close()
        self._orphans.clear()
        Subreaper._open -= 1
        if Subreaper._open == 0:
            self._set(False)

    _before = 0

    @classmethod
    def _set(cls, on: bool) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if on:
            was = ctypes.c_int()
            libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(was), 0, 0, 0)
            cls._before = was.value
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1 if on else cls._before, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

    def started(self, process: Pidfd) -> None:
        """See `Monitor.started`."""
        # runc and crun make every container's init, and every further process, leader of a session.
        self._sessions.add(process.pid)
        super().started(process)

    def forgotten(self, process: Pidfd) -> None:
        """See `Monitor.forgotten`."""
        self._adopt()
        self._sessions.discard(process.pid)
        super().forgotten(process)

    def _reap(self, process: Pidfd) -> int | None:
        status = reap_ended(process.fileno())
        self._adopt()
        return status

    def _adopt(self) -> None:
        """Find the orphans of our containers among this process's children, and reap them as they end.

        They are known by their session, which only the container's processes have; a child that somebody
        started with a session of its own has another.
        """
        for pid in _children():
            if pid in self._orphans or pid in self._sessions or _session(pid) not in self._sessions:
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if reap_ended(pidfd) is None:
                    self._watch_orphan(pid, pidfd)
            finally:
                os.close(pidfd)

    def _watch_orphan(self, pid: int, pidfd: int) -> None:
        def end() -> None:
            del self._orphans[pid]
            kept = os.pidfd_open(pid)  # a zombie of ours: the number cannot be anybody else's
            reap_ended(kept)
            os.close(kept)
            self._adopt()

        self._orphans[pid] = Watch(pidfd, end)


def reap_ended(pidfd: int) -> int | None:
    """Reap a child of ours that has ended; its status as a shell gives it, None if it is no child or lives."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


async def status_when_reaped(pidfd: int) -> int | None:
    """The status of an ended process that is not our child, once its parent has reaped it; None if unknown."""
    with select.epoll() as reaped, anyio.move_on_after(REAPED_WITHIN):
        reaped.register(pidfd, 0)  # of no event but EPOLLHUP, which says that it is reaped
        await anyio.wait_readable(reaped.fileno())
    info = bytearray(PIDFD_INFO_SIZE)
    info[0:8] = PIDFD_INFO_EXIT.to_bytes(8, "little")
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:  # an older kernel
        return None
    if not int.from_bytes(info[0:8], "little") & PIDFD_INFO_EXIT:
        return None
    code = os.waitstatus_to_exitcode(int.from_bytes(info[60:64], "little"))
    return code if code >= 0 else 128 - code


def _children() -> list[int]:
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
