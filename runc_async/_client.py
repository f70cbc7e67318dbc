"""`Runc`: one method per command of the runtime, so that the file reads like the runtime's manual."""

from __future__ import annotations

import contextlib
import os
import re
import signal as signals
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import anyio

from ._cli import criu_log
from ._cli.command_line import call_line, command_line, global_options, signal_argument
from ._cli.dialects import DIALECTS
from ._cli.flags import path_argument
from ._cli.options import (
    CheckpointOptions,
    ExecOptions,
    RestoreOptions,
    RunOptions,
    StartOptions,
    UpdateOptions,
    pick,
)
from ._cli.validation import check_type, encode_document, naming
from ._errors import CommandError, DecodeError
from ._executor import Executor, PathExecutor
from ._lifecycle.call import CREATE, EXEC, RESTORE, RUN, StartCall
from ._lifecycle.dialect import DialectFinder
from ._lifecycle.events import stream_events
from ._lifecycle.exec_process import build_exec, read_container_process
from ._lifecycle.runner import Runner, decode_output
from ._lifecycle.start import check_arguments, start
from ._lifecycle.undo import delete
from ._linux.signals import signal_number
from ._models import CompletedProcess, ContainerState, Features, TopResults, Version, parse_top, parse_version
from ._monitor import Monitor, PidfdMonitor
from ._process import environment
from ._process.process import Settings

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskStatus

    from ._cli.options import StrPath
    from ._container import AnyIO, Container
    from ._io import IO
    from ._jobs.job import Job, Result
    from ._jobs.running import RunningJob
    from ._linux.descriptors import Descriptor
    from ._models import Event, Stats
    from ._process.trace import Call

    OCIProcess = Mapping[str, Any]
    OCIResources = Mapping[str, Any]

__all__ = ["Runc"]

# `ps` cuts its lines at COLUMNS, which a shell may have exported, and readline sets where no Python sees it.
WIDE = {"COLUMNS": "100000"}
NO_ROOT = re.compile(r"open (.+): no such file or directory")


class Runc:
    """A client of one OCI runtime.

    Every method is one command of the runtime, every keyword one of its flags, dashes as underscores. No call shares
    anything with another, so any number of tasks may use one client at once, on asyncio, uvloop or trio. Of many short
    calls at once, two for each core run at a time, so that starting them does not stop the event loop for long.

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
    :param dialect: how the runtime talks: ``"runc"``, ``"crun"``, ``"runsc"`` (gVisor) or ``"youki"``. None asks it for
        its version once, with the first call that needs to know; an unknown runtime is treated as runc, and logged.
    :param trace: called with a `Call` whenever a runtime process has ended and was reaped, in the task that waited for
        it, so that context variables (a tracer's current span) are the caller's. It must not block. What it raises
        is logged.
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
        trace: Callable[[Call], object] | None = None,
        dialect: str | None = None,
    ) -> None:
        _check_settings(setpgid, cleanup_timeout, monitor, dialect, trace, extra_args)
        self._runner = Runner(
            settings=Settings(
                executor=executor if isinstance(executor, Executor) else PathExecutor(executor),
                work_dir=_absolute("work_dir", work_dir),
                setpgid=setpgid,
                pdeathsig=None if pdeathsig is None else signal_number(pdeathsig),
                cleanup_timeout=cleanup_timeout,
                trace=trace,
            ),
            root=_absolute("root", root, work_dir),
            global_options=global_options(
                {
                    "root": root,
                    "debug": debug,
                    # Without a file of the user's, the log is only read here.
                    "log_format": ("json" if log is None else "text") if log_format is None else log_format,
                    "systemd_cgroup": systemd_cgroup,
                    "rootless": rootless,
                },
                extra_args,
            ),
            env=environment.check_variables(env or {}),
            log=_absolute("log", log),
            monitor=PidfdMonitor() if monitor is None else monitor,
            client=object(),
            systemd_cgroup=systemd_cgroup,
            rootless=rootless,
            finder=DialectFinder(None if dialect is None else DIALECTS[dialect]),
        )
        self.monitor = monitor
        """The monitor of detached containers' ends; None watches their pidfds only."""

    @property
    def executor(self) -> Executor:
        """How the runtime is reached."""
        return self._runner.settings.executor

    def __repr__(self) -> str:
        return f"Runc({self.executor!r})"

    @contextlib.contextmanager
    def extra_env(self, **variables: str) -> Generator[None]:
        """Add variables to the environment of this client's calls made inside the ``with`` block.

        They hold for this task and the tasks that it starts there, and for no other; those of its containers
        included. Nested blocks add up.

        :param variables: names and values.
        :raises TypeError: a value is not a str.
        :raises ValueError: a name or value that cannot be in an environment.
        """
        with environment.extra(self._runner.client, variables):
            yield

    # -- what there is -----------------------------------------------------------------------------------

    async def list(self, *, extra_args: Sequence[str] = ()) -> builtins.list[ContainerState]:
        """All containers under the runtime's root (``runc-list(8)``): none where there is no such directory yet."""
        try:
            outcome = await self._runner.run("list", {"format": "json"}, extra_args=extra_args)
        except CommandError as error:  # newer ones of runc fail there
            missing = NO_ROOT.fullmatch(error.message)
            if missing is None or os.path.exists(missing[1]):
                raise
            return []
        return decode_output(list[ContainerState], outcome)

    async def state(self, id: str, *, extra_args: Sequence[str] = ()) -> ContainerState:
        """The state of one container (``runc-state(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        return await self._runner.state(id, extra_args)

    async def ps(self, id: str, *, extra_args: Sequence[str] = ()) -> builtins.list[int]:
        """The pids, on the host, of a container's processes (``runc-ps(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        outcome = await self._runner.run("ps", {"format": "json"}, [id], extra_args)
        return decode_output(list[int], outcome)

    async def top(self, id: str, *ps_options: str, extra_args: Sequence[str] = ()) -> TopResults:
        """A container's processes as the program ``ps`` of the host shows them (``runc-ps(8)``).

        :param id: the container's id.
        :param ps_options: options of ``ps``, such as ``"-o", "pid,comm"``; none is ``-ef``.
        :raises ContainerNotFoundError: there is none of this id.
        :raises CommandError: ``ps`` refused its options, or gave no column of pids.
        :raises UnsupportedError: the runtime takes no options of ``ps`` (crun).
        :raises DecodeError: the cells cannot be told apart: one that has spaces is not in the last column.
        """
        with environment.extra(self._runner.client, WIDE):
            outcome = await self._runner.run("ps", {"format": "table"}, [id, *ps_options], extra_args)
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
        return await self._runner.stats(id, extra_args)

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
        :raises DecodeError: a line is not an event; by the iterator.
        """
        command_line("events", {"interval": interval}, positional=[id], extra_args=extra_args)  # refuses at once
        return stream_events(self._runner, id, interval, extra_args)

    async def version(self, *, extra_args: Sequence[str] = ()) -> Version:
        """The runtime's name, version, commit and specification (``--version``)."""
        outcome = await self._runner.version(extra_args)
        try:
            version = parse_version(outcome.stdout.decode(errors="replace"))
        except ValueError as exc:
            raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc
        self._runner.finder.learn(self.executor, version)
        return version

    async def features(self, *, extra_args: Sequence[str] = ()) -> Features:
        """What the runtime was built with (``runc features``; OCI specification, features document).

        :raises UnsupportedError: the runtime is older than runc 1.1 or crun 1.8.6.
        """
        return decode_output(Features, await self._runner.run("features", extra_args=extra_args))

    async def call(
        self,
        command: str,
        *words: str,
        options: Mapping[str, object] = MappingProxyType({}),
        extra_args: Sequence[str] = (),
    ) -> CompletedProcess:
        """Run a command of the runtime that has no method here, such as ``mounts`` of crun or ``debug`` of runsc.

        :param command: its name.
        :param words: what follows its flags: ``await runc.call("mounts", "add", id, "mounts.json")``.
        :param options: its flags by keyword, dashes as underscores. True is a switch, None and False are absent, a
            sequence repeats the flag, anything else is its value. Flags of commands that have a method are checked as
            by the method.
        :param extra_args: further arguments, put after the flags.
        :returns: what it printed. Its status is 0; a failure raises.
        :raises UnsupportedError: the runtime has no such command or flag.
        :raises ValueError: the command starts a container or a process: it has a method.

        Cancelled, it is killed.
        """
        given = {name: value for name, value in options.items() if value is not False}
        outcome = await self._runner.run(command, given, words, extra_args, build_line=call_line)
        return CompletedProcess(args=[*outcome.argv], status=0, stdout=outcome.stdout, stderr=outcome.stderr)

    # -- a container's life ------------------------------------------------------------------------------

    async def create(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        no_subreaper: bool = False,
        config: StrPath | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        """Create a container, without starting its program (``runc-create(8)``).

        Keywords that are not described here are flags of the runtime: see `StartOptions`.

        :param id: a new id: letters, digits and ``_+-.``.
        :param bundle: the directory of ``config.json``, or a `Bundle`.
        :param io: the container's streams; None is ``/dev/null``.
        :param preserve_fds: descriptors (ints, or objects with ``fileno()``) that arrive in the container as
            3, 4, …. They are duplicated; the caller may close its own as soon as the runtime runs.
        :raises ContainerExistsError: the id is taken.
        :raises InvalidContainerIdError: the runtime takes no such id.
        :raises BundleError: the bundle or its ``config.json`` is missing or invalid.
        :raises OSError: a descriptor to preserve is not open (``EBADF``).

        Cancelled, it leaves no container.
        """
        call = StartCall(CREATE, id, bundle, io, preserve_fds, extra_args, pick(StartOptions, locals()))
        await start(self._runner, call)

    async def start(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Start the program of a created container (``runc-start(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        :raises ContainerRunningError: it was started already.
        :raises ContainerNotRunningError: it has ended.
        """
        await self._runner.run("start", {}, [id], extra_args)

    async def run(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        detach: bool = False,
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        no_subreaper: bool = False,
        config: StrPath | None = None,
        keep: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> int:
        """Create and start a container, wait for its end and delete it (``runc-run(8)``).

        Keywords that are not described here are flags of the runtime: see `RunOptions`.

        :param id: as for `create`; so are `bundle`, `io` and `preserve_fds`.
        :param detach: return as soon as it runs.
        :param task_status: ``pid = await task_group.start(runc.run, id, bundle)`` gives the runtime process's pid.
        :returns: the container's exit status (128 + N when signal N ended it); with `detach` 0.
        :raises ContainerExistsError: and the others of `create`.

        Cancelled, it kills and deletes the container.
        """
        call = StartCall(RUN, id, bundle, io, preserve_fds, extra_args, pick(RunOptions, locals()), detach=detach)
        return await start(self._runner, call, task_status=task_status)

    async def exec(
        self,
        id: str,
        process: OCIProcess | Sequence[str],
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        detach: bool = False,
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
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> int:
        """Run a further process in a running container (``runc-exec(8)``).

        Keywords that are not described here are flags of the runtime: see `ExecOptions`.

        :param id: the container's id.
        :param process: its arguments, or a whole OCI process object.
        :param io: the process's streams; None is ``/dev/null``.
        :param preserve_fds: as for `create`.
        :param detach: return as soon as it runs.
        :param task_status: as for `run`.
        :returns: the process's exit status (128 + N when signal N ended it); with `detach` 0.
        :raises ContainerNotFoundError: there is no container of this id.
        :raises ContainerNotRunningError: it is not running.

        Cancelled, it kills the process.
        """
        options = pick(ExecOptions, locals())

        def make_call() -> StartCall:
            words, files, rest = build_exec(process, options, read_container_process(self._runner, id), extra_args)
            return StartCall(
                EXEC, id, None, io, preserve_fds, extra_args, rest, detach=detach, words=words, files=files
            )

        call = make_call()
        check_arguments(call)
        with self._runner.keep() as runner:
            if await runner.find_dialect():  # where the container's own process is read from depends on it
                call = make_call()
            return await start(runner, call, task_status=task_status)

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
        :param all: send it to every process in the container. runc 1.2 and newer ignore it: there ``KILL`` reaches
            every process, and other signals the init alone.
        :raises ContainerNotFoundError: there is none of this id.
        :raises ContainerNotRunningError: it has ended.
        """
        await self._runner.run("kill", {"all": all}, [id, signal_argument(signal)], extra_args)

    async def pause(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Suspend all processes of a container (``runc-pause(8)``).

        :param id: the container's id.
        :raises ContainerNotRunningError: it is neither created nor running.
        """
        await self._runner.run("pause", {}, [id], extra_args)

    async def resume(self, id: str, *, extra_args: Sequence[str] = ()) -> None:
        """Let a paused container go on (``runc-resume(8)``).

        :param id: the container's id.
        :raises ContainerNotFoundError: there is none of this id.
        """
        await self._runner.run("resume", {}, [id], extra_args)

    async def update(
        self,
        id: str,
        resources: OCIResources | None = None,
        *,
        blkio_weight: int | None = None,
        cpu_period: int | None = None,
        cpu_quota: int | None = None,
        cpu_burst: int | None = None,
        cpu_share: int | None = None,
        cpu_rt_period: int | None = None,
        cpu_rt_runtime: int | None = None,
        cpuset_cpus: str | None = None,
        cpuset_mems: str | None = None,
        cpu_idle: int | None = None,
        kernel_memory: int | str | None = None,
        kernel_memory_tcp: int | str | None = None,
        memory: int | str | None = None,
        memory_reservation: int | str | None = None,
        memory_swap: int | str | None = None,
        pids_limit: int | None = None,
        l3_cache_schema: str | None = None,
        mem_bw_schema: str | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        """Change a container's limits (``runc-update(8)``).

        Keywords that are not described here are flags of the runtime: see `UpdateOptions`. Beside `resources`, the
        runtime takes ``l3_cache_schema`` and ``mem_bw_schema`` only.

        :param id: the container's id.
        :param resources: an OCI ``linux.resources`` object; or None, and single values as keywords.
        :raises ContainerNotFoundError: there is none of this id.
        :raises TypeError: `resources` is not a mapping, or has something in it that JSON has not.
        :raises ValueError: both are given, or nothing.
        """
        options = pick(UpdateOptions, locals())
        if resources is None and not options:
            raise ValueError("update: nothing to change: neither resources nor a single value is given")
        check_type("resources", resources, Mapping, None, wanted="an OCI linux.resources object")
        files = {} if resources is None else {"resources": encode_document(resources)}
        await self._runner.run("update", options, [id], extra_args, files=files)

    async def delete(self, id: str, *, force: bool = False, extra_args: Sequence[str] = ()) -> None:
        """Delete a container that has ended (``runc-delete(8)``).

        :param id: the container's id.
        :param force: kill it first if it lives; no error if there is none of this id.
        :raises ContainerNotFoundError: there is none of this id, and not `force`.
        :raises ContainerRunningError: it lives, and not `force`.

        Cancelled, it lets the runtime finish first, for ``cleanup_timeout`` seconds at most.
        """
        await delete(self._runner, id, force=force, extra_args=extra_args)

    async def spec(
        self, bundle: StrPath | None = None, *, rootless: bool = False, extra_args: Sequence[str] = ()
    ) -> None:
        """Write a ``config.json`` to start from (``runc-spec(8)``).

        :param bundle: the directory to write it in; None is the working directory.
        :param rootless: one that an ordinary user can run.
        :raises CommandError: the file exists, or cannot be written.
        """
        await self._runner.run("spec", {"bundle": bundle, "rootless": rootless}, extra_args=extra_args)

    async def checkpoint(
        self,
        id: str,
        *,
        image_path: StrPath | None = None,
        status_fd: Descriptor | None = None,
        work_path: StrPath | None = None,
        tcp_established: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        lazy_pages: bool = False,
        file_locks: bool = False,
        manage_cgroups_mode: str | None = None,
        empty_ns: str | Sequence[str] | None = None,
        auto_dedup: bool = False,
        network_lock: str | None = None,
        parent_path: StrPath | None = None,
        leave_running: bool = False,
        tcp_skip_in_flight: bool = False,
        link_remap: bool = False,
        page_server: str | None = None,
        pre_dump: bool = False,
        extra_args: Sequence[str] = (),
    ) -> None:
        """Write a running container to disk by CRIU (``runc-checkpoint(8)``, ``criu(8)``).

        Keywords that are not described here are flags of the runtime: see `CheckpointOptions`.

        :param id: the container's id.
        :param image_path: the directory of the image, made if missing; None is ``checkpoint`` in the working
            directory.
        :param status_fd: a descriptor to which CRIU writes one NUL byte when its page server is ready, for
            ``lazy_pages``. It is duplicated.
        :raises ContainerNotRunningError: it is not running.
        :raises UnsupportedError: the runtime has no such flag (crun has fewer than runc).
        :raises CommandError: CRIU failed; the message quotes its log. The container goes on running.

        Cancelled, it kills the runtime, and CRIU lets go the container, which goes on running. Only where CRIU
        was past its last question to the runtime (crun's asks none), and not with `leave_running`, the container
        has ended with its image whole, and is left for `delete`. CRIU gets ``cleanup_timeout`` seconds; killed
        after that, it may leave the container paused (`resume`).

        After a failure or a cancellation the image directory stays, half written, with ``dump.log``: it cannot be
        restored from, and is the caller's to remove.
        """
        descriptors = {} if status_fd is None else {"status_fd": status_fd}
        flags = {"image_path": image_path, **pick(CheckpointOptions, locals())}
        with self._quote_criu_log(flags, "dump.log"):
            await self._runner.run(
                "checkpoint", flags, [id], extra_args, descriptors=descriptors, on_cancel="interrupt"
            )

    async def restore(
        self,
        id: str,
        bundle: StrPath,
        *,
        image_path: StrPath | None = None,
        io: IO | None = None,
        detach: bool = False,
        work_path: StrPath | None = None,
        tcp_established: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        lazy_pages: bool = False,
        file_locks: bool = False,
        manage_cgroups_mode: str | None = None,
        empty_ns: str | Sequence[str] | None = None,
        auto_dedup: bool = False,
        network_lock: str | None = None,
        console_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_subreaper: bool = False,
        no_pivot: bool = False,
        tcp_close: bool = False,
        lsm_profile: str | None = None,
        lsm_mount_context: str | None = None,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
    ) -> int:
        """Bring a container back from an image, and wait for its end (``runc-restore(8)``).

        Keywords that are not described here are flags of the runtime: see `RestoreOptions`.

        :param id: the new container's id; `bundle`, `io`, `detach` and `task_status` are as for `run`.
        :param image_path: the directory of the image; None is ``checkpoint`` in the working directory.
        :returns: as `run`.
        :raises ContainerExistsError: the id is taken.
        :raises UnsupportedError: the runtime has no such flag (crun has fewer than runc).
        :raises CommandError: CRIU failed; the message quotes its log. Nothing is left of the container.

        Cancelled, it leaves no container.
        """
        flags: dict[str, Any] = {"image_path": image_path, **pick(RestoreOptions, locals())}
        for name in ("image_path", "work_path"):  # the runtimes go into the bundle before they look for these
            if flags.get(name):
                flags[name] = os.path.join(self._runner.settings.work_dir or os.getcwd(), flags[name])
        with self._quote_criu_log(flags, "restore.log"):
            call = StartCall(RESTORE, id, bundle, io, (), extra_args, flags, detach=detach)
            return await start(self._runner, call, task_status=task_status)

    @contextlib.contextmanager
    def _quote_criu_log(self, flags: Mapping[str, Any], log: str) -> Generator[None]:
        """Let a failure quote CRIU's log."""
        begun = time.time_ns()
        try:
            yield
        except CommandError as error:
            base = self._runner.settings.work_dir or os.curdir
            folders = [flags.get("work_path"), flags.get("image_path") or "checkpoint"]
            found = [os.path.join(base, os.fsdecode(folder)) for folder in folders if folder is not None]
            quoted = criu_log.explain(error, log, found, begun)
            if quoted is error:
                raise
            raise quoted from None

    # -- containers as objects ---------------------------------------------------------------------------

    @overload
    def container(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: None = None,
        preserve_fds: Sequence[Descriptor] = (),
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        no_subreaper: bool = False,
        config: StrPath | None = None,
        extra_args: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[Container[None]]: ...

    @overload
    def container(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: AnyIO,
        preserve_fds: Sequence[Descriptor] = (),
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        no_subreaper: bool = False,
        config: StrPath | None = None,
        extra_args: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[Container[AnyIO]]: ...

    def container(
        self,
        id: str,
        bundle: StrPath,
        *,
        io: IO | None = None,
        preserve_fds: Sequence[Descriptor] = (),
        console_socket: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        no_subreaper: bool = False,
        config: StrPath | None = None,
        extra_args: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[Container[Any]]:
        """A container that is created on entering and gone on leaving, however.

        Not a coroutine: ``async with runc.container(id, bundle) as container:``. The parameters, and what
        entering raises, are as for `create`. On leaving, its processes are killed, it is deleted,
        and `io` is closed, all within ``cleanup_timeout``.

        :raises TimeoutError: it could not be removed in that time; on leaving. If an exception is under way, that
            one goes on, with a note, and the failure is logged.
        """
        from ._container_context import create

        call = StartCall(CREATE, id, bundle, io, preserve_fds, extra_args, pick(StartOptions, locals()))

        return create(self._runner, call, io)

    def attach(self, id: str, *, delete: bool = False) -> AbstractAsyncContextManager[Container[None]]:
        """A container that exists already, such as one of a supervisor's earlier life.

        Not a coroutine: ``async with runc.attach(id) as container:``.

        :param id: the container's id.
        :param delete: whether it is killed and deleted on leaving, as with `container`.
        :raises ContainerNotFoundError: there is none of this id; on entering.
        """
        from ._container_context import attach

        return attach(self._runner, id, delete=delete)

    # -- jobs --------------------------------------------------------------------------------------------

    async def execute(self, job: Job) -> Result:
        """Run a program in a container of its own, to its end; the container is gone afterwards.

        :param job: the program, its files and its limits.
        :returns: its `Result`, whatever its program did.
        :raises RuncError: the runtime failed; the errors of `create` and `start` likewise.
        :raises OSError: a file cannot be written, or this system does not count CPU time (``EOPNOTSUPP``).

        Cancelled, it leaves no container.
        """
        async with self.launch(job) as running:
            return await running.result()

    def launch(self, job: Job) -> AbstractAsyncContextManager[RunningJob]:
        """Run a program in a container of its own, and watch it: ``async with runc.launch(job) as running:``.

        :param job: as for `execute`, which says what entering raises.
        :returns: a `RunningJob`. Leaving the context kills it, if it still runs, and removes its container.
        """
        from ._jobs.running import launch

        return launch(self._runner, job)


def _absolute(what: str, path: StrPath | None, directory: StrPath | None = None) -> str | None:
    if path is None:
        return None
    with naming(what):
        return os.path.abspath(os.path.join(directory or "", path_argument(path)))


def _check_settings(
    setpgid: object, cleanup_timeout: object, monitor: object, dialect: object, trace: object, words: Sequence[str]
) -> None:
    """Refuse wrong arguments of `Runc`, as far as nothing else does."""
    if not isinstance(setpgid, bool):
        raise TypeError(f"setpgid must be bool, not {type(setpgid).__name__}")
    if not isinstance(cleanup_timeout, int | float) or not cleanup_timeout > 0:
        raise ValueError(f"cleanup_timeout must be a positive number of seconds, not {cleanup_timeout!r}")
    if not isinstance(monitor, Monitor | None):
        raise TypeError(f"monitor must be a Monitor, not {type(monitor).__name__}")
    if dialect is not None and dialect not in DIALECTS:
        raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}")
    if trace is not None and not callable(trace):
        raise TypeError(f"trace must be callable, not {type(trace).__name__}")
    if extra_root := next((word for word in words if word == "--root" or word.startswith("--root=")), None):
        raise ValueError(f"extra_args: {extra_root!r} must be given as root=")
