# SPDX-License-Identifier: GPL-2.0-or-later
"""When a list is empty: take from another migratetype, and perhaps the whole pageblock with it.

Linux: __rmqueue(), __rmqueue_fallback(), steal_suitable_fallback(), __rmqueue_cma_fallback(),
mm/page_alloc.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.mm.alloc_flags import ALLOC_CMA, ALLOC_KSWAPD, ALLOC_NOFRAGMENT
from physmem.mm.buddy import rmqueue_smallest
from physmem.mm.donor import can_steal_fallback, find_suitable_fallback, told
from physmem.mm.features import RESERVE_BLOCKS, TAKE_LARGEST
from physmem.mm.free_area import move_to_free_list
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RESERVE,
    NONE,
    ZONE_BOOSTED_WATERMARK,
    Zone,
)
from physmem.mm.own_fallback import rmqueue_own_fallback
from physmem.mm.pageblock import (
    count_movable,
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
)
from physmem.mm.placement import BUILTIN, HOOKED_CLAIM, ON_FALLBACK
from physmem.mm.policy import ask_claim
from physmem.mm.take_largest import rmqueue_largest
from physmem.mm.watermark import boost_watermark


@kernel
def steal_suitable_fallback(
    zone: Zone, pfn: int, alloc_flags: int, start_type: int, whole_block: bool, claim: int
) -> None:
    """Move a donor's block to the requester's lists, with its pageblock when that is allowed.

    `claim`: what a policy says (0, 1 or BUILTIN).

    Linux: steal_suitable_fallback(), mm/page_alloc.c (6.1)
    """
    order = zone.mem_map[pfn].order - 1
    old_type = get_pageblock_migratetype(zone, pfn)
    if old_type == MIGRATE_HIGHATOMIC:
        move_to_free_list(zone, pfn, start_type)
        return
    if order >= zone.pageblock_order:
        for block in range(1 << (order - zone.pageblock_order)):
            set_pageblock_migratetype(zone, pfn + (block << zone.pageblock_order), start_type)
        move_to_free_list(zone, pfn, start_type)
        return
    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.zone_flags |= ZONE_BOOSTED_WATERMARK
    if not whole_block:
        move_to_free_list(zone, pfn, start_type)
        return
    movable = count_movable(zone, pfn)
    moved = move_freepages_block(zone, pfn, start_type)
    pageblock_nr_pages = 1 << zone.pageblock_order
    alike = 0
    if start_type == MIGRATE_MOVABLE:
        alike = movable
    elif old_type == MIGRATE_MOVABLE:
        alike = pageblock_nr_pages - (moved + movable)
    if moved == 0:
        move_to_free_list(zone, pfn, start_type)
        return
    if claim == 1 or moved + alike >= pageblock_nr_pages >> 1 or zone.grouping_disabled:
        set_pageblock_migratetype(zone, pfn, start_type)


@kernel
def fall_back_on(
    zone: Zone, order: int, start_type: int, current: int, donor: int, alloc_flags: int
) -> None:
    """Steal the first block of the donor's list of order `current` and tell it.

    Linux: __rmqueue_fallback() from do_steal on, mm/page_alloc.c (6.1)
    """
    pfn = int(zone.mem_map[zone.free_area[current].head[donor]].next)
    whole_block = can_steal_fallback(zone, current, start_type)
    claim = BUILTIN
    if zone.placement & HOOKED_CLAIM and current < zone.pageblock_order:
        claim = ask_claim(zone, pfn, order, start_type)
        if claim != BUILTIN:
            whole_block = claim == 1
    steal_suitable_fallback(zone, pfn, alloc_flags, start_type, whole_block, claim)
    told(zone, pfn, order, start_type, current, donor)


@kernel
def rmqueue_fallback(zone: Zone, order: int, start_type: int, alloc_flags: int) -> bool:
    """Find the largest donor block; for movable requests too small to claim, the smallest.

    Linux: __rmqueue_fallback(), mm/page_alloc.c (6.1)
    """
    min_order = order
    if order < zone.pageblock_order and alloc_flags & ALLOC_NOFRAGMENT:
        min_order = zone.pageblock_order
    for current in range(zone.max_order, min_order - 1, -1):
        donor = find_suitable_fallback(zone, current, start_type)
        if donor == NONE:
            continue
        if (
            not can_steal_fallback(zone, current, start_type)
            and start_type == MIGRATE_MOVABLE
            and current > order
        ):
            break
        fall_back_on(zone, order, start_type, current, donor, alloc_flags)
        return True
    else:
        return False
    for current in range(order, zone.max_order + 1):
        donor = find_suitable_fallback(zone, current, start_type)
        if donor != NONE:
            fall_back_on(zone, order, start_type, current, donor, alloc_flags)
            return True
    return False


@kernel
def rmqueue(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Take a block of `mt` off the free lists, whatever it costs other types; its pfn or NONE.

    Linux: __rmqueue(), mm/page_alloc.c (6.1)
    """
    may_use_cma = zone.cma_type != NONE and alloc_flags & ALLOC_CMA
    if may_use_cma and zone.nr_free_cma > zone.nr_free_pages // 2:
        pfn = rmqueue_smallest(zone, order, zone.cma_type)
        if pfn != NONE:
            return pfn
    while True:
        pfn = rmqueue_smallest(zone, order, mt)
        if pfn != NONE:
            return pfn
        if may_use_cma:
            pfn = rmqueue_smallest(zone, order, zone.cma_type)
            if pfn != NONE:
                return pfn
        if zone.placement & ON_FALLBACK:
            pfn = rmqueue_own_fallback(zone, order, mt, alloc_flags)
            if pfn == NONE and zone.features & RESERVE_BLOCKS:
                return rmqueue_smallest(zone, order, MIGRATE_RESERVE)
            if pfn != BUILTIN:
                return pfn
        if zone.features & TAKE_LARGEST:
            return rmqueue_largest(zone, order, mt, alloc_flags)
        if not rmqueue_fallback(zone, order, mt, alloc_flags):
            return NONE
