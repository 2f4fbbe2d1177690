# SPDX-License-Identifier: GPL-2.0-or-later
"""May this block be freed? Looked at before a free that Python asks for, and only then.

A kernel trusts its callers and finds some mistakes by debug options; a replay trusts the kernel. A
caller from Python shall hear what is wrong instead of working on with a broken machine.

Linux: free_page_is_bad(), mm/page_alloc.c (6.1), in spirit
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import HEAD_IN_USE, PG_IN_USE, Zone
from physmem.mm.pageblock import NO_TYPE, get_pageblock_migratetype

FREED = 0
OUTSIDE = 1
"""The block is in no zone, in a pageblock without memory, or leaves its zone at the end."""
MISALIGNED = 2
NOT_IN_USE = 3
WRONG_ORDER = 4
"""The block that starts there was allocated with another order."""
INSIDE = 5
"""The frames belong to a larger allocated block that starts before them."""
SEVERAL = 6
"""More than one allocated block lies there."""


@kernel
def enclosing_block(zone: Zone, pfn: int) -> int:
    """First frame of the allocated block that holds a frame, or the frame itself if none is known.

    Frames that were in use when a state was loaded belong to blocks of unknown order.
    """
    for order in range(zone.max_order + 1):
        head = pfn >> order << order
        if head < zone.start_pfn:
            break
        if zone.mem_map[head].order == HEAD_IN_USE | order and zone.mem_map[head].flags & PG_IN_USE:
            return head
    return pfn


@kernel
def why_not_free(zone: Zone, pfn: int, order: int) -> int:
    """Reason why a block cannot be freed, or FREED when nothing speaks against it."""
    size = 1 << order
    if pfn & (size - 1):
        return MISALIGNED
    if pfn + size > zone.end_pfn or get_pageblock_migratetype(zone, pfn) == NO_TYPE:
        return OUTSIDE
    if not zone.mem_map[pfn].flags & PG_IN_USE:
        return NOT_IN_USE
    mark = int(zone.mem_map[pfn].order)
    if mark & HEAD_IN_USE and mark != HEAD_IN_USE | order:
        return WRONG_ORDER
    for frame in range(pfn + 1, pfn + size):
        if not zone.mem_map[frame].flags & PG_IN_USE:
            return NOT_IN_USE
        if zone.mem_map[frame].order & HEAD_IN_USE:
            return SEVERAL
    if mark == 0 and enclosing_block(zone, pfn) != pfn:
        return INSIDE
    return FREED
