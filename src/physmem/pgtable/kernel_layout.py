# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel of each format has its direct map, vmalloc area, memory map and image.

Linux: Documentation/x86/x86_64/mm.rst, Documentation/arm64/memory.rst,
Documentation/riscv/vm-layout.rst (6.1)
"""

from dataclasses import dataclass

from physmem.pgtable.format import U64, Format

_GIB = 1 << 30
_TIB = 1 << 40


@dataclass(frozen=True, kw_only=True)
class KernelLayout:
    """Virtual addresses in bytes; ranges half open.

    Attributes
    ----------
    page_offset, direct_bytes : start of the direct map, and how much memory it can hold
    vmalloc_start, vmalloc_end : the vmalloc area
    vmemmap : start of the virtual memory map; 0: there is none
    image : where physical address 0 (plus the load offset) of the kernel image appears
    """

    page_offset: int
    direct_bytes: int
    vmalloc_start: int
    vmalloc_end: int
    vmemmap: int
    image: int


_X86_IMAGE = 0xFFFFFFFF80000000
_KNOWN: dict[str, tuple[int, ...]] = {
    "x86_32": (0xC0000000, 896 << 20, 0xF8800000, 0xFF7FE000, 0, 0xC0000000),
    "x86_32_pae": (0xC0000000, 896 << 20, 0xF8800000, 0xFF9FE000, 0, 0xC0000000),
    "x86_64": (
        *(0xFFFF888000000000, 64 * _TIB, 0xFFFFC90000000000, 0xFFFFE90000000000),
        *(0xFFFFEA0000000000, _X86_IMAGE),
    ),
    "x86_64_la57": (
        *(0xFF11000000000000, 32 << 50, 0xFFA0000000000000, 0xFFD2000000000000),
        *(0xFFD4000000000000, _X86_IMAGE),
    ),
    "riscv64_sv39": (
        *(0xFFFFFFD800000000, 124 * _GIB, 0xFFFFFFC800000000, 0xFFFFFFD800000000),
        *(0xFFFFFFC700000000, _X86_IMAGE),
    ),
    "riscv64_sv48": (
        *(0xFFFFAF8000000000, 64 * _TIB, 0xFFFF8F8000000000, 0xFFFFAF8000000000),
        *(0xFFFF8D8000000000, _X86_IMAGE),
    ),
    "riscv64_sv57": (
        *(0xFF60000000000000, 32 << 50, 0xFF20000000000000, 0xFF60000000000000),
        *(0xFF1C000000000000, _X86_IMAGE),
    ),
}


def kernel_layout(fmt: Format) -> KernelLayout:
    """Layout of Linux 6.1, without randomisation.

    Examples
    --------
    >>> from physmem.pgtable.formats import page_table_format
    >>> hex(kernel_layout(page_table_format("arm64_4k_48")).vmalloc_end)
    '0xfffffbfff0000000'
    """
    known = _KNOWN[fmt.name] if fmt.name in _KNOWN else _arm64(fmt)
    names = ("page_offset", "direct_bytes", "vmalloc_start", "vmalloc_end", "vmemmap", "image")
    return KernelLayout(**dict(zip(names, known, strict=True)))


def _arm64(fmt: Format) -> tuple[int, ...]:
    va_min = min(fmt.va_bits, 48)  # a kernel for 52 bits runs on hardware with 48 too
    page_offset = -(1 << fmt.va_bits) & U64
    page_end = -(1 << (va_min - 1)) & U64
    image = page_end + (128 << 20)  # behind the modules
    vmemmap = -(1 << (fmt.va_bits - (fmt.page_shift - 6))) & U64
    vmalloc_end = vmemmap - (256 << 20)
    return page_offset, page_end - page_offset, image, vmalloc_end, vmemmap, image
