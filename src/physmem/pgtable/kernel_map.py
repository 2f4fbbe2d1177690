# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a starting kernel as bytes: every entry that its plan names, at its place.

Which memory is mapped with which leaves, and where each table lies, is decided by the architecture
and by the boot allocator (`physmem.arch.direct_map`). Here that becomes entries in memory. Runs of
entries are stored at once, so that the half million tables of a terabyte of small pages take as
long as it takes to write them.

Linux: init_mem_mapping(), arch/x86/mm/init.c; paging_init(), arch/arm64/mm/mmu.c;
setup_vm_final(), arch/riscv/mm/init.c; vmemmap_populate(), mm/sparse-vmemmap.c
"""

from bisect import bisect_right, insort
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from physmem.arch.direct_map import KERNEL, DirectMap, Leaves, TablePages
from physmem.lib.errors import CorruptStateError
from physmem.lib.ram import Ram
from physmem.pgtable.format import U64, Format

_CHUNK = 1 << 20
"""Entries made at a time."""


class _Run(NamedTuple):
    """Tables of one level for virtual bytes [va, end), one every `stride` bytes of memory."""

    va: int
    end: int
    paddr: int
    stride: int


class KernelMapWriter:
    """Stores the entries of a plan.

    Parameters
    ----------
    fmt : Format
        Of the entries.
    ram : Ram
        Memory; tables are cleared before they are used.
    roots : mapping
        Physical address of the top table of each address space.
    clear : bool
        The top tables are new; else they are in use.

    Examples
    --------
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.reading import TableReader
    >>> fmt, ram = page_table_format("x86_64"), Ram(1 << 24)
    >>> writer = KernelMapWriter(fmt, ram, {"kernel": 0x1000})
    >>> direct = 0xFFFF888000000000
    >>> writer.add_tables(TablePages("pud", direct, 0x2000, 1, 0, "memblock"))
    >>> writer.add_tables(TablePages("pmd", direct, 0x3000, 1, 0, "memblock"))
    >>> writer.add_leaves(Leaves("pmd", direct, direct + (1 << 24), 0, 1 << 21, "PAGE_KERNEL"))
    >>> walk = TableReader(fmt, ram, 0x1000).translate(direct + 0x345678)
    >>> hex(walk.paddr), walk.size, writer.nr_tables
    ('0x345678', 2097152, 3)
    """

    def __init__(
        self, fmt: Format, ram: Ram, roots: Mapping[str, int], *, clear: bool = True
    ) -> None:
        self.format = fmt
        self.nr_tables = 0
        self._ram = ram
        self._type = np.uint32 if fmt.entry_bytes == 4 else np.uint64
        self._entries: NDArray[Any] = ram.whole.view(self._type)
        self._shift = fmt.entry_bytes.bit_length() - 1
        self._runs: dict[tuple[str, int], list[_Run]] = {}
        for space, root in roots.items():
            if clear:
                ram.zero(root, fmt.page_size)
            self._runs[space, 0] = [_Run(0, 1 << 64, root, 0)]
            self.nr_tables += space == KERNEL

    def add_tables(self, tables: TablePages) -> None:
        """Clear tables and let the entries above point to them."""
        fmt = self.format
        position = self._position(tables.level)
        above = fmt.levels[position - 1]
        span = 1 << above.shift
        va = tables.va & -span
        self._clear(tables)
        flags = (fmt.soft.kernel_table | tables.bits) & ~above.table_reserved
        addresses = self._steps(tables.paddr, tables.stride, tables.count)
        values = self._address(addresses, fmt.table_addr, fmt.table_high) | self._type(flags)
        self._store(tables.space, position - 1, va, values)
        run = _Run(va, va + tables.count * span, tables.paddr, tables.stride)
        insort(self._runs.setdefault((tables.space, position), []), run)
        self.nr_tables += tables.count if tables.space == KERNEL else 0

    def add_leaves(self, leaves: Leaves) -> None:
        """Store entries that map memory."""
        fmt = self.format
        position = self._position(leaves.level)
        level = fmt.levels[position]
        prot = fmt.prot(leaves.prot) if isinstance(leaves.prot, str) else leaves.prot
        flags = self._type(prot & ~level.leaf_clear | level.leaf_set)
        count = (leaves.end - leaves.va) // leaves.size
        self.nr_tables -= self._replaced(leaves, position)
        for first in range(0, count, _CHUNK):
            number = min(_CHUNK, count - first)
            va = leaves.va + first * leaves.size
            paddr = leaves.paddr + first * leaves.size
            addresses = self._steps(paddr, leaves.size, number)
            values = self._address(addresses, level.addr, level.high) | flags
            if leaves.contiguous and level.cont_shift:
                self._join(leaves, position, va, values)
            self._store(leaves.space, position, va, values)

    def _replaced(self, leaves: Leaves, position: int) -> int:
        """Tables of the kernel whose place large leaves take: nobody finds them any more."""
        gone = 0
        for run in self._runs.get((leaves.space, position + 1), []):
            low, high = max(run.va, leaves.va), min(run.end, leaves.end)
            gone += max(high - low, 0) // leaves.size
        return gone if leaves.space == KERNEL else 0

    # -- entries ----------------------------------------------------------------------------------

    def _position(self, name: str) -> int:
        position = self.format.real(name)
        if position is None:
            raise CorruptStateError("kernel_map", f"{self.format.name} has no level {name}")
        return position

    def _steps(self, first: int, step: int, count: int) -> NDArray[np.uint64]:
        return np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(step & U64)

    def _address(self, addresses: NDArray[np.uint64], addr: int, high: int) -> NDArray[Any]:
        fmt = self.format
        values = (addresses & np.uint64(addr)) >> np.uint64(fmt.addr_shift)
        if high:
            values |= (addresses & np.uint64(high)) >> np.uint64(fmt.high_shift)
        return values.astype(self._type, copy=False)

    def _join(self, leaves: Leaves, position: int, va: int, values: NDArray[Any]) -> None:
        """Mark the groups that lie wholly in the range, and alike in memory.

        Linux: alloc_init_cont_pte(), alloc_init_cont_pmd(), arch/arm64/mm/mmu.c
        """
        group = 1 << self.format.levels[position].cont_shift
        if (leaves.paddr - leaves.va) % group:
            return
        low = -(-leaves.va // group) * group
        high = leaves.end // group * group
        first = max(low - va, 0) // leaves.size
        last = max(high - va, 0) // leaves.size
        values[first:last] |= self._type(self.format.cont_bit)

    # -- places -----------------------------------------------------------------------------------

    def _clear(self, tables: TablePages) -> None:
        size = self.format.page_size
        if abs(tables.stride) == size and tables.count > 1:
            low = min(tables.paddr, tables.paddr + (tables.count - 1) * tables.stride)
            self._ram.zero(low, tables.count * size)
            return
        for paddr in tables.addresses():
            if self._ram.is_written(paddr, size):
                self._ram.zero(paddr, size)

    def _store(self, space: str, position: int, va: int, values: NDArray[Any]) -> None:
        """Store consecutive entries of a level, in however many tables they lie."""
        level = self.format.levels[position]
        per_table = 1 << level.bits
        span = per_table << level.shift
        runs = self._runs.get((space, position), [])
        at = 0
        while at < len(values):
            address = va + (at << level.shift)
            run = _run_at(runs, address)
            if run is None:
                raise CorruptStateError("kernel_map", f"no {level.name} table for {address:#x}")
            slot = address >> level.shift & per_table - 1
            number = (address - run.va) // span if run.stride else 0
            place = run.paddr + number * run.stride
            left = (run.end - address) // span
            whole = min(left, (len(values) - at) // per_table) if slot == 0 else 0
            if whole > 1 and abs(run.stride) == per_table << self._shift:
                count = whole * per_table
                self._store_tables(place, run.stride, values[at : at + count], per_table)
            else:
                count = min(per_table - slot, len(values) - at)
                first = (place >> self._shift) + slot
                self._entries[first : first + count] = values[at : at + count]
            at += count

    def _store_tables(self, place: int, stride: int, values: NDArray[Any], per_table: int) -> None:
        """Whole tables that lie together in memory, upwards or downwards."""
        count = len(values) // per_table
        low = place if stride > 0 else place + (count - 1) * stride
        first = low >> self._shift
        there = self._entries[first : first + len(values)].reshape(count, per_table)
        there[:: 1 if stride > 0 else -1] = values.reshape(count, per_table)


def _run_at(runs: list[_Run], address: int) -> _Run | None:
    at = bisect_right(runs, address, key=lambda run: run.va) - 1
    return runs[at] if at >= 0 and address < runs[at].end else None


def write_kernel_map(fmt: Format, ram: Ram, made: DirectMap) -> int:
    """Store all tables and entries of a plan; how many tables the kernel's address space has."""
    writer = KernelMapWriter(fmt, ram, made.roots)
    for step in made.order:
        if isinstance(step, TablePages):
            writer.add_tables(step)
        else:
            writer.add_leaves(step)
    return writer.nr_tables
