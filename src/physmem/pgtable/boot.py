# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces of a direct map entered into a page table of one's own, for `Machine.map_memory`.

What a start-up itself maps is written by `physmem.pgtable.kernel_map`.

Linux: init_mem_mapping(), arch/x86/mm/init.c; paging_init(), arch/arm64/mm/mmu.c (6.1)
"""

from physmem.arch.direct_map import MapPiece
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
    table.map(va, first, last - first, "PAGE_KERNEL", largest=size, skip=True)


def _has_table(table: PageTable, va: int, size: int) -> bool:
    """Whether leaves smaller than `size` are in use around an address."""
    real = [step for step in table.translate(va).steps if not step.folded]
    position = [1 << level.shift for level in table.format.levels].index(size)
    return len(real) > position + 1
