# SPDX-License-Identifier: GPL-2.0-or-later
"""Does everything that is known about a zone's frames agree? One pass over lists and frames.

A walk believes nothing that it has not checked, so that it ends on any content of the tables, as
long as `Memory` and the zones' fixed fields are sound. `mmzone` lists the invariants. Where
there is TYPED_BARRIER, blocks of pageblock order and more may both be free: what kept them apart (a
reserved or isolated pageblock) leaves no trace when it goes.
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.features import (
    FREE_HIGHATOMIC,
    FREES_READ_BLOCK_TYPE,
    HIGHATOMIC_WHOLE_BLOCKS,
    HOT_COLD,
    ISOLATED_IS_FREE,
    LIST_TYPE_IS_BLOCK_TYPE,
    RESERVE_BLOCKS,
    TYPED_BARRIER,
)
from physmem.mm.free_area import run_length, run_start, turn_runs
from physmem.mm.hot_cold import COLD, NR_HOT_COLD_LISTS
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import (
    HEAD_IN_USE,
    HEAD_ON_PCP,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_TYPES,
    NONE,
    NR_PAGE_ORDERS,
    NR_PCP_LISTS,
    PG_IN_USE,
    PG_MOVABLE,
    PG_PREPARED,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    Memory,
    Zone,
)
from physmem.mm.page_free import page_zone
from physmem.mm.pageblock import NO_TYPE, get_pageblock_migratetype
from physmem.mm.pcp import NR_LOWORDER_PCP_LISTS, pindex_to_order
from physmem.mm.pcp_tuning import PCP_BATCH_SCALE_MAX

WHOLE = 0
WILD_LINK = 1
ONE_WAY_LINK = 2
WRONG_MARK = 3
WRONG_TYPE = 4
WRONG_ZONE = 5
BAD_PLACE = 6
FLAGS_ON_LIST = 7
NR_FREE = 8
NR_FREE_PAGES = 9
NR_FREE_CMA = 10
UNUSED_LIST = 11
PCP_PLACE = 12
PCP_TYPE = 13
PCP_COUNT = 14
NESTED = 15
USED_INSIDE = 16
NOWHERE = 17
UNLISTED = 18
NOT_MERGED = 19
WATERMARKS = 20
PCP_SIZES = 21
BLOCK_TYPE = 22
NR_ISOLATED = 23
NR_HIGHATOMIC = 24
BAD_FLAGS = 25
TOO_MUCH = 26
NR_FREE_HIGHATOMIC = 27
BLOCK_LIST = 28

ORDER = 0
LIST = 1
CPU = 2
PFN = 3
EXPECTED = 4
FOUND = 5
LENGTH = 6
"""Last field of a report."""


@kernel
def broken(report: Array[i64], reason: int, pfn: int, expected: int, found: int) -> int:
    """Note what was found where; the reason again."""
    report[PFN] = pfn
    report[EXPECTED] = expected
    report[FOUND] = found
    return reason


@kernel
def check_ring(m: Memory, zone: Zone, head: int, mark: int, report: Array[i64]) -> int:
    """Walk one list: links, marks, places and flags of its members; report[LENGTH] counts them."""
    size = 1 << report[ORDER]
    on_pcp = mark & HEAD_ON_PCP
    before = head
    length = 0
    report[LENGTH] = 0
    if head < m.max_pfn or head >= len(m.mem_map):
        return broken(report, WILD_LINK, NONE, m.max_pfn, head)
    pfn = int(m.mem_map[head].next)
    while pfn != head:
        if pfn >= m.max_pfn:
            return broken(report, WILD_LINK, before, head, pfn)
        if m.mem_map[pfn].prev != before:
            return broken(report, ONE_WAY_LINK, pfn, before, int(m.mem_map[pfn].prev))
        run = 1 if on_pcp else run_length(zone, pfn)
        start = pfn if on_pcp else run_start(zone, pfn)
        if pfn & (size - 1) or start < zone.start_pfn or start + run * size > zone.end_pfn:
            return broken(report, PCP_PLACE if on_pcp else BAD_PLACE, pfn, size, 0)
        if m.mem_map[pfn].order != mark:
            return broken(report, WRONG_MARK, pfn, mark, int(m.mem_map[pfn].order))
        if m.mem_map[pfn].flags != 0:
            return broken(report, FLAGS_ON_LIST, pfn, 0, int(m.mem_map[pfn].flags))
        if not on_pcp and m.mem_map[pfn].zone != zone.number:
            return broken(report, WRONG_ZONE, pfn, zone.number, int(m.mem_map[pfn].zone))
        length += run
        before = pfn
        pfn = int(m.mem_map[pfn].next)
    if m.mem_map[head].prev != before:
        return broken(report, ONE_WAY_LINK, NONE, before, int(m.mem_map[head].prev))
    report[LENGTH] = length
    return WHOLE


@kernel
def check_free_lists(m: Memory, zone: Zone, report: Array[i64]) -> int:
    """Check all free lists and the counters of free memory; report[LENGTH]: blocks on lists."""
    blocks = 0
    free = 0
    cma = 0
    highatomic = 0
    report[CPU] = NONE
    for order in range(NR_PAGE_ORDERS):
        listed = 0
        report[ORDER] = order
        for mt in range(MIGRATE_TYPES):
            report[LIST] = mt
            head = zone.free_area[order].head[mt]
            reason = check_ring(m, zone, head, order + 1, report)
            if reason != WHOLE:
                return reason
            length = report[LENGTH]
            if length and (order > zone.max_order or mt > zone.isolate_type):
                return broken(report, UNUSED_LIST, NONE, 0, length)
            pfn = int(m.mem_map[head].next)
            while pfn != head:
                if m.mem_map[pfn].mt != mt:
                    return broken(report, WRONG_TYPE, pfn, mt, int(m.mem_map[pfn].mt))
                pfn = int(m.mem_map[pfn].next)
            listed += length
            if mt != zone.isolate_type or zone.features & ISOLATED_IS_FREE:
                free += length << order
            if mt == zone.cma_type:
                cma += length << order
            elif mt == MIGRATE_HIGHATOMIC:
                highatomic += length << order
        report[LIST] = NONE
        if listed != zone.free_area[order].nr_free:
            return broken(report, NR_FREE, NONE, listed, zone.free_area[order].nr_free)
        blocks += listed
    report[ORDER] = NONE
    report[LENGTH] = blocks
    if free != zone.nr_free_pages:
        return broken(report, NR_FREE_PAGES, NONE, free, zone.nr_free_pages)
    if cma != zone.nr_free_cma:
        return broken(report, NR_FREE_CMA, NONE, cma, zone.nr_free_cma)
    if zone.features & FREE_HIGHATOMIC and highatomic != zone.nr_free_highatomic:
        return broken(report, NR_FREE_HIGHATOMIC, NONE, highatomic, zone.nr_free_highatomic)
    return WHOLE


@kernel
def pcp_type_fits(zone: Zone, pindex: int, mt: int) -> bool:
    """Tell whether a frame with this cached type may be on a per-CPU list."""
    if zone.features & HOT_COLD:
        return pindex < NR_HOT_COLD_LISTS and mt <= zone.isolate_type
    if pindex >= NR_LOWORDER_PCP_LISTS:
        movable = pindex > NR_LOWORDER_PCP_LISTS
        if mt < MIGRATE_PCPTYPES:
            return movable == (mt == MIGRATE_MOVABLE)
    else:
        movable = pindex % MIGRATE_PCPTYPES == MIGRATE_MOVABLE
        if mt < MIGRATE_PCPTYPES:
            return mt == pindex % MIGRATE_PCPTYPES
    return movable and (mt == MIGRATE_HIGHATOMIC or mt == zone.cma_type)


@kernel
def check_pcp(m: Memory, zone: Zone, cpu: int, report: Array[i64]) -> int:
    """Check one CPU's lists; report[LENGTH]: blocks on them."""
    pcp = zone.pageset[cpu]
    blocks = 0
    frames = 0
    cold = 0
    report[CPU] = cpu
    for pindex in range(NR_PCP_LISTS):
        order = pindex_to_order(zone, pindex)
        report[ORDER] = order
        report[LIST] = pindex
        head = pcp.head[pindex]
        reason = check_ring(m, zone, head, HEAD_ON_PCP | order, report)
        if reason != WHOLE:
            return reason
        blocks += report[LENGTH]
        frames += report[LENGTH] << order
        if pindex == COLD and zone.features & HOT_COLD:
            cold = report[LENGTH]
        pfn = int(m.mem_map[head].next)
        while pfn != head:
            mt = int(m.mem_map[pfn].mt)
            if zone.features & FREES_READ_BLOCK_TYPE == 0 and not pcp_type_fits(zone, pindex, mt):
                return broken(report, PCP_TYPE, pfn, pindex, mt)
            pfn = int(m.mem_map[pfn].next)
    report[ORDER] = NONE
    report[LIST] = NONE
    report[LENGTH] = blocks
    if frames != pcp.count:
        return broken(report, PCP_COUNT, NONE, frames, pcp.count)
    if pcp.cold_count != cold:
        return broken(report, PCP_COUNT, NONE, cold, pcp.cold_count)
    if pcp.cold_high < 0 or (zone.features & HOT_COLD and pcp.cold_batch < 1):
        return broken(report, PCP_SIZES, NONE, pcp.cold_high, pcp.cold_batch)
    if (
        pcp.batch < 1
        or pcp.high < 0
        or not 0 <= pcp.free_factor <= PCP_BATCH_SCALE_MAX
        or not 0 <= pcp.alloc_factor <= PCP_BATCH_SCALE_MAX
        or pcp.high_min < 0
        or pcp.high_max < 0
        or pcp.free_count < 0
    ):
        return broken(report, PCP_SIZES, NONE, pcp.high, pcp.batch)
    return WHOLE


@kernel
def check_block_list(zone: Zone, pfn: int, order: int, report: Array[i64]) -> int:
    """Check that the pageblocks of a free block have the type of the list that it is on."""
    mt = int(zone.mem_map[pfn].mt)
    for frame in range(pfn, pfn + (1 << order), 1 << zone.pageblock_order):
        own = get_pageblock_migratetype(zone, frame)
        if own != mt:
            report[ORDER] = order
            return broken(report, BLOCK_LIST, frame, own, mt)
    return WHOLE


@kernel
def check_block(zone: Zone, pfn: int, frames: int, report: Array[i64]) -> int:
    """Check that nothing lies inside a free block (or a run), or one on a per-CPU list."""
    for frame in range(pfn + 1, pfn + frames):
        if zone.mem_map[frame].order != 0:
            return broken(report, NESTED, frame, pfn, int(zone.mem_map[frame].order))
        if zone.mem_map[frame].flags != 0:
            return broken(report, USED_INSIDE, frame, pfn, int(zone.mem_map[frame].flags))
    return WHOLE


@kernel
def check_merged(zone: Zone, pfn: int, order: int, report: Array[i64]) -> int:
    """Check that the buddy of a free block is not free in the same order."""
    if order >= zone.max_order:
        return WHOLE
    if order >= zone.pageblock_order and zone.features & TYPED_BARRIER:
        return WHOLE
    buddy = pfn ^ (1 << order)
    if zone.mem_map[buddy].order == order + 1 and zone.mem_map[buddy].zone == zone.number:
        report[ORDER] = order
        return broken(report, NOT_MERGED, pfn, 0, buddy)
    return WHOLE


@kernel
def check_frames(m: Memory, zone: Zone, listed: int, report: Array[i64]) -> int:
    """Go through all frames: each is in use, freed in a batch, or in one block on one list."""
    heads = 0
    pending = 0  # end of the frames that a block freed in a batch may hold
    both = PG_IN_USE | PG_MOVABLE
    pfn = zone.start_pfn
    report[CPU] = NONE
    report[LIST] = NONE
    while pfn < zone.end_pfn:
        mark = int(zone.mem_map[pfn].order)
        flags = int(zone.mem_map[pfn].flags)
        if mark == 0 or mark & HEAD_IN_USE:
            if flags == PG_PREPARED:
                pending = pfn + (pfn & -pfn if pfn else 1 << zone.max_order)
            elif flags != PG_IN_USE and flags != both and (flags or pfn >= pending):
                return broken(report, BAD_FLAGS if flags else NOWHERE, pfn, PG_IN_USE, flags)
            pfn += 1
            continue
        free = not mark & HEAD_ON_PCP
        order = mark - 1 if free else mark & ~HEAD_ON_PCP
        if order > zone.max_order or pfn & ((1 << order) - 1) or pfn + (1 << order) > m.max_pfn:
            return broken(report, BAD_PLACE, pfn, 1 << order, mark)
        run = run_length(zone, pfn) if free else 1
        if pfn + (run << order) > m.max_pfn:
            return broken(report, BAD_PLACE, pfn, run << order, mark)
        report[ORDER] = order
        reason = check_block(zone, pfn, run << order, report)
        if reason == WHOLE and free:
            reason = check_merged(zone, pfn, order, report)
            if reason == WHOLE and zone.features & LIST_TYPE_IS_BLOCK_TYPE:
                reason = check_block_list(zone, pfn, order, report)
        if reason != WHOLE:
            return reason
        report[ORDER] = NONE
        for block in range(run):
            at = pfn + (block << order)
            # spans of nodes may interleave: what is another zone's is counted there
            if page_zone(m, at) == zone.number:
                heads += 1
                if get_pageblock_migratetype(zone, at) == NO_TYPE:
                    return broken(report, BLOCK_TYPE, at, zone.isolate_type, NO_TYPE)
        pfn += run << order
    if heads != listed:
        return broken(report, UNLISTED, NONE, listed, heads)
    return WHOLE


@kernel
def check_sizes(zone: Zone, report: Array[i64]) -> int:
    """Check watermarks, pageblock types and what is counted of them."""
    low = zone.watermark[WMARK_LOW]
    if not 0 <= zone.watermark[WMARK_MIN] <= low <= zone.watermark[WMARK_HIGH]:
        return broken(report, WATERMARKS, NONE, zone.watermark[WMARK_MIN], low)
    if zone.watermark_boost < 0 or zone.nr_reserved_highatomic < 0:
        return broken(report, WATERMARKS, NONE, 0, zone.watermark_boost)
    isolated = 0
    highatomic = 0
    for block in range(len(zone.pageblock_flags)):
        mt = int(zone.pageblock_flags[block])
        if mt > zone.isolate_type and mt != NO_TYPE:
            pfn = (zone.first_block + block) << zone.pageblock_order
            return broken(report, BLOCK_TYPE, pfn, zone.isolate_type, mt)
        isolated += int(mt == zone.isolate_type)
        highatomic += int(mt == MIGRATE_HIGHATOMIC)
    if zone.features & ISOLATED_IS_FREE:
        isolated = 0  # such a kernel does not count them, and a fallback may claim one
    if isolated != zone.nr_isolate_pageblock:
        return broken(report, NR_ISOLATED, NONE, isolated, zone.nr_isolate_pageblock)
    reserved = 0 if zone.features & RESERVE_BLOCKS else highatomic << zone.pageblock_order
    too_many = reserved < zone.nr_reserved_highatomic and zone.features & HIGHATOMIC_WHOLE_BLOCKS
    if reserved > zone.nr_reserved_highatomic or too_many:
        return broken(report, NR_HIGHATOMIC, NONE, reserved, zone.nr_reserved_highatomic)
    return WHOLE


@kernel
def check_zone(h: int, number: int, report: Array[i64]) -> int:
    """Check everything about a zone; the reason of the first broken invariant, or WHOLE."""
    m = memory_at(h)
    zone = m.zones[number]
    for field in range(LENGTH + 1):
        report[field] = NONE
    reason = check_sizes(zone, report)
    if reason == WHOLE:
        reason = check_free_lists(m, zone, report)
    if reason != WHOLE:
        return reason
    listed = report[LENGTH]
    waiting = 0
    for cpu in range(m.nr_cpus):
        reason = check_pcp(m, zone, cpu, report)
        if reason != WHOLE:
            return reason
        listed += report[LENGTH]
        waiting += zone.pageset[cpu].count
    report[CPU] = NONE
    if zone.nr_free_pages + waiting > zone.managed_pages:
        free = zone.nr_free_pages + waiting
        return broken(report, TOO_MUCH, NONE, zone.managed_pages, free)
    turn_runs(zone, True)
    reason = check_frames(m, zone, listed, report)
    turn_runs(zone, False)
    return reason
