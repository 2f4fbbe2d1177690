# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order a node looks at the other nodes."""

from collections.abc import Sequence

from .features import MAX_NUMNODES

LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 20


def default_distance(nr_nodes: int) -> list[list[int]]:
    """Distances of a machine that states none."""
    return [
        [LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nr_nodes)]
        for a in range(nr_nodes)
    ]


class NodeOrder:
    """Round-robin among nodes equally far away, by a load that chosen nodes collect."""

    def __init__(
        self,
        distance: Sequence[Sequence[int]],
        memory_nodes: Sequence[int],
        cpu_nodes: Sequence[int],
        *,
        load_per_local_node: bool,
    ) -> None:
        self.distance = distance
        self.memory_nodes, self.cpu_nodes = sorted(memory_nodes), set(cpu_nodes)
        self.online = sorted(self.cpu_nodes.union(memory_nodes))
        self.load_per_local_node = load_per_local_node

    def find_next_best_node(self, local: int, used: list[int], load: dict[int, int]) -> int | None:
        if local not in used:
            return local  # also when it has no memory: then it adds no zones
        scale = MAX_NUMNODES * (len(self.online) if self.load_per_local_node else 1)
        best: tuple[int, int] | None = None
        for node in self.memory_nodes:
            if node in used:
                continue
            value = self.distance[local][node] + (node < local) + (node in self.cpu_nodes)
            candidate = (value * scale + load[node], node)
            best = candidate if best is None else min(best, candidate)
        return None if best is None else best[1]

    def build(self) -> dict[int, list[int]]:
        """Return the order of nodes as seen from each node."""
        orders: dict[int, list[int]] = {}
        load = dict.fromkeys(self.online, 0)
        for local in self.online:
            penalty = 1
            if self.load_per_local_node:
                load = dict.fromkeys(self.online, 0)
                penalty = len(self.online)
            order: list[int] = []
            previous = local
            while (node := self.find_next_best_node(local, order, load)) is not None:
                if self.distance[local][node] != self.distance[local][previous]:
                    if self.load_per_local_node:
                        load[node] = penalty
                    else:
                        load[node] += penalty
                order.append(node)
                previous = node
                if self.load_per_local_node:
                    penalty -= 1
            orders[local] = order
        return orders
