# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages over time under several variants: curves, and a map of memory for each of them.

The map: x = time, y = physical address, one row per 2 MiB; the colour says what is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

NO_MEMORY = 0
FREE = 1
MOVABLE = 2
MIXED = 3
FULL = 4
KINDS = (
    (NO_MEMORY, "no memory", "#ffffff"),
    (FREE, "free", "#d9f0d3"),
    (MOVABLE, "movable only", "#5aae61"),
    (MIXED, "polluted: unmovable and other", "#e66101"),
    (FULL, "unmovable only", "#5e3c99"),
)
"""Values of a map, what they mean, and their colours (told apart by people who see few colours)."""
_ROWS = 512
_COLUMNS = 480


@dataclass(frozen=True, eq=False)
class Curve:
    """One variant.

    Attributes
    ----------
    name : its settings
    seconds : (samples,) float, recorded time from the first sample on
    now, compacted : (samples,) int, huge pages at once, and after perfect compaction
    kinds : (samples, blocks) uint8, the map
    """

    name: str
    seconds: NDArray[np.float64]
    now: NDArray[np.int64]
    compacted: NDArray[np.int64]
    kinds: NDArray[np.uint8]


def draw_availability(curves: Sequence[Curve], out: IO[bytes], *, suffix: str, title: str) -> None:
    """Draw curves and maps.

    Parameters
    ----------
    out : binary file
    suffix : ".png" or ".svg"

    The same curves give the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "physmem", "font.family": "DejaVu Sans"}):
        columns = min(len(curves), 4)
        lines = -(-len(curves) // columns)
        figure = Figure(figsize=(max(9.0, 3.4 * columns), 3.6 + 2.6 * lines), layout="constrained")
        canvas: Any = FigureCanvasAgg(figure) if suffix == ".png" else FigureCanvasSVG(figure)
        grid = figure.add_gridspec(1 + lines, columns, height_ratios=[3.0] + [2.4] * lines)
        _curves(figure.add_subplot(grid[0, :]), curves, title)
        for number, curve in enumerate(curves):
            axes = figure.add_subplot(grid[1 + number // columns, number % columns])
            _map(axes, curve, label=number % columns == 0)
        _legend(figure)
        metadata = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
        canvas.print_figure(out, format=suffix.removeprefix("."), dpi=110, metadata=metadata)


def _curves(axes: Any, curves: Sequence[Curve], title: str) -> None:
    for curve in curves:
        line = axes.plot(curve.seconds, curve.now, label=curve.name, linewidth=1.4)[0]
        axes.plot(
            curve.seconds, curve.compacted, color=line.get_color(), linestyle=":", linewidth=1.1
        )
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel("2 MiB pages\n(dotted: after perfect compaction)", fontsize=8)
    axes.set_xlabel("recorded time, s", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")


def _map(axes: Any, curve: Curve, *, label: bool) -> None:
    from matplotlib.colors import ListedColormap

    kinds = curve.kinds
    step = max(1, -(-kinds.shape[1] // _ROWS))
    last = float(curve.seconds[-1]) if len(curve.seconds) else 1.0
    # samples are operations apart: each column of the picture shows the last one before its time
    times = np.linspace(0.0, last, _COLUMNS)
    at = np.clip(np.searchsorted(curve.seconds, times, side="right") - 1, 0, len(kinds) - 1)
    axes.imshow(
        kinds[at][:, ::step].T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0.0, max(last, 1e-9), 0.0, kinds.shape[1] * 2.0),
        cmap=ListedColormap([colour for _, _, colour in KINDS]),
        vmin=-0.5,
        vmax=len(KINDS) - 0.5,
    )
    name = curve.name if len(curve.name) <= 44 else curve.name[:41] + "..."
    axes.set_title(name, fontsize=8, loc="left")
    axes.tick_params(labelsize=7)
    if label:
        axes.set_ylabel("physical address, MiB", fontsize=7)


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, edgecolor="#888888", linewidth=0.4, label=name)
        for _, name, colour in KINDS[1:]
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=7)
