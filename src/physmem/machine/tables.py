# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a machine: every buffer behind its `Memory` record, and how they hang together."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadMachineError
from physmem.lib.struct import attach, dtype_of
from physmem.machine.buffers import copy_sparse, reserve
from physmem.machine.layout import ZONELIST_ORDERS, Layout
from physmem.machine.profiles import feature_bits
from physmem.mm import mmzone
from physmem.mm.features import MANAGED_PAGES, NODE_LOAD_LOCAL, ZONE_ORDER
from physmem.mm.mmzone import Memory, Page, PerCpuPages, Zone, Zoneref
from physmem.mm.state import State, ZoneState, block_letters
from physmem.mm.zonelist import (
    default_distance,
    node_order,
    prefers_zone_order,
    zone_ranks,
)

MAX_PFN = (1 << 32) - (1 << 24)
"""Frames that the 32-bit links of `Page` can name, list heads left room for (16 TiB of 4 KiB)."""
MAX_ZONES = 255
TRACE_EVENTS = 1 << 18


@dataclass(frozen=True)
class Tables:
    """Buffers of one machine. `memory` has one element; the others hang on it by address.

    The last four are empty unless a rule of `physmem.mm.placement` needs them.
    """

    memory: NDArray[Any]
    mem_map: NDArray[Any]
    zones: NDArray[Any]
    pageset: NDArray[Any]  # nr_zones x nr_cpus
    pageblock_flags: NDArray[np.uint8]  # the maps of all zones, one behind the other
    block_zone: NDArray[np.uint8]
    zonelist: NDArray[Any]
    cpu_node: NDArray[np.int64]
    trace: NDArray[np.int64]
    order_map: NDArray[np.uint32] = field(default_factory=lambda: reserve(0, np.uint32))
    tree_free: NDArray[np.int64] = field(default_factory=lambda: reserve(0, np.int64))
    tree_at: NDArray[np.int64] = field(default_factory=lambda: reserve(0, np.int64))
    scratch: NDArray[np.int64] = field(default_factory=lambda: reserve(0, np.int64))

    def attach(self) -> None:
        """Write the buffers' addresses into the records that point to them."""
        memory = self.memory[0]
        for name in ("mem_map", "zones", "zonelist", "cpu_node", "block_zone", "trace"):
            attach(memory, name, getattr(self, name))
        nr_cpus = int(memory["nr_cpus"])
        block = 0
        for number, zone in enumerate(self.zones):
            attach(zone, "mem_map", self.mem_map)
            attach(zone, "pageset", self.pageset[number * nr_cpus : (number + 1) * nr_cpus])
            attach(zone, "trace", self.trace)
            blocks = nr_pageblocks(zone)
            attach(zone, "pageblock_flags", self.pageblock_flags[block : block + blocks])
            block += blocks
            attach(zone, "scratch", self.scratch)
        self._attach_placement()

    def with_scratch(self, scratch: NDArray[np.int64]) -> "Tables":
        """The same buffers with other memory for a policy."""
        made = replace(self, scratch=scratch)
        made.attach()
        return made

    def _attach_placement(self) -> None:
        """Divide what is kept for other rules of placement among the zones."""
        word = tree = 0
        slots = len(self.tree_at) // len(self.zones)
        for number, zone in enumerate(self.zones):
            size = int(zone["map_start"][-1]) * mmzone.MIGRATE_TYPES if len(self.order_map) else 0
            attach(zone, "order_map", self.order_map[word : word + size])
            word += size
            trees = nr_trees(zone) if len(self.tree_free) else 0
            attach(zone, "tree_free", self.tree_free[tree : tree + trees])
            tree += trees
            attach(zone, "tree_at", self.tree_at[number * slots : (number + 1) * slots])

    def copy(self) -> "Tables":
        """Independent copy of all buffers; memory that was never written stays unwritten."""
        made: dict[str, NDArray[Any]] = {}
        for name in self.__dataclass_fields__:
            source: NDArray[Any] = getattr(self, name)
            made[name] = reserve(len(source), source.dtype)
            copy_sparse(source, made[name])
        copied = Tables(**made)
        copied.attach()
        return copied

    @property
    def nbytes(self) -> int:
        """Bytes of address space that the tables take (untouched parts need no RAM)."""
        return sum(getattr(self, name).nbytes for name in self.__dataclass_fields__)


def nr_pageblocks(zone: Any) -> int:
    """Pageblocks that a zone's span touches."""
    order = int(zone["pageblock_order"])
    first, end = int(zone["start_pfn"]) >> order, int(zone["end_pfn"])
    return ((end + (1 << order) - 1) >> order) - first


def nr_trees(zone: Any) -> int:
    """Trees that a zone's span touches."""
    order = int(zone["tree_order"])
    return (int(zone["end_pfn"]) - 1 >> order) - (int(zone["start_pfn"]) >> order) + 1


def nr_heads(nr_zones: int, nr_cpus: int) -> int:
    """List heads behind the frames."""
    free = mmzone.NR_PAGE_ORDERS * mmzone.MIGRATE_TYPES
    return nr_zones * (free + nr_cpus * mmzone.NR_PCP_LISTS)


def build_tables(state: State, layout: Layout) -> Tables:
    """Buffers for a machine of this shape, with everything but lists and frames filled in.

    Raises
    ------
    BadMachineError
        No zone, zones out of order or overlapping, or more memory than the tables can name.
    """
    _check(state, layout)
    max_pfn = max(zone.end for zone in state.zones)
    granule = 1 << max(layout.max_order, state.pageblock_order)
    frames = (max_pfn + granule - 1) // granule * granule
    heads = nr_heads(len(state.zones), layout.nr_cpus)
    if frames + heads > MAX_PFN:
        msg = f"{max_pfn} frames are more than the {MAX_PFN} that the tables can name"
        raise BadMachineError(msg)
    blocks = frames >> state.pageblock_order
    tables = Tables(
        memory=reserve(1, dtype_of(Memory)),
        mem_map=reserve(frames + heads, dtype_of(Page)),
        zones=reserve(len(state.zones), dtype_of(Zone)),
        pageset=reserve(len(state.zones) * layout.nr_cpus, dtype_of(PerCpuPages)),
        pageblock_flags=reserve(_nr_flags(state), np.uint8),
        block_zone=reserve(blocks, np.uint8),
        zonelist=_zonelist(state, layout),
        cpu_node=np.array(layout.cpu_node, np.int64),
        trace=reserve(0, np.int64),
    )
    _fill_memory(tables.memory[0], state, layout, frames)
    for number, zone in enumerate(state.zones):
        _fill_zone(tables.zones[number], number, zone, state, layout)
    tables.attach()
    block = tables.block_zone
    for number in range(len(state.zones) - 1, -1, -1):
        zone = state.zones[number]
        end = (zone.end + (1 << state.pageblock_order) - 1) >> state.pageblock_order
        block[zone.start >> state.pageblock_order : end] = number
    _split_interleaved(block, state)
    return tables


def _nr_flags(state: State) -> int:
    """Pageblocks of all zones' spans; those of interleaved nodes overlap."""
    order = state.pageblock_order
    return sum((-(-zone.end >> order)) - (zone.start >> order) for zone in state.zones)


def _split_interleaved(block: NDArray[np.uint8], state: State) -> None:
    """Where spans of zones overlap (interleaved nodes), a block belongs where its letter says."""
    order = state.pageblock_order
    for number, zone in enumerate(state.zones):
        letters = np.frombuffer(zone.pageblocks.encode(), np.uint8)
        own = np.flatnonzero(letters != ord(".")) + (zone.start >> order)
        first_is_shared = zone.start & ((1 << order) - 1)
        if first_is_shared and len(own) and own[0] == zone.start >> order:
            own = own[1:]  # the block that a lower zone ends in stays the lower zone's
        block[own] = number


def _check(state: State, layout: Layout) -> None:
    if not state.zones or len(state.zones) > MAX_ZONES:
        msg = f"{len(state.zones)} zones: a machine has 1 to {MAX_ZONES}"
        raise BadMachineError(msg)
    letters = block_letters(feature_bits(layout.kernel), state.nr_migratetypes)
    if state.letters != letters:
        msg = f"the state has the migratetypes {state.letters}, Linux {layout.kernel} has {letters}"
        raise BadMachineError(msg)
    if layout.zonelist_order not in ZONELIST_ORDERS:
        raise BadMachineError(f"zonelist_order {layout.zonelist_order!r}: write node or zone")
    if layout.zonelist_order == "zone" and not feature_bits(layout.kernel) & ZONE_ORDER:
        raise BadMachineError(f"Linux {layout.kernel} has zonelists in node order only")
    if not 0 < state.pageblock_order < mmzone.NR_PAGE_ORDERS:
        msg = f"pageblock order {state.pageblock_order}: must be 1..{mmzone.NR_PAGE_ORDERS - 1}"
        raise BadMachineError(msg)
    if not 0 < layout.max_order < mmzone.NR_PAGE_ORDERS:
        msg = f"largest order {layout.max_order}: must be 1..{mmzone.NR_PAGE_ORDERS - 1}"
        raise BadMachineError(msg)
    order = [(zone.node, layout.zone_idx(zone.name)) for zone in state.zones]
    if order != sorted(set(order)):
        msg = "zones must be listed once each, nodes ascending, zones of a node from low to high"
        raise BadMachineError(msg)
    nr_nodes = 1 + max(zone.node for zone in state.zones)
    for cpu, node in enumerate(layout.cpu_node):
        if not 0 <= node < max(nr_nodes, len(layout.node_distance)):
            msg = f"cpu {cpu} is on node {node}, which does not exist"
            raise BadMachineError(msg)
    for zone in state.zones:
        where = f"zone {zone.name} of node {zone.node}"
        if zone.start < 0 or zone.spanned <= 0 or zone.end > MAX_PFN:
            msg = f"{where}: frames {zone.start} + {zone.spanned} are not possible"
            raise BadMachineError(msg)
        if not feature_bits(layout.kernel) & MANAGED_PAGES:
            if (
                max(zone.managed, zone.present) > zone.spanned
                or min(zone.managed, zone.present) < 0
            ):
                msg = f"{where}: {zone.managed} or {zone.present} frames in {zone.spanned}"
                raise BadMachineError(msg)
        elif not 0 <= zone.managed <= zone.present <= zone.spanned:
            msg = f"{where}: managed {zone.managed} <= present {zone.present} <= spanned"
            raise BadMachineError(f"{msg} {zone.spanned} does not hold")
    by_node = sorted(state.zones, key=lambda zone: (zone.node, zone.start))
    for low, high in pairwise(by_node):
        if low.node == high.node and low.end > high.start:
            msg = f"zones {low.name} and {high.name} of node {low.node} overlap at {high.start}"
            raise BadMachineError(msg)


def _fill_memory(memory: Any, state: State, layout: Layout, frames: int) -> None:
    def index(name: str) -> int:
        return layout.zone_names.index(name) if name in layout.zone_names else mmzone.NONE

    normal = index("Normal")
    memory["nr_zones"] = len(state.zones)
    # a node is online for its memory or for its CPUs
    memory["nr_nodes"] = len({zone.node for zone in state.zones}.union(layout.cpu_node))
    memory["nr_cpus"] = layout.nr_cpus
    memory["max_pfn"] = frames
    memory["zone_normal"] = normal
    memory["zone_movable"] = index("Movable")
    memory["zone_highmem"] = max(index("HighMem"), normal)
    memory["zone_dma32"] = index("DMA32")
    memory["zone_dma"] = index("DMA")
    memory["pageblock_order"] = state.pageblock_order
    memory["features"] = feature_bits(layout.kernel)


def _fill_zone(record: Any, number: int, zone: ZoneState, state: State, layout: Layout) -> None:
    cma = state.nr_migratetypes == mmzone.MIGRATE_TYPES
    record["number"] = number
    record["node"] = zone.node
    record["zone_idx"] = layout.zone_idx(zone.name)
    record["start_pfn"] = zone.start
    record["end_pfn"] = zone.end
    record["spanned_pages"] = zone.spanned
    record["present_pages"] = zone.present
    record["managed_pages"] = zone.managed
    record["watermark"][: len(zone.wmark)] = zone.wmark
    record["watermark_boost"] = zone.boost
    record["nr_reserved_highatomic"] = zone.highatomic
    record["lowmem_reserve"][: len(zone.lowmem_reserve)] = zone.lowmem_reserve
    record["pageblock_order"] = state.pageblock_order
    record["max_order"] = layout.max_order
    record["pcp_thp"] = layout.thp
    record["cma_type"] = 4 if cma else mmzone.NONE
    record["isolate_type"] = state.nr_migratetypes - 1
    record["watermark_boost_factor"] = layout.watermark_boost_factor
    record["features"] = feature_bits(layout.kernel)
    record["first_block"] = zone.start >> state.pageblock_order
    names = layout.zone_names
    record["movable_idx"] = names.index("Movable") if "Movable" in names else len(names) - 1


def _zonelist(state: State, layout: Layout) -> NDArray[Any]:
    """Rows of zonerefs, one row per node, padded with NONE."""
    bits = feature_bits(layout.kernel)
    sizes = [zone.managed if bits & MANAGED_PAGES else zone.present for zone in state.zones]
    normal = layout.zone_idx("Normal")
    nr_nodes = max(1 + max(zone.node for zone in state.zones), len(layout.node_distance))
    distance = layout.node_distance or default_distance(nr_nodes)
    has_memory = [any(zone.node == node for zone in state.zones) for node in range(nr_nodes)]
    has_cpu = [node in layout.cpu_node for node in range(nr_nodes)]
    populated = [number for number, size in enumerate(sizes) if size > 0]
    zones = [
        (state.zones[number].node, layout.zone_idx(state.zones[number].name))
        for number in populated
    ]
    by_zone = layout.zonelist_order == "zone"
    if not layout.zonelist_order and bits & ZONE_ORDER:
        table: list[list[tuple[int, bool]]] = [[] for _ in range(nr_nodes)]
        for number, (node, index) in zip(populated, zones, strict=True):
            table[node].append((sizes[number], index < normal))
        by_zone = prefers_zone_order(table)
    local_load = bool(bits & NODE_LOAD_LOCAL)
    rows = reserve(nr_nodes * len(state.zones), dtype_of(Zoneref))
    rows["zone"] = mmzone.NONE
    orders = node_order(distance, has_memory, has_cpu, local_load=local_load)
    for local, order in enumerate(orders):
        at = local * len(state.zones)
        for rank in zone_ranks(order, zones, by_zone=by_zone):
            rows[at] = (populated[rank], zones[rank][1])
            at += 1
    return rows
