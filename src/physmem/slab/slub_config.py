# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build, a machine and a command line decide about SLUB, and what releases differ in.

Linux: mm/slub.c, mm/slab_common.c (6.1, 6.12, 6.18)
"""

from dataclasses import dataclass
from enum import Flag, auto

from physmem.lib.errors import BadMachineError


class SlubFeature(Flag):
    """Rules that kernels with SLUB differ in; each names the release that brought it."""

    LOWEST_WASTE_ORDER = auto()  # 6.7: the order search never lowers the number of objects
    COMP_ALWAYS = auto()  # 6.8: __GFP_COMP for order 0, too
    PARTIAL_UNFROZEN = auto()  # 6.8: slabs on a CPU's partial chain are not frozen
    DIVISOR_ALIGN = auto()  # 6.11: kmalloc caches align to the largest power of two in the size
    CGROUP_LAST = auto()  # 6.6: kmalloc types NORMAL, RECLAIM, DMA, CGROUP; 96 and 192 first
    NO_MERGE_FLAG = auto()  # 6.5: SLAB_NO_MERGE instead of a negative count of users
    ANY_NODE_ON_REQUEST = auto()  # 6.8: a requested node without memory lets others serve
    ROUNDUP_KEEPS_HUGE = auto()  # 6.6: kmalloc_size_roundup of more than the maximum returns it
    LARGE_NODE = auto()  # 6.18: a node record has a pointer to its barn
    ORIG_SIZE_IN_FREE = auto()  # 6.12: P and U together: the free pointer lies outside


_6_12 = (
    SlubFeature.LOWEST_WASTE_ORDER
    | SlubFeature.COMP_ALWAYS
    | SlubFeature.PARTIAL_UNFROZEN
    | SlubFeature.DIVISOR_ALIGN
    | SlubFeature.CGROUP_LAST
    | SlubFeature.NO_MERGE_FLAG
    | SlubFeature.ANY_NODE_ON_REQUEST
    | SlubFeature.ROUNDUP_KEEPS_HUGE
)
SLUB_FEATURES: dict[str, SlubFeature] = {
    "6.1": SlubFeature(0),
    "6.12": _6_12,
    "6.18": _6_12 | SlubFeature.LARGE_NODE,
}
"""Features of each kernel whose SLUB is known (of 6.18 the geometry: no sheaves)."""


@dataclass(frozen=True, kw_only=True)
class SlubConfig:
    """Configuration of a kernel with SLUB.

    Attributes
    ----------
    kernel : "6.1", "6.12" or "6.18"
    word : bytes of a pointer
    page_shift : log2 of a page's bytes
    line : cache_line_size() at run time, bytes
    cpus : present CPUs
    nr_cpu_ids : possible CPUs (None: as many as present)
    nr_node_ids : possible nodes
    min_order, max_order, min_objects : slub_min_order= and so on; 0 objects: automatic
    kmalloc_minalign, slab_minalign : alignment of the architecture, bytes
    cpu_partial : CONFIG_SLUB_CPU_PARTIAL
    memcg : CONFIG_MEMCG_KMEM
    zone_dma : CONFIG_ZONE_DMA
    freelist_random, freelist_hardened : CONFIG_SLAB_FREELIST_RANDOM, _HARDENED
    merge : caches of equal shape become one (not slub_nomerge)
    debug : text of slub_debug= (None: not given)
    stackdepot : tracks hold a handle of a stored stack
    seed : of every choice that a kernel leaves to chance
    """

    kernel: str = "6.1"
    word: int = 8
    page_shift: int = 12
    line: int = 64
    cpus: int = 1
    nr_cpu_ids: int | None = None
    nr_node_ids: int = 1
    min_order: int = 0
    max_order: int = 3
    min_objects: int = 0
    kmalloc_minalign: int = 8
    slab_minalign: int = 8
    cpu_partial: bool = True
    memcg: bool = True
    zone_dma: bool = True
    freelist_random: bool = False
    freelist_hardened: bool = False
    merge: bool = True
    debug: str | None = None
    stackdepot: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kernel not in SLUB_FEATURES:
            known = ", ".join(SLUB_FEATURES)
            raise BadMachineError(f"SLUB of kernel {self.kernel!r} is not known; known: {known}")
        if self.word not in {4, 8} or self.line & (self.line - 1) or self.line < self.word:
            raise BadMachineError(f"word {self.word}, cache line {self.line}: not a machine")
        if not 0 <= self.min_order <= self.max_order <= 10:
            raise BadMachineError(
                f"orders {self.min_order} .. {self.max_order}: 0 <= min <= max <= 10 is needed"
            )

    @property
    def features(self) -> SlubFeature:
        """Rules of the kernel."""
        return SLUB_FEATURES[self.kernel]

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return 1 << self.page_shift

    @property
    def possible_cpus(self) -> int:
        """CPUs that there may ever be."""
        return self.cpus if self.nr_cpu_ids is None else self.nr_cpu_ids
