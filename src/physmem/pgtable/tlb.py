# SPDX-License-Identifier: GPL-2.0-or-later
"""Translation buffers of the CPUs, and the calls that keep them right.

Nothing here looks at a page table when an entry is at hand: an entry that should have been flushed
goes on being used, as on real hardware. `Tlbs.check` finds such entries.

Linux: Documentation/core-api/cachetlb.rst; flush_tlb_mm_range(), arch/x86/mm/tlb.c
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from physmem.lib.errors import BadRequestError, PageFaultError, StaleTlbError
from physmem.pgtable.format import U64, signed
from physmem.pgtable.reading import TableReader
from physmem.pgtable.walked import Walk

ENTRIES = 1536
FULL_FLUSH_ABOVE = 33
"""Pages above which a range is flushed as a whole (x86: tlb_single_page_flush_ceiling)."""


@dataclass(frozen=True)
class TlbEntry:
    """What a CPU remembers of a walk."""

    va: int
    size: int
    paddr: int
    kernel: str
    user: str
    dirty: bool  # it was written through, or need not be marked
    shared: bool  # a kernel address: valid whichever address space is in use


@dataclass
class Counts:
    """What happened so far. `calls` counts the flush and cache calls by name."""

    hits: int = 0
    misses: int = 0
    dropped: int = 0
    full_flushes: int = 0
    page_flushes: int = 0
    ipis: int = 0
    calls: dict[str, int] = field(default_factory=dict)


class Tlbs:
    """The translation buffer of each CPU, with the page table that the CPU uses.

    Parameters
    ----------
    table : TableReader
        The kernel's own page table: in use on every CPU until `switch`.
    nr_cpus : int
    managed : bool
        arm64 whose hardware sets accessed and dirty bits, as x86 and riscv64 do anyway.
    entries : int
        Translations that one CPU remembers; the least recently used one is dropped.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> from physmem.pgtable.table import PageTable
    >>> table = PageTable(page_table_format("x86_64"), Ram(1 << 20), bump(0x1000, 0x10000))
    >>> tlbs = Tlbs(table)
    >>> table.map(0x400000, 0x8000, 4096)
    >>> hex(tlbs.access(0x400123)), table.unmap(0x400000, 4096), hex(tlbs.access(0x400123))
    ('0x8123', 1, '0x8123')
    >>> tlbs.check()
    Traceback (most recent call last):
    physmem.lib.errors.StaleTlbError: cpu 0: 0x400000 -> 0x8000, but the page table says: ...
    >>> tlbs.flush_tlb_range(table, 0x400000, 0x401000)
    >>> tlbs.check()
    """

    def __init__(
        self,
        table: TableReader,
        nr_cpus: int = 1,
        entries: int = ENTRIES,
        *,
        managed: bool = False,
    ) -> None:
        self._managed = managed
        self.kernel = table
        self.counts = Counts()
        self._entries = entries
        self._active: list[TableReader] = [table] * nr_cpus
        self._buffers: list[OrderedDict[tuple[int, int], TlbEntry]] = [
            OrderedDict() for _ in range(nr_cpus)
        ]
        self._shifts = table.format.leaf_shifts
        contiguous = {level.cont_shift for level in table.format.levels if level.cont_shift}
        if table.format.cont_low:
            self._shifts = (*self._shifts, *contiguous)

    # -- use --------------------------------------------------------------------------------------

    def switch(self, cpu: int, table: TableReader) -> None:
        """Let a CPU use another page table; what it remembers of the old one is dropped.

        Linux: switch_mm_irqs_off(), load_new_mm_cr3(), arch/x86/mm/tlb.c
        """
        if self._active[cpu] is not table:
            self._active[cpu] = table
            self._drop(cpu, lambda entry: not entry.shared)

    def access(self, va: int, access: str = "r", cpu: int = 0) -> int:
        """Physical address for an access by a CPU: from its buffer, else by a walk.

        Parameters
        ----------
        access : str
            As for `TableReader.translate`: one of "r", "w", "x", and "u" for user mode.

        Raises
        ------
        PageFaultError
            The access is not allowed, by what the buffer says if it says anything.
        """
        if not set(access) <= set("rwxu") or not 0 <= va <= U64:
            raise BadRequestError(f"access {access!r} to {va:#x}: no such access")
        buffer = self._buffers[cpu]
        for shift in self._shifts:
            entry = buffer.get((va >> shift, shift))
            if entry is not None and self._allows(entry, access):
                self.counts.hits += 1
                buffer.move_to_end((va >> shift, shift))
                return entry.paddr + (va - entry.va)
        self.counts.misses += 1
        # a refused access is looked up again before it faults, as processors do
        walk = self._active[cpu].touch(va, access, managed=self._managed)
        if not walk.ok or walk.paddr is None:
            raise PageFaultError(va, walk.reason, walk.detail)
        self._insert(buffer, va, walk, written="w" in access)
        return walk.paddr

    @staticmethod
    def _allows(entry: TlbEntry, access: str) -> bool:
        if "w" in access and not entry.dirty:
            return False  # the first write has to mark the page
        perm = entry.user if "u" in access else entry.kernel
        return set(access) - {"u"} <= set(perm)

    def _insert(
        self, buffer: OrderedDict[tuple[int, int], TlbEntry], va: int, walk: Walk, *, written: bool
    ) -> None:
        shift = walk.size.bit_length() - 1
        base = va & -walk.size
        paddr = (walk.paddr or 0) & -walk.size
        entry = TlbEntry(
            base, walk.size, paddr, walk.kernel, walk.user, written, self._is_kernel(va)
        )
        buffer[va >> shift, shift] = entry
        buffer.move_to_end((va >> shift, shift))
        if len(buffer) > self._entries:
            buffer.popitem(last=False)
            self.counts.dropped += 1

    def _is_kernel(self, va: int) -> bool:
        return va >= 0xC0000000 if self.kernel.format.va_bits == 32 else signed(va) < 0

    # -- flushing ---------------------------------------------------------------------------------

    def flush_tlb_all(self) -> None:
        """No stale translation anywhere."""
        self._called("flush_tlb_all")
        for cpu in range(len(self._buffers)):
            self._full(cpu, shared=True)

    def flush_tlb_mm(self, table: TableReader) -> None:
        """None of an address space."""
        self._called("flush_tlb_mm")
        for cpu in self._users(table):
            self._full(cpu, shared=False)

    def flush_tlb_range(self, table: TableReader, start: int, end: int) -> None:
        """None of [start, end) of an address space."""
        self._called("flush_tlb_range")
        for cpu in self._users(table):
            self._range(cpu, start, end, shared=table is self.kernel)

    def flush_tlb_page(self, table: TableReader, va: int) -> None:
        """None of one page of an address space."""
        self._called("flush_tlb_page")
        start = va & -table.format.page_size
        for cpu in self._users(table):
            self._range(cpu, start, start + 1, shared=True)

    def flush_tlb_kernel_range(self, start: int, end: int) -> None:
        """None of a range of kernel addresses, on any CPU."""
        self._called("flush_tlb_kernel_range")
        for cpu in range(len(self._buffers)):
            self._range(cpu, start, end, shared=True)

    def cache_call(self, name: str) -> None:
        """Count a call such as flush_cache_vmap: memory and caches agree always in this model."""
        self._called(name)

    def forget(self, table: TableReader) -> None:
        """An address space ends: CPUs that use it go over to the kernel's own page table.

        Linux: leave_mm(), arch/x86/mm/tlb.c
        """
        for cpu, active in enumerate(self._active):
            if active is table:
                self.switch(cpu, self.kernel)

    def _called(self, name: str) -> None:
        self.counts.calls[name] = self.counts.calls.get(name, 0) + 1

    def _users(self, table: TableReader) -> list[int]:
        """CPUs that use a page table; all but the first get an interrupt."""
        if table is self.kernel:
            cpus = list(range(len(self._active)))
        else:
            cpus = [cpu for cpu, active in enumerate(self._active) if active is table]
        self.counts.ipis += max(len(cpus) - 1, 0)
        return cpus

    def _full(self, cpu: int, *, shared: bool) -> None:
        self.counts.full_flushes += 1
        self._drop(cpu, lambda entry: shared or not entry.shared)

    def _range(self, cpu: int, start: int, end: int, *, shared: bool) -> None:
        pages = -(-(end - start) // self.kernel.format.page_size)
        if pages > FULL_FLUSH_ABOVE:
            self._full(cpu, shared=shared)
            return
        self.counts.page_flushes += pages
        self._drop(cpu, lambda entry: entry.va < end and start < entry.va + entry.size)

    def _drop(self, cpu: int, doomed: Callable[[TlbEntry], bool]) -> None:
        buffer = self._buffers[cpu]
        for key in [key for key, entry in buffer.items() if doomed(entry)]:
            del buffer[key]

    # -- finding mistakes -------------------------------------------------------------------------

    def stale(self) -> list[tuple[int, TlbEntry, Walk]]:
        """Entries that say what the page table in use says no more: (cpu, entry, walk now)."""
        found = []
        for cpu, buffer in enumerate(self._buffers):
            for entry in buffer.values():
                walk = self._active[cpu].translate(entry.va)
                same = walk.paddr == entry.paddr and walk.reason == "ok"
                if not same or _more(entry.kernel, walk.kernel) or _more(entry.user, walk.user):
                    found.append((cpu, entry, walk))
        return found

    def check(self) -> None:
        """Find a forgotten flush.

        Raises
        ------
        StaleTlbError
            A buffer holds what the page table no longer says.
        """
        for cpu, entry, walk in self.stale():
            now = walk.detail if walk.paddr is None else f"{walk.paddr:#x} {walk.kernel}"
            raise StaleTlbError(
                f"cpu {cpu}: {entry.va:#x} -> {entry.paddr:#x}, but the page table says: {now};"
                " flush after changing an entry"
            )


def _more(old: str, new: str) -> bool:
    """Whether a permission text allows what another does not."""
    return not set(old) - {"-"} <= set(new)
