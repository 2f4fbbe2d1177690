# SPDX-License-Identifier: GPL-2.0-or-later
"""Slabs, CPU slabs and node lists: the records that hold the whole state of SLUB.

Linux: include/linux/slub_def.h, mm/slab.h (6.1)

One `SlubMemory` record holds everything. Objects are known by their addresses in the kernel's
direct map; while an object is free, the link to the next free one lies in its own bytes.

    SlubMemory -> kmem_caches[n] -> cpu_slab[cpu]   freelist, slab, chain of partial slabs
                                 -> node_lists[nid] partial (and full) slabs, counters
               -> slab_map[pfn]                     what a frame belongs to

A slab is in exactly one place: a CPU's slab, a CPU's partial chain, a node's partial list, or full
and on no list.

Invariants (named as `validate()` names them)
    slab_objects      inuse + length of the free chain = objects of the slab
    slab_place        every slab is in exactly one place; full ones are on none
    freelist          free objects are distinct and lie at multiples of the stride
    nr_partial        = length of the node's partial list
    nr_slabs          = slabs of the cache on that node; total_objects = sum of their objects
    chain_slabs       a chain member counts itself and all behind it
    live_objects      an object is marked as allocated exactly when it is on no free chain
    frames            the frames of a slab are one allocated block of the page allocator
"""

from typing import Annotated

from physmem.lib.struct import Array, i64, struct, u8, u16, u32

NO_SLAB = 0xFFFFFFFF
"""No frame, as a link between slabs."""
NO_CACHE = 0xFFFF

FRAME_FREE = 0
FRAME_SLAB = 1  # first frame of a slab
FRAME_SLAB_TAIL = 2
FRAME_LARGE = 3  # first frame of a kmalloc that the page allocator served
FRAME_LARGE_TAIL = 4

STATS = (
    "alloc_fastpath",
    "alloc_slowpath",
    "free_fastpath",
    "free_slowpath",
    "free_frozen",
    "free_add_partial",
    "free_remove_partial",
    "alloc_from_partial",
    "alloc_slab",
    "alloc_refill",
    "alloc_node_mismatch",
    "free_slab",
    "cpuslab_flush",
    "deactivate_full",
    "deactivate_empty",
    "deactivate_to_head",
    "deactivate_to_tail",
    "deactivate_remote_frees",
    "deactivate_bypass",
    "order_fallback",
    "cpu_partial_alloc",
    "cpu_partial_free",
    "cpu_partial_node",
    "cpu_partial_drain",
)
"""Counters of CONFIG_SLUB_STATS, by number."""
(
    ALLOC_FASTPATH,
    ALLOC_SLOWPATH,
    FREE_FASTPATH,
    FREE_SLOWPATH,
    FREE_FROZEN,
    FREE_ADD_PARTIAL,
    FREE_REMOVE_PARTIAL,
    ALLOC_FROM_PARTIAL,
    ALLOC_SLAB,
    ALLOC_REFILL,
    ALLOC_NODE_MISMATCH,
    FREE_SLAB,
    CPUSLAB_FLUSH,
    DEACTIVATE_FULL,
    DEACTIVATE_EMPTY,
    DEACTIVATE_TO_HEAD,
    DEACTIVATE_TO_TAIL,
    DEACTIVATE_REMOTE_FREES,
    DEACTIVATE_BYPASS,
    ORDER_FALLBACK,
    CPU_PARTIAL_ALLOC,
    CPU_PARTIAL_FREE,
    CPU_PARTIAL_NODE,
    CPU_PARTIAL_DRAIN,
) = range(len(STATS))
NR_STATS = 24
SHRINK_PROMOTE_MAX = 32
NR_CLASSES = 14
NR_TYPES = 4


@struct
class Slab:
    """One frame as SLUB sees it (32 bytes); what says nothing of tails is in the first frame.

    Linux: struct slab, mm/slab.h (6.1)
    """

    freelist: i64  # address of the first free object, 0: none
    next: u32
    prev: u32
    head: u32  # first frame of the slab
    inuse: u16  # objects not on freelist; a CPU's slab: all but those that others freed
    objects: u16
    cache: u16  # number of the cache
    slabs: u16  # on a CPU's chain: members from here on
    kind: u8  # FRAME_*
    order: u8
    frozen: u8
    on_node: u8  # 1: on the partial list of its node, 2: on the full list


@struct
class KmemCacheCpu:
    """What one CPU keeps of one cache. Linux: struct kmem_cache_cpu (6.1)"""

    freelist: i64
    slab: i64  # frame, or NO_SLAB
    partial: i64  # first slab of the chain
    tid: i64
    stat: Annotated[Array[i64], NR_STATS]


@struct
class KmemCacheNode:
    """What one node keeps of one cache. Linux: struct kmem_cache_node, mm/slab.h (6.1)"""

    nr_partial: i64
    partial_head: i64
    partial_tail: i64
    nr_slabs: i64
    total_objects: i64
    full_head: i64
    full_tail: i64


@struct
class KmemCache:
    """One cache. Linux: struct kmem_cache, include/linux/slub_def.h (6.1)"""

    # what every request reads comes first: one line of the processor's cache
    cpu_slab: Array[KmemCacheCpu]
    size: i64  # stride
    offset: i64  # of the free pointer
    secret: i64  # of CONFIG_SLAB_FREELIST_HARDENED; 0: links are plain
    object_size: i64
    orig_offset: i64  # where the requested size of a kmalloc is noted; 0: nowhere
    orig_size: i64  # bytes of that note
    red_at_request: i64  # the red zone of a kmalloc begins at the requested size
    number: i64
    live: i64  # 0: the number is free
    cache_flags: i64  # SLAB_*
    inuse: i64
    align: i64
    red_left_pad: i64
    order: i64
    objects: i64
    min_order: i64
    min_objects: i64
    allocflags: i64
    min_partial: i64
    cpu_partial: i64
    cpu_partial_slabs: i64
    has_cpu_partial: i64
    debug: i64  # any of the debug flags: no CPU slabs
    poison_object: i64
    ctor: i64  # 1: objects of new slabs wait for their constructor
    defrag_ratio: i64  # of 1024
    track_offset: i64
    track_size: i64
    node_lists: Array[KmemCacheNode]
    random_seq: Array[u16]


@struct
class SlubMemory:
    """Everything that SLUB knows. Linux: slab_caches, kmalloc_caches[][], mm/slab_common.c (6.1)"""

    memory: i64  # address of the page allocator's record
    page_offset: i64  # address of physical address 0 in the direct map (signed)
    page_shift: i64
    word: i64
    nr_cpus: i64
    nr_nodes: i64
    unfrozen: i64  # PARTIAL_UNFROZEN
    any_node: i64  # ANY_NODE_ON_REQUEST
    comp_always: i64
    shift_high: i64
    kmalloc_types: i64  # 1: with CGROUP
    zone_dma: i64
    gfp_allowed: i64  # early boot: no reclaim
    rng: i64
    call_site: i64  # who asks, for the notes about users
    now: i64
    nr_unreclaimable: i64  # bytes of large kmallocs
    nr_ctor: i64
    error: i64  # what a check found; 0: nothing
    error_cache: i64
    error_object: i64
    error_offset: i64
    error_found: i64
    error_expected: i64
    bucket: Annotated[Array[i64], SHRINK_PROMOTE_MAX + 1]  # of a shrink: slabs by free objects
    kmalloc_caches: Annotated[Array[i64], NR_TYPES * NR_CLASSES]
    kmem_caches: Array[KmemCache]
    slab_map: Array[Slab]
    ram_bytes: Array[u8]
    ram_ints: Array[u32]
    ram_longs: Array[i64]
    live_objects: Array[u8]  # one bit per 8 bytes: an allocated object begins there
    ctor_slabs: Array[i64]  # slabs whose objects wait for their constructor
    size_index: Array[u8]  # class of a size by (size - 1) // 8
    page_log: Array[i64]  # [0] entries; then pairs: kind | order << 8 | cache << 16, pfn
