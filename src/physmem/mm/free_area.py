# SPDX-License-Identifier: GPL-2.0-or-later
"""The free lists of a zone: one per order and migratetype.

Untouched memory is thousands of neighbouring blocks of the largest order, one behind the other on
one list. Such a run is one member: its first block, whose `private` counts the blocks that follow;
nothing is written in those, so that a terabyte costs no more than a gigabyte. A block that leaves
its list leaves the rest of its run in its place. (Blocks of the largest order have no buddy, so
nothing ever looks for the others.)

Where a list is kept in another order than the kernel's, or free memory is counted by place
(`placement.ON_LISTS`), blocks come and go by `put_free`, `take_free` and `expand_placed`; where
nothing of the sort is set, these do the same as the kernel's own, which the fast paths use.

Linux: add_to_free_list(), add_to_free_list_tail(), move_to_free_list(), del_page_from_free_list(),
expand(), mm/page_alloc.c (6.1)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.address_order import add_in_order, forget_member, note_member
from physmem.mm.features import MOVE_TO_TAIL
from physmem.mm.list import list_add, list_add_tail, list_del
from physmem.mm.mmzone import MIGRATE_HIGHATOMIC, MIGRATE_PCPTYPES, MIGRATE_TYPES, Zone
from physmem.mm.placement import ADDRESS_ORDER, FIFO, LIFO, ON_LISTS, TREES


@kernel
def count_in_tree(zone: Zone, pfn: int, mt: int, frames: int) -> None:
    """Count free frames of a tree up or down."""
    if mt < MIGRATE_PCPTYPES:
        zone.tree_free[(pfn >> zone.tree_order) - (zone.start_pfn >> zone.tree_order)] += frames


@kernel
def enlist(zone: Zone, pfn: int, order: int, mt: int, to_tail: bool) -> None:
    """Link a free block where the machine's own rules want it; `to_tail`: where the kernel does."""
    if zone.placement & ADDRESS_ORDER:
        add_in_order(zone, pfn, order, mt)
    elif zone.placement & FIFO or (to_tail and not zone.placement & LIFO):
        list_add_tail(zone, pfn, zone.free_area[order].head[mt])
    else:
        list_add(zone, pfn, zone.free_area[order].head[mt])
    if zone.placement & TREES:
        count_in_tree(zone, pfn, mt, 1 << order)


@kernel
def delist(zone: Zone, pfn: int, order: int) -> None:
    """Note that a block, still marked, leaves its list."""
    mt = int(zone.mem_map[pfn].mt)
    if zone.placement & ADDRESS_ORDER:
        forget_member(zone, pfn, order, mt)
    if zone.placement & TREES:
        count_in_tree(zone, pfn, mt, -(1 << order))


@kernel
def add_to_free_list(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Put a free block at HEAD of its list. Linux: add_to_free_list(), mm/page_alloc.c (6.1)"""
    list_add(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].order = order + 1
    zone.mem_map[pfn].mt = mt
    zone.mem_map[pfn].zone = zone.number
    zone.mem_map[pfn].private = 0
    zone.free_area[order].nr_free += 1


@kernel
def add_to_free_list_tail(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Put a free block at TAIL. Linux: add_to_free_list_tail(), mm/page_alloc.c (6.1)"""
    list_add_tail(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].order = order + 1
    zone.mem_map[pfn].mt = mt
    zone.mem_map[pfn].zone = zone.number
    zone.mem_map[pfn].private = 0
    zone.free_area[order].nr_free += 1


@kernel
def split_run(zone: Zone, pfn: int, order: int) -> None:
    """Make the first block of a run stand alone, the next one the first of the rest."""
    follow = int(zone.mem_map[pfn].private)
    if order != zone.max_order or follow == 0:
        return
    rest = pfn + (1 << order)
    list_add(zone, rest, pfn)
    zone.mem_map[rest].order = order + 1
    zone.mem_map[rest].mt = zone.mem_map[pfn].mt
    zone.mem_map[rest].zone = zone.number
    zone.mem_map[rest].private = follow - 1
    zone.mem_map[pfn].private = 0
    if zone.placement & ADDRESS_ORDER:
        note_member(zone, rest, order, int(zone.mem_map[pfn].mt))


@kernel
def run_length(zone: Zone, pfn: int) -> int:
    """Free blocks that a member of a list stands for: 1, or more for the first of a run."""
    if zone.mem_map[pfn].order != zone.max_order + 1:
        return 1
    return 1 + int(zone.mem_map[pfn].private)


@kernel
def leave_run(zone: Zone, pfn: int) -> None:
    """Let the block of the largest order around a frame stand alone, if it is inside a run.

    Needed where pageblocks are visited by their place, not by way of a list.
    """
    block = pfn >> zone.max_order << zone.max_order
    # only inside a run does a block begin with a frame that is neither free nor in use
    if block < zone.start_pfn or zone.mem_map[block].order != 0 or zone.mem_map[block].flags != 0:
        return
    for mt in range(MIGRATE_TYPES):
        head = zone.free_area[zone.max_order].head[mt]
        run = int(zone.mem_map[head].next)
        while run != head:
            before = (block - run) >> zone.max_order
            if 0 < before < run_length(zone, run):
                list_add(zone, block, run)
                zone.mem_map[block].order = zone.max_order + 1
                zone.mem_map[block].mt = mt
                zone.mem_map[block].zone = zone.number
                zone.mem_map[block].private = zone.mem_map[run].private - before
                zone.mem_map[run].private = before - 1
                if zone.placement & ADDRESS_ORDER:
                    note_member(zone, block, zone.max_order, mt)
                split_run(zone, block, zone.max_order)
                return
            run = int(zone.mem_map[run].next)


@kernel
def move_to_free_list(zone: Zone, pfn: int, mt: int) -> None:
    """Move a free block to TAIL (without MOVE_TO_TAIL to HEAD) of the list of another type.

    Linux: move_to_free_list(), mm/page_alloc.c (6.1)
    """
    order = zone.mem_map[pfn].order - 1
    split_run(zone, pfn, order)
    if zone.mem_map[pfn].mt == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic -= 1 << order
    if mt == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic += 1 << order
    list_del(zone, pfn)
    if zone.placement & ON_LISTS:
        delist(zone, pfn, order)
        enlist(zone, pfn, order, mt, zone.features & MOVE_TO_TAIL != 0)
    elif zone.features & MOVE_TO_TAIL:
        list_add_tail(zone, pfn, zone.free_area[order].head[mt])
    else:
        list_add(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].mt = mt


@kernel
def del_page_from_free_list(zone: Zone, pfn: int, order: int) -> None:
    """Take a free block off its list. Linux: del_page_from_free_list(), mm/page_alloc.c (6.1)"""
    split_run(zone, pfn, order)
    list_del(zone, pfn)
    zone.mem_map[pfn].order = 0
    zone.free_area[order].nr_free -= 1


@inlined
def expand(zone: Zone, pfn: int, low: int, high: int, mt: int) -> None:
    """Give the upper halves of a block back until order `low` is left at its start.

    Linux: expand(), mm/page_alloc.c (6.1)
    """
    while high > low:
        high -= 1
        add_to_free_list(zone, pfn + (1 << high), high, mt)


@kernel
def put_free(zone: Zone, pfn: int, order: int, mt: int, to_tail: bool) -> None:
    """Put a free block on its list, where the machine's own rules want it."""
    enlist(zone, pfn, order, mt, to_tail)
    zone.mem_map[pfn].order = order + 1
    zone.mem_map[pfn].mt = mt
    zone.mem_map[pfn].zone = zone.number
    zone.mem_map[pfn].private = 0
    zone.free_area[order].nr_free += 1


@kernel
def take_free(zone: Zone, pfn: int, order: int) -> None:
    """Take a free block off its list."""
    if zone.placement & ON_LISTS:
        delist(zone, pfn, order)
    del_page_from_free_list(zone, pfn, order)


@kernel
def expand_placed(zone: Zone, pfn: int, low: int, high: int, mt: int) -> None:
    """Give the upper halves of a block back, as `expand` does."""
    while high > low:
        high -= 1
        put_free(zone, pfn + (1 << high), high, mt, False)
