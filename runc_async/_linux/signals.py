"""Signals by number or name."""

from __future__ import annotations

import re
import signal as signals
from typing import cast

__all__ = ["signal_name", "signal_number"]


def signal_number(value: int | signals.Signals | str) -> int:
    """The number of the signal that a number or a name means.

    :param value: a number, a `signal.Signals`, or a name with or without ``SIG``; real-time ones also as
        ``SIGRTMIN+3`` and ``SIGRTMAX-3``.
    :raises TypeError: it is none of these.
    :raises ValueError: there is none such.
    """
    if isinstance(value, str):
        found = re.fullmatch(r"(?:SIG)?([A-Z]+\d*)([+-]\d+)?", value.upper(), re.ASCII)
        base = signals.Signals.__members__.get(f"SIG{found[1]}") if found else None
        if found is None or base is None or (found[2] and found[1] not in ("RTMIN", "RTMAX")):
            raise ValueError(f"no such signal: {value!r}")
        number = base + int(found[2] or 0)
        if found[2] is None or signals.SIGRTMIN <= number <= signals.SIGRTMAX:
            return number
    elif isinstance(value, bool) or not isinstance(cast("object", value), int):
        raise TypeError(f"a signal must be a number or a name, not {type(value).__name__}")
    elif value in signals.valid_signals():
        return int(value)
    raise ValueError(f"no such signal: {value!r}")


def signal_name(number: int) -> str:
    """The name of a signal as ``setpriv(1)`` takes it, without ``SIG``."""
    if number >= signals.SIGRTMIN:
        return f"RTMIN+{number - signals.SIGRTMIN}"
    return signals.Signals(number).name.removeprefix("SIG")
