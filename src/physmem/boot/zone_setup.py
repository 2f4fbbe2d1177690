# SPDX-License-Identifier: GPL-2.0-or-later
"""The zones of a starting kernel with memblock: their borders, sizes, and first struct pages.

Linux: zone_sizes_init(), free_area_init(), mm/page_alloc.c (6.1)
"""

from dataclasses import replace

from physmem.arch.descriptor import Limits
from physmem.arch.x86_lowmem import find_low_pfn_range
from physmem.boot.boot import Boot
from physmem.boot.features import BootFeature
from physmem.boot.memmap_init import memmap_init
from physmem.boot.movable import MovableRequest, parse_movable
from physmem.boot.ranges import MAX_NUMNODES, MemoryRange, ranges_from_bytes
from physmem.boot.zone_log import zone_lines
from physmem.boot.zones import ZoneSetup, free_area_init

_DMA_BYTES = 16 << 20


def memory_ranges(boot: Boot) -> tuple[MemoryRange, ...]:
    """Memory by node; what no node claims counts for node 0."""
    return ranges_from_bytes(
        (
            (region.base, region.size, region.nid if region.nid < MAX_NUMNODES else 0, region.flags)
            for region in boot.memblock.memory
        ),
        boot.geometry.page_shift,
    )


def memory_limits(boot: Boot) -> Limits:
    """First and last frames of memory and of its low part."""
    memblock, arch = boot.memblock, boot.arch
    start, end = memblock.start_of_dram(), memblock.end_of_dram()
    low = max_pfn = end >> arch.page_shift
    if arch.highmem:
        split = find_low_pfn_range(arch, max_pfn, boot.cmdline)
        low, max_pfn = split.max_low_pfn, split.max_pfn
        if memblock.current_limit < end:
            # a log tells where the direct map ends
            low = min(memblock.current_limit >> arch.page_shift, max_pfn)
    return Limits(
        min_low_pfn=-(-start >> arch.page_shift),
        max_low_pfn=low,
        max_pfn=max_pfn,
        highstart_pfn=low,
        highend_pfn=max_pfn,
        dram_start=start,
        dram_end=end,
        dma_bits=boot.hardware.dma_bits,
    )


def set_dma_reserve(boot: Boot) -> None:
    """Count the frames below 16 MiB that are taken: the first zone will not have them.

    Linux: memblock_find_dma_reserve(), arch/x86/mm/init.c (6.1)
    """
    if boot.arch.max_dma_address and boot.arch.bits_per_long == 64:
        end = _DMA_BYTES >> boot.geometry.page_shift
        memory = sum(
            max(min(span.end, end) - span.start, 0) for span in boot.memblock.mem_pfn_ranges()
        )
        free = sum(span.end - span.start for span in boot.memblock.free_pfn_ranges(0, end))
        boot.dma_reserve = memory - free


def movable_request(boot: Boot) -> MovableRequest:
    """What the options kernelcore=, movablecore= and movable_node ask for."""
    line = boot.cmdline
    return parse_movable(
        line.value("kernelcore"),
        line.value("movablecore"),
        boot.features,
        movable_node=line.movable_node,
        page_shift=boot.geometry.page_shift,
    )


def _free_pages(boot: Boot, max_low_pfn: int) -> tuple[int, int]:
    """Free frames of memblock below high memory, and all.

    Linux: calc_nr_kernel_pages(), mm/mm_init.c (6.12)
    """
    low = total = 0
    for start, end, _ in boot.memblock.free_pfn_ranges(0, 1 << 62):
        total += end - start
        low += max(min(end, max_low_pfn) - start, 0)
    return low, total


def count_kernel_pages(boot: Boot) -> None:
    """Count what hash tables are sized by again, once FLATMEM has its memory map.

    Linux: calc_nr_kernel_pages(), mm/mm_init.c (6.12)
    """
    zones, limits = boot.zones, boot.limits
    if zones is None or limits is None or boot.geometry.sparse:
        return
    if BootFeature.KERNEL_PAGES_ARE_FREE_PAGES in boot.features:
        low, total = _free_pages(boot, limits.max_low_pfn)
        boot.zones = replace(zones, nr_kernel_pages=low, nr_all_pages=total)


def name_owners(boot: Boot) -> None:
    """Say whose the early reservations are: the machine tells."""
    hardware, owners = boot.hardware, boot.owners
    image = hardware.image
    if image is not None:
        owners.take(image.start, image.end + image.brk_bytes, "kernel image")
    if hardware.initrd is not None:
        page = boot.geometry.page_size
        owners.take(hardware.initrd[0], -(-hardware.initrd[1] // page) * page, "initial RAM disk")
    if hardware.dtb is not None:
        owners.take(*hardware.dtb, "device tree")


def zone_sizes_init(boot: Boot) -> None:
    """Make nodes and zones from the memory that memblock knows, and print them."""
    limits = boot.limits or memory_limits(boot)
    boot.limits = limits
    boot.zones = zones = free_area_init(
        ZoneSetup(
            ranges=memory_ranges(boot),
            names=boot.arch.zones,
            max_zone_pfn=boot.arch.max_zone_pfns(limits),
            geometry=boot.geometry,
            features=boot.features,
            request=movable_request(boot),
            dma_reserve=boot.dma_reserve,
            online=boot.possible,
            free_pages=_free_pages(boot, limits.max_low_pfn),
        )
    )
    boot.memmap = memmap_init(zones, deferred=boot.config.deferred_pages)
    boot.managed = {(zone.nid, zone.index): zone.managed for zone in zones.zones()}
    boot.say(*zone_lines(zones))
    boot.say(*boot.memmap.lines)
