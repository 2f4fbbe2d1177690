# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot and cold per-CPU lists: single frames that a CPU keeps of a zone, all types mixed.

The hot list holds frames that may still be in the CPU's cache; the cold one, much shorter, is for
memory that a device fills. HEAD holds the frame freed last; drains take from TAIL. Each frame
remembers a type, and a request takes the first frame of its own: what was asked for when the list
was refilled, or the type of the frame's pageblock when it was freed. A drain looks at the pageblock
anew.

Linux: buffered_rmqueue(), rmqueue_bulk(), free_hot_cold_page(), free_pages_bulk(), drain_pages(),
drain_zone_pages(), mm/page_alloc.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.alloc_flags import ALLOC_COLD, ALLOC_NOFRAGMENT, ALLOC_PCP_BUSY
from physmem.mm.buddy import free_one_page
from physmem.mm.fallback import rmqueue
from physmem.mm.list import list_add, list_del
from physmem.mm.mmzone import HEAD_ON_PCP, NONE, PerCpuPages, Zone
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.tracepoint import PCPU_DRAIN, emit

HOT = 0
COLD = 1
"""Numbers of the lists: `PerCpuPages.head[HOT]`, `head[COLD]`."""
NR_HOT_COLD_LISTS = 2


@kernel
def count_frames(pcp: PerCpuPages, which: int, frames: int) -> None:
    """Count frames on or off one of the two lists."""
    pcp.count += frames
    if which == COLD:
        pcp.cold_count += frames


@kernel
def refill(zone: Zone, pcp: PerCpuPages, which: int, mt: int, alloc_flags: int) -> None:
    """Put a batch of frames in front of a list, in the order in which they are found.

    They remember the type that was asked for, whatever list they come from. Of the flags only
    ALLOC_NOFRAGMENT counts, which the kernel itself does not know.

    Linux: rmqueue_bulk(), mm/page_alloc.c (2.6.24)
    """
    batch = pcp.cold_batch if which == COLD else pcp.batch
    before = pcp.head[which]
    for _ in range(batch):
        pfn = rmqueue(zone, 0, mt, alloc_flags & ALLOC_NOFRAGMENT)
        if pfn == NONE:
            break
        zone.nr_free_pages -= 1
        list_add(zone, pfn, before)
        zone.mem_map[pfn].order = HEAD_ON_PCP
        zone.mem_map[pfn].mt = mt
        count_frames(pcp, which, 1)
        before = pfn


@kernel
def first_of_type(zone: Zone, head: int, mt: int) -> int:
    """First frame of a list that remembers `mt`, or the head."""
    pfn = int(zone.mem_map[head].next)
    while pfn != head and zone.mem_map[pfn].mt != mt:
        pfn = int(zone.mem_map[pfn].next)
    return pfn


@kernel
def rmqueue_hot_cold(zone: Zone, order: int, mt: int, alloc_flags: int, cpu: int) -> int:
    """Take a block from one zone: single frames off a per-CPU list; its pfn or NONE.

    When a list has no frame of the type even after a refill, its first frame is taken, of a wrong
    type. So does the kernel.

    Linux: buffered_rmqueue(), mm/page_alloc.c (2.6.24)
    """
    if order > 0 or alloc_flags & ALLOC_PCP_BUSY:
        pfn = rmqueue(zone, order, mt, alloc_flags)
        if pfn != NONE:
            zone.nr_free_pages -= 1 << order
        return pfn
    pcp = zone.pageset[cpu]
    which = COLD if alloc_flags & ALLOC_COLD else HOT
    head = pcp.head[which]
    if zone.mem_map[head].next == head:
        refill(zone, pcp, which, mt, alloc_flags)
        if zone.mem_map[head].next == head:
            return NONE
    pfn = first_of_type(zone, head, mt)
    if pfn == head:
        refill(zone, pcp, which, mt, alloc_flags)
        pfn = int(zone.mem_map[head].next)
    list_del(zone, pfn)
    count_frames(pcp, which, -1)
    return pfn


@kernel
def give_back(zone: Zone, pcp: PerCpuPages, which: int, frames: int) -> None:
    """Give up to `frames` frames back to the free lists, those that wait longest first.

    Linux: free_pages_bulk(), mm/page_alloc.c (2.6.24)
    """
    head = pcp.head[which]
    for _ in range(frames):
        pfn = int(zone.mem_map[head].prev)
        if pfn == head:
            return
        list_del(zone, pfn)
        count_frames(pcp, which, -1)
        zone.mem_map[pfn].order = 0
        mt = get_pageblock_migratetype(zone, pfn)
        free_one_page(zone, pfn, 0, mt, False)
        emit(zone, PCPU_DRAIN, pfn, 0, mt, 0)


@kernel
def free_hot_cold_page(zone: Zone, pfn: int, order: int, cpu: int, cold: bool, busy: bool) -> None:
    """Free a block that is out of use: a single frame to a per-CPU list, others to the free lists.

    Linux: free_hot_cold_page(), __free_pages_ok(), mm/page_alloc.c (2.6.24)
    """
    mt = get_pageblock_migratetype(zone, pfn)
    if order > 0 or busy:
        free_one_page(zone, pfn, order, mt, False)
        return
    pcp = zone.pageset[cpu]
    which = COLD if cold else HOT
    list_add(zone, pfn, pcp.head[which])
    zone.mem_map[pfn].order = HEAD_ON_PCP
    zone.mem_map[pfn].mt = mt
    count_frames(pcp, which, 1)
    if cold:
        if pcp.cold_count >= pcp.cold_high:
            give_back(zone, pcp, COLD, pcp.cold_batch)
    elif pcp.count - pcp.cold_count >= pcp.high:
        give_back(zone, pcp, HOT, pcp.batch)


@kernel
def drain_hot_cold_batch(zone: Zone, pcp: PerCpuPages) -> None:
    """Drain one batch of each list (of a remote zone that the CPU has not used for seconds).

    Linux: drain_zone_pages(), refresh_cpu_vm_stats(), mm/page_alloc.c, mm/vmstat.c (2.6.24)
    """
    give_back(zone, pcp, HOT, pcp.batch)
    give_back(zone, pcp, COLD, pcp.cold_batch)


@kernel
def drain_hot_cold(zone: Zone, pcp: PerCpuPages) -> None:
    """Drain both lists, the hot one first. Linux: drain_pages(), mm/page_alloc.c (2.6.24)"""
    give_back(zone, pcp, HOT, pcp.count)
    give_back(zone, pcp, COLD, pcp.count)
