# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing whole lists: for snapshots, for loading a state, for validation."""

from physmem.lib.jit import kernel, pointer_to
from physmem.lib.struct import Array, i64
from physmem.mm.features import ISOLATED_IS_FREE
from physmem.mm.free_area import run_length, run_start, turn_runs
from physmem.mm.list import list_add_tail, list_init
from physmem.mm.mmzone import (
    HEAD_ON_PCP,
    MIGRATE_HIGHATOMIC,
    MIGRATE_TYPES,
    NONE,
    NR_PAGE_ORDERS,
    NR_PCP_LISTS,
    PG_IN_USE,
    PG_MOVABLE,
    RUN_DOWN,
    Memory,
    Zone,
)

memory_at = pointer_to(Memory)


@kernel
def init_lists(h: int, first_head: int) -> int:
    """Give every list of every zone a head behind the frames and empty it; heads used so far."""
    m = memory_at(h)
    head = first_head
    for number in range(m.nr_zones):
        zone = m.zones[number]
        for order in range(NR_PAGE_ORDERS):
            zone.free_area[order].nr_free = 0
            for mt in range(MIGRATE_TYPES):
                zone.free_area[order].head[mt] = head
                list_init(zone, head)
                head += 1
        for cpu in range(m.nr_cpus):
            pcp = zone.pageset[cpu]
            for pindex in range(NR_PCP_LISTS):
                pcp.head[pindex] = head
                list_init(zone, head)
                head += 1
    return head


@kernel
def read_list(h: int, head: int, out: Array[i64]) -> int:
    """Copy the members of a list, HEAD first; how many there are, or NONE if the ring is broken."""
    m = memory_at(h)
    max_order = m.zones[0].max_order
    pfn = int(m.mem_map[head].next)
    count = 0
    before = head
    while pfn != head:
        if pfn >= m.max_pfn or m.mem_map[pfn].prev != before or count >= m.max_pfn:
            return NONE
        blocks = 1
        step = 1 << max_order
        if m.mem_map[pfn].order == max_order + 1:
            private = int(m.mem_map[pfn].private)
            blocks += private & ~RUN_DOWN
            step = -step if private & RUN_DOWN else step
        if not 0 <= pfn + (blocks - 1) * step < m.max_pfn:
            return NONE
        for block in range(blocks):
            if count < len(out):
                out[count] = pfn + block * step
            count += 1
        before = pfn
        pfn = int(m.mem_map[pfn].next)
    if m.mem_map[head].prev != before:
        return NONE
    return count


@kernel
def fill_free_list(h: int, number: int, order: int, mt: int, pfns: Array[i64]) -> int:
    """Put free blocks on a list, HEAD first; the first that is on a list already, or NONE."""
    m = memory_at(h)
    zone = m.zones[number]
    run = int(zone.mem_map[zone.free_area[order].head[mt]].prev)
    behind = NONE  # where the next block would lie that belongs to the run: upwards ...
    below = NONE  # ... or downwards
    size = 1 << order
    for i in range(len(pfns)):
        pfn = pfns[i]
        if zone.mem_map[pfn].order != 0:
            return pfn
        if pfn == behind:
            zone.mem_map[run].private += 1
            behind, below = pfn + size, NONE
        elif pfn == below:
            zone.mem_map[run].private = RUN_DOWN | (int(zone.mem_map[run].private) + 1)
            behind, below = NONE, pfn - size
        else:
            run = pfn
            list_add_tail(zone, pfn, zone.free_area[order].head[mt])
            zone.mem_map[pfn].flags = 0
            zone.mem_map[pfn].order = order + 1
            zone.mem_map[pfn].mt = mt
            zone.mem_map[pfn].zone = number
            zone.mem_map[pfn].private = 0
            if order == zone.max_order:
                behind, below = pfn + size, pfn - size
        zone.free_area[order].nr_free += 1
        if mt != zone.isolate_type or zone.features & ISOLATED_IS_FREE:
            zone.nr_free_pages += 1 << order
            if mt == zone.cma_type:
                zone.nr_free_cma += 1 << order
            elif mt == MIGRATE_HIGHATOMIC:
                zone.nr_free_highatomic += 1 << order
    return NONE


@kernel
def fill_pcp_list(h: int, number: int, cpu: int, pindex: int, order: int, pfns: Array[i64]) -> int:
    """Put blocks on a per-CPU list, HEAD first; the first that is on a list already, or NONE.

    Their cached type is set apart.
    """
    m = memory_at(h)
    zone = m.zones[number]
    for i in range(len(pfns)):
        pfn = pfns[i]
        if zone.mem_map[pfn].order != 0:
            return pfn
        list_add_tail(zone, pfn, zone.pageset[cpu].head[pindex])
        zone.mem_map[pfn].order = HEAD_ON_PCP | order
        zone.pageset[cpu].count += 1 << order
    return NONE


@kernel
def mark_frames(h: int, start: int, end: int, flags: int) -> None:
    """Set the flags of frames [start, end)."""
    m = memory_at(h)
    for pfn in range(start, end):
        m.mem_map[pfn].flags = flags


@kernel
def mark_rest_in_use(h: int, number: int) -> int:
    """Mark every frame of a zone that is on no list as in use; how many those are."""
    m = memory_at(h)
    zone = m.zones[number]
    pfn = zone.start_pfn
    used = 0
    turn_runs(zone, True)
    while pfn < zone.end_pfn:
        order = int(zone.mem_map[pfn].order)
        if order == 0:
            zone.mem_map[pfn].flags = PG_IN_USE
            used += 1
            pfn += 1
        elif order & HEAD_ON_PCP:
            pfn += 1 << (order & ~HEAD_ON_PCP)
        else:
            pfn += run_length(zone, pfn) << (order - 1)
    turn_runs(zone, False)
    return used


@kernel
def mark_movable(h: int, start: int, end: int) -> None:
    """Note that frames in use among [start, end) can be moved."""
    m = memory_at(h)
    for pfn in range(start, end):
        if pfn < m.max_pfn and m.mem_map[pfn].flags & PG_IN_USE:
            m.mem_map[pfn].flags = PG_IN_USE | PG_MOVABLE


@kernel
def find_run(h: int, number: int, pfn: int) -> int:
    """First block of the run of free blocks that a frame lies in, or NONE."""
    m = memory_at(h)
    zone = m.zones[number]
    for mt in range(MIGRATE_TYPES):
        head = zone.free_area[zone.max_order].head[mt]
        at = int(zone.mem_map[head].next)
        while at != head:
            start = run_start(zone, at)
            if start <= pfn < start + (run_length(zone, at) << zone.max_order):
                return at
            at = int(zone.mem_map[at].next)
    return NONE


@kernel
def count_in_use(zone: Zone) -> int:
    """Frames of a zone's span that are in use (or not managed)."""
    used = 0
    for pfn in range(zone.start_pfn, zone.end_pfn):
        if zone.mem_map[pfn].flags & PG_IN_USE:
            used += 1
    return used
