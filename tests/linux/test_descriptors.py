"""Descriptors as callers pass them."""

from __future__ import annotations

import errno
import sys

import pytest

from runc_async._linux.descriptors import MOST_DESCRIPTORS, number_of


def test_a_number_and_an_object_with_fileno_are_descriptors() -> None:
    assert number_of(7) == 7
    assert number_of(sys.__stderr__) == sys.__stderr__.fileno()


@pytest.mark.parametrize("given", ["3", None, True, 3.0])
def test_anything_else_is_a_type_error_that_names_it(given: object) -> None:
    with pytest.raises(TypeError, match=r"stdin must be an int or have fileno\(\), not "):
        number_of(given, "stdin")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, MOST_DESCRIPTORS + 1, 1 << 70])
def test_a_number_that_no_descriptor_can_have_is_not_open(number: int) -> None:
    with pytest.raises(OSError, match="stdin is not open") as caught:
        number_of(number, "stdin")
    assert caught.value.errno == errno.EBADF
