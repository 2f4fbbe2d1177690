# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build, a machine and a command line decide about SLUB, and what releases differ in.

Linux: mm/slub.c, mm/slab_common.c (6.1, 6.12, 6.18)
"""

from dataclasses import dataclass
from enum import Flag, auto

from physmem.lib.errors import BadMachineError


class SlubFeature(Flag):
    """Rules that kernels with SLUB differ in; `SLUB_RULES` explains them."""

    LOWEST_WASTE_ORDER = auto()
    COMP_ALWAYS = auto()
    PARTIAL_UNFROZEN = auto()
    DIVISOR_ALIGN = auto()
    CGROUP_LAST = auto()
    NO_MERGE_FLAG = auto()
    SMALL_KMALLOC = auto()
    ANY_NODE_ON_REQUEST = auto()
    ROUNDUP_KEEPS_HUGE = auto()
    RED_ZONE_AT_REQUEST = auto()
    LONG_REQUEST_SIZE = auto()
    LARGE_NODE = auto()


@dataclass(frozen=True)
class SlubRule:
    """One feature, explained.

    Attributes
    ----------
    feature : its bit
    rule : what the kernel does
    since : release that brought it
    where : module of `physmem.slab` that follows it
    """

    feature: SlubFeature
    rule: str
    since: str
    where: str


_F = SlubFeature
_6_12 = (
    SlubRule(
        _F.RED_ZONE_AT_REQUEST,
        "with Z and U, the red zone of a kmalloc begins at the requested size",
        "6.2",
        "slub_debug",
    ),
    SlubRule(
        _F.NO_MERGE_FLAG, "SLAB_NO_MERGE instead of a negative count of users", "6.5", "slub_merge"
    ),
    SlubRule(
        _F.SMALL_KMALLOC,
        "kmalloc may be smaller than what devices need: their copies are bounced",
        "6.5",
        "start",
    ),
    SlubRule(
        _F.CGROUP_LAST,
        "kmalloc types NORMAL, RECLAIM, DMA, CGROUP; 96 and 192 come first",
        "6.6",
        "kmalloc_classes",
    ),
    SlubRule(
        _F.ROUNDUP_KEEPS_HUGE,
        "kmalloc_size_roundup of more than the maximum returns it",
        "6.6",
        "kmalloc_classes",
    ),
    SlubRule(
        _F.LOWEST_WASTE_ORDER,
        "the search for an order never lowers the number of objects",
        "6.7",
        "slub_sizes",
    ),
    SlubRule(_F.COMP_ALWAYS, "__GFP_COMP for order 0, too", "6.8", "slub_page"),
    SlubRule(
        _F.PARTIAL_UNFROZEN, "slabs on a CPU's partial chain are not frozen", "6.8", "slub_free"
    ),
    SlubRule(
        _F.ANY_NODE_ON_REQUEST,
        "a requested node without memory lets others serve",
        "6.8",
        "slub_alloc",
    ),
    SlubRule(
        _F.DIVISOR_ALIGN,
        "kmalloc caches align to the largest power of two in the size",
        "6.11",
        "kmalloc_classes",
    ),
)
_REQUEST = SlubRule(
    _F.LONG_REQUEST_SIZE, "the noted size of a kmalloc is a long", "6.12.y", "slub_sizes"
)
SLUB_RULES: dict[str, tuple[SlubRule, ...]] = {
    "6.1": (),
    "6.12": (*_6_12, _REQUEST),
    "6.18": (
        *_6_12,
        SlubRule(_F.LARGE_NODE, "a node's record has a pointer to its barn", "6.18", "slub_boot"),
    ),
}
"""Rules of each kernel whose SLUB is known, beyond those of 6.1 (6.18: geometry, no sheaves)."""


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
        if self.kernel not in SLUB_RULES:
            known = ", ".join(SLUB_RULES)
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
        bits = SlubFeature(0)
        for rule in SLUB_RULES[self.kernel]:
            bits |= rule.feature
        return bits

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return 1 << self.page_shift

    @property
    def possible_cpus(self) -> int:
        """CPUs that there may ever be."""
        return self.cpus if self.nr_cpu_ids is None else self.nr_cpu_ids
