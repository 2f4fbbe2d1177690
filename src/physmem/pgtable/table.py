# SPDX-License-Identifier: GPL-2.0-or-later
"""A page table: tables of one format in a machine's bytes, changed by kernels.

Linux: struct mm_struct.pgd; pgd_alloc(), vmap_range(), mm/vmalloc.c; free_pgd_range(), mm/memory.c
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from physmem.lib import errors
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import attach
from physmem.pgtable import record as rec
from physmem.pgtable.changing import do_change
from physmem.pgtable.format import U64, Format, signed
from physmem.pgtable.mapping import do_map
from physmem.pgtable.reading import Slot, TableReader
from physmem.pgtable.source import Buddy, Source
from physmem.pgtable.tables import (
    do_frame_alloc,
    do_frame_free,
    do_frame_split,
    do_table_alloc,
    do_table_free,
)

_MOST_POOL = 1 << 20


class PageTable(TableReader):
    """One address space's page table (an `mm->pgd`), or the kernel's own (`swapper_pg_dir`).

    Parameters
    ----------
    fmt : Format
        `page_table_format(name)`.
    ram : Ram
        The machine's bytes, in which the tables lie.
    source : Buddy or function
        Where table pages come from: the page allocator, or a boot allocator's function of
        (size, alignment) in bytes.
    kernel : bool
        New pointers to tables get the kernel's flags, not those for user mappings.
    root : int, optional
        Physical address of a top table that exists already.
    nr_tables : int, optional
        Pages that hold tables behind it, itself among them.

    Examples
    --------
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> table = PageTable(page_table_format("x86_64"), Ram(1 << 24), bump(0x1000, 0x100000))
    >>> table.map(0xFFFF888000000000, 0, 1 << 24)
    >>> walk = table.translate(0xFFFF888000345678)
    >>> hex(walk.paddr), walk.size, walk.kernel
    ('0x345678', 2097152, 'rw-')
    >>> table.nr_tables
    3
    """

    def __init__(  # noqa: PLR0913 - what to make, or what is there already
        self,
        fmt: Format,
        ram: Ram,
        source: Source,
        *,
        kernel: bool = True,
        root: int | None = None,
        root_high: int | None = None,
        nr_tables: int | None = None,
    ) -> None:
        super().__init__(fmt, ram, kernel=kernel)
        room = min(ram.size // fmt.page_size, _MOST_POOL)
        self._pool = np.zeros(room, np.int64)
        attach(self._row, "table_pool", self._pool)
        self._map = ready(do_map)
        self._change = ready(do_change)
        self._alloc: Callable[[int, int], int] | None = None
        self._shares: NDArray[np.int64] | None = None
        self.processes: list[PageTable] = []
        """Page tables of processes that share this one's upper half."""
        self.use(source)
        self._row["root"] = self._new_table() if root is None else root
        if fmt.two_roots:
            self._row["root_high"] = self._new_table() if root_high is None else root_high
        if nr_tables is not None:
            self._row["nr_tables"] = nr_tables

    # -- where tables come from -------------------------------------------------------------------

    def use(self, source: Source) -> None:
        """Take table pages from another source from now on (after the boot allocator's hand-over).

        Raises
        ------
        BadRequestError
            Frames larger than the pages of the format.
        """
        if not isinstance(source, Buddy):
            self._alloc = source
            self._row["table_source"] = rec.FROM_POOL
            self._row["frame_shift"] = self.format.page_shift
            return
        order = self.format.page_shift - source.frame_shift
        if order < 0:
            raise errors.BadRequestError(
                f"{self.format.name}: pages of {self.format.page_size} bytes are smaller than the"
                f" machine's frames"
            )
        pool = self._pool[: int(self._row["nr_pool"])]
        pool <<= int(self._row["frame_shift"]) - source.frame_shift if len(pool) else 0
        row = self._row
        row["table_source"], row["frame_shift"] = rec.FROM_BUDDY, source.frame_shift
        row["memory_h"], row["table_gfp"] = source.memory, source.gfp
        row["table_nid"], row["table_cpu"], row["table_order"] = source.nid, source.cpu, order

    def _new_table(self) -> int:
        run = ready(do_table_alloc)
        while (paddr := run(self.handle)) < 0:
            self._refill(paddr)
        return paddr

    def _refill(self, code: int) -> None:
        """Answer a kernel that could not get a table page, or raise."""
        if code != rec.NEED_TABLE or self._alloc is None:
            raise self._error(code)
        size = self.format.page_size
        paddr = self._alloc(size, size)
        self._pool[0] = paddr >> int(self._row["frame_shift"])
        self._row["nr_pool"] = 1

    def _error(self, code: int) -> errors.PhysmemError:
        va = int(self._row["done"]) & U64
        if code in (rec.MAPPED_ALREADY, rec.LEAF_IN_THE_WAY):
            return errors.AlreadyMappedError(f"{va:#x} is mapped already: unmap it first")
        if code in (rec.NO_MEMORY, rec.NEED_TABLE):
            return errors.OutOfMemoryError(f"no page for a table at {va:#x}; free memory first")
        if code == rec.CANNOT_SPLIT:
            return errors.BadMappingError(
                f"the large page at {va:#x} lies too high in memory to be split"
            )
        what = "a table lies outside of memory" if code == rec.OUTSIDE else "a malformed entry"
        return errors.CorruptStateError("page_table", f"{what} on the way to {va:#x}")

    # -- checking arguments -----------------------------------------------------------------------

    def _range(self, va: int, size: int) -> tuple[int, int]:
        """A range as signed numbers."""
        fmt = self.format
        if self.root < 0:
            raise errors.TableInUseError("this page table has been freed")
        if size <= 0 or (va | size) & (fmt.page_size - 1):
            raise errors.MisalignedError(
                f"range at {va:#x} of {size:#x} bytes: must be whole pages of {fmt.page_size} bytes"
            )
        first = signed(va)
        last = first + size - 1
        in_half = (first < 0) == (last < 0)
        if not 0 <= va <= U64 or not in_half or not (fmt.canonical(va) and fmt.canonical(last)):
            raise errors.NotCanonicalError(
                f"range at {va:#x} of {size:#x} bytes: {fmt.name} has no such addresses"
            )
        return first, first + size

    def _prot(self, prot: str | int) -> int:
        return self.format.prot(prot) if isinstance(prot, str) else prot

    # -- changing it ------------------------------------------------------------------------------

    def map(  # noqa: PLR0913 - what to map, where, and how
        self,
        va: int,
        paddr: int,
        size: int,
        prot: str | int = "PAGE_KERNEL",
        *,
        page: int | None = None,
        largest: int | None = None,
        contiguous: bool = False,
        skip: bool = False,
    ) -> None:
        """Map [va, va + size) to memory from `paddr` on. Nothing is changed if it fails.

        Parameters
        ----------
        prot : str or int
            Name of a protection of the format, or its bits in an entry of the last level.
        page : int, optional
            Bytes: use leaves of just this size.
        largest : int, optional
            Bytes: use no larger leaves. By default leaves are as large as alignment allows.
        contiguous : bool
            Mark groups of leaves that the format can mark as one (arm64, riscv64 with Svnapot).
        skip : bool
            Leave what is mapped already as it is.

        Raises
        ------
        AlreadyMappedError, MisalignedError, NotCanonicalError, OutOfMemoryError, BadRequestError
        """
        start, end = self._range(va, size)
        fmt = self.format
        bits = signed(self._prot(prot))
        if page is not None:
            largest = page
        shift = 64 if largest is None else largest.bit_length() - 1
        if largest is not None and (1 << shift != largest or shift not in fmt.leaf_shifts):
            sizes = ", ".join(f"{1 << s:#x}" for s in fmt.leaf_shifts)
            raise errors.BadRequestError(f"page size {largest:#x}: {fmt.name} has {sizes}")
        unit = fmt.page_size if page is None else page
        if (va | paddr | size) & (unit - 1):
            raise errors.MisalignedError(
                f"{va:#x} to {paddr:#x}, {size:#x} bytes: not aligned to pages of {unit:#x} bytes"
            )
        self._check_reach(paddr, size, shift)
        row = self._row
        row["largest"], row["use_cont"] = shift, contiguous
        at = start
        while code := self._map(self.handle, at, end, paddr + (at - start), bits, skip):
            if code == rec.NEED_TABLE and self._alloc is not None:
                self._refill(code)
                at = int(row["done"])
                continue
            error = self._error(code)
            done = int(row["done"])
            if not skip:  # take back; tables made for the page that failed are empty
                done += fmt.page_size if code in (rec.NO_MEMORY, rec.NEED_TABLE) else 0
                row["keep_tables"] = 0
                self._run_change(start, done, 0)
            raise error

    def _check_reach(self, paddr: int, size: int, shift: int) -> None:
        fmt = self.format
        # what entries of the last level can say; x86-32 reaches further with large pages only
        level = fmt.levels[-1]
        last = paddr + size - 1
        reach = level.addr | level.high | (fmt.page_size - 1)
        if paddr >= 0 and not (paddr | last) & ~reach:
            return
        top = fmt.levels[0]
        unit = 1 << top.shift
        far = top.leaf and shift >= top.shift and not (paddr | size) & (unit - 1)
        if paddr < 0 or not far or (paddr | last) & ~(top.addr | top.high | (unit - 1)):
            raise errors.BadRequestError(
                f"physical range at {paddr:#x} of {size:#x} bytes: {fmt.name} cannot reach it"
            )

    def unmap(self, va: int, size: int, *, keep_tables: bool = False) -> int:
        """Remove what is mapped in [va, va + size); how many pages it was.

        Large pages that the range cuts are split. Tables that become empty are freed unless
        `keep_tables` (a kernel keeps those of its own half, which address spaces share).

        Raises
        ------
        MisalignedError, NotCanonicalError, OutOfMemoryError
        """
        start, end = self._range(va, size)
        self._row["keep_tables"] = keep_tables
        return self._run_change(start, end, 0)

    def protect(self, va: int, size: int, prot: str | int) -> int:
        """Give what is mapped in [va, va + size) another protection; how many pages it was.

        Raises
        ------
        MisalignedError, NotCanonicalError, OutOfMemoryError, BadRequestError
        """
        start, end = self._range(va, size)
        bits = signed(self._prot(prot))
        if not bits:
            raise errors.BadRequestError("protection 0: unmap the range instead")
        return self._run_change(start, end, bits)

    def _run_change(self, start: int, end: int, bits: int) -> int:
        at = start
        while code := self._change(self.handle, at, end, bits, start):
            self._refill(code)
            at = int(self._row["done"])
        return int(self._row["nr_leaves"])

    # -- single entries ---------------------------------------------------------------------------

    def set_entry(self, slot: Slot, entry: int) -> None:
        """Store an entry as it is, with no check at all.

        Linux: set_pgd(), set_p4d(), set_pud(), set_pmd(), set_pte()
        """
        self.ram.write(slot.paddr, entry.to_bytes(self.format.entry_bytes, "little"))

    def clear(self, slot: Slot) -> None:
        """Empty an entry; nothing at a folded level.

        Linux: pgd_clear(), p4d_clear(), pud_clear(), pmd_clear(), pte_clear()
        """
        if not self.is_folded(slot):
            self.set_entry(slot, 0)

    def alloc(self, parent: Slot, va: int) -> Slot:
        """Slot of the generic level below, with a table made for it if the parent is empty.

        Raises
        ------
        OutOfMemoryError

        Linux: p4d_alloc(), pud_alloc(), pmd_alloc(), pte_alloc_kernel()
        """
        if self.none(parent):
            level = self.format.levels[parent.position]
            kernel = bool(self._row["table_bits"] == signed(self.format.soft.kernel_table))
            entry = self.format.encode_table(self._new_table(), kernel=kernel)
            self.set_entry(parent, entry & ~level.table_reserved)
        return self.offset(parent, va)

    def free_table(self, parent: Slot) -> None:
        """Free the table behind an entry and clear the entry.

        Raises
        ------
        TableInUseError
            The table is not empty, or the entry points to none.

        Linux: pte_free(), pmd_free(), pud_free(), p4d_free()
        """
        entry = self.entry(parent)
        if self.is_folded(parent) or not self.format.is_table(entry, parent.position):
            raise errors.TableInUseError(f"{parent.name} entry {entry:#x} points to no table")
        table = self.format.table_address(entry)
        size = self.format.entry_bytes << self.format.levels[parent.position + 1].bits
        if any(self.ram.read(table, size)):
            raise errors.TableInUseError(
                f"the table at {table:#x} behind the {parent.name} entry at {parent.paddr:#x} still"
                " has entries: unmap them first"
            )
        self.clear(parent)
        ready(do_table_free)(self.handle, table)

    def free(self) -> None:
        """Free the top tables; the page table cannot be used any more.

        Raises
        ------
        TableInUseError
            Something is mapped.

        Linux: pgd_free()
        """
        self.free_roots(shared_high=False)

    def free_roots(self, *, shared_high: bool) -> None:
        """`free`; with `shared_high` the upper half's top table belongs to another page table."""
        roots = [
            self.root,
            *([self.root_high] if self.format.two_roots and not shared_high else []),
        ]
        size = self.format.entry_bytes << self.format.levels[0].bits
        for root in roots:
            if root < 0 or any(self.ram.read(root, size)):
                raise errors.TableInUseError(f"the table at {root:#x} still has entries: unmap all")
        for root in roots:
            ready(do_table_free)(self.handle, root)
        self._row["root"] = self._row["root_high"] = -1

    # -- frames -----------------------------------------------------------------------------------

    def frame_shares(self) -> NDArray[np.int64]:
        """By frame: how many address spaces have it beside the first (made at the first fork)."""
        if self._shares is None:
            self._shares = np.zeros(self.ram.size >> int(self._row["frame_shift"]), np.int64)
        return self._shares

    def alloc_frames(self, order: int = 0, gfp: int = 0xCC0) -> int:
        """2**order frames of the machine's page allocator: physical address.

        Raises
        ------
        OutOfMemoryError
        """
        buddy = self._row["table_source"] == rec.FROM_BUDDY
        paddr = ready(do_frame_alloc)(self.handle, gfp, order) if buddy else -1
        if paddr < 0:
            raise errors.OutOfMemoryError(f"no block of order {order}")
        return paddr

    def split_frames(self, paddr: int, order: int, parts: int = 0) -> None:
        """Make a block of `alloc_frames` blocks of 2**parts frames, each to be freed by itself.

        Linux: split_page(), mm/page_alloc.c
        """
        ready(do_frame_split)(self.handle, paddr, order, parts)

    def free_frames(self, paddr: int, order: int = 0) -> None:
        """Give a block of `alloc_frames` back.

        Raises
        ------
        BadFreeError
            It is no such block.
        """
        if not ready(do_frame_free)(self.handle, paddr, order):
            raise errors.BadFreeError(f"{paddr:#x} is no block of order {order} in use")
