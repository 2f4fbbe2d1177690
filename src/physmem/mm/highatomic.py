# SPDX-License-Identifier: GPL-2.0-or-later
"""The reserve for blocks that cannot wait: MIGRATE_HIGHATOMIC.

Linux: reserve_highatomic_pageblock(), unreserve_highatomic_pageblock(), mm/page_alloc.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    Zone,
)
from physmem.mm.pageblock import (
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
)


@kernel
def reserve_highatomic_pageblock(zone: Zone, pfn: int) -> None:
    """Reserve the pageblock that has just served an atomic request of order > 0.

    Linux: reserve_highatomic_pageblock(), mm/page_alloc.c (6.1)
    """
    pageblock_nr_pages = 1 << zone.pageblock_order
    if zone.nr_reserved_highatomic >= zone.managed_pages // 100 + pageblock_nr_pages:
        return
    if get_pageblock_migratetype(zone, pfn) < MIGRATE_PCPTYPES:
        zone.nr_reserved_highatomic += pageblock_nr_pages
        set_pageblock_migratetype(zone, pfn, MIGRATE_HIGHATOMIC)
        move_freepages_block(zone, pfn, MIGRATE_HIGHATOMIC)


@kernel
def unreserve_highatomic_pageblock(zone: Zone, mt: int, force: bool) -> bool:
    """Give one reserved pageblock with free memory to the type of the request in need.

    Linux: unreserve_highatomic_pageblock(), mm/page_alloc.c (6.1)
    """
    pageblock_nr_pages = 1 << zone.pageblock_order
    if not force and zone.nr_reserved_highatomic <= pageblock_nr_pages:
        return False
    for order in range(zone.max_order + 1):
        head = zone.free_area[order].head[MIGRATE_HIGHATOMIC]
        pfn = int(zone.mem_map[head].next)
        if pfn == head:
            continue
        if get_pageblock_migratetype(zone, pfn) == MIGRATE_HIGHATOMIC:
            zone.nr_reserved_highatomic -= min(pageblock_nr_pages, zone.nr_reserved_highatomic)
        set_pageblock_migratetype(zone, pfn, mt)
        if move_freepages_block(zone, pfn, mt) > 0:
            return True
    return False
