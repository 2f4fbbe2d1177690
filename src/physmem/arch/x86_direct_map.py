# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct map of x86 as 6.1 builds it: page sizes by range, tables from brk, then memblock.

Linux: init_mem_mapping(), arch/x86/mm/init.c (6.1)
"""

from collections.abc import Callable, Sequence
from functools import partial

from physmem.arch.direct_map import DirectMap, Leaves, MapPiece, TablePages, TableTree, Target
from physmem.arch.pages import image_table
from physmem.arch.setup import Setup
from physmem.lib.errors import BootAllocError

_PAGE = 4096
_ISA_END = 1 << 20
_GIB = 1 << 30


def split_mem_range(
    start: int, end: int, page_sizes: Sequence[int], *, wide: bool = True
) -> list[tuple[int, int, int]]:
    """Cut a range where the largest usable page size changes.

    Parameters
    ----------
    start, end : bytes; what is not a whole page is left out
    page_sizes : sizes of large pages that may be used: of pmd, and of pud
    wide : 64 bits; otherwise the first large page of memory is mapped with small ones

    Returns
    -------
    list
        (start, end, mask): bit 0 of the mask for pmd leaves, bit 1 for pud leaves

    Linux: split_mem_range(), arch/x86/mm/init.c (6.1), up to the adjustment

    Examples
    --------
    >>> pieces = split_mem_range(1 << 20, 0xBFFE0000, (2 << 20, 1 << 30))
    >>> [(hex(a), hex(b), mask) for a, b, mask in pieces]
    [('0x100000', '0x200000', 0), ('0x200000', '0x40000000', 1), ('0x40000000', '0x80000000', 3), \
('0x80000000', '0xbfe00000', 1), ('0xbfe00000', '0xbffe0000', 0)]
    """
    pmd = page_sizes[0] >> 12
    pud = _GIB >> 12
    supported = 3 if len(page_sizes) > 1 else 1
    limit = end >> 12
    pfn = start >> 12
    pieces: list[tuple[int, int, int]] = []

    def save(first: int, behind: int, mask: int) -> int:
        if first >= behind:
            return pfn
        pieces.append((first << 12, behind << 12, mask & supported))
        return behind

    # fixed MTRRs do not mix with a large page at 0, says the 32-bit kernel
    head_end = pmd if not wide and pfn == 0 else _up(pfn, pmd)
    pfn = save(pfn, min(head_end, limit), 0)
    if wide:
        pfn = save(_up(pfn, pmd), min(_up(pfn, pud), _down(limit, pmd)), 1)
        pfn = save(_up(pfn, pud), _down(limit, pud), 3)
    pfn = save(_up(pfn, pmd), _down(limit, pmd), 1)
    save(pfn, limit, 0)
    return pieces


def widen(
    pieces: Sequence[tuple[int, int, int]],
    page_sizes: Sequence[int],
    is_memory: Callable[[int, int], bool],
    low_end: int | None = None,
) -> list[tuple[int, int, int]]:
    """Larger pages where the memory around a piece allows them; then join equal neighbours.

    Parameters
    ----------
    is_memory : tells whether one region of memory covers (base, size)
    low_end : pages must not reach beyond this byte (32 bits); None: they may

    Linux: adjust_range_page_size_mask(), split_mem_range(), arch/x86/mm/init.c (6.1)

    Examples
    --------
    >>> widen([(0x23FE00000, 0x240000000, 1)], (2 << 20, 1 << 30), lambda base, size: True)
    [(9661579264, 9663676416, 3)]
    """
    out: list[tuple[int, int, int]] = []
    for start, end, given in pieces:
        mask = given
        for bit, size in enumerate(page_sizes):
            if mask & 1 << bit:
                continue
            low, high = _down(start, size), _up(end, size)
            if low_end is not None and high > low_end:
                continue
            if is_memory(low, high - low):
                mask |= 1 << bit
        if out and out[-1][1] == start and out[-1][2] == mask:
            out[-1] = (out[-1][0], end, mask)
        else:
            out.append((start, end, mask))
    return out


def map_pieces(start: int, end: int, sizes: tuple[int, ...]) -> list[MapPiece]:
    """Leaves for memory that is one range: the first MiB apart, then each part of one size.

    Examples
    --------
    >>> [(hex(p.end), p.size) for p in map_pieces(0, 0x40200000, (4096, 2 << 20, 1 << 30))]
    [('0x100000', 4096), ('0x200000', 4096), ('0x40200000', 2097152)]
    """
    large = sizes[1:3]
    pieces = []
    for low, high in ((start, min(_ISA_END, end)), (max(start, _ISA_END), end)):
        if low < high:
            # as memblock has it: the first MiB is no part of the region behind it
            region = partial(_within, low, high)
            cut = split_mem_range(low, high, large, wide=sizes[-1] == _GIB)
            for first, behind, mask in widen(cut, large, region):
                usable = [size for bit, size in enumerate(large) if mask & 1 << bit]
                pieces.append(MapPiece(first, behind, max(usable, default=_PAGE)))
    return pieces


def _within(low: int, high: int, at: int, size: int) -> bool:
    return low <= at and at + size <= high


class InitMemMapping:
    """The state of init_mem_mapping(); `run` does all of it.

    Parameters
    ----------
    setup : its memblock holds the memory, its limits are known
    pgt_buf : brk pages set aside for tables, bytes [start, end)
    """

    def __init__(self, setup: Setup, pgt_buf: tuple[int, int]) -> None:
        self.setup = setup
        self.arch = setup.arch
        self.wide = setup.arch.bits_per_long == 64
        self.memblock = setup.boot
        self.made: DirectMap = setup.direct_map
        self.tree = TableTree(setup.arch.levels, self._take, self.made, replaces=not self.wide)
        self.pgt_buf_end, self.pgt_buf_top = pgt_buf
        self.can_use_brk_pgt = True
        self.min_mapped = 0
        self.max_mapped = 0
        self.pmd_size = 1 << setup.arch.huge_shift
        self.page_sizes = self._page_sizes()

    def _page_sizes(self) -> tuple[int, ...]:
        """Linux: probe_page_size_mask(), arch/x86/mm/init.c (6.1)"""
        hardware, cmdline = self.setup.hardware, self.setup.cmdline
        if not hardware.pse or cmdline.debug_pagealloc or (cmdline.mem_nopentium and not self.wide):
            return ()
        if self.wide and hardware.huge_1g and not cmdline.nogbpages:
            self.setup.log.append("Using GB pages for direct mapping")
            return (self.pmd_size, _GIB)
        return (self.pmd_size,)

    def run(self) -> None:
        """Map [0, 1 MiB), then all memory, from the top down or from the kernel upwards."""
        limits = self.setup.limits
        end = (limits.max_pfn if self.wide else limits.max_low_pfn) << 12
        if not self.wide:
            # the entry code left tables of small pages behind
            adopt_entry_tables(self.setup, self.tree, self.setup.image.end)
        self._init_memory_mapping(0, _ISA_END)
        if self.memblock.bottom_up:
            kernel_end = self.setup.image.end + self.setup.image.brk_bytes
            self._bottom_up(kernel_end, end)
            self._bottom_up(_ISA_END, kernel_end)
        else:
            self._top_down(_ISA_END, end)

    def _top_down(self, map_start: int, map_end: int) -> None:
        """Linux: memory_map_top_down(), arch/x86/mm/init.c (6.1)"""
        pmd = self.pmd_size
        found = self.memblock.phys_alloc_range(
            pmd, pmd, map_start, map_end, caller="init_mem_mapping"
        )
        if found:
            self.memblock.phys_free(found, pmd, caller="init_mem_mapping")
            real_end = found + pmd
        else:
            self.setup.log.append("Failed to release memory for alloc_low_pages()")
            real_end = max(map_start, _down(map_end, pmd))
        # small at first: the tables for it must fit into the brk buffer
        step = pmd
        mapped = 0
        self.max_mapped = 0
        self.min_mapped = last = real_end
        while last > map_start:
            start = max(_down(last - 1, step), map_start) if last > step else map_start
            mapped += self._init_range(start, last)
            self.min_mapped = last = start
            if mapped >= step:
                step <<= self._step_shift()
        if real_end < map_end:
            self._init_range(real_end, map_end)

    def _bottom_up(self, map_start: int, map_end: int) -> None:
        """Linux: memory_map_bottom_up(), arch/x86/mm/init.c (6.1)"""
        step = self.pmd_size
        mapped = 0
        start = self.min_mapped = map_start
        while start < map_end:
            behind = min(_up(start + 1, step), map_end) if map_end - start > step else map_end
            mapped += self._init_range(start, behind)
            start = behind
            if mapped >= step:
                step <<= self._step_shift()

    def _step_shift(self) -> int:
        """Linux: get_new_step_size(): the tables for the next step fit into what is mapped."""
        return self.arch.huge_shift - self.arch.page_shift - 1

    def _init_range(self, start: int, end: int) -> int:
        """Map the memory within a range; its bytes.

        Linux: init_range_memory_mapping(), arch/x86/mm/init.c (6.1)
        """
        mapped = 0
        # mapping may reserve memory, but adds none
        for first, behind, _ in self.memblock.mem_pfn_ranges():
            low, high = max(first << 12, start), min(behind << 12, end)
            if low >= high:
                continue
            # tables in the buffer cannot be reached while the buffer itself is being mapped
            self.can_use_brk_pgt = max(low, self.pgt_buf_end) >= min(high, self.pgt_buf_top)
            self._init_memory_mapping(low, high)
            mapped += high - low
        return mapped

    def _init_memory_mapping(self, start: int, end: int) -> None:
        """Linux: init_memory_mapping(), arch/x86/mm/init.c (6.1)"""
        offset = self.arch.layout.page_offset
        if self.page_sizes:
            pieces = widen(
                split_mem_range(start, end, self.page_sizes, wide=self.wide),
                self.page_sizes,
                self.memblock.is_region_memory,
                None if self.wide else self.setup.limits.max_low_pfn << 12,
            )
        else:
            pieces = [(start & -_PAGE, end & -_PAGE, 0)]
        for low, high, mask in pieces:
            sizes = {size for bit, size in enumerate(self.page_sizes) if mask & 1 << bit}
            size = max(sizes, default=_PAGE)
            for start_of, end_of, prot in self._by_prot(low, high, size):
                self.tree.map(start_of + offset, end_of + offset, sizes, Target(start_of, prot))
            self.made.add_piece(MapPiece(low, high, size))
            self.max_mapped = max(self.max_mapped, _up(high, size))

    def _by_prot(self, low: int, high: int, size: int) -> list[tuple[int, int, str]]:
        """Parts of a range by protection: the 32-bit kernel runs in its direct map."""
        if self.wide:
            return [(low, high, "PAGE_KERNEL")]
        image = self.setup.image
        init_end = image.end - (image.bss_kib << 10)
        return exec_parts((low, high), (image.start, init_end), size)

    def _take(self, level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
        """Page after page, as alloc_low_page() is called.

        Linux: alloc_low_pages(), arch/x86/mm/init.c (6.1)
        """
        return [self._alloc_low_page(level, va) for _ in range(count)]

    def _alloc_low_page(self, level: str, va: int) -> tuple[int, int, int, str]:
        if self.can_use_brk_pgt and self.pgt_buf_end + _PAGE <= self.pgt_buf_top:
            self.pgt_buf_end += _PAGE
            return self.pgt_buf_end - _PAGE, 1, 0, "brk"
        found = 0
        if self.min_mapped < self.max_mapped:
            found = self.memblock.phys_alloc_range(
                _PAGE, _PAGE, self.min_mapped, self.max_mapped, caller="alloc_low_pages"
            )
        if not found:
            raise BootAllocError(
                f"alloc_low_pages: can not alloc memory for a {level} table of {va:#x} "
                "(the kernel panics); give the machine more memory or a larger first range"
            )
        return found, 1, 0, "memblock"


def exec_parts(
    span: tuple[int, int], text: tuple[int, int], size: int
) -> list[tuple[int, int, str]]:
    """Parts of a range by protection: leaves of `size` that touch the text can be executed.

    Linux: __is_kernel_text(), kernel_physical_mapping_init(), arch/x86/mm/init_32.c (6.1)

    Examples
    --------
    >>> exec_parts((0, 0x1000000), (0x500000, 0x600000), 0x400000)
    [(0, 4194304, 'PAGE_KERNEL'), (4194304, 8388608, 'PAGE_KERNEL_EXEC'), \
(8388608, 16777216, 'PAGE_KERNEL')]
    """
    low, high = span
    first = min(max(_down(text[0], size), low), high)
    behind = min(max(_up(text[1], size), first), high)
    parts = [(low, first, "PAGE_KERNEL"), (first, behind, "PAGE_KERNEL_EXEC")]
    parts.append((behind, high, "PAGE_KERNEL"))
    return [part for part in parts if part[0] < part[1]]


def adopt_entry_tables(setup: Setup, tree: TableTree, first: int) -> None:
    """The entry code of x86-32 has mapped the start of memory: its tables are there already.

    Parameters
    ----------
    first : where its tables of pages begin, one behind the other

    Linux: mk_early_pgtbl_32(), arch/x86/kernel/head32.c (6.1); startup_32,
    arch/x86/kernel/head_32.S (2.6.24)
    """
    offset = setup.arch.layout.page_offset
    number = 0
    at = -(-first // _PAGE) * _PAGE

    def take(level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
        nonlocal at, number
        if level == "pte":
            at += count * _PAGE
            return [(at - count * _PAGE, count, _PAGE, "image")]
        del va
        number += 1
        return [(image_table(setup.image, number), 1, 0, "image")]

    end = offset + setup.scratch["initial_mapped"]
    tree.adopt(offset, end, take, Target(0, "PAGE_KERNEL_EXEC"))


def map_image(setup: Setup, mapped: tuple[int, int], fixmap: range) -> None:
    """The kernel's image above the direct map, in tables that are part of it (64 bits).

    Parameters
    ----------
    mapped : physical bytes that the image's addresses show, in pages of 2 MiB
    fixmap : entries of the last pmd table that have a table for the fixmap

    Linux: level3_kernel_pgt, level2_kernel_pgt, level2_fixmap_pgt, arch/x86/kernel/head_64.S;
    cleanup_highmap(), arch/x86/mm/init_64.c (2.6.24, 6.1)
    """
    made, image = setup.direct_map, setup.image
    base = setup.arch.layout.image_base
    fixmap_base = base + (1 << 30)
    number = 0

    def fixed(level: str, va: int) -> None:
        nonlocal number
        number += 1
        made.add_fixed(TablePages(level, va, image_table(image, number), 1, 0, "image"))

    if any(level.name == "p4d" and not level.folded for level in setup.arch.levels):
        fixed("p4d", -(1 << 48) % (1 << 64))
    fixed("pud", -(1 << 39) % (1 << 64))
    fixed("pmd", base)
    fixed("pmd", fixmap_base)
    for slot in fixmap:
        fixed("pte", fixmap_base + (slot << 21))
    start, end = _down(mapped[0], 2 << 20), _up(mapped[1], 2 << 20)
    made.add_leaves(Leaves("pmd", base + start, base + end, start, 2 << 20, "PAGE_KERNEL_EXEC"))


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _down(value: int, step: int) -> int:
    return value // step * step
