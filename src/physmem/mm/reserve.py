# SPDX-License-Identifier: GPL-2.0-or-later
"""MIGRATE_RESERVE: pageblocks at the start of a zone that serve when all else fails.

Small frees to them stay together, so that short-lived requests for more than one frame, which may
not wait, find some memory in one piece.

Linux: setup_zone_migrate_reserve(), mm/page_alloc.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import (
    HEAD_IN_USE,
    MIGRATE_MOVABLE,
    MIGRATE_RESERVE,
    PG_IN_USE,
    WMARK_MIN,
    Zone,
)
from physmem.mm.page_check import enclosing_block
from physmem.mm.pageblock import (
    NO_TYPE,
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
)


@kernel
def is_reserved(zone: Zone, pfn: int) -> bool:
    """Tell whether a frame is in use since boot: no request has ever been given it.

    Linux: PageReserved(), include/linux/page-flags.h
    """
    if not zone.mem_map[pfn].flags & PG_IN_USE or zone.mem_map[pfn].order & HEAD_IN_USE:
        return False
    return enclosing_block(zone, pfn) == pfn


@kernel
def setup_migrate_reserve(zone: Zone) -> None:
    """Reserve as many pageblocks as the min watermark fills; give those that are too many back.

    The lowest MOVABLE pageblocks are taken whose first frame is no reserved one. Of a free block
    that reaches into several pageblocks all or nothing moves: it counts where it begins.

    Linux: setup_zone_migrate_reserve(), mm/page_alloc.c (2.6.24)
    """
    pageblock_nr_pages = 1 << zone.pageblock_order
    wanted = (zone.watermark[WMARK_MIN] + pageblock_nr_pages - 1) >> zone.pageblock_order
    for pfn in range(zone.start_pfn, zone.end_pfn, pageblock_nr_pages):
        mt = get_pageblock_migratetype(zone, pfn)
        if mt == NO_TYPE or (mt != MIGRATE_RESERVE and (wanted <= 0 or mt != MIGRATE_MOVABLE)):
            continue  # nothing to do: a terabyte's frames need not be looked at
        if is_reserved(zone, pfn):
            continue
        if wanted > 0 and mt == MIGRATE_RESERVE:
            wanted -= 1
        elif wanted > 0 and mt == MIGRATE_MOVABLE:
            set_pageblock_migratetype(zone, pfn, MIGRATE_RESERVE)
            move_freepages_block(zone, pfn, MIGRATE_RESERVE)
            wanted -= 1
        elif mt == MIGRATE_RESERVE:
            set_pageblock_migratetype(zone, pfn, MIGRATE_MOVABLE)
            move_freepages_block(zone, pfn, MIGRATE_MOVABLE)
