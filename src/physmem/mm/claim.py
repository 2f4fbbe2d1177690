# SPDX-License-Identifier: GPL-2.0-or-later
"""Fallback where lists follow pageblocks: claim whole pageblocks first, steal one block at last.

Linux: __rmqueue(), __rmqueue_claim(), try_to_claim_block(), __rmqueue_steal(), mm/page_alloc.c
(6.12.29 and later 6.12.y, 6.15)

A claim begins at the largest order: the pageblock of the first block there is taken over when at
least half of it is free or alike; otherwise nothing moves, and the next order is tried. A steal
begins at the smallest order: it splits one block and leaves the rest to the donor. A refill keeps
in mind where it found its last block, so that it does not search in vain for each frame.
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.alloc_flags import ALLOC_CMA, ALLOC_KSWAPD, ALLOC_NOFRAGMENT
from physmem.mm.buddy import rmqueue_smallest
from physmem.mm.donor import can_steal_fallback, find_suitable_fallback, told
from physmem.mm.free_area import expand_placed, take_free
from physmem.mm.mmzone import MIGRATE_MOVABLE, NONE, ZONE_BOOSTED_WATERMARK, Zone
from physmem.mm.own_fallback import rmqueue_own_fallback
from physmem.mm.pageblock import (
    change_pageblock_range,
    count_free,
    count_movable,
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
    whole_pageblock,
)
from physmem.mm.placement import BUILTIN, HOOKED_CLAIM, ON_FALLBACK
from physmem.mm.policy import ask_claim
from physmem.mm.watermark import boost_watermark

RMQUEUE_NORMAL = 0
"""Where the search for a block begins: at the lists of its own type ..."""
RMQUEUE_CMA = 1
RMQUEUE_STEAL = 3
MODE_BITS = 2
"""The lowest bits of what `rmqueue_by_mode` returns."""


@kernel
def try_to_claim_block(
    zone: Zone, pfn: int, current: int, order: int, mt: int, alloc_flags: int
) -> int:
    """Take over the pageblock of a free block of order `current`; a block of `order`, or NONE.

    Linux: try_to_claim_block(), mm/page_alloc.c (6.12.29+)
    """
    if current >= zone.pageblock_order:
        take_free(zone, pfn, current)
        change_pageblock_range(zone, pfn, current, mt)
        expand_placed(zone, pfn, order, current, mt)
        zone.mem_map[pfn].mt = mt
        return pfn
    block_type = get_pageblock_migratetype(zone, pfn)
    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.zone_flags |= ZONE_BOOSTED_WATERMARK
    if not whole_pageblock(zone, pfn):
        return NONE
    free = count_free(zone, pfn)
    movable = count_movable(zone, pfn)
    pageblock_nr_pages = 1 << zone.pageblock_order
    alike = 0
    if mt == MIGRATE_MOVABLE:
        alike = movable
    elif block_type == MIGRATE_MOVABLE:
        alike = pageblock_nr_pages - (free + movable)
    enough = free + alike >= pageblock_nr_pages >> 1 or zone.grouping_disabled != 0
    if zone.placement & HOOKED_CLAIM:
        answer = ask_claim(zone, pfn, order, mt)
        if answer != BUILTIN:
            enough = answer == 1
    if not enough:
        return NONE
    move_freepages_block(zone, pfn, mt)
    set_pageblock_migratetype(zone, pfn, mt)
    return rmqueue_smallest(zone, order, mt)


@kernel
def rmqueue_claim(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Take over a pageblock, the one with the largest free block first; a block of it, or NONE.

    Linux: __rmqueue_claim(), mm/page_alloc.c (6.12.29+)
    """
    least = order
    if order < zone.pageblock_order and alloc_flags & ALLOC_NOFRAGMENT:
        least = zone.pageblock_order
    for current in range(zone.max_order, least - 1, -1):
        donor = find_suitable_fallback(zone, current, mt)
        if donor == NONE:
            continue
        if not can_steal_fallback(zone, current, mt):
            break
        head = int(zone.mem_map[zone.free_area[current].head[donor]].next)
        pfn = try_to_claim_block(zone, head, current, order, mt, alloc_flags)
        if pfn != NONE:
            return told(zone, pfn, order, mt, current, donor)
    return NONE


@kernel
def rmqueue_steal(zone: Zone, order: int, mt: int) -> int:
    """Split the smallest block of another type that fits; the rest stays with its type.

    Linux: __rmqueue_steal(), mm/page_alloc.c (6.12.29+)
    """
    for current in range(order, zone.max_order + 1):
        donor = find_suitable_fallback(zone, current, mt)
        if donor == NONE:
            continue
        pfn = int(zone.mem_map[zone.free_area[current].head[donor]].next)
        take_free(zone, pfn, current)
        expand_placed(zone, pfn, order, current, donor)
        zone.mem_map[pfn].mt = donor
        return told(zone, pfn, order, mt, current, donor)
    return NONE


@inlined
def rmqueue_by_mode(zone: Zone, order: int, mt: int, alloc_flags: int, mode: int) -> int:
    """Take a block off the free lists, the search beginning at `mode`.

    Returns
    -------
    int
        pfn << MODE_BITS | where the next search of the same refill begins; NONE: no block.

    Linux: __rmqueue(), mm/page_alloc.c (6.12.29+)
    """
    may_use_cma = zone.cma_type != NONE and alloc_flags & ALLOC_CMA
    if may_use_cma and zone.nr_free_cma > zone.nr_free_pages // 2:
        pfn = rmqueue_smallest(zone, order, zone.cma_type)
        if pfn != NONE:
            return pfn << MODE_BITS | mode
    if mode == RMQUEUE_NORMAL:
        pfn = rmqueue_smallest(zone, order, mt)
        if pfn != NONE:
            return pfn << MODE_BITS
    if mode <= RMQUEUE_CMA and may_use_cma:
        pfn = rmqueue_smallest(zone, order, zone.cma_type)
        if pfn != NONE:
            return pfn << MODE_BITS | RMQUEUE_CMA
    if zone.placement & ON_FALLBACK:
        pfn = rmqueue_own_fallback(zone, order, mt, alloc_flags)
        if pfn != BUILTIN:
            return pfn if pfn == NONE else pfn << MODE_BITS
    if mode < RMQUEUE_STEAL:
        pfn = rmqueue_claim(zone, order, mt, alloc_flags)
        if pfn != NONE:
            return pfn << MODE_BITS
    if not alloc_flags & ALLOC_NOFRAGMENT:
        pfn = rmqueue_steal(zone, order, mt)
        if pfn != NONE:
            return pfn << MODE_BITS | RMQUEUE_STEAL
    return NONE


@kernel
def rmqueue_claiming(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Take one block off the free lists, whatever it costs other types; its pfn or NONE.

    Linux: __rmqueue(), mm/page_alloc.c (6.12.29+)
    """
    return rmqueue_by_mode(zone, order, mt, alloc_flags, RMQUEUE_NORMAL) >> MODE_BITS
