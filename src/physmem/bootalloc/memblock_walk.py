# SPDX-License-Identifier: GPL-2.0-or-later
"""Walking memblock's maps, asking them, and cutting them to size as a whole.

Linux: mm/memblock.c (6.1)
"""

from collections.abc import Iterator
from typing import NamedTuple

from physmem.bootalloc.call import address
from physmem.bootalloc.memblock_alloc import MemblockAlloc
from physmem.bootalloc.ranges import (
    ULLONG_MAX,
    Range,
    Wanted,
    next_mem_range,
    next_mem_range_rev,
)
from physmem.bootalloc.region import (
    MAX_NUMNODES,
    MEMBLOCK_DRIVER_MANAGED,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_NOMAP,
    MEMBLOCK_NONE,
    NUMA_NO_NODE,
    RegionArray,
)
from physmem.lib.errors import BadRequestError

_NOTHING = RegionArray("nothing", 1)
"""Subtracted from memory, it leaves memory."""


class PfnRange(NamedTuple):
    """Whole pages [start, end) of node `nid`."""

    start: int
    end: int
    nid: int


class MemblockWalk(MemblockAlloc):
    """Iterators, questions and whole-map changes; see `Memblock`."""

    # -- iterators: each step looks at the arrays as they are then ------------------------------

    def free_ranges(
        self, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE, *, reverse: bool = False
    ) -> Iterator[Range]:
        """Memory that is not reserved, cut at the borders of memory regions.

        Memory marked NOMAP or driver-managed only with that bit in `flags`; only mirrored memory
        with MEMBLOCK_MIRROR; no hot-pluggable memory under `movable_node` unless asked for.

        Linux: for_each_free_mem_range(), include/linux/memblock.h (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.add(0x1000, 0x9F000)
        >>> memblock.reserve(0x2000, 0x1000)
        >>> [(hex(start), hex(end)) for start, end, nid in memblock.free_ranges(reverse=True)]
        [('0x3000', '0xa0000'), ('0x1000', '0x2000')]
        """
        return self._walk(self.reserved, Wanted(nid, flags, self.config.movable_node), reverse)

    def mem_ranges(self, *, reverse: bool = False) -> Iterator[Range]:
        """Memory, reserved or not; without NOMAP.

        Linux: for_each_mem_range(), include/linux/memblock.h (6.1)
        """
        flags = MEMBLOCK_HOTPLUG | MEMBLOCK_DRIVER_MANAGED
        wanted = Wanted(NUMA_NO_NODE, flags, self.config.movable_node)
        return self._walk(_NOTHING, wanted, reverse)

    def reserved_ranges(self) -> Iterator[Range]:
        """All reservations, ascending.

        Linux: for_each_reserved_mem_range(), include/linux/memblock.h (6.1)
        """
        index = 0
        while index < self.reserved.cnt:
            region = self.reserved.regions[index]
            if region.size:
                yield Range(region.base, region.end, region.nid)
            index += 1

    def mem_pfn_ranges(self, nid: int = NUMA_NO_NODE) -> Iterator[PfnRange]:
        """The whole pages of each memory region of a node (any: all), also of NOMAP ones.

        Linux: for_each_mem_pfn_range(), include/linux/memblock.h (6.1)
        """
        index = 0
        while index < self.memory.cnt:
            region = self.memory.regions[index]
            start, end = self.pfn_up(region.base), self.pfn_down(region.end)
            if start < end and nid in (NUMA_NO_NODE, MAX_NUMNODES, region.nid):
                yield PfnRange(start, end, region.nid)
            index += 1

    def free_pfn_ranges(
        self, start_pfn: int, end_pfn: int, nid: int = NUMA_NO_NODE
    ) -> Iterator[PfnRange]:
        """Whole free pages within [start_pfn, end_pfn), for deferred initialisation.

        Linux: for_each_free_mem_pfn_range_in_zone(), include/linux/memblock.h (6.1)
        """
        for start, end, node in self.free_ranges(nid):
            first = max(self.pfn_up(start), start_pfn)
            last = min(self.pfn_down(end), end_pfn)
            if first < last:
                yield PfnRange(first, last, node)

    def _walk(
        self,
        reserved: RegionArray,
        wanted: Wanted,
        reverse: bool,  # noqa: FBT001 - private
    ) -> Iterator[Range]:
        step, index = (next_mem_range_rev, ULLONG_MAX) if reverse else (next_mem_range, 0)
        while True:
            self._must_exist()
            index, found = step(self.memory, reserved, index, wanted)
            if found is None:
                return
            if found.start < found.end:
                yield found

    # -- questions -----------------------------------------------------------------------------

    def search(self, addr: int, *, array: RegionArray | None = None) -> int:
        """Index of the region of `array` (memory unless told) that holds `addr`, or -1.

        Linux: memblock_search(), mm/memblock.c (6.1)
        """
        return (self.memory if array is None else array).search(addr)

    def search_pfn_nid(self, pfn: int) -> int:
        """Node of a page, or -1 when it is not memory or its node is not known.

        Linux: memblock_search_pfn_nid(), mm/memblock.c (6.1)
        """
        index = self.memory.search(pfn << self.config.page_shift)
        nid = self.memory.regions[index].nid if index >= 0 else MAX_NUMNODES
        return NUMA_NO_NODE if nid == MAX_NUMNODES else nid

    def is_memory(self, addr: int) -> bool:
        """Linux: memblock_is_memory(), mm/memblock.c (6.1)."""
        return self.memory.search(addr) >= 0

    def is_map_memory(self, addr: int) -> bool:
        """Whether `addr` is memory of the direct map. Linux: memblock_is_map_memory() (6.1)."""
        index = self.memory.search(addr)
        return index >= 0 and not self.memory.regions[index].flags & MEMBLOCK_NOMAP

    def is_reserved(self, addr: int) -> bool:
        """Linux: memblock_is_reserved(), mm/memblock.c (6.1)."""
        return self.reserved.search(addr) >= 0

    def is_region_memory(self, base: int, size: int) -> bool:
        """Whether *one* memory region holds all of [base, base + size).

        Linux: memblock_is_region_memory(), mm/memblock.c (6.1)
        """
        index = self.memory.search(base)
        end = base + self._capped(base, size)
        return index >= 0 and self.memory.regions[index].end >= end

    def is_region_reserved(self, base: int, size: int) -> bool:
        """Whether any byte of [base, base + size) is reserved.

        Linux: memblock_is_region_reserved(), mm/memblock.c (6.1)
        """
        return self.reserved.overlaps(base, base + self._capped(base, size))

    def start_of_dram(self) -> int:
        """Lowest address of memory. Linux: memblock_start_of_DRAM(), mm/memblock.c (6.1)."""
        return self.memory.regions[0].base

    def end_of_dram(self) -> int:
        """Address after all memory. Linux: memblock_end_of_DRAM(), mm/memblock.c (6.1)."""
        return self.memory.regions[-1].end

    def phys_mem_size(self) -> int:
        """Bytes of memory as counted: `trim_memory` does not lower it.

        Linux: memblock_phys_mem_size(), mm/memblock.c (6.1)
        """
        return self.memory.total_size

    def reserved_size(self) -> int:
        """Bytes reserved. Linux: memblock_reserved_size(), mm/memblock.c (6.1)."""
        return self.reserved.total_size

    def pfn_up(self, addr: int) -> int:
        """Number of the first page at or above `addr`."""
        return -(-addr >> self.config.page_shift)

    def pfn_down(self, addr: int) -> int:
        """Number of the page that holds `addr`."""
        return addr >> self.config.page_shift

    # -- whole-map changes ---------------------------------------------------------------------

    def trim_memory(self, align: int) -> None:
        """Shrink every memory region to multiples of `align`; what vanishes is removed.

        The counted size of memory stays: the kernel forgets to correct it.

        Linux: memblock_trim_memory(), mm/memblock.c (6.1)
        """
        if align < 1 or align & (align - 1):
            raise BadRequestError(f"an alignment is a power of two, not {align}")
        for index in reversed(range(self.memory.cnt)):
            region = self.memory.regions[index]
            start, end = (region.base + align - 1) & -align, region.end & -align
            if start < end:
                self.memory.trimmed += region.size - (end - start)
                region.base, region.size = start, end - start
            elif region.size:
                self.memory.remove_at(index)

    def enforce_memory_limit(self, limit: int) -> None:
        """Forget memory and reservations beyond the first `limit` bytes of memory (0: no limit).

        Linux: memblock_enforce_memory_limit(), mm/memblock.c (6.1)
        """
        end = self._address_of_size(limit) if limit else None
        if end is not None:
            self._remove_range(self.memory, end, self.phys_addr_max)
            self._remove_range(self.reserved, end, self.phys_addr_max)

    def cap_memory_range(self, base: int, size: int) -> None:
        """Keep only [base, base + size) of memory, and NOMAP regions; cut reservations to it.

        Linux: memblock_cap_memory_range(), mm/memblock.c (6.1)
        """
        base, size = self._checked(base, size)
        if not size:
            return
        if not self.memory.total_size:
            self._note("memblock_cap_memory_range: No memory registered yet")
            return
        span = self._isolate(self.memory, base, size)
        if span is None:
            return
        # Nothing is merged: a NOMAP region that was split at an edge stays in two.
        self.memory.split = True
        for index in reversed(range(self.memory.cnt)):
            region = self.memory.regions[index]
            kept = span[0] <= index < span[1] or region.flags & MEMBLOCK_NOMAP
            if not kept and region.size:
                self.memory.remove_at(index)
        self._remove_range(self.reserved, 0, base)
        end = base + self._capped(base, size)
        self._remove_range(self.reserved, end, self.phys_addr_max)

    def mem_limit_remove_map(self, limit: int) -> None:
        """Keep the first `limit` bytes of memory and all NOMAP regions.

        Linux: memblock_mem_limit_remove_map(), mm/memblock.c (6.1)
        """
        end = None if limit == self.phys_addr_max else self._address_of_size(limit)
        if end is not None:
            self.cap_memory_range(0, end)

    def _address_of_size(self, limit: int) -> int | None:
        """Address at which `limit` bytes of memory are used up; None: there is less.

        Linux: __find_max_addr(), mm/memblock.c (6.1)
        """
        for region in self.memory.regions:
            if limit <= region.size:
                return region.base + limit
            limit -= region.size
        return None

    # -- showing -------------------------------------------------------------------------------

    def dump(self) -> str:
        """Both arrays as `memblock=debug` logs them, without time stamps.

        Linux: __memblock_dump_all(), mm/memblock.c (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.add(0x1000, 0x9E000)
        >>> print(memblock.dump().expandtabs(1))
        MEMBLOCK configuration:
         memory size = 0x000000000009e000 reserved size = 0x0000000000000000
         memory.cnt  = 0x1
         memory[0x0] [0x0000000000001000-0x000000000009efff], 0x000000000009e000 bytes flags: 0x0
         reserved.cnt  = 0x1
         reserved[0x0] [0x0000000000000000-0xffffffffffffffff], 0x0000000000000000 bytes flags: 0x0
        """
        digits = self.config.phys_addr_bits // 4
        lines = [
            "MEMBLOCK configuration:",
            " memory size = {} reserved size = {}".format(
                *(address(array.total_size, digits) for array in (self.memory, self.reserved))
            ),
        ]
        for array in (self.memory, self.reserved):
            lines.append(f" {array.name}.cnt  = {array.cnt:#x}")
            for index, region in enumerate(array.regions):
                known = self.config.numa and region.nid != MAX_NUMNODES
                node = f" on node {region.nid}" if known else ""
                last = address((region.end - 1) & self.phys_addr_max, digits)
                lines.append(
                    f" {array.name}[{index:#x}]\t[{address(region.base, digits)}-{last}], "
                    f"{address(region.size, digits)} bytes{node} flags: {region.flags:#x}"
                )
        return "\n".join(lines)
