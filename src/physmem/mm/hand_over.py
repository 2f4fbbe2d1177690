# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-over: the blocks that the boot allocator found free are freed, one after another.

A boot allocator with one bit per frame frees a word of its bitmap at a time where it can, else
single frames, through the hot per-CPU list. All goes to HEAD, from low addresses to high ones: so
2.6.24 gives out memory from the top of a zone downwards, 4 MiB after 4 MiB.

Linux: free_all_bootmem_core(), mm/bootmem.c; __free_pages_bootmem(), mm/page_alloc.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.buddy import free_one_page
from physmem.mm.free_area import add_to_free_list, run_mark
from physmem.mm.hot_cold import free_hot_cold_page
from physmem.mm.mmzone import NONE, RUN_DOWN, Memory, Zone
from physmem.mm.page_free import page_zone
from physmem.mm.pageblock import NO_TYPE, get_pageblock_migratetype


@kernel
def fills_largest(zone: Zone, pfns: Array[i64], orders: Array[i64], at: int) -> int:
    """How many blocks from `at` on make exactly one of the largest order, or 0.

    They must be equal, ascending without a gap, more than single frames, and of one type.
    """
    pfn, order = pfns[at], orders[at]
    size = 1 << zone.max_order
    if order == 0 or pfn & (size - 1) or pfn + size > zone.end_pfn or zone.mem_map[pfn].flags:
        return 0
    nr = 1 << (zone.max_order - order)
    if at + nr > len(pfns):
        return 0
    for i in range(1, nr):
        if orders[at + i] != order or pfns[at + i] != pfn + (i << order):
            return 0
    for block in range(1, 1 << max(zone.max_order - zone.pageblock_order, 0)):
        frame = pfn + (block << zone.pageblock_order)
        if get_pageblock_migratetype(zone, frame) == NO_TYPE:
            return 0
    return nr


@kernel
def free_boot_run(m: Memory, zone: Zone, pfns: Array[i64], orders: Array[i64], at: int) -> int:
    """Free all blocks from `at` on that make blocks of the largest order; position behind them.

    Each would go to HEAD, in front of the one below it: together they are a run that goes down.
    """
    size = 1 << zone.max_order
    first = int(pfns[at])
    mt = get_pageblock_migratetype(zone, first + size - 1)
    follow = 0
    at += fills_largest(zone, pfns, orders, at)
    while at < len(pfns):
        pfn = first + (follow + 1) * size
        if pfns[at] != pfn or page_zone(m, pfn) != zone.number or zone.mem_map[pfn].order != 0:
            break
        nr = fills_largest(zone, pfns, orders, at)
        if nr == 0 or get_pageblock_migratetype(zone, pfn) == NO_TYPE:
            break
        if get_pageblock_migratetype(zone, pfn + size - 1) != mt:
            break
        follow += 1
        at += nr
    add_to_free_list(zone, first + follow * size, zone.max_order, mt)
    zone.mem_map[first + follow * size].private = run_mark(RUN_DOWN, follow)
    zone.free_area[zone.max_order].nr_free += follow
    zone.nr_free_pages += (follow + 1) * size
    return at


@kernel
def free_boot_pages(m: Memory, pfns: Array[i64], orders: Array[i64], cpu: int) -> int:
    """Free blocks that are on no list yet, in this order; position of the first bad one, or NONE.

    Single frames go through the hot list of `cpu`, larger blocks to HEAD of their free list. A run
    that fills a block of the largest order gets there at once, where all its parts would end: what
    they do to other lists is undone before the run ends. So their other frames stay untouched, as
    long as they are marked as nothing: an empty machine of a terabyte takes little memory.

    Bad are blocks that are misaligned, leave their zone, lie in a pageblock without memory, or
    begin with a frame that is on a list or belongs to an allocated block.
    """
    at = 0
    while at < len(pfns):
        pfn, order = pfns[at], orders[at]
        number = page_zone(m, pfn)
        if number == NONE or order < 0 or order > m.zones[number].max_order:
            return at
        zone = m.zones[number]
        size = 1 << order
        if pfn & (size - 1) or pfn + size > zone.end_pfn:
            return at
        zone.mem_map[pfn].zone = number  # to touch by reading first would cost a second page fault
        if zone.mem_map[pfn].order != 0:
            return at
        mt = get_pageblock_migratetype(zone, pfn)
        if mt == NO_TYPE:
            return at
        run = fills_largest(zone, pfns, orders, at)
        if run > 0:
            at = free_boot_run(m, zone, pfns, orders, at)
        else:
            if order == 0:
                zone.mem_map[pfn].flags = 0
                free_hot_cold_page(zone, pfn, 0, cpu, False, False)
            else:
                for frame in range(pfn, pfn + size):
                    if zone.mem_map[frame].flags:
                        zone.mem_map[frame].flags = 0
                free_one_page(zone, pfn, order, mt, False)
            at += 1
    return NONE
