# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in each 2 MiB of memory: free, movable, or held by pages that nobody can move.

Linux: the census of "reliable huge page allocator" (2023) counts pageblocks; here it is every
aligned 2 MiB, whatever the order of a pageblock.
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64, u32
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import PG_IN_USE, PG_MOVABLE
from physmem.mm.page_free import page_zone
from physmem.mm.pageblock import NO_TYPE

BLOCKS = 0
"""`out`: whole blocks ..."""
FREE = 1
"""... without a frame in use (frames on per-CPU lists are not in use)"""
MOVABLE_ONLY = 2
"""... with frames in use, all of them movable"""
POLLUTED = 3
"""... with a frame in use that cannot be moved"""
MIXED = 4
"""... of these: with frames that are free or movable"""
UNMOVABLE_FRAMES = 5
MOVABLE_FRAMES = 6
FREE_FRAMES = 7
REACHABLE_MOVABLE = 8
"""Movable frames in blocks that hold nothing else."""
POLLUTED_FREE = 9
"""Free frames in polluted blocks, and in blocks cut by the ends of the zone."""
NR_FIGURES = 10


@kernel
def census(
    h: int, number: int, order: int, out: Array[i64], unmovable: Array[u32], moving: Array[u32]
) -> int:
    """Count the blocks of 2**order frames of one zone; how many there are, cut ones left out.

    `unmovable` and `moving` get the frames in use of each block (by pfn >> order) that cannot, and
    can, be moved, where they are long enough.
    """
    m = memory_at(h)
    zone = m.zones[number]
    size = 1 << order
    for at in range(NR_FIGURES):
        out[at] = 0
    first = int(zone.start_pfn) >> order
    last = (int(zone.end_pfn) - 1) >> order
    for block in range(first, last + 1):
        low = max(block << order, int(zone.start_pfn))
        high = min((block + 1) << order, int(zone.end_pfn))
        pageblock = (low >> zone.pageblock_order) - zone.first_block
        if zone.pageblock_flags[pageblock] == NO_TYPE or page_zone(m, low) != number:
            continue
        pinned = 0
        movable = 0
        for pfn in range(low, high):
            flags = zone.mem_map[pfn].flags
            if flags & PG_IN_USE:
                if flags & PG_MOVABLE:
                    movable += 1
                else:
                    pinned += 1
        free = high - low - pinned - movable
        out[UNMOVABLE_FRAMES] += pinned
        out[MOVABLE_FRAMES] += movable
        out[FREE_FRAMES] += free
        if block < len(unmovable):
            unmovable[block] += pinned
            moving[block] += movable
        if high - low < size:
            out[POLLUTED_FREE] += free
            continue
        out[BLOCKS] += 1
        if pinned:
            out[POLLUTED] += 1
            out[POLLUTED_FREE] += free
            if pinned < size:
                out[MIXED] += 1
        elif movable:
            out[MOVABLE_ONLY] += 1
            out[REACHABLE_MOVABLE] += movable
        else:
            out[FREE] += 1
    return out[BLOCKS]
