"""One line of what the doctor says, and how an error fits into it."""

from __future__ import annotations

from typing import Literal

import msgspec

from .._errors import CommandError, DecodeError

__all__ = ["PATIENCE", "Line", "describe"]

State = Literal["good", "warning", "bad"]

PATIENCE = 20.0
"""Seconds that one check may take."""


class Line(msgspec.Struct, frozen=True):
    """What was found out about one thing.

    :ivar advice: what to do; empty if nothing has to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def describe(exc: Exception) -> str:
    """Say an error in one line, without the command line."""
    if isinstance(exc, CommandError):
        return " ".join(exc.message.split())
    if isinstance(exc, DecodeError):
        return exc.reason
    return str(exc) or "it did not end in time"
