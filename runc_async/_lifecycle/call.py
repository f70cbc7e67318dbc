"""A call that starts a container, or a process in one: its command, what its caller gave, what is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._cli.options import StrPath
    from .._io import IO
    from .._linux.descriptors import Descriptor
    from .config import Config
    from .pid_file import PidFile
    from .remnants import Survey

__all__ = ["CREATE", "EXEC", "RESTORE", "RUN", "StartCall", "StartCommand", "Started"]


@dataclass(frozen=True, slots=True)
class StartCommand:
    """What sets one command that starts something apart from the others.

    :ivar name: as the runtime names it.
    :ivar makes_container: whether it makes a container; else a process in one.
    :ivar returns_early: whether it always returns while what it started lives on, without a flag that says so.
    :ivar reads_bundle_first: whether crun reads the bundle before it looks at its own root.
    :ivar spared: a child of the runtime that is not killed at first when the call is cancelled.
    """

    name: str
    makes_container: bool = True
    returns_early: bool = False
    reads_bundle_first: bool = True
    spared: str = ""


CREATE = StartCommand("create", returns_early=True)
RUN = StartCommand("run")
RESTORE = StartCommand("restore", reads_bundle_first=False, spared="criu")
EXEC = StartCommand("exec", makes_container=False)


@dataclass(frozen=True, slots=True)
class StartCall:
    """One call of a command that starts something, as its caller gave it.

    :ivar words: what follows the id on the command line.
    :ivar files: keyword to the content of a file that the runtime reads.
    """

    command: StartCommand
    id: str
    bundle: StrPath | None = None
    io: IO | None = None
    preserve_fds: Sequence[Descriptor] = ()
    extra_args: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    detach: bool = False
    words: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def detached(self) -> bool:
        """Whether the runtime process ends before what it starts."""
        return self.detach or self.command.returns_early


@dataclass(frozen=True, slots=True)
class Started:
    """What is remembered of a call until its end.

    :ivar flags: the command and its flags, without what follows them.
    :ivar inner_pid_file: what the pid of a process inside is written to, by a runtime whose processes have no pids on
        the host; None for the others.
    :ivar before: what of the container existed before the runtime process started.
    :ivar begun: when the call began, in nanoseconds since the epoch.
    :ivar criu_work_path: where CRIU works, if the command runs CRIU.
    :ivar token: what the runtime's descendants have in their environment (`cancel.TOKEN`), if the command runs CRIU.
    """

    command: StartCommand
    id: str
    detached: bool
    flags: Sequence[str]
    pid_file: PidFile
    inner_pid_file: PidFile | None
    config: Config | None
    before: Survey
    begun: int
    criu_work_path: str | None
    token: str

    @property
    def missing_config(self) -> str | None:
        """The path of a ``config.json`` that was not there when the call began."""
        return self.config.path if self.config is not None and self.config.is_missing else None

    @property
    def names_no_program(self) -> bool:
        """Whether the bundle names no program. crun's init says that on the container's stderr only."""
        return self.config is not None and self.command.reads_bundle_first and self.config.names_no_program
