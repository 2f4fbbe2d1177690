# SPDX-License-Identifier: GPL-2.0-or-later
"""x86 as data: 32 bits with and without PAE, 64 bits with four and five levels, two generations.

What a build decides (size of struct page, nodes, kernel image) is that of Debian's kernels.

Linux: arch/x86/include/asm/ (6.1), include/asm-x86/ (2.6.24)
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from physmem.arch import zone_limits
from physmem.arch.descriptor import Arch, Generation, Level, VirtualLayout
from physmem.firmware.platform import PLATFORMS, KernelImage

_MIB = 1 << 20
_TIB = 1 << 40
_NX = 1 << 63
_PCD, _PWT = 1 << 4, 1 << 3
_DMA = 16 << 20
_NAMES_64 = ("DMA", "DMA32", "Normal", "Movable")
_NAMES_32 = ("DMA", "Normal", "HighMem", "Movable")

# -- page-table levels; p4d came with 4.11, so 2.6.24 has four names --

_PTE = Level("pte", 12, 9, leaf=True)
_PMD = Level("pmd", 21, 9, leaf=True)
_TWO_LEVELS = (
    Level("pgd", 22, 10),
    Level("p4d", 22, 0),
    Level("pud", 22, 0),
    Level("pmd", 22, 0, leaf=True),
    Level("pte", 12, 10, leaf=True),
)
_PAE = (Level("pgd", 30, 2), Level("p4d", 30, 0), Level("pud", 30, 0), _PMD, _PTE)
_FOUR_LEVELS = (
    Level("pgd", 39, 9),
    Level("p4d", 39, 0),
    Level("pud", 30, 9, leaf=True),
    _PMD,
    _PTE,
)
_FIVE_LEVELS = (
    Level("pgd", 48, 9),
    Level("p4d", 39, 9),
    Level("pud", 30, 9, leaf=True),
    _PMD,
    _PTE,
)
_FOUR_LEVELS_BOOTMEM = (Level("pgd", 39, 9), Level("pud", 30, 9), _PMD, _PTE)


def _without_p4d(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    return tuple(level for level in levels if level.name != "p4d")


# -- protections --


def _prot(nx: int, *, memblock: bool) -> Mapping[str, int]:
    """Bits of a leaf; large leaves carry PS (bit 7) on top.

    Linux: arch/x86/include/asm/pgtable_types.h (6.1), include/asm-x86/pgtable_64.h (2.6.24)
    """
    nocache = _PCD | _PWT if memblock else _PCD
    return MappingProxyType(
        {
            "PAGE_NONE": 0x120 if memblock else 0x0A0,
            "PAGE_SHARED": nx | 0x027,
            "PAGE_SHARED_EXEC": 0x027,
            "PAGE_COPY": nx | 0x025,
            "PAGE_COPY_EXEC": 0x025,
            "PAGE_READONLY": nx | 0x025,
            "PAGE_READONLY_EXEC": 0x025,
            "PAGE_KERNEL": nx | 0x163,
            "PAGE_KERNEL_EXEC": 0x163,
            "PAGE_KERNEL_RO": nx | 0x161,
            "PAGE_KERNEL_ROX": 0x161,
            "PAGE_KERNEL_NOCACHE": nx | 0x163 | nocache,
            "PAGE_KERNEL_LARGE": nx | 0x1E3,
            "PAGE_KERNEL_LARGE_EXEC": 0x1E3,
        }
    )


_TABLE_BITS = 0x063


# -- kernel virtual memory --


def _layout_32(vmalloc_end: int, pkmap_base: int, last_pkmap: int, reserve: int) -> VirtualLayout:
    return VirtualLayout(
        page_offset=0xC0000000,
        direct_map_bytes=reserve,
        vmalloc_start=0,
        vmalloc_end=vmalloc_end,
        image_base=0xC0000000,
        fixaddr_top=0xFFFFF000,
        pkmap_base=pkmap_base,
        last_pkmap=last_pkmap,
    )


_REGIONS_64 = {
    "cpu entry area": (0xFFFFFE0000000000, 0xFFFFFE8000000000),
    "espfix": (0xFFFFFF0000000000, 0xFFFFFF8000000000),
    "EFI": (0xFFFFFFEF00000000, 0xFFFFFFFF00000000),
    "vsyscall": (0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000),
}
_LAYOUT_4 = VirtualLayout(
    page_offset=0xFFFF888000000000,
    direct_map_bytes=64 * _TIB,
    vmalloc_start=0xFFFFC90000000000,
    vmalloc_end=0xFFFFE90000000000,
    vmemmap_start=0xFFFFEA0000000000,
    vmemmap_bytes=_TIB,
    image_base=0xFFFFFFFF80000000,
    modules_start=0xFFFFFFFFA0000000,
    modules_end=0xFFFFFFFFFF000000,
    fixaddr_top=0xFFFFFFFFFF7FF000,
    regions=MappingProxyType(
        {
            "hypervisor": (0xFFFF800000000000, 0xFFFF880000000000),
            "LDT remap": (0xFFFF880000000000, 0xFFFF888000000000),
            "KASAN": (0xFFFFEC0000000000, 0xFFFFFC0000000000),
            **_REGIONS_64,
        }
    ),
)
_LAYOUT_5 = VirtualLayout(
    page_offset=0xFF11000000000000,
    direct_map_bytes=32 << 50,
    vmalloc_start=0xFFA0000000000000,
    vmalloc_end=0xFFD2000000000000,
    vmemmap_start=0xFFD4000000000000,
    vmemmap_bytes=1 << 49,
    image_base=0xFFFFFFFF80000000,
    modules_start=0xFFFFFFFFA0000000,
    modules_end=0xFFFFFFFFFF000000,
    fixaddr_top=0xFFFFFFFFFF7FF000,
    regions=MappingProxyType(
        {
            "hypervisor": (0xFF00000000000000, 0xFF10000000000000),
            "LDT remap": (0xFF10000000000000, 0xFF11000000000000),
            "KASAN": (0xFFDF000000000000, 0xFFFFFC0000000000),
            **_REGIONS_64,
        }
    ),
)
_LAYOUT_BOOTMEM_64 = VirtualLayout(
    page_offset=0xFFFF810000000000,
    direct_map_bytes=1 << 46,
    vmalloc_start=0xFFFFC20000000000,
    vmalloc_end=0xFFFFE20000000000,
    vmemmap_start=0xFFFFE20000000000,
    vmemmap_bytes=_TIB,
    image_base=0xFFFFFFFF80000000,
    modules_start=0xFFFFFFFF88000000,
    modules_end=0xFFFFFFFFFFF00000,
    fixaddr_top=0xFFFFFFFFFFDFF000,
    regions=MappingProxyType({"vsyscall": (0xFFFFFFFFFF600000, 0xFFFFFFFFFFE00000)}),
)

# -- the records --

X86_64 = Arch(
    name="x86_64",
    generation=Generation.MEMBLOCK,
    va_bits=48,
    pa_bits=52,
    levels=_FOUR_LEVELS,
    # 170 KiB: the zonelists have room for 1024 nodes
    sizeof_pgdat=0x2A980,
    zones=(*_NAMES_64, "Device"),
    section_size_bits=27,
    max_physmem_bits=46,
    memory_model="vmemmap",
    max_dma_address=_DMA,
    max_numnodes=1024,
    init_pgt_buf_pages=16,
    layout=_LAYOUT_4,
    prot=_prot(_NX, memblock=True),
    table_bits=_TABLE_BITS,
    page_table="x86_64",
    image=PLATFORMS["x86_64"].image,
    max_zone_pfns=zone_limits.x86_64,
)
X86_64_LA57 = replace(
    X86_64,
    name="x86_64-la57",
    page_table="x86_64_la57",
    va_bits=57,
    levels=_FIVE_LEVELS,
    max_physmem_bits=52,
    layout=_LAYOUT_5,
)
I386 = Arch(
    name="i386",
    generation=Generation.MEMBLOCK,
    bits_per_long=32,
    va_bits=32,
    pa_bits=32,
    entry_bytes=4,
    levels=_TWO_LEVELS,
    sizeof_page=40,
    zones=_NAMES_32,
    section_size_bits=26,
    max_physmem_bits=32,
    memory_model="flatmem",
    max_dma_address=_DMA,
    crash_low_max=512 << 20,
    highmem=True,
    init_pgt_buf_pages=6,
    vmalloc_reserve=128 * _MIB,
    # LDT remap and CPU entry area of 32 CPUs lie above: 875 MiB of low memory
    layout=_layout_32(0xFEBFE000, 0xFEC00000, 1024, 0x36BFE000),
    prot=_prot(0, memblock=True),
    table_bits=_TABLE_BITS,
    page_table="x86_32",
    image=PLATFORMS["i386"].image,
    max_zone_pfns=zone_limits.x86_32,
)
I386_PAE = replace(
    I386,
    name="i386-pae",
    page_table="x86_32_pae",
    pa_bits=36,
    entry_bytes=8,
    levels=_PAE,
    section_size_bits=29,
    max_physmem_bits=36,
    layout=_layout_32(0xFEFFE000, 0xFF000000, 512, 0x36FFE000),
    prot=_prot(_NX, memblock=True),
)

X86_64_BOOTMEM = Arch(
    name="x86_64",
    generation=Generation.BOOTMEM,
    va_bits=48,
    pa_bits=46,
    levels=_FOUR_LEVELS_BOOTMEM,
    sizeof_page=56,
    sizeof_pgdat=0x5000,
    zones=_NAMES_64,
    section_size_bits=27,
    max_physmem_bits=40,
    memory_model="vmemmap",
    smp_cache_bytes=128,
    max_dma_address=_DMA,
    max_numnodes=64,
    thp=False,
    layout=_LAYOUT_BOOTMEM_64,
    prot=_prot(_NX, memblock=False),
    table_bits=_TABLE_BITS,
    page_table="x86_64",
    image=KernelImage(
        start=0x200000, end=0x5F0000, code_kib=2158, rwdata_kib=997, init_kib=316, bss_kib=560
    ),
    max_zone_pfns=zone_limits.x86_64_bootmem,
)
I386_BOOTMEM = Arch(
    name="i386",
    generation=Generation.BOOTMEM,
    bits_per_long=32,
    va_bits=32,
    pa_bits=32,
    entry_bytes=4,
    levels=_without_p4d(_TWO_LEVELS),
    sizeof_page=32,
    zones=_NAMES_32,
    section_size_bits=26,
    max_physmem_bits=32,
    memory_model="flatmem",
    smp_cache_bytes=32,
    max_dma_address=_DMA,
    thp=False,
    highmem=True,
    vmalloc_reserve=128 * _MIB,
    layout=_layout_32(0xFF7FE000, 0xFF800000, 1024, 896 * _MIB),
    prot=_prot(0, memblock=False),
    table_bits=_TABLE_BITS,
    page_table="x86_32",
    image=KernelImage(
        start=0x100000, end=0x41A000, code_kib=1846, rwdata_kib=785, init_kib=244, bss_kib=300
    ),
    max_zone_pfns=zone_limits.x86_32_bootmem,
)
I386_PAE_BOOTMEM = replace(
    I386_BOOTMEM,
    name="i386-pae",
    page_table="x86_32_pae",
    pa_bits=36,
    entry_bytes=8,
    levels=_without_p4d(_PAE),
    section_size_bits=30,
    max_physmem_bits=36,
    layout=_layout_32(0xFF9FE000, 0xFFA00000, 512, 896 * _MIB),
    prot=_prot(_NX, memblock=False),
)
