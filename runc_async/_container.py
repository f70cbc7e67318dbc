"""`Container`: a container as an async object, gone when its context is left."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal as signals
from typing import TYPE_CHECKING, Any, Generic

import anyio
import msgspec

from ._cli.command_line import signal_argument
from ._cli.options import ExecOptions, pick
from ._container_process import ContainerProcess
from ._errors import CommandError, ContainerNotFoundError, ContainerNotRunningError
from ._eventloop.groups import unwrap
from ._eventloop.shield import at_checkpoints_only, shielded
from ._files import ContainerFiles
from ._io import OutputCollector, PipeIO, feed
from ._lifecycle import undo
from ._lifecycle.call import EXEC, StartCall
from ._lifecycle.dialect import check_files
from ._lifecycle.exec_cgroup import ExecCgroup
from ._lifecycle.exec_process import build_exec, read_container_process
from ._lifecycle.start import launch
from ._linux import procfs
from ._linux.fd_reserve import give_up, with_room
from ._models import CompletedProcess, Exit
from ._monitor import make_exit
from ._orphans import ORPHANS
from ._usage import UsageReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from typing_extensions import TypeVar

    from ._cli.options import StrPath
    from ._io import IO
    from ._lifecycle.config import Config
    from ._lifecycle.remnants import Identity
    from ._lifecycle.runner import Runner
    from ._lifecycle.start import Launched
    from ._linux.descriptors import Descriptor
    from ._linux.pidfd import Pidfd
    from ._models import ContainerState, Stats
    from ._usage import Usage

    AnyIO = TypeVar("AnyIO", bound=IO | None)
    AnyIO_co = TypeVar("AnyIO_co", bound=IO | None, default=IO | None, covariant=True)
else:
    from typing import TypeVar

    AnyIO_co = TypeVar("AnyIO_co", covariant=True)

__all__ = ["Container"]

logger = logging.getLogger("runc_async")

OUTPUT_LIMIT = 1 << 20
"""Bytes of each output stream that `Container.run` keeps if it is not told otherwise."""


class Container(Generic[AnyIO_co]):
    """A container: created when the context of `Runc.container` is entered, gone when it is left.

    It keeps its own reference to the runtime, so it works on after the executor is closed. It is generic over its
    `io`: with ``io=PipeIO()`` type checkers know that ``container.io`` is a `PipeIO`.

    :ivar id: its id.
    :ivar pid: the pid, on the host, of its init; 0 if it had ended before `Runc.attach`.
    :ivar io: its streams, as given to `Runc.container`; None if none were.
    """

    def __init__(
        self,
        runner: Runner,
        id: str,
        process: Pidfd | None,
        io: AnyIO_co,
        *,
        state: Identity | None,
        cgroups: Mapping[str, tuple[int, int]] = {},
        config: Config | None = None,
    ) -> None:
        self.id = id
        self.pid = process.pid if process else 0
        self.io = io
        self._runner = runner
        self._process = process
        self._state = state
        self._cgroups = cgroups
        self._config = config
        self._monitor = runner.monitor
        self._waiting = anyio.Lock()
        self._exit: Exit | None = None
        if process is None:
            self._exit = make_exit(0, None)
            self._usage = UsageReader({})
        else:
            self._usage = _open_usage(process)
            try:
                self._monitor.started(process)
            except BaseException:
                self._usage.close()
                raise

    def __repr__(self) -> str:
        return f"<Container {self.id!r} pid={self.pid}>"

    @property
    def is_alive(self) -> bool:
        """Whether its init has not ended, so far as can be seen just now."""
        return self._exit is None and self._process is not None and procfs.is_alive(self.pid)

    async def start(self) -> None:
        """Start its program; see `Runc.start`."""
        await self._runner.run("start", {}, [self.id])

    async def wait(self) -> Exit:
        """Wait until its init has ended. Any number of tasks may, at once and again afterwards.

        A created container waits for its `start`: a `wait` before that ends only when another task starts the
        container, or it is killed.

        :returns: the `Exit`: the status as a shell gives it (128 + N for signal N), None where it cannot be known
            (without a `Subreaper` another process reaps it, and may do so before this one has seen how it ended; from
            Linux 6.15 on the kernel remembers that); and when it ended.
        """
        async with self._waiting:
            if self._exit is None:
                assert self._process is not None
                exit = await self._monitor.wait(self._process)
                self._exit = msgspec.structs.replace(exit, oom_killed=self._oom_killed())
        return self._exit

    async def kill(self, signal: int | signals.Signals | str = signals.SIGTERM, *, all: bool = False) -> None:
        """Send a signal to its init, or to all its processes.

        :param signal: as for `Runc.kill`; so is `all`.
        :raises ContainerNotRunningError: it has ended.
        :raises ContainerNotFoundError: it was deleted. Another container that has its id now gets no signal.
        """
        number = signal_argument(signal)
        if self._state is not None and not self._state.is_there():
            reason = f"container {self.id} was deleted: its state directory {self._state.path} is gone"
            raise ContainerNotFoundError(("kill", self.id), 1, reason)
        await self._runner.run("kill", {"all": all}, [self.id, number])

    async def stop(self, signal: int | signals.Signals | str = signals.SIGTERM, timeout: float = 10.0) -> Exit:
        """Ask it to end, wait, then kill it.

        :param signal: how to ask.
        :param timeout: seconds that it has to end by itself.
        :returns: its `Exit`.
        :raises ValueError: there is no such signal, or the timeout is negative.
        """
        signal_argument(signal)
        if timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout}")
        if self._exit is None:
            with contextlib.suppress(ContainerNotRunningError, ContainerNotFoundError):  # it has ended already
                await self.kill(signal)
            with anyio.move_on_after(timeout):
                return await self.wait()
            await self._end()
        return await self.wait()

    async def state(self) -> ContainerState:
        """Its state; see `Runc.state`."""
        return await self._runner.state(self.id)

    async def stats(self) -> Stats:
        """Its use of resources; see `Runc.stats`."""
        return await self._runner.stats(self.id)

    async def usage(self) -> Usage:
        """What it has used until now, also after its end. Reads its own cgroups; runs no command of the runtime.

        :returns: its `Usage`. Where the container is deleted meanwhile, what was read last.
        """
        await anyio.lowlevel.checkpoint()
        return self._usage.read()

    def files(self, path: StrPath) -> ContainerFiles:
        """Open one of its directories: ``with container.files("/work") as files:``.

        Best between its creation and its start, while nothing in it can be swapped.

        :param path: the directory in the container, absolute.
        :returns: its `ContainerFiles`, which work until they are closed, also when the container is gone.
        :raises UnsupportedError: the runtime does not show the container's files to the host, as gVisor.
        :raises ContainerNotRunningError: it has ended.
        :raises ValueError: the path is not absolute, or contains ``..``.
        :raises OSError: there is no such directory, or it is behind a symbolic link.
        """
        check_files(self._runner.dialect, self.id)
        ended = ContainerNotRunningError(("files", self.id), 1, f"container {self.id} has ended")
        if self._process is None or not procfs.is_alive(self.pid):
            raise ended
        files = ContainerFiles.open(self.pid, path)
        try:
            self._process.send_signal(0)  # else its pid may have been another process's
        except ProcessLookupError:
            files.close()
            raise ended from None
        return files

    async def pause(self) -> None:
        """Suspend all its processes; see `Runc.pause`."""
        await self._runner.run("pause", {}, [self.id])

    async def resume(self) -> None:
        """Let it go on; see `Runc.resume`."""
        await self._runner.run("resume", {}, [self.id])

    @at_checkpoints_only
    async def run(
        self,
        args: Sequence[str],
        *,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: StrPath | None = None,
        user: str | int | None = None,
        timeout: float | None = None,
        output_limit: int | None = OUTPUT_LIMIT,
    ) -> CompletedProcess:
        """Run a further process in it to its end and capture what it prints, as `subprocess.run` does.

        The process is at least as confined as the container's own: the same capabilities, user, limits and
        no-new-privileges.

        :param args: the program and its arguments.
        :param input: what it reads from stdin (a str is encoded as UTF-8); None is ``/dev/null``.
        :param env: variables beside those of the container.
        :param cwd: its working directory in the container.
        :param user: ``uid`` or ``uid:gid``, in numbers.
        :param timeout: seconds after which the process is killed; None means no limit.
        :param output_limit: bytes of each stream that are kept; more is read and dropped. None means no limit.
        :returns: its status, stdout and stderr, whether it was killed for its time, and how many bytes were dropped.
            As with `subprocess.run`, it may have to wait for a process that was left behind with these streams (runc
            copies them, and waits for their end).
        :raises ContainerNotRunningError: the container is not running.
        :raises CommandError: it cannot be executed.
        :raises ValueError: a limit is negative.

        Cancelled, or at its timeout, everything that the process has started is killed, daemons included. What a
        process that has ended left in the background runs on.
        """
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout}")
        data = input.encode() if isinstance(input, str) else input
        outputs = OutputCollector(output_limit), OutputCollector(output_limit)
        given = {"env": env, "cwd": cwd, "user": user}
        words, files, options = build_exec(args, given, self._own_process())
        async with self._own_cgroup(options) as (options, cgroup), PipeIO(stdin=data is not None) as io:
            call = StartCall(EXEC, self.id, io=io, options=options, words=words, files=files)
            async with launch(self._runner, call) as launched:
                stop = functools.partial(self._kill_and_wait, launched, cgroup)
                status, timed_out = await _communicate(launched, io, data, outputs, timeout, stop)
            if cgroup is not None:  # what runs on in the background stays, as with `subprocess.run`
                cgroup.release()
        stdout, stderr = outputs
        return CompletedProcess(
            args=list(args),
            status=status,
            stdout=bytes(stdout.data),
            stderr=bytes(stderr.data),
            timed_out=timed_out,
            stdout_dropped=stdout.dropped,
            stderr_dropped=stderr.dropped,
        )

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def exec(
        self,
        args: Sequence[str] | Mapping[str, Any],
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        cgroup: str | Sequence[str] | None = None,
        ignore_paused: bool = False,
        cwd: StrPath | None = None,
        env: Mapping[str, str] | Sequence[str] | None = None,
        tty: bool = False,
        user: str | int | None = None,
        additional_gids: Sequence[int] | None = None,
        process_label: str | None = None,
        apparmor: str | None = None,
        no_new_privs: bool = False,
        cap: str | Sequence[str] | None = None,
        extra_args: Sequence[str] = (),
    ) -> AsyncGenerator[ContainerProcess]:
        """Run a further process in it: ``async with container.exec(["sh"], io=PipeIO()) as process:``.

        Keywords that are not described here are flags of the runtime: see `ExecOptions`.

        :param args: the program and its arguments, or an OCI process object. What the object leaves out of what
            confines a process comes from the container's own process.
        :param io: its streams; None is ``/dev/null``.
        :param preserve_fds: as for `Runc.create`.
        :returns: a running `ContainerProcess`. Leaving the context kills it, if it still runs, and everything that
            it has started, daemons included. With a ``console_socket`` (and ``tty``) its status is known as a
            container's is, see `wait`.
        :raises ContainerNotRunningError: the container is not running.
        :raises CommandError: it cannot be executed.
        """
        words, files, rest = build_exec(args, pick(ExecOptions, locals()), self._own_process(), extra_args)
        # The runtimes hand a terminal on only where they do not stay with the process themselves.
        detached = rest.get("console_socket") is not None
        async with contextlib.AsyncExitStack() as stack:
            rest, _ = await stack.enter_async_context(self._own_cgroup(rest))
            if io is not None:
                await stack.enter_async_context(io)
            call = StartCall(
                EXEC, self.id, None, io, preserve_fds, extra_args, rest, detach=detached, words=words, files=files
            )
            with ORPHANS.call():
                launched = await stack.enter_async_context(launch(self._runner, call))
                await launched.wait_started()
                process = ContainerProcess(launched, io, self._monitor if detached else None)
            try:
                if detached:
                    await launched.wait()
                yield process
            finally:
                await shielded(process._leave)

    def _own_process(self) -> Mapping[str, Any]:
        if self._config is not None and self._config.process:
            return self._config.process
        return read_container_process(self._runner, self.id)

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def _own_cgroup(
        self, options: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[Mapping[str, Any], ExecCgroup | None]]:
        """Make a cgroup for an ``exec``, if there can be one, and kill what is in it on leaving; see `ExecCgroup`."""
        cgroup = None
        if self._process is not None and options.get("cgroup") is None:
            cgroup = ExecCgroup.make(self._process, self._runner.dialect.name)
        if cgroup is None:
            yield options, None
            return
        try:
            yield {**options, "cgroup": cgroup.argument}, cgroup
        finally:
            await shielded(cgroup.kill, self._runner.settings.cleanup_timeout)

    async def _kill_and_wait(self, launched: Launched, cgroup: ExecCgroup | None) -> int:
        """Kill what a call has started, as soon as it has; the status of its process."""
        await launched.kill()
        if cgroup is not None:
            await cgroup.kill(self._runner.settings.cleanup_timeout)
        return await launched.wait()

    def _oom_killed(self) -> bool | None:
        for room in (contextlib.nullcontext, give_up):
            with room(), contextlib.suppress(OSError):  # out of descriptors
                return self._usage.oom_killed()
        return None

    async def _end(self) -> None:
        """Kill it and wait for its end."""
        if self._process is None or self._exit is not None:
            return
        if not procfs.leads_pid_namespace(self.pid):
            with contextlib.suppress(CommandError):
                await self.kill(signals.SIGKILL, all=True)
        await undo.kill_init(self._runner, self.id, self._process, self._state)

    async def _remove(self) -> None:
        """Kill and delete it, within the time that the client has for it."""
        timeout = self._runner.settings.cleanup_timeout
        with contextlib.suppress(OSError):  # out of descriptors
            self._usage.read()  # its cgroups go
        with anyio.move_on_after(timeout):
            await with_room(undo.remove, self._runner, self.id, self._process, self._state, self._cgroups)
            return
        raise TimeoutError(f"container {self.id} could not be removed within {timeout} s")

    def _release(self) -> None:
        if self._process is not None:
            self._monitor.forgotten(self._process)
            self._process.close()
        self._usage.close()
        self._runner.release()


async def _communicate(
    launched: Launched,
    io: PipeIO,
    data: bytes | None,
    outputs: Sequence[OutputCollector],
    timeout: float | None,
    stop: Callable[[], Awaitable[int]],
) -> tuple[int, bool]:
    """Feed a process, collect what it prints, and wait for its end.

    :param stop: kills it when its time is over, and gives its status.
    :returns: its status, and whether its time was over.
    """
    status = 0
    timed_out = False
    try:
        async with anyio.create_task_group() as group:
            if data is not None:
                group.start_soon(feed, io, data)
            for output, stream in zip(outputs, io.outputs, strict=True):
                group.start_soon(output.read, stream)
            with anyio.move_on_after(timeout) as scope:
                status = await launched.wait()
            if scope.cancelled_caught:
                timed_out = True
                status = await stop()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise unwrap(errors) from None
    for output, stream in zip(outputs, io.outputs, strict=True):
        output.drain(stream)
    return status, timed_out


def _open_usage(init: Pidfd) -> UsageReader:
    """Open a container's cgroups; none if its init has ended and was reaped, since others may have its pid by now."""
    usage = UsageReader.open(init.pid)
    try:
        init.send_signal(0)
    except ProcessLookupError:
        usage.close()
    return usage
