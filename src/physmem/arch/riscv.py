# SPDX-License-Identifier: GPL-2.0-or-later
"""riscv64 as data: three to five levels of page tables.

Linux: arch/riscv/include/asm/pgtable.h, pgtable-64.h (6.1)
"""

from types import MappingProxyType

from physmem.arch import zone_limits
from physmem.arch.descriptor import Arch, Generation, Level, VirtualLayout
from physmem.firmware.platform import PLATFORMS

_MIB = 1 << 20
_GIB = 1 << 30
_TIB = 1 << 40
_PROT = MappingProxyType(
    {
        # not valid (bit 0), but present: bit 5
        "PAGE_NONE": 0x022,
        "PAGE_READ": 0x053,
        "PAGE_SHARED": 0x057,
        "PAGE_KERNEL": 0x0E7,
        "PAGE_KERNEL_EXEC": 0x0EF,
    }
)

_PTE = Level("pte", 12, 9, leaf=True)
_PMD = Level("pmd", 21, 9, leaf=True)
_PUD = Level("pud", 30, 9, leaf=True)
_LEVELS = {
    39: (
        Level("pgd", 30, 9, leaf=True),
        Level("p4d", 30, 0, leaf=True),
        Level("pud", 30, 0, leaf=True),
        _PMD,
        _PTE,
    ),
    48: (Level("pgd", 39, 9, leaf=True), Level("p4d", 39, 0, leaf=True), _PUD, _PMD, _PTE),
    57: (Level("pgd", 48, 9, leaf=True), Level("p4d", 39, 9, leaf=True), _PUD, _PMD, _PTE),
}
_START = {
    # direct map and its size, vmalloc area
    39: (0xFFFFFFD800000000, 124 * _GIB, 0xFFFFFFC800000000),
    48: (0xFFFFAF8000000000, 64 * _TIB, 0xFFFF8F8000000000),
    57: (0xFF60000000000000, 32 << 50, 0xFF20000000000000),
}


def _layout(va_bits: int) -> VirtualLayout:
    """From the top: direct map, vmalloc area, vmemmap, I/O space, fixmap."""
    page_offset, size, vmalloc = _START[va_bits]
    vmemmap_bytes = 1 << va_bits - 12 - 1 + 6
    vmemmap = vmalloc - vmemmap_bytes
    pci = vmemmap - 16 * _MIB
    return VirtualLayout(
        page_offset=page_offset,
        direct_map_bytes=size,
        vmalloc_start=vmalloc,
        vmalloc_end=page_offset,
        vmemmap_start=vmemmap,
        vmemmap_bytes=vmemmap_bytes,
        image_base=0xFFFFFFFF80000000,
        fixaddr_top=pci,
        regions=MappingProxyType({"PCI I/O": (pci, vmemmap)}),
    )


def _make(name: str, va_bits: int) -> Arch:
    return Arch(
        name=name,
        generation=Generation.MEMBLOCK,
        va_bits=va_bits,
        pa_bits=56,
        levels=_LEVELS[va_bits],
        sizeof_pgdat=0x2C80,
        zones=("DMA32", "Normal", "Movable"),
        crash_align=2 << 20,
        section_size_bits=27,
        max_physmem_bits=56,
        memory_model="vmemmap",
        max_numnodes=4,
        layout=_layout(va_bits),
        prot=_PROT,
        table_bits=1,
        page_table=f"riscv64_sv{va_bits}",
        image=PLATFORMS["riscv64"].image,
        max_zone_pfns=zone_limits.riscv,
    )


RISCV64 = _make("riscv64", 48)
RISCV64_SV39 = _make("riscv64-sv39", 39)
RISCV64_SV57 = _make("riscv64-sv57", 57)
