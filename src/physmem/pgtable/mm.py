# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's address space: areas of anonymous memory, filled by its page faults.

Linux: struct mm_struct, struct vm_area_struct, include/linux/mm_types.h; mm/mmap.c, mm/mprotect.c
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib import errors
from physmem.lib.jit import ready
from physmem.lib.struct import attach
from physmem.pgtable import record as rec
from physmem.pgtable.fault import do_fault, do_fault_stream
from physmem.pgtable.fork import do_copy_page_range
from physmem.pgtable.format import signed
from physmem.pgtable.source import GFP_PGTABLE_USER, Buddy
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs

_PROTS = {
    "---": "PAGE_NONE",
    "r--": "PAGE_READONLY",
    "rw-": "PAGE_SHARED",
    "r-x": "PAGE_READONLY_EXEC",
    "rwx": "PAGE_SHARED_EXEC",
}
_WHAT = {
    rec.FAULT_MAPPED: "mapped",
    rec.FAULT_HUGE: "mapped huge",
    rec.FAULT_PRESENT: "present",
    rec.FAULT_COPIED: "copied",
}
"""What a fault did."""


@dataclass(frozen=True)
class Vma:
    """Addresses [start, end) with one protection ("rw-" and so on)."""

    start: int
    end: int
    prot: str
    huge: bool = False


class AddressSpace:
    """The memory of one process: `mmap`, `munmap`, `mprotect`, and faults that fill it.

    Parameters
    ----------
    kernel : PageTable
        The kernel's own page table; its half is shared.
    source : Buddy
        The machine's page allocator, for tables and for the memory itself.
    tlbs : Tlbs, optional
        Translation buffers to keep right. Without them nothing is flushed.

    Examples
    --------
    >>> from physmem.machine.machine import Machine
    >>> from physmem.pgtable.formats import page_table_format
    >>> machine = Machine.build("64MiB")
    >>> buddy = Buddy(machine._h)
    >>> kernel = PageTable(page_table_format("x86_64"), machine.ram, buddy)
    >>> mm = AddressSpace(kernel, buddy)
    >>> va = mm.mmap(1 << 20)
    >>> mm.fault(va + 5000, "w"), mm.fault(va + 5001, "w"), mm.rss
    ('mapped', 'present', 4096)
    >>> mm.exit()
    """

    def __init__(self, kernel: PageTable, source: Buddy, tlbs: Tlbs | None = None) -> None:
        self.kernel = kernel
        self.tlbs = tlbs
        self._source = source
        self.vmas: list[Vma] = []
        fmt = kernel.format
        user = replace(source, gfp=GFP_PGTABLE_USER)
        high = kernel.root_high if fmt.two_roots else None
        self.table = PageTable(fmt, kernel.ram, user, kernel=False, root_high=high)
        self._row = self.table.record[0]
        self._row["free_frames"] = 1
        self._shared = 0  # first entry of the top table that belongs to the kernel
        if not fmt.two_roots:
            entries = 1 << fmt.levels[0].bits
            self._shared = entries * 3 // 4 if fmt.va_bits == 32 else entries // 2
            self.sync_kernel()
        self.task_size = self._task_size()
        self.mmap_base = self.task_size // 3 & -fmt.page_size
        self._fault = ready(do_fault)
        self._note_areas()

    def _task_size(self) -> int:
        fmt = self.kernel.format
        if fmt.va_bits == 32:
            return 0xC0000000
        return (1 << fmt.canonical_shift) - fmt.page_size

    def sync_kernel(self) -> None:
        """Take over the top entries of the kernel's half (two-root formats share the table).

        Linux: pgd_ctor(), arch/x86/mm/pgtable.c; vmalloc_fault(), arch/x86/mm/fault.c
        """
        table, size = self.table, self.kernel.format.entry_bytes
        first = self._shared * size
        count = (size << self.kernel.format.levels[0].bits) - first
        if self._shared:
            table.ram.write(table.root + first, table.ram.read(self.kernel.root + first, count))

    # -- areas ------------------------------------------------------------------------------------

    def mmap(
        self, size: int, prot: str = "rw-", *, addr: int | None = None, huge: bool = False
    ) -> int:
        """Reserve addresses for anonymous memory; the first.

        Parameters
        ----------
        prot : str
            "---", "r--", "rw-", "r-x" or "rwx".
        addr : int, optional
            Where; by default the lowest gap from a third of the user's addresses on.
        huge : bool
            Use huge pages where whole ones fit.

        Raises
        ------
        BadRequestError, MisalignedError, AlreadyMappedError, OutOfMemoryError

        Linux: do_mmap(), arch_get_unmapped_area(), mm/mmap.c
        """
        fmt = self.kernel.format
        if prot not in _PROTS:
            raise errors.BadRequestError(f"protection {prot!r}: one of {', '.join(_PROTS)}")
        if size <= 0:
            raise errors.BadRequestError(f"size {size}: nothing to map")
        size = -(-size // fmt.page_size) * fmt.page_size
        start = self._gap(size) if addr is None else addr
        if start % fmt.page_size:
            raise errors.MisalignedError(f"{start:#x} is no multiple of {fmt.page_size} bytes")
        if start < 0 or start + size > self.task_size:
            raise errors.BadRequestError(
                f"[{start:#x}, {start + size:#x}): user space ends at {self.task_size:#x}"
            )
        if any(vma.start < start + size and start < vma.end for vma in self.vmas):
            raise errors.AlreadyMappedError(f"[{start:#x}, {start + size:#x}) overlaps an area")
        self.vmas.append(Vma(start, start + size, prot, huge))
        self._note_areas()
        return start

    def _gap(self, size: int) -> int:
        start = self.mmap_base
        for vma in self.vmas:
            if vma.end <= start:
                continue
            if vma.start - start >= size:
                break
            start = vma.end
        if start + size > self.task_size:
            raise errors.OutOfMemoryError(f"no {size} bytes of addresses are free")
        return start

    def munmap(self, va: int, size: int, *, flush: bool = True) -> int:
        """Give addresses back, and the memory behind them; bytes that were present.

        `flush=False` forgets the translation buffers: a bug to be found.

        Linux: do_munmap(), unmap_region(), mm/mmap.c
        """
        size = -(-size // self.kernel.format.page_size) * self.kernel.format.page_size
        self._cut(va, va + size)
        self.vmas = [vma for vma in self.vmas if vma.end <= va or va + size <= vma.start]
        self._note_areas()
        self._cache_call("flush_cache_range")
        gone = self.table.unmap(va, size)
        self._flush(va, va + size, flush=flush)
        return gone * self.kernel.format.page_size

    def mprotect(self, va: int, size: int, prot: str, *, flush: bool = True) -> None:
        """Change the protection of [va, va + size), which must be mapped without a gap.

        Raises
        ------
        BadRequestError
            No such protection, or a gap.

        Linux: do_mprotect_pkey(), mm/mprotect.c
        """
        if prot not in _PROTS:
            raise errors.BadRequestError(f"protection {prot!r}: one of {', '.join(_PROTS)}")
        end = va + -(-size // self.kernel.format.page_size) * self.kernel.format.page_size
        inside = [vma for vma in self.vmas if vma.start < end and va < vma.end]
        covered = sum(min(vma.end, end) - max(vma.start, va) for vma in inside)
        if covered != end - va:
            raise errors.BadRequestError(f"[{va:#x}, {end:#x}) has gaps")
        self._cut(va, end)
        self.vmas = [
            replace(vma, prot=prot) if va <= vma.start and vma.end <= end else vma
            for vma in self.vmas
        ]
        self._note_areas()
        self._cache_call("flush_cache_range")
        self.table.protect(va, end - va, _PROTS[prot])
        self._flush(va, end, flush=flush)

    def _cut(self, *borders: int) -> None:
        """Split areas at addresses."""
        for border in borders:
            for n, vma in enumerate(self.vmas):
                if vma.start < border < vma.end:
                    parts = [replace(vma, end=border), replace(vma, start=border)]
                    self.vmas[n : n + 1] = parts
                    break

    def _note_areas(self) -> None:
        """Join areas that touch and are alike (vma_merge), and tell the kernels."""
        self.vmas.sort(key=lambda vma: vma.start)
        merged: list[Vma] = []
        for vma in self.vmas:
            before = merged[-1] if merged else None
            if before and before.end == vma.start and _alike(before, vma):
                merged[-1] = replace(before, end=vma.end)
            else:
                merged.append(vma)
        self.vmas = merged
        fmt = self.kernel.format
        columns: dict[str, Any] = {
            "vma_start": [vma.start for vma in self.vmas],
            "vma_end": [vma.end for vma in self.vmas],
            "vma_prot": [signed(self._bits(vma)) for vma in self.vmas],
            "vma_huge": [int(vma.huge and len(fmt.levels) > 1) for vma in self.vmas],
        }
        self._columns = {name: np.array(values, np.int64) for name, values in columns.items()}
        for name, values in self._columns.items():
            attach(self._row, name, values)

    def _bits(self, vma: Vma) -> int:
        """Entry bits of a fresh page: a writable one is dirty at once."""
        fmt = self.kernel.format
        bits = fmt.prot(_PROTS[vma.prot])
        return fmt.pte_mkdirty(bits) if "w" in vma.prot else bits

    def find_vma(self, va: int) -> Vma | None:
        """Area that holds an address."""
        at = bisect_right(self.vmas, va, key=lambda vma: vma.start) - 1
        return self.vmas[at] if at >= 0 and va < self.vmas[at].end else None

    # -- faults -----------------------------------------------------------------------------------

    def fault(self, va: int, access: str = "r") -> str:
        """Let a user's access happen: "mapped", "mapped huge", "copied", or "present" already.

        "copied": a page that a fork shared is this process's own from now on.

        Raises
        ------
        PageFaultError
            The program would get a signal.
        OutOfMemoryError
            No frame for it, or for a table.
        """
        bits = {"r": rec.READ, "w": rec.WRITE, "x": rec.EXEC}.get(access)
        if bits is None:
            raise errors.BadRequestError(f"access {access!r}: r, w or x")
        code = self._fault(self.table.handle, signed(va), bits)
        if code in _WHAT:
            if code == rec.FAULT_COPIED:
                self._copy(int(self._row["old_paddr"]), int(self._row["walk_paddr"]))
            elif code != rec.FAULT_PRESENT:
                self._clear(np.array([code | int(self._row["walk_paddr"])]))
            if self.tlbs is not None and code > rec.FAULT_HUGE and access == "w":
                self.tlbs.flush_tlb_page(self.table, va)  # it may be writable only now
            if self.tlbs is not None:
                self.tlbs.cache_call("update_mmu_cache")
            return _WHAT[code]
        if code == rec.FAULT_SEGV:
            raise errors.PageFaultError(va, "no_area", "no area holds the address")
        if code == rec.FAULT_ACCESS:
            vma = self.find_vma(va)
            raise errors.PageFaultError(va, "protection", f"{access} in {vma}")
        raise errors.OutOfMemoryError(f"no memory for the page at {va:#x}")

    def fault_stream(self, addresses: NDArray[Any], writes: NDArray[Any]) -> NDArray[np.int64]:
        """Touch many addresses in order, as a program does; what each did.

        Parameters
        ----------
        addresses : integers [n]
            User addresses.
        writes : bool [n]
            Whether the access writes.

        Returns
        -------
        int64 [n]
            `record.FAULT_MAPPED` 1, `FAULT_HUGE` 2, `FAULT_PRESENT` 3, `FAULT_COPIED` 4, or a
            negative code.
        """
        queries: Any = np.ascontiguousarray(addresses).astype(np.int64) & ~1
        queries |= np.asarray(writes, bool)
        out: NDArray[np.int64] = np.empty(len(queries), np.int64)
        attach(self._row, "queries", queries)
        attach(self._row, "answers", out)
        copied_from: NDArray[np.int64] = np.zeros(len(queries), np.int64)
        attach(self._row, "copied_from", copied_from)
        ready(do_fault_stream)(self.table.handle)
        copies = np.flatnonzero(copied_from)
        for n in copies.tolist():  # before a frame that went back is cleared for its next use
            self._copy(int(copied_from[n]), int(out[n]))
        self._clear(out)
        if len(copies) and self.tlbs is not None:
            self.tlbs.flush_tlb_mm(self.table)
        did = np.where(out > 0, out & 3, out)
        did[copies] = rec.FAULT_COPIED
        return did

    def _copy(self, old: int, new: int) -> None:
        """Give a page the bytes of another, as far as it was ever written.

        Linux: copy_user_highpage()
        """
        ram, size = self.kernel.ram, self.kernel.format.page_size
        if ram.is_written(old, size):
            ram.write(new, ram.read(old, size))
        elif ram.is_written(new, size):
            ram.zero(new, size)

    def fork(self, *, flush: bool = True) -> "AddressSpace":
        """Address space of a child: the same areas, the same pages until one of both writes.

        `flush=False` forgets the translation buffers, in which pages are still writable.

        Raises
        ------
        OutOfMemoryError
            No frame for the child's tables: there is no child then.

        Examples
        --------
        >>> from physmem.machine.machine import Machine
        >>> machine = Machine.build("64MiB")
        >>> _ = machine.map_memory()
        >>> mm = machine.new_process()
        >>> va = mm.mmap(8192)
        >>> mm.fault(va, "w")
        'mapped'
        >>> child = mm.fork()
        >>> child.fault(va, "r"), child.fault(va, "w"), mm.fault(va, "w")
        ('present', 'copied', 'present')

        Linux: dup_mmap(), kernel/fork.c
        """
        child = AddressSpace(self.kernel, self._source, self.tlbs)
        child.vmas = list(self.vmas)
        child._note_areas()
        self.kernel.processes.append(child.table)
        shares = self.kernel.frame_shares()
        for space in (self, child):
            attach(space.table.record[0], "frame_shares", shares)
        self._cache_call("flush_cache_dup_mm")
        run = ready(do_copy_page_range)
        for vma in self.vmas:
            if run(self.table.handle, child.table.handle, vma.start, vma.end):
                self._flush_mm(flush=flush)
                child.exit()
                raise errors.OutOfMemoryError("no memory for the page tables of a child")
        self._flush_mm(flush=flush)
        return child

    def _flush_mm(self, *, flush: bool) -> None:
        if flush and self.tlbs is not None:
            self.tlbs.flush_tlb_mm(self.table)

    def _clear(self, did: NDArray[np.int64]) -> None:
        """Clear what faults mapped, as far as it was ever written.

        Linux: clear_user_highpage(), clear_huge_page()
        """
        fmt, ram = self.kernel.format, self.kernel.ram
        huge = 1 << fmt.levels[-2].shift
        for code, size in ((rec.FAULT_MAPPED, fmt.page_size), (rec.FAULT_HUGE, huge)):
            frames = did[(did > 0) & (did & 3 == code)] & ~3
            if len(frames) == 1:
                dirty = frames if ram.is_written(int(frames[0]), size) else frames[:0]
            else:
                parts = np.array(list(ram.written()), np.int64).reshape(-1, 2)
                at = np.searchsorted(parts[:, 1], frames, "right")  # the first part that may meet
                inside = at < len(parts)
                dirty = frames[inside]
                dirty = dirty[parts[at[inside], 0] < dirty + size]
            for paddr in dirty.tolist():
                ram.zero(paddr, size)

    # -- figures and the end ----------------------------------------------------------------------

    @property
    def rss(self) -> int:
        """Bytes of memory that are present."""
        return sum(leaf.end - leaf.va for leaf in self.table.leaves(0, self.task_size))

    def exit(self) -> None:
        """Give everything back.

        Linux: exit_mmap(), mm/mmap.c; mmdrop(), kernel/fork.c
        """
        for vma in list(self.vmas):
            self.munmap(vma.start, vma.end - vma.start, flush=False)
        if self.tlbs is not None:
            self.tlbs.forget(self.table)
        fmt = self.kernel.format
        if self._shared:
            first = self._shared * fmt.entry_bytes
            self.table.ram.zero(
                self.table.root + first, (fmt.entry_bytes << fmt.levels[0].bits) - first
            )
        self.table.free_roots(shared_high=fmt.two_roots)

    def _cache_call(self, name: str) -> None:
        if self.tlbs is not None:
            self.tlbs.cache_call(name)

    def _flush(self, start: int, end: int, *, flush: bool) -> None:
        if flush and self.tlbs is not None:
            self.tlbs.flush_tlb_range(self.table, start, end)


def _alike(a: Vma, b: Vma) -> bool:
    return a.prot == b.prot and a.huge == b.huge
