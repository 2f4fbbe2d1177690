# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones of all nodes: what `free_area_init()` makes of the memory ranges.

Linux: free_area_init(), free_area_init_core(), mm/page_alloc.c (6.1); free_area_init_nodes(),
mm/page_alloc.c (2.6.24)
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.boot.limits import ZoneLimits, zone_limits
from physmem.boot.movable import MovablePlacement, MovableRequest, find_zone_movable_pfns
from physmem.boot.ranges import (
    MAX_NUMNODES,
    MemoryRange,
    NodeRanges,
    by_node,
    check_ranges,
)
from physmem.boot.spans import ZoneSpan, node_spans
from physmem.lib.errors import BadMachineError

_start = attrgetter("start_pfn")
_end = attrgetter("end_pfn")


@dataclass(frozen=True, kw_only=True, slots=True)
class BootZone:
    """A zone of a node, before any frame is free.

    Attributes
    ----------
    nid, index, name : node, zone index, name
    start_pfn, spanned, absent : frames from the first to the last one, and the holes among them
    memmap_pages : estimate of the frames that `struct page` needs
    memmap_exceeds : the estimate is more than the zone has, and is ignored
    reserved : frames taken off for early reservations (first zone only)
    estimate : frames left after both
    present : `present_pages` as the kernel keeps it
    managed : first value of `managed_pages`, until memory is handed over; 2.6.24: as present
    highmem : whether the kernel treats it as HighMem
    """

    nid: int
    index: int
    name: str
    start_pfn: int
    spanned: int
    absent: int
    memmap_pages: int
    memmap_exceeds: bool
    reserved: int
    estimate: int
    present: int
    managed: int
    highmem: bool

    @property
    def end_pfn(self) -> int:
        """Frame after the last one."""
        return self.start_pfn + self.spanned

    @property
    def raw_present(self) -> int:
        """Frames that are memory."""
        return self.spanned - self.absent


@dataclass(frozen=True, kw_only=True, slots=True)
class BootNode:
    """A node and its zones, one per zone type.

    Attributes
    ----------
    nid : node
    start_pfn, end_pfn : frames from the first to the last one; 0, 0 without memory
    spanned, present : sums over the zones (present: without estimates)
    zones : position = zone index
    """

    nid: int
    start_pfn: int
    end_pfn: int
    spanned: int
    present: int
    zones: tuple[BootZone, ...]

    @property
    def nr_zones(self) -> int:
        """Highest index of a zone with frames, plus 1."""
        return max((zone.index + 1 for zone in self.zones if zone.spanned), default=0)


@dataclass(frozen=True, kw_only=True)
class ZoneSetup:
    """All that `free_area_init()` reads.

    Attributes
    ----------
    ranges : memory, in any order
    names : zone types of the architecture, lowest first
    max_zone_pfn : frame at which each zone type ends
    geometry, features : of the kernel
    request : what kernelcore= and movablecore= ask for
    dma_reserve : frames of the first zone that are reserved already
    online : nodes that exist, also without memory; nodes with memory exist anyway
    free_pages : free frames of memblock below HighMem, and all of them, where those size the
        hash tables (6.12); None: all memory
    """

    ranges: Sequence[MemoryRange]
    names: Sequence[str]
    max_zone_pfn: Mapping[str, int]
    geometry: Geometry
    features: BootFeature
    request: MovableRequest = field(default_factory=MovableRequest)
    dma_reserve: int = 0
    online: Sequence[int] = ()
    free_pages: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class BootZones:
    """Result of `free_area_init()`.

    Attributes
    ----------
    ranges : memory, ascending
    limits : borders of the zone types
    placement : ZONE_MOVABLE
    nodes : nodes, ascending
    nr_kernel_pages, nr_all_pages : what hash tables are sized by
    geometry, features : of the kernel
    dma_reserve : as given
    """

    ranges: tuple[MemoryRange, ...]
    limits: ZoneLimits
    placement: MovablePlacement
    nodes: tuple[BootNode, ...]
    nr_kernel_pages: int
    nr_all_pages: int
    geometry: Geometry
    features: BootFeature
    dma_reserve: int = 0

    def zones(self) -> Iterator[BootZone]:
        """All zones with frames: by node, lowest first."""
        for node in self.nodes:
            for zone in node.zones:
                if zone.spanned:
                    yield zone

    def ranges_meeting(self, start_pfn: int, end_pfn: int) -> tuple[MemoryRange, ...]:
        """Ranges that have frames in [start_pfn, end_pfn), ascending."""
        first = bisect_right(self.ranges, start_pfn, key=_end)
        return self.ranges[first : bisect_left(self.ranges, end_pfn, key=_start)]

    def populated(self) -> dict[int, list[int]]:
        """Indices of the zones with memory, per node: what zonelists are made of.

        Linux: populated_zone(), include/linux/mmzone.h (2.6.24, 6.1)
        """
        return {
            node.nid: [zone.index for zone in node.zones if zone.present] for node in self.nodes
        }

    def first_pages(self) -> dict[tuple[int, int], int]:
        """Frames by (node, zone index) that count until memory is handed over."""
        return {(zone.nid, zone.index): zone.managed for zone in self.zones()}

    def node(self, nid: int) -> BootNode:
        """Return a node by its number.

        Raises
        ------
        BadMachineError
            No such node.
        """
        for node in self.nodes:
            if node.nid == nid:
                return node
        raise BadMachineError(f"no node {nid}: nodes are {[node.nid for node in self.nodes]}")


def is_highmem(index: int, limits: ZoneLimits, placement: MovablePlacement) -> bool:
    """Whether a zone type has no direct map: HighMem, and Movable when it takes from HighMem.

    Linux: is_highmem_idx(), include/linux/mmzone.h (2.6.24, 6.1)
    """
    if limits.highmem is None:
        return False
    return index == limits.highmem or (index == limits.movable and placement.zone == limits.highmem)


def memmap_pages(spanned: int, present: int, geometry: Geometry, features: BootFeature) -> int:
    """Frames that a zone's `struct page` need, as the kernel estimates them.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> memmap_pages(4095, 3998, Geometry(), boot_features("6.1"))
    64
    >>> memmap_pages(520069, 520069, Geometry(struct_page=56), boot_features("2.6.24"))
    7110

    Linux: calc_memmap_size(), mm/page_alloc.c (6.1); free_area_init_core() (2.6.24)
    """
    if BootFeature.MEMMAP_BY_PRESENT not in features:
        return spanned * geometry.struct_page // geometry.page_size
    pages = spanned
    if geometry.sparse and spanned > present + (present >> 4):
        pages = present
    return -(-pages * geometry.struct_page // geometry.page_size)


def free_area_init(setup: ZoneSetup) -> BootZones:
    """Work out all zones of all nodes.

    Raises
    ------
    BadMachineError
        Memory or zones that cannot exist.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> zones = free_area_init(ZoneSetup(
    ...     ranges=[MemoryRange(1, 159), MemoryRange(256, 131034)],
    ...     names=("DMA", "DMA32", "Normal", "Movable", "Device"),
    ...     max_zone_pfn={"DMA": 4096, "DMA32": 131034, "Normal": 131034},
    ...     geometry=Geometry(), features=boot_features("6.1"), dma_reserve=158))
    >>> [(zone.name, zone.spanned, zone.present, zone.managed) for zone in zones.zones()]
    [('DMA', 4095, 3998, 3776), ('DMA32', 126938, 126938, 124954)]
    >>> zones.nr_all_pages
    128730

    Linux: free_area_init(), mm/page_alloc.c (6.1); free_area_init_nodes() (2.6.24)
    """
    if setup.dma_reserve < 0:
        raise BadMachineError(f"dma_reserve {setup.dma_reserve}: a number of frames")
    for nid in setup.online:
        if not 0 <= nid < MAX_NUMNODES:
            raise BadMachineError(f"node {nid}: nodes are 0 to {MAX_NUMNODES - 1}")
    ranges = check_ranges(setup.ranges)
    nodes = by_node(ranges)
    limits = zone_limits(setup.names, setup.max_zone_pfn, ranges[0].start_pfn, setup.features)
    build = (setup.geometry, setup.features)
    placement = find_zone_movable_pfns(ranges, nodes, limits, setup.request, build)
    count = _Count(setup, ranges, limits, placement)
    made = [
        count.node(nodes.get(nid) or NodeRanges(nid, ())) for nid in sorted({*nodes, *setup.online})
    ]
    kernel_pages, all_pages = count.kernel, count.all
    if BootFeature.KERNEL_PAGES_ARE_FREE_PAGES in setup.features:
        kernel_pages, all_pages = setup.free_pages or _all_memory(ranges, limits)
    return BootZones(
        ranges=ranges,
        limits=limits,
        placement=placement,
        nodes=tuple(made),
        nr_kernel_pages=kernel_pages,
        nr_all_pages=all_pages,
        geometry=setup.geometry,
        features=setup.features,
        dma_reserve=setup.dma_reserve,
    )


class _Count:
    """Sets up nodes, one after the other, and counts their frames."""

    def __init__(
        self,
        setup: ZoneSetup,
        ranges: Sequence[MemoryRange],
        limits: ZoneLimits,
        placement: MovablePlacement,
    ) -> None:
        self.setup = setup
        self.ranges = ranges
        self.limits = limits
        self.placement = placement
        self.kernel = 0
        self.all = 0

    def node(self, node: NodeRanges) -> BootNode:
        """Zones of one node.

        Linux: free_area_init_node(), mm/page_alloc.c (2.6.24, 6.1)
        """
        features = self.setup.features
        spans = node_spans(node, self.limits, self.placement, self.ranges, features)
        return BootNode(
            nid=node.nid,
            start_pfn=node.start_pfn,
            end_pfn=node.end_pfn,
            spanned=sum(span.spanned for span in spans),
            present=sum(span.present for span in spans),
            zones=tuple(self.zone(node.nid, index, span) for index, span in enumerate(spans)),
        )

    def zone(self, nid: int, index: int, span: ZoneSpan) -> BootZone:
        """One zone, with the estimate of what it can give.

        Linux: free_area_init_core(), mm/page_alloc.c (2.6.24, 6.1)
        """
        features = self.setup.features
        highmem = is_highmem(index, self.limits, self.placement)
        left = span.present
        memmap, reserved, charged = 0, 0, False
        if BootFeature.MEMMAP_ESTIMATE in features:
            charged = not highmem or BootFeature.HIGHMEM_PAYS_MEMMAP in features
            memmap = memmap_pages(span.spanned, left, self.setup.geometry, features)
        exceeds = charged and left < memmap
        if charged and not exceeds:
            left -= memmap
        if charged and index == 0 and left > self.setup.dma_reserve:
            reserved = self.setup.dma_reserve
            left -= reserved
        if not highmem:
            self.kernel += left
        elif not charged and self.kernel > 2 * memmap:
            self.kernel -= memmap
        self.all += left
        return BootZone(
            nid=nid,
            index=index,
            name=self.limits.names[index],
            start_pfn=span.start_pfn,
            spanned=span.spanned,
            absent=span.absent,
            memmap_pages=memmap,
            memmap_exceeds=exceeds,
            reserved=reserved,
            estimate=left,
            present=left if BootFeature.PRESENT_IS_ESTIMATE in features else span.present,
            managed=left,
            highmem=highmem,
        )


def _all_memory(ranges: Sequence[MemoryRange], limits: ZoneLimits) -> tuple[int, int]:
    """Frames below HighMem, and all frames."""
    border = limits.low[limits.highmem] if limits.highmem is not None else None
    low = sum(
        memory.pages if border is None else max(min(memory.end_pfn, border) - memory.start_pfn, 0)
        for memory in ranges
    )
    return low, sum(memory.pages for memory in ranges)
