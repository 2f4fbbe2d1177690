# SPDX-License-Identifier: GPL-2.0-or-later
"""The buddy system proper: splitting blocks to serve a request, recombining them when freed.

Linux: __rmqueue_smallest(), __free_one_page(), buddy_merge_likely(), mm/page_alloc.c (6.1, 6.12);
shuffle_pick_tail(), mm/shuffle.c (6.1)
"""

from physmem.lib.jit import kernel
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
    expand,
    expand_placed,
    put_free,
    take_free,
)
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    NONE,
    PAGE_ALLOC_COSTLY_ORDER,
    Zone,
)
from physmem.mm.pageblock import change_pageblock_range, get_pageblock_migratetype
from physmem.mm.placement import (
    BUILTIN,
    HOOKED_BLOCK,
    HOOKED_LIST_END,
    ON_FREE,
    ON_PICK,
    SHUFFLED,
    TREES,
)
from physmem.mm.policy import ask_block, ask_list_end
from physmem.mm.shuffle import random_bit
from physmem.mm.tracepoint import ZONE_LOCKED, emit
from physmem.mm.tree import pick_in_tree


@kernel
def pcp_allowed_order(zone: Zone, order: int) -> bool:
    """Tell whether blocks of this order go through the per-CPU lists.

    Linux: pcp_allowed_order(), mm/page_alloc.c (6.1)
    """
    if zone.features & HOT_COLD:
        return order == 0
    return order <= PAGE_ALLOC_COSTLY_ORDER or (zone.pcp_thp != 0 and order == zone.pageblock_order)


@kernel
def rmqueue_smallest(zone: Zone, order: int, mt: int) -> int:
    """Take the smallest free block that fits off the lists of `mt`; its first pfn, or NONE.

    Linux: __rmqueue_smallest(), mm/page_alloc.c (6.1)
    """
    if zone.placement & ON_PICK:
        return rmqueue_placed(zone, order, mt)
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
def merge_type(zone: Zone, buddy: int, order: int, mt: int) -> bool:
    """Tell whether a block may merge with its free buddy of a pageblock or more; adapt its type.

    Linux: __free_one_page(), mm/page_alloc.c (6.1, 6.12)
    """
    buddy_mt = get_pageblock_migratetype(zone, buddy)
    if mt != buddy_mt and (mt >= MIGRATE_PCPTYPES or buddy_mt >= MIGRATE_PCPTYPES):
        return False
    if zone.features & LIST_TYPE_IS_BLOCK_TYPE and mt != buddy_mt:
        change_pageblock_range(zone, buddy, order, mt)
    return True


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
    if zone.placement & ON_FREE:
        free_placed(zone, pfn, order, mt, to_tail)
        return
    while order < zone.max_order:
        buddy = pfn ^ (1 << order)
        if zone.mem_map[buddy].order != order + 1 or zone.mem_map[buddy].zone != zone.number:
            break
        barrier = order >= zone.pageblock_order and zone.features & TYPED_BARRIER
        if barrier and not merge_type(zone, buddy, order, mt):
            break
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


# ---- the same with rules of an experimenter (physmem.mm.placement) -------------------------------


@kernel
def take(zone: Zone, pfn: int, order: int, mt: int) -> int:
    """Take the start of a given free block; the frame again.

    The rest stays on its list; but when it is of another type and a pageblock or more, all of it
    becomes the type that asks.
    """
    current = int(zone.mem_map[pfn].order) - 1
    rest = int(zone.mem_map[pfn].mt)
    take_free(zone, pfn, current)
    if rest != mt and current >= zone.pageblock_order:
        change_pageblock_range(zone, pfn, current, mt)
        rest = mt
    expand_placed(zone, pfn, order, current, rest)
    zone.mem_map[pfn].mt = mt
    refill = pcp_allowed_order(zone, order) and mt < MIGRATE_PCPTYPES
    emit(zone, ZONE_LOCKED, pfn, order, mt, int(refill))
    return pfn


@kernel
def rmqueue_placed(zone: Zone, order: int, mt: int) -> int:
    """Take the block that a policy or a tree offers; else the smallest that fits, or NONE."""
    if mt < MIGRATE_PCPTYPES:
        pfn = BUILTIN
        if zone.placement & HOOKED_BLOCK:
            pfn = ask_block(zone, order, mt, 0)
        if pfn == BUILTIN and zone.placement & TREES:
            pfn = pick_in_tree(zone, order, mt)
        if pfn != BUILTIN:
            return NONE if pfn == NONE else take(zone, pfn, order, mt)
    for current in range(order, zone.max_order + 1):
        head = zone.free_area[current].head[mt]
        pfn = int(zone.mem_map[head].next)
        if pfn != head:
            return take(zone, pfn, order, mt)
    return NONE


@kernel
def list_end(zone: Zone, pfn: int, order: int, mt: int) -> bool:
    """Tell whether a freed block goes to TAIL: by a policy, at random, or as the kernel does it."""
    to_tail = zone.features & MERGE_TO_TAIL != 0 and buddy_merge_likely(zone, pfn, order)
    if zone.placement & HOOKED_LIST_END:
        return ask_list_end(zone, pfn, order, mt, to_tail)
    if zone.placement & SHUFFLED and order >= zone.max_order:
        return random_bit(zone)
    return to_tail


@kernel
def free_placed(zone: Zone, pfn: int, order: int, mt: int, to_tail: bool) -> None:
    """Merge a block with its buddies and list it; its frames are counted already."""
    while order < zone.max_order:
        buddy = pfn ^ (1 << order)
        if zone.mem_map[buddy].order != order + 1 or zone.mem_map[buddy].zone != zone.number:
            break
        barrier = order >= zone.pageblock_order and zone.features & TYPED_BARRIER
        if barrier and not merge_type(zone, buddy, order, mt):
            break
        take_free(zone, buddy, order)
        pfn &= buddy
        order += 1
    put_free(zone, pfn, order, mt, to_tail or list_end(zone, pfn, order, mt))
