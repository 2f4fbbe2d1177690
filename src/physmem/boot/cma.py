# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the area for contiguous memory (CMA) comes to lie.

Linux: dma_contiguous_reserve(), kernel/dma/contiguous.c; cma_declare_contiguous_nid(),
mm/cma.c (6.1)
"""

from physmem.boot.boot import Boot
from physmem.boot.zone_setup import memory_limits

_FOUR_GIB = 4 << 30


def cma_alignment(boot: Boot) -> int:
    """Bytes that an area begins and ends at multiples of: a pageblock."""
    return boot.geometry.pageblock_pages * boot.geometry.page_size


def default_reach(boot: Boot) -> int:
    """Physical byte behind what the default area may take: what every device reaches, on a PC all.

    Linux: bootmem_init(), arch/arm64/mm/init.c; setup_arch(), arch/x86/kernel/setup.c (6.1)
    """
    limits = boot.limits or memory_limits(boot)
    if boot.hardware.e820:
        return limits.max_pfn << boot.geometry.page_shift
    return boot.arch.max_zone_pfns(limits)[boot.arch.zones[0]] << boot.geometry.page_shift


def place_cma(boot: Boot, size: int) -> int:
    """Take `size` bytes for the default area, where the kernel would; 0: there is no room.

    Memory above 4 GiB comes first, from below, if the area may lie there.
    """
    memblock, asked = boot.memblock, boot.cmdline.cma
    align, reach = cma_alignment(boot), default_reach(boot)
    base, limit = (asked.base or 0, asked.limit or 0) if asked is not None else (0, 0)
    if base and base + size == limit:
        if memblock.is_region_reserved(base, size):
            return 0
        memblock.reserve(base, size, caller="cma_declare_contiguous_nid")
        return base
    end = min(limit or reach, reach)
    found = 0
    if not memblock.bottom_up and memblock.end_of_dram() >= _FOUR_GIB + size:
        memblock.set_bottom_up(enable=True)
        found = memblock.alloc_range_nid(size, align, _FOUR_GIB, end, -1)
        memblock.set_bottom_up(enable=False)
    return found or memblock.alloc_range_nid(size, align, base, end, -1)
