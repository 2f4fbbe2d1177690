# SPDX-License-Identifier: GPL-2.0-or-later
"""The first fallback: take the largest block of another type at once, and split it.

The larger the donor's block, the longer the two types stay apart. A pageblock that is at least half
free becomes the requester's. What nobody else can serve comes from the reserve.

Linux: __rmqueue_fallback(), mm/page_alloc.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.buddy import expand, rmqueue_smallest
from physmem.mm.donor import find_suitable_fallback
from physmem.mm.free_area import del_page_from_free_list
from physmem.mm.mmzone import MIGRATE_RECLAIMABLE, MIGRATE_RESERVE, NONE, Zone
from physmem.mm.pageblock import (
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
)
from physmem.mm.tracepoint import EXTFRAG, emit


@kernel
def rmqueue_largest(zone: Zone, order: int, start_type: int) -> int:
    """Take the largest block of a donor, or else one of the reserve; its first pfn, or NONE.

    Below half a pageblock's order the rest of the block stays with the donor, unless the request
    is for reclaimable memory. Of a block larger than a pageblock only the first one changes hands.

    Linux: __rmqueue_fallback(), mm/page_alloc.c (2.6.24)
    """
    for current in range(zone.max_order, order - 1, -1):
        donor = find_suitable_fallback(zone, current, start_type)
        if donor == NONE:
            continue
        pfn = int(zone.mem_map[zone.free_area[current].head[donor]].next)
        list_type = donor
        if current >= zone.pageblock_order // 2 or start_type == MIGRATE_RECLAIMABLE:
            moved = move_freepages_block(zone, pfn, start_type)
            if moved >= 1 << (zone.pageblock_order - 1):
                set_pageblock_migratetype(zone, pfn, start_type)
            list_type = start_type
        del_page_from_free_list(zone, pfn, current)
        if current == zone.pageblock_order:
            set_pageblock_migratetype(zone, pfn, start_type)
        expand(zone, pfn, order, current, list_type)
        zone.mem_map[pfn].mt = list_type
        own = get_pageblock_migratetype(zone, pfn) == start_type
        zone.nr_steals += 1
        zone.nr_claims += int(own)
        emit(zone, EXTFRAG, pfn, order, start_type, current | donor << 4 | int(own) << 7)
        return pfn
    return rmqueue_smallest(zone, order, MIGRATE_RESERVE)
