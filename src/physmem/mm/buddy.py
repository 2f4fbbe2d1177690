# SPDX-License-Identifier: GPL-2.0-or-later
"""The buddy system proper: splitting blocks to serve a request, recombining them when freed.

Linux: __rmqueue_smallest(), expand(), __free_one_page(), buddy_merge_likely(), in
mm/page_alloc.c (6.1, 6.12)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.features import (
    HOT_COLD,
    ISOLATED_IS_FREE,
    LIST_TYPE_IS_BLOCK_TYPE,
    MERGE_TO_TAIL,
    TYPED_BARRIER,
)
from physmem.mm.free_area import (
    add_to_free_list,
    add_to_free_list_tail,
    del_page_from_free_list,
)
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    NONE,
    PAGE_ALLOC_COSTLY_ORDER,
    Zone,
)
from physmem.mm.pageblock import change_pageblock_range, get_pageblock_migratetype
from physmem.mm.tracepoint import ZONE_LOCKED, emit


@kernel
def pcp_allowed_order(zone: Zone, order: int) -> bool:
    """Tell whether blocks of this order go through the per-CPU lists.

    Linux: pcp_allowed_order(), mm/page_alloc.c (6.1)
    """
    if zone.features & HOT_COLD:
        return order == 0
    return order <= PAGE_ALLOC_COSTLY_ORDER or (zone.pcp_thp != 0 and order == zone.pageblock_order)


@inlined
def expand(zone: Zone, pfn: int, low: int, high: int, mt: int) -> None:
    """Give the upper halves of a block back until order `low` is left at its start.

    Linux: expand(), mm/page_alloc.c (6.1)
    """
    while high > low:
        high -= 1
        add_to_free_list(zone, pfn + (1 << high), high, mt)


@kernel
def rmqueue_smallest(zone: Zone, order: int, mt: int) -> int:
    """Take the smallest free block that fits off the lists of `mt`; its first pfn, or NONE.

    Linux: __rmqueue_smallest(), mm/page_alloc.c (6.1)
    """
    for current in range(order, zone.max_order + 1):
        head = zone.free_area[current].head[mt]
        pfn = int(zone.mem_map[head].next)
        if pfn == head:
            continue
        del_page_from_free_list(zone, pfn, current)
        expand(zone, pfn, order, current, mt)
        zone.mem_map[pfn].mt = mt
        refill = pcp_allowed_order(zone, order) and mt < MIGRATE_PCPTYPES
        emit(zone, ZONE_LOCKED, pfn, order, mt, int(refill))
        return pfn
    return NONE


@kernel
def free_one_page(zone: Zone, pfn: int, order: int, mt: int, to_tail: bool) -> None:
    """Free a block: merge it with its buddies while they are free, then list it under `mt`.

    With TYPED_BARRIER only blocks of the three ordinary types merge with each other at or above
    pageblock size; where lists follow pageblocks, the buddy's pageblocks take the type of the freed
    block. With MERGE_TO_TAIL the block goes to TAIL when the buddy of the merged pair is free too:
    it may soon grow further.

    Linux: __free_one_page(), mm/page_alloc.c (6.1)
    """
    if mt != zone.isolate_type or zone.features & ISOLATED_IS_FREE:
        zone.nr_free_pages += 1 << order
        if mt == zone.cma_type:
            zone.nr_free_cma += 1 << order
        elif mt == MIGRATE_HIGHATOMIC:
            zone.nr_free_highatomic += 1 << order
    while order < zone.max_order:
        buddy = pfn ^ (1 << order)
        if zone.mem_map[buddy].order != order + 1 or zone.mem_map[buddy].zone != zone.number:
            break
        if order >= zone.pageblock_order and zone.features & TYPED_BARRIER:
            buddy_mt = get_pageblock_migratetype(zone, buddy)
            if mt != buddy_mt and (mt >= MIGRATE_PCPTYPES or buddy_mt >= MIGRATE_PCPTYPES):
                break
            if zone.features & LIST_TYPE_IS_BLOCK_TYPE and mt != buddy_mt:
                change_pageblock_range(zone, buddy, order, mt)
        del_page_from_free_list(zone, buddy, order)
        pfn &= buddy
        order += 1
    if to_tail or (zone.features & MERGE_TO_TAIL and buddy_merge_likely(zone, pfn, order)):
        add_to_free_list_tail(zone, pfn, order, mt)
    else:
        add_to_free_list(zone, pfn, order, mt)


@kernel
def buddy_merge_likely(zone: Zone, pfn: int, order: int) -> bool:
    """Tell whether the pair of this block and its buddy would find its own buddy free.

    Linux: buddy_merge_likely(), mm/page_alloc.c (6.1)
    """
    if order >= zone.max_order - 1:
        return False
    pair = pfn & ~(1 << order)
    higher = pair ^ (1 << (order + 1))
    return zone.mem_map[higher].order == order + 2 and zone.mem_map[higher].zone == zone.number
