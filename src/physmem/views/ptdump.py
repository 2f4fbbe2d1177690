# SPDX-License-Identifier: GPL-2.0-or-later
"""A page table as text: its ranges in the manner of the kernel's page_tables file in debugfs.

Linux: note_page(), arch/x86/mm/dump_pagetables.c; arch/arm64/mm/ptdump.c
"""

from collections.abc import Iterator

from physmem.pgtable.reading import Leaf, TableReader

_UNITS = "KMGTPE"


def size_text(size: int) -> str:
    """Bytes with the largest unit that divides them.

    Examples
    --------
    >>> size_text(2 << 20), size_text(5 << 10)
    ('2M', '5K')
    """
    unit = 0
    number = size >> 10
    while number and number % 1024 == 0 and unit + 1 < len(_UNITS):
        number >>= 10
        unit += 1
    return f"{number}{_UNITS[unit]}"


def flag_names(table: TableReader, leaf: Leaf) -> list[str]:
    """Names of what is set besides permissions: G, A, D, cont."""
    fmt = table.format
    names = []
    if fmt.name.startswith("arm64"):
        names += [] if leaf.flags & 1 << 11 else ["G"]
    elif fmt.name.startswith("riscv"):
        names += ["G"] if leaf.flags & 1 << 5 else []
    else:
        names += ["G"] if leaf.flags & 1 << 8 else []
    names += ["A"] if fmt.pte_young(leaf.flags) else []
    names += ["D"] if fmt.pte_dirty(leaf.flags) else []
    if fmt.cont_bit and leaf.flags & fmt.cont_bit:
        names.append("cont")
    return names


def ptdump(table: TableReader, start: int = 0, end: int = 1 << 64) -> Iterator[str]:
    r"""Lines of the dump: addresses, size, who may do what, flags, level; gaps are left out.

    Runs of equal leaves are one line, wherever they lead.

    Examples
    --------
    >>> from physmem.lib.ram import Ram
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import bump
    >>> from physmem.pgtable.table import PageTable
    >>> table = PageTable(page_table_format("x86_64"), Ram(1 << 24), bump(0x1000, 0x100000))
    >>> table.map(0xFFFF888000000000, 0, 1 << 24)
    >>> print(*ptdump(table), sep="\n")
    0xffff888000000000-0xffff888001000000        16M  rw- ---  G A D       pmd 2M
    """
    width = 2 + (8 if table.format.va_bits == 32 else 16)
    for leaf in table.leaves(start, end, merge="attributes"):
        flags = " ".join(flag_names(table, leaf))
        last = f"{leaf.end:#0{width}x}" if leaf.end < 1 << 64 else "0x" + "f" * (width - 2)
        yield (
            f"{leaf.va:#0{width}x}-{last} {size_text(leaf.end - leaf.va):>10}"
            f"  {leaf.kernel} {leaf.user}  {flags:10}  {leaf.level} {size_text(leaf.size)}"
        )
