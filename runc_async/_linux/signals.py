"""Signals by number or name."""

from __future__ import annotations

import re
import signal as signals
from types import MappingProxyType

__all__ = ["NUMBERS", "signal_name", "signal_number"]

NUMBERS = MappingProxyType(
    {
        name.removeprefix("SIG"): int(member)
        for name, member in signals.Signals.__members__.items()
        if name not in ("SIGRTMIN", "SIGRTMAX")
    }
)
"""The kernel's names without ``SIG``, its second names among them (IOT, POLL, CLD), to the numbers that this
architecture has for them (``signal(7)``). Real-time signals have no names, only distances from RTMIN and RTMAX."""

VALID = frozenset(map(int, signals.valid_signals()))
_REAL_TIME = {"RTMIN": signals.SIGRTMIN, "RTMAX": signals.SIGRTMAX}


def signal_number(value: object) -> int:
    """Find the number of a signal.

    :param value: a number, a `signal.Signals`, or a name with or without ``SIG``, in capitals or not; real-time signals
        as ``RTMIN``, ``RTMIN+3``, ``RTMAX-3``, counted as the C library counts them (RTMIN is 34).
    :raises TypeError: it is neither int nor str.
    :raises ValueError: there is no such signal. 32 and 33 are the C library's own.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"a signal must be a number or a name, not {type(value).__name__}")
    number = _number_of(value) if isinstance(value, str) else int(value)
    if number is None or number not in VALID:
        raise ValueError(f"no such signal: {value!r}")
    return number


def _number_of(name: str) -> int | None:
    plain = name.upper().removeprefix("SIG")
    found = re.fullmatch(r"(RTMIN|RTMAX)([+-][0-9]{1,2})?", plain)
    if found is None:
        return NUMBERS.get(plain)
    number = _REAL_TIME[found[1]] + int(found[2] or 0)
    return number if signals.SIGRTMIN <= number <= signals.SIGRTMAX else None


def signal_name(number: int) -> str:
    """Name a signal as ``setpriv(1)`` takes it, without ``SIG``.

    :param number: one that `signal_number` gives.
    """
    if number >= signals.SIGRTMIN:
        return f"RTMIN+{number - signals.SIGRTMIN}"
    return signals.Signals(number).name.removeprefix("SIG")
