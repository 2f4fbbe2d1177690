# SPDX-License-Identifier: GPL-2.0-or-later
"""Regions and region arrays: what memblock's `memory` and `reserved` are made of.

Linux: struct memblock_region, struct memblock_type, include/linux/memblock.h (6.1)
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from physmem.lib.errors import CorruptStateError

NUMA_NO_NODE = -1
"""As an argument: any node."""
MAX_NUMNODES = 1 << 10
"""What a region holds whose node is not known (yet)."""

MEMBLOCK_NONE = 0x0
MEMBLOCK_HOTPLUG = 0x1
MEMBLOCK_MIRROR = 0x2
MEMBLOCK_NOMAP = 0x4
MEMBLOCK_DRIVER_MANAGED = 0x8
MEMBLOCK_RSRV_NOINIT = 0x10
"""Only 6.12: struct pages of this reserved range are set up by its owner."""

_END = attrgetter("end")


@dataclass(slots=True)
class Region:
    """One range of physical addresses, in bytes, with its flags and its node."""

    base: int
    size: int
    flags: int = MEMBLOCK_NONE
    nid: int = MAX_NUMNODES

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.base + self.size


def _joins(low: Region, high: Region) -> bool:
    """Whether two neighbours are one region: they touch, and node and flags are the same."""
    return low.end == high.base and low.nid == high.nid and low.flags == high.flags


@dataclass(slots=True)
class RegionArray:
    """Regions in ascending order; an empty array holds one region of size 0, as in the kernel.

    `max` is the capacity in regions and `area` the physical address of the array itself (None:
    it lies in the kernel's image). `total_size` is what memblock *counts*, in bytes: trimming a
    region to whole pages leaves it alone, so it can exceed the sum of the sizes.

    Linux: struct memblock_type, memblock_insert_region(), memblock_merge_regions()

    Examples
    --------
    >>> array = RegionArray("memory", 128)
    >>> array.cnt, array.empty
    (1, True)
    >>> array.insert_uncovered(0x1000, 0x2000)
    1
    >>> array.regions
    [Region(base=4096, size=4096, flags=0, nid=1024)]
    """

    name: str
    max: int
    regions: list[Region] = field(default_factory=lambda: [Region(0, 0)])
    total_size: int = 0
    area: int | None = None
    in_slab: bool = False
    split: bool = False
    """True while neighbours may be left unmerged (only `cap_memory_range` does that)."""
    trimmed: int = 0
    """Bytes that `total_size` counts and no region holds."""

    @property
    def cnt(self) -> int:
        """Regions in the array; 1 for an empty one."""
        return len(self.regions)

    @property
    def empty(self) -> bool:
        """True when only the placeholder of size 0 is there."""
        return self.regions[0].size == 0

    def __iter__(self) -> Iterator[Region]:
        """The regions, without the placeholder of an empty array."""
        return iter([] if self.empty else self.regions)

    def search(self, addr: int) -> int:
        """Index of the region that holds `addr`, or -1.

        Linux: memblock_search(), mm/memblock.c (6.1)
        """
        index = bisect_right(self.regions, addr, key=_END)
        if index < self.cnt and self.regions[index].base <= addr < self.regions[index].end:
            return index
        return -1

    def overlaps(self, base: int, end: int) -> bool:
        """Whether any region holds a byte of [base, end).

        Linux: memblock_overlaps_region(), mm/memblock.c (6.1)
        """
        index = bisect_right(self.regions, base, key=_END)
        return index < self.cnt and self.regions[index].base < end

    def uncovered(self, base: int, end: int) -> list[tuple[int, int]]:
        """The parts of [base, end) that no region covers, ascending."""
        parts = []
        index = bisect_right(self.regions, base, key=_END)
        while index < self.cnt and self.regions[index].base < end:
            region = self.regions[index]
            if region.base > base:
                parts.append((base, region.base))
            base = min(region.end, end)
            index += 1
        if base < end:
            parts.append((base, end))
        return parts

    def insert_uncovered(
        self, base: int, end: int, nid: int = MAX_NUMNODES, flags: int = MEMBLOCK_NONE
    ) -> int:
        """Insert what [base, end) adds, merge, and return how many regions were inserted.

        Existing regions keep their node and flags even where they overlap.
        """
        parts = self.uncovered(base, end)
        if not parts:
            return 0
        if self.empty:
            self.regions = []
            self.total_size = self.trimmed = 0
        for start, stop in parts:
            self._insert(Region(start, stop - start, flags, nid))
            self.total_size += stop - start
        if self.split:
            self.merge()
        return len(parts)

    def _insert(self, new: Region) -> None:
        """Insert one region where there is room for it and join it with its neighbours."""
        regions = self.regions
        index = bisect_right(regions, new.base, key=_END)
        if index < len(regions) and _joins(new, regions[index]):
            new.size += regions[index].size
            del regions[index]
        if index and _joins(regions[index - 1], new):
            regions[index - 1].size += new.size
        else:
            regions.insert(index, new)

    def remove_at(self, index: int) -> None:
        """Delete one region; the last one leaves the placeholder.

        Linux: memblock_remove_region(), mm/memblock.c (6.1)
        """
        self.total_size -= self.regions[index].size
        del self.regions[index]
        if not self.regions:
            self.regions.append(Region(0, 0))

    def isolate(self, base: int, end: int) -> tuple[int, int]:
        """Split regions at `base` and `end`; return the indices [first, last) that lie between.

        (0, 0) when nothing lies there.

        Linux: memblock_isolate_range(), mm/memblock.c (6.1)
        """
        for address in (base, end):
            index = self.search(address)
            if index >= 0 and self.regions[index].base < address:
                low = self.regions[index]
                high = Region(address, low.end - address, low.flags, low.nid)
                low.size = address - low.base
                self.regions.insert(index + 1, high)
        inside = [
            index
            for index, region in enumerate(self.regions)
            if region.size and base <= region.base and region.end <= end
        ]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    def merge(self) -> None:
        """Join all neighbours that touch and have the same node and flags.

        Linux: memblock_merge_regions(), mm/memblock.c (6.1)
        """
        merged = [self.regions[0]]
        for region in self.regions[1:]:
            if _joins(merged[-1], region):
                merged[-1].size += region.size
            else:
                merged.append(region)
        self.regions = merged
        self.split = False

    def validate(self) -> None:
        """Check sorted, disjoint, merged, sized and within the capacity.

        Raises
        ------
        CorruptStateError
            With `invariant` one of `regions-not-empty`, `regions-sorted`, `regions-merged`,
            `regions-total`, `regions-capacity`.
        """
        if self.empty and self.cnt != 1:
            raise CorruptStateError("regions-not-empty", f"{self.name}: placeholder among regions")
        for before, after in zip(self.regions, self.regions[1:], strict=False):
            if after.size <= 0 or before.size <= 0:
                raise CorruptStateError("regions-not-empty", f"{self.name}: {before}, {after}")
            if before.end > after.base:
                raise CorruptStateError("regions-sorted", f"{self.name}: {before} and {after}")
            if not self.split and _joins(before, after):
                raise CorruptStateError("regions-merged", f"{self.name}: {before} and {after}")
        held = sum(region.size for region in self.regions)
        if self.total_size != held + self.trimmed:
            raise CorruptStateError(
                "regions-total",
                f"{self.name}: counts {self.total_size:#x}, holds {held:#x} "
                f"and lost {self.trimmed:#x} by trimming",
            )
        if self.cnt > self.max:
            raise CorruptStateError("regions-capacity", f"{self.name}: {self.cnt} > {self.max}")
