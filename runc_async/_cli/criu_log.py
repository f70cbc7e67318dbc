"""CRIU's own log: the lines that say why a checkpoint or a restore failed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .._errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["explain"]

LOG_LIMIT = 1 << 20
LINES = 6
CLOCK = 10_000_000
"""Nanoseconds by which a file's time may lag behind the clock."""

_ERROR = re.compile(r"^(?:\(\d+\.\d+\) )?(?:\s*\d+: )?(Error \(.*)$", re.MULTILINE)
_NOISE = re.compile(r"Can't setup RLIMIT_NOFILE|(Dumping|Restoring) FAILED")
"""What fails without harm in most containers, and what the runtime says anyway."""


def explain(error: CommandError, name: str, folders: Sequence[str], begun: int) -> CommandError:
    """Add the decisive lines of CRIU's log to an error that has no better class.

    :param error: the runtime's failure.
    :param name: ``dump.log`` or ``restore.log``.
    :param folders: where it may be, the likeliest first.
    :param begun: when the call began, in nanoseconds since the epoch; an older log is not its own.
    :returns: an error that quotes them, or the same where there is no log, or no error in it.
    """
    if type(error) is not CommandError:
        return error
    for folder in folders:
        path = os.path.join(folder, name)
        if lines := _decisive(path, begun):
            message = f"{error.message.splitlines()[-1]}; {path}: {'; '.join(lines)}"
            return CommandError(error.argv, error.status, message, error.log)
    return error


def _decisive(path: str, begun: int) -> list[str]:
    """The first errors in a log: the later ones follow from them."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mtime_ns < begun - CLOCK:
                return []
            file.seek(max(0, status.st_size - LOG_LIMIT))
            text = file.read(LOG_LIMIT).decode(errors="replace")
    except OSError:
        return []
    errors = _ERROR.findall(text)
    return ([line for line in errors if not _NOISE.search(line)] or errors)[:LINES]
