# SPDX-License-Identifier: GPL-2.0-or-later
"""Mosaic of the pageblocks: one cell each, hue = migratetype, lightness = free share.

A row is an aligned stretch of physical memory, so equal columns are equal offsets in all zones.
When there are too many pageblocks, a cell stands for an aligned group of them.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from physmem.mm.state import State
from physmem.views.blocks import ZoneBlocks, address, size_text
from physmem.views.canvas import Box, Canvas, PngCanvas, Style, SvgCanvas
from physmem.views.grid import Grid, cell_facts, fit_grid, zone_facts
from physmem.views.legend import HEIGHT as LEGEND
from physmem.views.legend import draw_legend
from physmem.views.palette import MUTED, PAPER, colours
from physmem.views.terminal import terminal_mosaic

__all__ = ["mosaic_png", "mosaic_svg", "terminal_mosaic"]

WIDTH = 960
_MARGIN = 24
_LABELS = 68  # room for addresses left of the cells
_HEAD = 84  # title above the legend
_HEADING = 30  # from the end of one zone to the cells of the next
_FIELD = WIDTH - 2 * _MARGIN - _LABELS
_LARGEST = 13.0  # pixels from cell to cell
_GAPS_FROM = 6.0  # smaller cells touch each other
_MAX_HEIGHT = 720.0
_LINE = 13.0  # least distance of two addresses


def _pitch(columns: int) -> float:
    """Distance of cells: a whole number of half pixels, so that a PNG of scale 2 is sharp."""
    return min(_LARGEST, _FIELD * 2 // columns / 2)


def _fit(state: State, max_cells: int) -> Grid:
    """Choose the finest grid that fits the picture."""

    def fits(cells: int, rows: int, columns: int) -> bool:
        return cells <= max_cells and rows * _pitch(columns) <= _MAX_HEIGHT

    return fit_grid(state, (64, 128, 256, 512), fits)


def _draw(canvas: Canvas, state: State, grid: Grid, *, titles: bool) -> None:
    frames = sum(int(zone.frames[zone.types != zone.NONE].sum()) for zone in grid.zones)
    canvas.text((_MARGIN, 40), f"{size_text(frames)} of memory, by pageblock", Style(18))
    facts = cell_facts(grid, state.pageblock_order)
    canvas.text((_MARGIN, 60), facts[0].upper() + facts[1:], Style(12, MUTED))
    at, width = (_MARGIN, _HEAD - 8), _LABELS + _FIELD - 12
    draw_legend(canvas, at, width, grid.legend(state), holes=grid.holes())
    table = colours(state.type_names)
    pitch = _pitch(grid.columns)
    y: float = _HEAD + LEGEND - 2
    for zone in grid.zones:
        y += _HEADING
        canvas.text((_MARGIN, y - 10), zone.label, Style(13))
        right = (_MARGIN + _LABELS + grid.columns * pitch, y - 10)
        canvas.text(right, zone_facts(zone, state.pageblock_order), Style(12, MUTED, "r"))
        _draw_zone(canvas, grid, zone, (y, table, state if titles else None))
        y += len(grid.rows(zone)) * pitch


def _draw_zone(
    canvas: Canvas,
    grid: Grid,
    zone: ZoneBlocks,
    how: tuple[float, NDArray[np.uint8], State | None],
) -> None:
    top, table, state = how
    pitch = _pitch(grid.columns)
    left = _MARGIN + _LABELS
    rows = grid.rows(zone)
    # Round addresses: rows whose number is a multiple of a power of two.
    every = 1 << max(0, math.ceil(math.log2(_LINE / pitch)))
    for row in rows:
        if row % every and (row > rows[0] or every - row % every < every // 2):
            continue
        y = top + (row - rows[0]) * pitch + min(pitch, _LARGEST) / 2 + 4
        label = address(row * grid.columns << grid.order)
        canvas.text((left - 10, y), label, Style(11, MUTED, "r"))
    shades = table[zone.types, zone.free_share()]
    offset = zone.first - rows[0] * grid.columns
    if pitch < _GAPS_FROM and state is None:
        field = np.empty((len(rows) * grid.columns, 3), np.uint8)
        field[:] = PAPER
        field[offset : offset + len(shades)] = shades
        pixels = field.reshape(len(rows), grid.columns, 3)
        canvas.image(Box(left, top, grid.columns * pitch, len(rows) * pitch), pixels)
        return
    size = pitch - 1 if pitch >= _GAPS_FROM else pitch
    titles = _titles(state, zone) if state else None
    for index, (red, green, blue) in enumerate(shades.tolist()):
        row, column = divmod(index + offset, grid.columns)
        box = Box(left + column * pitch, top + row * pitch, size, size)
        canvas.rect(box, (red, green, blue), titles[index] if titles else "")


def _titles(state: State, zone: ZoneBlocks) -> list[str]:
    """Text that appears when the mouse rests on a cell."""
    names: dict[int, str] = dict(enumerate(state.type_names))
    titles = []
    facts = (zone.types, zone.frames, zone.free, zone.pcp)
    for index, (mt, frames, free, pcp) in enumerate(np.stack(facts, axis=1).tolist()):
        pfn = (zone.first + index) << zone.order
        where = f"{address(pfn)} (frame {pfn}): "
        if mt == ZoneBlocks.NONE:
            titles.append(where + "no memory")
            continue
        per_cpu = f", {pcp} on per-CPU lists" if pcp else ""
        titles.append(f"{where}{names[mt]}, {free} of {frames} frames free{per_cpu}")
    return titles


def _height(grid: Grid) -> float:
    cells = grid.height * _pitch(grid.columns)
    return _HEAD + LEGEND - 2 + len(grid.zones) * _HEADING + cells + _MARGIN


def mosaic_svg(state: State, max_cells: int = 8192) -> str:
    """Mosaic as the text of a stand-alone SVG file; each cell tells its facts under the mouse.

    A cell takes about 150 bytes; above `max_cells` pageblocks are grouped.

    Raises
    ------
    BadStateError
        A list names a frame outside its zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> mosaic_svg(small_state()).count("frames free")
    12
    """
    grid = _fit(state, max_cells)
    canvas = SvgCanvas(WIDTH, _height(grid), "Mosaic of pageblocks")
    _draw(canvas, state, grid, titles=True)
    return canvas.svg()


def mosaic_png(state: State, path: str | Path, scale: int = 2) -> None:
    """Write the mosaic as a PNG file, 960 * `scale` pixels wide.

    Raises
    ------
    BadStateError
        A list names a frame outside its zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> mosaic_png(small_state(), "/dev/null")
    """
    grid = _fit(state, 1 << 20)
    canvas = PngCanvas(WIDTH, _height(grid), scale)
    _draw(canvas, state, grid, titles=False)
    canvas.save(path)
