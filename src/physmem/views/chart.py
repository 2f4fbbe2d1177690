# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots of figures over time or by category, as PNG or SVG.

The colours are those of the other pictures: told apart by people with common colour blindness, and
lines differ in their marks as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physmem.lib.output import replace_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's colours, blue and vermilion first."""
MARKS = ("o", "s", "^", "D", "v", "P")
_SIZE = (8.0, 4.6)
_DPI = 150


@dataclass(frozen=True)
class Curve:
    """One line: points only, if `points`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot: curves over common axes, or bars by category when there are `ticks`."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    ticks: Sequence[str] = ()


def draw_chart(panels: Sequence[Panel], path: Path, note: str = "") -> None:
    """Draw panels one below the other; the suffix of `path` tells the format.

    The file has no time stamp: the same panels give the same bytes (with one version of the drawing
    library).

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    svg = path.suffix.lower() == ".svg"
    with mpl.rc_context({"svg.hashsalt": "physmem", "font.size": 9.5, "axes.titlesize": 11}):
        figure = Figure(figsize=(_SIZE[0], _SIZE[1] * len(panels)), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, number + 1)
            _bars(axes, panel) if panel.ticks else _lines(axes, panel)
            _dress(axes, panel)
        if note:
            figure.supxlabel(note, fontsize=7.5, color="#555555")
        with replace_file(path) as out:
            metadata: dict[str, Any] = {"Date": None} if svg else {"Software": "physmem"}
            figure.savefig(out, format="svg" if svg else "png", metadata=metadata)


def _lines(axes: Any, panel: Panel) -> None:
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        mark = MARKS[number % len(MARKS)]
        if curve.points:
            axes.plot(
                *(curve.x, curve.y),
                linestyle=":",
                linewidth=1,
                marker=mark,
                markersize=5.5,
                markerfacecolor="white",
                color=colour,
                label=curve.name,
            )
        else:
            few = len(curve.x) <= 40
            axes.plot(
                *(curve.x, curve.y),
                linewidth=2,
                marker=mark if few else None,
                markersize=3.5,
                color=colour,
                label=curve.name,
            )
    axes.margins(x=0.02)


def _bars(axes: Any, panel: Panel) -> None:
    count = len(panel.curves)
    width = 0.8 / max(1, count)
    for number, curve in enumerate(panel.curves):
        shift = (number - (count - 1) / 2) * width
        axes.bar(
            [x + shift for x in curve.x],
            curve.y,
            width,
            color=COLOURS[number % len(COLOURS)],
            label=curve.name,
        )
    axes.set_xticks(range(len(panel.ticks)), list(panel.ticks))


def _dress(axes: Any, panel: Panel) -> None:
    """Title, labels, grid, legend; percentages get the whole scale when they need most of it."""
    axes.set_title(panel.title, loc="left", fontweight="bold")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    most = max((max(curve.y, default=0) for curve in panel.curves), default=0)
    if panel.y_label.startswith("%") and most > 60:
        axes.set_ylim(0, 102)
    else:
        axes.set_ylim(bottom=0)
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=8.5)
