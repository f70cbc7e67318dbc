"""Signals by number, member or name."""

from __future__ import annotations

import signal

import pytest

from runc_async._signals import signal_number


@pytest.mark.parametrize("value", [15, signal.SIGTERM, "TERM", "SIGTERM", "term", "sigterm"])
def test_all_forms_mean_the_same(value: int | str) -> None:
    assert signal_number(value) is signal.SIGTERM


@pytest.mark.parametrize("value", [0, 999, -1, "NOSUCH", ""])
def test_what_is_no_signal_is_named(value: int | str) -> None:
    with pytest.raises(ValueError, match=str(value) or "''"):
        signal_number(value)
