# SPDX-License-Identifier: GPL-2.0-or-later
"""Free blocks in random order, so that nobody can tell which frames come next.

All blocks of the largest order are swapped at random once; later, those that become free go to a
random end of their list. The numbers come from a generator of 48 bits in the zone, so that one seed
always makes the same order. (A kernel takes what its hardware gives: no two boots are alike.)

Linux: __shuffle_zone(), shuffle_pick_tail(), mm/shuffle.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.mm.free_area import leave_run, split_run
from physmem.mm.list import list_add, list_del
from physmem.mm.mmzone import NONE, Zone
from physmem.mm.pageblock import NO_TYPE, get_pageblock_migratetype

SHUFFLE_RETRY = 10
_FACTOR = 0x5DEECE66D
_MASK = (1 << 48) - 1


@kernel
def next_random(zone: Zone) -> int:
    """Next number of 31 bits. It is the generator of lrand48() in the C library."""
    zone.random = (zone.random * _FACTOR + 11) & _MASK
    return zone.random >> 17


@kernel
def random_bit(zone: Zone) -> bool:
    """Toss a coin. Linux: shuffle_pick_tail(), mm/shuffle.c (6.1)"""
    return next_random(zone) & 1 != 0


@kernel
def shuffle_valid_page(zone: Zone, pfn: int) -> bool:
    """Tell whether a free block of the largest order begins at a frame; it then stands alone.

    Linux: shuffle_valid_page(), mm/shuffle.c (6.1)
    """
    if pfn < zone.start_pfn or pfn + (1 << zone.max_order) > zone.end_pfn:
        return False
    if get_pageblock_migratetype(zone, pfn) == NO_TYPE:
        return False
    leave_run(zone, pfn)
    if zone.mem_map[pfn].order != zone.max_order + 1 or zone.mem_map[pfn].zone != zone.number:
        return False
    split_run(zone, pfn, zone.max_order)
    return True


@kernel
def list_swap(zone: Zone, one: int, other: int) -> None:
    """Let two members of lists change places. Linux: list_swap(), include/linux/list.h"""
    before = int(zone.mem_map[other].prev)
    list_del(zone, other)
    before_one = int(zone.mem_map[one].prev)
    list_del(zone, one)
    list_add(zone, other, before_one)
    list_add(zone, one, other if before == one else before)


@kernel
def shuffle_zone(zone: Zone) -> None:
    """Swap each free block of the largest order with another one of its type.

    Linux: __shuffle_zone(), mm/shuffle.c (6.1)
    """
    size = 1 << zone.max_order
    start = (zone.start_pfn + size - 1) >> zone.max_order << zone.max_order
    for one in range(start, zone.end_pfn, size):
        if not shuffle_valid_page(zone, one):
            continue
        other = NONE
        for _ in range(SHUFFLE_RETRY):
            at = next_random(zone) << 31 | next_random(zone)
            found = start + at % zone.spanned_pages // size * size
            if found != one and shuffle_valid_page(zone, found):
                other = found
                break
        if other != NONE and zone.mem_map[one].mt == zone.mem_map[other].mt:
            list_swap(zone, one, other)
