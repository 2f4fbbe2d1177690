# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a start-up with bootmem (2.6.24) between its stages: the kernel's global variables.

Addresses are physical bytes unless named pfn.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from physmem.arch.descriptor import Arch, Limits
from physmem.arch.direct_map import Slots
from physmem.arch.setup import Setup
from physmem.boot.active_range import EarlyNodeMap
from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.boot.kernel_config_bootmem import BootmemKernelConfig
from physmem.boot.noted_bootmem import FIRMWARE, NotedBootmem
from physmem.boot.stages import MAX_RANGES, StageRecord
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadMachineError
from physmem.lib.ram import Ram

if TYPE_CHECKING:
    from physmem.boot.booted import FreeBlocks, LateFree, MemoryFigures
    from physmem.boot.hash_tables import HashTable
    from physmem.boot.memmap_init import MemmapInit
    from physmem.boot.pcp_sizes import HotColdSizes
    from physmem.boot.sizes import Watermarks
    from physmem.boot.zonelist import Zonelists
    from physmem.boot.zones import BootZones

ZoneRef = tuple[int, int]
"""Node and zone index."""
Span = tuple[int, int]


@dataclass
class BootBootmem:
    """A kernel that is starting.

    Attributes
    ----------
    setup : what setup_arch() finds out: architecture, machine, options, firmware's map, limits
    kernel, features, geometry, config : the kernel and its build
    bootmem : the boot allocator
    node_map : which frames are memory, by node (early_node_map[])
    ram : bytes of memory, from the moment on when its end is known
    zones, memmap : set by free_area_init_nodes()
    zonelist_order : "Node" or "Zone"
    pcp : sizes of per-CPU lists by zone; `boot_pagesets` : until then frames pass through them
    managed : frames given to the page allocator, by zone
    free_pages : of them, those on no per-CPU list, at the memory line
    reserved_spans : memory in bytes that the page allocator did not get
    """

    setup: Setup
    kernel: str
    features: BootFeature
    geometry: Geometry
    config: BootmemKernelConfig
    bootmem: NotedBootmem
    node_map: EarlyNodeMap
    ram: Ram | None = None
    zones: "BootZones | None" = None
    memmap: "MemmapInit | None" = None
    hash_tables: list["HashTable"] = field(default_factory=list)
    zonelists: dict[int, "Zonelists"] = field(default_factory=dict)
    fallback: dict[int, tuple[int, ...]] = field(default_factory=dict)
    distance: tuple[tuple[int, ...], ...] = ()
    zonelist_order: str = ""
    total_pages: int = 0
    grouping: bool = True
    policy_zone: str = ""
    pcp: dict[ZoneRef, "HotColdSizes"] = field(default_factory=dict)
    boot_pagesets: bool = False
    managed: dict[ZoneRef, int] = field(default_factory=dict)
    totalram: int = 0
    totalhigh: int = 0
    free_pages: int = 0
    hand_over: "FreeBlocks | None" = None
    highmem: "FreeBlocks | None" = None
    late: list["LateFree"] = field(default_factory=list)
    reserved_spans: tuple[Span, ...] = ()
    memory: "MemoryFigures | None" = None
    min_free_kbytes: int = 0
    marks: dict[ZoneRef, "Watermarks"] = field(default_factory=dict)
    reserve: dict[ZoneRef, tuple[int, ...]] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    _taken: Slots = field(default_factory=Slots)

    @property
    def arch(self) -> Arch:
        """Architecture, as kernels with bootmem see it."""
        return self.setup.arch

    @property
    def hardware(self) -> Hardware:
        """The machine."""
        return self.setup.hardware

    @property
    def cmdline(self) -> CommandLine:
        """Options."""
        return self.setup.cmdline

    @property
    def limits(self) -> Limits:
        """First and last frames of memory and of its low part."""
        return self.setup.limits

    @property
    def online(self) -> tuple[int, ...]:
        """Nodes that were set up."""
        return tuple(sorted(self.setup.node_data)) or (0,)

    @property
    def made_zones(self) -> "BootZones":
        """The zones.

        Raises
        ------
        RuntimeError
            A stage came too early.
        """
        if self.zones is None:
            raise RuntimeError("zones do not exist yet; run the stages in order")
        return self.zones

    @property
    def page_shift(self) -> int:
        """log2 of the bytes of a frame."""
        return self.geometry.page_shift

    def say(self, *lines: str) -> None:
        """Print lines to the kernel's log."""
        self.setup.log.extend(lines)

    def find_end_of_memory(self) -> None:
        """Give memory its bytes, now that its end is known: bootmem's bitmaps will lie there.

        Raises
        ------
        BadMachineError
            There is too little for the kernel itself, or more than it can number.
        """
        end = self.limits.max_pfn
        most = self.arch.dram_pfn_limit
        image = self.setup.image
        if end << self.page_shift < image.end:
            raise BadMachineError(
                f"memory ends at {end << self.page_shift:#x}, the kernel at {image.end:#x}: let"
                " firmware's map, mem= and memmap= leave more"
            )
        if self.geometry.sparse and end > most:
            raise BadMachineError(
                f"memory ends at {end << self.page_shift:#x}; this kernel numbers memory below"
                f" {most << self.page_shift:#x} (MAX_PHYSMEM_BITS {self.arch.max_physmem_bits}):"
                " give less, or mem="
            )
        self.ram = Ram(end << self.page_shift)
        self.bootmem.ram = self.ram

    @contextmanager
    def stage(self, name: str, sentence: str, owner: str = FIRMWARE) -> Iterator[None]:
        """Note what the calls inside take, as a stage of that name, for an owner."""
        first, given = len(self.bootmem.notes), sum(self.managed.values())
        self.bootmem.purpose = owner
        yield
        page = 1 << self.page_shift
        new: list[Span] = []
        for start, end, _ in self.bootmem.notes[first:]:
            found = list(self._taken.missing(start & -page, -(-end // page) * page))
            for span in found:
                self._taken.add(*span)
            new += found
        taken = sum(end - start for start, end in new)
        ranges = joined_spans(new)
        pages = sum(self.managed.values()) - given
        self.stages.append(StageRecord(name, sentence, taken, ranges[:MAX_RANGES], pages))


def joined_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in ascending order, with those joined that touch or overlap.

    Examples
    --------
    >>> joined_spans([(8, 9), (0, 4), (4, 6)])
    ((0, 6), (8, 9))
    """
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def without_spans(spans: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """Parts of the spans that no hole covers, ascending.

    Examples
    --------
    >>> without_spans([(0, 10), (20, 30)], [(2, 4), (8, 22)])
    ((0, 2), (4, 8), (22, 30))
    """
    found: list[Span] = []
    ordered = joined_spans(holes)
    at = 0
    for first, end in joined_spans(spans):
        start = first
        while at < len(ordered) and ordered[at][1] <= start:
            at += 1
        number = at
        while number < len(ordered) and ordered[number][0] < end:
            if start < ordered[number][0]:
                found.append((start, ordered[number][0]))
            start = ordered[number][1]
            number += 1
        if start < end:
            found.append((start, end))
    return tuple(found)
