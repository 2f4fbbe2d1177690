# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that a kernel logs while it sets up its zones.

Linux: free_area_init(), mm/page_alloc.c (6.1); free_area_init_nodes(), free_area_init_core(),
mm/page_alloc.c (2.6.24)
"""

from physmem.boot.active_range import active_range_lines
from physmem.boot.features import BootFeature
from physmem.boot.limits import MOVABLE, ZoneLimits
from physmem.boot.movable import movable_lines, movable_pfn_lines
from physmem.boot.pcp_sizes import zone_batch
from physmem.boot.ranges import node_range_lines
from physmem.boot.zones import BootNode, BootZone, BootZones


def zone_range_lines(limits: ZoneLimits, page_shift: int = 12) -> list[str]:
    r"""Lines that tell the borders of the zone types, in bytes.

    Examples
    --------
    >>> limits = ZoneLimits(("DMA", "DMA32", "Normal", "Movable"),
    ...     (1, 4096, 131034, 0), (4096, 131034, 131034, 0))
    >>> print("\n".join(zone_range_lines(limits)))
    Zone ranges:
      DMA      [mem 0x0000000000001000-0x0000000000ffffff]
      DMA32    [mem 0x0000000001000000-0x000000001ffd9fff]
      Normal   empty

    Linux: free_area_init(), mm/page_alloc.c (6.1)
    """
    lines = ["Zone ranges:"]
    for name, low, high in zip(limits.names, limits.low, limits.high, strict=True):
        if name == MOVABLE:
            continue
        text = "empty"
        if low != high:
            text = f"[mem {low << page_shift:#018x}-{(high << page_shift) - 1:#018x}]"
        lines.append(f"  {name:<8} {text}")
    return lines


def zone_pfn_range_lines(limits: ZoneLimits) -> list[str]:
    r"""Lines of 2.6.24 that tell the borders of the zone types, in frames.

    Examples
    --------
    >>> limits = ZoneLimits(("DMA", "Normal", "HighMem", "Movable"),
    ...     (0, 4096, 229376, 0), (4096, 229376, 262128, 0))
    >>> print("\n".join(zone_pfn_range_lines(limits)))
    Zone PFN ranges:
      DMA             0 ->     4096
      Normal       4096 ->   229376
      HighMem    229376 ->   262128

    Linux: free_area_init_nodes(), mm/page_alloc.c (2.6.24)
    """
    return ["Zone PFN ranges:"] + [
        f"  {name:<8} {low:8d} -> {high:8d}"
        for name, low, high in zip(limits.names, limits.low, limits.high, strict=True)
        if name != MOVABLE
    ]


def initmem_line(node: BootNode, page_shift: int = 12) -> str:
    """Line that tells a node's span.

    Examples
    --------
    >>> initmem_line(BootNode(nid=1, start_pfn=163840, end_pfn=262106, spanned=98266,
    ...     present=98266, zones=()))
    'Initmem setup node 1 [mem 0x0000000028000000-0x000000003ffd9fff]'
    >>> initmem_line(BootNode(nid=2, start_pfn=0, end_pfn=0, spanned=0, present=0, zones=()))
    'Initmem setup node 2 as memoryless'

    Linux: free_area_init_node(), mm/page_alloc.c (6.1)
    """
    if node.start_pfn == node.end_pfn:
        return f"Initmem setup node {node.nid} as memoryless"
    start, end = node.start_pfn << page_shift, (node.end_pfn << page_shift) - 1
    return f"Initmem setup node {node.nid} [mem {start:#018x}-{end:#018x}]"


def node_lines(node: BootNode, zones: BootZones) -> list[str]:
    """Lines that tell a node's frames and what its zones are left with.

    2.6.24 logs them; later kernels only while debugging.

    Linux: calculate_node_totalpages(), free_area_init_core(), zone_pcp_init(),
    mm/page_alloc.c (2.6.24, 6.1)
    """
    lines = [f"On node {node.nid} totalpages: {node.present}"]
    if node.spanned or BootFeature.ZONE_LINES in zones.features:
        for zone in node.zones:
            lines += _zone_lines(zone, zones)
    return lines


def _zone_lines(zone: BootZone, zones: BootZones) -> list[str]:
    old = BootFeature.ZONE_LINES in zones.features
    lines = []
    if zone.memmap_exceeds:
        what = "pages exceeds realsize" if old else "memmap pages exceeds freesize"
        lines.append(f"  {zone.name} zone: {zone.memmap_pages} {what} {zone.raw_present}")
    elif old or (zone.memmap_pages and not zone.highmem):
        lines.append(f"  {zone.name} zone: {zone.memmap_pages} pages used for memmap")
    if zone.index == 0 and zone.estimate + zone.reserved > zones.dma_reserve:
        lines.append(f"  {zone.name} zone: {zone.reserved} pages reserved")
    if zone.present:
        batch = zone_batch(zone.present if old else zone.managed, zones.geometry, zones.features)
        lines.append(f"  {zone.name} zone: {zone.present} pages, LIFO batch:{batch}")
    return lines


def zone_lines(zones: BootZones) -> list[str]:
    """All lines from the zone ranges to the set-up of the nodes, in order.

    Linux: free_area_init(), mm/page_alloc.c (6.1); free_area_init_nodes() (2.6.24)
    """
    shift = zones.geometry.page_shift
    if BootFeature.EARLY_NODE_MAP in zones.features:
        lines = [
            *zone_pfn_range_lines(zones.limits),
            *movable_pfn_lines(zones.placement),
            *active_range_lines(zones.ranges),
        ]
        for node in zones.nodes:
            lines += node_lines(node, zones)
        return lines
    return [
        *zones.placement.warnings,
        *zone_range_lines(zones.limits, shift),
        *movable_lines(zones.placement, shift),
        *node_range_lines(zones.ranges, shift),
        *(initmem_line(node, shift) for node in zones.nodes),
    ]
