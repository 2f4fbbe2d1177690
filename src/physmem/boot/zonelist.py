# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order requests look at nodes and zones, worked out at boot.

Linux: build_all_zonelists(), find_next_best_node(), mm/page_alloc.c (2.6.24, 6.1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.boot.limits import MOVABLE
from physmem.lib.errors import BadMachineError

ZoneRef = tuple[int, int]
"""Node and zone index."""
MAX_NUMNODES = 1024
RECLAIM_DISTANCE = 20
NODE_ORDER = "Node"
ZONE_ORDER = "Zone"


@dataclass(frozen=True)
class Topology:
    """Nodes as the choice of the next best one sees them.

    Attributes
    ----------
    distance : nr_nodes x nr_nodes; 10 is local
    has_memory, has_cpu : nr_nodes

    Raises
    ------
    BadMachineError
        Sizes that do not fit, or a distance below 10.

    Examples
    --------
    >>> Topology(((10, 20), (20, 10)), (True, True), (True, False)).nr_nodes
    2
    """

    distance: Sequence[Sequence[int]]
    has_memory: Sequence[bool]
    has_cpu: Sequence[bool]

    def __post_init__(self) -> None:
        """Refuse tables that do not fit."""
        nr = len(self.distance)
        if nr == 0 or nr != len(self.has_memory) or nr != len(self.has_cpu):
            sizes = f"{nr}, {len(self.has_memory)} and {len(self.has_cpu)}"
            raise BadMachineError(f"distances, memory and CPUs are told for {sizes} nodes")
        for node, row in enumerate(self.distance):
            if len(row) != nr or min(row) < 10:
                raise BadMachineError(f"distances of node {node}: {nr} numbers, none below 10")

    @property
    def nr_nodes(self) -> int:
        """Number of nodes."""
        return len(self.distance)


def node_order(
    topology: Topology, features: BootFeature, *, max_numnodes: int = MAX_NUMNODES
) -> list[list[int]]:
    """Nodes in the order of preference, for each node: itself first, also without memory.

    Parameters
    ----------
    max_numnodes : nodes that the kernel was built for; lets distance outweigh load

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> pairs = ((10, 16, 22, 22), (16, 10, 22, 22), (22, 22, 10, 16), (22, 22, 16, 10))
    >>> topology = Topology(pairs, (True,) * 4, (True,) * 4)
    >>> node_order(topology, boot_features("6.1"))
    [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    >>> node_order(topology, boot_features("2.6.24"))
    [[0, 1, 2, 3], [1, 0, 2, 3], [2, 3, 0, 1], [3, 2, 0, 1]]

    Linux: build_zonelists(), find_next_best_node(), mm/page_alloc.c (2.6.24, 6.1)
    """
    nr_nodes = topology.nr_nodes
    adds = BootFeature.NODE_LOAD_ADDS in features
    weight = max_numnodes * (nr_nodes if BootFeature.NODE_LOAD_SCALED in features else 1)
    load = [0] * nr_nodes
    with_memory = [node for node in range(nr_nodes) if topology.has_memory[node]]
    orders = []
    for local in range(nr_nodes):
        if not adds:
            load = [0] * nr_nodes
        distance = topology.distance[local]
        cost = [
            (distance[node] + (node < local) + bool(topology.has_cpu[node])) * weight
            for node in range(nr_nodes)
        ]
        order = [local]
        previous = local
        left = [node for node in with_memory if node != local]
        while left:
            best = min(left, key=lambda node: (cost[node] + load[node], node))
            if distance[best] != distance[previous]:
                load[best] = load[best] + 1 if adds else nr_nodes - len(order)
            order.append(best)
            left.remove(best)
            previous = best
        orders.append(order)
    return orders


def node_rotation(nr_nodes: int) -> list[list[int]]:
    """Order of the nodes in a 2.6.24 without NUMA: the next ones, then the first ones.

    Examples
    --------
    >>> node_rotation(3)
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]

    Linux: build_zonelists() without CONFIG_NUMA, mm/page_alloc.c (2.6.24)
    """
    return [[*range(local, nr_nodes), *range(local)] for local in range(nr_nodes)]


def far_nodes(topology: Topology) -> bool:
    """Whether some node is so far that each node reclaims from itself first (2.6.24).

    Linux: build_zonelists(), zone_reclaim_mode, mm/page_alloc.c (2.6.24)
    """
    memory = [node for node in range(topology.nr_nodes) if topology.has_memory[node]]
    return any(
        topology.distance[local][node] > RECLAIM_DISTANCE
        for local in range(topology.nr_nodes)
        for node in memory
        if node != local
    )


def default_zonelist_order(present: Mapping[ZoneRef, int], normal: int) -> str:
    """Sort zonelists by node when low memory is none, or most of it, or most of a large node.

    Parameters
    ----------
    present : `present_pages` of every zone
    normal : index of zone Normal

    Returns
    -------
    str
        NODE_ORDER or ZONE_ORDER.

    Examples
    --------
    >>> default_zonelist_order({(0, 0): 4000, (0, 1): 200000, (1, 2): 300000}, normal=2)
    'Node'
    >>> default_zonelist_order({(0, 1): 90000, (0, 2): 100000, (1, 2): 190000}, normal=2)
    'Zone'

    Linux: default_zonelist_order(), mm/page_alloc.c (2.6.24)
    """
    low: dict[int, int] = {}
    total: dict[int, int] = {}
    for (nid, index), pages in present.items():
        total[nid] = total.get(nid, 0) + pages
        low[nid] = low.get(nid, 0) + (pages if index < normal else 0)
    all_low, all_pages = sum(low.values()), sum(total.values())
    if all_low == 0 or all_low > all_pages // 2:
        return NODE_ORDER
    average = all_pages // (sum(1 for pages in total.values() if pages) + 1)
    for nid, pages in total.items():
        if low[nid] and pages > average and low[nid] > pages * 70 // 100:
            return NODE_ORDER
    return ZONE_ORDER


@dataclass(frozen=True)
class Zonelists:
    """Zonelists of one node.

    Attributes
    ----------
    by_zone : for each highest zone index, the zones to look at; later kernels keep the last list
        only and skip zones that are too high
    local : the same without other nodes
    """

    by_zone: tuple[tuple[ZoneRef, ...], ...]
    local: tuple[tuple[ZoneRef, ...], ...]

    @property
    def fallback(self) -> tuple[ZoneRef, ...]:
        """The list that has all zones."""
        return self.by_zone[-1]


def build_zonelists(
    order: Sequence[int],
    populated: Mapping[int, Sequence[int]],
    nr_zones: int,
    by: str = NODE_ORDER,
) -> Zonelists:
    """Zonelists of the node that comes first in `order`.

    Parameters
    ----------
    order : nodes, nearest first
    populated : zone indices with frames, per node
    nr_zones : zone types of the architecture
    by : NODE_ORDER: all zones of a node, then the next node; ZONE_ORDER: a zone type of all nodes,
        then the type below

    Examples
    --------
    >>> populated = {0: [0, 1], 1: [1, 2]}
    >>> build_zonelists([0, 1], populated, 4).fallback
    ((0, 1), (0, 0), (1, 2), (1, 1))
    >>> build_zonelists([0, 1], populated, 4, ZONE_ORDER).fallback
    ((1, 2), (0, 1), (1, 1), (0, 0))

    Linux: build_zonelists_in_node_order(), build_zonelists_in_zone_order(),
    mm/page_alloc.c (2.6.24, 6.1)
    """
    own = {nid: sorted(populated.get(nid, ()), reverse=True) for nid in order}
    whole: list[ZoneRef] = [(nid, index) for nid in order for index in own[nid]]
    if by == ZONE_ORDER:
        whole.sort(key=lambda ref: -ref[1])
    local = [ref for ref in whole if ref[0] == order[0]]
    return Zonelists(
        tuple(tuple(ref for ref in whole if ref[1] <= top) for top in range(nr_zones)),
        tuple(tuple(ref for ref in local if ref[1] <= top) for top in range(nr_zones)),
    )


def vm_total_pages(pages: Mapping[ZoneRef, int], high: Mapping[ZoneRef, int] | None = None) -> int:
    """Frames that page cache could use: those above the high watermark, 0 while booting.

    Parameters
    ----------
    pages : `managed_pages` of every zone up to Movable; 2.6.24: `present_pages`

    Examples
    --------
    >>> vm_total_pages({(0, 0): 3776, (0, 1): 124954})
    128730

    Linux: nr_free_pagecache_pages(), mm/page_alloc.c (2.6.24); build_all_zonelists() (6.1)
    """
    marks = high or {}
    return sum(max(frames - marks.get(ref, 0), 0) for ref, frames in pages.items())


def groups_by_mobility(total: int, geometry: Geometry) -> bool:
    """Whether memory is large enough to keep pageblocks of different mobility apart.

    Examples
    --------
    >>> groups_by_mobility(2560, Geometry()), groups_by_mobility(2559, Geometry())
    (True, False)

    Linux: build_all_zonelists(), mm/page_alloc.c (2.6.24, 6.1)
    """
    return total >= geometry.pageblock_pages * geometry.migrate_types


def fallback_lines(orders: Sequence[Sequence[int]]) -> list[str]:
    """Lines that tell the order of nodes; each ends with a space, as the kernel's do.

    Examples
    --------
    >>> fallback_lines([[0, 1], [1, 0]])
    ['Fallback order for Node 0: 0 1 ', 'Fallback order for Node 1: 1 0 ']

    Linux: build_zonelists(), mm/page_alloc.c (6.1)
    """
    return [
        f"Fallback order for Node {order[0]}: " + "".join(f"{node} " for node in order)
        for order in orders
    ]


def built_line(nr_nodes: int, total: int, geometry: Geometry, order: str | None = None) -> str:
    """Line that tells that zonelists are built; `order`: also in which order (2.6.24).

    Examples
    --------
    >>> built_line(1, 128730, Geometry())
    'Built 1 zonelists, mobility grouping on.  Total pages: 128730'
    >>> built_line(1, 515786, Geometry(), ZONE_ORDER)
    'Built 1 zonelists in Zone order, mobility grouping on.  Total pages: 515786'

    Linux: build_all_zonelists(), mm/page_alloc.c (2.6.24, 6.1)
    """
    sorted_by = f" in {order} order" if order else ""
    grouping = "on" if groups_by_mobility(total, geometry) else "off"
    head = f"Built {nr_nodes} zonelists{sorted_by}, mobility grouping {grouping}."
    return f"{head}  Total pages: {total}"


def policy_zone_line(populated: Mapping[int, Sequence[int]], names: Sequence[str]) -> str:
    """Line that tells the highest zone that memory policies apply to.

    Examples
    --------
    >>> policy_zone_line({0: [0, 1, 3]}, ("DMA", "DMA32", "Normal", "Movable"))
    'Policy zone: DMA32'

    Linux: check_highest_zone(), include/linux/mempolicy.h (2.6.24, 6.1)
    """
    movable = names.index(MOVABLE)
    found = [index for zones in populated.values() for index in zones if index != movable]
    return f"Policy zone: {names[max(found, default=0)]}"
