# SPDX-License-Identifier: GPL-2.0-or-later
"""Ranges of memory by node: what every later step of the zone set-up reads.

Linux: for_each_mem_pfn_range(), get_pfn_range_for_nid(), absent_pages_in_range(),
mm/page_alloc.c (6.1)
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from physmem.lib.errors import BadMachineError

HOTPLUG = 1
"""Memory that may go away: MEMBLOCK_HOTPLUG."""
MIRROR = 2
"""Memory that the firmware keeps twice: MEMBLOCK_MIRROR."""
NOMAP = 4
"""Memory that the direct map leaves out: MEMBLOCK_NOMAP."""
MAX_NUMNODES = 1024
MAX_PFN = 1 << 54
"""No machine has frames from here on."""


@dataclass(frozen=True, slots=True, order=True)
class MemoryRange:
    """Frames [start_pfn, end_pfn) of one node.

    Attributes
    ----------
    start_pfn, end_pfn : first frame, and the one after the last
    nid : node
    flags : set of HOTPLUG, MIRROR, NOMAP

    Examples
    --------
    >>> MemoryRange(1, 159).pages
    158
    """

    start_pfn: int
    end_pfn: int
    nid: int = 0
    flags: int = 0

    @property
    def pages(self) -> int:
        """Frames of the range."""
        return self.end_pfn - self.start_pfn


class NodeRanges:
    """The ranges of one node, ascending, with fast sums.

    Attributes
    ----------
    nid : node
    ranges : its ranges
    start_pfn, end_pfn : first frame of the first range, end of the last one
    pages : frames of all ranges

    Examples
    --------
    >>> node = NodeRanges(0, [MemoryRange(1, 159), MemoryRange(256, 1000)])
    >>> node.start_pfn, node.end_pfn, node.pages, node.covered(100, 300), node.absent(100, 300)
    (1, 1000, 902, 103, 97)
    """

    def __init__(self, nid: int, ranges: Sequence[MemoryRange]) -> None:
        self.nid = nid
        self.ranges = tuple(ranges)
        self._starts = [memory.start_pfn for memory in self.ranges]
        self._before = [0]
        for memory in self.ranges:
            self._before.append(self._before[-1] + memory.pages)
        self.start_pfn = self._starts[0] if self.ranges else 0
        self.end_pfn = self.ranges[-1].end_pfn if self.ranges else 0
        self.pages = self._before[-1]

    def _below(self, pfn: int) -> int:
        """Frames of the node below a pfn."""
        index = bisect_right(self._starts, pfn)
        if index == 0:
            return 0
        memory = self.ranges[index - 1]
        return self._before[index - 1] + min(pfn, memory.end_pfn) - memory.start_pfn

    def covered(self, start_pfn: int, end_pfn: int) -> int:
        """Frames of the node inside [start_pfn, end_pfn)."""
        return self._below(end_pfn) - self._below(start_pfn) if start_pfn < end_pfn else 0

    def absent(self, start_pfn: int, end_pfn: int) -> int:
        """Frames inside [start_pfn, end_pfn) that the node has not.

        Linux: __absent_pages_in_range(), mm/page_alloc.c (6.1)
        """
        return max(end_pfn - start_pfn, 0) - self.covered(start_pfn, end_pfn)


def ranges_from_bytes(
    regions: Iterable[tuple[int, int, int, int]], page_shift: int = 12
) -> tuple[MemoryRange, ...]:
    """Whole frames of regions (base, size, nid, flags) in bytes; smaller regions are left out.

    Examples
    --------
    >>> ranges_from_bytes([(0x1000, 0x9EC00, 0, 0), (0x100800, 0x800, 0, 0)])
    (MemoryRange(start_pfn=1, end_pfn=159, nid=0, flags=0),)

    Linux: for_each_mem_pfn_range(), include/linux/memblock.h (6.1)
    """
    page = 1 << page_shift
    found = []
    for base, size, nid, flags in regions:
        start, end = -(-base // page), (base + size) // page
        if start < end:
            found.append(MemoryRange(start, end, nid, flags))
    return tuple(found)


def check_ranges(ranges: Iterable[MemoryRange]) -> tuple[MemoryRange, ...]:
    """Return the ranges in ascending order.

    Raises
    ------
    BadMachineError
        No memory, a range without frames or beyond 2^54 frames, a node that no kernel numbers,
        or two ranges that overlap (the kernel stops there, or counts frames twice).

    Examples
    --------
    >>> [r.start_pfn for r in check_ranges([MemoryRange(256, 300), MemoryRange(1, 159)])]
    [1, 256]
    """
    ordered = tuple(sorted(ranges))
    if not ordered:
        raise BadMachineError("no memory: the machine needs at least one range of frames")
    for memory in ordered:
        if not 0 <= memory.start_pfn < memory.end_pfn <= MAX_PFN:
            span = f"[{memory.start_pfn:#x}, {memory.end_pfn:#x})"
            raise BadMachineError(f"frames {span} of node {memory.nid}: not a range of frames")
        if not 0 <= memory.nid < MAX_NUMNODES:
            raise BadMachineError(f"node {memory.nid}: nodes are 0 to {MAX_NUMNODES - 1}")
    for low, high in pairwise(ordered):
        if low.end_pfn > high.start_pfn:
            raise BadMachineError(
                f"frames [{high.start_pfn:#x}, {min(low.end_pfn, high.end_pfn):#x}) are told "
                f"twice: for node {low.nid} and for node {high.nid}"
            )
    return ordered


def by_node(ranges: Sequence[MemoryRange]) -> dict[int, NodeRanges]:
    """Ranges of each node that has memory, by ascending node.

    Examples
    --------
    >>> nodes = by_node([MemoryRange(1, 9), MemoryRange(9, 20, 1), MemoryRange(20, 22)])
    >>> [(nid, node.pages) for nid, node in nodes.items()]
    [(0, 10), (1, 11)]
    """
    lists: dict[int, list[MemoryRange]] = {}
    for memory in ranges:
        lists.setdefault(memory.nid, []).append(memory)
    return {nid: NodeRanges(nid, lists[nid]) for nid in sorted(lists)}


def node_range_lines(ranges: Sequence[MemoryRange], page_shift: int = 12) -> list[str]:
    r"""Lines that tell the memory of each node.

    Examples
    --------
    >>> print("\n".join(node_range_lines([MemoryRange(1, 159)])))
    Early memory node ranges
      node   0: [mem 0x0000000000001000-0x000000000009efff]

    Linux: free_area_init(), mm/page_alloc.c (6.1)
    """
    lines = ["Early memory node ranges"]
    for memory in ranges:
        start, end = memory.start_pfn << page_shift, (memory.end_pfn << page_shift) - 1
        lines.append(f"  node {memory.nid:3d}: [mem {start:#018x}-{end:#018x}]")
    return lines
