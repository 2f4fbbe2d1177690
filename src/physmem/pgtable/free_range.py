# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a range given back, but none that a neighbour's addresses need.

Linux: free_pgd_range(), free_p4d_range(), free_pud_range(), free_pmd_range(), mm/memory.c
"""

from physmem.lib.errors import TableInUseError
from physmem.pgtable.format import U64
from physmem.pgtable.reading import Slot
from physmem.pgtable.table import PageTable

Bounds = tuple[int, int, int, int]
"""addr, end, floor, ceiling"""


def free_pgd_range(table: PageTable, addr: int, end: int, floor: int = 0, ceiling: int = 0) -> int:
    """Free the tables of [addr, end), which must be unmapped; how many.

    A table goes only if all that it covers lies in [floor, ceiling): between the end of the area
    before and the start of the area behind. The top table stays.

    Parameters
    ----------
    floor, ceiling : int
        0: the bottom, the top of the address space.

    Raises
    ------
    TableInUseError
        Something in the range is mapped.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> table = PageTable(page_table_format("x86_64"), Ram(1 << 24), bump(0x1000, 0x100000))
    >>> table.map(0x400000, 0x8000, 4096)
    >>> table.unmap(0x400000, 4096, keep_tables=True)
    1
    >>> free_pgd_range(table, 0x400000, 0x401000, 0, 0x410000)  # the area behind has it too
    0
    >>> free_pgd_range(table, 0x400000, 0x401000)
    3
    """
    size = 1 << table.format.levels[-2].shift
    addr &= -size
    if addr < floor:
        addr += size
    if ceiling:
        ceiling &= -size
        if not ceiling:
            return 0
    if end - 1 > ceiling - 1 & U64:
        end -= size
    if addr > end - 1:
        return 0
    high = table.format.two_roots and addr >> 63
    root = table.root_high if high else table.root
    before = table.nr_tables
    _free(table, (root, 0), (addr, end, floor, ceiling))
    return before - table.nr_tables


def _free(table: PageTable, place: tuple[int, int], bounds: Bounds) -> None:
    """Free what is below one table (its address, its level's position)."""
    fmt = table.format
    paddr, position = place
    addr, end, floor, ceiling = bounds
    size = 1 << fmt.levels[position].shift
    while addr < end:
        behind = min((addr & -size) + size, end)
        at = paddr + fmt.index(addr, position) * fmt.entry_bytes
        slot = Slot(fmt.holder(position), at, position)
        entry = table.entry(slot)
        if not fmt.is_none(entry):
            if not fmt.is_table(entry, position):
                raise TableInUseError(f"{addr:#x}: a {slot.name} page is mapped: unmap it first")
            last = position + 2 == len(fmt.levels)
            if not last:
                below = (fmt.table_address(entry), position + 1)
                _free(table, below, (addr, behind, floor, ceiling))
            if last or _is_alone(addr, behind, size, (floor, ceiling)):
                table.free_table(slot)
        addr = behind


def _is_alone(addr: int, end: int, size: int, limits: tuple[int, int]) -> bool:
    """Whether a whole entry lies between the neighbours."""
    floor, ceiling = limits
    if addr & -size < floor:
        return False
    if ceiling:
        ceiling &= -size
        if not ceiling:
            return False
    return end - 1 <= ceiling - 1 & U64
