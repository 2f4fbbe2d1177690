# SPDX-License-Identifier: GPL-2.0-or-later
"""Free lists in the order of addresses: where in its list does a block belong?

Each list has a bit for each place where one of its blocks may begin; above each 32 bits is one that
says whether any of them is set, and so on up to a single word. So the neighbour below is found in
as many steps as there are levels (at most six), however long the list is. Of a run only the first
block has its bit.
"""

from physmem.lib.jit import kernel
from physmem.mm.list import list_add
from physmem.mm.mmzone import MIGRATE_TYPES, NONE, NR_PAGE_ORDERS, Zone


@kernel
def highest_bit(word: int) -> int:
    """Number of the highest set bit of a word of 32 bits that is not 0.

    Linux: __fls(), include/asm-generic/bitops/__fls.h
    """
    found = 0
    for shift in (16, 8, 4, 2, 1):
        if word >> shift:
            word >>= shift
            found += shift
    return found


@kernel
def places(zone: Zone, order: int) -> int:
    """Blocks of an order that the zone has room for, from `map_pfn` on."""
    return ((zone.end_pfn - zone.map_pfn) >> order) + 1


@kernel
def words(bits: int) -> int:
    """Words of 32 bits for so many."""
    return (bits + 31) >> 5


@kernel
def map_words(zone: Zone, order: int) -> int:
    """Words of all levels of one list."""
    total = 0
    level = words(places(zone, order))
    while level > 1:
        total += level
        level = words(level)
    return total + 1


@kernel
def list_map(zone: Zone, order: int, mt: int) -> int:
    """Where the lowest level of a list begins in `order_map`."""
    return mt * zone.map_start[NR_PAGE_ORDERS] + zone.map_start[order]


@kernel
def note_member(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Set the bit of a block that is on a list now."""
    at = list_map(zone, order, mt)
    level = words(places(zone, order))
    bit = (pfn - zone.map_pfn) >> order
    while True:
        old = int(zone.order_map[at + (bit >> 5)])
        zone.order_map[at + (bit >> 5)] = old | 1 << (bit & 31)
        if old or level == 1:
            return
        at += level
        level = words(level)
        bit >>= 5


@kernel
def forget_member(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Clear the bit of a block that leaves a list."""
    at = list_map(zone, order, mt)
    level = words(places(zone, order))
    bit = (pfn - zone.map_pfn) >> order
    while True:
        left = int(zone.order_map[at + (bit >> 5)]) & ~(1 << (bit & 31))
        zone.order_map[at + (bit >> 5)] = left
        if left or level == 1:
            return
        at += level
        level = words(level)
        bit >>= 5


@kernel
def member_below(zone: Zone, pfn: int, order: int, mt: int) -> int:
    """Last member of a list that begins before a frame, or NONE."""
    at = list_map(zone, order, mt)
    level = words(places(zone, order))
    bit = (pfn - zone.map_pfn) >> order
    height = 0
    while True:
        below = int(zone.order_map[at + (bit >> 5)]) & ((1 << (bit & 31)) - 1)
        if below:
            break
        if level == 1:
            return NONE
        at += level
        level = words(level)
        bit >>= 5
        height += 1
    bit = (bit >> 5 << 5) + highest_bit(below)
    while height:
        height -= 1
        at = list_map(zone, order, mt)
        level = words(places(zone, order))
        for _ in range(height):
            at += level
            level = words(level)
        bit = (bit << 5) + highest_bit(int(zone.order_map[at + bit]))
    return zone.map_pfn + (bit << order)


@kernel
def add_in_order(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Put a block behind the last lower one of its list."""
    below = member_below(zone, pfn, order, mt)
    list_add(zone, pfn, zone.free_area[order].head[mt] if below == NONE else below)
    note_member(zone, pfn, order, mt)


@kernel
def start_maps(zone: Zone) -> int:
    """Say where the map of each order begins; words needed for all lists.

    `map_pfn` is the place of the first bit: the zone's start rounded down to the largest order.
    """
    zone.map_pfn = zone.start_pfn >> zone.max_order << zone.max_order
    at = 0
    for order in range(NR_PAGE_ORDERS):
        zone.map_start[order] = at
        if order <= zone.max_order:
            at += map_words(zone, order)
    zone.map_start[NR_PAGE_ORDERS] = at
    return at * MIGRATE_TYPES
