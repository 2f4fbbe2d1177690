# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing what a machine's free memory is, all at once: types of ranges, lists as a whole.

No kernel does this; an experimenter does, before a workload. Lists must be in the kernel's own
order meanwhile (`machine.placement` takes care).
"""

from physmem.lib.jit import kernel
from physmem.mm.address_order import add_in_order, start_maps
from physmem.mm.free_area import count_in_tree, leave_run, run_length
from physmem.mm.list import list_add_tail, list_del, list_init
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import (
    HEAD_IN_USE,
    HEAD_ON_PCP,
    MIGRATE_PCPTYPES,
    MIGRATE_TYPES,
    NONE,
    Zone,
)
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.shuffle import shuffle_zone


@kernel
def join_lists(zone: Zone, order: int, donor: int, mt: int) -> None:
    """Put all members of one list behind those of another one, in their order."""
    head = zone.free_area[order].head[donor]
    pfn = int(zone.mem_map[head].next)
    while pfn != head:
        list_del(zone, pfn)
        list_add_tail(zone, pfn, zone.free_area[order].head[mt])
        zone.mem_map[pfn].mt = mt
        pfn = int(zone.mem_map[head].next)


@kernel
def do_join(h: int, number: int, donor: int, mt: int) -> None:
    """Make free memory of one type another type: lists only, pageblocks stay as they are."""
    zone = memory_at(h).zones[number]
    for order in range(zone.max_order + 1):
        join_lists(zone, order, donor, mt)


@kernel
def move_free(zone: Zone, start: int, end: int, donors: int, mt: int) -> None:
    """Move free blocks that begin in [start, end) and are of a type below `donors` to `mt`, TAIL.

    The order of those that have the type already stays.
    """
    largest = (1 << zone.max_order) - 1
    pfn = start
    while pfn < end:
        if pfn & largest == 0:
            leave_run(zone, pfn)
        mark = int(zone.mem_map[pfn].order)
        if mark == 0:
            pfn += 1
        elif mark & (HEAD_IN_USE | HEAD_ON_PCP):
            pfn += 1 << (mark & 0x3F)
        else:
            old = int(zone.mem_map[pfn].mt)
            if zone.mem_map[pfn].zone == zone.number and old < donors and old != mt:
                if mark == zone.max_order + 1:
                    leave_run(zone, pfn + (1 << zone.max_order))
                list_del(zone, pfn)
                list_add_tail(zone, pfn, zone.free_area[mark - 1].head[mt])
                zone.mem_map[pfn].mt = mt
            pfn += 1 << (mark - 1)


@kernel
def do_retype(h: int, number: int, start: int, end: int, mt: int) -> None:
    """Make all ordinary pageblocks of [start, end) of one type, and what is free of them."""
    zone = memory_at(h).zones[number]
    size = 1 << zone.pageblock_order
    for pageblock in range(start >> zone.pageblock_order << zone.pageblock_order, end, size):
        first = max(pageblock, zone.start_pfn)
        if get_pageblock_migratetype(zone, first) < MIGRATE_PCPTYPES:
            zone.pageblock_flags[(first >> zone.pageblock_order) - zone.first_block] = mt
            move_free(zone, first, min(pageblock + size, zone.end_pfn), MIGRATE_PCPTYPES, mt)


@kernel
def do_start_maps(h: int, number: int) -> int:
    """`start_maps` of one zone: words that its maps need."""
    return start_maps(memory_at(h).zones[number])


@kernel
def do_sort(h: int, number: int) -> None:
    """Bring every free list of a zone into the order of addresses, and fill its (empty) maps."""
    zone = memory_at(h).zones[number]
    for order in range(zone.max_order + 1):
        for mt in range(MIGRATE_TYPES):
            head = zone.free_area[order].head[mt]
            pfn = int(zone.mem_map[head].next)
            list_init(zone, head)
            while pfn != head:
                after = int(zone.mem_map[pfn].next)
                add_in_order(zone, pfn, order, mt)
                pfn = after


@kernel
def do_count_trees(h: int, number: int) -> None:
    """Count the free frames of each tree (all counters 0 before)."""
    zone = memory_at(h).zones[number]
    for order in range(zone.max_order + 1):
        for mt in range(MIGRATE_PCPTYPES):
            head = zone.free_area[order].head[mt]
            pfn = int(zone.mem_map[head].next)
            while pfn != head:
                for block in range(run_length(zone, pfn)):
                    count_in_tree(zone, pfn + (block << order), mt, 1 << order)
                pfn = int(zone.mem_map[pfn].next)


@kernel
def do_forget_trees(h: int, number: int) -> None:
    """Let no CPU be at work in a tree."""
    zone = memory_at(h).zones[number]
    for slot in range(len(zone.tree_at)):
        zone.tree_at[slot] = NONE


@kernel
def do_shuffle(h: int, number: int, seed: int) -> None:
    """`shuffle_zone` of one zone, with a generator of its own."""
    zone = memory_at(h).zones[number]
    zone.random = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1)
    shuffle_zone(zone)
