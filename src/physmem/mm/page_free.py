# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back of a block: to the per-CPU list of its type, or straight to the free lists.

Linux: free_unref_page(), free_unref_page_list(), __free_pages_ok(), mm/page_alloc.c (6.1, 6.12)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.buddy import free_one_page, pcp_allowed_order
from physmem.mm.features import FREES_READ_BLOCK_TYPE, HOT_COLD, LIST_TYPE_IS_BLOCK_TYPE
from physmem.mm.hot_cold import free_hot_cold_page
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    NONE,
    PG_IN_USE,
    PG_PREPARED,
    Memory,
    Zone,
)
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.pcp import free_unref_page_commit


@kernel
def page_zone(m: Memory, pfn: int) -> int:
    """Number of the zone of a frame, or NONE outside all zones.

    Linux: page_zone(), include/linux/mm.h
    """
    if pfn < 0 or pfn >= m.max_pfn:
        return NONE
    number = int(m.block_zone[pfn >> m.pageblock_order])
    while number < m.nr_zones:
        if m.zones[number].start_pfn <= pfn < m.zones[number].end_pfn:
            return number
        number += 1  # zones that meet inside a pageblock
    return NONE


@kernel
def is_in_use(zone: Zone, pfn: int, order: int) -> bool:
    """Tell whether all frames of a block are allocated."""
    if pfn & ((1 << order) - 1) or pfn + (1 << order) > zone.end_pfn:
        return False
    for frame in range(pfn, pfn + (1 << order)):
        if not zone.mem_map[frame].flags & PG_IN_USE:
            return False
    return True


@kernel
def free_prepare(zone: Zone, pfn: int, order: int) -> None:
    """Take a block out of use and cache the type of its pageblock.

    Linux: free_unref_page_prepare(), mm/page_alloc.c (6.1)
    """
    for frame in range(pfn, pfn + (1 << order)):
        zone.mem_map[frame].flags = 0
        zone.mem_map[frame].order = 0  # of all: what is freed as one may have been several blocks
    zone.mem_map[pfn].flags = PG_PREPARED
    zone.mem_map[pfn].mt = get_pageblock_migratetype(zone, pfn)


@kernel
def split_large_buddy(zone: Zone, pfn: int, order: int, to_tail: bool) -> None:
    """Free a block of several pageblocks piece by piece, each under its pageblock's type.

    Linux: split_large_buddy(), mm/page_alloc.c (6.12)
    """
    for piece in range(pfn, pfn + (1 << order), 1 << zone.pageblock_order):
        mt = get_pageblock_migratetype(zone, piece)
        free_one_page(zone, piece, zone.pageblock_order, mt, to_tail)


@inlined
def free_commit(zone: Zone, pfn: int, order: int, cpu: int, busy: bool) -> None:
    """Hand a prepared block over: to the per-CPU list, or to the free lists if that is locked.

    Linux: free_unref_page() from the per-CPU lock on, mm/page_alloc.c (6.1.57+)
    """
    mt = int(zone.mem_map[pfn].mt)
    if zone.features & FREES_READ_BLOCK_TYPE:
        mt = get_pageblock_migratetype(zone, pfn)
    zone.mem_map[pfn].flags = 0
    if zone.features & HOT_COLD:
        free_hot_cold_page(zone, pfn, order, cpu, False, busy)
        return
    if busy or mt == zone.isolate_type or not pcp_allowed_order(zone, order):
        if zone.features & LIST_TYPE_IS_BLOCK_TYPE and order > zone.pageblock_order:
            split_large_buddy(zone, pfn, order, False)
        else:
            free_one_page(zone, pfn, order, mt, False)
        return
    list_mt = mt if mt < MIGRATE_PCPTYPES else MIGRATE_MOVABLE
    free_unref_page_commit(zone, zone.pageset[cpu], pfn, order, list_mt)


@kernel
def free_pages(m: Memory, pfn: int, order: int, cpu: int, busy: bool) -> bool:
    """Free 2**order frames; False, and nothing done, when they are not all in use.

    Linux: __free_pages(), free_unref_page(), mm/page_alloc.c (6.1)
    """
    number = page_zone(m, pfn)
    if number == NONE:
        return False
    zone = m.zones[number]
    if not is_in_use(zone, pfn, order):
        return False
    free_prepare(zone, pfn, order)
    free_commit(zone, pfn, order, cpu, busy)
    return True
