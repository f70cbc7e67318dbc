"""What is told of every runtime process when it has ended: a line of the log, and the user's hook."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Call", "ended", "without_values"]

logger = logging.getLogger("runc_async")


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


def ended(call: Call, trace: Callable[[Call], object] | None) -> None:
    """Log a call at level debug, and tell the hook. What the hook raises is logged: the call has done its work."""
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
