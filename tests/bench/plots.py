"""Draws what was measured into ``docs/``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .contenders import GO, LOOPS, PROJECT

os.environ.setdefault("MPLCONFIGDIR", str(PROJECT / ".cache/matplotlib"))  # not the user's home

import matplotlib as mpl
from matplotlib.figure import Figure as Picture

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from .cases import Curve, Report
    from .figures import Figure

# The same run gives the same bytes; text stays text, so that a file is small.
mpl.rcParams.update({"svg.hashsalt": "runc_async", "svg.fonttype": "none", "font.size": 8})
OURS, GOS, OTHERS = "#2a6f97", "#c1666b", "#9aa5b1"
COLUMNS = 2


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw bars and curves; the files."""
    files = []
    for name, panels, paint, height in (
        ("bench-calls.svg", report.bars.items(), bars, 2.9),
        ("bench-alternatives.svg", report.alternatives.items(), logarithmic_bars, 2.0),
        ("bench-growth.svg", ((curve.title, curve) for curve in report.curves), lines, 2.6),
    ):
        found = list(panels)
        if found:
            files.append(folder / name)
            page(found, paint, height).savefig(files[-1], metadata={"Date": None})
    return files


def page(panels: list[tuple[str, object]], paint: object, height: float) -> Picture:
    """A picture of panels, some in each row."""
    assert callable(paint)
    rows = -(-len(panels) // COLUMNS)
    picture = Picture(figsize=(4.6 * COLUMNS, height * rows), layout="constrained")
    grid = picture.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, (title, panel) in zip(grid, panels, strict=False):
        axes.set_title(title, fontsize=8)
        paint(axes, panel)
    for axes in list(grid)[len(panels) :]:
        axes.set_axis_off()
    return picture


def bars(axes: Axes, figures: dict[str, Figure]) -> None:
    """A bar for each contender, as long as its median, with a line for the spread."""
    names = list(figures)
    medians = [figures[name].median for name in names]
    spread = [
        [max(0, f.median - f.low) for f in figures.values()],
        [max(0, f.high - f.median) for f in figures.values()],
    ]
    colours = [OURS if name.startswith((*LOOPS, "runc_async")) else GOS if name == GO else OTHERS for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, error_kw={"elinewidth": 0.8})
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic_bars(axes: Axes, figures: dict[str, Figure]) -> None:
    """The same where one contender takes a hundred times as long as another."""
    bars(axes, figures)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")


def lines(axes: Axes, curve: Curve) -> None:
    """A line for each of a curve's, with the spread around it."""
    for name, points in curve.lines.items():
        x = list(points)
        (line,) = axes.plot(x, [points[at].median for at in x], marker="o", markersize=3, label=name)
        axes.fill_between(
            x, [points[at].low for at in x], [points[at].high for at in x], color=line.get_color(), alpha=0.2
        )
    if min(x) > 0:
        axes.set_xscale("log")
    axes.set_xticks(x, [f"{at:g}" for at in x])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(curve.y)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
