# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem of one node: a bit for each page, 1 = taken, and where the last allocation ended.

Linux: mm/bootmem.c (2.6.24)
"""

from dataclasses import dataclass

import numpy as np

from physmem.bootalloc.bitmap import Bitmap
from physmem.bootalloc.ram import ViewRam
from physmem.lib.errors import BootAllocError, CorruptStateError


def align_up(value: int, align: int) -> int:
    """Round up to a multiple of a power of two; 0 for `align` 0, as the kernel's ALIGN does."""
    return (value + align - 1) & -align


@dataclass(slots=True)
class BootmemNode:
    """One node's pages [start >> page_shift, low_pfn) and the state of its allocator.

    Attributes
    ----------
    start : int
        First byte of the node, page aligned.
    low_pfn : int
        Number of the page after the last.
    map_pfn : int
        Page where the bitmap lies.
    map_size : int
        Bytes of the bitmap, a multiple of a long.
    bits : Bitmap or None
        None after the hand-over.
    last_pos, last_offset : int
        Page (relative to the node) in which the previous allocation ended, and the bytes used
        in it; 0 bytes: it ended with the page.
    last_success : int
        Where the next search with a goal starts: bytes, relative to the node when set by an
        allocation, absolute when set by `free` (so in 2.6.24).
    free_pages : int
        Clear bits; the kernel does not count them.

    Linux: struct bootmem_data, include/linux/bootmem.h (2.6.24)
    """

    nid: int
    start: int
    low_pfn: int
    map_pfn: int
    map_size: int
    page_shift: int
    bits: Bitmap | None = None
    last_pos: int = 0
    last_offset: int = 0
    last_success: int = 0
    free_pages: int = 0

    @property
    def start_pfn(self) -> int:
        """Number of the first page."""
        return self.start >> self.page_shift

    @property
    def pages(self) -> int:
        """Pages that the bitmap describes."""
        return self.low_pfn - self.start_pfn

    def reset(self, ram: ViewRam | None) -> None:
        """Mark every page as taken, in a bitmap that lies in `ram` where there is one.

        Linux: init_bootmem_core(), mm/bootmem.c (2.6.24)
        """
        if ram is None:
            data = np.empty(self.map_size, np.uint8)
        else:
            data = ram.view(self.map_pfn << self.page_shift, self.map_size)
        data[:] = 0xFF
        self.bits = Bitmap(data)

    def reserve(self, addr: int, size: int, *, exclusive: bool = False) -> None:
        """Take every page that [addr, addr + size) touches; taken ones stay so.

        A range that starts before the node and ends in it reserves nothing at all: the kernel's
        index wraps.

        Linux: reserve_bootmem_core(), mm/bootmem.c (2.6.24)

        Raises
        ------
        BootAllocError
            When the kernel would BUG: empty range, or not in the node; with `exclusive`
            (2.6.25) also when a page is taken already, and nothing is reserved.
        """
        bits = self._map()
        page = 1 << self.page_shift
        last = -(-(addr + size) // page)
        outside = addr >> self.page_shift >= self.low_pfn or last > self.low_pfn
        if size <= 0 or outside or addr + size <= self.start:
            raise BootAllocError(self._bug("reserve", addr, size, "is empty or not in the node"))
        if addr < self.start:
            return
        first, end = (addr - self.start) >> self.page_shift, last - self.start_pfn
        if exclusive and bits.next_set(first, end) < end:
            raise BootAllocError(
                f"bootmem reserve [{addr:#x}, +{size:#x}) on node {self.nid}: -EBUSY, page "
                f"{bits.next_set(first, end) + self.start_pfn:#x} is taken (BOOTMEM_EXCLUSIVE)"
            )
        index = first
        while index < end:
            zero = bits.next_zero(index, end)
            index = bits.next_set(zero, end)
            self.free_pages -= index - zero
        bits.set_run(first, end)

    def free(self, addr: int, size: int) -> None:
        """Give back the pages that lie wholly in [addr, addr + size).

        Linux: free_bootmem_core(), mm/bootmem.c (2.6.24)

        Raises
        ------
        BootAllocError
            When the kernel would BUG: empty range, beyond the node, or a page is free already.
        """
        bits = self._map()
        if size <= 0 or (addr + size) >> self.page_shift > self.low_pfn:
            raise BootAllocError(self._bug("free", addr, size, "is empty or beyond the node"))
        first = -(-addr >> self.page_shift) - self.start_pfn
        end = (addr + size - self.start) >> self.page_shift
        # A start before the node makes the kernel's index wrap: it frees nothing.
        wraps = first < 0 or first >= end
        if not wraps and bits.next_zero(first, end) < end:
            page = bits.next_zero(first, end) + self.start_pfn
            raise BootAllocError(self._bug("free", addr, size, f"page {page:#x} is free already"))
        self.last_success = min(self.last_success, addr)
        if not wraps:
            bits.clear_run(first, end)
            self.free_pages += end - first

    def alloc(self, size: int, align: int, goal: int, limit: int) -> int | None:
        """Address of `size` bytes, from `goal` on if there are any, or None.

        Parameters
        ----------
        size : int
            Bytes, at least 1.
        align : int
            A power of two or 0. Below a page, the rest of the page in which the previous
            allocation ended is used if the search ends at the very next page. (0 makes that
            rest start at the *beginning* of the page: no caller in the kernel does it.)
        goal : int
            Address to start from; ignored when it is 0, before the node, or beyond its end.
        limit : int
            Address to stay below, 0 for none.

        Linux: __alloc_bootmem_core(), mm/bootmem.c (2.6.24)
        """
        if size <= 0 or align < 0 or align & (align - 1):
            raise BootAllocError(
                f"kernel BUG: bootmem alloc of {size} bytes with alignment {align}: the size "
                "must be positive, the alignment a power of two or 0"
            )
        if self.bits is None or (limit and self.start >= limit):
            return None
        shift, page = self.page_shift, 1 << self.page_shift
        limit_pfn = limit >> shift
        end_pfn = min(self.low_pfn, limit_pfn) if limit_pfn else self.low_pfn
        end = end_pfn - self.start_pfn
        # In pages: from the start of the node to the first aligned address.
        offset = ((align - (self.start & (align - 1))) >> shift) if self._skewed(align) else 0

        preferred = 0
        if goal and goal >= self.start and goal >> shift < end_pfn:
            preferred = goal - self.start
            # Bytes against pages: so it stands in 2.6.24.
            if self.last_success >= preferred and not 0 < limit_pfn <= self.last_success:
                preferred = self.last_success
        first = (align_up(preferred, align) >> shift) + offset
        area = -(-size // page)
        found = self._scan(first, end, area, max(align >> shift, 1))
        if found is None and first > offset:
            found = self._scan(offset, end, area, max(align >> shift, 1))
        if found is None:
            return None
        self.last_success = found << shift
        return self._place(found, size, align)

    def validate(self) -> None:
        """Check the bitmap against the count, and the ranges of the fields.

        Raises
        ------
        CorruptStateError
            With `invariant` one of `bootmem-count`, `bootmem-surplus`, `bootmem-offset`.
        """
        if self.bits is None:
            return
        zeros = self.bits.count_zero(self.pages)
        if zeros != self.free_pages:
            raise CorruptStateError(
                "bootmem-count", f"node {self.nid}: {zeros} bits clear, {self.free_pages} counted"
            )
        every = self.map_size * 8
        if self.bits.next_zero(self.pages, every) < every:
            raise CorruptStateError("bootmem-surplus", f"node {self.nid}: a bit beyond the end")
        if not 0 <= self.last_offset < 1 << self.page_shift or self.last_pos < 0:
            raise CorruptStateError(
                "bootmem-offset", f"node {self.nid}: {self.last_pos}, {self.last_offset}"
            )

    def _skewed(self, align: int) -> bool:
        return bool(align and self.start & (align - 1))

    def _scan(self, index: int, end: int, area: int, step: int) -> int | None:
        """First aligned index with `area` clear bits from `index` on.

        After a failure at bit j the first aligned index behind j is skipped, unless j itself is
        aligned: the kernel rounds up and its loop adds a step.
        """
        bits = self._map()
        while index < end:
            index = align_up(bits.next_zero(index, end), step)
            if index >= end:
                break
            if not bits.test(index):
                stop = min(index + area, end)
                failed = bits.next_set(index + 1, stop)
                if failed == stop and index + area <= end:
                    return index
                index = align_up(failed, step)
            index += step
        return None

    def _place(self, found: int, size: int, align: int) -> int:
        """Take the pages, after the rest of the previous allocation's page if it is next to it."""
        page = 1 << self.page_shift
        if align < page and self.last_offset and self.last_pos + 1 == found:
            offset = align_up(self.last_offset, align)
            result = self.start + self.last_pos * page + offset
            left = size - (page - offset)
            if left < 0:
                taken = 0
                self.last_offset = offset + size
            else:
                taken = -(-left // page)
                self.last_pos = found + taken - 1
                self.last_offset = left
        else:
            result = self.start + found * page
            taken = -(-size // page)
            self.last_pos = found + taken - 1
            self.last_offset = size
        self.last_offset &= page - 1
        self._map().set_run(found, found + taken)
        self.free_pages -= taken
        return result

    def _map(self) -> Bitmap:
        if self.bits is None:
            raise BootAllocError(
                f"bootmem of node {self.nid} is shut down; its free memory went to the buddy "
                "system: use the page allocator"
            )
        return self.bits

    def _bug(self, what: str, addr: int, size: int, why: str) -> str:
        end = self.low_pfn << self.page_shift
        return (
            f"kernel BUG: bootmem {what} [{addr:#x}, +{size:#x}) on node {self.nid} "
            f"[{self.start:#x}, {end:#x}): {why}"
        )
