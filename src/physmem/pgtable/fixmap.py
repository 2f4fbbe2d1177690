# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual pages with a purpose: the fixmap, and windows into high memory.

Linux: __set_fixmap(), include/asm-generic/fixmap.h; kmap_high(), mm/highmem.c; kmap_atomic(),
arch/x86/mm/highmem_32.c
"""

from physmem.lib.errors import AlreadyMappedError, BadFreeError, BadRequestError, OutOfMemoryError
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs


class Fixmap:
    """Pages at fixed addresses, numbered downwards from `top`.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> table = PageTable(page_table_format("x86_32"), Ram(1 << 20), bump(0x1000, 0x10000))
    >>> fixmap = Fixmap(table, 0xFFFFF000, 64)
    >>> fixmap.set(3, 0xFEC00000, "PAGE_KERNEL_NOCACHE")
    >>> hex(fixmap.virt(3)), hex(table.translate(0xFFFFC123).paddr)
    ('0xffffc000', '0xfec00123')
    """

    def __init__(self, table: PageTable, top: int, slots: int, tlbs: Tlbs | None = None) -> None:
        self.table, self.top, self.slots, self.tlbs = table, top, slots, tlbs

    def virt(self, slot: int) -> int:
        """Address of a slot.

        Raises
        ------
        BadRequestError
            No such slot.

        Linux: __fix_to_virt()
        """
        if not 0 <= slot < self.slots:
            raise BadRequestError(f"fixmap slot {slot}: there are {self.slots}")
        return self.top - slot * self.table.format.page_size

    def slot(self, va: int) -> int:
        """Slot of an address.

        Linux: __virt_to_fix()
        """
        page = self.table.format.page_size
        return (self.top - (va & -page)) // page

    def set(self, slot: int, paddr: int, prot: str = "PAGE_KERNEL") -> None:
        """Map a slot; what it mapped before is replaced."""
        va, page = self.virt(slot), self.table.format.page_size
        self.table.unmap(va, page, keep_tables=True)
        self.table.map(va, paddr & -page, page, prot)
        self._flush(va)

    def clear(self, slot: int) -> None:
        """Unmap a slot."""
        va = self.virt(slot)
        self.table.unmap(va, self.table.format.page_size, keep_tables=True)
        self._flush(va)

    def _flush(self, va: int) -> None:
        if self.tlbs is not None:
            self.tlbs.flush_tlb_page(self.table, va)


class AtomicKmap:
    """Short windows into high memory: one fixmap slot per use and CPU (2.6.24).

    Parameters
    ----------
    first_slot : int
        Fixmap slot of use 0 on CPU 0.
    nr_types : int
        Uses (KM_TYPE_NR).
    page_offset, low_end : int
        Where the direct map begins; first physical byte that is not in it.
    """

    def __init__(
        self, fixmap: Fixmap, first_slot: int, nr_types: int, page_offset: int, low_end: int
    ) -> None:
        self.fixmap, self.first_slot, self.nr_types = fixmap, first_slot, nr_types
        self.page_offset, self.low_end = page_offset, low_end

    def map(self, paddr: int, use: int = 0, cpu: int = 0) -> int:
        """Virtual address of a page: in the direct map, or of the window.

        Raises
        ------
        AlreadyMappedError
            The window is in use.
        """
        if paddr < self.low_end:
            return self.page_offset + paddr
        slot = self._slot(use, cpu)
        table, va = self.fixmap.table, self.fixmap.virt(slot)
        if table.translate(va).ok:
            raise AlreadyMappedError(f"kmap_atomic: use {use} of cpu {cpu} is busy")
        table.map(va, paddr & -table.format.page_size, table.format.page_size)
        return va

    def unmap(self, va: int, use: int = 0, cpu: int = 0) -> None:
        """Close a window; nothing for an address of the direct map."""
        if va >= self.fixmap.virt(self.fixmap.slots - 1):
            self.fixmap.clear(self._slot(use, cpu))

    def _slot(self, use: int, cpu: int) -> int:
        return self.first_slot + use + self.nr_types * cpu


class Pkmap:
    """Lasting windows into high memory, handed out round and round.

    A slot's count is 0 when free and flushed, 1 when free but perhaps in a TLB, else users + 1.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> table = PageTable(page_table_format("x86_32"), Ram(1 << 20), bump(0x1000, 0x10000))
    >>> pkmap = Pkmap(table, 0xFF800000, 1024, 0xC0000000, 896 << 20)
    >>> hex(pkmap.kmap(0x1000)), hex(pkmap.kmap(0x40000000)), hex(pkmap.kmap(0x40001000))
    ('0xc0001000', '0xff801000', '0xff802000')
    """

    def __init__(
        self,
        table: PageTable,
        base: int,
        slots: int,
        page_offset: int,
        low_end: int,
        tlbs: Tlbs | None = None,
    ) -> None:
        self.table, self.base, self.tlbs = table, base, tlbs
        self.page_offset, self.low_end = page_offset, low_end
        self.counts = [0] * slots
        self._paddr: list[int] = [0] * slots
        self._where: dict[int, int] = {}
        self._last = 0

    def kmap(self, paddr: int) -> int:
        """Virtual address of a page.

        Raises
        ------
        OutOfMemoryError
            All slots are in use (a kernel would sleep).

        Linux: kmap_high(), map_new_virtual(), mm/highmem.c
        """
        page = self.table.format.page_size
        if paddr < self.low_end:
            return self.page_offset + paddr
        paddr &= -page
        slot = self._where.get(paddr)
        if slot is None:
            slot = self._new_slot()
            self.table.map(self.base + slot * page, paddr, page)
            self.counts[slot] = 1
            self._paddr[slot] = paddr
            self._where[paddr] = slot
        self.counts[slot] += 1
        return self.base + slot * page

    def _new_slot(self) -> int:
        left = len(self.counts)
        while left:
            self._last = (self._last + 1) % len(self.counts)
            if self._last == 0:
                self._flush_all()
                left = len(self.counts)
            if self.counts[self._last] == 0:
                return self._last
            left -= 1
        raise OutOfMemoryError(f"kmap: all {len(self.counts)} windows are in use")

    def _flush_all(self) -> None:
        """Make the slots free that are used no more.

        Linux: flush_all_zero_pkmaps(), mm/highmem.c
        """
        page = self.table.format.page_size
        if self.tlbs is not None:
            self.tlbs.cache_call("flush_cache_kmaps")
        for slot, count in enumerate(self.counts):
            if count == 1:
                self.counts[slot] = 0
                self.table.unmap(self.base + slot * page, page, keep_tables=True)
                del self._where[self._paddr[slot]]
        if self.tlbs is not None:
            self.tlbs.flush_tlb_kernel_range(self.base, self.base + len(self.counts) * page)

    def kunmap(self, paddr: int) -> None:
        """One user less; the mapping stays until the windows come round.

        Raises
        ------
        BadFreeError
            Nobody uses it.

        Linux: kunmap_high(), mm/highmem.c
        """
        if paddr < self.low_end:
            return
        slot = self._where.get(paddr & -self.table.format.page_size)
        if slot is None or self.counts[slot] < 2:
            raise BadFreeError(f"kunmap of {paddr:#x}: it has no window in use")
        self.counts[slot] -= 1
