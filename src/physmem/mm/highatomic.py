# SPDX-License-Identifier: GPL-2.0-or-later
"""The reserve for blocks that cannot wait: MIGRATE_HIGHATOMIC.

Linux: reserve_highatomic_pageblock(), unreserve_highatomic_pageblock(), mm/page_alloc.c (6.1, 6.12)
"""

from physmem.lib.jit import kernel
from physmem.mm.features import HIGHATOMIC_WHOLE_BLOCKS
from physmem.mm.free_area import move_to_free_list
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    NONE,
    Memory,
    Zone,
)
from physmem.mm.pageblock import (
    change_pageblock_range,
    get_pageblock_migratetype,
    move_freepages_block,
    set_pageblock_migratetype,
    whole_pageblock,
)
from physmem.mm.placement import NO_HIGHATOMIC


@kernel
def reserve_highatomic_pageblock(zone: Zone, pfn: int, order: int) -> None:
    """Reserve the pageblock that has just served an atomic request of order > 0.

    Linux: reserve_highatomic_pageblock(), mm/page_alloc.c (6.1)
    """
    if zone.placement & NO_HIGHATOMIC:
        return
    if zone.features & HIGHATOMIC_WHOLE_BLOCKS:
        reserve_whole_blocks(zone, pfn, order)
        return
    pageblock_nr_pages = 1 << zone.pageblock_order
    if zone.nr_reserved_highatomic >= zone.managed_pages // 100 + pageblock_nr_pages:
        return
    if get_pageblock_migratetype(zone, pfn) < MIGRATE_PCPTYPES:
        zone.nr_reserved_highatomic += pageblock_nr_pages
        set_pageblock_migratetype(zone, pfn, MIGRATE_HIGHATOMIC)
        move_freepages_block(zone, pfn, MIGRATE_HIGHATOMIC)


@kernel
def reserve_whole_blocks(zone: Zone, pfn: int, order: int) -> None:
    """Reserve every pageblock of a block; none where 1 % of the zone is less than one.

    Linux: reserve_highatomic_pageblock(), mm/page_alloc.c (6.12)
    """
    pageblock_nr_pages = 1 << zone.pageblock_order
    share = zone.managed_pages // 100
    if share < pageblock_nr_pages:
        return
    most = (share + pageblock_nr_pages - 1) >> zone.pageblock_order << zone.pageblock_order
    if zone.nr_reserved_highatomic >= most:
        return
    if get_pageblock_migratetype(zone, pfn) >= MIGRATE_PCPTYPES:
        return
    if order >= zone.pageblock_order:
        change_pageblock_range(zone, pfn, order, MIGRATE_HIGHATOMIC)
        zone.nr_reserved_highatomic += 1 << order
    elif whole_pageblock(zone, pfn):
        move_freepages_block(zone, pfn, MIGRATE_HIGHATOMIC)
        set_pageblock_migratetype(zone, pfn, MIGRATE_HIGHATOMIC)
        zone.nr_reserved_highatomic += pageblock_nr_pages


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
        if order >= zone.pageblock_order and zone.features & HIGHATOMIC_WHOLE_BLOCKS:
            zone.nr_reserved_highatomic -= min(1 << order, zone.nr_reserved_highatomic)
            move_to_free_list(zone, pfn, mt)
            change_pageblock_range(zone, pfn, order, mt)
            return True
        if get_pageblock_migratetype(zone, pfn) == MIGRATE_HIGHATOMIC:
            zone.nr_reserved_highatomic -= min(pageblock_nr_pages, zone.nr_reserved_highatomic)
        set_pageblock_migratetype(zone, pfn, mt)
        if move_freepages_block(zone, pfn, mt) > 0:
            return True
    return False


@kernel
def unreserve_highatomic(
    m: Memory, preferred: int, highest_zoneidx: int, mt: int, only_node: int
) -> bool:
    """Give back a reserved pageblock of any zone of a request's zonelist, its last one too.

    Parameters
    ----------
    preferred : position in the zonelist where the request began
    only_node : node of a request that may not go elsewhere, or NONE

    Linux: unreserve_highatomic_pageblock(), should_reclaim_retry(), mm/page_alloc.c (6.1)
    """
    for at in range(preferred, (preferred // m.nr_zones + 1) * m.nr_zones):
        number = m.zonelist[at].zone
        if number == NONE:
            break
        zone = m.zones[number]
        if m.zonelist[at].zone_idx > highest_zoneidx:
            continue
        if only_node != NONE and only_node != zone.node:
            continue
        if unreserve_highatomic_pageblock(zone, mt, True):
            return True
    return False
