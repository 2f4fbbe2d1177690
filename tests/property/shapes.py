# SPDX-License-Identifier: GPL-2.0-or-later
"""Small machines of many shapes, each as a physmem machine and as its slow twin.

Block sizes are smaller than a kernel's on most of them: more blocks fit into few frames, and with
few frames a check of everything after every step stays cheap.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec
from tests.model import V2_6_24, V61, V61_CMA, V61_I386, V612, Features, ZoneSpec
from tests.model import Machine as TwinMachine

from physmem.machine.layout import Layout, zone_names
from physmem.machine.machine import Machine
from physmem.machine.tuning import Tuning, tune
from physmem.mm.mmzone import (
    HEAD_ON_PCP,
    PG_IN_USE,
    PG_MOVABLE,
    PG_PREPARED,
    ZONE_BELOW_HIGH,
    ZONE_RECLAIM_ACTIVE,
)
from physmem.mm.state import State

X86_64, I386 = zone_names("x86_64"), zone_names("i386")


class Twin(TwinMachine):
    """The twin of these tests (soak tests spoil it)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a machine is made of.

    `free`: ranges of frames that are free at first. `letters`: zone number -> one letter per
    pageblock (all M where it is not given). `movable`: ranges in use by movable memory.
    """

    name: str
    zones: tuple[ZoneSpec, ...]
    free: tuple[tuple[int, int], ...]
    pageblock_order: int = 5
    max_order: int = 7
    names: tuple[str, ...] = X86_64
    cpu_node: tuple[int, ...] = (0,)
    node_distance: tuple[tuple[int, ...], ...] = ()
    letters: dict[int, str] = field(default_factory=dict)
    movable: tuple[tuple[int, int], ...] = ()
    features: Features = V61
    boost_factor: int = 15000
    grouping_disabled: bool = False
    zonelist_order: str = ""
    tuning: dict[str, str] = field(default_factory=dict)
    base: "Shape | None" = None  # what was tuned

    @property
    def kernel(self) -> str:
        if self.features.reserve_is_last_resort:
            return "2.6.24"
        return "6.12" if self.features.pcp_auto_tuning else "6.1"

    @property
    def nr_cpus(self) -> int:
        return len(self.cpu_node)

    @property
    def nr_nodes(self) -> int:
        """Nodes that a request may name."""
        return len(self.node_distance) or 1 + max(zone.node for zone in self.zones)

    @property
    def end(self) -> int:
        return max(zone.start + zone.spanned for zone in self.zones)

    @property
    def layout(self) -> Layout:
        return Layout(
            zone_names=self.names,
            cpu_node=self.cpu_node,
            node_distance=self.node_distance,
            max_order=self.max_order,
            thp=self.features.pcp_thp,
            watermark_boost_factor=self.boost_factor,
            kernel=self.kernel,
            zonelist_order=self.zonelist_order,
        )

    @cached_property
    def state(self) -> dict[str, Any]:
        """State of the machine when its memory has been handed over, in the form of recordings."""
        twin = TwinMachine(
            self.zones,
            self.nr_cpus,
            self.cpu_node,
            self.features,
            self.pageblock_order,
            self.max_order,
            self.node_distance or None,
            self.names,
        )
        for number, letters in self.letters.items():
            zone = twin.zones[number]
            for block, letter in zip(list(zone.pageblock), letters, strict=True):
                if letter == ".":
                    zone.pageblock[block] = None
                else:
                    zone.set_pageblock_migratetype(block, letter)
        for zone in twin.zones:  # a boot hands over chunks across blocks; here types stay apart
            zone.nr_reserved_highatomic = (
                sum(letter == "H" for letter in zone.pageblock.values()) << self.pageblock_order
            )
        size = 1 << self.pageblock_order
        for start, end in self.free:
            at = start
            while at < end:
                zone = twin.page_zone(at)
                special = zone.get_pageblock_migratetype(at) not in "UMR"
                stop = min(end, zone.end, at // size * size + size)
                while not special and stop < min(end, zone.end):
                    if zone.pageblock[stop] not in ("U", "M", "R"):
                        break
                    stop = min(end, zone.end, stop + size)
                twin.memblock_free_pages(at, stop)
                at = stop
        twin.validate()
        return twin.snapshot()

    def machine(self) -> Machine:
        if self.base is not None:
            return tune(self.base.machine(), Tuning.parse(self.tuning))
        made = Machine.from_state(
            msgspec.convert(self.state, State),
            self.layout,
            [(start, end - start) for start, end in self.movable],
        )
        made.tables.zones["grouping_disabled"] = int(self.grouping_disabled)
        return made

    def twin(self) -> Twin:
        if self.base is not None:
            return self.twin_of(self.machine())
        movable = {pfn for start, end in self.movable for pfn in range(start, end)}
        return self._twin(self.state, movable)

    def twin_of(self, machine: Machine) -> Twin:
        """Twin of a machine as it is now, with what a recorded state would not tell."""
        tables = machine.tables
        state = msgspec.to_builtins(machine.snapshot())
        letters = self.features.letters.replace("URM", "UMR")  # as the tables number them
        for zone in state["zones"]:
            for pcp in zone["pcp"]:
                pcp["remembered"] = {
                    str(pfn): letters[int(tables.mem_map[pfn]["mt"])]
                    for pfns in pcp["lists"]
                    for pfn in pfns
                }
        frames = tables.mem_map[: int(tables.memory[0]["max_pfn"])]
        assert not (frames["flags"] & PG_PREPARED).any()
        both = PG_IN_USE | PG_MOVABLE
        twin = self._twin(state, set(((frames["flags"] & both) == both).nonzero()[0].tolist()))
        for zone, record in zip(twin.zones, tables.zones, strict=True):
            zone.reclaim_active = bool(int(record["zone_flags"]) & ZONE_RECLAIM_ACTIVE)
            zone.below_high = bool(int(record["zone_flags"]) & ZONE_BELOW_HIGH)
            zone.has_had_special_blocks = True
        assert ((frames["order"] & HEAD_ON_PCP) != 0).sum() == sum(
            len(pfns) for pcps in twin.pcp for pcp in pcps for pfns in pcp.lists
        )
        return twin

    def _twin(self, state: dict[str, Any], movable: set[int]) -> Twin:
        twin = Twin.from_state(
            state,
            self.nr_cpus,
            self.cpu_node,
            self.features,
            self.node_distance or None,
            self.names,
            movable=movable,
            watermark_boost_factor=self.boost_factor,
            zonelist_order=self.zonelist_order,
        )
        knobs = self.tuning
        twin.defrag = knobs.get("fallback") == "defrag"
        for zone in twin.zones:
            zone.page_group_by_mobility_disabled = self.grouping_disabled
            if "mobility" in knobs:
                zone.page_group_by_mobility_disabled = knobs["mobility"] == "off"
            zone.no_highatomic = "confine" in knobs or knobs.get("highatomic") == "off"
            zone.list_order = knobs.get("list_order", "linux")
            if "confine" in knobs:
                zone.fallback_rule = "confined"
            elif knobs.get("fallback") == "none":
                zone.fallback_rule = "none"
        return twin


def _zone(node, name, start, end, marks, batch, high, reserve=(0, 0, 0, 0, 0), managed=None):
    """Zone with watermarks at 1, 1.25, 1.5 and 1.75 times `marks`."""
    wmark = [marks + step * marks // 4 for step in range(4)]
    return ZoneSpec(
        node,
        name,
        start,
        end - start,
        managed=managed,
        present=managed,
        wmark=wmark,
        batch=batch,
        high=high,
        lowmem_reserve=reserve,
    )


_NO_THP = replace(V61, pcp_thp=False)
_NO_THP_I386 = replace(V61_I386, pcp_thp=False)

_ALL = (
    Shape(
        name="tiny",
        zones=(_zone(0, "Normal", 0, 64, 0, 3, 12),),
        free=((0, 64),),
        pageblock_order=4,
        max_order=5,
    ),
    Shape(
        name="dma",  # the zone starts inside a block, as the first one of a PC
        zones=(
            _zone(0, "DMA", 1, 512, 8, 1, 4, (0, 20, 30, 30, 30)),
            _zone(0, "DMA32", 512, 2048, 30, 3, 20),
        ),
        free=((3, 310), (312, 2040)),
        letters={0: "U" + "M" * 15},
        cpu_node=(0, 0),
    ),
    Shape(
        name="normal",  # DMA32 helps Normal out: requests avoid fragmentation
        zones=(
            _zone(0, "DMA", 1, 256, 6, 1, 4, (0, 12, 60, 60, 60)),
            _zone(0, "DMA32", 256, 1024, 20, 3, 16, (0, 0, 50, 50, 50)),
            _zone(0, "Normal", 1024, 2560, 40, 7, 40),
        ),
        free=((2, 256), (256, 2560)),
        letters={2: "MMUR" * 12},
        cpu_node=(0, 0),
    ),
    Shape(
        name="huge",  # the block sizes of x86-64, huge pages on per-CPU lists
        zones=(
            _zone(0, "DMA32", 4096, 7168, 60, 7, 1100, (0, 0, 100, 100, 100)),
            _zone(0, "Normal", 7168, 11264, 100, 15, 90),
        ),
        free=((4100, 11200),),
        pageblock_order=9,
        max_order=10,
        cpu_node=(0, 0),
    ),
    Shape(
        name="no-thp",  # drains double up to their limit
        zones=(_zone(0, "DMA32", 0, 1000, 25, 1, 36),),
        free=((0, 1000),),
        features=_NO_THP,
        boost_factor=0,
    ),
    Shape(
        name="numa",
        zones=(
            _zone(0, "DMA32", 0, 1024, 20, 3, 16, (0, 0, 40, 40, 40)),
            _zone(0, "Normal", 1024, 1792, 20, 7, 30),
            _zone(1, "Normal", 1792, 2944, 25, 7, 30),
            _zone(1, "Movable", 2944, 3008, 0, 1, 0, managed=0),  # present, not populated
        ),
        letters={3: ".."},
        free=((1, 1500), (1510, 2944)),
        cpu_node=(0, 1, 1),
    ),
    Shape(
        # unequal distances, a node without memory, one without CPU; short per-CPU lists
        name="far",
        zones=(
            _zone(0, "Normal", 0, 512, 10, 7, 10),
            _zone(1, "Normal", 512, 1024, 10, 7, 4),
            _zone(2, "DMA32", 1024, 1280, 10, 1, 4, (0, 0, 30, 30, 30)),
            _zone(2, "Normal", 1280, 1536, 10, 3, 0),
        ),
        free=((0, 1536),),
        cpu_node=(0, 1, 3),
        node_distance=((10, 20, 30, 20), (20, 10, 20, 30), (30, 20, 10, 20), (20, 30, 20, 10)),
    ),
    Shape(
        name="absent",  # one node has all memory, the other one only a CPU
        zones=(_zone(0, "Normal", 0, 512, 10, 3, 12),),
        free=((0, 512),),
        cpu_node=(0, 1),
        node_distance=((10, 20), (20, 10)),
        letters={0: "MUMR" * 4},
    ),
    Shape(
        name="cma",
        zones=(
            _zone(0, "DMA32", 0, 512, 10, 3, 12, (0, 0, 20, 20, 20)),
            _zone(0, "Normal", 512, 1536, 20, 7, 40),
        ),
        free=((0, 1500),),
        features=V61_CMA,
        letters={0: "M" * 12 + "CCCC", 1: "M" * 16 + "C" * 12 + "MMUH"},
        cpu_node=(0, 0),
    ),
    Shape(
        name="highmem",  # zones that meet inside a block of 1024 frames
        zones=(
            _zone(0, "DMA", 0, 700, 10, 1, 4, (0, 20, 60, 60)),
            _zone(0, "Normal", 700, 3500, 40, 7, 42, (0, 0, 40, 40)),
            _zone(0, "HighMem", 3500, 6100, 32, 7, 42, (0, 0, 0, 0)),
        ),
        free=((1, 6000),),
        pageblock_order=10,
        max_order=10,
        names=I386,
        features=_NO_THP_I386,
        letters={0: "U", 1: "MMUM"},
    ),
    Shape(
        name="movable",
        zones=(
            _zone(0, "DMA32", 0, 1408, 20, 3, 14, (0, 0, 0, 25, 25)),
            _zone(0, "Movable", 1408, 2400, 20, 3, 14),
        ),
        free=((0, 2399),),
        pageblock_order=4,
        cpu_node=(0, 0),
    ),
    Shape(
        name="scarce",  # little is free, reserves are set aside, most of the rest can be moved
        zones=(
            _zone(0, "DMA32", 0, 1024, 60, 3, 20, (0, 0, 30, 30, 30)),
            _zone(0, "Normal", 1024, 1536, 50, 7, 30),
        ),
        free=(
            (40, 75),
            (96, 180),
            (500, 560),
            (640, 672),
            (1040, 1056),
            (1100, 1180),
            (1471, 1473),
        ),
        letters={0: "UMMH" + "MRMU" * 7, 1: "MMUM" * 4},
        movable=((0, 40), (180, 450), (700, 900), (1200, 1400)),
        cpu_node=(0, 0),
    ),
    Shape(
        name="reserve",  # what is free is set aside, and the watermarks allow to take it
        zones=(_zone(0, "DMA32", 0, 1024, 4, 3, 16, (0, 0, 0, 0, 0)),),
        free=((32, 62), (97, 128), (320, 340), (701, 713)),
        letters={0: "MHUH" + "M" * 6 + "H" + "M" * 21},
        cpu_node=(0, 0),
    ),
    Shape(
        name="isolated",
        zones=(_zone(0, "Normal", 64, 1088, 20, 3, 16),),
        free=((64, 1000),),
        letters={0: "MMIM" * 4 + "MMMMUIRM" * 2},
    ),
    Shape(
        name="hole",
        zones=(_zone(0, "DMA32", 0, 1024, 20, 3, 16, managed=896),),
        free=((0, 256), (320, 640), (704, 1020)),
        letters={0: "M" * 8 + ".." + "M" * 10 + ".." + "M" * 10},
    ),
    Shape(
        name="ungrouped",
        zones=(_zone(0, "DMA32", 0, 140, 4, 1, 0),),
        free=((1, 140),),
        letters={0: "UUUUU"},
        grouping_disabled=True,
    ),
)

_HOT_COLD = replace(V2_6_24, tracepoints=True)


def _old(shape, name="", **changes):
    """Make the same machine for 2.6.24: reserved pageblocks for HIGHATOMIC, hot and cold lists."""
    zones = tuple(
        replace(
            zone,
            wmark=[zone.wmark[0], zone.wmark[1], zone.wmark[2], 0],
            lowmem_reserve=zone.lowmem_reserve[:4],
            cold_high=zone.high // 3,
            cold_batch=max(1, zone.batch // 2),
        )
        for zone in shape.zones
    )
    letters = {number: text.replace("H", "X") for number, text in shape.letters.items()}
    old = replace(
        shape,
        name=(name or shape.name) + "-2.6.24",
        zones=zones,
        letters=letters,
        names=I386 if shape.names == I386 else X86_64[:4],
        features=_HOT_COLD,
    )
    return replace(old, **changes)


_BY_NAME = {shape.name: shape for shape in _ALL}
_SAME = ("tiny", "dma", "normal", "huge", "far", "absent", "highmem", "movable", "scarce")
_SAME += ("reserve", "isolated", "hole", "ungrouped")
_OLD = (
    *(_old(_BY_NAME[name]) for name in _SAME),
    _old(_BY_NAME["numa"], zonelist_order="node"),
    _old(_BY_NAME["numa"], "zone-by-zone", zonelist_order="zone"),
    _old(
        _BY_NAME["numa"],  # little low memory, far from most: zone by zone without being told
        "zone-order",
        zones=(
            _zone(0, "DMA32", 0, 256, 8, 3, 12, (0, 0, 20, 20)),
            _zone(0, "Normal", 256, 1024, 20, 7, 30, (0, 0, 0, 0)),
            _zone(1, "Normal", 1024, 1792, 20, 7, 30, (0, 0, 0, 0)),
        ),
        letters={},
        free=((0, 1790),),
    ),
)


def newer(shape: Shape) -> Shape:
    """The same machine with a kernel that follows the rules of 6.12."""
    of_6_12 = ("letters", "zone_dma32", "cma", "pcp_thp")
    features = replace(V612, **{name: getattr(shape.features, name) for name in of_6_12})
    zones = tuple(replace(z, high_max=3 * z.high + 8 * z.batch) for z in shape.zones)
    return replace(shape, name=f"{shape.name} 6.12", features=features, zones=zones)


_TUNED = (
    ("dma", {"mobility": "off"}),
    ("normal", {"mobility": "off", "list_order": "lifo"}),
    ("ungrouped", {"mobility": "on"}),
    ("normal", {"pcp": "off"}),
    ("huge", {"pcp": "60"}),
    ("movable", {"batch": "2", "watermark_boost_factor": "0"}),
    ("normal", {"fallback": "none"}),
    ("scarce", {"fallback": "none"}),
    ("normal", {"fallback": "defrag"}),
    ("numa", {"fallback": "defrag"}),
    ("scarce", {"list_order": "address"}),
    ("huge", {"list_order": "address", "pcp": "off"}),
    ("cma", {"list_order": "address", "fallback": "defrag"}),
    ("highmem", {"list_order": "fifo"}),
    ("normal", {"confine": "1MiB"}),
    ("movable", {"confine": "512KiB@high", "pcp": "off"}),
    ("scarce", {"confine": "700KiB", "list_order": "address"}),
    ("reserve", {"highatomic": "off"}),
    ("normal", {"max_order": "5", "pageblock_order": "4"}),
    ("huge", {"max_order": "8"}),
    ("dma", {"max_order": "9", "pageblock_order": "6"}),
)
"""Shapes under other rules."""


def _tuned(shape: Shape, tuning: dict[str, str]) -> Shape:
    words = " ".join(f"{name}={value}" for name, value in tuning.items())
    sizes = {name: int(tuning[name]) for name in ("max_order", "pageblock_order") if name in tuning}
    if "max_order" in sizes:
        sizes.setdefault("pageblock_order", min(shape.pageblock_order, sizes["max_order"]))
    made = replace(shape, name=f"{shape.name} {words}", tuning=tuning, base=shape, **sizes)
    made.__dict__["state"] = shape.state  # of the machine before it was tuned
    return made


_BASES = {shape.name: shape for shape in (*_ALL, *_OLD, *map(newer, _ALL))}
_MORE = [
    _tuned(_BASES[name], tuning)
    for base, tuning in _TUNED
    for name in (base, f"{base}-2.6.24", f"{base} 6.12")
    if name in _BASES
    and not ("2.6.24" in name and {"highatomic", "watermark_boost_factor"} & tuning.keys())
]
SHAPES = _BASES | {shape.name: shape for shape in _MORE}
