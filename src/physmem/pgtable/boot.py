# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a starting kernel: direct map, memory map, image.

Which memory is mapped with which leaves, and where each table lies, is decided by the architecture;
here that becomes entries in memory.

Linux: init_mem_mapping(), arch/x86/mm/init.c; vmemmap_populate_hugepages(), mm/sparse-vmemmap.c;
map_kernel(), arch/arm64/mm/mmu.c
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from physmem.lib.errors import OutOfMemoryError
from physmem.lib.ram import Ram
from physmem.pgtable.format import Format
from physmem.pgtable.source import BootAlloc
from physmem.pgtable.table import PageTable


class Piece(Protocol):
    """Physical bytes [start, end), to be mapped with leaves of up to `size` bytes."""

    @property
    def start(self) -> int:
        """First byte."""

    @property
    def end(self) -> int:
        """First byte behind it."""

    @property
    def size(self) -> int:
        """Bytes of the largest leaf."""


class Taken(Protocol):
    """Table pages that a boot allocator gave."""

    def addresses(self) -> Iterable[int]:
        """Physical address of each, in order."""


class DirectMapWriter:
    """Enters a direct map while an architecture's start-up decides on it.

    Call `on_tables` with table pages as they are taken and `on_piece` with each piece after that
    (so it can listen to what makes the plan). The first table page becomes the top table unless
    `root` names one.

    Examples
    --------
    >>> from physmem.pgtable.formats import page_table_format
    >>> fmt = page_table_format("x86_64")
    >>> writer = DirectMapWriter(fmt, Ram(1 << 30), 0xFFFF888000000000, root=0x1000)
    >>> writer.give(range(0x2000, 0x4000, 4096))
    >>> writer.map(0, 1 << 30, 1 << 21)
    >>> writer.table.translate(0xFFFF888012345678).size, writer.table.nr_tables
    (2097152, 2)
    """

    def __init__(
        self, fmt: Format, ram: Ram, page_offset: int, *, root: int, prot: str = "PAGE_KERNEL"
    ) -> None:
        self._pages: deque[int] = deque()
        self.page_offset = page_offset
        self.prot = prot
        self.table = PageTable(fmt, ram, self._take, root=root, root_high=root)

    def _take(self, size: int, align: int) -> int:
        del align  # whoever gave the pages has seen to that
        if not self._pages:
            raise OutOfMemoryError(f"no page of {size} bytes was given for a table of the map")
        return self._pages.popleft()

    def give(self, addresses: Iterable[int]) -> None:
        """Table pages to use next."""
        self._pages.extend(addresses)

    def on_tables(self, tables: Taken) -> None:
        """Table pages were taken."""
        self.give(tables.addresses())

    def on_piece(self, piece: Piece) -> None:
        """A piece is to be mapped."""
        self.map(piece.start, piece.end, piece.size)

    @property
    def unused(self) -> int:
        """Table pages that were given and not needed."""
        return len(self._pages)

    def map(self, start: int, end: int, size: int) -> None:
        """Map [start, end) with leaves of up to `size` bytes; what is mapped already stays.

        The outermost leaves are whole: they reach beyond the range where no table is in the way.
        """
        first, last = start, end
        if not self._has_table(start, size):
            first = start & -size
        if not self._has_table(end - 1, size):
            last = -(-end // size) * size
        page = self.table.format.page_size
        first, last = first & -page, -(-last // page) * page
        va = self.page_offset + first
        self.table.map(va, first, last - first, self.prot, largest=size, skip=True)

    def _has_table(self, paddr: int, size: int) -> bool:
        """Whether leaves smaller than `size` are in use around an address."""
        steps = self.table.translate(self.page_offset + paddr).steps
        position = [1 << level.shift for level in self.table.format.levels].index(size)
        real = [step for step in steps if not step.folded]
        return len(real) > position + 1


def map_vmemmap(
    table: PageTable, vmemmap: int, pfns: tuple[int, int], page_struct: int, alloc: BootAlloc
) -> int:
    """Give frames [first, last) a memory map: blocks of the boot allocator; how many bytes.

    Parameters
    ----------
    vmemmap : int
        Virtual address of frame 0's structure.
    page_struct : int
        Bytes of one structure.
    alloc : function
        Of (size, alignment): the block's physical address.

    Linux: vmemmap_populate(), arch/x86/mm/init_64.c
    """
    fmt = table.format
    shift = fmt.levels[-2].shift if fmt.page_shift == 12 else fmt.page_shift
    block = 1 << shift
    start = vmemmap + pfns[0] * page_struct & -block
    end = -(-(vmemmap + pfns[1] * page_struct) // block) * block
    used = 0
    for va in range(start, end, block):
        if table.translate(va).ok:
            continue
        table.map(va, alloc(block, block), block, page=block)
        used += block
    return used


def map_image(table: PageTable, base: int, segments: Iterable[tuple[int, int, str]]) -> None:
    """Map a kernel image: (physical start, bytes, protection) of each segment, at base + start."""
    for paddr, size, prot in segments:
        table.map(base + paddr, paddr, size, prot)
