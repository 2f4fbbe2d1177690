# SPDX-License-Identifier: GPL-2.0-or-later
"""What an architecture must say about itself: an immutable record, and the steps that differ.

Everything generic is computed from the record; nothing outside `physmem.arch` asks for a name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from physmem.firmware.platform import KernelImage

if TYPE_CHECKING:
    from physmem.arch.direct_map import MapPiece
    from physmem.arch.setup import Setup


MapPieces = Callable[[int, int, tuple[int, ...]], "list[MapPiece]"]


class Generation(Enum):
    """Which boot allocator the kernel has, and with it the form of its start-up."""

    BOOTMEM = "bootmem"
    MEMBLOCK = "memblock"


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the page tables.

    Attributes
    ----------
    name : generic name: pgd, p4d, pud, pmd, pte
    shift : log2 of the bytes that one entry maps
    bits : log2 of the entries of a table; 0 for a folded level, whose only entry is its parent's
    leaf : an entry may map memory; else it only points to a table
    group : entries that may be joined by a "contiguous" hint; 1: the hardware has none here
    """

    name: str
    shift: int
    bits: int
    leaf: bool = False
    group: int = 1

    @property
    def folded(self) -> bool:
        """The hardware has no such level.

        Examples
        --------
        >>> Level("pud", 39, 0).folded
        True
        """
        return self.bits == 0

    @property
    def size(self) -> int:
        """Bytes that one entry maps."""
        return 1 << self.shift

    def index(self, va: int) -> int:
        """Index into the table for a virtual address.

        Examples
        --------
        >>> Level("pmd", 21, 9).index(0xFFFF888012345678)
        145
        """
        return va >> self.shift & (1 << self.bits) - 1


@dataclass(frozen=True, kw_only=True)
class VirtualLayout:
    """The kernel's address space: virtual bytes, ranges half open.

    Attributes
    ----------
    page_offset : where the direct map of physical memory starts
    direct_map_bytes : how much of it there can be
    vmalloc_start, vmalloc_end : the vmalloc area; x86-32: the start depends on the low memory, 0
    vmemmap_start, vmemmap_bytes : the virtual memory map; 0: there is none
    image_base : what the kernel is linked to run at, `__START_KERNEL_map`
    modules_start, modules_end : where modules are loaded; 0: in the vmalloc area
    fixaddr_top : the fixmap grows downwards from here
    pkmap_base, last_pkmap : persistent mappings of high memory and their number; 0: no high memory
    regions : other ranges by name: (start, end)
    """

    page_offset: int
    direct_map_bytes: int
    vmalloc_start: int
    vmalloc_end: int
    vmemmap_start: int = 0
    vmemmap_bytes: int = 0
    image_base: int
    modules_start: int = 0
    modules_end: int = 0
    fixaddr_top: int
    pkmap_base: int = 0
    last_pkmap: int = 0
    regions: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))

    def fixmap(self, slot: int, page_shift: int = 12) -> int:
        """Virtual address of a fixmap slot."""
        return self.fixaddr_top - (slot << page_shift)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where memory and its low part start and end.

    Attributes
    ----------
    min_low_pfn, max_low_pfn, max_pfn : as in the kernel
    highstart_pfn, highend_pfn : high memory; equal: there is none
    dram_start, dram_end : physical bytes, first and behind the last of memory
    dma_bits : width of the address that every device reaches (arm64)

    Examples
    --------
    >>> Limits(max_low_pfn=4, max_pfn=4).nr_high
    0
    """

    min_low_pfn: int = 0
    max_low_pfn: int
    max_pfn: int
    highstart_pfn: int = 0
    highend_pfn: int = 0
    dram_start: int = 0
    dram_end: int = 0
    dma_bits: int = 32

    @property
    def nr_high(self) -> int:
        """Pages of high memory, holes included."""
        return self.highend_pfn - self.highstart_pfn


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of setup_arch(): its name in the kernel, a sentence for people, what it does."""

    name: str
    text: str
    run: "Callable[[Setup], None]"


@dataclass(frozen=True, kw_only=True)
class Arch:
    """An architecture in one paging mode, as one generation of kernels sees it.

    Attributes
    ----------
    name : for example "x86_64"; `generation` : boot allocator
    bits_per_long, page_shift, va_bits, pa_bits, entry_bytes : as named
    two_roots : user and kernel have tables of their own, each for all of `va_bits` (arm64)
    levels : page-table levels, top first; folded ones included
    max_order : number of buddy orders (the largest order plus one)
    sizeof_page : bytes of struct page
    sizeof_pgdat : bytes of a node's descriptor, pg_data_t; 0: it lies in the image
    zones : zone names in index order
    section_size_bits, max_physmem_bits : of the sparse memory model
    memory_model : "flatmem", "sparsemem" or "vmemmap"
    smp_cache_bytes : default alignment of the boot allocator
    max_dma_address : physical goal or minimum of ordinary boot allocations; 0: no restriction
    max_numnodes : nodes that the kernel is built for; 1: no NUMA
    crash_align, crash_low_max : alignment and end of the memory for a crash kernel, in bytes
    thp : the kernel has transparent huge pages
    highmem : part of the memory may be outside the direct map
    bootmem_goal_low : limit of `alloc_low`, physical bytes
    init_pgt_buf_pages : page tables set aside behind the kernel image (x86, 6.1)
    vmalloc_reserve : bytes kept for vmalloc when low memory is sized (x86-32)
    layout : kernel virtual memory
    prot : protections as entry bits; `table_bits` : bits of an entry that points to a table
    page_table : name of the page-table format, one of `physmem.page_table_formats()`
    vmemmap_prot : protection of the virtual memory map
    image : a typical kernel
    max_zone_pfns : end pfn of each zone but Movable and Device, from `Limits`
    stages : setup_arch() step by step
    map_pieces : of (start, end, leaf sizes, smallest first): the leaves that the kernel chooses for
        one range of memory
    """

    name: str
    generation: Generation
    bits_per_long: int = 64
    page_shift: int = 12
    va_bits: int
    pa_bits: int
    entry_bytes: int = 8
    two_roots: bool = False
    levels: tuple[Level, ...]
    max_order: int = 11
    sizeof_page: int = 64
    sizeof_pgdat: int = 0
    zones: tuple[str, ...]
    section_size_bits: int
    max_physmem_bits: int
    memory_model: str
    smp_cache_bytes: int = 64
    max_dma_address: int = 0
    max_numnodes: int = 1
    crash_align: int = 16 << 20
    crash_low_max: int = 1 << 32
    thp: bool = True
    highmem: bool = False
    bootmem_goal_low: int = 0xFFFFFFFF
    init_pgt_buf_pages: int = 0
    vmalloc_reserve: int = 0
    layout: VirtualLayout
    prot: Mapping[str, int]
    table_bits: int
    page_table: str
    vmemmap_prot: str | int = "PAGE_KERNEL"
    image: KernelImage
    max_zone_pfns: Callable[[Limits], dict[str, int]]
    stages: "tuple[Stage, ...]" = ()
    map_pieces: "MapPieces | None" = None

    @property
    def phys_addr_bits(self) -> int:
        """Bits of the kernel's type for physical addresses: as many as logs print digits for."""
        return 32 if self.pa_bits <= 32 else 64

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return 1 << self.page_shift

    @property
    def huge_shift(self) -> int:
        """log2 of the bytes of a huge page (HPAGE_SHIFT): what an entry above pte maps."""
        return next(level.shift for level in self.levels[-2::-1] if not level.folded)

    @property
    def pageblock_order(self) -> int:
        """Order of a pageblock in a kernel with huge pages, as distributions build it.

        Linux: include/linux/pageblock-flags.h (6.1)
        """
        return min(self.huge_shift - self.page_shift, self.max_order - 1)

    @property
    def pageblock_order_without_hugetlb(self) -> int:
        """The same in a kernel built without huge pages: the largest block."""
        return self.max_order - 1

    @property
    def max_order_pages(self) -> int:
        """Pages of the largest free block."""
        return 1 << self.max_order - 1

    @property
    def dram_pfn_limit(self) -> int:
        """First frame number that the kernel cannot use (MAX_ARCH_PFN)."""
        return 1 << self.max_physmem_bits - self.page_shift

    def level(self, name: str) -> Level:
        """A level of the page tables by its generic name.

        Raises
        ------
        KeyError
            This kernel has no level of that name.
        """
        for level in self.levels:
            if level.name == name:
                return level
        raise KeyError(name)

    def leaf_sizes(self) -> tuple[int, ...]:
        """Bytes that one leaf may map, smallest first."""
        return tuple(sorted(level.size for level in self.levels if level.leaf))

    def table_bytes(self, level: Level) -> int:
        """Bytes of a table of that level."""
        return self.entry_bytes << level.bits

    def indices(self, va: int) -> tuple[int, ...]:
        """Index of a virtual address into the tables that the hardware has, top first."""
        return tuple(level.index(va) for level in self.levels if not level.folded)

    def canonical(self, va: int) -> bool:
        """The virtual address is one that the hardware translates (its top bits are all alike)."""
        if self.bits_per_long == 32:
            return 0 <= va < 1 << 32
        bits = self.va_bits if self.two_roots else self.va_bits - 1
        return va >> bits in {0, (1 << 64 - bits) - 1}
