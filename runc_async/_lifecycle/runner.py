"""Runs runtime commands: builds the command line, starts the runtime, waits, and raises on failure."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .._cli.command_line import command_line
from .._cli.dialects import RUNC, find_dialect
from .._cli.messages import failure, parse_log
from .._errors import CommandError, ContainerNotFoundError, DecodeError, RuncError, UnsupportedError
from .._eventloop.shield import at_checkpoints_only, shielded
from .._executor import PinnedExecutor, name_runtime
from .._linux.cgroup_paths import container_cgroups
from .._linux.ownership import check_private
from .._models import ContainerState, Event, Stats, decode, parse_version
from .._process import capture
from .._process.capture import Outcome
from .._process.child_fds import ChildFds
from .._process.environment import environment
from .._process.memfile import memory_file, read_log
from .dialect import DialectFinder, check_exact_id
from .remnants import sweep_cgroups

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from .._cli.dialects import Dialect
    from .._linux.descriptors import Descriptor
    from .._monitor import Monitor
    from .._process.capture import OnCancel
    from .._process.process import Settings

__all__ = ["Runner", "decode_output"]

T = TypeVar("T")

DESTRUCTIVE = frozenset({"delete", "kill"})
"""Commands that must not reach another container than the one that is meant."""


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs the commands of one client.

    :ivar settings: how runtime processes are started.
    :ivar root: the runtime's ``--root``, an absolute path; None is the runtime's own default.
    :ivar global_options: what stands before the command, but for ``--log``.
    :ivar env: variables added to the environment of every call.
    :ivar log: a file that the log of every call is appended to, or None.
    :ivar monitor: the monitor of processes that a call leaves running.
    :ivar client: whose calls these are, for `environment`.
    :ivar systemd_cgroup: whether systemd makes the cgroups.
    :ivar rootless: as given to the runtime; None is its own choice.
    :ivar finder: finds how the runtime talks.
    """

    settings: Settings
    root: str | None
    global_options: Sequence[str]
    env: Mapping[str, str]
    log: str | None
    monitor: Monitor
    client: object
    systemd_cgroup: bool = False
    rootless: bool | None = None
    finder: DialectFinder = field(default_factory=lambda: DialectFinder(None))

    # -- any command -------------------------------------------------------------------------------------

    @at_checkpoints_only
    async def run(
        self,
        command: str,
        options: Mapping[str, object] = {},
        positional: Sequence[str] = (),
        extra_args: Sequence[str] = (),
        *,
        files: Mapping[str, bytes] = {},
        descriptors: Mapping[str, Descriptor] = {},
        on_cancel: OnCancel = "kill",
        build_line: Callable[..., list[str]] = command_line,
    ) -> Outcome:
        """Run a command that starts nothing that outlives it, and capture its output.

        :param files: keyword to the content of a file that the runtime reads.
        :param descriptors: keyword to a descriptor that the runtime gets.
        :param on_cancel: how a cancellation ends the runtime process.
        :param build_line: `command_line`, or `call_line` for any command.
        :raises CommandError: the runtime failed.
        :raises DecodeError: it printed more than is captured.
        """
        kept = self.keep() if command in DESTRUCTIVE else contextlib.nullcontext(self)
        with kept as runner, self.open_descriptors() as (fds, log):
            given = {
                **options,
                **{name: path_of(fds, name, content) for name, content in files.items()},
                **{name: fds.keep(fds.duplicate(what, name)) for name, what in descriptors.items()},
            }

            def build() -> list[str]:
                return build_line(command, given, positional=positional, extra_args=extra_args, dialect=self.dialect)

            line = build()
            # Only now: wrong arguments are refused before anything is started. Of the other commands each runtime
            # refuses by itself what it cannot do, and it does no harm.
            if command in DESTRUCTIVE and await runner.find_dialect():
                line = build()
            try:
                check_exact_id(self.dialect, command, positional, self.find_root())
            except ContainerNotFoundError as error:
                if options.get("force"):
                    return Outcome(error.argv, 0)
                raise
            arguments = self.build_arguments(fds, log, line)
            outcome = await capture.run(runner.settings, arguments, self.build_environment(), fds, log, on_cancel)
        if command == "delete" and outcome.log:
            await shielded(sweep_cgroups, outcome.log, self.settings.cleanup_timeout)
        if outcome.overflowed:
            reason = f"more than {capture.STDOUT_LIMIT >> 20} MiB of output"
            raise DecodeError(outcome.argv, outcome.stdout, reason)
        if outcome.status:
            raise await self.make_error(outcome)
        return outcome

    async def ask(self, global_options: Sequence[str], line: Sequence[str]) -> Outcome:
        """Run a command line as it is, and give what came of it, whatever that is."""
        with self.open_descriptors() as (fds, log):
            arguments = [*global_options, "--log", fds.path(log), *line]
            return await capture.run(self.settings, arguments, self.build_environment(), fds, log)

    def build_environment(self) -> dict[str, str] | None:
        """Build the environment of a call that is made now; None is this process's own."""
        return environment(self.client, self.env)

    def build_arguments(self, fds: ChildFds, log: int, line: Sequence[str]) -> list[str]:
        """Build the arguments of a runtime process that logs to a descriptor of the call."""
        return [*self.global_options, "--log", fds.path(log), *line]

    @contextlib.contextmanager
    def open_descriptors(self, preserve_fds: Sequence[Descriptor] = ()) -> Generator[tuple[ChildFds, int]]:
        """Open the descriptors of one call, and its log, which goes on to the user's file when the call ends.

        :raises PermissionError: another user may have prepared the directory of state.
        """
        if self.root is not None:
            check_private(self.root)
        with contextlib.ExitStack() as stack:
            users_log = None
            if self.log is not None:
                users_log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, users_log)
            fds = stack.enter_context(ChildFds(preserve_fds))
            log = fds.adopt(memory_file("log"))
            fds.keep(log)
            try:
                yield fds, log
            finally:
                if users_log is not None:
                    os.write(users_log, read_log(log))

    async def find_dialect(self) -> bool:
        """Find how the runtime talks, if it is not known yet.

        :returns: whether `dialect` is another one now.
        """
        before = self.dialect
        if self.finder.found is None:
            await self.finder.find(self.settings.executor, self.version)
        return self.dialect is not before

    @property
    def dialect(self) -> Dialect:
        """How the runtime talks. As long as nobody has asked it, its name decides."""
        return self.finder.found or find_dialect(name_runtime(self.settings.executor)) or RUNC

    # -- what several callers ask ------------------------------------------------------------------------

    @at_checkpoints_only
    async def version(self, extra_args: Sequence[str] = ()) -> Outcome:
        """Run ``--version``."""
        # crun makes its root even then. Another global flag may be the one that is unknown.
        root = [] if self.root is None else [f"--root={self.root}"]
        with self.open_descriptors() as (fds, log):
            arguments = [*root, *extra_args, "--version"]
            outcome = await capture.run(self.settings, arguments, self.build_environment(), fds, log)
        if outcome.status:
            raise await self.make_error(outcome)
        return outcome

    async def state(self, id: str, extra_args: Sequence[str] = ()) -> ContainerState:
        """Run ``state``."""
        return decode_output(ContainerState, await self.run("state", {}, [id], extra_args))

    async def stats(self, id: str, extra_args: Sequence[str] = ()) -> Stats:
        """Run ``events --stats``."""
        outcome = await self.run("events", {"stats": True}, [id], extra_args)
        event = decode_output(Event, outcome)
        if not isinstance(event.data, Stats):
            raise DecodeError(outcome.argv, outcome.stdout, f"an event of type {event.type!r}, not stats")
        return event.data

    async def make_error(self, outcome: Outcome) -> CommandError:
        """Make the exception for a runtime's failure."""
        entries = parse_log(outcome.log)

        def make(version: str | None) -> CommandError:
            return failure(
                outcome.argv,
                outcome.status,
                log=entries,
                stderr=outcome.stderr,
                stdout=outcome.stdout,
                version=version,
            )

        error = make(None)
        if isinstance(error, UnsupportedError) and not outcome.argv[-1].startswith("--version"):
            with contextlib.suppress(RuncError, ValueError):  # a version that cannot be read is left out
                error = make(parse_version((await self.version()).stdout.decode(errors="replace")).version)
        return error

    # -- where and how -----------------------------------------------------------------------------------

    def state_directory(self, id: str) -> str | None:
        """Say where the runtime keeps the state of a container; None if only the runtime knows its root."""
        root = self.find_root()
        return None if root is None else self.dialect.state_paths(root, id)[0]

    def find_root(self) -> str | None:
        """Say where the runtime keeps its state; None if only the runtime knows."""
        return self.root or self.dialect.default_root(os.environ, os.geteuid())

    def locate_cgroups(self, id: str, cgroups_path: str | None) -> Sequence[str]:
        """Say which cgroups a container would have.

        :param cgroups_path: ``linux.cgroupsPath`` of its specification.
        """
        return container_cgroups(
            id,
            cgroups_path,
            self.dialect.name,
            systemd_cgroup=self.systemd_cgroup,
            rootless=self.rootless,
        )

    def pin(self) -> Runner:
        """Give a runner of the same client that keeps its own reference to the runtime.

        It works on after the executor is closed. Its `release` gives the reference back.
        """
        return replace(self, settings=replace(self.settings, executor=PinnedExecutor(self.settings.executor)))

    def with_monitor(self, monitor: Monitor) -> Runner:
        """Give a runner of the same client with another monitor."""
        return replace(self, monitor=monitor)

    @contextlib.contextmanager
    def keep(self) -> Generator[Runner]:
        """Give the runner of one call: the executor may be closed while the call asks for the runtime's version."""
        if self.finder.found is not None:
            yield self
            return
        pinned = self.pin()
        try:
            yield pinned
        finally:
            pinned.release()

    def release(self) -> None:
        """Give back what `pin` keeps."""
        self.settings.executor.close()


def path_of(fds: ChildFds, name: str, content: bytes) -> str:
    """Give a path under which the runtime process can read some bytes."""
    return f"/proc/self/fd/{fds.keep(fds.adopt(memory_file(name, content=content)))}"


def decode_output(shape: type[T], outcome: Outcome) -> T:
    """Decode what a command printed.

    :raises DecodeError: it is not what the runtime documents.
    """
    try:
        return decode(shape, outcome.stdout)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(outcome.argv, outcome.stdout, str(exc)) from exc
