# SPDX-License-Identifier: GPL-2.0-or-later
"""Where each architecture's zones end. Movable and Device have no limit of their own.

All results are frame numbers, by zone name, ascending.
"""

from physmem.arch.descriptor import Limits

MAX_DMA_PFN = 1 << 12
MAX_DMA32_PFN = 1 << 20
_FOUR_GIB = 1 << 32


def x86_32_bootmem(limits: Limits) -> dict[str, int]:
    """Linux: zone_sizes_init(), arch/x86/kernel/setup_32.c (2.6.24)

    Examples
    --------
    >>> x86_32_bootmem(Limits(max_low_pfn=229376, max_pfn=262128, highend_pfn=262128))
    {'DMA': 4096, 'Normal': 229376, 'HighMem': 262128}
    """
    return {
        "DMA": MAX_DMA_PFN,
        "Normal": limits.max_low_pfn,
        "HighMem": limits.highend_pfn,
    }


def x86_64_bootmem(limits: Limits) -> dict[str, int]:
    """Linux: paging_init(), arch/x86/mm/init_64.c (2.6.24)

    Examples
    --------
    >>> x86_64_bootmem(Limits(max_low_pfn=262128, max_pfn=262128))
    {'DMA': 4096, 'DMA32': 1048576, 'Normal': 262128}
    """
    return {"DMA": MAX_DMA_PFN, "DMA32": MAX_DMA32_PFN, "Normal": limits.max_pfn}


def x86_64(limits: Limits) -> dict[str, int]:
    """Linux: zone_sizes_init(), arch/x86/mm/init.c (6.1)

    Examples
    --------
    >>> x86_64(Limits(max_low_pfn=262128, max_pfn=262128))
    {'DMA': 4096, 'DMA32': 262128, 'Normal': 262128}
    """
    low = limits.max_low_pfn
    return {"DMA": min(MAX_DMA_PFN, low), "DMA32": min(MAX_DMA32_PFN, low), "Normal": low}


def x86_32(limits: Limits) -> dict[str, int]:
    """Linux: zone_sizes_init(), arch/x86/mm/init.c (6.1)

    Examples
    --------
    >>> x86_32(Limits(max_low_pfn=0x36BFE, max_pfn=0x4AFDA))
    {'DMA': 4096, 'Normal': 224254, 'HighMem': 307162}
    """
    low = limits.max_low_pfn
    return {"DMA": min(MAX_DMA_PFN, low), "Normal": low, "HighMem": limits.max_pfn}


def max_zone_phys(bits: int, dram_start: int, dram_end: int) -> int:
    """Physical byte behind the memory that devices with so many address bits reach.

    Linux: max_zone_phys(), arch/arm64/mm/init.c (6.1)

    Examples
    --------
    >>> hex(max_zone_phys(30, 0, 1 << 33)), hex(max_zone_phys(30, 1 << 30, 1 << 33))
    ('0x40000000', '0x100000000')
    >>> hex(max_zone_phys(32, 1 << 33, 1 << 34))
    '0x400000000'
    """
    mask = (1 << bits) - 1
    if dram_start > _FOUR_GIB - 1:
        mask = (1 << 64) - 1
    elif dram_start > mask:
        mask = _FOUR_GIB - 1
    return min(mask, dram_end - 1) + 1


def arm64(limits: Limits, page_shift: int = 12) -> dict[str, int]:
    """Linux: zone_sizes_init(), arch/arm64/mm/init.c (6.1)

    Examples
    --------
    >>> start, end = 1 << 30, 9 << 30
    >>> arm64(Limits(max_low_pfn=end >> 12, max_pfn=end >> 12, dram_start=start, dram_end=end))
    {'DMA': 1048576, 'DMA32': 1048576, 'Normal': 2359296}
    """
    dma, dma32 = (
        max_zone_phys(bits, limits.dram_start, limits.dram_end) >> page_shift
        for bits in (min(32, limits.dma_bits), 32)
    )
    return {"DMA": dma, "DMA32": dma32, "Normal": limits.max_pfn}


def riscv(limits: Limits) -> dict[str, int]:
    """Linux: zone_sizes_init(), arch/riscv/mm/init.c (6.1)

    Examples
    --------
    >>> riscv(Limits(max_low_pfn=0xA0000, max_pfn=0xA0000))
    {'DMA32': 655360, 'Normal': 655360}
    """
    low = limits.max_low_pfn
    return {"DMA32": min(MAX_DMA32_PFN, low), "Normal": low}
