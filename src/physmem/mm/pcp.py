# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU lists: a CPU's own stock of small blocks of a zone, refilled and drained in batches.

Linux: rmqueue_bulk(), __rmqueue_pcplist(), free_unref_page_commit(), nr_pcp_free(), nr_pcp_high(),
free_pcppages_bulk(), drain_zone_pages(), drain_pages_zone(), mm/page_alloc.c (6.1, 6.12)

There is one list per (order 0..3, migratetype U M R) and, with transparent huge pages, two for
blocks of pageblock order: movable and not. HEAD holds the block freed last; drains take from TAIL.
Kernels with HOT_COLD have other lists (`hot_cold`).
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.buddy import free_one_page
from physmem.mm.claim import MODE_BITS, RMQUEUE_NORMAL, rmqueue_by_mode
from physmem.mm.fallback import rmqueue
from physmem.mm.features import (
    CLAIM_OR_STEAL,
    FREES_READ_BLOCK_TYPE,
    HOT_COLD,
    PCP_AUTO_TUNING,
)
from physmem.mm.hot_cold import drain_hot_cold, drain_hot_cold_batch
from physmem.mm.list import list_add, list_add_tail, list_del
from physmem.mm.mmzone import (
    HEAD_ON_PCP,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    NONE,
    NR_PCP_LISTS,
    PAGE_ALLOC_COSTLY_ORDER,
    ZONE_RECLAIM_ACTIVE,
    PerCpuPages,
    Zone,
)
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.pcp_tuning import (
    PCP_BATCH_SCALE_MAX,
    decayed_high,
    no_longer_below_high,
    nr_pcp_alloc,
    tune_on_free,
    tuned_pcp_free,
    tuned_pcp_high,
)
from physmem.mm.placement import CONFINED
from physmem.mm.tracepoint import PCPU_DRAIN, emit

NR_LOWORDER_PCP_LISTS = 12
DRAIN_BATCHES_SHIFT = 5


@kernel
def order_to_pindex(mt: int, order: int) -> int:
    """Index of the list for a type and an order. Linux: order_to_pindex(), mm/page_alloc.c (6.1)

    Linux commit 5d0a661d808f (v6.6, in 6.1.97): huge blocks, too, are kept apart by mobility.
    """
    if order > PAGE_ALLOC_COSTLY_ORDER:
        return NR_LOWORDER_PCP_LISTS + int(mt == MIGRATE_MOVABLE)
    return MIGRATE_PCPTYPES * order + mt


@kernel
def pindex_to_order(zone: Zone, pindex: int) -> int:
    """Order of the blocks on a list. Linux: pindex_to_order(), mm/page_alloc.c (6.1)"""
    if pindex >= NR_LOWORDER_PCP_LISTS:
        return zone.pageblock_order
    return pindex // MIGRATE_PCPTYPES


@kernel
def rmqueue_bulk(
    zone: Zone, pcp: PerCpuPages, order: int, count: int, mt: int, alloc_flags: int
) -> int:
    """Refill one list at TAIL with up to `count` blocks; the number obtained.

    Linux: rmqueue_bulk(), mm/page_alloc.c (6.1)
    """
    if zone.features & CLAIM_OR_STEAL:
        return refill_claiming(zone, pcp, order, count, mt, alloc_flags)
    head = pcp.head[order_to_pindex(mt, order)]
    got = 0
    while got < count:
        pfn = rmqueue(zone, order, mt, alloc_flags)
        if pfn == NONE:
            break
        if zone.mem_map[pfn].mt == zone.cma_type:
            zone.nr_free_cma -= 1 << order
        list_add_tail(zone, pfn, head)
        zone.mem_map[pfn].order = HEAD_ON_PCP | order
        got += 1
    zone.nr_free_pages -= got << order
    return got


@kernel
def refill_claiming(
    zone: Zone, pcp: PerCpuPages, order: int, count: int, mt: int, alloc_flags: int
) -> int:
    """Refill one list as `rmqueue_bulk` does, each block counted when it is taken.

    Linux: rmqueue_bulk(), mm/page_alloc.c (6.12.29+)
    """
    head = pcp.head[order_to_pindex(mt, order)]
    mode = RMQUEUE_NORMAL
    for got in range(count):
        found = rmqueue_by_mode(zone, order, mt, alloc_flags, mode)
        if found == NONE:
            return got
        mode = found & ((1 << MODE_BITS) - 1)
        pfn = found >> MODE_BITS
        zone.nr_free_pages -= 1 << order
        if zone.mem_map[pfn].mt == zone.cma_type:
            zone.nr_free_cma -= 1 << order
        list_add_tail(zone, pfn, head)
        zone.mem_map[pfn].order = HEAD_ON_PCP | order
    return count


@inlined
def rmqueue_pcplist(zone: Zone, pcp: PerCpuPages, order: int, mt: int, alloc_flags: int) -> int:
    """Take a block off a per-CPU list, refilling it when it is empty; its pfn or NONE.

    Linux: __rmqueue_pcplist(), mm/page_alloc.c (6.1)
    """
    head = pcp.head[order_to_pindex(mt, order)]
    pfn = int(zone.mem_map[head].next)
    if pfn == head:
        batch = pcp.batch
        if zone.features & PCP_AUTO_TUNING:
            batch = nr_pcp_alloc(zone, pcp, order)
        elif batch > 1:
            batch = max(batch >> order, 2)
        pcp.count += rmqueue_bulk(zone, pcp, order, batch, mt, alloc_flags) << order
        pfn = int(zone.mem_map[head].next)
        if pfn == head:
            return NONE
    list_del(zone, pfn)
    pcp.count -= 1 << order
    return pfn


@kernel
def nr_pcp_free(pcp: PerCpuPages, high: int, free_high: bool) -> int:
    """Frames to drain now: doubles while only frees come.

    Linux: nr_pcp_free(), mm/page_alloc.c (6.1)
    """
    if free_high:
        return pcp.count
    batch = pcp.batch
    if high < batch:
        return 1
    least = batch
    most = high - batch
    batch <<= pcp.free_factor
    if batch < most and pcp.free_factor < PCP_BATCH_SCALE_MAX:
        pcp.free_factor += 1
    return min(max(batch, least), most)


@kernel
def nr_pcp_high(zone: Zone, pcp: PerCpuPages, free_high: bool) -> int:
    """Frames at which the lists are drained. Linux: nr_pcp_high(), mm/page_alloc.c (6.1)"""
    if pcp.high == 0 or free_high:
        return 0
    if not zone.zone_flags & ZONE_RECLAIM_ACTIVE:
        return pcp.high
    return min(pcp.batch << 2, pcp.high)


@kernel
def free_pcppages_bulk(zone: Zone, pcp: PerCpuPages, count: int, pindex: int) -> None:
    """Give at least `count` frames back to the free lists, oldest first, from list `pindex` on.

    Each list is emptied before the next non-empty one, cyclically. A block goes back under the type
    cached in its first frame; while pageblocks are isolated, and where frees read the pageblock,
    under the type of its pageblock.

    Linux: free_pcppages_bulk(), mm/page_alloc.c (6.1)
    """
    count = min(count, pcp.count)
    by_block = zone.nr_isolate_pageblock > 0 or zone.features & FREES_READ_BLOCK_TYPE != 0
    by_block = by_block or zone.placement & CONFINED != 0
    pindex -= 1
    while count > 0:
        pindex += 1
        if pindex == NR_PCP_LISTS:
            pindex = 0
        head = pcp.head[pindex]
        pfn = int(zone.mem_map[head].prev)
        if pfn == head:
            continue
        order = pindex_to_order(zone, pindex)
        while count > 0 and pfn != head:
            mt = int(zone.mem_map[pfn].mt)
            list_del(zone, pfn)
            count -= 1 << order
            pcp.count -= 1 << order
            if by_block:
                mt = get_pageblock_migratetype(zone, pfn)
            zone.mem_map[pfn].order = 0
            free_one_page(zone, pfn, order, mt, False)
            emit(zone, PCPU_DRAIN, pfn, order, mt, 0)
            pfn = int(zone.mem_map[head].prev)


@inlined
def free_unref_page_commit(zone: Zone, pcp: PerCpuPages, pfn: int, order: int, mt: int) -> None:
    """Put a freed block on its list, and drain when the lists hold too much.

    Linux: free_unref_page_commit(), mm/page_alloc.c (6.1)
    """
    pindex = order_to_pindex(mt, order)
    list_add(zone, pfn, pcp.head[pindex])
    zone.mem_map[pfn].order = HEAD_ON_PCP | order
    pcp.count += 1 << order
    if zone.features & PCP_AUTO_TUNING:
        free_high = tune_on_free(pcp, order)
        high = tuned_pcp_high(zone, pcp, free_high)
        if pcp.count >= high:
            free_pcppages_bulk(zone, pcp, tuned_pcp_free(pcp, high, free_high), pindex)
            no_longer_below_high(zone)
        return
    free_high = pcp.free_factor > 0 and 0 < order <= PAGE_ALLOC_COSTLY_ORDER
    high = nr_pcp_high(zone, pcp, free_high)
    if pcp.count >= high:
        free_pcppages_bulk(zone, pcp, nr_pcp_free(pcp, high, free_high), pindex)


@kernel
def drain_zone_pages(zone: Zone, cpu: int) -> None:
    """Drain one batch of a CPU's lists (a remote zone that it has not used for seconds).

    Linux: drain_zone_pages(), mm/page_alloc.c (6.1)
    """
    pcp = zone.pageset[cpu]
    if zone.features & HOT_COLD:
        drain_hot_cold_batch(zone, pcp)
        return
    to_drain = min(pcp.count, pcp.batch)
    if to_drain > 0:
        free_pcppages_bulk(zone, pcp, to_drain, 0)


@kernel
def decay_pcp_high(zone: Zone, cpu: int) -> None:
    """Once a second: let a CPU's `high` fall, drain what its lists hold above it, by batches.

    Linux: decay_pcp_high(), mm/page_alloc.c (6.12.67+)
    """
    pcp = zone.pageset[cpu]
    to_drain = decayed_high(pcp)
    while to_drain > 0:
        free_pcppages_bulk(zone, pcp, min(to_drain, pcp.batch), 0)
        to_drain -= pcp.batch


@kernel
def drain_pages_zone(zone: Zone, cpu: int) -> None:
    """Drain all of a CPU's lists. Linux: drain_pages_zone(), mm/page_alloc.c (6.1.104+)"""
    pcp = zone.pageset[cpu]
    if zone.features & HOT_COLD:
        drain_hot_cold(zone, pcp)
        return
    while pcp.count > 0:
        free_pcppages_bulk(zone, pcp, min(pcp.count, pcp.batch << DRAIN_BATCHES_SHIFT), 0)
