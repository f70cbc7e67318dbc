"""The plots, of a report that was made up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .cases import Curve, Report
from .figures import Figure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", autouse=True)
def fonts_are_open() -> None:
    """What matplotlib opens once and for ever is no leak of a test."""
    pytest.importorskip("matplotlib", reason="matplotlib is missing: make setup")
    from . import plots

    plots.page([("", {"": Figure(1, 1, 1)})], plots.bars, 1).savefig(os.devnull, format="svg")


def test_bars_and_curves_are_drawn_and_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    from . import plots

    report = Report()
    report.bars["state(): ms"] = {"asyncio, path": Figure(2, 1, 3), "go-runc": Figure(3, 2, 4)}
    report.alternatives["result: ms"] = {"runc_async, runc": Figure(20, 10, 30), "podman run": Figure(300, 200, 400)}
    report.curves.append(Curve("growth", "containers", "ms", {"state": {1: Figure(1, 1, 1), 500: Figure(2, 1, 3)}}))
    files = plots.draw(report, tmp_path)
    assert [file.name for file in files] == ["bench-calls.svg", "bench-alternatives.svg", "bench-growth.svg"]
    first = [file.read_text() for file in files]
    assert "asyncio, path" in first[0]
    assert "podman run" in first[1]
    assert "containers" in first[2]
    plots.draw(report, tmp_path)
    assert [file.read_text() for file in files] == first
