# SPDX-License-Identifier: GPL-2.0-or-later
"""The grid behind every mosaic: pageblocks, or aligned groups of them, in rows of equal length.

A row is an aligned stretch of physical memory, so equal columns are equal offsets in all zones.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from physmem.mm.state import State
from physmem.views.blocks import ZoneBlocks, address, all_blocks, group_blocks, size_text
from physmem.views.legend import shown_types


class Grid(msgspec.Struct, frozen=True):
    """Zones cut into cells: `columns` per row (a power of two), each of 2**order frames."""

    zones: list[ZoneBlocks]
    columns: int

    @property
    def order(self) -> int:
        """Frames of a cell, as a power of two."""
        return self.zones[0].order

    def rows(self, zone: ZoneBlocks) -> range:
        """Numbers of the rows that the zone touches, counted from frame 0."""
        last = zone.first + len(zone.types) - 1
        return range(zone.first // self.columns, last // self.columns + 1)

    @property
    def height(self) -> int:
        """Rows of all zones."""
        return sum(len(self.rows(zone)) for zone in self.zones)

    def legend(self, state: State) -> list[str]:
        """Names of the migratetypes to explain."""
        present = np.unique(np.concatenate([zone.types for zone in self.zones]))
        return shown_types(state.type_names, present.tolist())

    def holes(self) -> bool:
        """Tell whether a cell is without memory."""
        return any((zone.types == ZoneBlocks.NONE).any() for zone in self.zones)


def fit_grid(state: State, choices: Sequence[int], fits: Callable[[int, int, int], bool]) -> Grid:
    """Choose the finest grid that fits: `fits(cells, rows, columns)`, columns out of `choices`.

    Cells are joined until each zone is a single one; that grid is taken even when it does not fit.
    """
    zones = all_blocks(state)
    # Numbers of the first and the last cell of each zone.
    ends = np.array([(zone.first, zone.first + len(zone.types) - 1) for zone in zones], np.int64)
    shift = 0
    while True:
        cells = ends >> shift
        single = bool((cells[:, 0] == cells[:, 1]).all())
        for columns in choices:
            rows = int((np.diff(cells // columns, axis=1) + 1).sum())
            if single or fits(int((np.diff(cells, axis=1) + 1).sum()), rows, columns):
                # From single pageblocks at once: the commonest of commonest types is another one.
                return Grid([group_blocks(zone, shift) for zone in zones], columns)
        shift += 1


def zone_facts(zone: ZoneBlocks, pageblock_order: int) -> str:
    """Size and free share of a zone in words.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> zone_facts(all_blocks(small_state())[1], 9)
    '16 MiB, 8 pageblocks, 22.2 % free'
    """
    memory = zone.types != ZoneBlocks.NONE
    frames = int(zone.frames[memory].sum())
    free = int(zone.free.sum()) * 100 / max(frames, 1)
    blocks = -(-frames >> pageblock_order)
    return f"{size_text(frames)}, {blocks} pageblocks, {free:.1f} % free"


def cell_facts(grid: Grid, pageblock_order: int) -> str:
    """What a cell and a row stand for, in words."""
    block = address(1 << pageblock_order)
    row = address(grid.columns << grid.order)
    if grid.order == pageblock_order:
        return f"one cell = one pageblock of {block}, one row = {row}"
    blocks = 1 << (grid.order - pageblock_order)
    return (
        f"one cell = {blocks} pageblocks of {block} (commonest type, mean free share), "
        f"one row = {row}"
    )
