# SPDX-License-Identifier: GPL-2.0-or-later
"""The hand-over: all free memory of memblock goes to the page allocator.

Linux: mem_init(), arch/x86/mm/init_64.c; memblock_free_all(), mm/memblock.c;
mem_init_print_info(), mm/page_alloc.c (6.1)
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from physmem.boot.boot import Boot, ZoneRef
from physmem.boot.booted import FreeBlocks, MemoryFigures
from physmem.boot.features import BootFeature
from physmem.boot.ranges import MIRROR, MemoryRange
from physmem.boot.zones import BootZone, BootZones

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def no_blocks() -> FreeBlocks:
    """No free block at all."""
    import numpy as np

    return FreeBlocks(np.zeros(0, np.int64), np.zeros(0, np.uint8))


def joined(
    parts: Iterable[tuple["npt.NDArray[np.int64]", "npt.NDArray[np.uint8]"]],
) -> FreeBlocks:
    """Blocks of several runs, one after the other."""
    import numpy as np

    runs = list(parts)
    if not runs:
        return no_blocks()
    return FreeBlocks(
        np.concatenate([pfn for pfn, _ in runs]), np.concatenate([order for _, order in runs])
    )


def pages_by_zone(zones: BootZones, spans: Iterable[tuple[int, int, int]]) -> dict[ZoneRef, int]:
    """Frames of the spans (start, end, node or -1) in each zone that has any.

    Where mirrored memory decides, Normal and Movable overlap: a frame is Movable's if it is not
    mirrored.
    """
    found: dict[ZoneRef, int] = {}
    shared = zones.placement.mirror
    mirrored = [memory for memory in zones.ranges if memory.flags & MIRROR]
    wanted = list(spans)
    for zone in zones.zones():
        pages = 0
        for start, end, nid in wanted:
            if nid in {-1, zone.nid} or nid >= 1024:
                low, high = max(start, zone.start_pfn), min(end, zone.end_pfn)
                if low < high:
                    pages += high - low
                    if shared:
                        pages -= _others(zone, zones, mirrored, low, high)
        if pages:
            found[zone.nid, zone.index] = pages
    return found


def _others(
    zone: BootZone, zones: BootZones, mirrored: list[MemoryRange], low: int, high: int
) -> int:
    """Frames of [low, high) that belong to the other of two overlapping zones."""
    inside = sum(
        max(min(memory.end_pfn, high) - max(memory.start_pfn, low), 0) for memory in mirrored
    )
    if zone.index == zones.limits.movable:
        return inside
    movable = next(
        (z for z in zones.zones() if (z.nid, z.index) == (zone.nid, zones.limits.movable)), None
    )
    if movable is None:
        return 0
    low, high = max(low, movable.start_pfn), min(high, movable.end_pfn)
    if low >= high:
        return 0
    return (high - low) - sum(
        max(min(memory.end_pfn, high) - max(memory.start_pfn, low), 0) for memory in mirrored
    )


def memblock_free_all(boot: Boot) -> None:
    """Shut memblock down; count what each zone now manages.

    Linux: memblock_free_all(), mm/memblock.c (6.1)
    """
    zones, memmap, limits = boot.zones, boot.memmap, boot.limits
    if zones is None or memmap is None or limits is None:
        raise RuntimeError("zones come before the hand-over")
    boot.reserved_spans = tuple((region.base, region.end) for region in boot.memblock.reserved)
    high = (
        [
            (max(start, limits.max_low_pfn), end, nid)
            for start, end, nid in boot.memblock.free_pfn_ranges(limits.max_low_pfn, limits.max_pfn)
        ]
        if boot.arch.highmem
        else []
    )
    given = boot.memblock.free_all(
        limits.max_low_pfn, boot.geometry.nr_orders, memmap.first_deferred_pfn
    )
    boot.hand_over = joined(blocks for _, blocks in given.blocks())
    spans = []
    for start, end, nid in given.free:
        stop = min(end, max(start, memmap.first_deferred_pfn.get(nid, end)))
        spans.append((start, stop, nid))
    boot.managed = {(zone.nid, zone.index): 0 for zone in zones.zones()}
    boot.managed |= pages_by_zone(zones, spans)
    boot.totalram = given.pages
    _free_highmem(boot, high)


def _free_highmem(boot: Boot, spans: list[tuple[int, int, int]]) -> None:
    """High memory goes frame by frame: nothing but the page allocator can use it.

    Linux: free_highpages(), mm/highmem.c; add_highpages_with_active_regions(),
    arch/x86/mm/highmem_32.c (6.1)
    """
    import numpy as np

    if boot.zones is None:
        raise RuntimeError("zones come before the hand-over")
    frames = [np.arange(start, end, dtype=np.int64) for start, end, _ in spans if start < end]
    boot.highmem = joined((pfn, np.zeros(pfn.size, np.uint8)) for pfn in frames)
    for ref, pages in pages_by_zone(boot.zones, spans).items():
        boot.managed[ref] += pages
        boot.totalhigh += pages
        boot.totalram += pages


def map_vmalloc_early(boot: Boot) -> None:
    """Take the upper page tables of the vmalloc area: one page per entry of the top table.

    Random addresses (KASLR) move the area off a boundary, so that it touches one entry more.

    Linux: preallocate_vmalloc_pages(), arch/x86/mm/init_64.c (6.1)
    """
    if not boot.config.maps_vmalloc_early:
        return
    layout = boot.arch.layout
    top = boot.arch.level("pgd").size
    entries = -(-(layout.vmalloc_end - layout.vmalloc_start) // top)
    boot.early_taken = entries + (0 if boot.cmdline.nokaslr else 1)


def mem_init_print_info(boot: Boot) -> None:
    """Work out the figures of the memory line, and print it.

    Linux: mem_init_print_info(), mm/page_alloc.c (6.1)
    """
    zones = boot.zones
    if zones is None:
        raise RuntimeError("zones come before the memory line")
    shift = boot.geometry.page_shift - 10
    physical = sum(node.present for node in zones.nodes)
    cma = sum(end - start for start, end in boot.cma_areas) >> boot.geometry.page_shift
    late = BootFeature.MEMORY_LINE_LATE in boot.features
    # CMA areas are given to the page allocator by an initcall, after the line of either kernel
    free = sum(boot.managed.values()) - boot.early_taken
    boot.memory = MemoryFigures(
        available=None if late else free << shift,
        physical=physical << shift,
        reserved=physical - boot.totalram - cma << shift,
        cma=cma << shift,
        highmem=boot.totalhigh << shift,
    )
    image = boot.hardware.image or boot.arch.image
    highmem = f", {boot.memory.highmem}K highmem" if boot.arch.highmem else ""
    boot.say(
        f"Memory: {free << shift}K/{boot.memory.physical}K available ({image.code_kib}K kernel"
        f" code, {image.rwdata_kib}K rwdata, {image.rodata_kib}K rodata, {image.init_kib}K init,"
        f" {image.bss_kib}K bss, {boot.memory.reserved}K reserved,"
        f" {boot.memory.cma}K cma-reserved{highmem})"
    )
