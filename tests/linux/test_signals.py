"""Signals by number, member or name."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest

from runc_async._linux.signals import NUMBERS, signal_name, signal_number


def test_the_table_has_every_name_that_the_kernel_and_a_shell_have() -> None:
    listed = subprocess.run(["bash", "-c", "kill -l"], capture_output=True, text=True, check=True).stdout.split()
    names = {word.removeprefix("SIG") for word in listed if word.startswith("SIG") and not word.startswith("SIGRT")}
    assert names | {"IOT", "POLL", "CLD", "PWR", "STKFLT"} == {*NUMBERS}


@pytest.mark.parametrize("value", [15, signal.SIGTERM, "TERM", "SIGTERM", "term", "sigterm"])
def test_all_forms_mean_the_same(value: int | str) -> None:
    assert signal_number(value) == signal.SIGTERM


@pytest.mark.parametrize(
    ("value", "after_the_first"), [("RTMIN", 0), ("SIGRTMIN+3", 3), ("rtmax-2", -2), (signal.SIGRTMIN + 5, 5)]
)
def test_real_time_signals_have_numbers_and_names(value: int | str, after_the_first: int) -> None:
    if after_the_first < 0:
        after_the_first += signal.SIGRTMAX - signal.SIGRTMIN
    assert signal_number(value) == signal.SIGRTMIN + after_the_first


@pytest.mark.parametrize(
    "value", [0, 999, -1, 32, "NOSUCH", "", "9", "TERM+1", "RTMIN-1", "RTMIN+99", "SIG", "SIGSIGTERM", "TERM\n"]
)
def test_what_is_no_signal_is_named(value: int | str) -> None:
    with pytest.raises(ValueError, match="no such signal: ") as caught:
        signal_number(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [True, 9.0, None, b"TERM"])
def test_what_is_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a number or a name"):
        signal_number(value)


def test_every_signal_has_a_name_that_setpriv_knows() -> None:
    for number in signal.valid_signals():
        subprocess.run(["setpriv", "--pdeathsig", signal_name(number), "true"], check=True)
