# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of one allocation: from flags to zones to lists; and the way back.

Linux: __alloc_pages(), get_page_from_freelist(), rmqueue(), __alloc_pages_bulk(), mm/page_alloc.c
(6.1.170, 6.12.107)

1. `gfp_zone`, `gfp_migratetype`: the flags say which zones may serve and how mobile the block is.
2. `get_page_from_freelist` walks the zonelist of the CPU's node: the first zone above its low
   watermark serves; a request for ZONE_NORMAL first avoids mixing mobilities (ALLOC_NOFRAGMENT).
3. `rmqueue_zone` takes the block off the CPU's own lists, which are refilled from the free lists in
   batches, or straight off the free lists.
4. When no zone is above its low watermark: once more down to the minimum, with the reserves that
   the request may touch (`gfp_to_alloc_flags`).

5. A request that may wait gets back what is reserved for atomic ones, and tries again.

DEVIATION: reclaim, compaction and the OOM killer are not modelled: a request that would have to
wait for them fails here. `Memory.nr_slowpath` and `nr_failed` count such requests.
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.alloc_flags import (
    ALLOC_CMA,
    ALLOC_COLD,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_PCP_BUSY,
    ALLOC_WMARK_HIGH,
    ALLOC_WMARK_LOW,
    ALLOC_WMARK_MASK,
    ALLOC_WMARK_MIN,
)
from physmem.mm.buddy import pcp_allowed_order, rmqueue_smallest
from physmem.mm.claim import rmqueue_claiming
from physmem.mm.fallback import rmqueue
from physmem.mm.features import (
    BELOW_HIGH,
    CLAIM_OR_STEAL,
    CLASSZONE_IS_FIRST_ZONE,
    HIGHATOMIC,
    HOT_COLD,
    LOCAL_GIVES_UP,
    NOFRAGMENT,
)
from physmem.mm.gfp_bits import (
    GFP_COLD_BIT,
    GFP_DIRECT_RECLAIM_BIT,
    GFP_DMA32_BIT,
    GFP_DMA_BIT,
    GFP_HIGH_BIT,
    GFP_HIGHMEM_BIT,
    GFP_KSWAPD_RECLAIM_BIT,
    GFP_LOCAL_ONLY,
    GFP_MEMALLOC_BIT,
    GFP_MOVABLE_BIT,
    GFP_MOVABLE_MASK,
    GFP_MOVABLE_SHIFT,
    GFP_NOMEMALLOC_BIT,
    GFP_NORETRY_BIT,
    GFP_RETRY_MAYFAIL_BIT,
    GFP_THISNODE_BIT,
)
from physmem.mm.highatomic import reserve_highatomic_pageblock, unreserve_highatomic
from physmem.mm.hot_cold import rmqueue_hot_cold
from physmem.mm.mmzone import (
    HEAD_IN_USE,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    NONE,
    PAGE_ALLOC_COSTLY_ORDER,
    PG_IN_USE,
    PG_MOVABLE,
    ZONE_BOOSTED_WATERMARK,
    Memory,
    Zone,
)
from physmem.mm.pcp import rmqueue_pcplist
from physmem.mm.placement import DEFRAG, HOOKED_MIGRATETYPE, TREES
from physmem.mm.policy import ask_migratetype
from physmem.mm.watermark import above_high_mark, wmark_pages, zone_watermark_fast


@kernel
def gfp_zone(m: Memory, gfp: int) -> int:
    """Highest zone index that may serve a request.

    Linux: gfp_zone(), include/linux/gfp.h (6.1)
    """
    if gfp & GFP_DMA_BIT and m.zone_dma != NONE:
        return m.zone_dma
    if gfp & GFP_DMA32_BIT and m.zone_dma32 != NONE:
        return m.zone_dma32
    if gfp & GFP_HIGHMEM_BIT:
        return m.zone_movable if gfp & GFP_MOVABLE_BIT else m.zone_highmem
    return m.zone_normal


@kernel
def gfp_migratetype(zone: Zone, gfp: int) -> int:
    """Migratetype of a request. Linux: gfp_migratetype(), include/linux/gfp.h (6.1)

    Linux warns of a request that is both movable and reclaimable; here it is movable.
    """
    if zone.grouping_disabled:
        return MIGRATE_UNMOVABLE
    if gfp & GFP_MOVABLE_BIT:
        return MIGRATE_MOVABLE
    return (gfp & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT


@kernel
def request_migratetype(zone: Zone, order: int, gfp: int) -> int:
    """Migratetype that a request is served from: that of its flags, or what a policy says."""
    mt = gfp_migratetype(zone, gfp)
    if zone.placement & HOOKED_MIGRATETYPE:
        return ask_migratetype(zone, order, gfp, mt)
    return mt


@kernel
def mark_in_use(zone: Zone, pfn: int, order: int, gfp: int) -> None:
    """Note that the frames of a block are in use, and whether they can be moved.

    Linux: prep_new_page(), mm/page_alloc.c (6.1)
    """
    flags = PG_IN_USE | PG_MOVABLE if gfp & GFP_MOVABLE_BIT else PG_IN_USE
    zone.mem_map[pfn].order = HEAD_IN_USE | order
    for frame in range(pfn, pfn + (1 << order)):
        zone.mem_map[frame].flags = flags


@kernel
def rmqueue_buddy(zone: Zone, order: int, mt: int, alloc_flags: int) -> int:
    """Take a block straight off the free lists; its pfn or NONE.

    Linux: rmqueue_buddy(), mm/page_alloc.c (6.1)
    """
    pfn = NONE
    if alloc_flags & ALLOC_HIGHATOMIC:
        pfn = rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC)
    if pfn == NONE:
        if zone.features & CLAIM_OR_STEAL:
            pfn = rmqueue_claiming(zone, order, mt, alloc_flags)
        else:
            pfn = rmqueue(zone, order, mt, alloc_flags)
        if pfn == NONE and alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            pfn = rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC)
        if pfn == NONE:
            return NONE
    zone.nr_free_pages -= 1 << order
    if zone.mem_map[pfn].mt == zone.cma_type:
        zone.nr_free_cma -= 1 << order
    elif zone.mem_map[pfn].mt == MIGRATE_HIGHATOMIC:
        zone.nr_free_highatomic -= 1 << order
    return pfn


@inlined
def rmqueue_zone(zone: Zone, order: int, mt: int, alloc_flags: int, cpu: int) -> int:
    """Take a block from one zone; its pfn or NONE. Linux: rmqueue(), mm/page_alloc.c (6.1)"""
    if zone.placement & TREES:
        zone.this_cpu = cpu
    if zone.features & HOT_COLD:
        return rmqueue_hot_cold(zone, order, mt, alloc_flags, cpu)
    pfn = NONE
    if (
        pcp_allowed_order(zone, order)
        and not alloc_flags & ALLOC_PCP_BUSY
        # a movable list may hold CMA frames, which this request must not get
        and (zone.cma_type == NONE or mt != MIGRATE_MOVABLE or alloc_flags & ALLOC_CMA)
    ):
        pcp = zone.pageset[cpu]
        pcp.free_factor >>= 1
        pcp.free_count >>= 1
        pfn = rmqueue_pcplist(zone, pcp, order, mt, alloc_flags)
    if pfn == NONE:
        pfn = rmqueue_buddy(zone, order, mt, alloc_flags)
    # kswapd is woken here; it is not modelled
    zone.zone_flags &= ~ZONE_BOOSTED_WATERMARK
    return pfn


@kernel
def first_zoneref(m: Memory, nid: int, highest_zoneidx: int) -> int:
    """Position in the zonelist of the preferred zone, or NONE.

    Linux: first_zones_zonelist(), include/linux/mmzone.h (6.1)
    """
    for at in range(nid * m.nr_zones, (nid + 1) * m.nr_zones):
        if m.zonelist[at].zone != NONE and m.zonelist[at].zone_idx <= highest_zoneidx:
            return at
    return NONE


@kernel
def alloc_flags_nofragment(m: Memory, preferred: int, gfp: int) -> int:
    """Flags of the first attempt: wake kswapd, and keep mobilities apart in ZONE_NORMAL.

    With DEFRAG everywhere.

    Linux: alloc_flags_nofragment(), mm/page_alloc.c (6.1; defrag_mode: 6.15)
    """
    flags = gfp & GFP_KSWAPD_RECLAIM_BIT
    if m.placement & DEFRAG:
        return flags | ALLOC_NOFRAGMENT
    if not m.features & NOFRAGMENT or m.zone_dma32 == NONE:
        return flags
    if m.zonelist[preferred].zone_idx != m.zone_normal:
        return flags
    if m.nr_nodes > 1:
        below = m.zonelist[preferred].zone - 1
        node = m.zones[m.zonelist[preferred].zone].node
        if below < 0 or m.zones[below].node != node or m.zones[below].zone_idx != m.zone_normal - 1:
            return flags
    return flags | ALLOC_NOFRAGMENT


@kernel
def gfp_to_alloc_flags(m: Memory, gfp: int, order: int) -> int:
    """Flags of the second attempt: down to the minimum, with the reserves the request may touch.

    Linux: gfp_to_alloc_flags(), __gfp_pfmemalloc_flags(), mm/page_alloc.c (6.1.157+)
    """
    flags = ALLOC_WMARK_MIN
    if gfp & GFP_HIGH_BIT:
        flags |= ALLOC_MIN_RESERVE
    if gfp & GFP_KSWAPD_RECLAIM_BIT:
        flags |= ALLOC_KSWAPD
    if gfp & GFP_DIRECT_RECLAIM_BIT:
        pass
    elif not m.features & HIGHATOMIC:
        flags |= ALLOC_NON_BLOCK  # __GFP_NOMEMALLOC is about other reserves
    elif not gfp & GFP_NOMEMALLOC_BIT:
        flags |= ALLOC_NON_BLOCK
        if order > 0 and gfp & GFP_HIGH_BIT:
            flags |= ALLOC_HIGHATOMIC
    if gfp & GFP_MOVABLE_BIT:
        flags |= ALLOC_CMA
    if m.placement & DEFRAG:
        flags |= ALLOC_NOFRAGMENT
    return flags


@inlined
def get_page_from_freelist(
    m: Memory, order: int, gfp: int, alloc_flags: int, preferred: int, cpu: int
) -> int:
    """Walk the zonelist; the first zone above its watermark that has a block serves.

    Linux: get_page_from_freelist(), mm/page_alloc.c (6.1)
    """
    highest_zoneidx = gfp_zone(m, gfp)
    classzone_idx = highest_zoneidx
    if m.features & CLASSZONE_IS_FIRST_ZONE:
        classzone_idx = m.zonelist[preferred].zone_idx
    local_nid = m.zones[m.zonelist[preferred].zone].node
    nid = preferred // m.nr_zones
    while True:
        for at in range(preferred, (nid + 1) * m.nr_zones):
            number = m.zonelist[at].zone
            if number == NONE:
                break
            zone = m.zones[number]
            if m.zonelist[at].zone_idx > highest_zoneidx:
                continue
            if gfp & GFP_THISNODE_BIT and zone.node != nid:
                continue
            if (
                alloc_flags & ALLOC_NOFRAGMENT
                and m.nr_nodes > 1
                and zone.node != local_nid
                and m.placement & DEFRAG == 0
            ):
                break  # a fragmented local node is better than a remote one
            mark = wmark_pages(zone, alloc_flags & ALLOC_WMARK_MASK)
            if (
                (
                    zone.features & BELOW_HIGH
                    and above_high_mark(zone, order, classzone_idx, alloc_flags, gfp)
                )
                or alloc_flags & ALLOC_NO_WATERMARKS
                or zone_watermark_fast(zone, order, mark, classzone_idx, alloc_flags, gfp)
            ):
                mt = request_migratetype(zone, order, gfp)
                pfn = rmqueue_zone(zone, order, mt, alloc_flags, cpu)
                if pfn != NONE:
                    mark_in_use(zone, pfn, order, gfp)
                    if order > 0 and alloc_flags & ALLOC_HIGHATOMIC:
                        reserve_highatomic_pageblock(zone, pfn, order)
                    return pfn
        if not alloc_flags & ALLOC_NOFRAGMENT or m.placement & DEFRAG:
            return NONE
        alloc_flags &= ~ALLOC_NOFRAGMENT


@kernel
def waits_for_memory(gfp: int, order: int) -> bool:
    """Tell whether a request goes on when reclaim finds nothing, up to the OOM killer.

    Linux: __alloc_pages_slowpath(), mm/page_alloc.c (6.1)
    """
    if not gfp & GFP_DIRECT_RECLAIM_BIT or gfp & GFP_NORETRY_BIT:
        return False
    return order <= PAGE_ALLOC_COSTLY_ORDER or gfp & GFP_RETRY_MAYFAIL_BIT != 0


@kernel
def alloc_pages_slowpath(
    m: Memory, order: int, gfp: int, preferred: int, cpu: int, busy: int
) -> int:
    """Allocate below the low watermarks, with the rights of the request; the first pfn, or NONE.

    A request that may wait gets what was set aside for atomic ones before it fails, pageblock by
    pageblock; the last look goes up to the high mark, in case somebody freed memory meanwhile.

    Linux: __alloc_pages_slowpath(), should_reclaim_retry(), __alloc_pages_may_oom(),
    mm/page_alloc.c (6.1)
    """
    m.nr_slowpath += 1
    if m.features & LOCAL_GIVES_UP and m.nr_nodes > 1 and gfp & GFP_LOCAL_ONLY == GFP_LOCAL_ONLY:
        m.nr_failed += 1
        return NONE
    flags = gfp_to_alloc_flags(m, gfp, order) | busy
    has_rights = gfp & GFP_MEMALLOC_BIT and not gfp & GFP_NOMEMALLOC_BIT
    is_last = not m.features & HIGHATOMIC or not waits_for_memory(gfp, order)
    while True:
        pfn = get_page_from_freelist(m, order, gfp, flags, preferred, cpu)
        if pfn != NONE:
            return pfn
        if has_rights:
            # this right replaces the others: what it gets is not set aside for atomic requests
            has_rights = False
            flags = ALLOC_NO_WATERMARKS | (flags & (ALLOC_KSWAPD | ALLOC_CMA)) | busy
            continue
        if not is_last:
            only_node = preferred // m.nr_zones if gfp & GFP_THISNODE_BIT else NONE
            mt = request_migratetype(m.zones[m.zonelist[preferred].zone], order, gfp)
            if unreserve_highatomic(m, preferred, gfp_zone(m, gfp), mt, only_node):
                continue
        if flags & ALLOC_NOFRAGMENT:
            flags &= ~ALLOC_NOFRAGMENT  # DEFRAG: better a mixed pageblock than nothing
            continue
        if is_last:
            break
        is_last = True
        flags = ALLOC_WMARK_HIGH | busy
    m.nr_failed += 1
    return NONE


@kernel
def alloc_pages(m: Memory, order: int, gfp: int, nid: int, cpu: int, busy: int) -> int:
    """Allocate 2**order frames for a CPU, looking first on node `nid`; the first pfn, or NONE.

    `busy` is 0, or ALLOC_PCP_BUSY when an interrupt hit while the CPU's lists were locked.

    Linux: __alloc_pages(), mm/page_alloc.c (6.1)
    """
    if order > m.zones[0].max_order:
        m.nr_failed += 1
        return NONE
    preferred = first_zoneref(m, nid, gfp_zone(m, gfp))
    if preferred == NONE:
        m.nr_failed += 1
        return NONE
    if gfp & GFP_COLD_BIT:
        busy |= ALLOC_COLD
    flags = ALLOC_WMARK_LOW | busy | alloc_flags_nofragment(m, preferred, gfp)
    if gfp & GFP_MOVABLE_BIT:
        flags |= ALLOC_CMA
    pfn = get_page_from_freelist(m, order, gfp, flags, preferred, cpu)
    if pfn != NONE:
        return pfn
    return alloc_pages_slowpath(m, order, gfp, preferred, cpu, busy)


@kernel
def bulk_flags(gfp: int) -> int:
    """Flags of a bulk request: it neither wakes kswapd nor avoids fragmentation.

    Linux: __alloc_pages_bulk(), prepare_alloc_pages(), mm/page_alloc.c (6.1)
    """
    return ALLOC_WMARK_LOW | ALLOC_CMA if gfp & GFP_MOVABLE_BIT else ALLOC_WMARK_LOW


@kernel
def bulk_zone(m: Memory, nr_pages: int, gfp: int, nid: int) -> int:
    """Zone that the bulk allocator takes all its frames from, or NONE.

    Linux: __alloc_pages_bulk(), mm/page_alloc.c (6.1)
    """
    highest_zoneidx = gfp_zone(m, gfp)
    preferred = first_zoneref(m, nid, highest_zoneidx)
    if preferred == NONE:
        return NONE
    local_nid = m.zones[m.zonelist[preferred].zone].node
    if gfp & GFP_THISNODE_BIT and local_nid != nid:
        return NONE
    flags = bulk_flags(gfp)
    for at in range(preferred, (preferred // m.nr_zones + 1) * m.nr_zones):
        number = m.zonelist[at].zone
        if number == NONE:
            break
        if m.zonelist[at].zone_idx > highest_zoneidx:
            continue
        zone = m.zones[number]
        if zone.node != local_nid:
            break
        mark = wmark_pages(zone, ALLOC_WMARK_LOW) + nr_pages
        # Linux passes the index of the preferred zone here, not that of the request
        if zone_watermark_fast(zone, 0, mark, m.zonelist[preferred].zone_idx, flags, gfp):
            return number
    return NONE


@kernel
def bulk_page(m: Memory, number: int, gfp: int, cpu: int) -> int:
    """One frame of a bulk request, taken silently off the per-CPU list; its pfn or NONE.

    Linux: __alloc_pages_bulk(), mm/page_alloc.c (6.1); free_factor is left alone
    """
    zone = m.zones[number]
    mt = request_migratetype(zone, 0, gfp)
    if zone.placement & TREES:
        zone.this_cpu = cpu
    pfn = rmqueue_pcplist(zone, zone.pageset[cpu], 0, mt, bulk_flags(gfp))
    if pfn != NONE:
        mark_in_use(zone, pfn, 0, gfp)
    return pfn
