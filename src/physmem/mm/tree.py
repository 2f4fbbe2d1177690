# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees: each CPU fills a stretch of 8 pageblocks at a time, one for each type.

A simple version of the reservations of LLFree (ATC 2023): a tree counts its free frames; a CPU
that needs memory goes through its tree from the lowest frame on, and takes another one when it is
used up: a half-full one rather than a full or an empty one. So trees fill up or run empty, whole
pageblocks become free again, and no list says which block is next.

Only free memory of the three ordinary types counts. Requests of a pageblock and more, and those
that no tree can serve soon, are served from the lists.
"""

from physmem.lib.jit import kernel
from physmem.mm.free_area import leave_run
from physmem.mm.mmzone import (
    HEAD_IN_USE,
    HEAD_ON_PCP,
    MIGRATE_PCPTYPES,
    NONE,
    Zone,
)
from physmem.mm.placement import BUILTIN

TREE_BLOCKS_ORDER = 3
"""log2 of the pageblocks of a tree."""
MOST_TREES_TRIED = 8
_ORDER_BITS = 0x3F


@kernel
def block_in(zone: Zone, pfn: int, end: int, order: int) -> int:
    """First free block of at least `order` that begins in [pfn, end), or NONE.

    Each step goes over a whole block, where its head tells its size.
    """
    largest = (1 << zone.max_order) - 1
    while pfn < end:
        mark = int(zone.mem_map[pfn].order)
        if mark == 0:
            if pfn & largest == 0 and zone.mem_map[pfn].flags == 0:
                leave_run(zone, pfn)
                if zone.mem_map[pfn].order:
                    continue
            pfn += 1
        elif mark & (HEAD_IN_USE | HEAD_ON_PCP):
            pfn += 1 << (mark & _ORDER_BITS)
        else:
            fits = mark > order and zone.mem_map[pfn].mt < MIGRATE_PCPTYPES
            if fits and zone.mem_map[pfn].zone == zone.number:
                return pfn
            pfn += 1 << (mark - 1)
    return NONE


@kernel
def tree_start(zone: Zone, tree: int) -> int:
    """First frame of a tree that is in the zone."""
    return max(((zone.start_pfn >> zone.tree_order) + tree) << zone.tree_order, zone.start_pfn)


@kernel
def tree_end(zone: Zone, tree: int) -> int:
    """First frame behind a tree, within the zone."""
    return min(((zone.start_pfn >> zone.tree_order) + tree + 1) << zone.tree_order, zone.end_pfn)


@kernel
def tree_of(zone: Zone, pfn: int) -> int:
    """Number of a frame's tree."""
    return (pfn >> zone.tree_order) - (zone.start_pfn >> zone.tree_order)


@kernel
def fullness(zone: Zone, tree: int) -> int:
    """How welcome a tree is, by what is free of it: the less the better, as long as it lasts.

    0: up to half; 1: more; 2: all; 3: next to nothing; NONE: nothing.
    """
    free = zone.tree_free[tree]
    size = tree_end(zone, tree) - tree_start(zone, tree)
    if free == 0:
        return NONE
    if free == size:
        return 2
    if free <= size >> 4:
        return 3
    return 0 if free <= size >> 1 else 1


@kernel
def is_taken(zone: Zone, tree: int, own: int) -> bool:
    """Tell whether a tree is being filled for another CPU or type."""
    for slot in range(len(zone.tree_at)):
        at = zone.tree_at[slot]
        if slot != own and at != NONE and tree_of(zone, at) == tree:
            return True
    return False


@kernel
def next_tree(zone: Zone, after: int, tried: int, own: int) -> int:
    """Most welcome tree, the first one behind `after`; `tried` trees come before it. Or NONE."""
    nr = len(zone.tree_free)
    for wanted in range(4):
        for step in range(1, nr + 1):
            tree = (after + step) % nr
            if fullness(zone, tree) == wanted and not is_taken(zone, tree, own):
                if tried == 0:
                    return tree
                tried -= 1
    return NONE


@kernel
def pick_in_tree(zone: Zone, order: int, mt: int) -> int:
    """Free block of at least `order` in the tree of the CPU and type; BUILTIN: none was found."""
    if order >= zone.pageblock_order:
        return BUILTIN
    own = zone.this_cpu * MIGRATE_PCPTYPES + mt
    at = zone.tree_at[own]
    if at != NONE:
        # a frame at the end of a tree belongs to the next one: `at` stays inside
        tree = tree_of(zone, at)
        if zone.tree_free[tree] >= 1 << order:
            end = tree_end(zone, tree)
            pfn = block_in(zone, at, end, order)
            if pfn == NONE and zone.tree_free[tree] > (end - tree_start(zone, tree)) >> 6:
                pfn = block_in(zone, tree_start(zone, tree), at, order)
            if pfn != NONE:
                zone.tree_at[own] = pfn
                return pfn
    else:
        tree = 0
    for tried in range(MOST_TREES_TRIED):
        other = next_tree(zone, tree, tried, own)
        if other == NONE:
            break
        pfn = block_in(zone, tree_start(zone, other), tree_end(zone, other), order)
        if pfn != NONE:
            zone.tree_at[own] = pfn
            return pfn
    return BUILTIN
