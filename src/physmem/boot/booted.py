# SPDX-License-Identifier: GPL-2.0-or-later
"""What a start-up leaves behind: all that a machine is built from, as plain data.

Frames (pfn) count pages of `1 << page_shift` bytes; ranges are half open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from physmem.arch.direct_map import DirectMap
from physmem.boot.owners import ReservedRange
from physmem.boot.stages import StageRecord

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from physmem.boot.zones import BootZones
    from physmem.bootalloc.bootmem import Bootmem
    from physmem.bootalloc.memblock import Memblock

TAIL = "tail"
"""Blocks of the boot allocator go straight to the tail of their free list (memblock)."""
HEAD = "head"
"""Blocks go to the head of their free list, single frames through a per-CPU list (bootmem)."""


@dataclass(frozen=True, eq=False)
class FreeBlocks:
    """Free blocks in the order in which the page allocator gets them.

    Attributes
    ----------
    pfn : ndarray of int64, shape (n,)
        First frame of each block.
    order : ndarray of uint8, shape (n,)
        log2 of its frames.
    """

    pfn: "npt.NDArray[np.int64]"
    order: "npt.NDArray[np.uint8]"

    @property
    def nr_pages(self) -> int:
        """Frames of all blocks."""
        import numpy as np

        return int((np.int64(1) << self.order.astype(np.int64)).sum())


@dataclass(frozen=True, slots=True)
class BlockTypes:
    """A run of pageblocks of one migratetype.

    Attributes
    ----------
    first : number of the first block: 0 is the block that holds the zone's first frame
    count : blocks
    type : "U" unmovable, "M" movable, "C" CMA, "." no memory there
    """

    first: int
    count: int
    type: str


@dataclass(frozen=True, slots=True)
class LateFree:
    """Memory that the start-up gives back: frame by frame, order 0.

    Attributes
    ----------
    what : as the log says, for example "initrd"
    start_pfn, end_pfn : frames; where the log tells only their number, the place is worked out
        from the layout of the kernel image (`exact` is False then)
    after_marks : whether watermarks and per-CPU sizes were computed before (they stay as they were)
    """

    what: str
    start_pfn: int
    end_pfn: int
    after_marks: bool
    exact: bool = True

    @property
    def nr_pages(self) -> int:
        """Frames given back."""
        return self.end_pfn - self.start_pfn


@dataclass(frozen=True, kw_only=True)
class BootedZone:
    """A zone at the end of the start-up, before programs run.

    Attributes
    ----------
    node, index, name : node, zone index, name
    start_pfn, spanned_pages, present_pages, managed_pages : as in /proc/zoneinfo
    cma_pages : frames of CMA areas among them
    watermark : min, low, high, promo
    lowmem_reserve : one number per zone index
    pcp_batch, pcp_high : sizes of the per-CPU lists (high: `high_min` where lists tune themselves)
    pcp_high_max : upper bound of lists that tune themselves; None: they do not
    local_cpus : CPUs of the zone's node, which its per-CPU lists are sized for
    pageblocks : runs of migratetypes, ascending
    """

    node: int
    index: int
    name: str
    start_pfn: int
    spanned_pages: int
    present_pages: int
    managed_pages: int
    cma_pages: int = 0
    watermark: tuple[int, int, int, int] = (0, 0, 0, 0)
    lowmem_reserve: tuple[int, ...] = ()
    pcp_batch: int = 1
    pcp_high: int = 0
    pcp_high_max: int | None = None
    local_cpus: tuple[int, ...] = ()
    pageblocks: tuple[BlockTypes, ...] = ()

    @property
    def populated(self) -> bool:
        """The zone has memory."""
        return self.present_pages > 0

    @property
    def end_pfn(self) -> int:
        """Frame after the last one."""
        return self.start_pfn + self.spanned_pages


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A call of memblock whose result in the log differs from the model's."""

    line: int
    call: str
    ours: int
    theirs: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How well the model's memblock foretold the addresses of a log.

    Attributes
    ----------
    calls : allocations whose request the log tells
    equal : of them, those that the model put where the kernel did
    applied : ranges that were added, removed, reserved or freed by name
    unexplained : allocations whose request the log does not tell; taken as logged
    mismatches : the others
    dumps, dumps_equal : dumps of memblock in the log, and those that agree with the model
    """

    calls: int = 0
    equal: int = 0
    applied: int = 0
    unexplained: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    dumps: int = 0
    dumps_equal: int = 0


@dataclass(frozen=True, kw_only=True)
class MemoryFigures:
    """Figures of the line "Memory: ...", in KiB; `available` None: running programs decide it."""

    available: int | None
    physical: int
    reserved: int
    cma: int
    highmem: int


@dataclass(frozen=True, kw_only=True, eq=False)
class BootedMemory:
    """A machine whose kernel has started.

    Attributes
    ----------
    arch, kernel : name of `physmem.arch`, profile ("6.1")
    cmdline : the kernel's command line
    page_shift, nr_orders, pageblock_order : sizes of the build
    zones : all zone types of all nodes, also empty ones: by node, lowest first
    zonelists : for each node the (node, zone index) that a request there tries, in order
    fallback : for each node the order of nodes
    grouping : whether pages are grouped by mobility
    total_pages : figure of the line "Built ... zonelists"
    policy_zone : zone that memory policies are about ("" without NUMA)
    cpu_node : node of each CPU
    distance : matrix of node distances, by node; 10 is local
    pcp_thp : the build has huge pages, and per-CPU lists for them
    hand_over : what the boot allocator gave away, ascending
    hand_over_path : TAIL or HEAD: where those blocks, and high memory, go
    boot_pagesets : single frames passed through the per-CPU lists until mem_init() was over (NUMA
        before 2.6.25)
    zonelist_order : "Node" or "Zone", where the kernel has the choice; else empty
    deferred : what a thread per node freed after SMP start, by node
    highmem : high memory, frame by frame ("order" 0 throughout)
    cma : areas of CMA as blocks of a pageblock each
    late : memory of the start-up that came back later, in order
    early_taken : frames that the kernel took from the page allocator before the memory line
    reserved : who held what at the hand-over; `late` comes out of it
    memory : figures of the memory line
    totalram_pages : all frames ever given to the page allocator
    min_free_kbytes : as in /proc/sys/vm
    thp : transparent huge pages are on
    boot_zones : the zones before any frame was free
    memblock, bootmem : the boot allocator, shut down; a kernel has one of them
    prediction : how the calls of a log came out; None: the calls were generated
    assumptions : what the start-up had to assume, in words
    stages : what each stage did
    log : lines that the kernel would print
    kernel_map : the kernel's page tables, and what they map; None: only the log's calls are known
    online : nodes that are there; `zones` and `fallback` also tell of those that may come
    """

    arch: str
    kernel: str
    cmdline: str
    page_shift: int
    nr_orders: int
    pageblock_order: int
    zones: tuple[BootedZone, ...]
    zonelists: Mapping[int, tuple[tuple[int, int], ...]]
    fallback: Mapping[int, tuple[int, ...]]
    grouping: bool
    total_pages: int
    policy_zone: str
    cpu_node: tuple[int, ...]
    distance: tuple[tuple[int, ...], ...]
    pcp_thp: bool
    hand_over: FreeBlocks
    deferred: Mapping[int, FreeBlocks]
    highmem: FreeBlocks
    cma: FreeBlocks
    late: tuple[LateFree, ...]
    early_taken: int
    reserved: tuple[ReservedRange, ...]
    memory: MemoryFigures
    totalram_pages: int
    min_free_kbytes: int
    thp: bool
    boot_zones: "BootZones"
    memblock: "Memblock | None"
    prediction: Prediction | None
    assumptions: tuple[str, ...]
    stages: tuple[StageRecord, ...]
    log: tuple[str, ...]
    hand_over_path: str = TAIL
    boot_pagesets: bool = False
    zonelist_order: str = ""
    bootmem: "Bootmem | None" = None
    online: tuple[int, ...] = ()
    kernel_map: DirectMap | None = None
