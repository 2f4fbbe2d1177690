# SPDX-License-Identifier: GPL-2.0-or-later
"""Donors: which migratetypes a request may take from when its own lists are empty.

Linux: fallbacks[][], find_suitable_fallback(), can_steal_fallback(), mm/page_alloc.c (6.1; in
another form 2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    NONE,
    Zone,
)
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.tracepoint import EXTFRAG, emit


@kernel
def fallback_type(mt: int, nth: int) -> int:
    """Nth donor of a type: U <- R M, M <- R U, R <- U M.

    Linux: fallbacks[][], mm/page_alloc.c (6.1)
    """
    if mt == MIGRATE_UNMOVABLE:
        return MIGRATE_RECLAIMABLE if nth == 0 else MIGRATE_MOVABLE
    if mt == MIGRATE_MOVABLE:
        return MIGRATE_RECLAIMABLE if nth == 0 else MIGRATE_UNMOVABLE
    return MIGRATE_UNMOVABLE if nth == 0 else MIGRATE_MOVABLE


@kernel
def find_suitable_fallback(zone: Zone, order: int, mt: int) -> int:
    """First donor type with a free block of exactly this order, or NONE.

    Linux: find_suitable_fallback(), mm/page_alloc.c (6.1)
    """
    if zone.free_area[order].nr_free == 0:
        return NONE
    for nth in range(2):
        donor = fallback_type(mt, nth)
        head = zone.free_area[order].head[donor]
        if zone.mem_map[head].next != head:
            return donor
    return NONE


@kernel
def can_steal_fallback(zone: Zone, order: int, mt: int) -> bool:
    """Tell whether a request may move all free memory of the donor's pageblock.

    Linux: can_steal_fallback(), mm/page_alloc.c (6.1)
    """
    return (
        order >= zone.pageblock_order
        or order >= zone.pageblock_order // 2
        or mt == MIGRATE_RECLAIMABLE
        or mt == MIGRATE_UNMOVABLE
        or zone.grouping_disabled != 0
    )


@kernel
def told(zone: Zone, pfn: int, order: int, mt: int, current: int, donor: int) -> int:
    """Count and tell a fallback that gave a frame; the frame again."""
    own = get_pageblock_migratetype(zone, pfn) == mt
    zone.nr_steals += 1
    zone.nr_claims += int(own)
    emit(zone, EXTFRAG, pfn, order, mt, current | donor << 4 | int(own) << 7)
    return pfn
