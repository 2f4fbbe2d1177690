# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which a request looks at the zones of all nodes.

Linux: find_next_best_node(), build_zonelists(), mm/page_alloc.c (6.1);
build_zonelists_in_node_order(), build_zonelists_in_zone_order(), default_zonelist_order(),
mm/page_alloc.c (2.6.24)
"""

from collections.abc import Sequence

MAX_NUMNODES = 1024
"""Linux: include/linux/numa.h, CONFIG_NODES_SHIFT=10. Makes distance count before load."""
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20


def default_distance(nr_nodes: int) -> list[list[int]]:
    """Distances when the firmware tells none: 10 to itself, 20 to every other node."""
    return [
        [LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nr_nodes)]
        for a in range(nr_nodes)
    ]


def node_order(
    distance: Sequence[Sequence[int]],
    has_memory: Sequence[bool],
    has_cpu: Sequence[bool],
    *,
    local_load: bool = False,
) -> list[list[int]]:
    """Nodes in the order of preference, for each node.

    Parameters
    ----------
    distance : nr_nodes x nr_nodes
        As in the firmware's SLIT: 10 is local.
    has_memory, has_cpu : nr_nodes
        What each node has; nodes without memory are left out (the local one too).
    local_load : bool
        A node that was chosen counts as loaded for one local node only (NODE_LOAD_LOCAL): as none
        is chosen twice there, loads decide nothing.

    Examples
    --------
    >>> node_order([[10, 20], [20, 10]], [True, True], [True, True])
    [[0, 1], [1, 0]]

    Linux: find_next_best_node(), build_zonelists(), mm/page_alloc.c (6.1)
    """
    nr_nodes = len(distance)
    load = [0] * nr_nodes
    orders = []
    for local in range(nr_nodes):
        if local_load:
            load = [0] * nr_nodes
        order: list[int] = []
        previous = local
        left = set(range(nr_nodes))
        while left:
            best = local if local in left else _next_best(local, left, distance, has_cpu, load)
            if best is None:
                break
            left.discard(best)
            if distance[local][best] != distance[local][previous]:
                load[best] += 1
            order.append(best)
            previous = best
            left = {node for node in left if has_memory[node]}
        orders.append([node for node in order if has_memory[node]])
    return orders


def prefers_zone_order(sizes: Sequence[Sequence[tuple[int, bool]]]) -> bool:
    """Tell whether zonelists go zone by zone through all nodes, when nobody says how.

    So memory that only low zones have is spared, unless there is none of it, or it is most of what
    the machine or one of its larger nodes has.

    Parameters
    ----------
    sizes : per node, per populated zone: (present pages, is below ZONE_NORMAL)
        Nodes without memory have no zone.

    Examples
    --------
    >>> prefers_zone_order([[(4096, True), (1 << 20, False)], [(1 << 20, False)]])
    True
    >>> prefers_zone_order([[(4096, True), (900_000, True)], [(1 << 20, False)]])
    False

    Linux: default_zonelist_order(), mm/page_alloc.c (2.6.24)
    """
    low = [sum(pages for pages, below in zones if below) for zones in sizes]
    total = [sum(pages for pages, _ in zones) for zones in sizes]
    if not sum(low) or sum(low) > sum(total) // 2:
        return False
    average = sum(total) // (sum(1 for pages in total if pages) + 1)
    return not any(
        below and pages > average and below > pages * 70 // 100
        for below, pages in zip(low, total, strict=True)
    )


def zone_ranks(
    nodes: Sequence[int], zones: Sequence[tuple[int, int]], *, by_zone: bool
) -> list[int]:
    """Positions of the zones in the order in which a request of one node looks at them.

    A list of its own for each type of zone, as 2.6.24 has them, would hold the same zones in the
    same order without the higher ones: these are skipped anyway.

    Parameters
    ----------
    nodes : nodes in the order of preference
    zones : (node, zone index) of each populated zone
    by_zone : zone by zone through all nodes, else node by node

    Examples
    --------
    >>> zones = [(0, 0), (0, 2), (1, 2)]
    >>> zone_ranks([0, 1], zones, by_zone=False), zone_ranks([0, 1], zones, by_zone=True)
    ([1, 0, 2], [1, 2, 0])

    Linux: build_zonelists_in_node_order(), build_zonelists_in_zone_order(), mm/page_alloc.c
    (2.6.24)
    """

    def rank(at: int) -> tuple[int, int]:
        node, index = zones[at]
        place = nodes.index(node)
        return (-index, place) if by_zone else (place, -index)

    return sorted((at for at in range(len(zones)) if zones[at][0] in nodes), key=rank)


def _next_best(
    local: int,
    left: set[int],
    distance: Sequence[Sequence[int]],
    has_cpu: Sequence[bool],
    load: Sequence[int],
) -> int | None:
    best, least = None, None
    for node in sorted(left):
        value = distance[local][node] + (node < local) + has_cpu[node]
        value = value * MAX_NUMNODES + load[node]
        if least is None or value < least:
            best, least = node, value
    return best
