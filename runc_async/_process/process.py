"""One call of the runtime, from its command line to its end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import anyio

from .. import _spawn
from .._errors import ExecutorError
from .._eventloop.shield import shielded
from .._linux.pidfd import Pidfd, reap_ended
from .._linux.signals import signal_name
from . import capture, trace
from .limiter import LONGEST_TURN, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._executor import Executor
    from .child_fds import Leases

__all__ = ["Host", "Outcome", "Process", "captured"]

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.E2BIG})
RETRY = 0.003
"""Seconds between two looks at the children of a runtime process that is being abandoned."""
STOPS_WITHIN = 0.1
"""Seconds that a runtime process gets to stop. One that does not is in the middle of a system call."""
COPIES_FOR = 0.1
"""Seconds that ``exec`` gets to end when its process has gone."""


@dataclass(frozen=True, slots=True)
class Host:
    """How runtime processes are started."""

    executor: Executor
    work_dir: str | None = None
    setpgid: bool = False
    pdeathsig: int | None = None
    cleanup_timeout: float = 5.0
    trace: Callable[[trace.Call], object] | None = None

    def seen(self, path: str) -> str:
        """A path as it is meant: from where the runtime is started, whatever directory it changes to then."""
        return os.path.abspath(os.path.join(self.work_dir or "", path))


class Outcome(NamedTuple):
    """What a finished runtime process left."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    log: bytes = b""
    overflowed: bool = False
    """Whether its output ran into the limit."""


@dataclass(slots=True)
class Process:
    """One runtime process: started, waited for or abandoned, and always reaped."""

    host: Host
    leases: Leases
    arguments: Sequence[str]
    env: Mapping[str, str] | None
    argv: tuple[str, ...] = ()
    """Its command line, for errors and logs: without the values of ``--env``."""
    _child: _spawn.Child | None = field(default=None, init=False)
    status: int | None = field(default=None, init=False)
    """Its exit status, when it has ended and was reaped."""
    _was_killed: bool = field(default=False, init=False)
    _started: tuple[int, float] = field(default=(0, 0.0), init=False)
    """When it was started: nanoseconds since the epoch, and the monotonic clock's seconds."""

    @property
    def pid(self) -> int:
        """Its process id; 0 where it was never started."""
        return self._child.pid if self._child else 0

    async def start(self) -> None:
        """Start it. A cancellation that arrives meanwhile is raised when it has started.

        :raises ExecutorError: there is nothing that can be executed.
        :raises OSError: descriptors, processes or memory are exhausted, or the working directory is missing.
        """
        executable = self.host.executor.executable()
        if executable.fd is not None:
            path = f"/proc/self/fd/{self.leases.executable(executable.fd)}"
        elif executable.path is not None:
            path = executable.path
        else:
            raise ExecutorError(f"{self.host.executor!r} gave neither a path nor a descriptor")
        program, argv = path, (*executable.argv, *self.arguments)
        self.argv = tuple(trace.without_values(argv))
        if self.host.pdeathsig is not None:
            program, argv = _with_pdeathsig(self.host.pdeathsig, path, (*executable.argv[1:], *self.arguments))
        request = _spawn.Request(
            program, argv, self.env, self.leases.child_map(), self.host.work_dir, self.host.setpgid
        )
        try:
            await shielded(self._start, request)
        except OSError as exc:
            raise _explained(exc, path, executable.argv[0], self.host.work_dir) from exc

    async def _start(self, request: _spawn.Request) -> None:
        self._started = time.time_ns(), time.monotonic()
        self._child = await _spawn.start(request)

    async def wait(self) -> int:
        """Wait until it has ended; its exit status, ``-N`` when signal N ended it."""
        if self.status is None:
            assert self._child is not None
            status = await self._child.wait()
            if self.status is None:  # else another task was first
                self.status = status
                self._tell(status)
        return self.status

    def _tell(self, status: int) -> None:
        began, clock = self._started
        trace.ended(trace.Call(self.argv, self.pid, began, time.monotonic() - clock, status), self.host.trace)

    async def kill(self) -> None:
        """Kill it and reap it, and those of its children that have ended. To be shielded by the caller.

        These may become ours to reap: a Go program that asks for its first pidfd starts one that ends at once.
        """
        if self._child is None or self.status is not None:
            return
        await self._stop()
        with contextlib.ExitStack() as stack:
            ended = _Taken(stack)
            for pid in children(self.pid):
                ended.add(pid)
            self._child.kill()
            await self.wait()
            ended.reap()

    async def _stop(self) -> None:
        """Stop it, so that it starts no more children. Those that it was about to start, it has then."""
        _kill(self.pid, signal.SIGSTOP)
        for _ in range(round(STOPS_WITHIN / RETRY)):
            if _has_stopped(self.pid):
                return
            await anyio.sleep(RETRY)

    async def finish(self) -> None:
        """Let it end by itself for a while, then kill it; reap it. To be shielded by the caller."""
        if self._child is not None:
            with anyio.move_on_after(self.host.cleanup_timeout):
                await self.wait()
            await self.kill()

    async def interrupt(self) -> None:
        """Kill it, but let its children end by themselves; reap it. To be shielded by the caller.

        For CRIU, which answers the loss of its runtime by letting go what it was writing. CRIU killed outright
        leaves the tasks that it holds frozen; so it is only where it has not ended after ``cleanup_timeout``.
        """
        if self._child is None or self.status is not None:
            return
        await self._stop()
        orphans: list[int] = []
        for pid in children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                orphans.append(os.pidfd_open(pid))
        await self.kill()
        with anyio.move_on_after(self.host.cleanup_timeout):
            for pidfd in orphans:
                await anyio.wait_readable(pidfd)
        for pidfd in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)

    async def abandon(self, command: str) -> int | None:
        """Take away what it is starting, let it clean up after itself, and reap it.

        A runtime that is killed while it makes a container leaves its init, its cgroup or both behind. One
        whose children are killed takes its own error road and removes everything. Only when it has not ended
        after ``cleanup_timeout`` it is killed itself. To be shielded by the caller.

        :param command: what it runs. ``exec`` has nothing to clean up: where its process has gone and it still copies
            what others in the container write to the streams of that one, it is killed. ``restore`` has CRIU between.
        :returns: its exit status; None when it had to be killed or was never started.
        """
        if self._child is None or self._was_killed:
            return None
        with contextlib.ExitStack() as stack:
            taken = _Taken(stack)
            status = await self._abandoned(command, taken)
            with anyio.move_on_after(self.host.cleanup_timeout):
                await taken.gone()
        return status

    async def _abandoned(self, command: str, taken: _Taken) -> int | None:
        # Where CRIU does not end without its children, it is killed as well.
        for spared in ("criu", "") if command == "restore" else ("",):
            alone_since = anyio.current_time()
            with anyio.move_on_after(self.host.cleanup_timeout):
                while self.status is None:
                    if found := children(self.pid):
                        alone_since = anyio.current_time()
                        if spared:
                            for pid in found:
                                _take_away(pid, spared)
                        else:
                            await self._take_children(taken)
                    with anyio.move_on_after(RETRY):
                        await self.wait()
                    if command == "exec" and anyio.current_time() > alone_since + COPIES_FOR:
                        await self._kill_alone()
                return self.status
        orphans = children(self.pid)
        self._was_killed = True
        await self.kill()
        for pid in orphans:
            taken.kill(pid)
        return None

    async def _kill_alone(self) -> None:
        """Kill it, unless it has children by now."""
        await self._stop()
        if children(self.pid):
            _kill(self.pid, signal.SIGCONT)
        else:
            await self.kill()

    async def _take_children(self, taken: _Taken) -> None:
        """Kill its children, and those that they leave to it (``crun exec``). Else it might end without all of them."""
        _kill(self.pid, signal.SIGSTOP)
        try:
            while found := [pid for pid in children(self.pid) if pid not in taken]:
                for pid in found:
                    taken.kill(pid)
                await taken.gone()
        finally:
            _kill(self.pid, signal.SIGCONT)


class _Taken:
    """Children of a runtime process. When it has ended itself, they may be this process's to reap.

    :param stack: closes their pidfds.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._processes: dict[int, Pidfd | None] = {}

    def __contains__(self, pid: int) -> bool:
        return pid in self._processes

    def add(self, pid: int) -> Pidfd | None:
        """Know of one; None if it is gone."""
        try:
            self._processes[pid] = self._stack.enter_context(Pidfd.open(pid))
        except ProcessLookupError:
            self._processes.setdefault(pid, None)
        return self._processes[pid]

    def kill(self, pid: int) -> None:
        process = self.add(pid)
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # newuidmap, which ends by itself
                process.send_signal(signal.SIGKILL)

    def reap(self) -> None:
        """Reap those that have ended and are ours by now."""
        for process in self._processes.values():
            if process is not None:
                reap_ended(process.fileno())

    async def gone(self) -> None:
        """Wait for their ends; until then their cgroup is busy."""
        for process in self._processes.values():
            if process is not None:
                await process.wait()
                reap_ended(process.fileno())


async def captured(
    host: Host,
    arguments: Sequence[str],
    env: Mapping[str, str] | None,
    leases: Leases,
    log: int,
    patient: bool = False,
    interrupt: bool = False,
) -> Outcome:
    """Run a command that starts nothing, and capture what it prints and logs.

    When it is cancelled, the runtime process is killed and reaped, and then the cancellation goes on.

    :param leases: the descriptors of the call.
    :param log: the one among them that the runtime logs to.
    :param patient: when cancelled, give the runtime ``cleanup_timeout`` seconds to finish by itself.
    :param interrupt: when cancelled, kill the runtime and give its children that time.
    """
    stdin = leases.adopt(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    stdout = leases.adopt(capture.memory_file("stdout", limit=capture.STDOUT_LIMIT))
    stderr = leases.adopt(capture.memory_file("stderr", limit=capture.STDERR_LIMIT))
    leases.stdio(stdin, stdout, stderr)
    process = Process(host, leases, arguments, env)
    try:
        async with turns() as turn:
            await process.start()
            leases.close(stdout, stderr, log)
            if turn.value == 0:  # one that hangs must not hold up the others; the last turn goes round
                with anyio.move_on_after(LONGEST_TURN):
                    await process.wait()
            else:
                await process.wait()
        status = await process.wait()
    except BaseException:
        await shielded(process.interrupt if interrupt else process.finish if patient else process.kill)
        raise
    return Outcome(
        process.argv,
        status,
        capture.printed(stdout),
        capture.printed(stderr),
        capture.logged(log),
        capture.overflowed(stdout, capture.STDOUT_LIMIT),
    )


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads; none where it has ended."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _take_away(pid: int, spared: str) -> None:
    """Kill a child of the runtime. Of CRIU, its children first: killed itself it leaves mounts in its work path."""
    name = ""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        name = file.read().strip()
    for victim in children(pid) if name == spared else [pid]:
        _kill(victim)


def _has_stopped(pid: int) -> bool:
    """Whether a child of ours has stopped, with all its threads, or ended."""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _with_pdeathsig(number: int, path: str, arguments: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    # Only a process can ask this for itself, before it executes the runtime; a launcher does, not a preexec_fn.
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ExecutorError("pdeathsig needs the program setpriv (Debian package util-linux) on PATH")
    return setpriv, ("setpriv", "--pdeathsig", signal_name(number), "--", path, *arguments)


def _explained(exc: OSError, path: str, name: str, work_dir: str | None) -> OSError | ExecutorError:
    """Say what could not be executed, and why. Exhaustion stays an `OSError`."""
    if exc.errno in EXHAUSTED:
        return OSError(exc.errno, os.strerror(exc.errno or 0))
    if work_dir is not None and not os.path.isdir(work_dir):
        return OSError(exc.errno, f"work_dir cannot be entered: {os.strerror(exc.errno or 0)}", work_dir)
    reason = os.strerror(exc.errno or 0)
    if path.startswith("/proc/self/fd/"):
        if not os.path.exists("/proc/self/fd"):
            reason = "/proc is not mounted, and a descriptor is executed by /proc/self/fd/N"
        path = name
        if exc.errno == errno.ENOENT and os.path.exists("/proc/self/fd"):
            reason = "its interpreter is missing"
    elif exc.errno == errno.ENOENT and os.path.exists(path):
        reason = "its interpreter is missing"
    return ExecutorError(f"{path} cannot be executed: {reason}")
