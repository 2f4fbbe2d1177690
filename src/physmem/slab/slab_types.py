# SPDX-License-Identifier: GPL-2.0-or-later
"""Slabs, arrays of objects, node lists: the records that hold the whole state of SLAB.

Linux: struct kmem_cache, slab, array_cache, kmem_list3, mm/slab.c (2.6.24)

    SlabMemory -> slab_caches[n] -> cpu_array[cpu]        objects at hand, a stack
                                 -> nodelists[nid]        lists of partial, full and free slabs
                                    -> shared[0]          objects that all CPUs of the node share
                                    -> alien[nid]         objects of other nodes, freed here
               -> slab_frames[pfn]                        what a frame belongs to

The free objects of a slab are a chain of numbers (bufctl), which lies in memory behind the slab's
descriptor: in the slab itself, or in an object of a general cache.

Invariants (named as `validate()` names them)
    bufctl            num - inuse objects are on the slab's chain, each once
    slab_list         a slab is on the list that its count of objects in use says
    free_objects      = free objects of all slabs of the node
    arrays            an object is in one array at most, and in use as far as its slab knows
    live_objects      an object is marked as allocated exactly when it is on no chain, in no array
    frames            the frames of a slab are one allocated block of the page allocator
"""

from typing import Annotated

from physmem.lib.struct import Array, i64, struct, u8, u16, u32

NO_SLAB = 0xFFFFFFFF
BUFCTL_END = 0xFFFFFFFF
BUFCTL_FREE = 0xFFFFFFFE
"""Link of an object that is in use, in debug builds."""

ON_PARTIAL, ON_FULL, ON_FREE, ON_NONE = range(4)
FRAME_NONE = 0
FRAME_HEAD = 1
FRAME_TAIL = 2

STATS = (
    "listallocs",
    "maxobjs",
    "grown",
    "reaped",
    "error",
    "maxfreeable",
    "nodeallocs",
    "remotefrees",
    "alienoverflow",
    "allochit",
    "allocmiss",
    "freehit",
    "freemiss",
    "active",
)
"""Counters of a cache, by number; all but the last as /proc/slabinfo of debug builds has them."""
(
    LISTALLOCS,
    MAXOBJS,
    GROWN,
    REAPED,
    ERRORS,
    MAXFREEABLE,
    NODEALLOCS,
    REMOTEFREES,
    ALIENOVERFLOW,
    ALLOCHIT,
    ALLOCMISS,
    FREEHIT,
    FREEMISS,
    ACTIVE,
) = range(len(STATS))
NR_STATS = 14


@struct
class SlabFrame:
    """One frame as SLAB sees it; what says nothing of tails is in the first frame.

    Linux: struct slab, mm/slab.c; page->lru of slab pages (2.6.24)
    """

    s_mem: i64  # address of object 0
    mgmt: i64  # address of the descriptor
    next: u32
    prev: u32
    head: u32  # first frame of the slab
    inuse: u32
    free: u32  # first free object, or BUFCTL_END
    cache: u16
    nodeid: u16
    kind: u8  # FRAME_*
    list: u8  # ON_*


@struct
class ArrayCache:
    """Objects at hand. Linux: struct array_cache, mm/slab.c (2.6.24)"""

    avail: i64
    limit: i64
    batchcount: i64
    touched: i64
    entries: Array[i64]


@struct
class KmemList3:
    """Slabs of one cache on one node. Linux: struct kmem_list3, mm/slab.c (2.6.24)"""

    present: i64  # 0: the cache has no lists for this node
    free_objects: i64
    free_limit: i64
    colour_next: i64
    next_reap: i64
    free_touched: i64
    first: Annotated[Array[i64], 3]  # by ON_*
    last: Annotated[Array[i64], 3]
    shared: Array[ArrayCache]  # one or none
    alien: Array[ArrayCache]  # per node, or none


@struct
class SlabCache:
    """One cache. Linux: struct kmem_cache, mm/slab.c (2.6.24)"""

    number: i64
    live: i64
    cache_flags: i64
    buffer_size: i64  # stride
    reciprocal: i64  # of the stride, 32 bits of fraction
    obj_size: i64
    obj_offset: i64
    num: i64
    gfporder: i64
    gfpflags: i64
    colour: i64
    colour_off: i64
    off_slab: i64
    slabp_cache: i64  # cache of the descriptors, when they lie outside
    slab_size: i64
    batchcount: i64
    limit: i64
    sharedfactor: i64
    ctor: i64
    statistic: Annotated[Array[i64], NR_STATS]
    cpu_array: Array[ArrayCache]
    nodelists: Array[KmemList3]


@struct
class SlabMemory:
    """Everything that SLAB knows. Linux: cache_chain, malloc_sizes[], mm/slab.c (2.6.24)"""

    memory: i64  # address of the page allocator's record
    page_offset: i64
    page_shift: i64
    word: i64
    nr_cpus: i64
    nr_nodes: i64
    numa: i64  # 1: objects know their node
    thisnode: i64  # GFP_THISNODE, 0 without NUMA
    sizeof_slab: i64
    call_site: i64
    jiffies: i64
    reap_interval: i64  # of shared arrays and free slabs, in jiffies
    nr_ctor: i64
    checks: i64  # 1: count what only debug builds count
    error: i64
    error_cache: i64
    error_object: i64
    error_offset: i64
    error_found: i64
    error_expected: i64
    zone_dma: i64
    kmalloc_max: i64
    slab_caches: Array[SlabCache]
    slab_frames: Array[SlabFrame]
    general: Array[i64]  # sizes ascending, then numbers of the caches, then those for DMA
    size_place: Array[u8]  # place in `general` by (size - 1) // 32, up to 4096
    ram_bytes: Array[u8]
    ram_ints: Array[u32]
    ram_longs: Array[i64]
    live_objects: Array[u8]  # one bit per 4 bytes
    ctor_slabs: Array[i64]
    page_log: Array[i64]  # as in SlubMemory
    reap_node: Array[i64]  # per CPU: whose alien array is drained next
    cpu_online: Array[i64]
