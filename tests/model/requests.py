# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request means: from gfp bits and a CPU to zones, migratetype and allocation flags."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .features import (
    ALLOC_CMA,
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_WMARK_MIN,
    V61,
    Features,
)
from .free_area import Event, ZoneSpec
from .numa import NodeOrder, default_distance
from .pcp import PerCpuPages, PerCpuPagesAuto, PerCpuPagesHotCold
from .zone import Zone

X86_64_ZONES = ("DMA", "DMA32", "Normal", "Movable", "Device")
I386_ZONES = ("DMA", "Normal", "HighMem", "Movable")


@dataclass
class AllocContext:
    """What a request means on this machine."""

    zones: list[Zone]  # the eligible ones, best first
    highest_zoneidx: int
    letter: str

    @property
    def preferred(self) -> Zone:
        return self.zones[0]


class Requests:
    """Zones of all nodes and per-CPU lists of all CPUs, and which of them a request may use."""

    def __init__(
        self,
        zones: Iterable[ZoneSpec],
        nr_cpus: int = 1,
        cpu_node: Sequence[int] | None = None,
        features: Features = V61,
        pageblock_order: int = 9,
        max_order: int = 10,
        node_distance: Sequence[Sequence[int]] | None = None,
        zone_names: Sequence[str] | None = None,
        *,
        watermark_boost_factor: int = 15000,
        zonelist_order: str = "",
    ) -> None:
        specs = list(zones)
        if zone_names is None:
            highmem = any(spec.name == "HighMem" for spec in specs)
            zone_names = I386_ZONES if highmem else X86_64_ZONES
        self.features, self.zone_names = features, tuple(zone_names)
        self.pageblock_order, self.max_order = pageblock_order, max_order
        self.nr_cpus = nr_cpus
        self.cpu_node = list(cpu_node) if cpu_node is not None else [0] * nr_cpus
        self.events: list[Event] = []
        self.wakeups: list[int] = []  # zones whose kswapd was woken because of a boost
        self.movable: set[int] = set()
        self.prepared: dict[int, int] = {}  # pfn -> order: freed, not yet on any list

        self.zones: list[Zone] = []
        self.pcp: list[list[PerCpuPages]] = []  # pcp[zone][cpu]
        kind = PerCpuPages
        if features.pcp_auto_tuning:
            kind = PerCpuPagesAuto
        if features.pcp_one_list_of_mixed_types:
            kind = PerCpuPagesHotCold
        for spec in specs:
            zone = Zone(spec, features, pageblock_order, max_order, self.events, self.movable)
            zone.index = self.zone_names.index(spec.name)
            zone.movable_index = self.zone_names.index("Movable")
            zone.watermark_boost_factor = watermark_boost_factor
            zone.nr_in_use = zone.managed
            self.zones.append(zone)
            self.pcp.append([kind(zone, cpu, spec) for cpu in range(nr_cpus)])

        nodes = {zone.node for zone in self.zones} | set(self.cpu_node)
        self.nr_online_nodes = len(nodes)
        self.node_distance = node_distance or default_distance(max(nodes) + 1)
        self.zonelists: dict[int, list[Zone]] = {}
        self.zonelists_nofallback: dict[int, list[Zone]] = {}
        self.zonelist_order = zonelist_order  # "node", "zone", or by the sizes of the zones
        self.build_zonelists()

    # ---- zonelists -------------------------------------------------------------------------------

    def build_zonelists(self) -> None:
        """Per node: all populated zones, nearest node first, within a node from the top down."""
        orders = NodeOrder(
            self.node_distance,
            [zone.node for zone in self.zones if self.populated(zone)],
            self.cpu_node,
            load_per_local_node=self.features.node_load_per_local_node,
        ).build()
        for local, order in orders.items():
            populated = [
                zone
                for node in order
                for zone in sorted(self.zones, key=lambda zone: -zone.index)
                if zone.node == node and self.populated(zone)
            ]
            if self.takes_zone_order():
                populated = [
                    zone
                    for index in reversed(range(len(self.zone_names)))
                    for node in order
                    for zone in self.zones
                    if zone.node == node and zone.index == index and self.populated(zone)
                ]
            self.zonelists[local] = populated
            self.zonelists_nofallback[local] = [z for z in populated if z.node == local]

    def populated(self, zone: Zone) -> bool:
        """Tell whether a zone is in zonelists; 2.6.24 counts what is there, not what it manages."""
        return bool(zone.present if self.features.zone_order else zone.managed)

    def takes_zone_order(self) -> bool:
        """Tell whether zonelists go zone by zone (default_zonelist_order)."""
        if not self.features.zone_order or self.zonelist_order:
            return self.zonelist_order == "zone"
        normal = self.zone_names.index("Normal")
        nodes = {zone.node for zone in self.zones if zone.present}
        low_of, all_of = dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
        for zone in self.zones:
            if zone.present:
                all_of[zone.node] += zone.present
                low_of[zone.node] += zone.present if zone.index < normal else 0
        low, total = sum(low_of.values()), sum(all_of.values())
        if low == 0 or low > total // 2:
            return False
        average = total // (len(nodes) + 1)
        for node in nodes:
            big = all_of[node] > average
            if low_of[node] and big and low_of[node] > all_of[node] * 70 // 100:
                return False
        return True

    def page_zone(self, pfn: int) -> Zone:
        return next(zone for zone in self.zones if zone.zone_spans_pfn(pfn))

    def pcp_of(self, zone: Zone, cpu: int) -> PerCpuPages:
        return self.pcp[self.zones.index(zone)][cpu]

    # ---- reading a request -----------------------------------------------------------------------

    def gfp_zone(self, gfp: int) -> int:
        """Return the index of the highest zone the request may use."""
        bits, names = self.features.gfp, self.zone_names
        name = "Normal"
        if gfp & bits.DMA:
            name = "DMA"
        elif gfp & bits.DMA32:
            name = "DMA32" if "DMA32" in names else "Normal"
        elif gfp & bits.HIGHMEM:
            lower = "HighMem" if "HighMem" in names else "Normal"
            name = "Movable" if gfp & bits.MOVABLE else lower
        return names.index(name)

    def gfp_migratetype(self, gfp: int) -> str:
        bits = self.features.gfp
        if self.zones[0].page_group_by_mobility_disabled:
            return "U"
        if gfp & bits.MOVABLE:
            return "M"
        return "R" if gfp & bits.RECLAIMABLE else "U"

    def prepare_alloc_pages(self, gfp: int, cpu: int, nid: int | None) -> AllocContext:
        node = self.cpu_node[cpu] if nid is None else nid
        only_local = gfp & self.features.gfp.THISNODE
        zonelist = (self.zonelists_nofallback if only_local else self.zonelists)[node]
        highest = self.gfp_zone(gfp)
        zones = [zone for zone in zonelist if zone.index <= highest]
        if self.features.classzone_is_first_zone and zones:
            highest = zones[0].index
        return AllocContext(zones, highest, self.gfp_migratetype(gfp))

    def gfp_to_alloc_flags_cma(self, ac: AllocContext) -> int:
        return ALLOC_CMA if self.features.cma and ac.letter == "M" else 0

    def alloc_flags_nofragment(self, gfp: int, ac: AllocContext) -> int:
        """Return KSWAPD if the gfp bit is set, and NOFRAGMENT if DMA32 can help Normal out."""
        flags = ALLOC_KSWAPD if gfp & self.features.gfp.KSWAPD_RECLAIM else 0
        zone = ac.preferred
        if not self.features.zone_dma32 or zone.name != "Normal":
            return flags
        has_dma32 = any(z.node == zone.node and z.name == "DMA32" and z.managed for z in self.zones)
        if self.nr_online_nodes > 1 and not has_dma32:
            return flags
        return flags | ALLOC_NOFRAGMENT

    def gfp_to_alloc_flags(self, gfp: int, order: int, ac: AllocContext) -> int:
        """Return the flags of the slow path."""
        bits = self.features.gfp
        flags = ALLOC_WMARK_MIN | ALLOC_CPUSET | self.gfp_to_alloc_flags_cma(ac)
        flags |= ALLOC_MIN_RESERVE if gfp & bits.HIGH else 0
        flags |= ALLOC_KSWAPD if gfp & bits.KSWAPD_RECLAIM else 0
        if not gfp & bits.DIRECT_RECLAIM:
            if not gfp & bits.NOMEMALLOC or not self.features.highatomic:
                flags |= ALLOC_NON_BLOCK
                if self.features.highatomic and order > 0 and flags & ALLOC_MIN_RESERVE:
                    flags |= ALLOC_HIGHATOMIC
            if flags & ALLOC_MIN_RESERVE:
                flags &= ~ALLOC_CPUSET
        return flags
