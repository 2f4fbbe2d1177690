# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory comes from the boot allocator to the free lists: in the largest blocks, at TAIL.

Linux: __free_pages_memory(), mm/memblock.c; __free_pages_core(), deferred_free_range(),
free_reserved_area(), mm/page_alloc.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64, u8
from physmem.mm.buddy import free_one_page
from physmem.mm.free_area import run_length
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE, PG_IN_USE, RUN_DOWN, Zone
from physmem.mm.page_free import free_pages, page_zone
from physmem.mm.pageblock import get_pageblock_migratetype


@kernel
def extend_run(zone: Zone, pfn: int, mt: int) -> bool:
    """Append a block of the largest order to the run at TAIL, if it lies right behind it."""
    head = zone.free_area[zone.max_order].head[mt]
    last = int(zone.mem_map[head].prev)
    if (
        last == head
        or int(zone.mem_map[last].private) & RUN_DOWN
        or last + (run_length(zone, last) << zone.max_order) != pfn
    ):
        return False
    zone.mem_map[last].private += 1
    zone.free_area[zone.max_order].nr_free += 1
    zone.nr_free_pages += 1 << zone.max_order
    if mt == zone.cma_type:
        zone.nr_free_cma += 1 << zone.max_order
    return True


@kernel
def free_pages_core(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Free one block that was never allocated, to TAIL.

    Linux: __free_pages_core(), mm/page_alloc.c (6.1)
    """
    if order == zone.max_order and mt != zone.isolate_type and extend_run(zone, pfn, mt):
        return
    free_one_page(zone, pfn, order, mt, True)


@kernel
def fills_largest(zone: Zone, pfns: Array[i64], orders: Array[u8], at: int) -> int:
    """How many blocks from `at` on make exactly one of the largest order, or 0.

    They would merge one after the other; what they do to other lists is undone before the end.
    """
    pfn = pfns[at]
    order = int(orders[at])
    size = 1 << zone.max_order
    if order == 0 or order == zone.max_order or pfn & (size - 1) or pfn + size > zone.end_pfn:
        return 0
    nr = 1 << (zone.max_order - order)
    if at + nr > len(pfns):
        return 0
    mt = get_pageblock_migratetype(zone, pfn)
    for i in range(1, nr):
        if orders[at + i] != order or pfns[at + i] != pfn + (i << order):
            return 0
        if get_pageblock_migratetype(zone, pfns[at + i]) != mt:
            return 0
    return nr


@kernel
def do_free_core(h: int, pfns: Array[i64], orders: Array[u8]) -> int:
    """Hand blocks over, in this order; NONE, or the first that lies in no zone or leaves its zone.

    Linux: memblock_free_pages(), deferred_free_range(), mm/page_alloc.c (6.1)
    """
    m = memory_at(h)
    at = 0
    while at < len(pfns):
        pfn = pfns[at]
        order = int(orders[at])
        number = page_zone(m, pfn)
        if number == NONE or pfn + (1 << order) > m.zones[number].end_pfn:
            return pfn
        zone = m.zones[number]
        nr = fills_largest(zone, pfns, orders, at)
        if nr > 0:
            order = zone.max_order
        free_pages_core(zone, pfn, order, get_pageblock_migratetype(zone, pfn))
        at += max(nr, 1)
    return NONE


@kernel
def do_free_reserved(h: int, start: int, end: int, cpu: int) -> int:
    """Give frames back that were reserved since boot, one by one; how many.

    Linux: free_reserved_area(), mm/page_alloc.c (6.1)
    """
    m = memory_at(h)
    freed = 0
    for pfn in range(start, end):
        number = page_zone(m, pfn)
        if number != NONE and m.zones[number].mem_map[pfn].flags & PG_IN_USE:
            freed += int(free_pages(m, pfn, 0, cpu, False))
    return freed
