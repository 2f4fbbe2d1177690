# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones, page frames: the records that hold the whole state of a machine's memory.

Linux: include/linux/mmzone.h, include/linux/mm_types.h (2.6.24, 6.1)

One `Memory` record holds everything; a kernel reaches all else through it or through a `Zone`.
Links are frame numbers, so the state can be copied, saved and compared as bytes. Zero means "not
the head of a free block", so that memory never looked at costs nothing.

    Memory -> zones[z] -> free_area[order].head[mt] -> mem_map[...]   free blocks
                       -> pageset[cpu].head[pindex]  -> mem_map[...]   per-CPU lists
                       -> pageblock_flags[block]                       migratetype of each pageblock
           -> zonelist[nid * nr_zones ...]                          where a request looks, in order

Each list is a ring through `mem_map`: behind the frames lie the list heads, records of the same
kind, so that adding and unlinking know no special case.

Invariants (named as `validate()` names them)
    free_order        a free block's head is a multiple of its size and the block is inside the zone
    free_disjoint     no frame is in two free blocks, or in one and on a per-CPU list
    free_coalesced    no two buddies of one order are both free (except across a pageblock barrier)
    list_links        next and prev agree; every member says the list's order and migratetype
    nr_free           free_area[order].nr_free counts the blocks of that order on all lists
    nr_free_pages     = sum over orders of nr_free << order (ISOLATE left out, unless it is free)
    nr_free_cma       = the same over the CMA lists
    nr_free_highatomic  FREE_HIGHATOMIC: the same over the HIGHATOMIC lists
    pcp_count         pageset[cpu].count = sum over its lists of length << order; cold_count, too
    pcp_lists         blocks are aligned, in the zone, and of a cached type that belongs on the list
    in_use            a frame is in use, free, on a per-CPU list or not managed: exactly one
    pageblocks        types exist; isolated and HIGHATOMIC ones are as many as counted (6.1 forgets
                      to count some of the latter down)
    watermark         0 <= min <= low <= high, no negative boost
    block_list        LIST_TYPE_IS_BLOCK_TYPE: a free block is on the list of its pageblocks' type
    address_order     ADDRESS_ORDER: lists ascend, and their maps agree
    tree_free         TREES: what is counted of each tree is on the lists
    confined          CONFINED: no pageblock is MOVABLE inside the region, all are outside
"""

from typing import Annotated

from physmem.lib.struct import Array, i64, struct, u8, u32

NR_PAGE_ORDERS = 14
"""Orders a record has room for; the orders in use are 0..max_order (10 with 4 KiB pages)."""
MAX_NR_ZONES = 6
MIGRATE_TYPES = 6
NR_PCP_LISTS = 14
NR_WMARK = 4
NR_HOOKS = 5
NR_VERDICT = 6

MIGRATE_UNMOVABLE = 0
MIGRATE_MOVABLE = 1
MIGRATE_RECLAIMABLE = 2
MIGRATE_PCPTYPES = 3
MIGRATE_HIGHATOMIC = 3
MIGRATE_RESERVE = 3
"""Where a kernel has MIGRATE_RESERVE: it never has HIGHATOMIC as well (`features`)."""

WMARK_MIN = 0
WMARK_LOW = 1
WMARK_HIGH = 2
WMARK_PROMO = 3

PAGE_ALLOC_COSTLY_ORDER = 3
NONE = -1
"""No frame."""

HEAD_IN_USE = 0x80
"""`Page.order` of the first frame of an allocated block: this bit and the order."""
HEAD_ON_PCP = 0x40
"""`Page.order` of the first frame of a block on a per-CPU list: this bit and the order."""

PG_IN_USE = 1
"""`Page.flags`: the frame belongs to an allocated block."""
PG_MOVABLE = 2
"""`Page.flags`: allocated with __GFP_MOVABLE: stands for "on an LRU list" in fallbacks."""
PG_PREPARED = 4
"""`Page.flags`: freed in a batch, not yet committed to a list (first frame of the block)."""

ZONE_BOOSTED_WATERMARK = 1
ZONE_RECLAIM_ACTIVE = 2
ZONE_BELOW_HIGH = 4

PCPF_PREV_FREE_HIGH_ORDER = 1
"""`PerCpuPages.flags`: the free before was of order 1 to 3."""
PCPF_FREE_HIGH_BATCH = 2
"""`PerCpuPages.flags`: the CPU's cache is large, a batch of such blocks may stay."""


@struct
class Page:
    """One page frame (16 bytes).

    Linux: struct page, include/linux/mm_types.h (PageBuddy, private, buddy_list, pcp_list)
    """

    next: u32
    prev: u32
    order: u8  # 0; order + 1 of a free block; HEAD_ON_PCP | order; HEAD_IN_USE | order
    flags: u8  # PG_*
    mt: u8  # free block: type of its list. On a per-CPU list: cached type
    zone: u8  # valid for the head of a free block: number of its zone
    private: u32  # free for the owner of the frame (slab, page tables, replay)


@struct
class FreeArea:
    """Free blocks of one order.

    Linux: struct free_area, include/linux/mmzone.h
    """

    nr_free: i64  # blocks, all migratetypes together
    head: Annotated[Array[i64], MIGRATE_TYPES]  # list head (index in mem_map) per migratetype


@struct
class PerCpuPages:
    """Free blocks that one CPU keeps of one zone.

    `high` is fixed in 6.1; with auto-tuning it moves between `high_min` and `high_max`.

    Linux: struct per_cpu_pages, include/linux/mmzone.h (6.1, 6.12)
    """

    count: i64  # frames on all lists
    high: i64  # frames: at this count the lists are drained
    batch: i64  # frames per refill or drain
    free_factor: i64  # doublings of the drain batch while only frees come
    expire: i64  # seconds until a remote zone's lists are drained (NUMA)
    # with `features.HOT_COLD`: head[0] is the hot list, which high and batch are for; head[1] is
    cold_count: i64  # the cold one: frames on it, which `count` counts too
    cold_high: i64
    cold_batch: i64
    high_min: i64  # bounds of `high`; this and the fields below: PCP_AUTO_TUNING
    high_max: i64
    alloc_factor: i64  # doublings of the refill while only allocations come
    free_count: i64  # frames freed lately, halved by each allocation
    flags: i64  # PCPF_*
    head: Annotated[Array[i64], NR_PCP_LISTS]  # list head (index in mem_map) per pindex


@struct
class Zone:
    """One populated zone of one node.

    Linux: struct zone, include/linux/mmzone.h
    """

    number: i64  # index in Memory.zones
    node: i64
    zone_idx: i64  # ZONE_DMA = 0 ...; the architecture says which zones exist
    start_pfn: i64
    end_pfn: i64  # start_pfn + spanned_pages
    spanned_pages: i64
    present_pages: i64
    managed_pages: i64
    nr_free_pages: i64  # frames on the free lists, ISOLATE left out
    nr_free_cma: i64
    nr_free_highatomic: i64  # FREE_HIGHATOMIC only: else blocks of mixed types spoil it
    watermark: Annotated[Array[i64], NR_WMARK]  # min, low, high, promo without the boost
    watermark_boost: i64
    nr_reserved_highatomic: i64
    lowmem_reserve: Annotated[Array[i64], MAX_NR_ZONES]
    nr_isolate_pageblock: i64
    zone_flags: i64  # ZONE_*
    pageblock_order: i64
    max_order: i64  # largest order, inclusive
    pcp_thp: i64  # 1: blocks of pageblock order go through the per-CPU lists
    cma_type: i64  # number of MIGRATE_CMA, or NONE
    isolate_type: i64  # number of MIGRATE_ISOLATE
    grouping_disabled: i64  # 1: too little memory to group pages by mobility
    watermark_boost_factor: i64
    features: i64  # physmem.mm.features: the rules of this machine's kernel
    nr_steals: i64  # fallbacks that changed the free lists
    nr_claims: i64  # ... of them: the pageblock changed its type
    first_block: i64  # start_pfn >> pageblock_order
    movable_idx: i64  # zone_idx of ZONE_MOVABLE
    placement: i64  # physmem.mm.placement: rules that no kernel has, or only at a wish; 0: none
    this_cpu: i64  # TREES: CPU of the present request
    tree_order: i64  # TREES: log2 of the frames of a tree
    random: i64  # SHUFFLED: state of the generator
    confined_start: i64  # CONFINED: the region, in frames
    confined_end: i64
    map_pfn: i64  # ADDRESS_ORDER: frame of the first bit of each map
    map_start: Annotated[Array[i64], NR_PAGE_ORDERS + 1]  # first word; last: words of one type
    hook: Annotated[Array[i64], NR_HOOKS]  # addresses of a policy's functions
    verdict: Annotated[Array[i64], NR_VERDICT]  # its first wrong answer (physmem.mm.policy)
    free_area: Annotated[Array[FreeArea], NR_PAGE_ORDERS]
    mem_map: Array[Page]
    pageblock_flags: Array[u8]  # migratetype per pageblock, from first_block on
    pageset: Array[PerCpuPages]  # per CPU
    trace: Array[i64]  # [0] events emitted; then packed tracepoints; empty: tracing is off
    order_map: Array[u32]  # ADDRESS_ORDER: bits of the members of each list
    tree_free: Array[i64]  # TREES: free frames of each tree
    tree_at: Array[i64]  # TREES: by CPU and type: where the search goes on, NONE: nowhere yet
    scratch: Array[i64]  # of the policy, one for all zones


@struct
class Zoneref:
    """One entry of a zonelist.

    Linux: struct zoneref, include/linux/mmzone.h
    """

    zone: i64  # number in Memory.zones
    zone_idx: i64


@struct
class Memory:
    """A machine's memory: everything the allocators know.

    Linux: pg_data_t NODE_DATA[], mem_map and the sysctls of mm/page_alloc.c
    """

    nr_zones: i64
    nr_nodes: i64
    nr_cpus: i64
    max_pfn: i64
    zone_normal: i64  # zone_idx of ZONE_NORMAL
    zone_movable: i64  # zone_idx of ZONE_MOVABLE
    zone_highmem: i64  # zone_idx of ZONE_HIGHMEM, or ZONE_NORMAL where none exists
    zone_dma32: i64  # zone_idx of ZONE_DMA32, or NONE
    zone_dma: i64  # zone_idx of ZONE_DMA, or NONE
    nr_failed: i64  # requests that got nothing
    nr_slowpath: i64  # requests below the low watermark in every zone
    pageblock_order: i64
    features: i64  # physmem.mm.features: the rules of this machine's kernel
    placement: i64  # physmem.mm.placement, as in each zone
    mem_map: Array[Page]
    zones: Array[Zone]
    zonelist: Array[Zoneref]  # row nid: nr_zones entries, nearest first
    cpu_node: Array[i64]  # node of each CPU
    block_zone: Array[u8]  # pfn >> pageblock_order -> number of the first zone there
    trace: Array[i64]
