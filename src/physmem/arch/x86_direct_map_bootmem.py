# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct map of x86 as 2.6.24 builds it: its tables lie in one block, or come from bootmem.

Linux: arch/x86/mm/init_64.c, arch/x86/mm/init_32.c, arch/x86/kernel/head_32.S (2.6.24)
"""

from collections.abc import Sequence

from physmem.arch.direct_map import (
    KERNEL,
    DirectMap,
    Leaves,
    MapPiece,
    TablePages,
    TableTree,
    Target,
)
from physmem.arch.pages import image_table
from physmem.arch.setup import Setup
from physmem.arch.x86_direct_map import adopt_entry_tables, exec_parts
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.lib.errors import BootAllocError

_PAGE = 4096
_PMD = 2 << 20
_PUD = 1 << 30
_PGD = 1 << 39
_FIRST_SAFE = 0x8000


def find_early_table_space(
    table: E820Bootmem, end: int, taken: Sequence[tuple[int, int]] = ()
) -> tuple[int, int]:
    """Where the tables for a direct map of [0, end) go: (start, bytes).

    Linux: find_early_table_space(), arch/x86/mm/init_64.c (2.6.24)

    Raises
    ------
    BootAllocError
        There is no place: the kernel panics.

    Examples
    --------
    >>> from physmem.firmware.e820 import E820Entry
    >>> table = E820Bootmem(wide=True)
    >>> table.memory_setup([E820Entry(0, 0x9FC00), E820Entry(0x100000, 0x7FE70000)])
    >>> [hex(figure) for figure in find_early_table_space(table, 0x7FF70000)]
    ['0x8000', '0x3000']
    """
    size = _page_up(8 * -(-end // _PUD)) + _page_up(8 * -(-end // _PMD))
    start = table.find_area(_FIRST_SAFE, end, size, taken)
    if start is None:
        raise BootAllocError(
            f"Cannot find space for the kernel page tables: {size} bytes below {end:#x} "
            "(the kernel panics); give the machine more low memory"
        )
    # the kernel counts in frames, whatever the address
    return start & -_PAGE, size


def init_memory_mapping(
    table: E820Bootmem,
    end: int,
    page_offset: int,
    taken: Sequence[tuple[int, int]] = (),
    made: DirectMap | None = None,
) -> tuple[DirectMap, tuple[int, int]]:
    """Map [0, end) with pages of 2 MiB, except gigabytes of which the firmware says nothing.

    Returns
    -------
    tuple
        the map, and (start, end) in bytes of the tables used

    Linux: init_memory_mapping(), arch/x86/mm/init_64.c (2.6.24)

    Examples
    --------
    >>> from physmem.firmware.e820 import E820Entry
    >>> table = E820Bootmem(wide=True)
    >>> table.memory_setup([E820Entry(0, 0x9FC00), E820Entry(0x100000, 0x7FE70000)])
    >>> made, used = init_memory_mapping(table, 0x7FF70000, 0xFFFF810000000000)
    >>> [hex(figure) for figure in used], table.log[-1]
    (['0x8000', '0xb000'], 'kernel direct mapping tables up to 7ff70000 @ 8000-b000')
    """
    made = DirectMap() if made is None else made
    start, size = find_early_table_space(table, end, taken)
    at = start

    def take(level: str, va: int) -> None:
        nonlocal at
        made.add_tables(TablePages(level, va, at, 1, 0, "e820"))
        at += _PAGE

    for pgd in range(0, end, _PGD):
        take("pud", page_offset + pgd)
        for pud in range(pgd, min(pgd + _PGD, end), _PUD):
            if not table.mapped_any(pud, pud + _PUD):
                continue
            take("pmd", page_offset + pud)
            behind = min(pud + _PUD, end)
            made.add_piece(MapPiece(pud, behind, _PMD))
            va = page_offset + pud
            last = va + -(-(behind - pud) // _PMD) * _PMD
            made.add_leaves(Leaves("pmd", va, last, pud, _PMD, "PAGE_KERNEL"))
    table.log.append(f"kernel direct mapping tables up to {end:x} @ {start:x}-{start + size:x}")
    return made, (start, at)


def init_pg_tables_end(image_end: int, *, pae: bool) -> tuple[int, int]:
    """What the entry code of x86-32 leaves: end of its page tables, and of what they map.

    Linux: startup_32, arch/x86/kernel/head_32.S (2.6.24)

    Examples
    --------
    >>> [hex(figure) for figure in init_pg_tables_end(0x41A000, pae=False)]
    ['0x41d000', '0xc00000']
    """
    low_pages = 1 << 20
    # without PAE 1024 entries per table; with it 512, and four tables above them
    tables = low_pages // 512 + 4 if pae else low_pages // 1024
    room = low_pages // 8 + (tables + 4) * _PAGE
    end, mapped = _page_up(image_end), 0
    while True:
        end += _PAGE
        mapped += 4 << 20
        if mapped >= end + room:
            return end, mapped


def pagetable_init(setup: Setup, nr_fixmap: int = 500) -> None:
    """Map low memory, then make empty tables for fixmap and pkmap; all from low bootmem.

    Parameters
    ----------
    nr_fixmap : number of all fixmap slots; depends on the number of CPUs

    Linux: pagetable_init(), arch/x86/mm/init_32.c (2.6.24)
    """
    arch, hardware, made = setup.arch, setup.hardware, setup.direct_map
    offset = arch.layout.page_offset
    huge = 1 << arch.huge_shift
    pae = arch.entry_bytes == 8

    def take(level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
        del level, va
        bootmem = setup.old_boot
        return [(bootmem.alloc_low_pages(_PAGE), 1, 0, "bootmem") for _ in range(count)]

    made.roots[KERNEL] = image_table(setup.image, 0)
    tree = TableTree(arch.levels, take, made, replaces=True)
    if not pae:
        # with PAE the entry code's tables have the wrong format and are given up
        adopt_entry_tables(setup, tree, setup.image.end)
    end = setup.limits.max_low_pfn << 12
    large = hardware.pse and not setup.cmdline.mem_nopentium
    image = setup.image
    init_end = image.end - (image.bss_kib << 10)
    size = huge if large else _PAGE
    for low, high, prot in exec_parts((0, end), (0, init_end), size):
        tree.map(offset + low, offset + high, {size}, Target(low, prot))
    made.add_piece(MapPiece(0, end, size))
    layout = arch.layout
    fixmap = layout.fixaddr_top - (nr_fixmap << 12)
    tree.map(fixmap & -huge, -(-layout.fixaddr_top // huge) * huge, {_PAGE})
    tree.map(layout.pkmap_base, layout.pkmap_base + (layout.last_pkmap << 12), {_PAGE})


def _page_up(value: int) -> int:
    return -(-value // _PAGE) * _PAGE
