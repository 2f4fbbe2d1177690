# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of a machine, by physical and by virtual address; its kernel's page table; images.

Linux: phys_to_virt(), copy_from_kernel_nofault(), mm/maccess.c
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from physmem.arch.direct_map import KERNEL, TablePages
from physmem.lib.errors import BadRequestError, PageFaultError
from physmem.lib.ram import Ram
from physmem.machine.layout import Layout
from physmem.machine.origin import KernelTables, Origin
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.kernel_map import KernelMapWriter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from physmem.pgtable.mm import AddressSpace
    from physmem.pgtable.reading import TableReader
    from physmem.pgtable.source import Buddy
    from physmem.pgtable.table import PageTable


class MachineMemory:
    """What a machine can do with its bytes. `Machine` is one."""

    _h: int
    layout: Layout
    origin: Origin
    _page_table: "PageTable | None" = None

    if TYPE_CHECKING:

        @property
        def ram(self) -> Ram:
            """The bytes."""

    # -- bytes ------------------------------------------------------------------------------------

    def read(self, paddr: int | None = None, size: int = 1, *, vaddr: int | None = None) -> bytes:
        r"""Copy of bytes at a physical or a virtual address (of the kernel's page table).

        Raises
        ------
        BadRequestError
            Outside of memory, or no page table yet.
        PageFaultError
            The virtual address is not mapped.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> machine = Machine.build("64MiB")
        >>> machine.write(0x1FFE, b"abcd")
        >>> table = machine.map_memory()
        >>> machine.read(vaddr=0xFFFF888000001FFD, size=6)
        b'\x00abcd\x00'
        """
        pieces = self._pieces(paddr, size, vaddr)
        return b"".join(self.ram.read(at, count) for at, count in pieces)

    def write(self, paddr: int | None, data: bytes, *, vaddr: int | None = None) -> None:
        """Store bytes at a physical or (with `paddr` None) a virtual address.

        Raises
        ------
        BadRequestError, PageFaultError
            As `read`; nothing is stored then.
        """
        at = 0
        for place, count in self._pieces(paddr, len(data), vaddr, "w"):
            self.ram.write(place, data[at : at + count])
            at += count

    def view(
        self, paddr: int | None = None, size: int = 1, *, vaddr: int | None = None
    ) -> "NDArray[np.uint8]":
        r"""NumPy array of bytes to read and write, without a copy (`memoryview` takes it too).

        Raises
        ------
        BadRequestError
            Outside of memory, or at virtual addresses that do not lie together in memory.
        PageFaultError
            The virtual address is not mapped.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> machine = Machine.build("64MiB")
        >>> machine.view(0x3000, 4)[:] = 7
        >>> bytes(memoryview(machine.view(0x3000, 2)))
        b'\x07\x07'
        """
        pieces = self._pieces(paddr, size, vaddr)
        if len(pieces) > 1:
            raise BadRequestError(
                f"{vaddr or 0:#x}: {size} bytes lie in {len(pieces)} places: read them instead"
            )
        return self.ram.view(*pieces[0]) if pieces else self.ram.view(0, 0)

    def _pieces(
        self, paddr: int | None, size: int, vaddr: int | None, access: str = "r"
    ) -> list[tuple[int, int]]:
        """Physical (address, bytes) of a range, in as few pieces as there are."""
        if (paddr is None) == (vaddr is None):
            raise BadRequestError("give a physical address or a virtual one")
        if size < 0:
            raise BadRequestError(f"size {size}: no such number of bytes")
        if paddr is not None:
            return [(paddr, size)] if size else []
        table = self.page_table
        pieces: list[tuple[int, int]] = []
        at, end = vaddr or 0, (vaddr or 0) + size
        while at < end:
            walk = table.translate(at, access)
            if walk.paddr is None or not walk.ok:
                raise PageFaultError(at, walk.reason, walk.detail)
            count = min(walk.size - (at & (walk.size - 1)), end - at)
            if pieces and sum(pieces[-1]) == walk.paddr:
                pieces[-1] = pieces[-1][0], pieces[-1][1] + count
            else:
                pieces.append((walk.paddr, count))
            at += count
        return pieces

    # -- page tables ------------------------------------------------------------------------------

    @property
    def page_table(self) -> "PageTable":
        """The kernel's own page table.

        Raises
        ------
        BadRequestError
            There is none yet: a boot or `map_memory` makes one.
        """
        if self._page_table is None:
            self._page_table = self._kernel_tables()
        return self._page_table

    def _kernel_tables(self) -> "PageTable":
        """The page table that the start-up left in memory."""
        from physmem.pgtable.table import PageTable

        told = self.origin.page_table
        if told is None:
            raise BadRequestError("this machine has no page table yet: call map_memory() first")
        form = page_table_format(told.format, old_bits=told.old_bits)
        return PageTable(
            *(form, self.ram, self.table_source()),
            root=told.root,
            root_high=told.root_high,
            nr_tables=told.nr_tables,
        )

    def origin_now(self) -> Origin:
        """Where the machine comes from, with its page table as it is now: for a copy or a file."""
        table = self._page_table
        if table is None:
            return self.origin
        now = KernelTables(
            format=table.format.name,
            root=table.root,
            root_high=table.root_high,
            nr_tables=table.nr_tables,
            old_bits=table.format != page_table_format(table.format.name),
        )
        return replace(self.origin, page_table=now)

    def link_tables(self, tables: Sequence[tuple[str, int]], frames: Sequence[int]) -> None:
        """Let entries of the top table point to frames of the page allocator: empty tables.

        Parameters
        ----------
        tables : sequence of (level, virtual address)
        """
        told = self.origin.page_table
        if told is None or not frames:
            return
        form = page_table_format(told.format, old_bits=told.old_bits)
        writer = KernelMapWriter(form, self.ram, {KERNEL: told.root_high}, clear=False)
        for (level, va), frame in zip(tables, frames, strict=True):
            paddr = frame << self.layout.page_shift
            writer.add_tables(TablePages(level, va, paddr, 1, 0, "buddy"))
        more = writer.nr_tables - 1
        self.origin = replace(
            self.origin, page_table=replace(told, nr_tables=told.nr_tables + more)
        )

    def table_source(self) -> "Buddy":
        """The machine's page allocator as a source of table pages."""
        from physmem.pgtable.source import Buddy

        return Buddy(self._h, frame_shift=self.layout.page_shift)

    def map_memory(
        self, fmt: str = "x86_64", *, largest: int | None = None, as_kernel: bool = False
    ) -> "PageTable":
        """Make the kernel's page table, with a direct map of all memory; tables cost frames.

        A booted machine has one already (`page_table`), as its kernel built it.

        Parameters
        ----------
        fmt : str
            One of `physmem.page_table_formats()`.
        largest : int, optional
            Bytes of the largest leaf to use, for a kernel that wants small ones.
        as_kernel : bool
            Leaves as Linux 6.1 chooses them: on x86 by range, on arm64 pages only (attributes may
            change), on riscv64 one size for all.

        Raises
        ------
        BadRequestError
            No such format or leaf.
        OutOfMemoryError
            No frames for the tables.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> Machine.build("1GiB").map_memory("arm64_4k_48").nr_tables
        3
        """
        from physmem.arch.registry import map_pieces_for
        from physmem.pgtable.boot import map_piece
        from physmem.pgtable.kernel_layout import kernel_layout
        from physmem.pgtable.table import PageTable

        form = page_table_format(fmt)
        layout = kernel_layout(form)
        table = PageTable(form, self.ram, self.table_source())
        end = min(self.ram.size, layout.direct_bytes) & -form.page_size
        if as_kernel:
            sizes = tuple(1 << shift for shift in reversed(form.leaf_shifts))
            for piece in map_pieces_for(form.name, 0, end, sizes):
                map_piece(table, layout.page_offset + piece.start, piece)
        else:
            table.map(layout.page_offset, 0, end, largest=largest)
        self._page_table = table
        return table

    def new_process(self, tlbs: Any = None) -> "AddressSpace":
        """Empty address space of a process; its kernel half is that of `page_table`.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> machine = Machine.build("64MiB")
        >>> _ = machine.map_memory()
        >>> mm = machine.new_process()
        >>> mm.fault(mm.mmap(4096), "w")
        'mapped'
        """
        from physmem.pgtable.mm import AddressSpace

        mm = AddressSpace(self.page_table, self.table_source(), tlbs)
        self.page_table.processes.append(mm.table)
        return mm

    def nr_page_table_pages(self) -> int:
        """Frames that hold the tables of processes, as /proc/meminfo counts PageTables (6.1).

        The tables of pages and of pmd entries count; those above and the kernel's own do not.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> machine = Machine.build("64MiB")
        >>> _ = machine.map_memory()
        >>> mm = machine.new_process()
        >>> mm.fault(mm.mmap(4096), "w"), machine.nr_page_table_pages()
        ('mapped', 2)

        Linux: pgtable_pte_page_ctor(), pgtable_pmd_page_ctor(), include/linux/mm.h
        """
        own = [table for table in self.page_table.processes if table.root >= 0]
        self.page_table.processes[:] = own
        count = sum(table.tables_by_level()[name] for table in own for name in ("pmd", "pte"))
        return count << self.page_table.format.page_shift - self.layout.page_shift

    # -- images -----------------------------------------------------------------------------------

    def export_image(
        self,
        path: str | os.PathLike[str],
        form: str = "raw",
        *,
        table: "TableReader | None" = None,
    ) -> None:
        """Write the memory for another program; holes stay holes.

        Parameters
        ----------
        form : str
            "raw" (offset = physical address), "lime", or "vmcore": an ELF core whose VMCOREINFO
            tells where the page table is, as drgn, crash and volatility3 read it.
        table : TableReader, optional
            Page table to name in a vmcore; by default the kernel's own.

        Raises
        ------
        BadRequestError
            No such form, or a vmcore without a page table.
        OSError
            The file cannot be written.
        """
        from physmem.pgtable import image

        if form not in image.FORMS:
            raise BadRequestError(f"image form {form!r}: one of {', '.join(image.FORMS)}")
        if form == "raw":
            image.write_raw(self.ram, path)
        elif form == "lime":
            image.write_lime(self.ram, path)
        else:
            image.write_vmcore(table or self.page_table, path)
