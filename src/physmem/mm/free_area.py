# SPDX-License-Identifier: GPL-2.0-or-later
"""The free lists of a zone: one per order and migratetype.

Linux: add_to_free_list(), add_to_free_list_tail(), move_to_free_list(), del_page_from_free_list(),
mm/page_alloc.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.mm.list import list_add, list_add_tail, list_del
from physmem.mm.mmzone import MIGRATE_HIGHATOMIC, Zone


@kernel
def add_to_free_list(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Put a free block at HEAD of its list. Linux: add_to_free_list(), mm/page_alloc.c (6.1)"""
    list_add(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].order = order + 1
    zone.mem_map[pfn].mt = mt
    zone.mem_map[pfn].zone = zone.number
    zone.free_area[order].nr_free += 1


@kernel
def add_to_free_list_tail(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Put a free block at TAIL. Linux: add_to_free_list_tail(), mm/page_alloc.c (6.1)"""
    list_add_tail(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].order = order + 1
    zone.mem_map[pfn].mt = mt
    zone.mem_map[pfn].zone = zone.number
    zone.free_area[order].nr_free += 1


@kernel
def move_to_free_list(zone: Zone, pfn: int, mt: int) -> None:
    """Move a free block to TAIL of the list of another type.

    Linux: move_to_free_list(), mm/page_alloc.c (6.1)
    """
    order = zone.mem_map[pfn].order - 1
    if zone.mem_map[pfn].mt == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic -= 1 << order
    if mt == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic += 1 << order
    list_del(zone, pfn)
    list_add_tail(zone, pfn, zone.free_area[order].head[mt])
    zone.mem_map[pfn].mt = mt


@kernel
def del_page_from_free_list(zone: Zone, pfn: int, order: int) -> None:
    """Take a free block off its list. Linux: del_page_from_free_list(), mm/page_alloc.c (6.1)"""
    list_del(zone, pfn)
    zone.mem_map[pfn].order = 0
    zone.free_area[order].nr_free -= 1
