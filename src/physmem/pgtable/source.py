# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the pages of a page table come from: a boot allocator, later the page allocator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

GFP_PGTABLE_KERNEL = 0xDC0
"""GFP_KERNEL | __GFP_ZERO"""
GFP_PGTABLE_USER = 0x400DC0
"""GFP_KERNEL_ACCOUNT | __GFP_ZERO"""

BootAlloc: TypeAlias = Callable[[int, int], int]
"""Function of (size, alignment) in bytes that gives a physical address, as a boot allocator has."""


@dataclass(frozen=True)
class Buddy:
    """The page allocator of a machine.

    Attributes
    ----------
    memory : int
        Address of the machine's Memory record (the machine must outlive the page table).
    gfp : int
        Flags of requests for table pages.
    nid, cpu : int
        Node to look at first; CPU whose lists are used.
    frame_shift : int
        log2 of the bytes of the machine's frames.
    """

    memory: int
    gfp: int = GFP_PGTABLE_KERNEL
    nid: int = 0
    cpu: int = 0
    frame_shift: int = 12


Source: TypeAlias = BootAlloc | Buddy


def bump(start: int, end: int) -> BootAlloc:
    """Allocator that gives one piece of [start, end) after the other and takes none back.

    Raises
    ------
    OutOfMemoryError
        (by the function) The range is used up.

    Examples
    --------
    >>> alloc = bump(0x1000, 0x4000)
    >>> hex(alloc(4096, 4096)), hex(alloc(4096, 8192))
    ('0x1000', '0x2000')
    """
    at = start

    def alloc(size: int, align: int) -> int:
        nonlocal at
        first = -(-at // align) * align
        if first + size > end:
            from physmem.lib.errors import OutOfMemoryError

            raise OutOfMemoryError(f"{size} bytes for a page table: [{start:#x}, {end:#x}) is full")
        at = first + size
        return first

    return alloc
