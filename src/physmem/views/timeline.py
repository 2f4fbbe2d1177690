# SPDX-License-Identifier: GPL-2.0-or-later
"""Map of memory over time: x = time, y = physical address, colour = migratetype and fullness.

Below it, on the same time axis, how much of free memory huge pages could use.
"""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadStateError
from physmem.mm.state import TYPE_NAMES
from physmem.views.axis import block_step, spread, ticks, time_unit
from physmem.views.blocks import ZoneBlocks, address, size_text
from physmem.views.canvas import Box, Canvas, PngCanvas, Style, SvgCanvas, text_width
from physmem.views.legend import draw_legend, shown_types
from physmem.views.palette import ACCENT, INK, MUTED, RGB, RULE, colours

WIDTH = 1120
_LEFT = 92.0
_RIGHT = WIDTH - 148.0
_PLOT = _RIGHT - _LEFT
_TOP = 146.0
_MAP = 430.0  # wanted height of all zones
_LEAST = 14.0  # height of the smallest zone
_GAP = 7.0  # between zones
_CHART_HEAD = 54.0
_CHART = 84.0
_FOOT = 56.0
_TINT: RGB = (214, 229, 243)
_PER_PIXEL = 2  # image pixels for one CSS pixel


class Timeline(msgspec.Struct, frozen=True):
    """Free share and type of every pageblock at some moments.

    Attributes
    ----------
    samples : NDArray[np.uint8], shape [n_samples, n_pageblocks]
        Free share 0..255, rounded down: 255 means wholly free, and only then.
    types : NDArray[np.uint8], shape [n_samples, n_pageblocks]
        Migratetype; 255 = no memory.
    times_ns : NDArray[np.int64], shape [n_samples]
        Time of each sample in nanoseconds, ascending; the axis counts from the first.
    zones : list of (label, first_block, n_blocks)
        Zones from low to high; `first_block` is the column of the zone's first pageblock. Columns
        in no zone are not drawn.
    title : str
        Heading.
    type_names : tuple[str, ...]
        Name of each migratetype (`State.type_names`).
    pageblock_order : int
        Frames of a pageblock as a power of two.
    base_block : int
        Number of the pageblock in column 0, counted from frame 0, where memory starts higher.
    usable : NDArray[np.float64] or None, shape [n_samples]
        Share 0..1 of free frames that `usable_order` can use; None: free frames in wholly free
        pageblocks, taken from `samples`.
    usable_order : int or None
        Order that `usable` is for; None: `pageblock_order`.
    """

    samples: NDArray[np.uint8]
    types: NDArray[np.uint8]
    times_ns: NDArray[np.int64]
    zones: list[tuple[str, int, int]]
    title: str = "Physical memory over time"
    type_names: tuple[str, ...] = TYPE_NAMES
    pageblock_order: int = 9
    base_block: int = 0
    usable: NDArray[np.float64] | None = None
    usable_order: int | None = None

    def check(self) -> None:
        """Raise BadStateError when the arrays do not fit together."""
        moments, blocks = self.samples.shape if self.samples.ndim == 2 else (0, 0)
        problem = ""
        if not moments or not blocks:
            problem = f"samples has shape {self.samples.shape}; expected moments x pageblocks"
        elif self.types.shape != self.samples.shape:
            problem = f"types has shape {self.types.shape}, samples {self.samples.shape}"
        elif self.times_ns.shape != (moments,):
            problem = f"times_ns has shape {self.times_ns.shape}, expected ({moments},)"
        elif (np.diff(self.times_ns) < 0).any():
            problem = "times_ns goes back in time; sort the samples"
        elif self.usable is not None and self.usable.shape != (moments,):
            problem = f"usable has shape {self.usable.shape}, expected ({moments},)"
        elif not self.zones:
            problem = "no zone is given"
        for label, first, count in self.zones:
            if first < 0 or count < 1 or first + count > blocks:
                problem = problem or (
                    f"zone {label}: pageblocks [{first}, {first + count}) are not among the "
                    f"{blocks} columns"
                )
        if problem:
            raise BadStateError(f"timeline: {problem}")

    def usable_share(self) -> NDArray[np.float64]:
        """Share 0..1 of free memory that huge pages can use, float64 [n_samples].

        Examples
        --------
        >>> samples = np.array([[255, 255, 0], [255, 51, 204]], np.uint8)
        >>> line = Timeline(samples, np.ones_like(samples), np.arange(2), [("Normal", 0, 3)])
        >>> line.usable_share().tolist()
        [1.0, 0.5]
        """
        if self.usable is not None:
            return self.usable
        memory = self.types != ZoneBlocks.NONE
        free = np.where(memory, self.samples, 0).sum(axis=1, dtype=np.int64)
        whole = 255 * ((self.samples == 255) & memory).sum(axis=1, dtype=np.int64)
        share: NDArray[np.float64] = whole / np.maximum(free, 1)
        return share


class _Strip(msgspec.Struct, frozen=True):
    """Band of the picture that shows one zone, low addresses at the bottom."""

    label: str
    first: int
    blocks: int
    top: float
    height: float

    def y(self, block: float) -> float:
        """Height of a pageblock's lower end, counted from the zone's first."""
        return self.top + self.height * (1 - block / self.blocks)


def _strips(line: Timeline) -> list[_Strip]:
    """Share the height among the zones; pageblocks get whole image pixels where they can."""
    total = sum(count for _, _, count in line.zones)
    heights = []
    for _, _, count in line.zones:
        pixels = max(_MAP * count / total, _LEAST) * _PER_PIXEL
        whole = max(1, round(pixels / count)) * count
        heights.append((whole if count <= pixels else round(pixels)) / _PER_PIXEL)
    strips = []
    y = _TOP
    for (label, first, count), height in reversed(list(zip(line.zones, heights, strict=True))):
        strips.append(_Strip(label, first, count, y, height))
        y += height + _GAP
    return strips


def _pixels(line: Timeline, strip: _Strip, moments: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Image of one zone: a pixel column per moment, a row per pageblock or per group of them.

    A group shows its commonest type and its mean share: a mean of colours would be a colour that
    the legend does not know.
    """
    rows = min(strip.blocks, round(strip.height * _PER_PIXEL))
    edges = np.linspace(0, strip.blocks, rows + 1).round().astype(np.int64)
    part = slice(strip.first, strip.first + strip.blocks)
    distinct, column = np.unique(moments, return_inverse=True)
    table = colours(line.type_names)
    image = np.empty((rows, len(distinct), 3), np.uint8)
    for index, moment in enumerate(distinct.tolist()):
        types, share = line.types[moment, part], line.samples[moment, part]
        if rows < strip.blocks:
            types, share = _reduce(types, share, edges)
        image[:, index] = table[types, share][::-1]
    return image[:, column]


def _reduce(
    types: NDArray[np.uint8], share: NDArray[np.uint8], edges: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Commonest type and mean share, rounded down, of each run of pageblocks."""
    memory = types != ZoneBlocks.NONE
    starts = edges[:-1]
    kinds = np.unique(types[memory])
    if not len(kinds):
        none = np.full(len(starts), ZoneBlocks.NONE, np.uint8)
        return none, np.zeros_like(none)
    counts = np.stack([np.add.reduceat(types == kind, starts, dtype=np.int64) for kind in kinds])
    total = counts.sum(axis=0)
    sums = np.add.reduceat(np.where(memory, share, 0), starts, dtype=np.int64)
    commonest = np.where(total > 0, kinds[counts.argmax(axis=0)], ZoneBlocks.NONE)
    return commonest.astype(np.uint8), (sums // np.maximum(total, 1)).astype(np.uint8)


def _draw_strip(canvas: Canvas, line: Timeline, strip: _Strip, moments: NDArray[np.int64]) -> None:
    box = Box(_LEFT, strip.top, _PLOT, strip.height)
    canvas.image(box, _pixels(line, strip, moments))
    base = line.base_block + strip.first
    step = block_step(strip.blocks, int(strip.height / 30))
    marks = [0, *range(step - base % step, strip.blocks, step)]
    last = float("inf")
    for mark in marks:
        y = strip.y(mark)
        room = last - y
        if room < 15 or (mark and strip.y(mark) < strip.top + 8):
            continue
        last = y
        canvas.rect(Box(_LEFT - 6, y - 0.5, 5, 1), MUTED)
        label = address((base + mark) << line.pageblock_order)
        canvas.text((_LEFT - 10, y + 4), label, Style(11, MUTED, "r"))


def _draw_zone_names(canvas: Canvas, line: Timeline, strips: list[_Strip]) -> None:
    """Names right of the strips, moved apart where strips are small."""
    middles = [strip.top + strip.height / 2 for strip in strips]
    bottom = strips[-1].top + strips[-1].height
    places = spread(middles, 17, _TOP + 6, bottom - 4)
    for strip, middle, place in zip(strips, middles, places, strict=True):
        canvas.rect(Box(_RIGHT + 6, strip.top, 2, strip.height), MUTED)
        if abs(middle - place) > 1:
            canvas.line([(_RIGHT + 8, middle), (_RIGHT + 15, place)], MUTED)
        size = size_text(strip.blocks << line.pageblock_order)
        x = _RIGHT + 18
        if strip.height >= 34:
            canvas.text((x, place - 2), strip.label)
            canvas.text((x, place + 13), size, Style(11, MUTED))
        else:
            canvas.text((x, place + 4), strip.label)
            canvas.text((x + text_width(strip.label, 12) + 6, place + 4), size, Style(11, MUTED))


def _draw_chart(canvas: Canvas, line: Timeline, top: float) -> None:
    share = line.usable_share()
    order = line.pageblock_order if line.usable_order is None else line.usable_order
    block = address(1 << order)
    canvas.text((_LEFT, top - 14), f"Share of free memory in chunks of {block} and larger")
    note = f"what huge pages can use; lowest {share.min():.1%}".replace("%", " %")
    canvas.text((_RIGHT, top - 14), note, Style(11, MUTED, "r"))
    for percent in (0, 50, 100):
        y = top + _CHART * (1 - percent / 100)
        canvas.rect(Box(_LEFT, y - 0.5, _PLOT, 1), RULE)
        canvas.text((_LEFT - 10, y + 4), f"{percent} %", Style(11, MUTED, "r"))
    start, end = int(line.times_ns[0]), int(line.times_ns[-1])
    moments = _moments(line) if len(share) > 2 * _PLOT else np.arange(len(share))
    times = (line.times_ns[moments] - start) / max(end - start, 1)
    if len(moments) == 1:
        moments, times = np.repeat(moments, 2), np.array([0.0, 1.0])
    path = [
        (_LEFT + _PLOT * time, top + _CHART * (1 - value))
        for time, value in zip(times.tolist(), share[moments].tolist(), strict=True)
    ]
    bottom = top + _CHART
    canvas.area([(path[0][0], bottom), *path, (path[-1][0], bottom)], _TINT)
    canvas.line(path, ACCENT, 1.5)
    at_end = f"{share[-1]:.1%}".replace("%", " %")
    canvas.text((_RIGHT + 18, path[-1][1] + 4), at_end, Style(12, ACCENT))
    canvas.text(
        (_RIGHT + 18 + text_width(at_end, 12) + 6, path[-1][1] + 4), "at end", Style(11, MUTED)
    )
    _draw_time_axis(canvas, end - start, bottom)


def _draw_time_axis(canvas: Canvas, span_ns: int, y: float) -> None:
    unit, name = time_unit(span_ns)
    canvas.rect(Box(_LEFT, y - 0.5, _PLOT, 1), INK)
    span = span_ns / unit
    for value, label in ticks(span, 10) if span else [(0.0, "0")]:
        x = _LEFT + (_PLOT * value / span if span else 0)
        canvas.rect(Box(x - 0.5, y, 1, 5), INK)
        canvas.text((x, y + 18), label, Style(11, MUTED, "m"))
    title = f"time since the first sample ({name})"
    canvas.text((_LEFT + _PLOT / 2, y + 38), title, Style(12, INK, "m"))


def _moments(line: Timeline) -> NDArray[np.int64]:
    """Index of the sample nearest in time to each pixel column."""
    columns = round(_PLOT * _PER_PIXEL)
    start, end = line.times_ns[0], line.times_ns[-1]
    wanted = start + (np.arange(columns) + 0.5) / columns * (end - start)
    middles = (line.times_ns[1:] - start + line.times_ns[:-1] - start) / 2
    moments: NDArray[np.int64] = np.searchsorted(middles, wanted - start).astype(np.int64)
    return moments


def _height(strips: list[_Strip]) -> float:
    return strips[-1].top + strips[-1].height + _CHART_HEAD + _CHART + _FOOT


def _draw(canvas: Canvas, line: Timeline, strips: list[_Strip]) -> None:
    canvas.text((24, 40), line.title, Style(18))
    blocks = sum(count for _, _, count in line.zones)
    unit, name = time_unit(int(line.times_ns[-1] - line.times_ns[0]))
    span = (line.times_ns[-1] - line.times_ns[0]) / unit
    facts = (
        f"{size_text(blocks << line.pageblock_order)} in {blocks} pageblocks of "
        f"{address(1 << line.pageblock_order)}, {len(line.times_ns)} samples in {span:.3g} {name}"
    )
    canvas.text((24, 60), facts, Style(12, MUTED))
    present = np.unique(line.types)
    names = shown_types(line.type_names, present.tolist())
    draw_legend(canvas, (24, 76), WIDTH - 48, names, holes=ZoneBlocks.NONE in present)
    canvas.text((_LEFT - 10, _TOP - 12), "address", Style(11, MUTED, "r"))
    canvas.text((_RIGHT + 18, _TOP - 12), "zone", Style(11, MUTED))
    moments = _moments(line)
    for strip in strips:
        _draw_strip(canvas, line, strip, moments)
    _draw_zone_names(canvas, line, strips)
    _draw_chart(canvas, line, strips[-1].top + strips[-1].height + _CHART_HEAD)


def timeline_png(line: Timeline, path: str | Path, scale: int = 2) -> None:
    """Write the picture as a PNG file, 1120 * `scale` pixels wide.

    Raises
    ------
    BadStateError
        The arrays of the timeline do not fit together.

    Examples
    --------
    >>> samples = np.zeros((3, 4), np.uint8)
    >>> line = Timeline(samples, samples, np.arange(3), [("Normal", 0, 4)])
    >>> timeline_png(line, "/dev/null")
    """
    line.check()
    strips = _strips(line)
    canvas = PngCanvas(WIDTH, _height(strips), scale)
    _draw(canvas, line, strips)
    canvas.save(path)


def timeline_svg(line: Timeline) -> str:
    """Picture as the text of a stand-alone SVG file: the map is an embedded PNG, the rest is text.

    Raises
    ------
    BadStateError
        The arrays of the timeline do not fit together.

    Examples
    --------
    >>> samples = np.zeros((3, 4), np.uint8)
    >>> timeline_svg(Timeline(samples, samples, np.arange(3), [("Normal", 0, 4)]))[:4]
    '<svg'
    """
    line.check()
    strips = _strips(line)
    canvas = SvgCanvas(WIDTH, _height(strips), line.title)
    _draw(canvas, line, strips)
    return canvas.svg()
