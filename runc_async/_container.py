"""`Container`: a container as an async object, gone when its context is left."""

from __future__ import annotations

import contextlib
import logging
import os
import signal as signals
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import anyio

from ._errors import CommandError
from ._eventloop.shield import at_checkpoints_only, shielded
from ._io import PipeIO
from ._lifecycle.remnants import leads_pid_namespace, pid_in
from ._lifecycle.runner import process_object
from ._linux.fd_reserve import with_room
from ._linux.inotify import Written
from ._linux.pidfd import Pidfd
from ._linux.tempdir import private_directory
from ._models import CompletedProcess, Exit
from ._monitor import PidfdMonitor, Watched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from typing import Unpack

    from ._cli.options import ExecOptions, StrPath
    from ._client import Runc
    from ._eventloop.streams import FdReceiveStream
    from ._io import IO
    from ._lifecycle.runner import Launched, Road
    from ._linux.descriptors import Descriptor
    from ._models import ContainerState, Stats
    from ._monitor import Monitor

__all__ = ["Container", "ContainerProcess", "attached", "created"]

logger = logging.getLogger("runc_async")

THAW_AFTER = 0.2
"""Seconds after which a killed container that has not ended is taken for a frozen one."""


class Container:
    """A container: created when the context of `Runc.container` is entered, gone when it is left.

    :ivar id: its id.
    :ivar pid: the pid, on the host, of its init; 0 if it had ended before `Runc.attach`.
    :ivar io: its streams, as given to `Runc.container`; None if none were.
    """

    def __init__(self, runc: Runc, road: Road, id: str, process: Pidfd | None, io: IO | None) -> None:
        self.id = id
        self.pid = process.pid if process else 0
        self.io = io
        self._runc = runc
        self._road = road
        self._process = process
        self._monitor = runc.monitor or PidfdMonitor()
        self._waiting = anyio.Lock()
        self._exit: Exit | None = None
        if process is None:
            self._exit = Exit(pid=0, status=None, timestamp=datetime.now(UTC))
        else:
            self._monitor.started(process)

    def __repr__(self) -> str:
        return f"<Container {self.id!r} pid={self.pid}>"

    async def start(self) -> None:
        """Start its program; see `Runc.start`."""
        await self._runc.start(self.id)

    async def wait(self) -> Exit:
        """Wait until its init has ended. Any number of tasks may, at once and again afterwards.

        :returns: the `Exit`: the status as a shell gives it (128 + N for signal N), None where it cannot be known
            (no `Subreaper`, and Linux older than 6.15); and when it ended.
        """
        async with self._waiting:
            if self._exit is None:
                assert self._process is not None
                self._exit = await self._monitor.wait(self._process)
        return self._exit

    async def kill(self, signal: int | signals.Signals | str = signals.SIGTERM, *, all: bool = False) -> None:
        """Send a signal to its init, or to all its processes.

        :param signal: as for `Runc.kill`; so is `all`.
        :raises ContainerNotRunningError: it has ended.
        """
        await self._runc.kill(self.id, signal, all=all)

    async def stop(self, signal: int | signals.Signals | str = signals.SIGTERM, timeout: float = 10.0) -> Exit:
        """Ask it to end, wait, then kill it.

        :param signal: how to ask.
        :param timeout: seconds that it has to end by itself.
        :returns: its `Exit`.
        """
        if timeout < 0:
            raise ValueError(f"timeout must not be negative: {timeout}")
        if self._exit is None:
            with contextlib.suppress(CommandError):  # it has ended already
                await self.kill(signal)
            with anyio.move_on_after(timeout):
                return await self.wait()
            await self._end()
        return await self.wait()

    async def state(self) -> ContainerState:
        """Its state; see `Runc.state`."""
        return await self._runc.state(self.id)

    async def stats(self) -> Stats:
        """Its use of resources; see `Runc.stats`."""
        return await self._runc.stats(self.id)

    async def pause(self) -> None:
        """Suspend all its processes; see `Runc.pause`."""
        await self._runc.pause(self.id)

    async def resume(self) -> None:
        """Let it go on; see `Runc.resume`."""
        await self._runc.resume(self.id)

    @at_checkpoints_only
    async def run(
        self,
        args: Sequence[str],
        *,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: StrPath | None = None,
        user: str | int | None = None,
    ) -> CompletedProcess:
        """Run a further process in it to its end and capture what it prints, as `subprocess.run` does.

        :param args: the program and its arguments.
        :param input: what it reads from stdin (a str is encoded as UTF-8); None is ``/dev/null``.
        :param env: variables beside those of the container.
        :param cwd: its working directory in the container.
        :param user: ``uid`` or ``uid:gid``, in numbers.
        :returns: its status, stdout and stderr. As with `subprocess.run`, it may have to wait for a process that
            was left behind with these streams (runc copies them, and waits for their end).
        :raises ContainerNotRunningError: the container is not running.
        :raises CommandError: it cannot be executed.
        """
        words, _ = process_object(args)
        data = input.encode() if isinstance(input, str) else input
        options: dict[str, Any] = {"env": env, "cwd": cwd, "user": user}
        async with PipeIO(stdin=data is not None) as io:
            launch = self._road.launched("exec", self.id, None, io, (), (), options, detached=False, words=words)
            async with launch as launched:
                outputs = bytearray(), bytearray()
                status = 0
                try:
                    async with anyio.create_task_group() as group:
                        if data is not None:
                            group.start_soon(_feed, io, data)
                        for output, stream in zip(outputs, (io._output(1), io._output(2)), strict=True):
                            group.start_soon(_read, stream, output)
                        status = await launched.wait()
                        group.cancel_scope.cancel()
                except BaseExceptionGroup as errors:
                    raise _single(errors) from None
                for output, stream in zip(outputs, (io._output(1), io._output(2)), strict=True):
                    _drain(stream, output)
        return CompletedProcess(args=list(args), status=status, stdout=bytes(outputs[0]), stderr=bytes(outputs[1]))

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def exec(
        self,
        args: Sequence[str] | Mapping[str, Any],
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        extra_args: Sequence[str] = (),
        **options: Unpack[ExecOptions],
    ) -> AsyncGenerator[ContainerProcess]:
        """Run a further process in it: ``async with container.exec(["sh"], io=PipeIO()) as process:``.

        :param args: the program and its arguments, or an OCI process object.
        :param io: its streams; None is ``/dev/null``.
        :param preserve_fds: as for `Runc.create`.
        :param options: further flags, see `ExecOptions`; ``console_socket`` among them.
        :returns: a running `ContainerProcess`. Leaving the context kills it, if it still runs. With a
            ``console_socket`` (and ``tty``) its status is known as a container's is, see `wait`.
        :raises ContainerNotRunningError: the container is not running.
        :raises CommandError: it cannot be executed.
        """
        words, files = process_object(args)
        async with contextlib.AsyncExitStack() as stack:
            if io is not None:
                await stack.enter_async_context(io)
            folder = stack.enter_context(private_directory())
            pid_file = os.path.join(folder, "pid")
            written = stack.enter_context(Written(folder))
            # The runtimes hand a terminal on only where they do not stay with the process themselves.
            detached = options.get("console_socket") is not None
            launched = await stack.enter_async_context(
                self._road.launched(
                    "exec",
                    self.id,
                    None,
                    io,
                    preserve_fds,
                    extra_args,
                    {**options, "pid_file": pid_file},
                    detached=detached,
                    words=words,
                    files=files,
                )
            )
            found: list[ContainerProcess] = []

            def find() -> None:
                pid = _written_pid(pid_file)
                if pid and not found:
                    found.append(ContainerProcess(pid, io, launched, self._monitor if detached else None))

            launched.ending = find  # at the latest: after that it may be reaped
            try:
                await _started(launched, written, pid_file)
                find()
                if detached:
                    await launched.wait()
                yield found[0]
            finally:
                for process in found:
                    await shielded(process._leave)

    async def _end(self) -> None:
        """Kill it and wait for its end."""
        if self._process is None or self._exit is not None:
            return
        if not leads_pid_namespace(self.pid):
            with contextlib.suppress(CommandError):
                await self.kill(signals.SIGKILL, all=True)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signals.SIGKILL)
        with anyio.move_on_after(THAW_AFTER):
            await self._process.wait()
            return
        with contextlib.suppress(CommandError):  # it was not frozen
            await self.resume()
        await self._process.wait()

    async def _remove(self) -> None:
        """Kill and delete it, within the time that the client has for it."""
        timeout = self._road.host.cleanup_timeout
        with anyio.move_on_after(timeout):
            await with_room(self._removed)
            return
        raise TimeoutError(f"container {self.id} could not be removed within {timeout} s")

    async def _removed(self) -> None:
        if self._process is not None and leads_pid_namespace(self.pid):
            await self._end()
        await self._runc.delete(self.id, force=True)

    def _forget(self) -> None:
        if self._process is not None:
            self._monitor.forgotten(self._process)
            self._process.close()


class ContainerProcess:
    """A further process in a container, from `Container.exec`.

    :ivar pid: its pid on the host.
    :ivar io: its streams, as given to `Container.exec`.
    """

    def __init__(self, pid: int, io: IO | None, launched: Launched, monitor: Monitor | None) -> None:
        self.pid = pid
        self.io = io
        self._launched = launched
        self._monitor = monitor
        """Who knows of its end, where it is not the runtime's process that ends with it."""
        self._waiting = anyio.Lock()
        self._exit: Exit | None = None
        try:
            self._process: Pidfd | None = Pidfd.open(pid)
        except ProcessLookupError:  # it has ended and was reaped
            self._process = None
        self._watched: Watched | None = None
        if self._process is not None:
            if monitor is not None:
                monitor.started(self._process)
            else:
                self._watched = Watched(self._process)

    def __repr__(self) -> str:
        return f"<ContainerProcess pid={self.pid}>"

    async def wait(self) -> Exit:
        """Wait until it has ended. Any number of tasks may, at once and again afterwards.

        :returns: its `Exit`: the status as a shell gives it (128 + N for signal N).
        """
        async with self._waiting:
            if self._exit is None and self._monitor is not None:
                self._exit = await self._monitored(self._monitor)
            if self._exit is None:
                status = await self._launched.wait()
                ended = self._watched.timestamp if self._watched else None
                self._exit = Exit(pid=self.pid, status=status, timestamp=ended or datetime.now(UTC))
        return self._exit

    async def kill(self, signal: int | signals.Signals | str = signals.SIGTERM) -> None:
        """Send it a signal, by pidfd.

        :param signal: a number, a `signal.Signals` or a name, with or without ``SIG``.
        :raises ProcessLookupError: it has ended.
        """
        if self._process is None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        self._process.send_signal(signal)
        await anyio.lowlevel.checkpoint()

    async def _monitored(self, monitor: Monitor) -> Exit:
        if self._process is None:
            return Exit(pid=self.pid, status=None, timestamp=datetime.now(UTC))
        return await monitor.wait(self._process)

    async def _leave(self) -> None:
        if self._process is None:
            return
        if self._monitor is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signals.SIGKILL)
            await self._process.wait()
            self._monitor.forgotten(self._process)
        if self._watched is not None:
            self._watched.close()
        self._process.close()


@contextlib.asynccontextmanager
@at_checkpoints_only
async def created(
    runc: Runc,
    road: Road,
    id: str,
    bundle: StrPath,
    io: IO | None,
    preserve_fds: Sequence[Descriptor],
    extra_args: Sequence[str],
    options: Mapping[str, Any],
) -> AsyncGenerator[Container]:
    """Create a container; delete it on leaving. See `Runc.container`."""
    async with contextlib.AsyncExitStack() as stack:
        if io is not None:
            await stack.enter_async_context(io)
        with contextlib.ExitStack() as files:
            given = dict(options)
            if given.get("pid_file") is None:
                given["pid_file"] = os.path.join(files.enter_context(private_directory()), "pid")
            await runc.create(id, bundle, io=io, preserve_fds=preserve_fds, extra_args=extra_args, **given)
            # Nothing is awaited from here until its removal is certain.
            try:
                process = Pidfd.open(pid_in(road.host.seen(os.fsdecode(given["pid_file"]))))
                container = Container(runc, road, id, process, io)
            except BaseException:
                await shielded(with_room, road.remove, id)
                raise
        async with _removed(container):
            yield container


@contextlib.asynccontextmanager
@at_checkpoints_only
async def attached(runc: Runc, road: Road, id: str, delete: bool) -> AsyncGenerator[Container]:
    """Take over a container that exists. See `Runc.attach`."""
    process = await _init_of(runc, id)
    container = Container(runc, road, id, process, None)
    async with _removed(container) if delete else _forgotten(container):
        yield container


async def _init_of(runc: Runc, id: str) -> Pidfd | None:
    pid = (await runc.state(id)).pid
    while pid > 0:
        try:
            process = Pidfd.open(pid)
        except ProcessLookupError:
            return None
        found, pid = pid, 0
        try:
            pid = (await runc.state(id)).pid
        finally:
            if pid != found:  # it had ended before it was opened, and its number may be another's
                process.close()
        if pid == found:
            return process
    return None


@contextlib.asynccontextmanager
@at_checkpoints_only
async def _forgotten(container: Container) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        container._forget()


@contextlib.asynccontextmanager
@at_checkpoints_only
async def _removed(container: Container) -> AsyncGenerator[None]:
    async with _forgotten(container):
        try:
            yield
        except BaseException as exc:
            try:
                await shielded(container._remove)
            except Exception as error:
                exc.add_note(f"container {container.id} may be left: {error}")
                logger.exception("container %s may be left", container.id)
            raise
        await shielded(container._remove)


async def _started(launched: Launched, written: Written, pid_file: str) -> None:
    """Wait until a process has started, or has ended already."""
    failed: list[BaseException] = []

    async def end(scope: anyio.CancelScope) -> None:
        try:
            await launched.wait()
        except Exception as exc:
            failed.append(exc)
        scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(end, group.cancel_scope)
            while not _written_pid(pid_file):
                await written.wait()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:  # Ctrl-C on trio
        raise _single(errors) from None
    if failed:
        raise failed[0]


def _written_pid(pid_file: str) -> int:
    try:
        with open(pid_file) as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


async def _feed(io: PipeIO, data: bytes) -> None:
    async with io.stdin as stream:
        with contextlib.suppress(anyio.BrokenResourceError):  # it does not read it all
            await stream.send(data)


async def _read(stream: FdReceiveStream, into: bytearray) -> None:
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            into += await stream.receive()


def _drain(stream: FdReceiveStream, into: bytearray) -> None:
    """Read what is there. The end of the stream may be far: a process left behind can hold it open."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(stream.fileno(), 65536):
            into += data


def _single(error: BaseException) -> BaseException:
    """The one error of a group and of groups in it, or the group."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _single(group.exceptions[0]) if len(group.exceptions) == 1 else group
