# SPDX-License-Identifier: GPL-2.0-or-later
"""A state as tables: for data frames, Parquet files and queries.

| what | one row per | columns |
|---|---|---|
| `free` | free list | node, zone, order, migratetype, chunks, frames |
| `chunks` | free chunk | node, zone, order, migratetype, position (0 = head), pfn |
| `pcp` | chunk on a per-CPU list | node, zone, cpu, pindex, order, position (0 = head), pfn |
| `blocks` | pageblock | node, zone, pfn, migratetype, frames, free, pcp |
| `zones` | zone | node, zone, start, spanned, present, managed, min, low, high, boost, free |

Sizes are in frames. `migratetype` is null for a pageblock without memory.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from physmem.lib.errors import BadInputError
from physmem.mm.state import State
from physmem.views.blocks import all_blocks, pcp_order
from physmem.views.buddyinfo import free_counts
from physmem.views.fragmentation import free_frames

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


def _free(state: State) -> list[Row]:
    return [
        {
            "node": zone.node,
            "zone": zone.name,
            "order": order,
            "migratetype": state.type_names[mt],
            "chunks": len(heads),
            "frames": len(heads) << order,
        }
        for zone in state.zones
        for order, lists in enumerate(zone.free)
        for mt, heads in enumerate(lists)
    ]


def _chunks(state: State) -> list[Row]:
    return [
        {
            "node": zone.node,
            "zone": zone.name,
            "order": order,
            "migratetype": state.type_names[mt],
            "position": position,
            "pfn": pfn,
        }
        for zone in state.zones
        for order, lists in enumerate(zone.free)
        for mt, heads in enumerate(lists)
        for position, pfn in enumerate(heads)
    ]


def _pcp(state: State) -> list[Row]:
    return [
        {
            "node": zone.node,
            "zone": zone.name,
            "cpu": pcp.cpu,
            "pindex": pindex,
            "order": pcp_order(pindex, state.pageblock_order),
            "position": position,
            "pfn": pfn,
        }
        for zone in state.zones
        for pcp in zone.pcp
        for pindex, heads in enumerate(pcp.lists)
        for position, pfn in enumerate(heads)
    ]


def _blocks(state: State) -> list[Row]:
    names: dict[int, str] = dict(enumerate(state.type_names))
    return [
        {
            "node": blocks.node,
            "zone": blocks.zone,
            "pfn": number << blocks.order,
            "migratetype": names.get(mt),
            "frames": frames,
            "free": free,
            "pcp": pcp,
        }
        for blocks in all_blocks(state)
        for number, mt, frames, free, pcp in zip(
            range(blocks.first, blocks.first + len(blocks.types)),
            blocks.types.tolist(),
            blocks.frames.tolist(),
            blocks.free.tolist(),
            blocks.pcp.tolist(),
            strict=True,
        )
    ]


def _zones(state: State) -> list[Row]:
    return [
        {
            "node": zone.node,
            "zone": zone.name,
            "start": zone.start,
            "spanned": zone.spanned,
            "present": zone.present,
            "managed": zone.managed,
            "min": zone.wmark[0],
            "low": zone.wmark[1],
            "high": zone.wmark[2],
            "boost": zone.boost,
            "free": free_frames(free_counts(zone)),
        }
        for zone in state.zones
    ]


_TABLES: dict[str, Callable[[State], list[Row]]] = {
    "free": _free,
    "chunks": _chunks,
    "pcp": _pcp,
    "blocks": _blocks,
    "zones": _zones,
}
_COLUMNS = {
    "free": "node:i2 zone:s order:i1 migratetype:s chunks:i8 frames:i8",
    "chunks": "node:i2 zone:s order:i1 migratetype:s position:i4 pfn:i8",
    "pcp": "node:i2 zone:s cpu:i2 pindex:i1 order:i1 position:i4 pfn:i8",
    "blocks": "node:i2 zone:s pfn:i8 migratetype:s frames:i4 free:i4 pcp:i4",
    "zones": "node:i2 zone:s start:i8 spanned:i8 present:i8 managed:i8 "
    "min:i8 low:i8 high:i8 boost:i8 free:i8",
}


def to_dicts(state: State, what: str = "free") -> list[Row]:
    """Rows of one table as dictionaries; `what` names the table (see above).

    Raises
    ------
    BadInputError
        No such table.
    BadStateError
        A list names a frame outside its zone (`blocks` only).

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> [row for row in to_dicts(small_state()) if row["chunks"]][0]
    {'node': 0, 'zone': 'DMA', 'order': 5, 'migratetype': 'Unmovable', 'chunks': 1, 'frames': 32}
    """
    if what not in _TABLES:
        raise BadInputError(f"no table {what!r}; choose one of {', '.join(_TABLES)}")
    return _TABLES[what](state)


def to_arrow(state: State, what: str = "free") -> "pa.Table":
    """Rows of one table as a pyarrow.Table; names of zones and types are dictionary encoded.

    Raises
    ------
    BadInputError, BadStateError
        As `to_dicts`.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> table = to_arrow(small_state(), "blocks")
    >>> table.num_rows, table["free"].to_pylist()[:4]
    (12, [32, 512, 512, 512])
    """
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "i1": pa.int8(),
        "i2": pa.int16(),
        "i4": pa.int32(),
        "i8": pa.int64(),
        "s": pa.dictionary(pa.int8(), pa.string()),
    }
    rows = to_dicts(state, what)
    columns = [column.split(":") for column in _COLUMNS[what].split()]
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns])
    return pa.Table.from_pylist(rows, schema=schema)
