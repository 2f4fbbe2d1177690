# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses of the vmalloc area are in use: the list of 2.6.24, the two trees of 6.1.

Linux: __get_vm_area_node(), mm/vmalloc.c (2.6.24); alloc_vmap_area(), mm/vmalloc.c (6.1)
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Protocol

from physmem.lib.errors import BadRequestError, OutOfMemoryError

IOREMAP_MAX_ORDER = 7
"""log2 of the pages to which 2.6.24 aligns a large ioremap."""


@dataclass(order=True)
class VmArea:
    """Addresses [addr, addr + size), the guard page at the end included."""

    addr: int
    size: int = field(compare=False)
    ioremap: bool = field(compare=False, default=False)

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.addr + self.size


class AreaAllocator(Protocol):
    """Gives out addresses."""

    areas: list[VmArea]

    def get(self, size: int, *, ioremap: bool = False, align: int = 0) -> VmArea:
        """Area with room for `size` bytes and a guard page."""

    def put(self, area: VmArea) -> None:
        """Give an area back."""

    def purge(self) -> list[VmArea]:
        """Make areas that were given back free; they must be flushed from all TLBs first."""


class VmList:
    """The sorted list of 2.6.24: the first gap that is large enough.

    As in the kernel the end of the range is tested only after an area was passed, so that an empty
    list takes anything.

    Examples
    --------
    >>> areas = VmList(0xF8800000, 0xFF7FE000)
    >>> [hex(areas.get(size).addr) for size in (4096, 10000)]
    ['0xf8800000', '0xf8802000']
    >>> hex(areas.get(4096, ioremap=True).addr)
    '0xf8806000'
    """

    def __init__(self, start: int, end: int, page_shift: int = 12) -> None:
        self.start, self.end = start, end
        self.areas: list[VmArea] = []
        self._shift = page_shift

    def get(self, size: int, *, ioremap: bool = False, align: int = 0) -> VmArea:
        """Area of `size` bytes, whole pages, and a guard page.

        Raises
        ------
        BadRequestError
            No bytes.
        OutOfMemoryError
            No gap is large enough.
        """
        page = 1 << self._shift
        if size <= 0:
            raise BadRequestError(f"size {size}: nothing to map")
        align = align or 1
        if ioremap:  # of the size as it was given
            order = min(max(size.bit_length(), self._shift), IOREMAP_MAX_ORDER + self._shift)
            align = 1 << order
        addr = -(-self.start // align) * align
        size = -(-size // page) * page + page
        for n, area in enumerate(self.areas):
            if area.addr < addr:
                if area.end >= addr:
                    addr = -(-area.end // align) * align
                continue
            if addr + size <= area.addr:
                return self._insert(n, VmArea(addr, size, ioremap))
            addr = -(-area.end // align) * align
            if addr > self.end - size:
                raise OutOfMemoryError(f"vmalloc area: no gap of {size} bytes")
        return self._insert(len(self.areas), VmArea(addr, size, ioremap))

    def _insert(self, at: int, area: VmArea) -> VmArea:
        self.areas.insert(at, area)
        return area

    def put(self, area: VmArea) -> None:
        """Give an area back; it is free at once."""
        del self.areas[bisect_left(self.areas, area)]

    def purge(self) -> list[VmArea]:
        """Nothing waits here."""
        return []


class VmTrees:
    """The free and busy areas of 6.1: the lowest free area that holds size and alignment.

    What is given back is not free before a purge: then its TLB entries are gone.

    Examples
    --------
    >>> areas = VmTrees(0xFFFFC90000000000, 0xFFFFE90000000000)
    >>> first = areas.get(4096)
    >>> areas.put(first)
    >>> hex(areas.get(4096).addr), len(areas.purge()), hex(areas.get(4096).addr)
    ('0xffffc90000002000', 1, '0xffffc90000000000')
    """

    def __init__(
        self, start: int, end: int, page_shift: int = 12, *, nr_cpus: int = 1, most_align: int = 30
    ) -> None:
        self.areas: list[VmArea] = []
        self._free: list[tuple[int, int]] = [(start, end)]
        self._lazy: list[VmArea] = []
        self._shift = page_shift
        self._most_align = most_align
        self.lazy_max_pages = nr_cpus.bit_length() * (32 << 20 >> page_shift)

    def get(self, size: int, *, ioremap: bool = False, align: int = 0) -> VmArea:
        """Area of `size` bytes, whole pages, and a guard page.

        Raises
        ------
        BadRequestError
            No bytes.
        OutOfMemoryError
            No free area is large enough, even after a purge.
        """
        page = 1 << self._shift
        if size <= 0:
            raise BadRequestError(f"size {size}: nothing to map")
        align = max(align, page)
        size = -(-size // page) * page
        if ioremap:
            order = min(max((size - 1).bit_length(), self._shift), self._most_align)
            align = 1 << order
        size += page
        found = self._find(size, align)
        if found is None and self._lazy:
            self.purge()
            found = self._find(size, align)
        if found is None:
            raise OutOfMemoryError(f"vmalloc area: no free area of {size} bytes")
        n, addr = found
        low, high = self._free[n]
        self._free[n : n + 1] = [
            piece for piece in ((low, addr), (addr + size, high)) if piece[0] < piece[1]
        ]
        area = VmArea(addr, size, ioremap)
        insort(self.areas, area)
        return area

    def _find(self, size: int, align: int) -> tuple[int, int] | None:
        """Number of the free area to take from, and the address."""
        # what is searched for has room for any alignment: smaller areas are passed by
        length = size + (align - 1 if align > 1 << self._shift else 0)
        for n, (low, high) in enumerate(self._free):
            if high - low >= length:
                return n, -(-low // align) * align
        return None

    def put(self, area: VmArea) -> None:
        """Give an area back: it waits for a purge."""
        del self.areas[bisect_left(self.areas, area)]
        self._lazy.append(area)

    @property
    def wants_purge(self) -> bool:
        """So much waits that a kernel would purge now."""
        return sum(area.size for area in self._lazy) >> self._shift > self.lazy_max_pages

    def purge(self) -> list[VmArea]:
        """Merge what waits into the free areas; the areas, whose addresses must be flushed."""
        done, self._lazy = self._lazy, []
        for area in done:
            insort(self._free, (area.addr, area.end))
        merged: list[tuple[int, int]] = []
        for low, high in self._free:
            if merged and merged[-1][1] == low:
                merged[-1] = merged[-1][0], high
            else:
                merged.append((low, high))
        self._free = merged
        return done
