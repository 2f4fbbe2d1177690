# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a starting kernel: direct map, kernel image, identity map, memory map.

Which memory is mapped with which leaves, and where each table lies, is decided by the architecture
(`physmem.arch`); here that becomes entries in memory, for every architecture in the same way.

Linux: init_mem_mapping(), arch/x86/mm/init.c; paging_init(), arch/arm64/mm/mmu.c; setup_vm_final(),
arch/riscv/mm/init.c; vmemmap_populate_hugepages(), mm/sparse-vmemmap.c
"""

from collections.abc import Iterable, Iterator

import numpy as np

from physmem.arch.descriptor import Generation
from physmem.arch.direct_map import DirectMap, MapPiece, TablePages
from physmem.arch.setup import Setup
from physmem.lib.errors import OutOfMemoryError
from physmem.lib.ram import Ram
from physmem.pgtable.format import Format
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.source import BootAlloc
from physmem.pgtable.table import PageTable


def map_piece(table: PageTable, va: int, piece: MapPiece) -> None:
    """Map a piece at a virtual address; what is mapped already stays.

    The outermost leaves are whole: they reach beyond the range where no table is in the way.
    """
    size, page = piece.size, table.format.page_size
    first, last = piece.start, piece.end
    aligned = (va - first) % size == 0
    if aligned and not _has_table(table, va, size):
        first = first & -size
    if aligned and not _has_table(table, va + piece.end - piece.start - 1, size):
        last = -(-last // size) * size
    first, last = first & -page, -(-last // page) * page
    va += first - piece.start
    table.map(va, first, last - first, piece.prot, largest=size, skip=True)


def _has_table(table: PageTable, va: int, size: int) -> bool:
    """Whether leaves smaller than `size` are in use around an address."""
    real = [step for step in table.translate(va).steps if not step.folded]
    position = [1 << level.shift for level in table.format.levels].index(size)
    return len(real) > position + 1


class DirectMapWriter:
    """Enters what an architecture's start-up maps, while it maps it or afterwards.

    It is an observer of `physmem.arch.direct_map.DirectMap`: tables are told with `on_tables` as
    they are taken, pieces with `on_piece` once their tables are there. Used after the fact, both
    lists are replayed (`replay`). When all is told, every table that was taken is in use
    (`unused` is 0) and lies where the boot allocator put it.

    For a start-up there is `for_setup`; then, as each becomes known: `map_vmemmap` with the same
    table for the memory map, and `table.use(Buddy(...))` at the hand-over, from when on tables are
    frames of the page allocator. Frames of the boot allocator that are freed are kept and used
    again first.

    Parameters
    ----------
    page_offset : int
        Virtual address of physical byte 0 in the direct map.
    root : int
        Physical address of the top table.
    static : iterator of int, optional
        Pages of the kernel image to use for tables that nobody allocates.

    Examples
    --------
    A plan that was made before:

    >>> from physmem.arch.registry import arch_for
    >>> from physmem.bootalloc.memblock import Memblock
    >>> from physmem.firmware.hardware import Hardware
    >>> hardware = Hardware.of(memory="1GiB", arch="riscv64")
    >>> setup = Setup(arch=arch_for("riscv64"), hardware=hardware, memblock=Memblock()).run()
    >>> writer = DirectMapWriter.for_setup(setup, Ram(0xC0000000))
    >>> writer.replay(setup.direct_map)
    >>> walk = writer.table.translate(0xFFFFAF8012345678)
    >>> hex(walk.paddr), walk.size, writer.unused, writer.table.nr_tables
    ('0x92345678', 2097152, 0, 4)

    One's own:

    >>> fmt = page_table_format("x86_64")
    >>> writer = DirectMapWriter(fmt, Ram(1 << 30), 0xFFFF888000000000, root=0x1000)
    >>> writer.give(range(0x2000, 0x4000, 4096))
    >>> writer.map(0, 1 << 30, 1 << 21)
    >>> writer.table.translate(0xFFFF888012345678).size, writer.table.nr_tables
    (2097152, 2)
    """

    def __init__(
        self,
        fmt: Format,
        ram: Ram,
        page_offset: int,
        *,
        root: int,
        static: Iterator[int] | None = None,
    ) -> None:
        self._offset = page_offset
        self._plan: DirectMap | None = None
        self._static = iter(()) if static is None else static
        self._may_use_static = False
        self._adopted: list[tuple[str, int, int]] = []
        self.table = PageTable(fmt, ram, self._take, root=root, root_high=root)
        self._spaces = {"kernel": self.table}

    @classmethod
    def for_setup(cls, setup: Setup, ram: Ram) -> "DirectMapWriter":
        """Writer for a start-up: format, addresses and the pages of the top tables are its own.

        To follow the start-up set `setup.direct_map.observer` to the writer before the stages
        run; or `replay(setup.direct_map)` when they are over. The first pages of tables lie in the
        last pages of the kernel image (a real build puts them anywhere in it).
        """
        arch, page = setup.arch, setup.arch.page_size
        pages = iter(range((setup.image.end & -page) - page, 0, -page))
        fmt = page_table_format(arch.page_table, old_bits=arch.generation is Generation.BOOTMEM)
        made = cls(fmt, ram, arch.layout.page_offset, root=next(pages), static=pages)
        made._plan = setup.direct_map
        return made

    @property
    def offset(self) -> int:
        """Virtual address of physical byte 0 in the direct map (below it: where memory starts)."""
        return self._offset if self._plan is None else self._plan.offset

    def idmap(self) -> PageTable:
        """The identity map's page table (arm64), made at its first use."""
        if "idmap" not in self._spaces:
            root = next(self._static)
            self._spaces["idmap"] = PageTable(
                self.table.format, self.table.ram, self._take, root=root, root_high=root
            )
        return self._spaces["idmap"]

    def _take(self, size: int, align: int) -> int:
        del align  # whoever gave the pages has seen to that
        if self._may_use_static:
            return next(self._static)
        raise OutOfMemoryError(f"no page of {size} bytes was given for a table of the map")

    # -- what is told -----------------------------------------------------------------------------

    def replay(self, plan: DirectMap) -> None:
        """Enter a plan that is complete, step by step.

        Raises
        ------
        OutOfMemoryError
            The plan has too few tables.
        """
        for step in plan.steps:
            if isinstance(step, TablePages):
                self.on_tables(step)
            else:
                self.on_piece(step)

    def on_tables(self, tables: TablePages) -> None:
        """Table pages were taken, or left behind by the entry code."""
        if tables.source == "image":
            self._adopted += self._places(tables)
        else:
            self.give(tables.addresses(), self._space(tables.space))

    def on_piece(self, piece: MapPiece) -> None:
        """A piece is to be mapped."""
        table = self._space(piece.space)
        va = self.offset + piece.start if piece.va < 0 else piece.va
        if piece.size in (0, table.format.page_size):
            self._link_adopted(va, va + piece.end - piece.start)
        self._may_use_static = piece.static
        if piece.size:
            map_piece(table, va, piece)
        else:
            self._make_tables(table, va, va + piece.end - piece.start)
        self._may_use_static = False

    def give(self, addresses: Iterable[int], table: PageTable | None = None) -> None:
        """Table pages to use next, in this order."""
        (table or self.table).stock(np.fromiter(addresses, np.int64))

    def map(self, start: int, end: int, size: int) -> None:
        """Map [start, end) in the direct map, with leaves of up to `size` bytes."""
        self.on_piece(MapPiece(start, end, size))

    @property
    def unused(self) -> int:
        """Table pages that were given and not needed."""
        return sum(int(table.record[0]["nr_pool"]) for table in self._spaces.values())

    @property
    def nr_tables(self) -> int:
        """Pages of tables in use but the top ones, those in the image included."""
        return sum(table.nr_tables for table in self._spaces.values())

    # -- entering it ------------------------------------------------------------------------------

    def _space(self, name: str) -> PageTable:
        return self.idmap() if name == "idmap" else self._spaces[name]

    @staticmethod
    def _make_tables(table: PageTable, va: int, end: int) -> None:
        """Empty tables down to those of small pages.

        Linux: page_table_range_init(), arch/x86/mm/init_32.c
        """
        step = 1 << table.format.levels[-2].shift
        for at in range(va & -step, end, step):
            slot = table.pgd_offset(at)
            while slot.name != "pte":
                slot = table.alloc(slot, at)

    def _places(self, tables: TablePages) -> Iterator[tuple[str, int, int]]:
        """Level, first virtual address and place of each table."""
        names = [level.name for level in self.table.format.levels]
        span = 1 << self.table.format.levels[names.index(tables.level) - 1].shift
        for n, paddr in enumerate(tables.addresses()):
            yield tables.level, tables.va + n * span, paddr

    def _link_adopted(self, va: int, end: int) -> None:
        """Link the entry code's tables for a range of small pages, where nothing else is linked."""
        table = self.table
        names = [level.name for level in table.format.levels]
        left = []
        for place in self._adopted:
            level, first, paddr = place
            span = 1 << table.format.levels[names.index(level) - 1].shift
            if first >= end or first + span <= va:
                left.append(place)
                continue
            table.stock(np.array([paddr or next(self._static)], np.int64), first=True)
            slot = table.pgd_offset(first)
            while slot.name != level:
                slot = table.alloc(slot, first)
        self._adopted = left


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
