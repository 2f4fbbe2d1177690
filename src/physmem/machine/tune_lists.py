# SPDX-License-Identifier: GPL-2.0-or-later
"""Which free block is next, and whose it is: types, regions, order of lists.

Linux: page_group_by_mobility_disabled, MIGRATE_HIGHATOMIC, mm/page_alloc.c; mm/shuffle.c (6.1)
"""

from typing import Any

from physmem.lib.errors import TuningError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.knobs import Tuning
from physmem.machine.layout import Layout
from physmem.machine.placement import arrange, get_placement, set_placement
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables
from physmem.mm import placement as p
from physmem.mm.features import HIGHATOMIC, RESERVE_BLOCKS
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_RESERVE,
    MIGRATE_UNMOVABLE,
)
from physmem.mm.retype import do_join, do_retype, do_shuffle

_FALLBACK = {"linux": 0, "defrag": p.DEFRAG, "none": p.NO_FALLBACK}
_ORDER = {"linux": 0, "lifo": p.LIFO, "fifo": p.FIFO, "address": p.ADDRESS_ORDER}
_ALL_FALLBACKS = p.DEFRAG | p.NO_FALLBACK
_ALL_ORDERS = p.LIFO | p.FIFO | p.ADDRESS_ORDER


def changes_types(tuning: Tuning) -> bool:
    """Whether frames must leave the per-CPU lists, because their types change."""
    return (tuning.mobility, tuning.highatomic, tuning.confine) != (None, None, None)


def set_lists(tables: Tables, layout: Layout, tuning: Tuning) -> Tables:
    """Apply the knobs of types, fallbacks and lists; per-CPU lists are empty where types change.

    Raises
    ------
    TuningError
        Two settings that exclude each other, or one that the kernel does not have.
    """
    bits = _wanted(get_placement(tables), tuning)
    _check(bits, tables, layout, tuning)
    set_placement(tables, 0)  # lists as the kernel keeps them, while they change
    if tuning.mobility is not None:
        _set_mobility(tables, layout, on=tuning.mobility)
    if bits & p.NO_HIGHATOMIC and tuning != Tuning():
        _give_back_highatomic(tables, layout)
    if tuning.confine is not None:
        _set_region(tables, layout, tuning)
    if isinstance(tuning.shuffle, int):
        for number in range(len(tables.zones)):
            ready(do_shuffle)(address(tables.memory), number, tuning.shuffle)
    return arrange(tables, bits)


def _wanted(bits: int, tuning: Tuning) -> int:
    """Rules of placement that come out of those there are and the tuning."""

    def switch(mask: int, value: int) -> None:
        nonlocal bits
        bits = bits & ~mask | value

    if tuning.fallback is not None:
        switch(_ALL_FALLBACKS, _FALLBACK[tuning.fallback])
    if tuning.list_order is not None:
        switch(_ALL_ORDERS, _ORDER[tuning.list_order])
    if tuning.shuffle is not None:
        switch(p.SHUFFLED, 0 if tuning.shuffle == "off" else p.SHUFFLED)
    if tuning.tree is not None:
        switch(p.TREES, p.TREES if tuning.tree else 0)
    if tuning.highatomic is not None:
        switch(p.NO_HIGHATOMIC, 0 if tuning.highatomic else p.NO_HIGHATOMIC)
    if tuning.confine is not None:
        switch(p.CONFINED, p.CONFINED if tuning.confine else 0)
    if bits & p.CONFINED:
        if tuning.highatomic:
            raise TuningError("highatomic=on: a confined machine reserves nothing, confine=off")
        bits |= p.NO_HIGHATOMIC
    return bits


def _check(bits: int, tables: Tables, layout: Layout, tuning: Tuning) -> None:
    features = feature_bits(layout.kernel)
    if tuning.highatomic and not features & HIGHATOMIC:
        raise TuningError(f"highatomic=on: Linux {layout.kernel} has no MIGRATE_HIGHATOMIC")
    if bits & p.SHUFFLED and bits & _ALL_ORDERS:
        raise TuningError(
            "shuffle and list_order exclude each other: set one of them to off, linux"
        )
    if bits & p.TREES and bits & (p.CONFINED | p.NO_FALLBACK):
        raise TuningError("tree=on: trees know no types; it excludes confine and fallback=none")
    disabled = bool(tables.zones["grouping_disabled"].any())
    if bits & p.CONFINED and (disabled if tuning.mobility is None else not tuning.mobility):
        raise TuningError("confine: memory is not grouped by mobility here; set mobility=on")


def _blocks(tables: Tables, number: int) -> Any:
    """Types of a zone's pageblocks, to change."""
    sizes = tables.zones["pageblock_flags_len"]
    first = int(sizes[:number].sum())
    return tables.pageblock_flags[first : first + int(sizes[number])]


def _set_mobility(tables: Tables, layout: Layout, *, on: bool) -> None:
    """One type for all, or MOVABLE pageblocks to begin with, as after start-up."""
    was_on = not tables.zones["grouping_disabled"].any()
    tables.zones["grouping_disabled"] = int(not on)
    if on == was_on:
        return
    old = [MIGRATE_UNMOVABLE] if on else [MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE]
    new = MIGRATE_MOVABLE if on else MIGRATE_UNMOVABLE
    if not on and feature_bits(layout.kernel) & RESERVE_BLOCKS:
        old.append(MIGRATE_RESERVE)
    for donor in old:
        _give_back(tables, donor, new)


def _give_back(tables: Tables, donor: int, mt: int) -> None:
    """Make all pageblocks of a type, and what is free of them, another type."""
    for number in range(len(tables.zones)):
        blocks = _blocks(tables, number)
        blocks[blocks == donor] = mt
        ready(do_join)(address(tables.memory), number, donor, mt)


def _give_back_highatomic(tables: Tables, layout: Layout) -> None:
    """Make what is set aside for atomic requests MOVABLE again."""
    if not feature_bits(layout.kernel) & HIGHATOMIC:
        return
    ungrouped = bool(tables.zones["grouping_disabled"].any())
    mt = MIGRATE_UNMOVABLE if ungrouped else MIGRATE_MOVABLE
    _give_back(tables, MIGRATE_HIGHATOMIC, mt)
    tables.zones["nr_reserved_highatomic"] = 0
    tables.zones["nr_free_highatomic"] = 0


def _set_region(tables: Tables, layout: Layout, tuning: Tuning) -> None:
    """Lay the border of the region in each zone; its share of the size is that of its memory.

    Zones that only movable memory reaches have no region. The border lies between blocks of the
    largest order, so that no free block crosses it.
    """
    if not tuning.confine:
        tables.zones["confined_start"] = tables.zones["confined_end"] = 0
        return
    h = address(tables.memory)
    frames = tuning.confine >> layout.page_shift
    normal = layout.zone_idx("Normal")
    managed = tables.zones["managed_pages"]
    total = int(managed[tables.zones["zone_idx"] <= normal].sum())
    if feature_bits(layout.kernel) & RESERVE_BLOCKS:  # what is set aside would be outside
        _give_back(tables, MIGRATE_RESERVE, MIGRATE_MOVABLE)
    for number, zone in enumerate(tables.zones):
        start, end = int(zone["start_pfn"]), int(zone["end_pfn"])
        size = max(int(zone["max_order"]), int(zone["pageblock_order"]))
        low = high = start
        if int(zone["zone_idx"]) <= normal and int(managed[number]):
            share = -(-frames * int(managed[number]) // total)
            if tuning.confine_end == "low":
                high = min(-(-(start + share) >> size) << size, end)
            else:
                low, high = max((end - share) >> size << size, start), end
        zone["confined_start"], zone["confined_end"] = low, high
        for first, last, mt in (
            (start, low, MIGRATE_MOVABLE),
            (low, high, MIGRATE_UNMOVABLE),
            (high, end, MIGRATE_MOVABLE),
        ):
            if first < last:
                ready(do_retype)(h, number, first, last, mt)
