# SPDX-License-Identifier: GPL-2.0-or-later
"""Pageblocks: the unit in which memory is grouped by mobility, and its map of migratetypes.

Linux: get_pfnblock_migratetype(), set_pageblock_migratetype(), move_freepages_block(),
mm/page_alloc.c (6.1, 6.12)
"""

from physmem.lib.jit import kernel
from physmem.mm.features import LIST_TYPE_IS_BLOCK_TYPE, RESERVE_BLOCKS
from physmem.mm.free_area import leave_run, move_to_free_list
from physmem.mm.mmzone import (
    HEAD_ON_PCP,
    MIGRATE_PCPTYPES,
    MIGRATE_UNMOVABLE,
    PG_IN_USE,
    PG_MOVABLE,
    Zone,
)

NO_TYPE = 255
"""Type of a pageblock without memory: no frame of it is ever on a list, or freed."""


@kernel
def get_pageblock_migratetype(zone: Zone, pfn: int) -> int:
    """Migratetype recorded for the pageblock of a frame.

    Linux: get_pfnblock_migratetype(), mm/page_alloc.c (6.1)
    """
    return zone.pageblock_flags[(pfn >> zone.pageblock_order) - zone.first_block]


@kernel
def set_pageblock_migratetype(zone: Zone, pfn: int, mt: int) -> None:
    """Record the migratetype of a pageblock.

    Without grouping all are UNMOVABLE; where there is MIGRATE_RESERVE, special types too.

    Linux: set_pageblock_migratetype(), mm/page_alloc.c (6.1)
    """
    if zone.grouping_disabled and (mt < MIGRATE_PCPTYPES or zone.features & RESERVE_BLOCKS):
        mt = MIGRATE_UNMOVABLE
    zone.pageblock_flags[(pfn >> zone.pageblock_order) - zone.first_block] = mt


@kernel
def change_pageblock_range(zone: Zone, pfn: int, order: int, mt: int) -> None:
    """Record the migratetype of every pageblock of a block of at least pageblock order.

    Linux: change_pageblock_range(), mm/page_alloc.c (6.1)
    """
    for block in range(1 << (order - zone.pageblock_order)):
        set_pageblock_migratetype(zone, pfn + (block << zone.pageblock_order), mt)


@kernel
def move_freepages_block(zone: Zone, pfn: int, mt: int) -> int:
    """Move the free blocks of a pageblock to the lists of `mt`, in ascending order.

    With MOVE_TO_TAIL each goes to TAIL, else to HEAD: then the lists begin in descending order.

    A free block whose head lies before the pageblock is not seen; one that is larger moves whole.

    Returns
    -------
    int
        Frames moved; 0 when the pageblock leaves the zone at its end. Where lists follow
        pageblocks, only a pageblock that lies in the zone as a whole moves.

    Linux: move_freepages_block(), move_freepages(), mm/page_alloc.c (6.1)
    """
    start = pfn >> zone.pageblock_order << zone.pageblock_order
    end = start + (1 << zone.pageblock_order)
    if start < zone.start_pfn:
        if zone.features & LIST_TYPE_IS_BLOCK_TYPE:
            return 0
        start = pfn
    if end > zone.end_pfn:
        return 0
    leave_run(zone, start)
    moved = 0
    while start < end:
        order = int(zone.mem_map[start].order)
        if order == 0 or order >= HEAD_ON_PCP or zone.mem_map[start].zone != zone.number:
            start += 1
            continue
        move_to_free_list(zone, start, mt)
        moved += 1 << (order - 1)
        start += 1 << (order - 1)
    return moved


@kernel
def whole_pageblock(zone: Zone, pfn: int) -> bool:
    """Tell whether a frame's pageblock lies in the zone as a whole.

    Linux: prep_move_freepages_block(), mm/page_alloc.c (6.12)
    """
    start = pfn >> zone.pageblock_order << zone.pageblock_order
    return start >= zone.start_pfn and start + (1 << zone.pageblock_order) <= zone.end_pfn


@kernel
def count_free(zone: Zone, pfn: int) -> int:
    """Frames of a whole pageblock on free lists.

    Linux: prep_move_freepages_block(), its `num_free_pages`, mm/page_alloc.c (6.12)
    """
    frame = pfn >> zone.pageblock_order << zone.pageblock_order
    end = frame + (1 << zone.pageblock_order)
    free = 0
    while frame < end:
        order = int(zone.mem_map[frame].order)
        if order == 0 or order >= HEAD_ON_PCP:
            frame += 1
        else:
            free += 1 << (order - 1)
            frame += 1 << (order - 1)
    return free


@kernel
def count_movable(zone: Zone, pfn: int) -> int:
    """Frames of the pageblock in use as movable memory (the kernel looks at the LRU flag).

    Linux: move_freepages(), its `num_movable`, mm/page_alloc.c (6.1)
    """
    start = pfn >> zone.pageblock_order << zone.pageblock_order
    end = start + (1 << zone.pageblock_order)
    if start < zone.start_pfn:
        start = pfn
    if end > zone.end_pfn:
        return 0
    movable = 0
    both = PG_IN_USE | PG_MOVABLE
    for frame in range(start, end):
        if zone.mem_map[frame].flags & both == both:
            movable += 1
    return movable
