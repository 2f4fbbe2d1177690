# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a start-up between its stages: what the kernel keeps in global variables.

Only kernels with memblock (6.1, 6.12). Addresses are physical bytes unless named pfn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from physmem.arch.descriptor import Arch, Limits
from physmem.arch.direct_map import DirectMap
from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.boot.kernel_config import KernelConfig
from physmem.boot.memmap_init import MemmapInit
from physmem.boot.owners import OwnerBook
from physmem.boot.stages import MAX_RANGES, StageRecord
from physmem.boot.zones import BootZones
from physmem.bootalloc.call import MemblockCall
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.hardware import Hardware

if TYPE_CHECKING:
    from physmem.boot.booted import FreeBlocks, LateFree, MemoryFigures, Prediction
    from physmem.boot.hash_tables import HashTable
    from physmem.boot.pcp_sizes import PcpSizes
    from physmem.boot.sizes import Watermarks
    from physmem.boot.zonelist import Zonelists

ZoneRef = tuple[int, int]
"""Node and zone index."""


class CallSource(Protocol):
    """Where the calls of the boot allocator come from: a log, or formulas."""

    def run(self, boot: "Boot", stage: str) -> None:
        """Make the calls of one stage of the start-up."""

    def late_frees(self, boot: "Boot") -> tuple["LateFree", ...]:
        """Memory of the start-up that comes back later, in order."""

    def prediction(self) -> "Prediction | None":
        """How the calls of a log came out; None: there is no log."""


@dataclass
class Boot:
    """A kernel that is starting.

    Attributes
    ----------
    arch, hardware, kernel, cmdline, config : what starts, on what, and how
    calls : where the calls of the boot allocator come from
    memblock, owners : the boot allocator, and who took what
    limits : first and last frames of memory and its parts; set before the zones
    dma_reserve : frames of the first 16 MiB that are taken already
    node_data : address of each node's descriptor
    cpu_node : node of each CPU that comes up
    possible : nodes that may come to exist; those without memory are laid out, too
    online : nodes that are there when zonelists are made
    kernel_map : page tables of the kernel and what they map; empty where a log makes the calls
    told_order : order of nodes, where distances that decide it are not known
    zones, memmap : set by free_area_init()
    managed : managed_pages by zone; `cma_pages` likewise
    deferred_spans : frames that were freed once their struct pages were there
    """

    arch: Arch
    hardware: Hardware
    kernel: str
    cmdline: CommandLine
    config: KernelConfig
    calls: CallSource
    memblock: Memblock
    owners: OwnerBook
    geometry: Geometry
    features: BootFeature
    cpu_node: tuple[int, ...] = (0,)
    limits: Limits | None = None
    dma_reserve: int = 0
    node_data: dict[int, int] = field(default_factory=dict)
    possible: tuple[int, ...] = ()
    online: tuple[int, ...] = ()
    zones: BootZones | None = None
    memmap: MemmapInit | None = None
    hash_tables: list["HashTable"] = field(default_factory=list)
    zonelists: dict[int, "Zonelists"] = field(default_factory=dict)
    fallback: dict[int, tuple[int, ...]] = field(default_factory=dict)
    distance: tuple[tuple[int, ...], ...] = ()
    kernel_map: DirectMap = field(default_factory=DirectMap)
    told_order: dict[int, tuple[int, ...]] = field(default_factory=dict)
    total_pages: int = 0
    grouping: bool = True
    policy_zone: str = ""
    managed: dict[ZoneRef, int] = field(default_factory=dict)
    cma_pages: dict[ZoneRef, int] = field(default_factory=dict)
    cma_areas: list[tuple[int, int]] = field(default_factory=list)
    totalram: int = 0
    totalhigh: int = 0
    early_taken: int = 0
    hand_over: "FreeBlocks | None" = None
    highmem: "FreeBlocks | None" = None
    deferred: dict[int, "FreeBlocks"] = field(default_factory=dict)
    deferred_spans: list[tuple[int, int]] = field(default_factory=list)
    cma: "FreeBlocks | None" = None
    late: tuple["LateFree", ...] = ()
    reserved_spans: tuple[tuple[int, int], ...] = ()
    memory: "MemoryFigures | None" = None
    min_free_kbytes: int = 0
    thp: bool = False
    marks: dict[ZoneRef, "Watermarks"] = field(default_factory=dict)
    reserve: dict[ZoneRef, tuple[int, ...]] = field(default_factory=dict)
    pcp: dict[ZoneRef, "PcpSizes"] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Print lines to the kernel's log."""
        self.log.extend(lines)

    @contextmanager
    def stage(self, name: str, sentence: str) -> Iterator[None]:
        """Note what the calls inside take, as a stage of that name."""
        before = {(region.base, region.end) for region in self.memblock.reserved}
        size = self.memblock.reserved_size()
        given = sum(self.managed.values()) if self.memblock.shut_down else 0
        yield
        taken = self.memblock.reserved_size() - size
        after = {(region.base, region.end) for region in self.memblock.reserved}
        new = tuple(sorted(_without(after - before, before)))[:MAX_RANGES]
        pages = sum(self.managed.values()) - given if self.memblock.shut_down else 0
        self.stages.append(StageRecord(name, sentence, taken, new, pages))


def _without(spans: set[tuple[int, int]], taken: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Parts of `spans` that no span of `taken` covers."""
    ordered = sorted(taken)
    for first, end in spans:
        start = first
        for low, high in ordered:
            if high <= start or low >= end:
                continue
            if low > start:
                yield start, low
            start = high
        if start < end:
            yield start, end


def geometry_of(arch: Arch, config: KernelConfig) -> Geometry:
    """Sizes of a build of an architecture.

    Examples
    --------
    >>> from physmem.arch.registry import arch_for
    >>> from physmem.boot.kernel_config import kernel_config
    >>> geometry_of(arch_for("i386"), kernel_config("i386")).pageblock_order
    10
    """
    return Geometry(
        page_shift=arch.page_shift,
        nr_orders=arch.max_order,
        pageblock_order=arch.pageblock_order,
        struct_page=arch.sizeof_page,
        section_size_bits=None if arch.memory_model == "flatmem" else arch.section_size_bits,
        bits_per_long=arch.bits_per_long,
        cache_bytes=arch.smp_cache_bytes,
        migrate_types=config.migrate_types,
    )


class CallObserver:
    """Told of every call of memblock: notes owners and, with memblock=debug, prints each call.

    Attributes
    ----------
    wholesale : one call may stand for many pages, since nobody reads them one by one
    quiet : the kernel has not read its command line yet, and prints nothing
    """

    def __init__(self, owners: OwnerBook, log: list[str], *, bits: int, debug: bool) -> None:
        self.owners = owners
        self.log = log
        self.bits = bits
        self.wholesale = not debug
        self.quiet = False

    def read_early_params(self) -> None:
        """The kernel has read its command line."""
        self.quiet = False

    def __call__(self, call: MemblockCall) -> None:
        """Take note of a call."""
        self.owners.on_call(call)
        if not (self.wholesale or self.quiet):
            self.log.append(call.line(self.bits))
