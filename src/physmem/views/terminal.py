# SPDX-License-Identifier: GPL-2.0-or-later
"""Mosaic of the pageblocks for a terminal: 24-bit colour, letters where there is none."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from physmem.mm.state import NO_MEMORY, State
from physmem.views.blocks import ZoneBlocks, address
from physmem.views.grid import Grid, cell_facts, fit_grid, zone_facts
from physmem.views.palette import colours, hex_colour, ramp

if TYPE_CHECKING:
    from rich.text import Text

_LABELS = 11  # "16.125 GiB "
_WHOLLY_FREE = "_"


def _style(shade: NDArray[np.uint8], share: int) -> str:
    """Cell colour, and a letter that can be read but does not shout."""
    if share == 255:
        ink = shade * 0.85
    elif int(shade.astype(int).sum()) > 3 * 150:
        ink = shade * 0.55
    else:
        ink = 255 - (255 - shade) * 0.45
    return f"{hex_colour(ink.astype(np.uint8))} on {hex_colour(shade)}"


def _letter(letters: str, mt: int, share: int) -> str:
    if mt == ZoneBlocks.NONE:
        return NO_MEMORY
    if share == 255:
        return _WHOLLY_FREE
    return letters[mt].lower() if share >= 127 else letters[mt]


def _append_zone(
    text: "Text", grid: Grid, zone: ZoneBlocks, letters: str, table: NDArray[np.uint8]
) -> None:
    types, shares = zone.types.tolist(), zone.free_share().tolist()
    for row in grid.rows(zone):
        label = address(row * grid.columns << grid.order)
        text.append(f"{label:>{_LABELS - 1}} ", style="dim")
        for number in range(row * grid.columns, (row + 1) * grid.columns):
            index = number - zone.first
            if index >= len(types):
                break
            if index < 0:
                text.append(" ")
                continue
            mt, share = types[index], shares[index]
            style = "dim" if mt == ZoneBlocks.NONE else _style(table[mt, share], share)
            text.append(_letter(letters, mt, share), style=style)
        text.append("\n")


def _append_legend(text: "Text", state: State, grid: Grid) -> None:
    text.append("\n")
    for name in grid.legend(state):
        letter = state.letters[state.type_names.index(name)]
        shades = ramp(name)
        for share in (0, 84, 170, 254, 255):
            sign = _letter(letter, 0, share)
            text.append(sign, style=_style(shades[share], share))
        text.append(f" {name}   ")
    text.append("\n")
    text.append("UPPER CASE below half free, lower case half free or more, ", style="dim")
    text.append(f"{_WHOLLY_FREE} wholly free, {NO_MEMORY} no memory\n", style="dim")
    text.append(cell_facts(grid, state.pageblock_order) + "\n", style="dim")


def terminal_mosaic(state: State, width: int = 80, max_rows: int = 32) -> "Text":
    """Mosaic for a terminal of `width` columns, at most `max_rows` rows of cells.

    Each cell also carries the letter of its migratetype, so that little is lost where colour is.

    Raises
    ------
    BadStateError
        A list names a frame outside its zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> for line in terminal_mosaic(small_state(), 60).plain.splitlines()[:4]:
    ...     print(line)
    Node 0, zone DMA     8 MiB, 4 pageblocks, 76.6 % free
             0 U___
    Node 0, zone Normal  16 MiB, 8 pageblocks, 22.2 % free
             0     UUM_MrMH
    """
    from rich.text import Text

    columns = 1 << max(3, (width - _LABELS).bit_length() - 1)
    grid = fit_grid(state, (columns,), lambda _cells, rows, _columns: rows <= max_rows)
    table = colours(state.type_names)
    text = Text(no_wrap=True, end="")
    longest = max(len(zone.label) for zone in grid.zones)
    for zone in grid.zones:
        text.append(f"{zone.label:{longest}}", style="bold")
        text.append(f"  {zone_facts(zone, state.pageblock_order)}\n")
        _append_zone(text, grid, zone, state.letters, table)
    _append_legend(text, state, grid)
    return text
