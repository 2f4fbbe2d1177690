# SPDX-License-Identifier: GPL-2.0-or-later
"""Donors: which migratetypes a request may take from when its own lists are empty.

Linux: fallbacks[][], find_suitable_fallback(), mm/page_alloc.c (6.1; in another form 2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    NONE,
    Zone,
)


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
