"""`Runc`: one method per command of the runtime, so that the file reads like the runtime's manual."""

from __future__ import annotations

import contextlib
import logging
import os
import signal as signals
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import msgspec

from . import _output
from ._call import Host, Outcome, Process, captured
from ._commands import command_line, global_options, signal_argument
from ._errors import BundleError, CommandError, DecodeError, UnsupportedError
from ._events import event_stream
from ._executor import Executor, PathExecutor
from ._failures import failure, parse_log
from ._io import IO, NullIO
from ._leases import Leases
from ._models import (
    ContainerState,
    Event,
    Features,
    Stats,
    TopResults,
    Version,
    decode,
    parse_top,
    parse_version,
)
from ._shield import shielded
from ._monitor import PidfdMonitor
from ._private import private_directory
from ._sockets import RuntimeSocket
from ._teardown import clear_remnants, kill_by_file, remove

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from anyio.abc import TaskStatus

    from ._leases import Descriptor
    from ._container import Container
    from ._monitor import Monitor
    from ._options import (
        CheckpointOptions,
        ExecOptions,
        RestoreOptions,
        RunOptions,
        StartOptions,
        StrPath,
        UpdateOptions,
    )

    OCIProcess = Mapping[str, Any]
    OCIResources = Mapping[str, Any]

__all__ = ["Runc"]

T = TypeVar("T")

logger = logging.getLogger("runc_async")

# A supervisor's own, from systemd: never the container's by accident. A runtime given LISTEN_FDS would
# pass descriptors on that nobody named.
NOT_INHERITED = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_extra_env: ContextVar[dict[str, str]] = ContextVar("runc_async_extra_env", default={})  # noqa: B039


class Runc:
    """A client of one OCI runtime.

    Every method is one command of the runtime, every keyword one of its flags, dashes as underscores. None of
    them shares anything with another call, so any number of tasks may use one client at once, on asyncio,
    uvloop or trio.

    :param executor: how the runtime is reached: an `Executor`, or a path or name (then a `PathExecutor`).
    :param root: the runtime's directory of container states (``--root``); None is the runtime's own default.
    :param debug: let the runtime log at debug level (``--debug``).
    :param log: a file to which the runtime's log of each call is appended when the call ends.
    :param log_format: ``"text"`` or ``"json"``, of that file; None is ``"text"``, as for the runtime.
    :param systemd_cgroup: let systemd make the cgroups (``--systemd-cgroup``).
    :param rootless: whether the runtime ignores cgroup permission errors; None is its own ``auto``.
    :param work_dir: working directory of the runtime processes; None is this process's.
    :param setpgid: whether each runtime process leads a process group of its own, so that a terminal's Ctrl-C
        does not reach it.
    :param pdeathsig: the signal that a runtime process gets when the thread that started it ends
        (``PR_SET_PDEATHSIG``), by the launcher ``setpriv``. Not the container's, which may live on.
    :param env: variables added to the environment of every call.
    :param extra_args: global flags newer than this library.
    :param monitor: who waits for the ends of detached containers; see `Subreaper`.
    :param cleanup_timeout: seconds that a cancelled call may take to leave nothing behind, before it kills the
        runtime outright.
    :raises TypeError: a parameter of the wrong type.
    :raises ValueError: a value that cannot be right.

    Every method raises, besides what it names: `ExecutorError` (the binary cannot be executed), `CommandError` or
    one of its subclasses (the runtime failed), `DecodeError` (its output is not what it documents), `OSError`
    (out of descriptors, processes or memory), and `TypeError` or `ValueError` before anything is started (wrong
    arguments). When it is cancelled, it leaves nothing behind (docs: cancellation), and the cancellation goes on.
    """

    def __init__(
        self,
        executor: Executor | StrPath = "runc",
        *,
        root: StrPath | None = None,
        debug: bool = False,
        log: StrPath | None = None,
        log_format: str | None = None,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        work_dir: StrPath | None = None,
        setpgid: bool = False,
        pdeathsig: int | signals.Signals | str | None = None,
        env: Mapping[str, str] | None = None,
        extra_args: Sequence[str] = (),
        monitor: Monitor | None = None,
        cleanup_timeout: float = 5.0,
    ) -> None:
        if cleanup_timeout <= 0:
            raise ValueError(f"cleanup_timeout must be positive, not {cleanup_timeout}")
        self._host = Host(
            executor=executor if isinstance(executor, Executor) else PathExecutor(executor),
            work_dir=None if work_dir is None else os.path.abspath(os.fsdecode(work_dir)),
            setpgid=setpgid,
            pdeathsig=None if pdeathsig is None else _signal(pdeathsig),
            cleanup_timeout=cleanup_timeout,
        )
        self._log = None if log is None else os.path.abspath(os.fsdecode(log))
        self._log_format = log_format or ("json" if log is None else "text")
        self._globals = global_options(
            {
                "root": root,
                "debug": debug,
                "log_format": self._log_format,
                "systemd_cgroup": systemd_cgroup,
                "rootless": rootless,
            },
            extra_args,
        )
        self._env = _environment(env or {})
        self._pidfd_monitor = PidfdMonitor()
        self.monitor = monitor
        """Who waits for the ends of detached containers, or None."""
        self._known_flags: set[tuple[str, ...]] = set()

    @property
    def executor(self) -> Executor:
        """How the runtime is reached."""
        return self._host.executor

    def __repr__(self) -> str:
        return f"Runc({self.executor!r})"

    @contextlib.contextmanager
    def extra_env(self, **variables: str) -> Iterator[None]:
        """Add variables to the environment of the calls made inside the ``with`` block.

        They hold for this task and the tasks that it starts there, and for no other. Nested blocks add up.

        :param variables: names and values.
        :raises ValueError: a name or value that cannot be in an environment.
        """
        token = _extra_env.set({**_extra_env.get(), **_environment(variables)})
        try:
            yield
        finally:
            _extra_env.reset(token)

    # -- what there is -----------------------------------------------------------------------------------

    async def list(self, *, extra_args: Sequence[str] = ()) -> builtins.list[ContainerState]:
        """All containers under the runtime's root (``runc-list(8)``)."""
        outcome = await self._captured("list", {"format": "json"}, extra_args=extra_args)
        return _decoded(list[ContainerState], outcome)

    async def state(self, id: str, *, extra_args: Sequence[str] = ()) -> ContainerState:
        """The state of one container (``runc-state(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        return _decoded(ContainerState, await self._captured("state", {}, [id], extra_args))

    async def ps(self, id: str, *, extra_args: Sequence[str] = ()) -> builtins.list[int]:
        """The pids, on the host, of a container's processes (``runc-ps(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        outcome = await self._captured("ps", {"format": "json"}, [id], extra_args)
        return _decoded(list[int], outcome)

    async def top(self, id: str, *ps_options: str, extra_args: Sequence[str] = ()) -> TopResults:
        """A container's processes as the program ``ps`` of the host shows them (``runc-ps(8)``).

        :param id: the container's id.
        :param ps_options: options of ``ps``, such as ``"-o", "pid,comm"``; none is ``-ef``.
        :raises ContainerNotFoundError: there is none of this id.
        :raises CommandError: ``ps`` refused its options, or gave no column of pids.
        """
        outcome = await self._captured("ps", {"format": "table"}, [id, *ps_options], extra_args)
        try:
            return parse_top(outcome.stdout.decode(errors="replace"))
        except ValueError as exc:
            raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc

    async def stats(self, id: str, *, extra_args: Sequence[str] = ()) -> Stats:
        """A running container's use of resources, once (``runc-events(8)``, ``--stats``).

        :param id: the container's id.
        :raises ContainerNotRunningError: it is not running.
        :raises UnsupportedError: the runtime has no ``events`` (crun).
        """
        outcome = await self._captured("events", {"stats": True}, [id], extra_args)
        event = _decoded(Event, outcome)
        if not isinstance(event.data, Stats):
            raise DecodeError(outcome.argv, outcome.stdout, f"an event of type {event.type!r}, not stats")
        return event.data

    def events(
        self, id: str, *, interval: float = 5.0, extra_args: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """A running container's statistics and out-of-memory events, as they come (``runc-events(8)``).

        Not a coroutine: ``async with runc.events(id) as events:``, then ``async for event in events:``. The
        iterator ends when the container ends; leaving the context ends the runtime process.

        :param id: the container's id.
        :param interval: seconds between two statistics.
        :raises ContainerNotRunningError: it is not running.
        :raises UnsupportedError: the runtime has no ``events`` (crun).
        :raises DecodeError: a line is no event; by the iterator.
        """
        line = command_line("events", {"interval": interval}, positional=[id], extra_args=extra_args)
        return self._events(line)

    @contextlib.asynccontextmanager
    async def _events(self, line: Sequence[str]) -> AsyncIterator[AsyncIterator[Event]]:
        with self._descriptors() as (leases, log):
            process = Process(self._host, leases, self._line(log, line), self._environ())
            async with event_stream(process, leases, log, self._error) as events:
                yield events

    async def version(self) -> Version:
        """The runtime's name, version, commit and specification (``--version``)."""
        with self._descriptors() as (leases, log):
            outcome = await captured(self._host, ["--version"], self._environ(), leases, log)
        if outcome.status:
            raise await self._error(outcome)
        try:
            return parse_version(outcome.stdout.decode(errors="replace"))
        except ValueError as exc:
            raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc

    async def features(self, *, extra_args: Sequence[str] = ()) -> Features:
        """What the runtime was built with (``runc features``; OCI specification, features document).

        :raises UnsupportedError: the runtime is older than runc 1.1 or crun 1.8.6.
        """
        return _decoded(Features, await self._captured("features", extra_args=extra_args))

    # -- a container's life ------------------------------------------------------------------------------

    async def create(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        extra_args: Sequence[str] = (),
        **options: Unpack[StartOptions],
    ) -> None:
        """Create a container, without starting its program (``runc-create(8)``).

        :param id: a new id: letters, digits and ``_+-.``.
        :param bundle: the directory of ``config.json``, or a `Bundle`.
        :param io: the container's streams; None is ``/dev/null``.
        :param preserve_fds: descriptors (ints, or objects with ``fileno()``) that arrive in the container as
            3, 4, …. They are duplicated; the caller may close its own as soon as the runtime runs.
        :param options: further flags, see `StartOptions`.
        :raises ContainerExistsError: the id is taken.
        :raises InvalidContainerIdError: the runtime takes no such id.
        :raises BundleError: the bundle or its ``config.json`` is missing or invalid.
        :raises OSError: a descriptor to preserve is not open (``EBADF``).

        Cancelled, it leaves no container.
        """
        await self._start("create", id, bundle, io, preserve_fds, extra_args, {**options}, detached=True)

    async def start(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Start the program of a created container (``runc-start(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        :raises ContainerRunningError: it was started already.
        :raises ContainerNotRunningError: it has ended.
        """
        await self._captured("start", {}, [id], extra_args)

    async def run(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        detach: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
        **options: Unpack[RunOptions],
    ) -> int:
        """Create and start a container, wait for its end and delete it (``runc-run(8)``).

        :param id: as for `create`; so are `bundle`, `io` and `preserve_fds`.
        :param detach: return as soon as it runs.
        :param task_status: ``pid = await task_group.start(runc.run, id, bundle)`` gives the runtime process's pid.
        :param options: further flags, see `RunOptions`.
        :returns: the container's exit status (128 + N when signal N ended it); with `detach` 0.
        :raises ContainerExistsError: and the others of `create`.

        Cancelled, it kills and deletes the container.
        """
        return await self._start(
            "run",
            id,
            bundle,
            io,
            preserve_fds,
            extra_args,
            {**options},
            detached=detach,
            task_status=task_status,
        )

    async def exec(
        self,
        id: str,
        process: OCIProcess | Sequence[str],
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        detach: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
        **options: Unpack[ExecOptions],
    ) -> int:
        """Run a further process in a running container (``runc-exec(8)``).

        :param id: the container's id.
        :param process: its arguments, or a whole OCI process object.
        :param io: the process's streams; None is ``/dev/null``.
        :param preserve_fds: as for `create`.
        :param detach: return as soon as it runs.
        :param task_status: as for `run`.
        :param options: further flags, see `ExecOptions`.
        :returns: the process's exit status (128 + N when signal N ended it); with `detach` 0.
        :raises ContainerNotFoundError: there is no container of this id.
        :raises ContainerNotRunningError: it is not running.

        Cancelled, it kills the process.
        """
        flags: dict[str, Any] = {**options}
        words, files = self._process_object(process)
        with contextlib.ExitStack() as stack:
            if detach and flags.get("pid_file") is None:
                folder = stack.enter_context(private_directory())
                flags["pid_file"] = os.path.join(folder, "pid")
            return await self._start(
                "exec",
                id,
                None,
                io,
                preserve_fds,
                extra_args,
                flags,
                detached=detach,
                task_status=task_status,
                words=words,
                files=files,
            )

    async def kill(
        self,
        id: str,
        signal: int | signals.Signals | str = signals.SIGTERM,
        *,
        all: bool = False,
        extra_args: Sequence[str] = (),
    ) -> None:
        """Send a signal to a container's init (``runc-kill(8)``).

        :param id: the container's id.
        :param signal: a number, a `signal.Signals` or a name, with or without ``SIG``.
        :param all: send it to every process in the container.
        :raises ContainerNotFoundError: there is none of this id.
        :raises ContainerNotRunningError: it has ended.
        """
        await self._captured("kill", {"all": all}, [id, signal_argument(signal)], extra_args)

    async def pause(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Suspend all processes of a container (``runc-pause(8)``).

        :param id: the container's id.
        :raises ContainerNotRunningError: it is neither created nor running.
        """
        await self._captured("pause", {}, [id], extra_args)

    async def resume(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Let a paused container go on (``runc-resume(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        await self._captured("resume", {}, [id], extra_args)

    async def update(
        self,
        id: str,
        resources: OCIResources | None = None,
        *,
        extra_args: Sequence[str] = (),
        **options: Unpack[UpdateOptions],
    ) -> None:
        """Change a container's limits (``runc-update(8)``).

        :param id: the container's id.
        :param resources: an OCI ``linux.resources`` object; or None, and single values as keywords.
        :param options: single values, see `UpdateOptions`; the runtime takes no others beside `resources` than
            ``l3_cache_schema`` and ``mem_bw_schema``.
        :raises ContainerNotFoundError: there is none of this id.
        :raises ValueError: both are given, or nothing.
        """
        if resources is None and not any(value is not None for value in options.values()):
            raise ValueError("update: nothing to change: neither resources nor a single value is given")
        files = {} if resources is None else {"resources": msgspec.json.encode(resources)}
        await self._captured("update", {**options}, [id], extra_args, files=files)

    async def delete(self, id: str, *, force: bool = False, extra_args: Sequence[str] = ()) -> None:
        """Delete a container that has ended (``runc-delete(8)``).

        :param id: the container's id.
        :param force: kill it first if it lives; no error if there is none of this id.
        :raises ContainerNotFoundError: there is none of this id, and not `force`.
        :raises ContainerRunningError: it lives, and not `force`.

        Cancelled, it lets the runtime finish first, for ``cleanup_timeout`` seconds at most.
        """
        await self._captured("delete", {"force": force}, [id], extra_args, patient=True)

    async def spec(
        self, bundle: StrPath | None = None, *, rootless: bool = False, extra_args: Sequence[str] = ()
    ) -> None:
        """Write a ``config.json`` to start from (``runc-spec(8)``).

        :param bundle: the directory to write it in; None is the working directory.
        :param rootless: one that an ordinary user can run.
        :raises CommandError: the file exists, or cannot be written.
        """
        await self._captured("spec", {"bundle": bundle, "rootless": rootless}, extra_args=extra_args)

    async def checkpoint(
        self,
        id: str,
        *,
        image_path: StrPath | None = None,
        status_fd: Descriptor | None = None,
        extra_args: Sequence[str] = (),
        **options: Unpack[CheckpointOptions],
    ) -> None:
        """Write a running container to disk by CRIU (``runc-checkpoint(8)``).

        :param id: the container's id.
        :param image_path: the directory of the image, made if missing; None is ``checkpoint`` in the working
            directory.
        :param status_fd: a descriptor to which CRIU writes one NUL byte when its page server is ready, for
            ``lazy_pages``. It is duplicated.
        :param options: further flags, see `CheckpointOptions`.
        :raises ContainerNotRunningError: it is not running.
        :raises CommandError: CRIU failed; the message quotes its log. The container goes on running.
        """
        descriptors = {} if status_fd is None else {"status_fd": status_fd}
        flags = {"image_path": image_path, **options}
        await self._captured("checkpoint", flags, [id], extra_args, descriptors=descriptors, patient=True)

    async def restore(
        self,
        id: str,
        bundle: StrPath,
        *,
        image_path: StrPath | None = None,
        io: IO | None = None,
        detach: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
        **options: Unpack[RestoreOptions],
    ) -> int:
        """Bring a container back from an image, and wait for its end (``runc-restore(8)``).

        :param id: the new container's id; `bundle`, `io`, `detach` and `task_status` are as for `run`.
        :param image_path: the directory of the image.
        :param options: further flags, see `RestoreOptions`.
        :returns: as `run`.
        :raises ContainerExistsError: the id is taken.
        :raises CommandError: CRIU failed; the message quotes its log.

        Cancelled, it leaves no container.
        """
        flags = {"image_path": image_path, **options}
        return await self._start(
            "restore", id, bundle, io, (), extra_args, flags, detached=detach, task_status=task_status
        )

    # -- containers as objects ---------------------------------------------------------------------------

    def container(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        extra_args: Sequence[str] = (),
        **options: Unpack[StartOptions],
    ) -> AbstractAsyncContextManager[Container]:
        """A container that is created on entering and gone on leaving, by any road.

        Not a coroutine: ``async with runc.container(id, bundle) as container:``. Its parameters, and what entering
        raises, are those of `create`. On leaving, its processes are killed, it is deleted, and `io` is closed, all
        within ``cleanup_timeout``.

        :raises TimeoutError: it could not be removed in that time; on leaving. If an exception is under way, that
            one goes on, with a note, and the failure is logged.
        """
        from ._container import created

        return created(self, id, bundle, io, preserve_fds, extra_args, options)

    def attach(self, id: str, *, delete: bool = False) -> AbstractAsyncContextManager[Container]:
        """A container that exists already, such as one of a supervisor's earlier life.

        Not a coroutine: ``async with runc.attach(id) as container:``.

        :param id: the container's id.
        :param delete: whether it is killed and deleted on leaving, as with `container`.
        :raises ContainerNotFoundError: there is none of this id; on entering.
        """
        from ._container import attached

        return attached(self, id, delete)

    # -- the road ----------------------------------------------------------------------------------------

    def _environ(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        return {**environ, **self._env, **_extra_env.get()}

    def _line(self, log: int, arguments: Sequence[str]) -> list[str]:
        return [*self._globals, "--log", f"/proc/self/fd/{log}", *arguments]

    @contextlib.contextmanager
    def _descriptors(self, preserve_fds: Sequence[Descriptor] = ()) -> Iterator[tuple[Leases, int]]:
        """The descriptors of one call, and its log, which goes on to the user's when the call ends."""
        with contextlib.ExitStack() as stack:
            users_log = None
            if self._log is not None:
                users_log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, users_log)
            leases = stack.enter_context(Leases(preserve_fds))
            log = leases.keep(leases.adopt(_output.memory_file("log")))
            try:
                yield leases, log
            finally:
                if users_log is not None:
                    os.write(users_log, _output.logged(log))

    async def _captured(
        self,
        command: str,
        options: Mapping[str, object] = {},
        positional: Sequence[str] = (),
        extra_args: Sequence[str] = (),
        *,
        files: Mapping[str, bytes] = {},
        descriptors: Mapping[str, Descriptor] = {},
        patient: bool = False,
    ) -> Outcome:
        """Run a command that starts nothing.

        :param files: keyword to the content of a file that the runtime reads.
        :param descriptors: keyword to a descriptor that the runtime gets.
        :param patient: when cancelled, let the runtime finish first.
        """
        with self._descriptors() as (leases, log):
            given = {
                **options,
                **{name: _as_path(leases, name, content) for name, content in files.items()},
                **{name: leases.keep(leases.lease(what, name)) for name, what in descriptors.items()},
            }
            line = command_line(command, given, positional=positional, extra_args=extra_args)
            outcome = await captured(self._host, self._line(log, line), self._environ(), leases, log, patient=patient)
        if outcome.overflowed:
            reason = f"more than {_output.STDOUT_LIMIT >> 20} MiB of output"
            raise DecodeError(outcome.argv, outcome.stdout, reason)
        if outcome.status:
            raise await self._error(outcome)
        return outcome

    @staticmethod
    def _process_object(process: OCIProcess | Sequence[str]) -> tuple[Sequence[str], dict[str, bytes]]:
        """Arguments on the command line, or an OCI process object in a file."""
        if isinstance(process, str | bytes):
            raise TypeError("process must be a sequence of arguments or an OCI process object, not one string")
        if isinstance(process, Mapping):
            return (), {"process": msgspec.json.encode(process)}
        return process, {}

    async def _start(
        self,
        command: str,
        id: str,
        bundle: StrPath | None,
        io: IO | None,
        preserve_fds: Sequence[Descriptor],
        extra_args: Sequence[str],
        options: Mapping[str, object],
        *,
        detached: bool,
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
        words: Sequence[str] = (),
        files: Mapping[str, bytes] = {},
    ) -> int:
        """Run a command that starts a container, or a process in one, and wait until the command has ended."""
        async with self._launched(
            command, id, bundle, io, preserve_fds, extra_args, options, detached=detached, words=words, files=files
        ) as launched:
            task_status.started(launched.pid)
            return await launched.wait()

    @contextlib.asynccontextmanager
    async def _launched(
        self,
        command: str,
        id: str,
        bundle: StrPath | None,
        io: IO | None,
        preserve_fds: Sequence[Descriptor],
        extra_args: Sequence[str],
        options: Mapping[str, object],
        *,
        detached: bool,
        words: Sequence[str] = (),
        files: Mapping[str, bytes] = {},  # noqa: B006
    ) -> AsyncIterator[Launched]:
        """Start a command that starts a container, or a process in one, which inherits its streams.

        Whoever leaves before the command has ended has what it started undone.
        """
        io = io or NullIO()
        sockets = [end for end in options.values() if isinstance(end, RuntimeSocket)]
        try:
            with self._descriptors(preserve_fds) as (leases, log):
                given = {
                    **options,
                    **{name: _as_path(leases, name, content) for name, content in files.items()},
                    "bundle": bundle,
                    "detach": detached and command != "create",
                    "preserve_fds": len(preserve_fds) or None,
                }
                given = {name: value for name, value in given.items() if value is not None and value is not False}
                words = [id, *words]
                line = command_line(command, given, positional=words, extra_args=extra_args)
                start = _Start(command, id, given, detached, line[: len(line) - len(words)])
                ends = await io.open()
                null = leases.adopt(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                leases.stdio(*(null if end is None else leases.lease(end) for end in ends))
                process = Process(self._host, leases, self._line(log, line), self._environ())
                launched = Launched(self, start, process, log)
                try:
                    await process.start()
                    leases.close(log)
                    io.started()
                    yield launched
                finally:
                    if process.status is None:
                        await shielded(self._undo, start, process, log)
        except BaseException as exc:
            for socket in sockets:
                socket.fail(exc)
            raise
        finally:
            io.started()

    async def _judge(self, start: _Start, outcome: Outcome) -> None:
        """Raise if a status that is not 0 is the runtime's own failure; return if it is the container's."""
        if outcome.status < 0 and start.command != "exec":  # killed from outside, half-way
            await shielded(clear_remnants, self, start.id, start.begun)
        if start.detached or outcome.status < 0 or _has_failed(outcome.log):
            if not outcome.log:
                await self._ask_why(start, outcome)
            raise await self._error(outcome)
        await self._ask_why(start, outcome)

    async def _ask_why(self, start: _Start, outcome: Outcome) -> None:
        """Raise the reason of a failure that only went to stderr, which is the container's.

        These are a missing bundle (crun) and an unknown flag (crun, runc 1.5). The same flags before ``--help``
        fail on the flag, or do nothing.
        """
        if start.missing_config is not None:
            message = f"{start.missing_config}: no such file"
            raise BundleError(outcome.argv, outcome.status, message, parse_log(outcome.log))
        flags = tuple(word.partition("=")[0] for word in start.flags)
        if len(flags) == 1 or flags in self._known_flags:
            return
        with self._descriptors() as (leases, log):
            line = self._line(log, [*start.flags, "--help"])
            answer = await captured(self._host, line, self._environ(), leases, log)
        if answer.status:
            raise await self._error(answer._replace(argv=outcome.argv))
        self._known_flags.add(flags)

    async def _undo(self, start: _Start, process: Process, log: int) -> None:
        """Leave nothing of a command that was cancelled. Never raises; what fails is logged."""
        try:
            status = await process.abandon()
            if not process.pid:
                return
            if start.command == "exec":
                pid_file = start.options.get("pid_file")
                if status == 0 and isinstance(pid_file, str | os.PathLike):
                    kill_by_file(pid_file)
            elif status is None:
                await clear_remnants(self, start.id, start.begun)
            elif status == 0 or ("keep" in start.options and not _has_failed(_output.logged(log))):
                await remove(self, start.id)
        except Exception:
            logger.exception("%s %s: cancelled, and could not be cleaned up", start.command, start.id)

    async def _error(self, outcome: Outcome) -> CommandError:
        """The exception for a runtime's failure."""
        entries = parse_log(outcome.log)
        error = failure(outcome.argv, outcome.status, log=entries, stderr=outcome.stderr, stdout=outcome.stdout)
        if isinstance(error, UnsupportedError) and not outcome.argv[-1].startswith("--version"):
            found = await self.version()
            version = f"{found.runtime} {found.version}"
            error = failure(
                outcome.argv,
                outcome.status,
                log=entries,
                stderr=outcome.stderr,
                stdout=outcome.stdout,
                version=version,
            )
        return error


class Launched:
    """A command under way that starts a container, or a process in one."""

    def __init__(self, runc: Runc, start: _Start, process: Process, log: int) -> None:
        self._runc = runc
        self._start = start
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """The runtime process's."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until the command has ended; the status of what it ran, 0 where it only started it.

        :raises CommandError: the runtime itself failed.
        """
        status = await self._process.wait()
        if status:
            outcome = Outcome(self._process.argv, status, log=_output.logged(self._log))
            await self._runc._judge(self._start, outcome)
        return status


class _Start:
    """What is remembered of a command that starts something."""

    def __init__(
        self, command: str, id: str, options: Mapping[str, object], detached: bool, flags: Sequence[str]
    ) -> None:
        self.command = command
        self.id = id
        self.options = options
        self.detached = detached
        self.flags = flags
        """The command and its flags, without what follows them."""
        self.begun = time.time_ns()
        self.missing_config: str | None = None
        bundle = options.get("bundle")
        if isinstance(bundle, str | os.PathLike):
            config = os.path.join(os.fsdecode(bundle), os.fsdecode(cast("str", options.get("config", "config.json"))))
            if not os.path.isfile(config):
                self.missing_config = config


def _has_failed(log: bytes) -> bool:
    return any(entry.level in ("error", "fatal") for entry in parse_log(log))


def _as_path(leases: Leases, name: str, content: bytes) -> str:
    """A path under which the child can read these bytes."""
    return f"/proc/self/fd/{leases.keep(leases.adopt(_output.memory_file(name, content=content)))}"


def _decoded(shape: type[T], outcome: Outcome) -> T:
    try:
        return decode(shape, outcome.stdout)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc


def _signal(value: int | signals.Signals | str) -> signals.Signals:
    if isinstance(value, str):
        name = value.upper()
        return signals.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    return signals.Signals(value)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env: names and values must be str: {name!r}")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"env: not a possible variable: {name!r}")
    return dict(variables)
