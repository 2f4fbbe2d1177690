# SPDX-License-Identifier: GPL-2.0-or-later
"""The first fallback: take the largest block of another type at once, and split it.

The larger the donor's block, the longer the two types stay apart. A pageblock that is at least half
free becomes the requester's. What nobody else can serve comes from the reserve.

Linux: __rmqueue_fallback(), mm/page_alloc.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.alloc_flags import ALLOC_NOFRAGMENT
from physmem.mm.buddy import rmqueue_smallest
from physmem.mm.donor import find_suitable_fallback, told
from physmem.mm.free_area import expand_placed, take_free
from physmem.mm.mmzone import MIGRATE_RECLAIMABLE, MIGRATE_RESERVE, NONE, Zone
from physmem.mm.pageblock import (
    move_freepages_block,
    set_pageblock_migratetype,
)
from physmem.mm.placement import BUILTIN, HOOKED_CLAIM
from physmem.mm.policy import ask_claim


@kernel
def rmqueue_largest(zone: Zone, order: int, start_type: int, alloc_flags: int) -> int:
    """Take the largest block of a donor, or else one of the reserve; its first pfn, or NONE.

    Below half a pageblock's order the rest of the block stays with the donor, unless the request
    is for reclaimable memory. Of a block larger than a pageblock only the first one changes hands.
    ALLOC_NOFRAGMENT, which this kernel does not know, leaves smaller blocks than pageblocks alone.

    Linux: __rmqueue_fallback(), mm/page_alloc.c (2.6.24)
    """
    least = order
    if alloc_flags & ALLOC_NOFRAGMENT and order < zone.pageblock_order:
        least = zone.pageblock_order
    for current in range(zone.max_order, least - 1, -1):
        donor = find_suitable_fallback(zone, current, start_type)
        if donor == NONE:
            continue
        pfn = int(zone.mem_map[zone.free_area[current].head[donor]].next)
        list_type = donor
        whole_block = current >= zone.pageblock_order // 2 or start_type == MIGRATE_RECLAIMABLE
        claim = BUILTIN
        if zone.placement & HOOKED_CLAIM and current < zone.pageblock_order:
            claim = ask_claim(zone, pfn, order, start_type)
            if claim != BUILTIN:
                whole_block = claim == 1
        if whole_block:
            moved = move_freepages_block(zone, pfn, start_type)
            if moved and (claim == 1 or moved >= 1 << (zone.pageblock_order - 1)):
                set_pageblock_migratetype(zone, pfn, start_type)
            list_type = start_type
        take_free(zone, pfn, current)
        if current == zone.pageblock_order:
            set_pageblock_migratetype(zone, pfn, start_type)
        expand_placed(zone, pfn, order, current, list_type)
        zone.mem_map[pfn].mt = list_type
        return told(zone, pfn, order, start_type, current, donor)
    return rmqueue_smallest(zone, order, MIGRATE_RESERVE)
