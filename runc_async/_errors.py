"""The exceptions of this library. Imports nothing of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BundleError",
    "CommandError",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "ContainerNotRunningError",
    "ContainerRunningError",
    "DecodeError",
    "ExecutorError",
    "InvalidContainerIdError",
    "LogEntry",
    "RuncError",
    "StatusUnknownError",
    "UnsupportedError",
    "escape_controls",
]

OUTPUT_LIMIT = 4096
"""How many bytes of unexpected output a `DecodeError` keeps."""

_CONTROLS = {
    number: f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    for number in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def escape_controls(text: str) -> str:
    """Write control characters as escapes: a runtime quotes arguments, and a terminal would obey what is in them.

    :param text: any text; its tabs and line ends stay, and characters that reverse the direction of writing do not.
    """
    return text if text.isprintable() else text.translate(_CONTROLS)


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the runtime's own log (``--log``).

    :ivar level: the level as the runtime writes it: ``error``, ``warning``, ``info``, ``debug``.
    :ivar message: the runtime's sentence.
    :ivar time: when it was written, as the runtime writes it (RFC 3339), or an empty string.
    """

    level: str = ""
    message: str = msgspec.field(default="", name="msg")
    time: str = ""


class RuncError(Exception):
    """The base of every error that this library raises by itself."""


class StatusUnknownError(RuncError):
    """How a process has ended cannot be known; the message says why. No other number is returned in its place."""


class ExecutorError(RuncError):
    """The runtime's binary cannot be executed.

    It is missing, not a file, not executable, its executor is closed, ``/proc`` is not mounted, or its
    digest is not the one that was asked for.
    """


class CommandError(RuncError):
    """The runtime ran and reported failure.

    :ivar argv: the command line, the runtime's name first, without the values of ``--env``.
    :ivar status: the exit status of the runtime; ``-N`` when signal N ended it; 1 if it was not even started, since it
        is known that it would fail; 0 if it started nothing and reported success.
    :ivar message: the runtime's own sentence, without time stamps, control characters written as escapes.
    :ivar log: the parsed entries of the runtime's log.
    """

    def __init__(self, argv: Sequence[str], status: int, message: str, log: Sequence[LogEntry] = ()) -> None:
        super().__init__(argv, status, message, log)
        self.argv = tuple(argv)
        self.status = status
        self.message = message
        self.log = tuple(log)

    def __str__(self) -> str:
        how = f" (killed by signal {-self.status})" if self.status < 0 else f" (status {self.status})"
        return _in_one_line(f"{self.message}{how if self.status else ''}", self.argv)


def _in_one_line(reason: str, argv: Sequence[str]) -> str:
    """The reason first, which is what a reader looks for; the command line is long."""
    return escape_controls(" ".join(f"{reason}: {' '.join(argv)}".split()))


class ContainerNotFoundError(CommandError):
    """No container of this id exists under the runtime's root."""


class ContainerExistsError(CommandError):
    """A container of this id exists already."""


class InvalidContainerIdError(CommandError):
    """The runtime takes no such container id."""


class ContainerNotRunningError(CommandError):
    """The command needs a running container, and this one is not."""


class ContainerRunningError(CommandError):
    """The command needs a container that is not running (or not started yet), and this one is."""


class BundleError(CommandError):
    """The bundle or its ``config.json`` is missing or invalid."""


class UnsupportedError(CommandError):
    """This runtime, in this version, has no such command or flag."""


class DecodeError(RuncError):
    """The runtime's output is not what this runtime documents.

    :ivar argv: the command line, the runtime's name first.
    :ivar output: the beginning of what it printed, at most 4096 bytes.
    :ivar reason: what did not fit.
    """

    def __init__(self, argv: Sequence[str], output: bytes, reason: str) -> None:
        super().__init__(argv, output[:OUTPUT_LIMIT], reason)
        self.argv = tuple(argv)
        self.output = output[:OUTPUT_LIMIT]
        self.reason = reason

    def __str__(self) -> str:
        return _in_one_line(f"{self.reason}: {self.output[:120]!r}", self.argv)
