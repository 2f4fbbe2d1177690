# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which requests look at nodes and zones.

Linux: build_all_zonelists_init(), mm/page_alloc.c (6.1)
"""

from physmem.boot.boot import Boot
from physmem.boot.zonelist import (
    Topology,
    build_zonelists,
    built_line,
    fallback_lines,
    groups_by_mobility,
    node_order,
    policy_zone_line,
    vm_total_pages,
)
from physmem.firmware.hardware import LOCAL_DISTANCE, REMOTE_DISTANCE


def build_all_zonelists(boot: Boot) -> None:
    """Sort nodes by distance and zones by height; decide on grouping by mobility."""
    zones = boot.zones
    if zones is None:
        raise RuntimeError("zones come before zonelists")
    nodes = {node.nid: node for node in zones.nodes}
    nr_nodes = max(nodes) + 1
    populated = {
        nid: [zone.index for zone in node.zones if zone.present] for nid, node in nodes.items()
    }
    distance = _distances(boot, nr_nodes)
    in_use = {nid for nid, own in populated.items() if own}.union(boot.cpu_node)
    last = max(in_use) + 1
    boot.distance = tuple(tuple(row[:last]) for row in distance[:last])
    topology = Topology(
        distance,
        [bool(populated.get(nid)) for nid in range(nr_nodes)],
        # CPUs are counted to their nodes when they come up, which is later: none counts yet
        [False] * nr_nodes,
    )
    orders = [
        order
        for order in node_order(topology, boot.features, max_numnodes=boot.arch.max_numnodes)
        if order[0] in nodes
    ]
    orders = [list(boot.told_order.get(order[0], order)) for order in orders]
    for order in orders:
        boot.fallback[order[0]] = tuple(order)
        boot.zonelists[order[0]] = build_zonelists(order, populated, len(boot.arch.zones))
    boot.total_pages = vm_total_pages(boot.managed)
    boot.grouping = groups_by_mobility(boot.total_pages, boot.geometry)
    if boot.config.numa:
        boot.say(*fallback_lines(orders))
    boot.online = tuple(sorted(in_use.union(boot.node_data)))
    boot.say(built_line(len(boot.online), boot.total_pages, boot.geometry))
    if boot.config.numa:
        line = policy_zone_line(populated, boot.arch.zones)
        boot.policy_zone = line.removeprefix("Policy zone: ")
        boot.say(line)


def _distances(boot: Boot, nr_nodes: int) -> list[list[int]]:
    told = boot.distance or boot.hardware.distance
    if len(told) >= nr_nodes:
        return [list(row[:nr_nodes]) for row in told[:nr_nodes]]
    return [
        [LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nr_nodes)]
        for a in range(nr_nodes)
    ]
