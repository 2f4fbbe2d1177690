# SPDX-License-Identifier: GPL-2.0-or-later
"""First state of the `struct page` arrays: pageblock types, frames in holes, what comes later.

Everything is a run of frames or pageblocks: a terabyte costs as much as a megabyte.

Linux: memmap_init(), init_unavailable_range(), defer_init(), mm/page_alloc.c (6.1);
memmap_init_zone(), mm/page_alloc.c (2.6.24)
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from physmem.boot.features import BootFeature
from physmem.boot.geometry import round_down, round_up
from physmem.boot.ranges import MIRROR, MemoryRange, NodeRanges
from physmem.boot.zones import BootZone, BootZones

UNMOVABLE = "U"
MOVABLE = "M"
NO_MEMORY = "."
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PageblockRun:
    """Pageblocks of one type that follow each other.

    Attributes
    ----------
    start_block : first one, counted from the pageblock that holds the zone's first frame
    count : number of them
    type : UNMOVABLE, MOVABLE, or NO_MEMORY where no `struct page` exists
    """

    start_block: int
    count: int
    type: str


@dataclass(frozen=True, slots=True)
class UnavailableRange:
    """Frames that are no memory but have a `struct page`.

    Attributes
    ----------
    start_pfn, end_pfn : the hole
    pages : frames of it that have a `struct page`
    nid, zone : whose frames they count as
    """

    start_pfn: int
    end_pfn: int
    pages: int
    nid: int
    zone: str

    @property
    def line(self) -> str:
        """Line of the log."""
        return f"On node {self.nid}, zone {self.zone}: {self.pages} pages in unavailable ranges"


@dataclass(frozen=True)
class MemmapInit:
    """Result of the initialisation.

    Attributes
    ----------
    pageblocks : runs per (node, zone index), ascending, covering the zone's span
    unavailable : holes with `struct page`, in the order of the log
    first_deferred_pfn : where a node's late frames begin, for nodes that have some
    """

    pageblocks: dict[tuple[int, int], tuple[PageblockRun, ...]]
    unavailable: tuple[UnavailableRange, ...]
    first_deferred_pfn: dict[int, int]

    @property
    def lines(self) -> list[str]:
        """Lines of the log."""
        return [hole.line for hole in self.unavailable]


def present_sections(zones: BootZones) -> list[Interval]:
    """Intervals of frames that have a `struct page`, ascending and apart.

    With SPARSEMEM: the sections that memory touches; FLATMEM: all frames from the first node's
    array on.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> from physmem.boot.geometry import Geometry
    >>> from physmem.boot.zones import ZoneSetup, free_area_init
    >>> zones = free_area_init(ZoneSetup(ranges=[MemoryRange(1, 159), MemoryRange(70000, 80000)],
    ...     names=("DMA", "Normal", "Movable"), max_zone_pfn={"DMA": 4096, "Normal": 80000},
    ...     geometry=Geometry(), features=boot_features("6.1")))
    >>> present_sections(zones)
    [(0, 32768), (65536, 98304)]

    Linux: memblocks_present(), mm/sparse.c (6.1)
    """
    size = zones.geometry.pages_per_section
    end = max(memory.end_pfn for memory in zones.ranges)
    if not zones.geometry.sparse:
        return [(round_down(zones.ranges[0].start_pfn, size), round_up(end, size))]
    if zones.geometry.sparse_always_valid:
        return [(0, round_up(end, size))]
    return _joined(
        [
            (round_down(memory.start_pfn, size), round_up(memory.end_pfn, size))
            for memory in zones.ranges
        ]
    )


def memmap_init(zones: BootZones, *, deferred: bool = True) -> MemmapInit:
    """Initialise the `struct page` of all zones.

    Parameters
    ----------
    deferred : the kernel was built to leave most of it for later, and does not need it now

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> from physmem.boot.geometry import Geometry
    >>> from physmem.boot.zones import ZoneSetup, free_area_init
    >>> zones = free_area_init(ZoneSetup(ranges=[MemoryRange(1, 159), MemoryRange(256, 131034)],
    ...     names=("DMA", "DMA32", "Normal", "Movable"),
    ...     max_zone_pfn={"DMA": 4096, "DMA32": 131034},
    ...     geometry=Geometry(), features=boot_features("6.1")))
    >>> first = memmap_init(zones)
    >>> first.lines[2]
    'On node 0, zone DMA32: 38 pages in unavailable ranges'
    >>> first.first_deferred_pfn
    {0: 65536}
    >>> first.pageblocks[0, 0]  # doctest: +NORMALIZE_WHITESPACE
    (PageblockRun(start_block=0, count=1, type='U'),
     PageblockRun(start_block=1, count=7, type='M'))

    Linux: memmap_init(), mm/page_alloc.c (6.1); memmap_init_zone(), mm/page_alloc.c (2.6.24)
    """
    sections = present_sections(zones)
    if BootFeature.PAGES_START_RESERVED in zones.features:
        blocks = {
            (zone.nid, zone.index): _old_pageblocks(zone, zones, sections) for zone in zones.zones()
        }
        return MemmapInit(blocks, (), {})
    holes, late = _walk(zones, sections, deferred=deferred)
    blocks = {
        (zone.nid, zone.index): _pageblocks(zone, zones, sections, late) for zone in zones.zones()
    }
    return MemmapInit(blocks, holes, late)


def _walk(
    zones: BootZones, sections: Sequence[Interval], *, deferred: bool
) -> tuple[tuple[UnavailableRange, ...], dict[int, int]]:
    """Go through all ranges and zones as the kernel does; find the holes and what is deferred.

    Linux: memmap_init(), memmap_init_zone_range(), mm/page_alloc.c (6.1)
    """
    holes: list[UnavailableRange] = []
    defer = _Defer(zones) if deferred and BootFeature.DEFERRED_PAGES in zones.features else None
    populated = {node.nid: [zone for zone in node.zones if zone.present] for node in zones.nodes}
    hole = 0
    zone_name, nid = zones.limits.names[0], zones.ranges[0].nid

    exist = NodeRanges(0, [MemoryRange(low, high) for low, high in sections])

    def unavailable(end: int) -> None:
        pages = exist.covered(hole, end)
        if pages:
            holes.append(UnavailableRange(hole, end, pages, nid, zone_name))

    for memory in zones.ranges:
        nid = memory.nid
        for zone in populated[nid]:
            zone_name = zone.name
            start = min(max(memory.start_pfn, zone.start_pfn), zone.end_pfn)
            end = min(max(memory.end_pfn, zone.start_pfn), zone.end_pfn)
            if start >= end:
                continue
            if defer is not None:
                defer.init(zone, memory, start, end)
            if hole < start:
                unavailable(start)
            hole = end
    if zones.geometry.sparse:
        end = round_up(zones.ranges[-1].end_pfn, zones.geometry.pages_per_section)
        if hole < end:
            unavailable(end)
    return tuple(holes), defer.first if defer is not None else {}


class _Defer:
    """Decides from which frame on a node's last zone waits.

    Linux: defer_init(), mm/page_alloc.c (6.1)
    """

    def __init__(self, zones: BootZones) -> None:
        self.first: dict[int, int] = {}
        # Zones that overlap (mirrored memory) count twice: then nothing is ever deferred.
        self._ends = {node.nid: node.start_pfn + node.spanned for node in zones.nodes}
        self._mirror_movable = zones.limits.movable if zones.placement.mirror else None
        self._section = zones.geometry.pages_per_section
        self._zone_end = 0
        self._initialised = 0

    def init(self, zone: BootZone, memory: MemoryRange, start: int, end: int) -> None:
        """Count frames [start, end) of a zone; note the frame at which the node stops."""
        if zone.index == self._mirror_movable and memory.flags & MIRROR:
            return
        if zone.end_pfn < self._ends[zone.nid] or zone.nid in self.first:
            return
        # One counter for the whole machine: another zone end starts it again.
        if self._zone_end != zone.end_pfn:
            self._zone_end = zone.end_pfn
            self._initialised = 0
        stop = round_up(start + max(self._section - self._initialised, 0), self._section)
        if stop < end:
            self.first[zone.nid] = stop
        self._initialised += min(stop, end) - start


def _runs(edges: Sequence[tuple[int, int, str]], count: int, fill: str) -> list[PageblockRun]:
    """Runs that cover `count` pageblocks: `edges` [start, end) with a type, `fill` between."""
    runs: list[PageblockRun] = []

    def add(start: int, end: int, kind: str) -> None:
        if start >= end:
            return
        if runs and runs[-1].type == kind:
            start, last = runs[-1].start_block, runs.pop()
            add(last.start_block, end, kind)
        else:
            runs.append(PageblockRun(start, end - start, kind))

    at = 0
    for start, end, kind in edges:
        first, last = max(start, at), min(end, count)
        if first >= last:
            continue
        add(at, first, fill)
        add(first, last, kind)
        at = last
    add(at, count, fill)
    return runs


def _meeting(intervals: Sequence[Interval], low: int, high: int) -> Sequence[Interval]:
    """Those of ascending intervals that meet [low, high)."""
    first = bisect_right(intervals, low, key=itemgetter(1))
    return intervals[first : bisect_left(intervals, high, key=itemgetter(0))]


def _overlay(
    base: Sequence[PageblockRun], marked: Sequence[Interval], kind: str
) -> tuple[PageblockRun, ...]:
    """Give the marked blocks a type; the rest stays as it is."""
    pieces: list[tuple[int, int, str]] = []
    at = 0
    for run in base:
        start, end = run.start_block, run.start_block + run.count
        while at < len(marked) and marked[at][1] <= start:
            at += 1
        index = at
        while index < len(marked) and marked[index][0] < end:
            low, high = max(marked[index][0], start), min(marked[index][1], end)
            pieces += [(start, low, run.type), (low, high, kind)]
            start = high
            index += 1
        pieces.append((start, end, run.type))
    count = base[-1].start_block + base[-1].count if base else 0
    return tuple(_runs([piece for piece in pieces if piece[0] < piece[1]], count, NO_MEMORY))


def _pageblocks(
    zone: BootZone, zones: BootZones, sections: Sequence[Interval], late: dict[int, int]
) -> tuple[PageblockRun, ...]:
    """Types of a zone's pageblocks: MOVABLE where the first frame of a pageblock is memory.

    A pageblock that two zones share has one type where the map belongs to the section, and one
    for each where it belongs to the zone.

    Linux: memmap_init_range(), mm/page_alloc.c (6.1)
    """
    size = zones.geometry.pageblock_pages
    first = zone.start_pfn // size
    count = -(-zone.end_pfn // size) - first
    span = (first * size, (first + count) * size)
    exist = [
        (low // size - first, -(-high // size) - first, UNMOVABLE)
        for low, high in _meeting(sections, *span)
    ]
    marked: list[Interval] = []
    for memory in zones.ranges_meeting(*span):
        if not zones.geometry.sparse and memory.nid != zone.nid:
            continue
        low, high = memory.start_pfn, memory.end_pfn
        if memory.nid in late:
            high = min(high, max(late[memory.nid], low))
        if not zones.geometry.sparse:
            low, high = max(low, zone.start_pfn), min(high, zone.end_pfn)
        start, end = -(-low // size) - first, -(-high // size) - first
        if start < end:
            marked.append((start, end))
    return _overlay(_runs(exist, count, NO_MEMORY), marked, MOVABLE)


def _old_pageblocks(
    zone: BootZone, zones: BootZones, sections: Sequence[Interval]
) -> tuple[PageblockRun, ...]:
    """Types under 2.6.24: MOVABLE where a pageblock has any frame but an aligned one.

    With FLATMEM the pageblocks of the map are counted from the zone's first frame, aligned or not.

    Linux: memmap_init_zone(), mm/page_alloc.c (2.6.24)
    """
    size = zones.geometry.pageblock_pages
    # A pageblock of one frame never has an unaligned one.
    unaligned = size > 1
    base = round_down(zone.start_pfn, size) if zones.geometry.sparse else zone.start_pfn
    count = -(-(zone.end_pfn - base) // size)
    edges = [
        (max(low - base, 0) // size, -(-(high - base) // size), UNMOVABLE)
        for low, high in _meeting(sections, base, zone.end_pfn)
    ]
    marked: list[Interval] = []
    for low, high in _own_frames(zone, zones, sections):
        # The first and the last frame do not count if they are aligned and alone.
        start = low + 1 if low % size == 0 else low
        end = high - 1 if (high - 1) % size == 0 else high
        if unaligned and start < end:
            marked.append(((start - base) // size, (end - 1 - base) // size + 1))
    return _overlay(_runs(edges, count, NO_MEMORY), _joined(marked), MOVABLE)


def _joined(intervals: Sequence[Interval]) -> list[Interval]:
    """Ascending intervals with those joined that touch or overlap."""
    joined: list[Interval] = []
    for low, high in intervals:
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _own_frames(
    zone: BootZone, zones: BootZones, sections: Sequence[Interval]
) -> Iterator[Interval]:
    """Frames of a zone's span that have a `struct page` and are no other node's memory."""
    for low, high in _meeting(sections, zone.start_pfn, zone.end_pfn):
        start, end = max(low, zone.start_pfn), min(high, zone.end_pfn)
        for memory in zones.ranges_meeting(start, end):
            if memory.nid == zone.nid:
                continue
            if start < memory.start_pfn:
                yield start, memory.start_pfn
            start = memory.end_pfn
        if start < end:
            yield start, end


def deferred_pageblocks(
    zone: BootZone,
    zones: BootZones,
    first_deferred_pfn: int,
    free: Sequence[Interval],
    pageblocks: Sequence[PageblockRun],
) -> tuple[PageblockRun, ...]:
    """Types once the deferred frames of a zone are there.

    A pageblock becomes MOVABLE when its first frame is free at that time; one whose first frame
    was reserved at boot stays as it is.

    Parameters
    ----------
    free : intervals of frames that are free in memblock, ascending
    pageblocks : runs of the zone so far

    Linux: deferred_free_range(), mm/page_alloc.c (6.1)
    """
    size = zones.geometry.pageblock_pages
    first = zone.start_pfn // size
    marked = []
    for low, high in _meeting(free, first_deferred_pfn, zone.end_pfn):
        start = -(-max(low, first_deferred_pfn) // size) - first
        end = -(-min(high, zone.end_pfn) // size) - first
        if start < end:
            marked.append((start, end))
    return _overlay(pageblocks, marked, MOVABLE)
