"""Runs the commands that start a container, or a process in one: ``create``, ``run``, ``restore`` and ``exec``."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import anyio

from .._cli.command_line import command_line
from .._cli.dialects import RUNC
from .._cli.flags import path_argument
from .._cli.validation import check_type, naming
from .._errors import RuncError
from .._eventloop.shield import at_checkpoints_only, shielded
from .._io import IO, NullIO
from .._linux import fd_reserve
from .._linux.tempdir import private_directory
from .._orphans import ORPHANS
from .._process.cancel import TOKEN
from .._process.capture import Outcome
from .._process.memfile import read_log
from .._process.process import Process
from .._sockets import RuntimeSocket
from . import remnants, undo, verdict
from .call import Started
from .config import read_config
from .dialect import check_exact_id, check_executor, check_free_id, check_mounts, check_rlimits
from .pid_file import PidFile
from .runner import path_of
from .sandbox import signal_inside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

    from anyio.abc import TaskStatus

    from .._cli.dialects import Dialect
    from .._linux.pidfd import Pidfd
    from .call import StartCall
    from .config import Config
    from .runner import Runner

__all__ = ["Launched", "check_arguments", "launch", "start"]


class Launched:
    """A command under way that starts a container, or a process in one."""

    def __init__(self, runner: Runner, started: Started, process: Process, log: int) -> None:
        self._runner = runner
        self._started = started
        self._process = process
        self._log = log
        self.is_settled = False
        """Whether the command has ended, and all that follows from it is done."""

    @property
    def pid(self) -> int:
        """The pid of the runtime process."""
        return self._process.pid

    @property
    def state(self) -> remnants.Identity | None:
        """The state directory that the call created; None if only the runtime knows where it is."""
        return self._started.before.created_state()

    @property
    def cgroups(self) -> dict[str, tuple[int, int]]:
        """The cgroups that the call created, and the identity of each."""
        return self._started.before.created_cgroups()

    @property
    def config(self) -> Config | None:
        """The bundle's ``config.json``, as it was when the call began."""
        return self._started.config

    def tell_monitor(self) -> None:
        """Tell the monitor which processes the runtime has left running."""
        process = self.open_started()
        if process is not None:
            with process:
                self._runner.monitor.detached(process.pid)
        state = self.state
        for pid in remnants.read_helpers(state.path) if state is not None else ():
            self._runner.monitor.detached(pid)

    @property
    def started_pid(self) -> int | None:
        """The pid of what the runtime has started; None as long as it has started nothing."""
        return self._started.pid_file.read()

    def open_started(self) -> Pidfd | None:
        """Open the pidfd of what the runtime has started; None if that has ended and was reaped."""
        return remnants.open_started(self.started_pid, self._started.before.begun)

    async def wait(self) -> int:
        """Wait until the command has ended.

        :returns: the status of what it ran; 0 if it only started it.
        :raises CommandError: the runtime itself failed; nothing of the call is left.
        """
        status = await self._process.wait()
        self._started.pid_file.publish()
        undo.runner_ended(self._runner)
        log = read_log(self._log)
        if log:
            await shielded(remnants.sweep_cgroups, log, self._runner.settings.cleanup_timeout)
        try:
            outcome = Outcome(self._process.argv, status, log=log)
            await verdict.judge(self._runner, self._started, outcome, self._log)
        except RuncError:
            self.is_settled = True
            raise
        self.is_settled = True
        return status

    async def kill(self) -> None:
        """Kill the process that was started, as soon as it is."""
        await self.wait_started()
        process = self.open_started()
        if process is not None:
            with process, contextlib.suppress(ProcessLookupError):
                if not await self.signal_inside(signal.SIGKILL):
                    process.send_signal(signal.SIGKILL)

    async def signal_inside(self, number: int) -> bool:
        """Send a signal to the process that was started, if its pid on the host is not its own.

        :returns: whether it has no such pid; else nothing was done.
        :raises ProcessLookupError: it has ended.
        """
        inner = self._started.inner_pid_file
        if inner is None:
            return False
        pid = await inner.wait(self._process)
        if pid is None:
            raise ProcessLookupError(f"process {self.started_pid} has ended")
        await signal_inside(self._runner, self._started.id, pid, number)
        return True

    async def wait_started(self) -> None:
        """Wait until the runtime has started the process.

        :raises CommandError: the runtime failed; nothing of the call is left.
        """
        if await self._started.pid_file.wait(self._process) is None:
            await self.wait()


async def start(runner: Runner, call: StartCall, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> int:
    """Run a command that starts something, and wait until the command has ended.

    :returns: the status of what it ran; 0 if it only started it.
    """
    with ORPHANS.call() if call.detached else contextlib.nullcontext():
        async with launch(runner, call) as launched:
            task_status.started(launched.pid)
            status = await launched.wait()
            if call.detached:
                launched.tell_monitor()
            return status


@contextlib.asynccontextmanager
@at_checkpoints_only
async def launch(runner: Runner, call: StartCall) -> AsyncGenerator[Launched]:
    """Start a command that starts something, which inherits its streams.

    If the context is left before the command has ended, what the command has started is undone.
    """
    io = NullIO() if call.io is None else call.io
    check_type("io", io, IO, wanted="an IO")
    runner.monitor.runtime_starts()
    with _connect_sockets(call), contextlib.ExitStack() as stack:
        stack.callback(io.started)
        fd_reserve.fill()
        runner = stack.enter_context(runner.keep())
        folder = stack.enter_context(private_directory(in_memory=True))
        fds, log = stack.enter_context(runner.open_descriptors(call.preserve_fds))
        pid_file = _open_pid_file(runner, call, folder)
        stack.callback(pid_file.close)
        inner = PidFile(folder, name="inner-pid")
        paths = {name: path_of(fds, name, content) for name, content in call.files.items()}
        line, flags = _build_line(call, paths, pid_file.path, inner.path, runner.dialect)
        ends = await io.open()
        null = fds.adopt(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        fds.stdio(*(null if end is None else fds.duplicate(end) for end in ends))
        if await runner.find_dialect():  # only now: wrong arguments are refused before anything is started
            line, flags = _build_line(call, paths, pid_file.path, inner.path, runner.dialect)
        _check_id(runner, call)
        has_inner = not call.command.makes_container and not runner.dialect.has_host_pids
        started = _survey(runner, call, flags, pid_file, inner if has_inner else None)
        arguments = runner.build_arguments(fds, log, line)
        env = runner.build_environment()
        if started.token:
            env = {**(os.environ if env is None else env), TOKEN: started.token}
        process = Process(runner.settings, fds, arguments, env, log)
        launched = Launched(runner, started, process, log)
        try:
            await process.start()
            fds.close(log)
            io.started()
            with contextlib.nullcontext() if call.detached else pid_file.publish_early():
                yield launched
        finally:
            if not launched.is_settled:
                await shielded(undo.undo, runner, started, process, log)


@contextlib.contextmanager
def _connect_sockets(call: StartCall) -> Generator[None]:
    """Tell the sockets that the runtime is given how the call ends: a task may wait for the runtime to connect."""
    sockets: list[RuntimeSocket[Any]] = [value for value in call.options.values() if isinstance(value, RuntimeSocket)]
    for socket in sockets:
        socket.call_begins()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as exc:
        failure = exc
        raise
    finally:
        for socket in sockets:
            socket.call_ended(failure)


def _open_pid_file(runner: Runner, call: StartCall, folder: str) -> PidFile:
    copy = call.options.get("pid_file")
    if copy is None:
        return PidFile(folder, None)
    with naming("pid_file"):
        path = path_argument(copy)
    return PidFile(folder, runner.settings.resolve(path))


def _build_line(
    call: StartCall, paths: Mapping[str, str], pid_file: str, inner_pid_file: str, dialect: Dialect
) -> tuple[list[str], list[str]]:
    """Build the command line from the command on; and that without what follows its flags.

    :param paths: keyword to the path of a file that the runtime reads.
    """
    given = {
        **call.options,
        **paths,
        "bundle": call.bundle,
        "detach": call.detach,
        "preserve_fds": len(call.preserve_fds) or None,
        "pid_file": pid_file,
    }
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    words = [call.id, *call.words]
    extra_args = call.extra_args
    if not call.command.makes_container and not dialect.has_host_pids:
        extra_args = [f"--internal-pid-file={inner_pid_file}", *extra_args]
    line = command_line(call.command.name, given, positional=words, extra_args=extra_args, dialect=dialect)
    return line, line[: len(line) - len(words)]


def check_arguments(call: StartCall) -> None:
    """Refuse wrong arguments, as far as that can be done without a runtime.

    :raises TypeError: a value has the wrong type.
    :raises ValueError: a value cannot be right.
    """
    _build_line(call, dict.fromkeys(call.files, "/"), "/", "/", RUNC)


def _check_id(runner: Runner, call: StartCall) -> None:
    name, root = call.command.name, runner.find_root()
    if call.command.makes_container:
        check_executor(runner.dialect, runner.settings.executor, name)
        check_free_id(runner.dialect, name, call.id, root)
    else:
        check_exact_id(runner.dialect, name, [call.id], root)


def _survey(
    runner: Runner, call: StartCall, flags: Sequence[str], pid_file: PidFile, inner_pid_file: PidFile | None
) -> Started:
    """Look at what is there before the runtime process starts."""
    resolve = runner.settings.resolve
    config = None
    state = None
    cgroups: Sequence[str] = ()
    if call.command.makes_container:
        state = runner.state_directory(call.id)
        name = os.fsdecode(call.options.get("config", "config.json"))
        config = read_config(resolve(os.fsdecode(call.bundle or "")), name)
        check_mounts(runner.dialect, call.command.name, config)
        check_rlimits(runner.dialect, call.command.name, config)
        cgroups = runner.locate_cgroups(call.id, config.cgroups_path)
    criu_work_path = None
    if call.command.spared:
        path = call.options.get("work_path") or call.options.get("image_path") or "checkpoint"
        criu_work_path = resolve(os.fsdecode(path))
    return Started(
        command=call.command,
        id=call.id,
        detached=call.detached,
        flags=flags,
        pid_file=pid_file,
        inner_pid_file=inner_pid_file,
        config=config,
        before=remnants.survey(state, cgroups),
        begun=time.time_ns(),
        criu_work_path=criu_work_path,
        token=os.urandom(16).hex() if call.command.spared else "",
    )
