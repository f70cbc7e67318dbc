"""One runtime process: what is executed, its start and its end."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import _spawn
from .._cli.messages import parse_log
from .._errors import ExecutorError, StatusUnknownError
from .._eventloop.shield import shielded
from .._linux import fd_reserve
from .._linux.exit_status import why_unknown
from .._linux.signals import signal_name
from . import trace
from .memfile import read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._executor import Executor
    from .child_fds import ChildFds

__all__ = ["Process", "Settings"]

INNOCENT = fd_reserve.EXHAUSTED | {errno.ENOMEM, errno.E2BIG}
"""Errors of a start that say nothing about the executable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How every runtime process of one client is started."""

    executor: Executor
    work_dir: str | None = None
    setpgid: bool = False
    pdeathsig: int | None = None
    cleanup_timeout: float = 5.0
    trace: Callable[[trace.Call], object] | None = None

    def resolve(self, path: str) -> str:
        """Make a path absolute, relative to the directory in which the runtime is started."""
        return os.path.abspath(os.path.join(self.work_dir or "", path))


@dataclass(slots=True)
class Process:
    """One runtime process. Every process that was started is reaped, by `wait` or by a function of `cancel`."""

    settings: Settings
    fds: ChildFds
    arguments: Sequence[str]
    env: Mapping[str, str] | None
    log: int
    """The descriptor that the runtime logs to."""
    argv: tuple[str, ...] = ()
    """The command line, for errors and logs: without the values of ``--env``."""
    status: int | None = field(default=None, init=False)
    """The exit status, ``-N`` when signal N ended the process; None until it is known."""
    _has_ended: bool = field(default=False, init=False)
    _child: _spawn.Child | None = field(default=None, init=False)
    _started: tuple[int, float] = field(default=(0, 0.0), init=False)
    """When it was started: nanoseconds since the epoch, and seconds of the monotonic clock."""

    @property
    def pid(self) -> int:
        """The process id; 0 if the process was never started."""
        return self._child.pid if self._child else 0

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not been reaped."""
        return self._child is not None and not self._has_ended

    async def start(self) -> None:
        """Start the process. A cancellation that arrives meanwhile is raised when it has started.

        :raises ExecutorError: the executable cannot be executed.
        :raises OSError: no descriptor, process or memory is free, or the working directory is missing.
        """
        executable = self.settings.executor.executable()
        if executable.fd is not None:
            path = f"/proc/self/fd/{self.fds.executable(executable.fd)}"
        elif executable.path is not None:
            path = executable.path
        else:
            raise ExecutorError(f"{self.settings.executor!r} gave neither a path nor a descriptor")
        program, argv = path, (*executable.argv, *self.arguments)
        self.argv = tuple(trace.without_values(argv))
        if self.settings.pdeathsig is not None:
            arguments = (*executable.argv[1:], *self.arguments)
            program, argv = _with_pdeathsig(self.settings.pdeathsig, path, arguments)
        request = _spawn.Request(
            program, argv, self.env, self.fds.child_map(), self.settings.work_dir, self.settings.setpgid
        )
        try:
            await shielded(self._start, request)
        except OSError as exc:
            raise _explain(exc, path, executable.argv[0], self.settings.work_dir) from exc

    async def _start(self, request: _spawn.Request) -> None:
        self._started = time.time_ns(), time.monotonic()
        self._child = await _spawn.start(request)

    async def wait(self) -> int:
        """Wait until the process has ended, and reap it.

        :returns: its exit status, ``-N`` when signal N ended it.
        :raises StatusUnknownError: the process has ended, and its status cannot be known.
        """
        await self.reap()
        if self.status is None:
            raise StatusUnknownError(f"the exit status of {self.argv[0]} cannot be known: {why_unknown()}")
        return self.status

    async def reap(self) -> None:
        """Wait until the process has ended, and reap it, whether its status can be known or not."""
        if not self.is_running:
            return
        assert self._child is not None
        status = await self._child.wait()
        if self._has_ended:  # another task was first
            return
        self._has_ended = True
        self.status = status
        if status is not None:
            began, clock = self._started
            duration = time.monotonic() - clock
            entries = parse_log(read_log(self.log))
            trace.report(trace.Call(self.argv, self.pid, began, duration, status, entries), self.settings.trace)

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process was started and has not been reaped."""
        if self._child is not None and self.is_running:
            self._child.send_signal(number)


def _with_pdeathsig(number: int, path: str, arguments: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    # Only a process can ask this for itself, before it executes the runtime; a launcher does, not a preexec_fn.
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ExecutorError("pdeathsig needs the program setpriv (Debian package util-linux) on PATH")
    return setpriv, ("setpriv", "--pdeathsig", signal_name(number), "--", path, *arguments)


def _explain(exc: OSError, path: str, name: str, work_dir: str | None) -> OSError | ExecutorError:
    """Say what could not be executed, and why. Exhaustion stays an `OSError`."""
    reason = os.strerror(exc.errno or 0)
    if exc.errno in INNOCENT:
        return OSError(exc.errno, reason)
    if work_dir is not None and not os.path.isdir(work_dir):
        return OSError(exc.errno, f"work_dir cannot be entered: {reason}", work_dir)
    if path.startswith("/proc/self/fd/"):
        has_proc = os.path.exists("/proc/self/fd")
        if not has_proc:
            reason = "/proc is not mounted, and a descriptor is executed by /proc/self/fd/N"
        path, is_there = name, has_proc
    else:
        is_there = os.path.exists(path)
    if exc.errno == errno.ENOENT and is_there:
        reason = "its interpreter is missing"
    return ExecutorError(f"{path} cannot be executed: {reason}")
