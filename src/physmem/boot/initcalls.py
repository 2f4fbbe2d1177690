# SPDX-License-Identifier: GPL-2.0-or-later
"""Initcalls about memory: CMA areas, watermarks and reserves, huge pages.

All sizes come from what each zone manages at that moment. Memory that comes back later (the initial
RAM disk, init memory) leaves them as they are.

Linux: cma_init_reserved_areas(), mm/cma.c; init_per_zone_wmark_min(), mm/page_alloc.c;
hugepage_init(), mm/huge_memory.c; start_stop_khugepaged(), mm/khugepaged.c (6.1, 6.12)
"""

from physmem.boot.boot import Boot
from physmem.boot.features import BootFeature
from physmem.boot.mem_init import joined, pages_by_zone
from physmem.boot.pcp_sizes import pcp_sizes
from physmem.boot.sizes import (
    SizedZone,
    free_buffer_pages,
    huge_pages_fit,
    lowmem_reserve,
    min_free_kbytes,
    thp_min_free_kbytes,
    zone_watermarks,
)
from physmem.boot.zones import BootZones, is_highmem


def _zones(boot: Boot) -> BootZones:
    if boot.zones is None:
        raise RuntimeError("zones come before the initcalls")
    return boot.zones


def cma_init_reserved_areas(boot: Boot) -> None:
    """Give CMA areas to the page allocator, pageblock by pageblock, as blocks of type CMA.

    Linux: init_cma_reserved_pageblock(), mm/page_alloc.c (6.1)
    """
    import numpy as np

    zones = _zones(boot)
    shift, order = boot.geometry.page_shift, boot.geometry.pageblock_order
    spans = [(start >> shift, end >> shift, -1) for start, end in boot.cma_areas]
    parts = []
    for start, end, _ in spans:
        pfn = np.arange(start, end, 1 << order, dtype=np.int64)
        parts.append((pfn, np.full(pfn.size, order, np.uint8)))
    boot.cma = joined(parts)
    for ref, pages in pages_by_zone(zones, spans).items():
        boot.managed[ref] += pages
        boot.cma_pages[ref] = boot.cma_pages.get(ref, 0) + pages
        boot.totalram += pages


def sized_zones(boot: Boot) -> tuple[SizedZone, ...]:
    """All zones of all nodes, empty ones too, with what they manage now."""
    zones = _zones(boot)
    return tuple(
        SizedZone(
            nid=node.nid,
            index=zone.index,
            name=zone.name,
            pages=boot.managed.get((node.nid, zone.index), 0),
            highmem=is_highmem(zone.index, zones.limits, zones.placement),
        )
        for node in zones.nodes
        for zone in node.zones
    )


def _set_marks(boot: Boot, kbytes: int) -> None:
    """Set all watermarks, and the per-CPU sizes that hang on them.

    Linux: setup_per_zone_wmarks(), mm/page_alloc.c (6.1)
    """
    sized = sized_zones(boot)
    boot.min_free_kbytes = kbytes
    marks = zone_watermarks(sized, kbytes, boot.geometry, boot.features)
    for zone, mark in zip(sized, marks, strict=True):
        ref = zone.nid, zone.index
        boot.marks[ref] = mark
        cpus = boot.cpu_node.count(zone.nid) or len(boot.cpu_node)
        boot.pcp[ref] = pcp_sizes(zone.pages, mark.low, cpus, (boot.geometry, boot.features))


def init_per_zone_wmark_min(boot: Boot) -> None:
    """Work out min_free_kbytes, watermarks, and what zones keep from other requests.

    Linux: init_per_zone_wmark_min(), mm/page_alloc.c (6.1), a postcore_initcall
    """
    zones, sized = _zones(boot), sized_zones(boot)
    pages = free_buffer_pages(sized, zones.limits.normal)
    _set_marks(boot, min_free_kbytes(pages, boot.geometry, boot.features))
    for node in zones.nodes:
        pages_of = [boot.managed.get((node.nid, zone.index), 0) for zone in node.zones]
        table = lowmem_reserve(pages_of, zones.limits.names, boot.features)
        for zone, row in zip(node.zones, table, strict=True):
            boot.reserve[node.nid, zone.index] = tuple(row)


def hugepage_init(boot: Boot) -> None:
    """Huge pages want more memory kept free; switched off, the kernel only computes once more.

    The second computation leaves out what the first one's high watermarks hold back. Below 512 MiB
    huge pages switch themselves off, and nothing is computed.

    Linux: hugepage_init(), mm/huge_memory.c; set_recommended_min_free_kbytes(),
    mm/khugepaged.c (6.1), a subsys_initcall
    """
    zones = _zones(boot)
    can = boot.config.thp and boot.hardware.pse and BootFeature.THP_MIN_FREE in boot.features
    if not can or not huge_pages_fit(boot.totalram, boot.geometry):
        return
    sized = sized_zones(boot)
    high = [boot.marks[zone.nid, zone.index].high for zone in sized]
    normal = zones.limits.normal
    boot.thp = boot.cmdline.transparent_hugepage != "never"
    if boot.thp:
        wanted = thp_min_free_kbytes(sized, normal, high, boot.geometry)
        kbytes = max(wanted, boot.min_free_kbytes)
    else:
        kbytes = min_free_kbytes(
            free_buffer_pages(sized, normal, high), boot.geometry, boot.features
        )
    _set_marks(boot, kbytes)
