# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones and zonelists of a starting 2.6.24.

Linux: zone_sizes_init(), arch/x86/kernel/setup_32.c; paging_init(), arch/x86/mm/numa_64.c;
free_area_init_nodes(), build_all_zonelists(), mm/page_alloc.c (2.6.24)
"""

from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.mem_map_bootmem import alloc_node_tables
from physmem.boot.memmap_init import memmap_init
from physmem.boot.movable import parse_movable
from physmem.boot.pcp_sizes import hot_cold_sizes
from physmem.boot.zone_log import zone_lines
from physmem.boot.zonelist import (
    NODE_ORDER,
    ZONE_ORDER,
    Topology,
    build_zonelists,
    built_line,
    default_zonelist_order,
    groups_by_mobility,
    node_order,
    node_rotation,
    policy_zone_line,
    vm_total_pages,
)
from physmem.boot.zones import ZoneSetup, free_area_init


def free_area_init_nodes(boot: BootBootmem) -> None:
    """Make nodes and zones from the memory that was noted, print them, and take their tables.

    Linux: free_area_init_nodes(), mm/page_alloc.c (2.6.24)
    """
    if not len(boot.node_map):
        # one node without holes
        boot.node_map.add(0, 0, boot.limits.max_pfn)
        boot.say(*boot.node_map.lines)
    line = boot.cmdline
    boot.zones = zones = free_area_init(
        ZoneSetup(
            ranges=[memory for memory in boot.node_map.sorted() if memory.nid in boot.online],
            names=boot.arch.zones,
            max_zone_pfn=boot.arch.max_zone_pfns(boot.limits),
            geometry=boot.geometry,
            features=boot.features,
            request=parse_movable(
                line.value("kernelcore"),
                line.value("movablecore"),
                boot.features,
                page_shift=boot.page_shift,
            ),
            dma_reserve=boot.setup.dma_reserve,
            online=boot.online,
        )
    )
    boot.say(*zone_lines(zones))
    for node in zones.nodes:
        alloc_node_tables(boot, node)
    boot.memmap = memmap_init(zones, deferred=False)
    boot.managed = dict.fromkeys(((zone.nid, zone.index) for zone in zones.zones()), 0)
    boot.boot_pagesets = boot.config.numa
    _set_pagesets(boot, first=boot.boot_pagesets)


def setup_per_cpu_pageset(boot: BootBootmem) -> None:
    """Replace the per-CPU lists of the start-up, which frames only pass through.

    Linux: setup_per_cpu_pageset(), process_zones(), mm/page_alloc.c (2.6.24)
    """
    _set_pagesets(boot, first=False)


def _set_pagesets(boot: BootBootmem, *, first: bool) -> None:
    """Linux: zone_pcp_init(), setup_pageset(), mm/page_alloc.c (2.6.24)"""
    build = boot.geometry, boot.features
    for node in boot.made_zones.nodes:
        for zone in node.zones:
            boot.pcp[zone.nid, zone.index] = hot_cold_sizes(zone.present, build, boot=first)


def build_all_zonelists(boot: BootBootmem) -> None:
    """Sort nodes by distance, zones by node or by zone; decide on grouping by mobility.

    Linux: build_all_zonelists(), build_zonelists(), mm/page_alloc.c (2.6.24)
    """
    zones = boot.made_zones
    nodes = {node.nid: node for node in zones.nodes}
    populated = zones.populated()
    present = {(zone.nid, zone.index): zone.present for zone in zones.zones()}
    boot.zonelist_order = _zonelist_order(boot, present)
    nr_nodes = max(nodes) + 1
    if boot.config.numa:
        distance = [list(row[:nr_nodes]) for row in boot.distance[:nr_nodes]]
        boot.distance = tuple(map(tuple, distance))
        topology = Topology(
            boot.distance,
            [bool(populated.get(nid)) for nid in range(nr_nodes)],
            # no CPU has told its node yet (numa_add_cpu() comes with its start): none counts
            [False] * nr_nodes,
        )
        orders = node_order(topology, boot.features, max_numnodes=boot.arch.max_numnodes)
    else:
        orders = node_rotation(nr_nodes)
    for order in orders:
        if order[0] not in nodes:
            continue
        boot.fallback[order[0]] = tuple(order)
        by = boot.zonelist_order
        boot.zonelists[order[0]] = build_zonelists(order, populated, len(boot.arch.zones), by)
    boot.total_pages = vm_total_pages(present)
    boot.grouping = groups_by_mobility(boot.total_pages, boot.geometry)
    boot.say(built_line(len(nodes), boot.total_pages, boot.geometry, boot.zonelist_order))
    if boot.config.numa:
        line = policy_zone_line(populated, boot.arch.zones)
        boot.policy_zone = line.removeprefix("Policy zone: ")
        boot.say(line)


def _zonelist_order(boot: BootBootmem, present: dict[tuple[int, int], int]) -> str:
    """What numa_zonelist_order= says, else what the sizes of the zones suggest.

    Linux: set_zonelist_order(), mm/page_alloc.c (2.6.24)
    """
    if not boot.config.numa:
        return ZONE_ORDER
    asked = boot.cmdline.numa_zonelist_order[:1].lower()
    if asked in {"n", "z"}:
        return NODE_ORDER if asked == "n" else ZONE_ORDER
    return default_zonelist_order(present, boot.made_zones.limits.normal)
