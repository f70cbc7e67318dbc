"""Who waits for the ends of detached containers, and knows their exit statuses."""

from __future__ import annotations

import abc
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import anyio

from ._eventloop.readable import Watch
from ._linux import libc, procfs
from ._linux.exit_status import shell_status, wait_for_exit_status
from ._linux.pidfd import reap_ended
from ._models import Exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._linux.pidfd import Pidfd

__all__ = ["Monitor", "PidfdMonitor", "Subreaper"]

ON_THEIR_WAY = ("runc:[", "crun:[", "[libcrun:")


class Monitor(abc.ABC):
    """The interface of ``monitor=``: how the end of a detached process, which is nobody's child of ours, is known.

    The role of go-runc's ``ProcessMonitor``. `detached` is called for every process that a call of the runtime leaves
    running; `started` once for every container that `Runc.container` creates or `Runc.attach` takes over; `wait` at
    most once at a time and not again after it has returned.
    """

    def detached(self, pid: int) -> None:  # noqa: B027
        """A call has ended (``create``, or with ``detach``) and left a process running. Called in the event loop.

        Nobody may ever wait for it; if it is re-parented to us, it is ours to reap.

        :param pid: its number; the process may have ended already.
        """

    def runtime_ended(self) -> None:  # noqa: B027
        """A runtime process that starts things has ended. If it was cut short, its children may be re-parented to us.

        Called in the event loop.
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
        """Whoever asked to know of this process will not wait for it any more, ended or not."""


class Watched:
    """A process that is watched from its start, so that the time of its end is right whoever asks when.

    :param process: its pidfd, which stays the caller's.
    :param reap: given the pidfd of the ended process, takes its status, where it is ours to take.
    """

    def __init__(self, process: Pidfd, reap: Callable[[int], int | None] = lambda _: None) -> None:
        self.ended = anyio.Event()
        self.timestamp: datetime | None = None
        self.status: int | None = None
        self._reap = reap
        self._watch = Watch(process.fileno(), self._end)

    def _end(self, pidfd: int) -> None:
        self.timestamp = datetime.now(UTC)
        self.status = self._reap(pidfd)
        self.ended.set()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._watch.close()


class PidfdMonitor(Monitor):
    """What `Runc` uses without a ``monitor=``: watches pidfds.

    The status is what the kernel tells of a process that its parent has reaped (``PIDFD_GET_INFO``, Linux 6.15
    and newer); elsewhere it is None.
    """

    def __init__(self) -> None:
        self._watched: dict[int, Watched] = {}

    def started(self, process: Pidfd) -> None:
        """See `Monitor.started`."""
        self._watched[id(process)] = Watched(process, self._reap)

    async def wait(self, process: Pidfd) -> Exit:
        """See `Monitor.wait`."""
        watched = self._watched[id(process)]
        await watched.ended.wait()
        if watched.status is None:  # it ended while it still was the runtime's child, or it is not ours
            watched.status = self._reap(process.fileno())
        if watched.status is None:
            watched.status = await wait_for_exit_status(process.fileno())
        assert watched.timestamp is not None
        status = None if watched.status is None else shell_status(watched.status)
        return Exit(pid=process.pid, status=status, timestamp=watched.timestamp)

    def forgotten(self, process: Pidfd) -> None:
        """See `Monitor.forgotten`."""
        watched = self._watched.pop(id(process), None)
        if watched is not None:
            watched.close()

    def _reap(self, pidfd: int) -> int | None:
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
    open at once, also in event loops of other threads; the last one to close gives the role back.

    The kernel gives this process every orphan below it, also what a program left behind that was started by other
    means. Of these, such as are in a session that is neither ours nor their own are reaped; nothing tells the others
    from a child that somebody waits for.
    """

    _lock: ClassVar = threading.Lock()
    _open: ClassVar = 0
    _reapers: ClassVar[dict[int, Subreaper]] = {}
    """Of all children that a `Subreaper` of this process is to reap: which one, since each has its own event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._orphans: dict[int, Watch] = {}
        self._leaders: dict[int, int] = {}
        """The detached processes that are known to this process: pid to pid namespace (0: unknown, or our own)."""

    async def __aenter__(self) -> Self:
        with Subreaper._lock:
            if Subreaper._open == 0:
                self._set(True)
            Subreaper._open += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adopt()
        for pid, watch in self._orphans.items():
            watch.close()
            self._leave(pid)
        self._orphans.clear()
        with Subreaper._lock:
            Subreaper._open -= 1
            if Subreaper._open == 0:
                self._set(False)

    _before: ClassVar = False

    @classmethod
    def _set(cls, on: bool) -> None:
        if on:
            cls._before = libc.is_child_subreaper()
        libc.set_child_subreaper(on or cls._before)

    def detached(self, pid: int) -> None:
        """See `Monitor.detached`."""
        if Subreaper._open:
            self._leaders[pid] = _pid_namespace(pid)
            self._adopt()

    def runtime_ended(self) -> None:
        """See `Monitor.runtime_ended`."""
        if Subreaper._open:
            self._adopt()

    def started(self, process: Pidfd) -> None:
        """See `Monitor.started`."""
        self._leaders[process.pid] = _pid_namespace(process.pid)
        Subreaper._reapers[process.pid] = self
        orphan = self._orphans.pop(process.pid, None)
        if orphan is not None:
            orphan.close()
        super().started(process)

    def forgotten(self, process: Pidfd) -> None:
        """See `Monitor.forgotten`."""
        super().forgotten(process)
        self._leave(process.pid)
        self._adopt()
        if process.pid not in self._orphans:
            self._leaders.pop(process.pid, None)

    def _reap(self, pidfd: int) -> int | None:
        status = reap_ended(pidfd)
        if 0 in self._leaders.values():  # orphans in a pid namespace of its own are its init's, and end with that
            self._adopt()
        return status

    def _leave(self, pid: int) -> bool:
        """Be its reaper no more; whether this one was."""
        if Subreaper._reapers.get(pid) is not self:
            return False
        del Subreaper._reapers[pid]
        return True

    def _adopt(self) -> None:
        """Find the orphans of our containers among this process's children, and reap them as they end."""
        namespaces = {*self._leaders.values()} - {0}
        for pid in procfs.children(os.getpid()):
            if pid in Subreaper._reapers or not self._is_ours(pid, namespaces):
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

    def _is_ours(self, pid: int, namespaces: set[int]) -> bool:
        """Whether a child of this process is an orphan of a container, and not one that somebody started here.

        By its session: a child that was started here is in ours, or leads one. By its pid namespace. By the name that
        only a runtime's own children have on their way into a container.
        """
        try:
            inherited = os.getsid(pid) not in (os.getsid(0), pid)
        except ProcessLookupError:
            return False
        if inherited or pid in self._leaders or _pid_namespace(pid) in namespaces:
            return True
        return procfs.comm(pid).startswith(ON_THEIR_WAY)

    def _watch_orphan(self, pid: int, pidfd: int) -> None:
        def end(own: int) -> None:
            self._orphans.pop(pid, None)
            if self._leave(pid):  # else somebody waits for it by now
                reap_ended(own)
            self._adopt()
            self._leaders.pop(pid, None)

        self._orphans[pid] = Watch(pidfd, end)
        Subreaper._reapers[pid] = self


def _pid_namespace(pid: int) -> int:
    """The number of a process's pid namespace; 0 if it is this process's own, or unknown."""
    number = procfs.pid_namespace(pid)
    return 0 if number is None or number == procfs.pid_namespace() else number
