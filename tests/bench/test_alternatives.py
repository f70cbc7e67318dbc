"""What this project is measured against runs the same program, on the real runtime."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from runc_async import Runc

from . import alternatives
from .alternatives import COLUMNS, Bubblewrap, Command, Go, Ours, Timed, Way, drawn, held, rows
from .contenders import GO, GORUNC, Contender
from .place import place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def here(runtime_path: Path, runtime_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    if runtime_name not in ("runc", "crun"):
        pytest.skip("the benchmark is of runc and crun")
    monkeypatch.setenv("RUNC_ASYNC_RUNTIME", str(runtime_path))
    with place() as here:
        yield here


def made(name: str, here: dict[str, str]) -> Way:
    if name == "bwrap":
        if shutil.which("bwrap") is None:
            pytest.skip("bwrap is missing: apt-get install bubblewrap")
        return Bubblewrap(here)
    if name == "subprocess":
        return Command("subprocess", here, "busybox")
    return Ours("runc_async", here, Runc(here["runtime"], root=here["root"]))


@pytest.mark.parametrize("name", ["runc_async", "bwrap", "subprocess"])
async def test_a_turn_gives_the_times_of_each_program(name: str, here: dict[str, str]) -> None:
    timed = await made(name, here).turn(3, 2)
    assert len(timed.first) == len(timed.result) == 3
    for first, result in zip(timed.first, timed.result, strict=True):
        assert 0 < first <= result <= timed.elapsed


@pytest.mark.parametrize("name", ["runc_async", "bwrap"])
async def test_memory_is_measured_of_containers_that_are_alive(
    name: str, here: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "HELD", 2)
    if name == "bwrap":  # it has two processes beside the program, and this process hardly grows
        assert await held(made(name, here)) > 50
    else:
        assert await held(made(name, here)) < 5000


async def test_go_runc_runs_the_program(here: dict[str, str]) -> None:
    if not GORUNC.exists() or os.path.basename(here["runtime"]) != "runc":
        pytest.skip("go-runc's driver is not built: make bench, as root")
    with Contender(GO, here) as contender:
        timed = await Go(here, contender).turn(2, 2)
    assert all(0 < first <= result for first, result in zip(timed.first, timed.result, strict=True))


@pytest.mark.unit
def test_the_fastest_comes_first_in_the_table_and_all_are_drawn() -> None:
    slow, fast = [Timed([0.2], [0.3], 0.4)], [Timed([0.01], [0.02], 0.03)]
    found = {"single": {"slow": slow, "fast": fast}, "many": {"slow": slow, "fast": fast}, "memory": {"slow": 10.4}}
    assert list(rows(found)) == [
        ("fast", "10.0", "20.0", "20.0", "33", "-"),
        ("slow", "200.0", "300.0", "300.0", "2", "10"),
    ]
    assert [set(panel) for panel in drawn(found).values()] == [{"slow", "fast"}] * 4
    assert len(COLUMNS) == len(rows(found)[0])
