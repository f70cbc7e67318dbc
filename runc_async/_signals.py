"""Signals by number or name."""

from __future__ import annotations

import re
import signal as signals
from typing import cast

__all__ = ["signal_number"]

_NAME = re.compile(r"(?:SIG)?(?P<name>[A-Z][A-Z0-9]*)(?P<offset>[+-][0-9]{1,2})?")


def signal_number(value: int | signals.Signals | str) -> int:
    """The number of a signal.

    :param value: a number from 0 (does the process exist?) to the last real-time one, or a name, with or without
        ``SIG``, in any case, also counted from the real-time ones (``SIGRTMIN+3``).
    :raises TypeError: it is neither.
    :raises ValueError: there is none such.
    """
    if isinstance(value, bool) or not isinstance(cast("object", value), int | str):
        raise TypeError(f"signal must be int, signal.Signals or str, not {type(value).__name__}")
    number = value if isinstance(value, int) else _by_name(value)
    if number is None or not 0 <= number < signals.NSIG:
        raise ValueError(f"no such signal: {value!r}")
    return int(number)


def _by_name(text: str) -> int | None:
    match = _NAME.fullmatch(text.upper())
    if match is None:
        return None
    known = signals.Signals.__members__.get(f"SIG{match['name']}")
    if known is None or (match["offset"] and known not in (signals.SIGRTMIN, signals.SIGRTMAX)):
        return None
    return known + int(match["offset"] or 0)
