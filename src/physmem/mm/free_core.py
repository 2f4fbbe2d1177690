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
from physmem.mm.mmzone import NONE, PG_IN_USE, Zone
from physmem.mm.page_free import free_pages, page_zone
from physmem.mm.pageblock import get_pageblock_migratetype


@kernel
def extend_run(zone: Zone, pfn: int, mt: int) -> bool:
    """Append a block of the largest order to the run at TAIL, if it lies right behind it."""
    head = zone.free_area[zone.max_order].head[mt]
    last = int(zone.mem_map[head].prev)
    if last == head or last + (run_length(zone, last) << zone.max_order) != pfn:
        return False
    zone.mem_map[last].private += 1
    zone.free_area[zone.max_order].nr_free += 1
    zone.nr_free_pages += 1 << zone.max_order
    if mt == zone.cma_type:
        zone.nr_free_cma += 1 << zone.max_order
    return True


@kernel
def free_pages_core(zone: Zone, pfn: int, order: int) -> None:
    """Free one block that was never allocated, to TAIL.

    Linux: __free_pages_core(), mm/page_alloc.c (6.1)
    """
    mt = get_pageblock_migratetype(zone, pfn)
    if order == zone.max_order and mt != zone.isolate_type and extend_run(zone, pfn, mt):
        return
    free_one_page(zone, pfn, order, mt, True)


@kernel
def do_free_core(h: int, pfns: Array[i64], orders: Array[u8]) -> int:
    """Hand blocks over, in this order; NONE, or the first that lies in no zone or leaves its zone.

    Linux: memblock_free_pages(), mm/page_alloc.c (6.1)
    """
    m = memory_at(h)
    for i in range(len(pfns)):
        pfn = pfns[i]
        order = int(orders[i])
        number = page_zone(m, pfn)
        if number == NONE or pfn + (1 << order) > m.zones[number].end_pfn:
            return pfn
        free_pages_core(m.zones[number], pfn, order)
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
