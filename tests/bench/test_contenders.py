"""A turn of each contender on the real runtime, in a place that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .contenders import GORUNC, Contender, FailedError, Way, interleaved
from .place import place, runtime_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def of_runc(runtime_name: str) -> None:
    if runtime_name != "runc":
        pytest.skip("the benchmark is of runc")


@pytest.fixture
def here(of_runc: None, runtime_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.setenv("RUNC_ASYNC_RUNTIME", str(runtime_path))
    with place() as here:
        yield here


@pytest.mark.parametrize("kind", ["asyncio", "bare", "plain", "direct"])
def test_a_contender_makes_the_calls_that_it_is_asked_for(kind: str, here: dict[str, str]) -> None:
    with Contender(kind, here) as contender:
        found = interleaved([Way(kind, contender, "path")], "state", rounds=2, times=3)
    assert [len(sample.seconds) for sample in found[kind]] == [3, 3]
    for sample in found[kind]:
        assert 0 < sum(sample.seconds) <= sample.elapsed
        assert 0 < sample.cpu < sample.elapsed


def test_go_runc_beside_this_project(here: dict[str, str]) -> None:
    if not GORUNC.exists():
        pytest.skip("go-runc's driver is not built: make bench, as root")
    with Contender("go-runc", here) as go, Contender("asyncio", here) as ours:
        for op in ("state", "run", "life"):
            found = interleaved([Way("go", go, "path"), Way("ours", ours, "sealed")], op, rounds=1, times=1)
            assert found["go"][0].elapsed > 0
            assert found["ours"][0].elapsed > 0


def test_many_at_once_with_a_beat_of_the_event_loop(here: dict[str, str]) -> None:
    with Contender("trio", here) as contender:
        (sample,) = interleaved([Way("trio", contender, "fd")], "state", rounds=1, times=12, at_once=4, beats=True)[
            "trio"
        ]
    assert len(sample.seconds) == 12
    assert sample.late
    assert sum(sample.seconds) > sample.elapsed


def test_live_containers_and_a_larger_parent(here: dict[str, str]) -> None:
    with Contender("asyncio", here) as contender:
        contender.ask("live", count=2)
        (waited,) = contender.ask("waited", times=1)
        before = contender.ask("memory")
        contender.ask("ballast", amount=8 << 20)
        contender.ask("descriptors", amount=10)
        grown = contender.ask("memory") - before
    assert 0 < waited < 60
    assert 8 << 20 <= grown < 16 << 20


def test_one_that_fails_says_so_and_leaves_nothing(here: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.ExitStack() as stack:
        contender = stack.enter_context(Contender("bare", here))
        with pytest.raises(FailedError, match="bare ended instead of answering nonsense"):
            contender.ask("nonsense", times=1)
    assert "KeyError" in capfd.readouterr().err


def test_a_place_below_the_binary_has_a_copy_of_it(here: dict[str, str]) -> None:
    with place(below_the_binary=True) as below:
        assert Path(below["root"]).parent == Path(below["runtime"]).parent
        assert os.path.getsize(below["runtime"]) == os.path.getsize(runtime_path())
    assert not Path(below["root"]).exists()


def test_the_machine_is_named(of_runc: None) -> None:
    from .__main__ import machine

    assert re.search(
        rf"\d{{4}}; \d+ cores of .+, \d+ GiB, Linux .+; runc .+, Python {sys.version.split()[0]}", machine()
    )


def test_on_a_machine_that_is_too_busy_there_are_fewer_rounds() -> None:
    class Slow:
        def ask(self, op: str, **asked: object) -> dict[str, object]:
            return {"seconds": [1.0], "elapsed": 1.0, "cpu": 0.5}

    way = Way("slow", Slow(), "path")  # type: ignore[arg-type]
    assert len(interleaved([way], "state", rounds=9, times=1)["slow"]) == 9
    assert len(interleaved([way], "state", rounds=9, times=1, seconds=0)["slow"]) == 2
