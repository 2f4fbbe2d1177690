# SPDX-License-Identifier: GPL-2.0-or-later
"""A state as HTML for notebooks: free chunks by zone and order, and the mosaic."""

from html import escape

from physmem.mm.state import State
from physmem.views.blocks import size_text
from physmem.views.buddyinfo import free_counts
from physmem.views.fragmentation import free_frames, unusable_index
from physmem.views.mosaic import mosaic_svg

MAX_CELLS = 1024
"""Cells of the mosaic in a notebook: about 150 kB of SVG."""

_TABLE = "border-collapse:collapse;font-size:12px;margin:0 0 4px"
_CELL = "padding:2px 8px;text-align:right;border-bottom:1px solid #d8dce1"
_BOX = (
    "background:#fff;color:#1f2328;padding:12px;max-width:984px;overflow-x:auto;"
    "font-family:Helvetica,Arial,sans-serif"
)


def _row(tag: str, cells: list[str]) -> str:
    first = f'<{tag} style="{_CELL};text-align:left">{cells[0]}</{tag}>'
    rest = "".join(f'<{tag} style="{_CELL}">{cell}</{tag}>' for cell in cells[1:])
    return f"<tr>{first}{rest}</tr>"


def _table(state: State) -> str:
    orders = len(state.zones[0].free)
    huge = min(state.pageblock_order, orders - 1)
    head = ["Free chunks", *[f"order {o}" if not o else str(o) for o in range(orders)]]
    rows = [_row("th", [*head, "free", "of", f"unusable at order {huge}"])]
    for zone in state.zones:
        counts = free_counts(zone)
        unusable = f"{unusable_index(counts, huge) / 10:.1f} %"
        name = escape(f"Node {zone.node}, {zone.name}")
        sizes = [size_text(free_frames(counts)), size_text(zone.managed)]
        rows.append(_row("td", [name, *map(str, counts), *sizes, unusable]))
    return f'<table style="{_TABLE}">{"".join(rows)}</table>'


def state_html(state: State) -> str:
    """HTML of a state, at most about 200 kB, for `_repr_html_`; many pageblocks are grouped.

    Raises
    ------
    BadStateError
        A list names a frame outside its zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> text = state_html(small_state())
    >>> "Node 0, Normal" in text, text.count("<svg")
    (True, 1)
    """
    return f'<div style="{_BOX}">{_table(state)}{mosaic_svg(state, MAX_CELLS)}</div>'
