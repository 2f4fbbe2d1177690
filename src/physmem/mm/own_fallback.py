# SPDX-License-Identifier: GPL-2.0-or-later
"""Other rules for a type without free memory: nothing, a region of its own, or a policy's choice.

Contiguitas (ISCA 2023) keeps unmovable memory in a region of its own, so that all else can be
compacted; here the region is fixed, and pageblocks keep its border: inside they are UNMOVABLE or
RECLAIMABLE, outside MOVABLE.
"""

from physmem.lib.jit import kernel
from physmem.mm.alloc_flags import ALLOC_KSWAPD, ALLOC_NOFRAGMENT
from physmem.mm.donor import can_steal_fallback, find_suitable_fallback, told
from physmem.mm.free_area import expand_placed, take_free
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    NONE,
    ZONE_BOOSTED_WATERMARK,
    Zone,
)
from physmem.mm.pageblock import (
    change_pageblock_range,
    count_free,
    count_movable,
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
    whole_pageblock,
)
from physmem.mm.placement import BUILTIN, CONFINED, HOOKED_CLAIM, HOOKED_FALLBACK, NO_FALLBACK
from physmem.mm.policy import ask_claim, ask_fallback, first_free
from physmem.mm.watermark import boost_watermark


@kernel
def split_off(zone: Zone, pfn: int, order: int, mt: int) -> int:
    """Take the start of a free block, whose rest stays on its list; the frame again."""
    current = int(zone.mem_map[pfn].order) - 1
    donor = int(zone.mem_map[pfn].mt)
    take_free(zone, pfn, current)
    expand_placed(zone, pfn, order, current, donor)
    zone.mem_map[pfn].mt = mt
    return told(zone, pfn, order, mt, current, donor)


@kernel
def take_over(zone: Zone, pfn: int, order: int, mt: int) -> int:
    """Take the start of a free block of at least a pageblock, all of which changes its type."""
    current = int(zone.mem_map[pfn].order) - 1
    donor = int(zone.mem_map[pfn].mt)
    take_free(zone, pfn, current)
    change_pageblock_range(zone, pfn, current, mt)
    expand_placed(zone, pfn, order, current, mt)
    zone.mem_map[pfn].mt = mt
    return told(zone, pfn, order, mt, current, donor)


@kernel
def rmqueue_confined(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Unmovable and reclaimable memory help each other; movable memory enters when all is full."""
    if mt == MIGRATE_MOVABLE:
        if alloc_flags & ALLOC_NOFRAGMENT:
            return NONE
        for current in range(order, zone.max_order + 1):
            donor = find_suitable_fallback(zone, current, mt)
            if donor != NONE:
                return split_off(zone, first_free(zone, current, donor), order, mt)
        return NONE
    other = MIGRATE_RECLAIMABLE if mt == MIGRATE_UNMOVABLE else MIGRATE_UNMOVABLE
    for current in range(zone.max_order, max(zone.pageblock_order, order) - 1, -1):
        pfn = first_free(zone, current, other)
        if pfn != NONE:
            return take_over(zone, pfn, order, mt)
    for current in range(order, zone.pageblock_order):
        pfn = first_free(zone, current, other)
        if pfn != NONE:
            return split_off(zone, pfn, order, mt)
    return NONE


@kernel
def claims(zone: Zone, pfn: int, order: int, mt: int) -> bool:
    """Tell whether the pageblock of a smaller free block is claimed: the policy's word, or ours.

    Ours is that of kernels that claim or steal: at least half of it is free or alike.
    """
    own_type = get_pageblock_migratetype(zone, pfn)
    if own_type >= MIGRATE_PCPTYPES or not whole_pageblock(zone, pfn):
        return False
    if zone.placement & HOOKED_CLAIM:
        answer = ask_claim(zone, pfn, order, mt)
        if answer != BUILTIN:
            return answer == 1
    current = int(zone.mem_map[pfn].order) - 1
    if not can_steal_fallback(zone, current, mt):
        return False
    free = count_free(zone, pfn)
    movable = count_movable(zone, pfn)
    pageblock_nr_pages = 1 << zone.pageblock_order
    alike = 0
    if mt == MIGRATE_MOVABLE:
        alike = movable
    elif own_type == MIGRATE_MOVABLE:
        alike = pageblock_nr_pages - (free + movable)
    return free + alike >= pageblock_nr_pages >> 1 or zone.grouping_disabled != 0


@kernel
def take_chosen(zone: Zone, pfn: int, order: int, mt: int, alloc_flags: int) -> int:
    """Take memory from the block that a policy chose, and the pageblock if it is claimed."""
    current = int(zone.mem_map[pfn].order) - 1
    if current >= zone.pageblock_order:
        return take_over(zone, pfn, order, mt)
    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.zone_flags |= ZONE_BOOSTED_WATERMARK
    if not claims(zone, pfn, order, mt):
        return split_off(zone, pfn, order, mt)
    donor = int(zone.mem_map[pfn].mt)
    move_freepages_block(zone, pfn, mt)
    set_pageblock_migratetype(zone, pfn, mt)
    take_free(zone, pfn, current)
    expand_placed(zone, pfn, order, current, mt)
    zone.mem_map[pfn].mt = mt
    return told(zone, pfn, order, mt, current, donor)


@kernel
def rmqueue_own_fallback(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Memory from another type by rules that are not the kernel's; NONE, or BUILTIN: the kernel's.

    A policy comes first; where it has no opinion, the other rules hold. It cannot move the border
    of a region.
    """
    if zone.placement & HOOKED_FALLBACK and not zone.placement & CONFINED:
        pfn = ask_fallback(zone, order, mt, alloc_flags)
        if pfn == NONE:
            return NONE
        if pfn != BUILTIN:
            return take_chosen(zone, pfn, order, mt, alloc_flags)
        if not zone.placement & NO_FALLBACK:
            return BUILTIN
    if zone.placement & CONFINED:
        return rmqueue_confined(zone, order, mt, alloc_flags)
    return NONE
