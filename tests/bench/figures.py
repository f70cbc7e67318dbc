"""What is made of measurements: medians, spread, ratios, and whether a target is met."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Figure(NamedTuple):
    """A median, and between what half of the measurements lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """Of one measurement or more."""
        found = list(values)
        low, _, high = statistics.quantiles(found * 2 if len(found) == 1 else found, n=4, method="inclusive")
        return cls(statistics.median(found), low, high)

    def text(self, scale: float = 1, digits: int = 2) -> str:
        """Times `scale`: the median, and the two others in brackets."""
        median, low, high = (f"{value * scale:.{digits}f}" for value in self)
        return f"{median} ({low} to {high})"


class Sample(NamedTuple):
    """What one contender did in one round."""

    seconds: list[float]
    """Of each call."""
    elapsed: float
    """Of all of them, from the first's beginning to the last's end."""
    cpu: float
    """Seconds of CPU time of the contender's own process, without its children's."""
    late: list[float] = []  # noqa: RUF012
    """By how much each beat of the event loop came late, where that was asked for."""
    children: float = 0
    """Seconds of CPU time of the runtime processes."""
    first: list[float] = []  # noqa: RUF012
    """Seconds until the first byte of output, of each call, where a call has output."""


def calls(samples: Iterable[Sample]) -> Figure:
    """Seconds of one call, over all rounds."""
    return Figure.of(seconds for sample in samples for seconds in sample.seconds)


def medians(samples: Iterable[Sample]) -> list[float]:
    """Seconds of the median call of each round."""
    return [statistics.median(sample.seconds) for sample in samples]


def cpu_per_call(samples: Iterable[Sample]) -> list[float]:
    """Seconds of CPU time of one call, in each round."""
    return [sample.cpu / len(sample.seconds) for sample in samples]


def children_per_call(samples: Iterable[Sample]) -> list[float]:
    """Seconds of CPU time of the runtime for one call, in each round."""
    return [sample.children / len(sample.seconds) for sample in samples]


def cores_busy(samples: Iterable[Sample]) -> list[float]:
    """How many cores the contender and its runtime processes kept busy, in each round."""
    return [(sample.cpu + sample.children) / sample.elapsed for sample in samples]


def per_second(samples: Iterable[Sample]) -> list[float]:
    """Calls per second, in each round."""
    return [len(sample.seconds) / sample.elapsed for sample in samples]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Ours divided by theirs, round by round: what slows a whole round slows both."""
    return Figure.of(one / other for one, other in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of all do not exceed."""
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * percent / 100))]


@dataclass
class Target:
    """One line of the table of targets."""

    what: str
    limit: float
    unit: str
    """Of the limit and the values, as it is written after them."""
    at_least: bool = False
    values: dict[str, float] = field(default_factory=dict)
    """By each way in which the project is used; to two decimals, since the third is noise."""

    @property
    def wanted(self) -> str:
        """The limit, in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Met, not met, met by some, or not measured."""
        met = sum(self.meets(value) for value in self.values.values())
        if not self.values:
            return "not measured"
        return "met" if met == len(self.values) else f"met by {met} of {len(self.values)}" if met else "not met"

    def meets(self, value: float) -> bool:
        """Whether a value does."""
        return round(value, 2) >= self.limit if self.at_least else round(value, 2) <= self.limit

    def measured(self) -> str:
        """The best value and the worst, each with whose it is."""
        found = sorted(self.values.items(), key=lambda item: item[1], reverse=self.at_least)
        ends = [f"{value:.2f}{self.unit} ({who})" for who, value in (*found[:1], *found[1:][-1:])]
        return " to ".join(ends) or "-"
