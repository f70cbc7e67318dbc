"""The children of this process that runtimes have left to it: found, and reaped when they end.

A process whose parent has ended becomes a child of this process if this process is PID 1, or adopts orphans:
`Subreaper` makes it so, and other code may. Such a child must be reaped, or it stays a zombie; and a zombie in a
container keeps that container's init from ending. The children that other code has started must not be reaped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ._cli.quirks import DETACHED_HELPER, STARTING_NAMES, STUB
from ._eventloop.readable import Watch
from ._linux import libc, procfs
from ._linux.pidfd import reap_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["ORPHANS", "Orphans", "is_reaper", "is_stub"]

NOBODY = "65534"
"""The user that gVisor's kernel runs as."""


def is_reaper() -> bool:
    """Whether orphans below this process become its children."""
    return os.getpid() == 1 or libc.is_child_subreaper()


class _Leader(NamedTuple):
    """A process that a call has left running: a container's init, or a detached process in one."""

    start_time: int
    """With its pid this means one process, and no other later."""
    namespace: int | None
    """Its pid namespace; None if that is this process's own. Orphans in another one are its init's."""


@dataclass(slots=True)
class _Orphan:
    watch: Watch
    thread: int
    owner: object
    session: int
    calls: set[object]
    """The calls under way when it was found: one of them may have started it, and is then about to claim it."""


class _Ended(NamedTuple):
    """An orphan that has ended and is not reaped yet, since a call may be about to claim it."""

    pidfd: int
    calls: set[object]


class Orphans:
    """All orphans of this process, whatever clients and event loops it has. Thread-safe."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all. For a process that was forked: its parent's children are not its own."""
        self._lock = threading.RLock()  # another thread of the parent may have held the other one
        self._leaders: dict[int, _Leader] = {}
        self._claims: dict[int, Callable[[], object]] = {}
        self._orphans: dict[int, _Orphan] = {}
        self._ended: dict[int, _Ended] = {}
        self._calls: set[object] = set()

    @contextlib.contextmanager
    def call(self) -> Generator[None]:
        """A call that may `claim` a process it leaves running. Until it ends, nothing that it may claim is reaped."""
        call = object()
        with self._lock:
            self._calls.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)
                for pid, ended in [*self._ended.items()]:
                    if not ended.calls & self._calls:
                        del self._ended[pid]
                        self._reap(pid, ended.pidfd)
                        os.close(ended.pidfd)

    def learn(self, pid: int) -> None:
        """Know of a process that a call has left running: a child of this process by now, or still of crun's helper."""
        found = procfs.stat(pid)
        if found is not None and (found.parent == os.getpid() or procfs.comm(found.parent) == DETACHED_HELPER):
            with self._lock:
                self._leaders[pid] = _Leader(found.start_time, _pid_namespace(pid))

    def claim(self, pid: int, reap: Callable[[], object]) -> None:
        """Leave a process to somebody who waits for it.

        :param reap: takes its status, if it has ended and has become this process's child only after that.
        """
        with self._lock:
            self._claims[pid] = reap
            if (ended := self._ended.pop(pid, None)) is not None:
                os.close(ended.pidfd)
            orphan = self._orphans.get(pid)
            if orphan is not None and orphan.thread == threading.get_ident():
                self._orphans.pop(pid).watch.close()

    def release(self, pid: int) -> None:
        """Nobody waits for a process any more, that was claimed: from now on it is an orphan like others."""
        with self._lock:
            self._claims.pop(pid, None)

    def adopt(self, owner: object = None) -> None:
        """Find the orphans among this process's children, and reap each as it ends. Called in an event loop.

        :param owner: for `leave`. With one, also such orphans are found as no call has left, but a program that was
            started by other means: those in a session that is neither this process's nor their own.
        """
        with self._lock:
            for pid in procfs.children(os.getpid()):
                if pid in self._claims:
                    self._claims[pid]()
                elif pid not in self._ended and not self._is_watched(pid):
                    found = procfs.stat(pid)
                    if found is not None and self._is_left(found, by_session=owner is not None):
                        with contextlib.suppress(OSError):  # no descriptor is free: the next look finds it again
                            self._watch(found, owner)

    def leave(self, owner: object) -> None:
        """Watch no more for what was found for this owner."""
        with self._lock:
            for pid, orphan in [*self._orphans.items()]:
                if orphan.owner is owner:
                    orphan.watch.close()
                    del self._orphans[pid]

    def forget(self, pid: int) -> None:
        """Forget a process that was left running, unless it is still watched."""
        with self._lock:
            if pid not in self._orphans and pid not in self._ended:
                self._leaders.pop(pid, None)

    def shares_pids(self) -> bool:
        """Whether a process that was left running is in this process's own pid namespace, so that its orphans are here.

        Orphans in another pid namespace are its init's, and end with that.
        """
        return any(leader.namespace is None for leader in self._leaders.values())

    def _is_watched(self, pid: int) -> bool:
        orphan = self._orphans.get(pid)
        if orphan is None:
            return False
        if orphan.watch.is_over:  # its event loop has ended
            self._orphans.pop(pid).watch.close()
            return False
        return True

    def _is_left(self, found: procfs.Stat, *, by_session: bool) -> bool:
        """Whether a child of this process is an orphan of a call, and was not started by other code."""
        leader = self._leaders.get(found.pid)
        if leader is not None and leader.start_time == found.start_time:
            return True
        sessions = {*self._leaders, *(orphan.session for orphan in self._orphans.values())}
        # A child that was started here is in this process's session, or leads one.
        inherited = found.session not in (os.getsid(0), found.pid)
        if inherited and (by_session or found.session in sessions or found.comm == DETACHED_HELPER):
            return True
        namespaces = {leader.namespace for leader in self._leaders.values()} - {None}
        if _pid_namespace(found.pid) in namespaces or found.comm.startswith(STARTING_NAMES):
            return True
        return found.comm == STUB and is_stub(procfs.status(found.pid))

    def _watch(self, found: procfs.Stat, owner: object) -> None:
        pid = found.pid
        pidfd = os.pidfd_open(pid)
        try:
            again = procfs.stat(pid)
            if again is not None and again.start_time == found.start_time:  # nobody else has reaped it meanwhile
                watch = Watch(pidfd, functools.partial(self._end, pid))
                self._orphans[pid] = _Orphan(watch, threading.get_ident(), owner, found.session, {*self._calls})
        finally:
            os.close(pidfd)

    def _end(self, pid: int, pidfd: int) -> None:
        with self._lock:
            orphan = self._orphans.get(pid)
            if orphan is None:
                return
            self.adopt(orphan.owner)  # what it has left, as long as its session is known
            del self._orphans[pid]
            if pid in self._claims:
                self._claims[pid]()
            elif orphan.calls & self._calls:
                self._ended[pid] = _Ended(os.dup(pidfd), orphan.calls)
            else:
                self._reap(pid, pidfd)

    def _reap(self, pid: int, pidfd: int) -> None:
        reap_ended(pidfd)
        self._leaders.pop(pid, None)


def is_stub(status: Mapping[str, str]) -> bool:
    """Whether a process is a stub of gVisor: one in which its kernel lets programs run. Nothing else waits for one.

    It leads a session of its own; it is told from other children by having capabilities though it is nobody.

    :param status: name to value, of ``/proc/PID/status``.
    """
    return (
        status.get("Name") == STUB
        and status.get("Uid", "").split()[:1] == [NOBODY]
        and (status.get("NoNewPrivs"), status.get("Seccomp")) == ("1", "2")
        and int(status.get("CapEff", "0"), 16) != 0
    )


def _pid_namespace(pid: int) -> int | None:
    """The number of a process's pid namespace; None if it is this process's own, or unknown."""
    number = procfs.pid_namespace(pid)
    return None if number == procfs.pid_namespace() else number


ORPHANS = Orphans()
os.register_at_fork(after_in_child=ORPHANS.reset)
