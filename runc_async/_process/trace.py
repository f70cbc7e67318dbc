"""Reports every runtime process that has ended, to the loggers and to the ``trace`` hook."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._errors import LogEntry

__all__ = ["Call", "report", "without_values"]

logger = logging.getLogger("runc_async")
runtime_logger = logging.getLogger("runc_async.runtime")
"""Passes on what the runtime logs, at the runtime's level."""
runtime_logger.addHandler(
    logging.NullHandler()
)  # an error is raised as well: print nothing where logging is not set up

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
"""The levels of logrus, which the runtimes write."""


class Call(NamedTuple):
    """One runtime process that has ended, as the ``trace`` of `Runc` is told.

    A method is one process as a rule; ``stats``, ``events``, and the search for the reason of a failure, take more.
    """

    argv: tuple[str, ...]
    """The command line, the runtime's name first; the values of ``--env`` are left out."""
    pid: int
    """The runtime process's."""
    started: int
    """When it was started, in nanoseconds since the epoch."""
    duration: float
    """Seconds from before it was started until it was reaped."""
    status: int
    """Its exit status; ``-N`` when signal N ended it."""
    log: tuple[LogEntry, ...] = ()
    """What the runtime logged (``--log``)."""


def report(call: Call, trace: Callable[[Call], object] | None) -> None:
    """Log a call at level debug, pass on what the runtime logged, and call the hook.

    What the hook raises is logged: the call has done its work.
    """
    for entry in call.log:
        runtime_logger.log(LEVELS.get(entry.level, logging.INFO), "%s", entry.message)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%s: pid %d ended with %d after %.1f ms", shlex.join(call.argv), call.pid, call.status, call.duration * 1000
        )
    if trace is not None:
        try:
            trace(call)
        except Exception:
            logger.exception("the trace hook failed")


def without_values(argv: Sequence[str]) -> Iterator[str]:
    """A command line with ``--env=NAME=…`` in place of every ``--env NAME=value``, which may be a secret."""
    before = ""
    for word in argv:
        flag, equals, variable = word.partition("=") if word.startswith(("--env=", "-e=")) else ("", "", "")
        if before in ("--env", "-e"):
            flag, equals, variable = "", "", word
        if variable:
            yield f"{flag}{equals}{variable.partition('=')[0]}=…"
        else:
            yield word
        before = word
