"""The sums that are made of measurements."""

from __future__ import annotations

import pytest

from .figures import (
    Figure,
    Sample,
    Target,
    calls,
    children_per_call,
    cores_busy,
    cpu_per_call,
    medians,
    per_second,
    percentile,
    ratio,
)


def test_a_figure_is_the_median_and_the_middle_half() -> None:
    assert Figure.of([5, 1, 3, 2, 4]) == (3, 2, 4)
    assert Figure.of([7]) == (7, 7, 7)
    assert Figure(0.002, 0.001, 0.0035).text(1000, 1) == "2.0 (1.0 to 3.5)"


def test_rounds_are_compared_with_each_other() -> None:
    ours = [Sample([1, 1, 4], 6, 3), Sample([20, 10, 10], 40, 6)]
    theirs = [Sample([2, 2, 2], 6, 1), Sample([20, 20, 20], 60, 2)]
    assert medians(ours) == [1, 10]
    assert calls(ours).median == 7
    assert cpu_per_call(ours) == [1, 2]
    assert per_second(theirs) == [0.5, 0.05]
    with_children = [Sample([1, 1], 4, 2, children=6)]
    assert (children_per_call(with_children), cores_busy(with_children)) == ([3], [2])
    assert ratio(medians(ours), medians(theirs)) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile(range(200), 99) == 198
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([3], 99) == 3


@pytest.mark.parametrize(
    ("values", "at_least", "verdict"),
    [
        ({"a": 1.0, "b": 1.154}, False, "met"),
        ({"a": 1.0, "b": 1.156}, False, "met by 1 of 2"),
        ({"a": 1.16}, False, "not met"),
        ({"a": 1.16, "b": 1.15}, True, "met"),
        ({}, False, "not measured"),
    ],
)
def test_a_target_is_met_by_all_by_some_or_by_none(values: dict[str, float], at_least: bool, verdict: str) -> None:
    assert Target("what", 1.15, " x", at_least, values).verdict == verdict


def test_a_target_says_whose_the_best_and_the_worst_value_are() -> None:
    target = Target("what", 5, " ms", values={"slow": 7.001, "fast": 1.0, "other": 2.0})
    assert (target.wanted, target.measured()) == ("at most 5 ms", "1.00 ms (fast) to 7.00 ms (slow)")
    assert Target("rate", 1, " x", True, {"a": 0.5, "b": 2}).measured() == "2.00 x (b) to 0.50 x (a)"
    assert Target("one", 1, " x", values={"a": 0.5}).measured() == "0.50 x (a)"
