# SPDX-License-Identifier: GPL-2.0-or-later
"""A recorded state becomes a machine's tables, and a machine's tables become a state."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from physmem.lib.errors import BadStateError, CorruptStateError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.hot_cold import fill_cold, read_cold, remembered
from physmem.machine.tables import Tables, nr_pageblocks
from physmem.mm import mmzone
from physmem.mm.features import HOT_COLD, ISOLATED_IS_FREE, PCP_AUTO_TUNING
from physmem.mm.hot_cold import NR_HOT_COLD_LISTS
from physmem.mm.lists import (
    fill_free_list,
    fill_pcp_list,
    init_lists,
    mark_movable,
    mark_rest_in_use,
    read_list,
)
from physmem.mm.pageblock import NO_TYPE
from physmem.mm.state import (
    BLOCK_LETTERS,
    BLOCK_LETTERS_CMA,
    NO_MEMORY,
    PcpState,
    State,
    ZoneState,
    block_letters,
    table_types,
)

TUNING = ("high_min", "high_max", "alloc_factor", "free_count", "flags")
"""Fields of `PcpState` and `PerCpuPages` that only kernels with auto-tuning have."""
_FIRST_THP_LIST = 12
_UNKNOWN = 254


def fill_tables(tables: Tables, state: State, movable: Iterable[tuple[int, int]] = ()) -> None:
    """Put a state's lists and pageblock types into fresh tables.

    Parameters
    ----------
    movable : iterable of (start, count)
        Frames in use that hold movable memory; the state itself does not tell.

    Raises
    ------
    BadStateError
        A frame outside its zone, misaligned or on two lists; a letter that is no migratetype.
    """
    h = address(tables.memory)
    ready(init_lists)(h, int(tables.memory[0]["max_pfn"]))
    for number, zone in enumerate(state.zones):
        fill_pageblocks(tables, number, zone, state)
        _fill_free_lists(tables, number, zone, state)
        fill_pageset(tables, number, zone)
        for pcp in zone.pcp:
            _fill_pcp(tables, number, zone, pcp, state.letters)
    _mark_in_use(tables, state)
    mark = ready(mark_movable)
    for start, count in movable:
        mark(h, start, start + count)


def fill_pageblocks(tables: Tables, number: int, zone: ZoneState, state: State) -> None:
    """Migratetypes of a zone's pageblocks from their letters.

    Raises
    ------
    BadStateError
        Too many letters or too few, or one that stands for no migratetype.
    """
    types = np.full(256, _UNKNOWN, np.uint8)
    for mt, letter in zip(table_types(state.letters), state.letters, strict=True):
        types[ord(letter)] = mt
    types[ord(NO_MEMORY)] = NO_TYPE
    letters = np.frombuffer(zone.pageblocks.encode("ascii", "replace"), np.uint8)
    blocks = nr_pageblocks(tables.zones[number])
    if len(letters) != blocks:
        msg = f"zone {zone.name}: {len(letters)} pageblock letters for {blocks} pageblocks"
        raise BadStateError(msg)
    mts = types[letters]
    if (mts == _UNKNOWN).any():
        at = int(np.flatnonzero(mts == _UNKNOWN)[0])
        msg = f"zone {zone.name}: pageblock {at} has the unknown type {zone.pageblocks[at]!r}"
        raise BadStateError(msg)
    first = sum(nr_pageblocks(tables.zones[lower]) for lower in range(number))
    tables.pageblock_flags[first : first + blocks] = mts
    isolated = int(tables.zones[number]["isolate_type"])
    if not int(tables.zones[number]["features"]) & ISOLATED_IS_FREE:
        tables.zones[number]["nr_isolate_pageblock"] = int((mts == isolated).sum())


def _heads(tables: Tables, zone: ZoneState, order: int, members: list[int], what: str) -> Any:
    """Heads of a list; refuse what is misaligned or outside the zone."""
    try:
        pfns = np.array(members, np.int64)
    except OverflowError:
        msg = f"zone {zone.name} of node {zone.node}: {what} holds a number that is no frame"
        raise BadStateError(msg) from None
    if not len(pfns):
        return pfns
    bad = (pfns & ((1 << order) - 1) != 0) | (pfns < zone.start) | (pfns + (1 << order) > zone.end)
    if not bad.any():
        block_order = int(tables.memory[0]["pageblock_order"])
        blocks = (pfns >> block_order) - (zone.start >> block_order)
        bad = np.frombuffer(zone.pageblocks.encode(), np.uint8)[blocks] == ord(NO_MEMORY)
    if bad.any():
        pfn = int(pfns[bad][0])
        msg = (
            f"zone {zone.name} of node {zone.node}: frame {pfn:#x} on {what} is misaligned or"
            " outside the zone's memory; record the state again"
        )
        raise BadStateError(msg)
    return pfns


def _check_new(zone: ZoneState, pfn: int, what: str) -> None:
    """Refuse a frame that was on a list already."""
    if pfn != mmzone.NONE:
        msg = (
            f"zone {zone.name} of node {zone.node}: frame {pfn:#x} on {what} is on another list"
            " too, or twice on this one; record the state again"
        )
        raise BadStateError(msg)


def _fill_free_lists(tables: Tables, number: int, zone: ZoneState, state: State) -> None:
    h = address(tables.memory)
    fill = ready(fill_free_list)
    orders = int(tables.zones[number]["max_order"]) + 1
    if len(zone.free) != orders or any(len(row) != state.nr_migratetypes for row in zone.free):
        msg = f"zone {zone.name}: {len(zone.free)} orders of free lists, this machine has {orders}"
        raise BadStateError(msg)
    ours = table_types(state.letters)
    for order, row in enumerate(zone.free):
        for mt, letter, members in zip(ours, state.letters, row, strict=True):
            what = f"free list {order}/{letter}"
            pfns = _heads(tables, zone, order, members, what)
            _check_new(zone, fill(h, number, order, mt, pfns), what)


def _mark_in_use(tables: Tables, state: State) -> None:
    """Whatever is on no list is in use; what is on lists must not overlap."""
    h = address(tables.memory)
    nr_cpus = int(tables.memory[0]["nr_cpus"])
    used = [ready(mark_rest_in_use)(h, number) for number in range(len(state.zones))]
    spans = sorted((zone.start, zone.end) for zone in state.zones)
    if any(low[1] > high[0] for low, high in pairwise(spans)):
        return  # interleaved nodes: frames of one zone lie in the span of another
    for number, zone in enumerate(state.zones):
        orders = np.arange(mmzone.NR_PAGE_ORDERS)
        listed = int((tables.zones[number]["free_area"]["nr_free"] << orders).sum())
        listed += int(tables.pageset[number * nr_cpus : (number + 1) * nr_cpus]["count"].sum())
        if listed + used[number] != zone.spanned:
            msg = (
                f"zone {zone.name} of node {zone.node}: blocks on its lists overlap, by "
                f"{listed + used[number] - zone.spanned} frames; record the state again"
            )
            raise BadStateError(msg)


def fill_pageset(tables: Tables, number: int, zone: ZoneState) -> None:
    """Sizes of the per-CPU lists, for CPUs that the state does not mention."""
    nr_cpus = int(tables.memory[0]["nr_cpus"])
    records = tables.pageset[number * nr_cpus : (number + 1) * nr_cpus]
    high = max(zone.pageset_high, 0)
    records["high"] = high
    records["batch"] = max(zone.pageset_batch, 1)
    if int(tables.zones[number]["features"]) & HOT_COLD:
        records["cold_high"] = max(zone.pageset_high, 0) // 3
        records["cold_batch"] = max(zone.pageset_batch // 2, 1)
    if int(tables.zones[number]["features"]) & PCP_AUTO_TUNING:
        records["high"] = 0
        records["high_min"] = high
        records["high_max"] = high if zone.pageset_high_max is None else zone.pageset_high_max


def _fill_pcp(tables: Tables, number: int, zone: ZoneState, pcp: PcpState, letters: str) -> None:
    h = address(tables.memory)
    nr_cpus = int(tables.memory[0]["nr_cpus"])
    if not 0 <= pcp.cpu < nr_cpus:
        msg = f"zone {zone.name}: lists of cpu {pcp.cpu}, this machine has {nr_cpus} cpus"
        raise BadStateError(msg)
    if len(pcp.lists) > mmzone.NR_PCP_LISTS:
        msg = f"zone {zone.name}, cpu {pcp.cpu}: {len(pcp.lists)} per-CPU lists, at most 14"
        raise BadStateError(msg)
    if pcp.batch < 1 or pcp.high < 0:
        msg = f"zone {zone.name}, cpu {pcp.cpu}: batch {pcp.batch}, high {pcp.high} are impossible"
        raise BadStateError(msg)
    record = tables.pageset[number * nr_cpus + pcp.cpu]
    record["high"] = pcp.high
    record["batch"] = pcp.batch
    hot_cold = int(tables.zones[number]["features"]) & HOT_COLD
    if hot_cold:
        fill_cold(record, zone, pcp)
    record["free_factor"] = pcp.free_factor or 0
    if int(tables.zones[number]["features"]) & PCP_AUTO_TUNING:
        _fill_tuning(record, zone, pcp)
    block_order = int(tables.zones[number]["pageblock_order"])
    first_block = int(tables.zones[number]["first_block"])
    base = sum(nr_pageblocks(tables.zones[lower]) for lower in range(number))
    for pindex, members in enumerate(pcp.lists):
        order = block_order if pindex >= _FIRST_THP_LIST else pindex // mmzone.MIGRATE_PCPTYPES
        what = f"the per-CPU list {pindex} of cpu {pcp.cpu}"
        pfns = _heads(tables, zone, order, members, what)
        twice = ready(fill_pcp_list)(h, number, pcp.cpu, pindex, order, pfns)
        _check_new(zone, twice, what)
        # A movable list also holds frames of HIGHATOMIC and CMA blocks, under their own type.
        mt = pindex % mmzone.MIGRATE_PCPTYPES
        if pindex >= _FIRST_THP_LIST:
            mt = mmzone.MIGRATE_MOVABLE if pindex > _FIRST_THP_LIST else mmzone.MIGRATE_UNMOVABLE
        cached = np.full(len(pfns), mt, np.uint8)
        if hot_cold:
            types = tables.pageblock_flags[base + (pfns >> block_order) - first_block]
            cached = remembered(zone, pcp, pindex, types, letters)
        elif mt == mmzone.MIGRATE_MOVABLE and len(pfns):
            types = tables.pageblock_flags[base + (pfns >> block_order) - first_block]
            cached = np.where(types >= mmzone.MIGRATE_PCPTYPES, types, cached)
        tables.mem_map["mt"][pfns] = cached
    if int(record["count"]) != pcp.count:
        msg = (
            f"zone {zone.name}, cpu {pcp.cpu}: count {pcp.count}, but {int(record['count'])}"
            " frames are on the lists; record the state again"
        )
        raise BadStateError(msg)


def _fill_tuning(record: Any, zone: ZoneState, pcp: PcpState) -> None:
    """What a kernel with auto-tuning keeps; what a state does not tell is as at boot."""
    for name in TUNING:
        value = getattr(pcp, name)
        if value is not None:
            record[name] = value
    # a tiny Movable zone may have high_min above high_max: its low watermark has a lower bound
    if min(int(record["high_min"]), int(record["high_max"])) < 0:
        msg = (
            f"zone {zone.name}, cpu {pcp.cpu}: high_min {int(record['high_min'])}, high_max"
            f" {int(record['high_max'])} are impossible"
        )
        raise BadStateError(msg)


class _Reader:
    """Reads lists through one buffer that grows as needed."""

    def __init__(self, tables: Tables) -> None:
        self.h = address(tables.memory)
        self.buffer: Any = np.empty(4096, np.int64)
        self.read = ready(read_list)

    def members(self, head: int, what: str) -> list[int]:
        count = self.read(self.h, head, self.buffer)
        if count == mmzone.NONE:
            invariant = "list_links"
            raise CorruptStateError(invariant, f"{what}: next and prev do not agree")
        if count > len(self.buffer):
            self.buffer = np.empty(2 * count, np.int64)
            count = self.read(self.h, head, self.buffer)
        return list(map(int, self.buffer[:count]))


def read_tables(tables: Tables, zone_names: tuple[str, ...], nr_migratetypes: int) -> State:
    """The state that the tables hold.

    Raises
    ------
    CorruptStateError
        A list is not a ring.
    """
    reader = _Reader(tables)
    block_order = int(tables.memory[0]["pageblock_order"])
    state = State(zones=[], pageblock_order=block_order)
    types_of = block_letters(int(tables.memory[0]["features"]), nr_migratetypes)
    if types_of not in (BLOCK_LETTERS, BLOCK_LETTERS_CMA):
        state.migratetypes = types_of
    block = 0
    for number, zone in enumerate(tables.zones):
        blocks = nr_pageblocks(zone)
        types = tables.pageblock_flags[block : block + blocks]
        block += blocks
        state.zones.append(_read_zone(tables, reader, number, zone_names, types_of))
        letters = np.full(256, ord(NO_MEMORY), np.uint8)
        letters[table_types(types_of)] = np.frombuffer(types_of.encode(), np.uint8)
        state.zones[-1].pageblocks = letters[types].tobytes().decode()
    return state


def _read_zone(
    tables: Tables,
    reader: _Reader,
    number: int,
    zone_names: tuple[str, ...],
    letters: str,
) -> ZoneState:
    zone = tables.zones[number]
    nr_cpus = int(tables.memory[0]["nr_cpus"])
    name = zone_names[int(zone["zone_idx"])]
    areas = zone["free_area"][: int(zone["max_order"]) + 1]
    pagesets = tables.pageset[number * nr_cpus : (number + 1) * nr_cpus]

    hot_cold = int(zone["features"]) & HOT_COLD
    tuned = int(zone["features"]) & PCP_AUTO_TUNING
    types = table_types(letters)

    def pcp(cpu: int, record: Any) -> PcpState:
        heads = record["head"].tolist()
        if hot_cold:
            del heads[NR_HOT_COLD_LISTS:]
        lists = [reader.members(head, f"zone {name}, cpu {cpu}") for head in heads]
        more: dict[str, Any] = {}
        if hot_cold:
            more = read_cold(tables, record, lists, letters)
        elif tuned:
            more = {field: int(record[field]) for field in TUNING}
        return PcpState(
            cpu=cpu,
            count=int(record["count"]),
            high=int(record["high"]),
            batch=int(record["batch"]),
            free_factor=None if tuned else int(record["free_factor"]),
            lists=lists,
            **more,
        )

    return ZoneState(
        node=int(zone["node"]),
        name=name,
        start=int(zone["start_pfn"]),
        spanned=int(zone["spanned_pages"]),
        managed=int(zone["managed_pages"]),
        present=int(zone["present_pages"]),
        wmark=zone["watermark"].tolist(),
        boost=int(zone["watermark_boost"]),
        highatomic=int(zone["nr_reserved_highatomic"]),
        lowmem_reserve=zone["lowmem_reserve"][: len(zone_names)].tolist(),
        pageset_high=int(pagesets[0]["high_min" if tuned else "high"]),
        pageset_high_max=int(pagesets[0]["high_max"]) if tuned else None,
        pageset_batch=int(pagesets[0]["batch"]),
        free=[
            [
                reader.members(head, f"zone {name}, order {order}")
                for head in area["head"][types].tolist()
            ]
            for order, area in enumerate(areas)
        ],
        nr_free=[int(area["nr_free"]) for area in areas],
        pcp=[pcp(cpu, record) for cpu, record in enumerate(pagesets)],
        pageblocks="",
    )
