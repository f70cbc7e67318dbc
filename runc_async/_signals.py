"""Signals by number or name."""

from __future__ import annotations

import signal as signals

__all__ = ["signal_number"]


def signal_number(value: int | signals.Signals | str) -> signals.Signals:
    """The signal that a number or a name, with or without ``SIG``, means.

    :raises ValueError: there is none such.
    """
    if not isinstance(value, str):
        return signals.Signals(value)
    name = value.upper()
    try:
        return signals.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise ValueError(f"no such signal: {value!r}") from None
