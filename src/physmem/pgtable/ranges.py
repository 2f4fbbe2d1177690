# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks over ranges with a function for each entry, as kernel code that looks at page tables does.

For counting and listing many pages `TableReader.leaves` is much faster.

Linux: apply_to_page_range(), mm/memory.c; walk_page_range_novma(), mm/pagewalk.c (6.1)
"""

from collections.abc import Callable
from dataclasses import dataclass

from physmem.lib.errors import AlreadyMappedError, MisalignedError, NotCanonicalError
from physmem.pgtable.format import NAMES, U64
from physmem.pgtable.reading import Slot, TableReader
from physmem.pgtable.table import PageTable

CONTINUE = "continue"
"""What an entry function returns to keep the walk from going down."""

EntryFn = Callable[[Slot, int, int], int | str | None]
"""Function of (slot, start, end) of the part that the entry covers."""


@dataclass(frozen=True, kw_only=True)
class WalkOps:
    """What to call: for entries of a generic level that are not empty, for pages, for holes.

    A function returns None or 0 to go on, CONTINUE not to go down, another number to stop.

    Linux: struct mm_walk_ops, include/linux/pagewalk.h
    """

    pgd_entry: EntryFn | None = None
    p4d_entry: EntryFn | None = None
    pud_entry: EntryFn | None = None
    pmd_entry: EntryFn | None = None
    pte_entry: EntryFn | None = None  # for empty entries too
    pte_hole: Callable[[int, int, int], int | None] | None = None
    """Function of (start, end, depth); depth 0 is pgd."""


def addr_end(table: TableReader, name: str, addr: int, end: int) -> int:
    """Next boundary of a generic level, or the end of the range if that comes first.

    At a folded level it is the end. An end of 0 is the top of the address space.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> table = TableReader(page_table_format("x86_64"), Ram(4096))
    >>> hex(addr_end(table, "pmd", 0x1FF000, 0x300000)), addr_end(table, "p4d", 0, 5)
    ('0x200000', 5)

    Linux: pgd_addr_end(), p4d_addr_end(), ..., include/linux/pgtable.h
    """
    position = table.format.real(name)
    if position is None:
        return end
    size = 1 << table.format.levels[position].shift
    border = (addr + size) & -size & U64
    return border if (border - 1 & U64) < (end - 1 & U64) else end


def _check(table: TableReader, start: int, end: int) -> None:
    if (start | end) & (table.format.page_size - 1) or start >= end:
        raise MisalignedError(f"range [{start:#x}, {end:#x}): whole pages, and at least one")
    fmt = table.format
    if not (fmt.canonical(start) and fmt.canonical(end - 1)) or start >> 63 != end - 1 >> 63:
        raise NotCanonicalError(f"range [{start:#x}, {end:#x}): {fmt.name} has no such addresses")


def walk_page_range(table: TableReader, start: int, end: int, ops: WalkOps) -> int:
    """Walk [start, end) from the top, calling functions; 0, or what stopped it.

    Raises
    ------
    MisalignedError, NotCanonicalError

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> table = PageTable(page_table_format("x86_64"), Ram(1 << 24), bump(0x1000, 0x100000))
    >>> table.map(0x400000, 0, 0x201000)
    >>> sizes = []
    >>> ops = WalkOps(pmd_entry=lambda slot, a, b: sizes.append((table.leaf(slot), b - a)))
    >>> walk_page_range(table, 0x400000, 0x800000, ops), sizes
    (0, [(True, 2097152), (False, 2097152)])
    """
    _check(table, start, end)
    return _walk(table, None, (start, end), ops)


def _walk(table: TableReader, parent: Slot | None, bounds: tuple[int, int], ops: WalkOps) -> int:
    """Walk the part of one table that a range covers."""
    addr, end = bounds
    depth = 0 if parent is None else NAMES.index(parent.name) + 1
    name = NAMES[depth]
    call: EntryFn | None = getattr(ops, f"{name}_entry")
    deeper = any(getattr(ops, f"{below}_entry") for below in NAMES[depth + 1 :])
    while addr < end:
        border = addr_end(table, name, addr, end)
        slot = table.pgd_offset(addr) if parent is None else table.offset(parent, addr)
        result: int | str | None = None
        if name != "pte" and table.none(slot):
            result = ops.pte_hole(addr, border, depth) if ops.pte_hole else None
        else:
            result = call(slot, addr, border) if call else None
            leaf = name == "pte" or table.leaf(slot)
            if not result and not leaf and (deeper or ops.pte_hole):
                result = _walk(table, slot, (addr, border), ops)
        if result and result != CONTINUE:
            return int(result)
        addr = border
    return 0


def apply_to_page_range(
    table: PageTable, va: int, size: int, fn: Callable[[Slot, int], int | None]
) -> int:
    """Call a function for each pte slot of a range, in order; tables are made where none are.

    Returns
    -------
    int
        0, or the first other number that `fn` returned: there it stopped.

    Raises
    ------
    AlreadyMappedError
        A large page is in the way.
    MisalignedError, NotCanonicalError, OutOfMemoryError
    """
    _check(table, va, va + size)
    for addr in range(va, va + size, table.format.page_size):
        slot = table.pgd_offset(addr)
        while slot.name != "pte":
            if table.leaf(slot):
                raise AlreadyMappedError(f"{addr:#x}: a large {slot.name} page is there")
            slot = table.alloc(slot, addr)
        result = fn(slot, addr)
        if result:
            return result
    return 0
