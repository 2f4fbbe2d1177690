# SPDX-License-Identifier: GPL-2.0-or-later
"""arm64 as data: a function of page size and width of virtual addresses.

Linux: arch/arm64/include/asm/pgtable-hwdef.h, memory.h (6.1); arch/arm64/Kconfig (6.1)
"""

from functools import partial
from types import MappingProxyType

from physmem.arch import zone_limits
from physmem.arch.descriptor import Arch, Generation, Level, VirtualLayout
from physmem.firmware.platform import PLATFORMS

_MIB = 1 << 20
_TOP = 1 << 64
_LOG2_SIZEOF_PAGE = 6
_MAX_ORDER = {12: 11, 14: 12, 16: 14}
_PTE_GROUP = {12: 16, 14: 128, 16: 32}
_PMD_GROUP = {12: 16, 14: 32, 16: 32}

_PROT = MappingProxyType(
    {
        "PAGE_KERNEL": 0x00E8000000000703,
        "PAGE_KERNEL_RO": 0x00E0000000000783,
        "PAGE_KERNEL_EXEC": 0x00C8000000000703,
        "PAGE_KERNEL_ROX": 0x00C0000000000783,
        "PAGE_SHARED": 0x0068000000000FC3,
        "PAGE_READONLY": 0x0060000000000FC3,
        "PAGE_READONLY_EXEC": 0x0020000000000FC3,
    }
)


def levels(page_shift: int, va_bits: int) -> tuple[Level, ...]:
    """Page-table levels, top first; with fewer than four the middle ones are folded.

    Linux: ARM64_HW_PGTABLE_LEVELS(), arch/arm64/include/asm/pgtable-hwdef.h (6.1)

    Examples
    --------
    >>> [(level.name, level.shift, level.bits) for level in levels(16, 48) if not level.folded]
    [('pgd', 42, 6), ('pmd', 29, 13), ('pte', 16, 13)]
    """
    bits = page_shift - 3
    number = (va_bits - 4) // bits
    # the hardware counts the level of pages as 3
    shifts = [bits * (4 - level) + 3 for level in range(4 - number, 4)]
    names = {2: ("pgd", "pte"), 3: ("pgd", "pmd", "pte"), 4: ("pgd", "pud", "pmd", "pte")}[number]
    real = dict(zip(names, shifts, strict=True))
    out = []
    last = shifts[0]
    for name in ("pgd", "p4d", "pud", "pmd", "pte"):
        shift = real.get(name, last)
        width = 0 if name not in real else va_bits - shift if name == "pgd" else bits
        # a 1 GiB block needs 4 KiB pages; Linux maps none of the others' topmost levels
        leaf = name in {"pmd", "pte"} or (name == "pud" and page_shift == 12)
        group = {"pte": _PTE_GROUP, "pmd": _PMD_GROUP}.get(name, {}).get(page_shift, 1)
        out.append(Level(name, shift, width, leaf=leaf, group=group))
        last = shift
    return tuple(out)


def layout(page_shift: int, va_bits: int) -> VirtualLayout:
    """Kernel virtual memory without KASAN.

    Linux: arch/arm64/include/asm/memory.h (6.1)

    Examples
    --------
    >>> kernel = layout(12, 48)
    >>> hex(kernel.page_offset), hex(kernel.image_base), hex(kernel.vmemmap_start)
    ('0xffff000000000000', '0xffff800008000000', '0xfffffc0000000000')
    """
    page_offset = _TOP - (1 << va_bits)
    page_end = _TOP - (1 << min(va_bits, 48) - 1)
    shift = page_shift - _LOG2_SIZEOF_PAGE
    vmemmap = _TOP - (1 << va_bits - shift)
    modules_end = page_end + 128 * _MIB
    return VirtualLayout(
        page_offset=page_offset,
        direct_map_bytes=page_end - page_offset,
        vmalloc_start=modules_end,
        vmalloc_end=vmemmap - 256 * _MIB,
        vmemmap_start=vmemmap,
        vmemmap_bytes=page_end - page_offset >> shift,
        image_base=modules_end,
        modules_start=page_end,
        modules_end=modules_end,
        fixaddr_top=vmemmap - 32 * _MIB,
        regions=MappingProxyType({"PCI I/O": (vmemmap - 24 * _MIB, vmemmap - 8 * _MIB)}),
    )


def make(name: str, page_shift: int = 12, va_bits: int = 48, pa_bits: int = 48) -> Arch:
    """An arm64 kernel of 6.1 with the given page size and address widths.

    Examples
    --------
    >>> kernel = make("mine", 16, 52, 52)
    >>> kernel.pageblock_order, kernel.huge_shift
    (13, 29)
    """
    lpa = "_lpa" if pa_bits > 48 and va_bits <= 48 else ""
    return Arch(
        name=name,
        generation=Generation.MEMBLOCK,
        page_shift=page_shift,
        va_bits=va_bits,
        pa_bits=pa_bits,
        two_roots=True,
        levels=levels(page_shift, va_bits),
        max_order=_MAX_ORDER[page_shift],
        sizeof_pgdat=0x2C80,
        zones=("DMA", "DMA32", "Normal", "Movable"),
        crash_align=2 << 20,
        section_size_bits=29 if page_shift == 16 else 27,
        max_physmem_bits=pa_bits,
        memory_model="vmemmap",
        max_numnodes=16,
        layout=layout(page_shift, va_bits),
        prot=_PROT,
        table_bits=3,
        # blocks come from a table of their own: no software bits
        vmemmap_prot=0x0060000000000703 if page_shift == 12 else "PAGE_KERNEL",
        page_table=f"arm64_{1 << page_shift - 10}k_{va_bits}{lpa}",
        image=PLATFORMS["arm64"].image,
        max_zone_pfns=partial(zone_limits.arm64, page_shift=page_shift),
    )


ARM64 = make("arm64")
ARM64_16K = make("arm64-16k", 14)
ARM64_64K = make("arm64-64k", 16)
