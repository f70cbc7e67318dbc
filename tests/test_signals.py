"""Signals by number, member or name."""

from __future__ import annotations

import re
import signal

import pytest

from runc_async._signals import signal_number


@pytest.mark.parametrize("value", [15, signal.SIGTERM, "TERM", "SIGTERM", "term", "sigterm"])
def test_all_forms_mean_the_same(value: int | str) -> None:
    assert signal_number(value) == signal.SIGTERM


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0), (64, 64), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmax-1", 63), (40, 40)]
)
def test_real_time_ones_have_no_name_of_their_own(value: int | str, number: int) -> None:
    assert signal_number(value) == number


@pytest.mark.parametrize("value", [65, 999, -1, "NOSUCH", "", "TERM+1", "RTMIN+40", "15"])
def test_what_is_no_signal_is_named(value: int | str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(value))):
        signal_number(value)


@pytest.mark.parametrize("value", [True, 15.0, None, b"TERM"])
def test_what_is_of_no_type_of_a_signal_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        signal_number(value)  # type: ignore[arg-type]
