# SPDX-License-Identifier: GPL-2.0-or-later
"""Another size of pageblocks, another largest order: the machine's tables are made anew.

Free blocks are split or merged, and lie on their lists as if the memory had been handed over so;
what is in use stays as it is.

Linux: pageblock_order, MAX_ORDER (MAX_PAGE_ORDER), include/linux/mmzone.h (6.1, 6.12)
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from physmem.lib.errors import TuningError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.layout import Layout
from physmem.machine.load import fill_tables, read_tables
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables, build_tables
from physmem.mm.entry import do_setup_reserve
from physmem.mm.features import RESERVE_BLOCKS, TYPED_BARRIER
from physmem.mm.mmzone import HEAD_IN_USE
from physmem.mm.state import NO_MEMORY, State, ZoneState

_ORDINARY = "URM"
"""Letters of types that change hands; the first of several equally frequent ones wins."""
_KEPT_ZONE = ("grouping_disabled", "nr_steals", "nr_claims", "zone_flags", "watermark_boost_factor")


def set_orders(
    tables: Tables, layout: Layout, max_order: int, pageblock_order: int
) -> tuple[Tables, Layout]:
    """Tables and layout with other orders; per-CPU lists are empty before.

    Raises
    ------
    TuningError
        A pageblock larger than the largest block, or than what CMA or isolated ranges allow.
    """
    if pageblock_order > max_order:
        raise TuningError(f"pageblock_order={pageblock_order}: at most max_order, {max_order}")
    letters = int(tables.zones[0]["isolate_type"]) + 1
    state = read_tables(tables, layout.zone_names, letters)
    changed = replace(layout, max_order=max_order)
    barrier = bool(feature_bits(layout.kernel) & TYPED_BARRIER)
    for zone in state.zones:
        pageblocks = _regroup(zone, state, pageblock_order)
        _resize(zone, state, max_order, barrier=barrier)
        zone.pageblocks = pageblocks
        _follow(zone, state, pageblock_order)
        zone.highatomic = zone.pageblocks.count("H") << pageblock_order
        zone.nr_free = [sum(map(len, row)) for row in zone.free]
    state.pageblock_order = pageblock_order
    made = build_tables(state, changed)
    fill_tables(made, state)
    _keep(tables, made)
    if feature_bits(layout.kernel) & RESERVE_BLOCKS:
        for number in range(len(made.zones)):
            ready(do_setup_reserve)(address(made.memory), number)
    return made, changed


def _regroup(zone: ZoneState, state: State, order: int) -> str:
    """Letters of pageblocks of another order."""
    old = state.pageblock_order
    first, last = zone.start >> order, -(-zone.end >> order)
    before = zone.start >> old
    text = []
    for block in range(first, last):
        low = max(block << order, zone.start) >> old
        high = -(-min((block + 1) << order, zone.end) >> old)
        letters = zone.pageblocks[low - before : high - before].replace(NO_MEMORY, "")
        special = {letter for letter in letters if letter in "CI"}
        if special and len(set(letters)) > 1:
            raise TuningError(
                f"pageblock_order={order}: zone {zone.name} has pageblocks of CMA or isolated ones"
                f" beside others at frame {block << order:#x}; take a smaller order"
            )
        text.append(_commonest(letters) if letters else NO_MEMORY)
    return "".join(text)


def _commonest(letters: str) -> str:
    counts = Counter(letters)
    most = max(counts.values())
    return next(letter for letter in _ORDINARY + "XHCI" if counts[letter] == most)


def _resize(zone: ZoneState, state: State, max_order: int, *, barrier: bool) -> None:
    """Split the blocks that are too large now, or merge those that may be larger."""
    while len(zone.free) - 1 > max_order:
        top = zone.free.pop()
        half = 1 << (len(zone.free) - 1)
        for row, blocks in zip(zone.free[-1], top, strict=True):
            row[:] = _merged(row, blocks, half)
    while len(zone.free) - 1 < max_order:
        zone.free.append(_pairs(zone, state, barrier=barrier))


def _merged(row: list[int], blocks: list[int], half: int) -> list[int]:
    """One list of its blocks and of the halves of larger ones; ascending if both are."""
    step = 1 if blocks == sorted(blocks) else -1
    halves = [pfn + part for pfn in blocks for part in (0, half)[::step]]
    together = row + halves
    if row == sorted(row, reverse=step < 0) and halves == sorted(halves, reverse=step < 0):
        together.sort(reverse=step < 0)
    return together


def _pairs(zone: ZoneState, state: State, *, barrier: bool) -> list[list[int]]:
    """Take pairs of buddies off the lists of the largest order; lists of the next one.

    Special types merge among their own, where there is a barrier.
    """
    order = len(zone.free) - 1
    letters = state.letters
    where = {pfn: mt for mt, row in enumerate(zone.free[-1]) for pfn in row}
    made: list[list[int]] = [[] for _ in letters]
    gone = set()
    for mt, row in enumerate(zone.free[-1]):
        for pfn in row:
            buddy = pfn ^ (1 << order)
            other = where.get(buddy)
            if other is None or pfn in gone:
                continue
            alike = {letters[mt], letters[other]} <= set(_ORDINARY)
            if other == mt or alike or not barrier:
                gone |= {pfn, buddy}
                made[mt].append(min(pfn, buddy))
    for row in zone.free[-1]:
        row[:] = [pfn for pfn in row if pfn not in gone]
    return made


def _follow(zone: ZoneState, state: State, order: int) -> None:
    """Put free blocks on the list of their pageblock; one that holds several gives them its type.

    Lists of kernels whose blocks may be on other lists than their pageblock's follow, too: that is
    how memory is handed over.
    """
    letters = state.letters
    first = zone.start >> order
    text = list(zone.pageblocks)
    for size, rows in enumerate(zone.free):
        moved: list[list[int]] = [[] for _ in rows]
        for mt, row in enumerate(rows):
            stay = []
            for pfn in row:
                at = (pfn >> order) - first
                if size > order:
                    text[at : at + (1 << (size - order))] = letters[mt] * (1 << (size - order))
                letter = text[at]
                if letter == letters[mt]:
                    stay.append(pfn)
                else:
                    moved[letters.index(letter)].append(pfn)
            row[:] = stay
        for row, more in zip(rows, moved, strict=True):
            row.extend(more)
    zone.pageblocks = "".join(text)


def _keep(tables: Tables, made: Tables) -> None:
    """What the state does not tell: frames in use, zonelists, counters, rules."""
    frames = min(int(tables.memory[0]["max_pfn"]), int(made.memory[0]["max_pfn"]))
    old, new = tables.mem_map[:frames], made.mem_map[:frames]
    used = np.flatnonzero(new["flags"])
    for name in ("order", "flags", "private"):
        new[name][used] = old[name][used]
    # a block that is too large now can be given back in parts, as one of unknown order
    too_large = used[new["order"][used] > (HEAD_IN_USE | int(made.zones[0]["max_order"]))]
    new["order"][too_large] = 0
    made.zonelist[:] = tables.zonelist
    for name in _KEPT_ZONE:
        made.zones[name] = tables.zones[name]
    for name in ("nr_failed", "nr_slowpath", "nr_nodes"):
        made.memory[name] = tables.memory[name]
    sizes: Any = ("high", "batch", "cold_high", "cold_batch", "high_min", "high_max")
    for name in sizes:
        made.pageset[name] = tables.pageset[name]
