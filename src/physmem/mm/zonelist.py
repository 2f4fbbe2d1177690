# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which a request looks at the zones of all nodes.

Linux: find_next_best_node(), build_zonelists(), mm/page_alloc.c (6.1)
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
    distance: Sequence[Sequence[int]], has_memory: Sequence[bool], has_cpu: Sequence[bool]
) -> list[list[int]]:
    """Nodes in the order of preference, for each node.

    Parameters
    ----------
    distance : nr_nodes x nr_nodes
        As in the firmware's SLIT: 10 is local.
    has_memory, has_cpu : nr_nodes
        What each node has; nodes without memory are left out (the local one too).

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
