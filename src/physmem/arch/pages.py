# SPDX-License-Identifier: GPL-2.0-or-later
"""Many single pages from memblock, as if asked for one by one."""

from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MEMBLOCK_ALLOC_ACCESSIBLE
from physmem.firmware.platform import KernelImage
from physmem.lib.errors import BootAllocError

_SOURCE = "memblock"


def take_pages(
    memblock: Memblock,
    page_size: int,
    count: int,
    caller: str,
    limit: int = MEMBLOCK_ALLOC_ACCESSIBLE,
) -> list[tuple[int, int, int, str]]:
    """Take single pages, the highest first: (paddr, count, stride, source) for each run.

    A terabyte of small pages needs half a million tables. Where one free range has room for many,
    they are taken at once: the same frames as one after the other. Not so while calls are logged,
    unless the observer says that one call for many pages is all right (`wholesale`).

    Parameters
    ----------
    limit : highest address, or one of memblock's codes for the current limit

    Raises
    ------
    BootAllocError
        There is no page: the kernel panics.

    Examples
    --------
    >>> memblock = Memblock()
    >>> memblock.add(0x100000, 0x100000)
    >>> take_pages(memblock, 4096, 3, "early_pgtable_alloc")
    [(2093056, 3, -4096, 'memblock')]
    """
    runs: list[tuple[int, int, int, str]] = []
    wholesale = memblock.on_call is None or getattr(memblock.on_call, "wholesale", False)
    while count:
        number = 1
        if wholesale and not memblock.bottom_up and not memblock.has_mirror:
            number = max(min(_room(memblock, page_size), count), 1)
        found = memblock.phys_alloc_range(number * page_size, page_size, 0, limit, caller=caller)
        if not found:
            raise BootAllocError(
                "Failed to allocate page table page (the kernel panics); "
                "give the machine more memory"
            )
        first = found + (number - 1) * page_size
        last = runs[-1] if runs else None
        if last is not None and last[0] - last[1] * page_size == first:
            runs[-1] = (last[0], last[1] + number, -page_size, _SOURCE)
        else:
            runs.append((first, number, -page_size, _SOURCE))
        count -= number
    return runs


def _room(memblock: Memblock, page_size: int) -> int:
    """Pages of the range from which the next one will come."""
    for start, end, _ in memblock.free_ranges(reverse=True):
        low = -(-max(start, page_size) // page_size)
        high = min(end, memblock.current_limit) // page_size
        if high > low:
            return high - low
    return 0


def image_table(image: KernelImage, number: int, page_size: int = 4096) -> int:
    """Physical address of a page table that is part of the kernel's image.

    Where in the image it lies is the linker's business; here these tables are the first whole pages
    of the bss, which is never given back.

    Examples
    --------
    >>> image = KernelImage(start=1 << 24, end=0x3800000, bss_kib=5460)
    >>> hex(image_table(image, 0)), hex(image_table(image, 2))
    ('0x32ab000', '0x32ad000')
    """
    bss = image.end - max(image.bss_kib << 10, 16 * page_size)
    return -(-bss // page_size) * page_size + number * page_size
