# SPDX-License-Identifier: GPL-2.0-or-later
"""Iterators over memory minus reservations, in one packed index as the kernel has it.

The index holds the position in `memory` in its low 32 bits and the position in `reserved` in its
high 32 bits, nothing else: so the arrays may change between two steps (an allocation inside the
loop, even one that doubles an array) and the next step goes on from the new contents.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from physmem.bootalloc.region import (
    MEMBLOCK_DRIVER_MANAGED,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    NUMA_NO_NODE,
    Region,
    RegionArray,
)

ULLONG_MAX = (1 << 64) - 1
"""The index that starts a descending walk and ends every walk."""
_LOW = 0xFFFF_FFFF
_BASE, _END = attrgetter("base"), attrgetter("end")


class Range(NamedTuple):
    """A range of bytes [start, end) of node `nid`."""

    start: int
    end: int
    nid: int


class Wanted(NamedTuple):
    """Which memory regions an iterator visits; `movable_node` is the switch of that name.

    Linux: should_skip_region(), mm/memblock.c (6.1)
    """

    nid: int
    flags: int
    movable_node: bool

    def skips(self, region: Region) -> bool:
        """Whether the walk leaves out this memory region."""
        if self.nid not in (NUMA_NO_NODE, region.nid):
            return True
        has, asked = region.flags, self.flags
        if self.movable_node and has & MEMBLOCK_HOTPLUG and not asked & MEMBLOCK_HOTPLUG:
            return True
        if asked & MEMBLOCK_MIRROR and not has & MEMBLOCK_MIRROR:
            return True
        return bool(has & ~asked & (MEMBLOCK_NOMAP | MEMBLOCK_DRIVER_MANAGED))


def _gap(reserved: RegionArray, index: int) -> tuple[int, int]:
    """What lies before the reservation `index`; after all of them for index == cnt."""
    start = reserved.regions[index - 1].end if index else 0
    end = reserved.regions[index].base if index < reserved.cnt else ULLONG_MAX
    return start, end


def next_mem_range(
    memory: RegionArray, reserved: RegionArray, index: int, wanted: Wanted
) -> tuple[int, Range | None]:
    """One step upwards from `index` (0 to start): the next index, and a range or None at the end.

    Ranges may be empty: the kernel's are between two reservations that touch.

    Linux: __next_mem_range(), mm/memblock.c (6.1)

    Examples
    --------
    >>> from physmem.bootalloc.region import RegionArray
    >>> memory, reserved = RegionArray("memory", 8), RegionArray("reserved", 8)
    >>> _ = memory.insert_uncovered(0x0, 0x5000), reserved.insert_uncovered(0x1000, 0x2000)
    >>> wanted = Wanted(NUMA_NO_NODE, 0, False)
    >>> index, first = next_mem_range(memory, reserved, 0, wanted)
    >>> first.start, first.end
    (0, 4096)
    >>> index, second = next_mem_range(memory, reserved, index, wanted)
    >>> second.start, second.end
    (8192, 20480)
    >>> next_mem_range(memory, reserved, index, wanted)
    (18446744073709551615, None)
    """
    a, b = index & _LOW, index >> 32
    while a < memory.cnt:
        region = memory.regions[a]
        if not wanted.skips(region):
            while b <= reserved.cnt:
                start, end = _gap(reserved, b)
                if start >= region.end:
                    break
                if region.base < end:
                    found = Range(max(region.base, start), min(region.end, end), region.nid)
                    # Whichever ends first is done with.
                    if region.end <= end:
                        a += 1
                    else:
                        b += 1
                    return a | b << 32, found
                b += 1
        a += 1
    return ULLONG_MAX, None


def next_mem_range_rev(
    memory: RegionArray, reserved: RegionArray, index: int, wanted: Wanted
) -> tuple[int, Range | None]:
    """One step downwards from `index` (ULLONG_MAX to start): the next index, and a range or None.

    Linux: __next_mem_range_rev(), mm/memblock.c (6.1)
    """
    a, b = index & _LOW, index >> 32
    if index == ULLONG_MAX:
        a, b = memory.cnt - 1, reserved.cnt
    elif a == _LOW:
        return ULLONG_MAX, None
    # Arrays that shrank since the last step: the kernel would look at what it left behind.
    a, b = min(a, memory.cnt - 1), min(b, reserved.cnt)
    while a >= 0:
        region = memory.regions[a]
        if not wanted.skips(region):
            while b >= 0:
                start, end = _gap(reserved, b)
                if end <= region.base:
                    break
                if region.end > start:
                    found = Range(max(region.base, start), min(region.end, end), region.nid)
                    if region.base >= start:
                        a -= 1
                    else:
                        b -= 1
                    return (a & _LOW) | b << 32, found
                b -= 1
        a -= 1
    return ULLONG_MAX, None


def free_upwards(
    memory: RegionArray, reserved: RegionArray, wanted: Wanted, size: int = 1
) -> Iterator[tuple[int, int]]:
    """Ranges of `size` bytes or more that `next_mem_range` gives while nothing changes.

    Searches use it: most gaps are the few bytes that an alignment left, and a step by index
    costs ten times as much. Empty ranges are left out.
    """
    size = max(size, 1)
    taken = reserved.regions
    for region in memory.regions:
        if region.size and not wanted.skips(region):
            start, end = region.base, region.end
            index = bisect_right(taken, start, key=_END)
            while index < len(taken) and taken[index].base < end:
                stop = taken[index].base
                if stop - start >= size:
                    yield start, stop
                start = stop + taken[index].size
                index += 1
            if end - start >= size:
                yield start, end


def free_downwards(
    memory: RegionArray, reserved: RegionArray, wanted: Wanted, size: int = 1
) -> Iterator[tuple[int, int]]:
    """The same ranges as `free_upwards`, descending."""
    size = max(size, 1)
    taken = reserved.regions
    for region in reversed(memory.regions):
        if region.size and not wanted.skips(region):
            start, end = region.base, region.end
            index = bisect_left(taken, end, key=_BASE) - 1
            while index >= 0:
                begin = taken[index].base
                stop = begin + taken[index].size
                if stop <= start:
                    break
                if end - stop >= size:
                    yield stop, end
                end = begin
                index -= 1
            if end - start >= size:
                yield start, end
