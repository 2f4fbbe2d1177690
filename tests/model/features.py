# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between kernels, as named switches, and the flag bits of requests.

Migratetypes are letters inside the twin, because their numbers changed between kernels:
U unmovable, M movable, R reclaimable, H highatomic, C CMA, I isolate, X reserve (2.6.24).
Events and states carry the numbers: the place of the letter in `Features.letters`.
"""

from dataclasses import dataclass, field

# The donors a request may fall back to, in order, when its own lists are empty. Only these three
# types give and take; two different ones of them may also merge across pageblocks.
FALLBACKS = {"U": "RM", "R": "UM", "M": "RU"}

PAGE_ALLOC_COSTLY_ORDER = 3
PCP_BATCH_SCALE_MAX = 5
MAX_NUMNODES = 1024

# Allocation flags, with the values of 6.1. The twin uses them for every kernel: what 2.6.24 calls
# HIGH is MIN_RESERVE here, its HARDER is NON_BLOCK.
ALLOC_WMARK_MIN, ALLOC_WMARK_LOW, ALLOC_WMARK_HIGH, ALLOC_WMARK_MASK = 0, 1, 2, 3
ALLOC_NO_WATERMARKS = 0x4
ALLOC_OOM = 0x8
ALLOC_NON_BLOCK = 0x10
ALLOC_MIN_RESERVE = 0x20
ALLOC_CPUSET = 0x40
ALLOC_CMA = 0x80
ALLOC_NOFRAGMENT = 0x100
ALLOC_HIGHATOMIC = 0x200
ALLOC_KSWAPD = 0x800
ALLOC_COLD = 0x2000  # ours: the request has the gfp bit COLD
ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM


@dataclass(frozen=True)
class GfpBits:
    """The bits of a request that the page allocator looks at (0: the kernel has no such bit)."""

    DMA: int = 0x1
    HIGHMEM: int = 0x2
    DMA32: int = 0x4
    MOVABLE: int = 0x8
    RECLAIMABLE: int = 0x10
    HIGH: int = 0x20
    ATOMIC: int = 0x200
    DIRECT_RECLAIM: int = 0x400
    KSWAPD_RECLAIM: int = 0x800
    RETRY_MAYFAIL: int = 0x4000
    NORETRY: int = 0x10000
    MEMALLOC: int = 0x20000
    NOMEMALLOC: int = 0x80000
    THISNODE: int = 0x200000
    ACCOUNT: int = 0x400000
    COLD: int = 0
    LOCAL_ONLY: int = 0  # several bits: a request with all of them never goes below the LOW mark


# 2.6.24 has one bit for "may sleep", and the wake-up of kswapd is unconditional.
GFP_BITS_2_6_24 = GfpBits(
    MOVABLE=0x100000, RECLAIMABLE=0x80000, ATOMIC=0, DIRECT_RECLAIM=0x10, KSWAPD_RECLAIM=0,
    RETRY_MAYFAIL=0, NORETRY=0x1000, MEMALLOC=0, NOMEMALLOC=0x10000, THISNODE=0x40000, ACCOUNT=0,
    COLD=0x100, LOCAL_ONLY=0x40000 | 0x200 | 0x1000,
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """The rules of one kernel. The defaults are those of Debian 6.1 on amd64."""

    letters: str = "UMRHI"
    gfp: GfpBits = field(default_factory=GfpBits)
    tracepoints: bool = True  # the kernel has none in 2.6.24; we tell the same there
    bulk: bool = True  # many single frames with one request

    # Configuration of the kernel.
    zone_dma32: bool = True  # compiled in: the rule that sets NOFRAGMENT exists
    cma: bool = False
    pcp_thp: bool = True  # chunks of pageblock order may wait on per-CPU lists

    # Ends of the free lists, and merging.
    merge_likely_goes_to_tail: bool = True
    moved_chunks_go_to_tail: bool = True
    special_blocks_do_not_merge: bool = True  # H, C, I, from pageblock order upwards
    list_type_is_block_type: bool = False  # "freelist hygiene" of 6.10
    frees_read_block_type: bool = False  # at the moment of the free; else the remembered type
    isolated_counts_as_free: bool = False
    boot_frees_words_to_head: bool = False  # bootmem instead of memblock

    # Fallback: at most one of the two; neither is the way of 6.1.
    fallback_takes_largest_at_once: bool = False  # 2.6.24
    fallback_claims_or_steals: bool = False  # 6.12.29

    # Reserves and watermarks.
    reserve_is_last_resort: bool = False  # MIGRATE_RESERVE
    highatomic: bool = True
    reserved_means_free_highatomic: bool = False  # watermark test subtracts what is free of it
    watermark_halves_per_order: bool = False  # 2.6.24; else "a chunk exists"
    classzone_is_first_zone: bool = False  # lowmem_reserve index: of the list, not of the request
    boost_exception_needs_min_reserve: bool = False  # else: needs the gfp bit ATOMIC
    below_high_flag: bool = False

    # Per-CPU lists: at most one of the two; neither is the way of 6.1.
    pcp_one_list_of_mixed_types: bool = False  # 2.6.24: hot and cold, order 0 only
    pcp_auto_tuning: bool = False  # 6.7
    refill_counted_at_end: bool = True  # NR_FREE_PAGES: once per refill, not per chunk

    # NUMA.
    zone_order: bool = False  # zone by zone, nodes in order: if the sizes of zones say so
    node_load_per_local_node: bool = False

    def number(self, letter: str) -> int:
        """Return the kernel's number of a migratetype."""
        return self.letters.index(letter)


V61 = Features()
V61_CMA = Features(letters="UMRHCI", cma=True)
V61_I386 = Features(zone_dma32=False)

V612 = Features(
    list_type_is_block_type=True,
    frees_read_block_type=True,
    fallback_claims_or_steals=True,
    reserved_means_free_highatomic=True,
    boost_exception_needs_min_reserve=True,
    below_high_flag=True,
    pcp_auto_tuning=True,
    refill_counted_at_end=False,
)

V2_6_24 = Features(
    letters="URMXI",
    gfp=GFP_BITS_2_6_24,
    tracepoints=False,
    bulk=False,
    zone_dma32=False,
    pcp_thp=False,
    merge_likely_goes_to_tail=False,
    moved_chunks_go_to_tail=False,
    special_blocks_do_not_merge=False,
    frees_read_block_type=True,
    isolated_counts_as_free=True,
    boot_frees_words_to_head=True,
    fallback_takes_largest_at_once=True,
    reserve_is_last_resort=True,
    highatomic=False,
    watermark_halves_per_order=True,
    classzone_is_first_zone=True,
    pcp_one_list_of_mixed_types=True,
    refill_counted_at_end=False,
    node_load_per_local_node=True,
    zone_order=True,
)
