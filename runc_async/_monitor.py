"""Who waits for the ends of detached containers, and knows their exit statuses."""

from __future__ import annotations

import abc
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import anyio

from ._eventloop.readable import Watch
from ._linux import libc
from ._linux.exit_status import exit_status, shell_status, wait_for_exit_status
from ._linux.pidfd import reap_ended
from ._models import Exit
from ._orphans import ORPHANS, is_reaper

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._linux.pidfd import Pidfd

__all__ = ["Monitor", "PidfdMonitor", "Subreaper", "Watched", "make_exit"]


class Monitor(abc.ABC):
    """The interface of ``monitor=``: how the end of a detached process, which is not a child of this process, is known.

    The role of go-runc's ``ProcessMonitor``. `runtime_starts` and `runtime_ended` are called around every runtime
    process that starts something; `detached` for every process that such a call leaves running; `started` once for
    every container that `Runc.container` creates or `Runc.attach` takes over, and for a process of `Container.exec`
    that has a ``console_socket``; `wait` at most once at a time and not again after it has returned. All are called
    in the event loop.
    """

    def runtime_starts(self) -> None:  # noqa: B027
        """A runtime process that starts things is about to be started, or a container to be taken over.

        It may raise; then nothing is started.
        """

    def runtime_ended(self) -> None:  # noqa: B027
        """A runtime process that starts things has ended. Its children may have become this process's."""

    def detached(self, pid: int) -> None:  # noqa: B027
        """A call has ended (``create``, or with ``detach``) and left a process running.

        Nobody may ever wait for it; if it has become a child of this process, the monitor must reap it.

        :param pid: its number; the process may have ended already.
        """

    def started(self, process: Pidfd) -> None:  # noqa: B027
        """A detached process runs; `wait` may be called for it from now on.

        :param process: its pidfd; it stays the caller's, who closes it after `forgotten`.
        """

    @abc.abstractmethod
    async def wait(self, process: Pidfd) -> Exit:
        """Wait for the end of a process.

        :param process: the same object that `started` was given.
        :returns: its `Exit`; the status is None where it cannot be known.
        """

    def forgotten(self, process: Pidfd) -> None:  # noqa: B027
        """`wait` is not called for a process any more, ended or not."""


def make_exit(pid: int, status: int | None, timestamp: datetime | None = None) -> Exit:
    """Say how a process has ended.

    :param status: ``-N`` when signal N ended it, as `subprocess` has it; None if it is not known.
    :param timestamp: when; None is now.
    """
    shown = None if status is None else shell_status(status)
    signal = -status if status is not None and status < 0 else None
    return Exit(pid=pid, status=shown, timestamp=timestamp or datetime.now(UTC), signal=signal)


class Watched:
    """A process that is watched from its start, so that the time of its end is right whenever it is asked for.

    :param process: its pidfd, which stays the caller's.
    """

    def __init__(self, process: Pidfd) -> None:
        self.ended = anyio.Event()
        self.timestamp: datetime | None = None
        self._process = process
        self._watch = Watch(process.fileno(), self._end)

    def _end(self, pidfd: int) -> None:
        self.timestamp = datetime.now(UTC)
        self.ended.set()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._watch.close()


class _Claimed(Watched):
    """A process whose status is taken when it ends. If it is this process's child by then, it is reaped."""

    def __init__(self, process: Pidfd, owner: object) -> None:
        self.status: int | None = None
        self._owner = owner
        super().__init__(process)

    def _end(self, pidfd: int) -> None:
        self.status = exit_status(pidfd)
        super()._end(pidfd)
        if is_reaper() and ORPHANS.shares_pids():
            ORPHANS.adopt(self._owner)

    def reap(self) -> None:
        """Reap it, if it has ended as the runtime's child, and is this process's by now."""
        if self.ended.is_set():
            status = reap_ended(self._process.fileno())
            self.status = status if self.status is None else self.status


class PidfdMonitor(Monitor):
    """What `Runc` uses without a ``monitor=``: watches pidfds.

    The status is what the kernel tells. If this process is the container's parent (it is PID 1, or adopts orphans), it
    reaps the container, and the orphans that the container leaves. Otherwise the status is that in ``/proc``, until
    the parent has reaped the container, or after that what the kernel keeps (``PIDFD_GET_INFO``, Linux 6.15). If
    there is none of these it is None.
    """

    def __init__(self) -> None:
        self._watched: dict[Pidfd, _Claimed] = {}
        self._owner: object = None

    def runtime_ended(self) -> None:
        """See `Monitor.runtime_ended`."""
        if is_reaper():
            ORPHANS.adopt(self._owner)

    def detached(self, pid: int) -> None:
        """See `Monitor.detached`."""
        if is_reaper():
            ORPHANS.learn(pid)
            ORPHANS.adopt(self._owner)

    def started(self, process: Pidfd) -> None:
        """See `Monitor.started`."""
        claimed = self._watched[process] = _Claimed(process, self._owner)
        ORPHANS.claim(process.pid, claimed.reap)
        if is_reaper():
            ORPHANS.learn(process.pid)

    async def wait(self, process: Pidfd) -> Exit:
        """See `Monitor.wait`."""
        watched = self._watched[process]
        await watched.ended.wait()
        if watched.status is None:
            watched.status = await wait_for_exit_status(process.fileno())
        return make_exit(process.pid, watched.status, watched.timestamp)

    def forgotten(self, process: Pidfd) -> None:
        """See `Monitor.forgotten`."""
        watched = self._watched.pop(process, None)
        if watched is None:
            return
        watched.close()
        reap_ended(process.fileno())
        ORPHANS.release(process.pid)
        if is_reaper():
            ORPHANS.adopt(self._owner)
        ORPHANS.forget(process.pid)


class Subreaper(PidfdMonitor):
    """Makes this process the reaper of the containers that it starts, so that their exit status is known.

    An async context manager, and the ``monitor=`` for supervisors::

        async with Subreaper() as monitor:
            runc = Runc(monitor=monitor)

    Containers, and processes that they leave when their parent ends, become children of this process
    (``PR_SET_CHILD_SUBREAPER``), are watched by pidfd and reaped by ``waitid``. There is no handler of SIGCHLD, and
    no wait for "any" child: the status of a child that somebody else started is never taken. Several may be
    open at once, also in event loops of other threads; the last one to close gives the role back.

    The kernel gives this process every orphan below it, also what a program left behind that was started by other
    means. Of these, such as are in a session that is neither this process's nor their own are reaped; nothing tells the
    others from a child that somebody waits for.

    A client with a `Subreaper` that was not entered, or not in this process, raises `RuntimeError` before it starts
    anything: a process that was forked enters one of its own.
    """

    _lock: ClassVar = threading.Lock()
    _open: ClassVar = 0
    _before: ClassVar = False
    """Whether this process was a subreaper before the first one was entered."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = self
        self._entered_in = 0

    async def __aenter__(self) -> Self:
        if self._entered_in == os.getpid():
            raise RuntimeError("this Subreaper has been entered already")
        with Subreaper._lock:
            if Subreaper._open == 0:
                Subreaper._before = libc.is_child_subreaper()
                libc.set_child_subreaper(True)
            Subreaper._open += 1
        self._entered_in = os.getpid()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered_in != os.getpid():  # a copy of the parent's
            return
        self._entered_in = 0
        ORPHANS.adopt(self)
        ORPHANS.leave(self)
        with Subreaper._lock:
            Subreaper._open -= 1
            if Subreaper._open == 0:
                libc.set_child_subreaper(Subreaper._before)
        if is_reaper():
            ORPHANS.adopt()

    def runtime_starts(self) -> None:
        """See `Monitor.runtime_starts`.

        :raises RuntimeError: it was not entered, or was left; or this process was forked from the one that entered it.
        """
        if not self._entered_in:
            raise RuntimeError(
                "the monitor is a Subreaper that is not entered: use it in `async with Subreaper() as …:`"
            )
        if self._entered_in != os.getpid():
            raise RuntimeError(
                f"the monitor is a Subreaper of process {self._entered_in}, from which this process was forked: "
                "enter one in this process"
            )

    @classmethod
    def _forget_parent(cls) -> None:
        """A process that was forked is not a subreaper."""
        cls._lock = threading.Lock()
        cls._open = 0


os.register_at_fork(after_in_child=Subreaper._forget_parent)
