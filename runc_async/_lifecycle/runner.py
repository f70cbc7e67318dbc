"""The road of every call, to its outcome; and the way back when it is left early."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import msgspec

from .._cli.commands import FLAGS_OF_OLD, command_line
from .._cli.messages import failure as failure_of
from .._cli.messages import parse_log
from .._cli.validation import written
from .._errors import BundleError, CommandError, ContainerExistsError, DecodeError, RuncError, UnsupportedError
from .._eventloop.shield import at_checkpoints_only, shielded
from .._io import IO, NullIO
from .._linux import fd_reserve
from .._linux.fd_reserve import with_room
from .._linux.pidfd import Pidfd
from .._linux.tempdir import private_directory
from .._models import ContainerState, decode, parse_json, parse_version
from .._process import capture
from .._process.child_fds import Leases
from .._process.environment import environment
from .._process.process import Host, Outcome, Process, captured
from .._sockets import RuntimeSocket
from .events import event_stream
from .remnants import (
    cgroups_of,
    clear_failed,
    clear_remnants,
    kill_by_file,
    pid_in,
    remove,
    sweep_cgroups,
    unmount_cgyard,
    unmount_remnants,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence

    from anyio.abc import TaskStatus

    from .._bundle.spec import Spec
    from .._cli.options import StrPath
    from .._linux.descriptors import Descriptor
    from .._models import Event
    from .._monitor import Monitor

__all__ = ["Launched", "Road", "decoded", "process_object"]

T = TypeVar("T")

logger = logging.getLogger("runc_async")

TICK = 10_000_000
"""Nanoseconds by which the time of a file may lag behind the clock, at most."""


class Road:
    """How the calls of one `Runc` travel.

    :param host: how runtime processes are started.
    :param log: a file that every call's log is appended to, or None.
    :param global_options: the command line before the command, but for ``--log``.
    :param env: variables added to every call.
    :param monitor: who is told of processes that a call leaves running, or None.
    """

    def __init__(
        self,
        host: Host,
        *,
        log: str | None,
        global_options: Sequence[str],
        env: Mapping[str, str],
        monitor: Monitor | None = None,
    ) -> None:
        self.host = host
        self._monitor = monitor
        self._log = log
        self._globals = global_options
        self._env = env
        self._known_flags: set[str] = set()

    def _environment(self) -> dict[str, str] | None:
        return environment(self, self._env)

    def _line(self, log: str, arguments: Sequence[str]) -> list[str]:
        return [*self._globals, "--log", log, *arguments]

    @at_checkpoints_only
    async def version(self, extra_args: Sequence[str] = ()) -> Outcome:
        """Run ``--version``."""
        # crun makes its root even then. Other global flags may be what is unknown.
        line = [*(word for word in self._globals if word.startswith("--root=")), *extra_args, "--version"]
        with self.descriptors() as (leases, log):
            outcome = await captured(self.host, line, self._environment(), leases, log)
        if outcome.status:
            raise await self.error(outcome)
        return outcome

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def events(self, id: str, line: Sequence[str]) -> AsyncGenerator[AsyncIterator[Event]]:
        """Run ``events``, and give what it prints as it comes, until the container's init has ended."""
        state = decoded(ContainerState, await self.captured("state", {}, [id]))
        with contextlib.ExitStack() as stack:
            init = None
            if state.pid > 0:
                with contextlib.suppress(ProcessLookupError):
                    init = stack.enter_context(Pidfd.open(state.pid))
            leases, log = stack.enter_context(self.descriptors())
            process = Process(self.host, leases, self._line(leases.path(log), line), self._environment())
            async with event_stream(process, leases, log, self.error, init) as events:
                yield events

    @contextlib.contextmanager
    def descriptors(self, preserve_fds: Sequence[Descriptor] = ()) -> Generator[tuple[Leases, int]]:
        """The descriptors of one call, and its log, which goes on to the user's when the call ends."""
        with contextlib.ExitStack() as stack:
            users_log = None
            if self._log is not None:
                users_log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, users_log)
            leases = stack.enter_context(Leases(preserve_fds))
            log = leases.adopt(capture.memory_file("log"))
            leases.keep(log)
            try:
                yield leases, log
            finally:
                if users_log is not None:
                    os.write(users_log, capture.logged(log))

    @at_checkpoints_only
    async def captured(
        self,
        command: str,
        options: Mapping[str, object] = {},
        positional: Sequence[str] = (),
        extra_args: Sequence[str] = (),
        *,
        files: Mapping[str, bytes] = {},
        descriptors: Mapping[str, Descriptor] = {},
        patient: bool = False,
        interrupt: bool = False,
    ) -> Outcome:
        """Run a command that starts nothing.

        :param files: keyword to the content of a file that the runtime reads.
        :param descriptors: keyword to a descriptor that the runtime gets.
        :param patient: when cancelled, let the runtime finish first.
        :param interrupt: when cancelled, kill the runtime, and let its children finish first.
        """
        with self.descriptors() as (leases, log):
            given = {
                **options,
                **{name: _as_path(leases, name, content) for name, content in files.items()},
                **{name: leases.keep(leases.lease(what, name)) for name, what in descriptors.items()},
            }
            line = command_line(command, given, positional=positional, extra_args=extra_args)
            call = self._line(leases.path(log), line)
            outcome = await captured(self.host, call, self._environment(), leases, log, patient, interrupt)
        if command == "delete":
            await shielded(sweep_cgroups, outcome.log, positional[0], self.host.cleanup_timeout)
        if outcome.overflowed:
            reason = f"more than {capture.STDOUT_LIMIT >> 20} MiB of output"
            raise DecodeError(outcome.argv, outcome.stdout, reason)
        if outcome.status:
            raise await self.error(outcome)
        return outcome

    @at_checkpoints_only
    async def start(
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
        with contextlib.ExitStack() as stack:
            if detached and options.get("pid_file") is None and (self._monitor or command == "exec"):
                folder = stack.enter_context(private_directory())
                options = {**options, "pid_file": os.path.join(folder, "pid")}
            async with self.launched(
                command, id, bundle, io, preserve_fds, extra_args, options, detached=detached, words=words, files=files
            ) as launched:
                task_status.started(launched.pid)
                status = await launched.wait()
            if detached and self._monitor:
                self._monitor.detached(pid_in(self.host.seen(os.fsdecode(cast("StrPath", options["pid_file"])))))
            return status

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def launched(
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
        files: Mapping[str, bytes] = {},
    ) -> AsyncGenerator[Launched]:
        """Start a command that starts a container, or a process in one, which inherits its streams.

        Whoever leaves before the command has ended has what it started undone.
        """
        io = NullIO() if io is None else io
        if not isinstance(cast("object", io), IO):
            raise TypeError(f"io must be an IO, not {type(io).__name__}")
        # Whoever waits for the runtime to connect is told how the call has ended.
        sockets: list[RuntimeSocket[Any]] = [end for end in options.values() if isinstance(end, RuntimeSocket)]
        for socket in sockets:
            socket.call_begins()
        failure: BaseException | None = None
        try:
            fd_reserve.fill()
            with self.descriptors(preserve_fds) as (leases, log):
                given = {
                    **options,
                    **{name: _as_path(leases, name, content) for name, content in files.items()},
                    "bundle": bundle,
                    "detach": False if command == "create" else detached,
                    "preserve_fds": len(preserve_fds) or None,
                }
                given = {name: value for name, value in given.items() if value is not None and value is not False}
                pid_file = given.get("pid_file")
                if isinstance(pid_file, str | os.PathLike) and os.fspath(cast("StrPath", pid_file)):
                    # crun takes a relative one from the bundle.
                    given["pid_file"] = self.host.seen(os.fsdecode(cast("StrPath", pid_file)))
                words = [id, *words]
                line = command_line(command, given, positional=words, extra_args=extra_args)
                start = _Start(self.host, command, id, given, detached, line[: len(line) - len(words)])
                ends = await io.open()
                null = leases.adopt(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                leases.stdio(*(null if end is None else leases.lease(end) for end in ends))
                process = Process(self.host, leases, self._line(leases.path(log), line), self._environment())
                launched = Launched(self, start, process, log)
                try:
                    await process.start()
                    leases.close(log)
                    io.started()
                    yield launched
                finally:
                    if not launched.ended:
                        await shielded(self._undo, start, process, log)
        except BaseException as exc:
            failure = exc
            raise
        finally:
            for socket in sockets:
                socket.call_ended(failure)
            io.started()

    async def judge(self, start: _Start, outcome: Outcome) -> None:
        """Raise if a status that is not 0 is the runtime's own failure; return if it is the container's."""
        if start.command != "exec":
            if outcome.status < 0 or _has_crashed(outcome):
                self._remove_empty_state(start)
            if outcome.status < 0 or (start.detached and _has_crashed(outcome)):  # half-way
                await shielded(clear_remnants, self, start.id, start.begun)
            elif _has_crashed(outcome) and "keep" not in start.options:  # or it is the container's status
                await shielded(clear_failed, self, start.id, start.begun)
        if start.detached or outcome.status < 0 or _has_failed(outcome.log):
            if not outcome.log:
                await self._ask_why(start, outcome)
            error = await self.error(outcome)
            if not isinstance(error, ContainerExistsError):
                await shielded(self._unmount, start)
                if start.command != "exec":  # of an id that is taken it may be the other's, not filled yet
                    self._remove_empty_state(start)
                if start.command == "restore" or (start.command != "exec" and self._has_left_state(start.id)):
                    await shielded(clear_failed, self, start.id, start.begun)
            raise error
        await self._ask_why(start, outcome)

    def _state_of(self, id: str) -> str | None:
        """A container's state directory; None where only the runtime knows its root."""
        roots = [word.removeprefix("--root=") for word in self._globals if word.startswith("--root=")]
        return os.path.join(self.host.seen(roots[-1]), id) if roots else None

    def _has_left_state(self, id: str) -> bool:
        """Whether a call that failed may have left a state directory, as crun does where the disk is full."""
        folder = self._state_of(id)
        return folder is None or os.path.lexists(folder)

    def _remove_empty_state(self, start: _Start) -> None:
        """Remove what a runtime left that ended before it wrote anything. Where processes are short, it could not."""
        folder = self._state_of(start.id)
        with contextlib.suppress(OSError):
            if folder is not None and os.lstat(folder).st_ctime_ns >= start.begun - TICK:
                os.rmdir(folder)

    async def _ask_why(self, start: _Start, outcome: Outcome) -> None:
        """Raise the reason of a failure that only went to stderr, which is the container's.

        These are an unknown flag (crun, runc 1.5) and a bundle that is missing or not to be read, or whose
        ``config.json`` is no specification (crun).
        """
        flags = frozenset(word.partition("=")[0] for word in start.flags[1:]) - FLAGS_OF_OLD
        if not flags <= self._known_flags:
            # The same flags before ``--help`` fail on the flag, or do nothing.
            answer = await self._ask(self._globals, [*start.flags, "--help"])
            if answer.status:
                raise await self.error(answer._replace(argv=outcome.argv))
            self._known_flags |= flags
        if start.may_have_a_bad_bundle():
            # With a root that cannot be, nothing can start; crun reads the bundle before it finds that out.
            nowhere = [*(word for word in self._globals if not word.startswith("--root=")), f"--root={os.devnull}"]
            answer = await self._ask(nowhere, [*start.flags, start.id])
            if answer.stderr.strip() and not answer.log:
                raise await self.error(answer._replace(argv=outcome.argv))
        if start.missing_config is not None:
            message = f"{start.missing_config}: no such file"
            raise BundleError(outcome.argv, outcome.status, message, parse_log(outcome.log))
        if start.has_nothing_to_run():
            raise BundleError(outcome.argv, outcome.status, "args must not be empty: config.json names no program")

    async def _ask(self, options: Sequence[str], line: Sequence[str]) -> Outcome:
        with self.descriptors() as (leases, log):
            words = [*options, "--log", leases.path(log), *line]
            return await captured(self.host, words, self._environment(), leases, log)

    async def _undo(self, start: _Start, process: Process, log: int) -> None:
        """Leave nothing of a command that was cancelled. Never raises; what fails is logged."""
        try:
            with anyio.fail_after(3 * self.host.cleanup_timeout):
                await with_room(self._undone, start, process, log)
        except Exception:
            logger.exception("%s %s: cancelled, and could not be cleaned up", start.command, start.id)

    async def _undone(self, start: _Start, process: Process, log: int) -> None:
        status = await process.abandon(start.command)
        if not process.pid:
            return
        self.runtime_ended()
        await self.sweep(start, log)
        if status and not _exists(process, log):
            await self._unmount(start)
        if start.command == "restore" and status != 0:
            folder = start.options.get("work_path") or start.options.get("image_path") or "checkpoint"
            unmount_cgyard(self.host.seen(os.fsdecode(cast("StrPath", folder))), start.begun)
        if start.command == "exec":
            pid_file = start.options.get("pid_file")
            if status == 0 and start.detached and pid_file is not None:
                kill_by_file(cast("StrPath", pid_file))
        elif status is None or _has_crashed(Outcome(process.argv, status, log=capture.logged(log))):
            await clear_remnants(self, start.id, start.begun)
        elif status == 0 or ("keep" in start.options and not _has_failed(capture.logged(log))):
            await self.remove(start.id)
        elif not _exists(process, log) and (start.command == "restore" or cgroups_of(start.id)):
            await clear_failed(self, start.id, start.begun)

    async def _unmount(self, start: _Start) -> None:
        """Take away mounts of a runtime whose children were killed, and the state directory that they held."""
        if await unmount_remnants(start.id) and start.command != "exec":
            await clear_remnants(self, start.id, start.begun)

    async def remove(self, id: str) -> None:
        """Kill a container and delete it, quickly."""
        await remove(self, id)

    def runtime_ended(self) -> None:
        """Tell the monitor, who may have become the parent of what the runtime had started."""
        if self._monitor:
            self._monitor.runtime_ended()

    async def sweep(self, start: _Start, log: int) -> None:
        """Remove the cgroups that the runtime could not remove when a container ended."""
        await sweep_cgroups(capture.logged(log), start.id, self.host.cleanup_timeout)

    async def error(self, outcome: Outcome) -> CommandError:
        """The exception for a runtime's failure."""
        entries = parse_log(outcome.log)
        error = failure_of(outcome.argv, outcome.status, log=entries, stderr=outcome.stderr, stdout=outcome.stdout)
        if isinstance(error, UnsupportedError) and not outcome.argv[-1].startswith("--version"):
            found = parse_version((await self.version()).stdout.decode(errors="replace"))
            error = failure_of(
                outcome.argv,
                outcome.status,
                log=entries,
                stderr=outcome.stderr,
                stdout=outcome.stdout,
                version=found.version,
            )
        return error


class Launched:
    """A command under way that starts a container, or a process in one."""

    def __init__(self, road: Road, start: _Start, process: Process, log: int) -> None:
        self._road = road
        self._start = start
        self._process = process
        self._log = log
        self.ended = False
        """Whether the command has ended, and all that follows from it is done."""
        self.ending: Callable[[], None] | None = None
        """Called when the runtime process has ended, before anybody takes over what it left running."""

    @property
    def pid(self) -> int:
        """The runtime process's."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until the command has ended; the status of what it ran, 0 where it only started it.

        :raises CommandError: the runtime itself failed.
        """
        status = await self._process.wait()
        if self.ending is not None:
            self.ending()
        self._road.runtime_ended()
        await shielded(self._road.sweep, self._start, self._log)
        if status:
            outcome = Outcome(self._process.argv, status, log=capture.logged(self._log))
            try:
                await self._road.judge(self._start, outcome)
            except RuncError:
                self.ended = True
                raise
        self.ended = True
        return status


class _Start:
    """What is remembered of a command that starts something."""

    def __init__(
        self,
        host: Host,
        command: str,
        id: str,
        options: Mapping[str, object],
        detached: bool,
        flags: Sequence[str],
    ) -> None:
        self.command = command
        self.id = id
        self.options = options
        self.detached = detached
        self.flags = flags
        """The command and its flags, without what follows them."""
        self.begun = time.time_ns()
        self._config: str | None = None
        self.missing_config: str | None = None
        """The path of a ``config.json`` that was not there when the call began."""
        bundle = options.get("bundle")
        if bundle is not None:
            name = os.fsdecode(cast("StrPath", options.get("config", "config.json")))
            self._config = host.seen(os.path.join(os.fsdecode(cast("StrPath", bundle)), name))
            try:
                os.stat(self._config)
            except (FileNotFoundError, NotADirectoryError):
                self.missing_config = self._config
            except OSError:  # not ours to read
                pass

    def may_have_a_bad_bundle(self) -> bool:
        """Whether the runtime may have failed because it could not read the bundle, or found it wrong."""
        if self._config is None or self.command == "restore":
            return False
        if self.detached or self.missing_config is not None:  # it has failed
            return True
        try:
            self._spec(self._config)
        except FileNotFoundError:  # it was there, and is not needed any more
            return False
        except (OSError, ValueError):  # msgspec's own are ValueErrors
            return True
        return False

    def has_nothing_to_run(self) -> bool:
        """Whether the bundle names no program. crun's init says that on the container's stderr."""
        if self._config is None or self.command == "restore":
            return False
        try:
            return not self._spec(self._config).get("process", {}).get("args")
        except (OSError, ValueError):
            return False

    @staticmethod
    def _spec(config: str) -> Spec:
        from .._bundle.spec import Spec

        with open(config, "rb") as file:
            return parse_json(Spec, file.read())


def _has_crashed(outcome: Outcome) -> bool:
    """Whether Go may have ended the runtime, for lack of a thread as a rule: by status 2, without a word in the log."""
    return outcome.status == 2 and not outcome.log


def _has_failed(log: bytes) -> bool:
    return any(entry.level in ("error", "fatal") for entry in parse_log(log))


def _exists(process: Process, log: int) -> bool:
    """Whether the runtime refused an id that is taken."""
    error = failure_of(process.argv, process.status or 0, log=parse_log(capture.logged(log)))
    return isinstance(error, ContainerExistsError)


def _as_path(leases: Leases, name: str, content: bytes) -> str:
    """A path under which the child can read these bytes."""
    return f"/proc/self/fd/{leases.keep(leases.adopt(capture.memory_file(name, content=content)))}"


def decoded(shape: type[T], outcome: Outcome) -> T:
    try:
        return decode(shape, outcome.stdout)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc


def process_object(
    process: Mapping[str, Any] | Sequence[str],
) -> tuple[Sequence[str], dict[str, bytes]]:
    """Arguments on the command line, or an OCI process object in a file."""
    if isinstance(process, str | bytes):
        raise TypeError("process must be a sequence of arguments or an OCI process object, not one string")
    if isinstance(process, Mapping):
        return (), {"process": written(process)}
    if not isinstance(cast("object", process), Iterable):
        wanted = "a sequence of arguments or an OCI process object"
        raise TypeError(f"process must be {wanted}, not {type(process).__name__}")
    return process, {}
