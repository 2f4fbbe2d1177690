# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones at boot: worked examples, the old kernel's tables, and machines that cannot exist."""

import doctest
import importlib
import time

import pytest

from physmem.boot.active_range import EarlyNodeMap, active_range_lines, max_active_regions
from physmem.boot.features import BOOT_FEATURES, BootFeature, boot_features
from physmem.boot.geometry import Geometry
from physmem.boot.limits import zone_limits
from physmem.boot.map_sizes import (
    node_mem_map,
    section_map_bytes,
    usemap_bytes,
    wait_table_entries,
)
from physmem.boot.memmap_init import deferred_pageblocks, memmap_init
from physmem.boot.movable import MovableRequest, movable_lines, movable_pfn_lines, parse_movable
from physmem.boot.pcp_sizes import zone_batch
from physmem.boot.ranges import MIRROR, MemoryRange, by_node, check_ranges
from physmem.boot.zone_log import node_lines, zone_lines, zone_pfn_range_lines
from physmem.boot.zones import ZoneSetup, free_area_init
from physmem.lib.errors import BadMachineError

OLD, NEW = boot_features("2.6.24"), boot_features("6.1")
X86_64 = ("DMA", "DMA32", "Normal", "Movable")
I386 = ("DMA", "Normal", "HighMem", "Movable")
OLD_X86_64 = Geometry(struct_page=56)
OLD_I386 = Geometry(
    struct_page=32, pageblock_order=10, section_size_bits=None, bits_per_long=32, cache_bytes=128
)
MODULES = (
    "active_range features geometry hash_tables limits map_sizes memmap_init movable pcp_sizes "
    "ranges sizes spans zone_log zonelist zones"
)


@pytest.mark.parametrize("module", MODULES.split())
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"physmem.boot.{module}"))
    assert result.failed == 0
    assert result.attempted > 0


def setup(ranges, limits, names=X86_64, features=NEW, geometry=None, **more):
    memory = [MemoryRange(*one) for one in ranges]
    geometry = geometry or Geometry()
    return ZoneSetup(
        ranges=memory,
        names=names,
        max_zone_pfn=limits,
        geometry=geometry,
        features=features,
        **more,
    )


def figures(zones):
    return [(zone.name, zone.start_pfn, zone.spanned, zone.raw_present) for zone in zones.zones()]


# -- ZONE_MOVABLE --

ONE_NODE = [(1, 159), (256, 0xBFFE0), (0x100000, 0x140000)]
TWO_NODES = [(1, 0xC0000), (0x100000, 0x140000), (0x140000, 0x240000, 1)]


def place(ranges, features=NEW, *, end, movable_node=False, **options):
    limits = {"DMA": 4096, "DMA32": 0x100000, "Normal": end}
    core, movable = options.get("kernelcore"), options.get("movablecore")
    request = parse_movable(core, movable, features, movable_node=movable_node)
    return free_area_init(setup(ranges, limits, features=features, request=request))


@pytest.mark.parametrize("features", [OLD, NEW])
@pytest.mark.parametrize(
    ("options", "start", "pages"),
    [
        ({"kernelcore": "2G"}, 0x100000, 262_144),
        ({"kernelcore": "3G"}, 0x100400, 261_120),
        ({"kernelcore": "3584M"}, 0x120400, 130_048),
        ({"movablecore": "512M"}, 0x120000, 131_072),
        ({"movablecore": "2G"}, 0x100000, 262_144),
        ({"kernelcore": "1G", "movablecore": "512M"}, 0x120000, 131_072),
    ],
)
def test_movable_on_one_node(features, options, start, pages):
    zones = place(ONE_NODE, features, end=0x140000, **options)
    assert zones.placement.pfn == {0: start}
    assert zones.node(0).zones[3].raw_present == pages


def test_kernelcore_larger_than_memory():
    assert place(ONE_NODE, OLD, end=0x140000, kernelcore="5G").placement.pfn == {0: 0x140000}
    assert place(ONE_NODE, NEW, end=0x140000, kernelcore="5G").placement.pfn == {}
    assert place(ONE_NODE, NEW, end=0x140000, kernelcore="5G").node(0).zones[3].spanned == 0


def test_movablecore_larger_than_memory():
    """2.6.24 wraps around to a huge kernelcore; 6.1 caps it: no kernelcore, no ZONE_MOVABLE."""
    assert place(ONE_NODE, OLD, end=0x140000, movablecore="64G").placement.pfn == {0: 0x140000}
    assert place(ONE_NODE, NEW, end=0x140000, movablecore="64G").placement.pfn == {}


@pytest.mark.parametrize("features", [OLD, NEW])
@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ({"kernelcore": "2G"}, {0: 0x100000, 1: 0x140000}),
        ({"kernelcore": "3G"}, {0: 0x100000, 1: 0x140000}),
        ({"kernelcore": "4G"}, {0: 0x120400, 1: 0x160000}),
        ({"kernelcore": "6G"}, {0: 0x100400, 1: 0x200000}),
        ({"kernelcore": "7680M"}, {0: 0x130400, 1: 0x230000}),
        ({"movablecore": "2G"}, {0: 0x100000, 1: 0x200000}),
    ],
)
def test_movable_on_two_nodes(features, options, starts):
    assert place(TWO_NODES, features, end=0x240000, **options).placement.pfn == starts


@pytest.mark.parametrize(
    ("features", "units", "starts"),
    [
        (OLD, 150, {0: 65, 1: 120, 2: 185}),
        (NEW, 150, {0: 65, 2: 185}),
        (OLD, 210, {0: 95, 1: 120, 2: 215}),
        (NEW, 210, {0: 95, 2: 215}),
    ],
)
def test_movable_on_three_nodes(features, units, starts):
    unit = 1024
    ranges = [(0, 100 * unit), (100 * unit, 120 * unit, 1), (120 * unit, 320 * unit, 2)]
    zones = free_area_init(
        setup(
            ranges,
            {"Normal": 320 * unit},
            features=features,
            request=MovableRequest(kernelcore=units * unit),
        )
    )
    assert zones.placement.pfn == {nid: unit * start for nid, start in starts.items()}


def test_kernelcore_percent():
    zones = place(ONE_NODE, end=0x140000, kernelcore="80%")
    assert zones.placement.pfn == {0: 0x10D000}
    warned = place(ONE_NODE, end=0x140000, kernelcore="200%")
    assert warned.placement.pfn == {}
    assert "200%" in warned.placement.warnings[0]


def test_kernelcore_mirror():
    ranges = [(1, 0xC0000, 0, MIRROR), (0x100000, 0x120000, 0, MIRROR), (0x120000, 0x140000)]
    zones = place(ranges, end=0x140000, kernelcore="mirror")
    assert zones.placement.pfn == {0: 0x120000}
    normal, movable = zones.node(0).zones[2:4]
    assert (normal.start_pfn, normal.spanned, normal.raw_present) == (0x100000, 0x40000, 0x20000)
    assert (movable.start_pfn, movable.spanned, movable.raw_present) == (0x120000, 0x20000, 0x20000)
    warned = place(ONE_NODE, end=0x140000, kernelcore="mirror").placement
    assert warned.warnings == ("This configuration results in unmirrored kernel memory.",)


def test_kernelcore_mirror_with_nodes_inside_each_other():
    ranges = [
        (0x100000, 0x110000),
        (0x110000, 0x130000, 1, MIRROR),
        (0x130000, 0x131000),
        (0x131000, 0x140000, 1),
    ]
    with pytest.raises(BadMachineError, match="count twice"):
        place(ranges, end=0x140000, kernelcore="mirror")


def test_movable_node():
    ranges = [(1, 0xC0000), (0x100000, 0x140000), (0x140000, 0x240000, 1, 1)]
    zones = place(ranges, end=0x240000, movable_node=True, kernelcore="1G")
    assert zones.placement.pfn == {1: 0x140000}
    assert zones.node(1).zones[3].raw_present == 0x100000
    ignored = place(ranges, OLD, end=0x240000, movable_node=True)
    assert ignored.placement.pfn == {}


def test_options_that_are_no_size():
    with pytest.raises(BadMachineError, match="movablecore=lots"):
        parse_movable(None, "lots", NEW)
    with pytest.raises(BadMachineError, match="kernelcore=mirror"):
        parse_movable("mirror", None, OLD)
    assert parse_movable("50%", None, OLD).kernelcore == 0  # 50 bytes


# -- spans and what zones are left with --


def test_the_old_kernel_on_2_gib():
    zones = free_area_init(
        setup(
            [(0, 159), (256, 524_165)],
            {"DMA": 4096, "DMA32": 1 << 20, "Normal": 524_165},
            features=OLD,
            geometry=OLD_X86_64,
            dma_reserve=1116,
        )
    )
    assert figures(zones) == [("DMA", 0, 4096, 3999), ("DMA32", 4096, 520_069, 520_069)]
    assert [zone.memmap_pages for zone in zones.zones()] == [56, 7110]
    assert [zone.present for zone in zones.zones()] == [2827, 512_959]
    assert zones.nr_kernel_pages == zones.nr_all_pages == 515_786
    flat = [usemap_bytes(zone, OLD_X86_64, OLD) for zone in zones.zones()]
    assert flat == [8, 384]
    assert [zone_batch(zone.present, OLD_X86_64, OLD) for zone in zones.zones()] == [0, 31]
    assert zone_lines(zones) == [
        "Zone PFN ranges:",
        "  DMA             0 ->     4096",
        "  DMA32        4096 ->  1048576",
        "  Normal    1048576 ->  1048576",
        "Movable zone start PFN for each node",
        "early_node_map[2] active PFN ranges",
        "    0:        0 ->      159",
        "    0:      256 ->   524165",
        "On node 0 totalpages: 524068",
        "  DMA zone: 56 pages used for memmap",
        "  DMA zone: 1116 pages reserved",
        "  DMA zone: 2827 pages, LIFO batch:0",
        "  DMA32 zone: 7110 pages used for memmap",
        "  DMA32 zone: 512959 pages, LIFO batch:31",
        "  Normal zone: 0 pages used for memmap",
        "  Movable zone: 0 pages used for memmap",
    ]


def test_the_old_kernel_on_1_gib_with_highmem():
    limits = {"DMA": 4096, "Normal": 229_376, "HighMem": 262_128}
    zones = free_area_init(setup([(0, 262_128)], limits, I386, OLD, OLD_I386))
    assert figures(zones) == [
        ("DMA", 0, 4096, 4096),
        ("Normal", 4096, 225_280, 225_280),
        ("HighMem", 229_376, 32_752, 32_752),
    ]
    assert [zone.present for zone in zones.zones()] == [4064, 223_520, 32_497]
    assert zones.nr_kernel_pages == 4064 + 223_520
    assert zones.nr_all_pages == 4064 + 223_520 + 32_497
    assert node_mem_map(zones.nodes[0], OLD_I386) == (0, 256 * 1024 * 32)
    assert "  DMA zone: 0 pages reserved" in zone_lines(zones)
    assert [zone_batch(zone.present, OLD_I386, OLD) for zone in zones.zones()] == [0, 31, 7]
    assert [wait_table_entries(zone.spanned) for zone in zones.zones()] == [16, 1024, 128]


def test_8_gib_with_a_hole():
    zones = free_area_init(
        setup(
            [(1, 159), (256, 0xBFFE0), (0x100000, 0x240000)],
            {"DMA": 4096, "DMA32": 1 << 20, "Normal": 0x240000},
        )
    )
    assert figures(zones) == [
        ("DMA", 1, 4095, 3998),
        ("DMA32", 4096, 1_044_480, 782_304),
        ("Normal", 0x100000, 1_310_720, 1_310_720),
    ]
    assert [zone.memmap_pages for zone in zones.zones()] == [64, 12_224, 20_480]
    left = [zone.estimate for zone in zones.zones()]
    assert left == [3934, 770_080, 1_290_240]
    assert [zone_batch(pages, Geometry(), NEW) for pages in left] == [0, 63, 63]
    assert zones.node(0).nr_zones == 3


def test_memory_above_16_mib_only():
    """The first zone may end below the first frame: it is empty then."""
    limits = {"DMA": 4096, "DMA32": 1 << 20, "Normal": 30_000}
    for features in (OLD, NEW):
        zones = free_area_init(setup([(10_000, 30_000)], limits, features=features))
        assert figures(zones) == [("DMA32", 10_000, 20_000, 20_000)]
        first = "4096" if features == OLD else "10000"
        assert zone_pfn_range_lines(zones.limits)[1].split() == ["DMA", "10000", "->", first]


def test_small_first_zone_keeps_its_early_reservations():
    limits = {"DMA": 4096, "Normal": 9000}
    for reserved, left in ((3999, 1), (4000, 4000), (9999, 4000)):
        zones = free_area_init(setup([(0, 4064), (4096, 9000)], limits, dma_reserve=reserved))
        assert zones.node(0).zones[0].managed == left


def test_kernel_memory_pays_for_highmem_if_it_can():
    """6.1: the memmap of HighMem comes out of low memory, unless that would take half of it."""
    flat = Geometry(section_size_bits=None, bits_per_long=32, pageblock_order=10)
    for end, left in ((100_000, 7875 - 1438), (300_000, 7875)):
        limits = {"DMA": 4096, "Normal": 8000, "HighMem": end}
        zones = free_area_init(setup([(0, end)], limits, I386, NEW, flat))
        assert zones.nr_kernel_pages == left
        assert zones.nr_all_pages == 7875 + end - 8000


def test_small_zones_keep_their_memmap():
    """A zone that is mostly holes cannot pay for its struct pages: the kernel warns."""
    ranges = [(0, 10), (100_000, 100_010)]
    zones = free_area_init(
        setup(ranges, {"Normal": 100_010}, features=OLD, geometry=Geometry(struct_page=56))
    )
    assert zones.node(0).zones[2].memmap_exceeds
    assert zones.node(0).zones[2].present == 20
    assert "  Normal zone: 1367 pages exceeds realsize 20" in zone_lines(zones)


def test_lines_of_later_kernels_while_debugging():
    zones = free_area_init(setup([(1, 159), (256, 4096)], {"DMA": 4096}, dma_reserve=10))
    assert node_lines(zones.nodes[0], zones) == [
        "On node 0 totalpages: 3998",
        "  DMA zone: 64 pages used for memmap",
        "  DMA zone: 10 pages reserved",
        "  DMA zone: 3998 pages, LIFO batch:0",
    ]


def test_nodes_without_memory():
    zones = free_area_init(setup([(1, 4096, 1)], {"DMA": 4096}, online=(0, 1, 2)))
    assert [node.nid for node in zones.nodes] == [0, 1, 2]
    assert zone_lines(zones)[-3:] == [
        "Initmem setup node 0 as memoryless",
        "Initmem setup node 1 [mem 0x0000000000001000-0x0000000000ffffff]",
        "Initmem setup node 2 as memoryless",
    ]
    assert zones.populated() == {0: [], 1: [0], 2: []}


def test_frames_beyond_all_zones_are_in_none():
    zones = free_area_init(setup([(0, 5000)], {"DMA": 4096, "Normal": 4500}))
    assert sum(zone.raw_present for zone in zones.zones()) == 4500


def test_zone_limits():
    limits = zone_limits(X86_64, {"DMA": 4096, "DMA32": 0, "Normal": 9000}, 1, NEW)
    assert limits.low == (1, 4096, 4096, 0)
    assert limits.high == (4096, 4096, 9000, 0)
    assert limits.movable_zone == 2
    with pytest.raises(BadMachineError, match="HighMem"):
        zone_limits(X86_64, {"HighMem": 1}, 1, NEW)
    with pytest.raises(BadMachineError, match="Movable"):
        zone_limits(X86_64, {"Movable": 1}, 1, NEW)
    with pytest.raises(BadMachineError, match="missing"):
        zone_limits(("DMA",), {"DMA": 1}, 1, NEW)


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ([], "no memory"),
        ([(5, 5)], "not a range"),
        ([(9, 5)], "not a range"),
        ([(-1, 5)], "not a range"),
        ([(0, 1 << 60)], "not a range"),
        ([(0, 5, -1)], "node -1"),
        ([(0, 5, 1024)], "node 1024"),
        ([(0, 9), (8, 12, 1)], r"\[0x8, 0x9\) are told twice: for node 0 and for node 1"),
    ],
)
def test_memory_that_cannot_exist(ranges, text):
    with pytest.raises(BadMachineError, match=text):
        check_ranges([MemoryRange(*one) for one in ranges])


def test_other_nonsense():
    for more in ({"dma_reserve": -1}, {"online": (4000,)}):
        with pytest.raises(BadMachineError):
            free_area_init(setup([(0, 9)], {"DMA": 4096}, **more))
    with pytest.raises(BadMachineError, match="no node 7"):
        free_area_init(setup([(0, 9)], {"DMA": 4096})).node(7)
    with pytest.raises(BadMachineError, match="2\\.6\\.25"):
        boot_features("2.6.25")
    for bad in (
        {"page_shift": 5},
        {"nr_orders": 0},
        {"pageblock_order": 11},
        {"bits_per_long": 16},
        {"struct_page": 0},
        {"section_size_bits": 20},
    ):
        with pytest.raises(BadMachineError):
            Geometry(**bad)
    with pytest.raises(BadMachineError, match="FLATMEM"):
        section_map_bytes(OLD_I386)


def test_every_feature_belongs_to_a_profile():
    known = BootFeature(0)
    for rules in BOOT_FEATURES.values():
        assert len({rule.feature for rule in rules}) == len(rules)
        for rule in rules:
            known |= rule.feature
    assert known == ~BootFeature(0)


# -- the table of 2.6.24 --


def test_early_node_map_takes_the_first_entry_that_fits():
    table = EarlyNodeMap()
    for nid, start, end in [
        (0, 100, 200),
        (0, 120, 150),  # inside
        (0, 200, 250),  # touches the end
        (0, 50, 100),  # touches the start
        (1, 60, 70),  # another node: an entry of its own
        (0, 300, 400),
        (0, 250, 320),  # grows the first entry over the second
    ]:
        table.add(nid, start, end)
    spans = [(entry.nid, entry.start_pfn, entry.end_pfn) for entry in table.sorted()]
    assert spans == [(0, 50, 320), (1, 60, 70), (0, 300, 400)]
    assert table.early_pfn_to_nid(65) == 0
    assert table.early_pfn_to_nid(1000) == 0
    assert table.lines[1] == "Entering add_active_range(0, 120, 150) 1 entries of 256 used"
    table.shrink(0, 400, 390)
    table.shrink(0, 1, 2)
    assert table.sorted()[-1].end_pfn == 390
    table.clear()
    assert len(table) == 0
    assert active_range_lines(table.sorted()) == ["early_node_map[0] active PFN ranges"]


def test_early_node_map_overflows():
    table = EarlyNodeMap(capacity=2)
    for start in (0, 10, 20):
        table.add(0, start, start + 5)
    assert len(table) == 2
    assert table.lines[-1] == "More than 2 memory regions, truncating"
    assert "2 of 2" in repr(table)
    with pytest.raises(BadMachineError):
        table.add(0, 9, 5)
    assert max_active_regions(8) == 256


def test_lines_of_the_old_kernel_for_movable():
    zones = place(TWO_NODES, OLD, end=0x240000, kernelcore="4G")
    assert movable_pfn_lines(zones.placement) == [
        "Movable zone start PFN for each node",
        f"  Node 0: {0x120400}",
        f"  Node 1: {0x160000}",
    ]
    assert movable_lines(zones.placement)[1] == "  Node 0: 0x0000000120400000"
    assert zone_pfn_range_lines(zones.limits)[3] == "  Normal    1048576 ->  2359296"


# -- struct pages --


def test_pageblocks_of_the_old_kernel():
    """A pageblock needs one more frame than its first to become movable."""
    zones = free_area_init(
        setup([(0, 159), (256, 4609)], {"DMA": 4609}, features=OLD, geometry=OLD_X86_64)
    )
    runs = memmap_init(zones).pageblocks[0, 0]
    assert [(run.start_block, run.count, run.type) for run in runs] == [(0, 9, "M"), (9, 1, "U")]
    flat = Geometry(section_size_bits=None, struct_page=32)
    zones = free_area_init(setup([(0, 4609)], {"DMA": 4609}, features=OLD, geometry=flat))
    assert [run.type for run in memmap_init(zones).pageblocks[0, 0]] == ["M", "U"]


def test_highmem_begins_inside_a_pageblock():
    """FLATMEM: each zone has a map of its own, so the shared pageblock is movable in one only."""
    flat = Geometry(section_size_bits=None, struct_page=40, pageblock_order=10, bits_per_long=32)
    limits = {"DMA": 4096, "Normal": 224_254, "HighMem": 307_162}
    zones = free_area_init(setup([(1, 159), (256, 307_162)], limits, I386, NEW, flat))
    first = memmap_init(zones, deferred=False)
    found = {zones.limits.names[index]: runs for (_, index), runs in first.pageblocks.items()}
    letters = {name: "".join(run.type * run.count for run in runs) for name, runs in found.items()}
    assert letters["DMA"] == "UMMM"
    assert letters["Normal"] == "M" * 215
    assert letters["HighMem"] == "U" + "M" * 81
    assert [usemap_bytes(zone, flat, NEW) for zone in zones.zones()] == [4, 108, 44]
    assert node_mem_map(zones.nodes[0], flat) == (0, 12_288_000)
    assert first.lines == [
        "On node 0, zone DMA: 1 pages in unavailable ranges",
        "On node 0, zone DMA: 97 pages in unavailable ranges",
    ]


def test_reserved_deferred_pageblocks_stay_unmovable():
    """As recorded: blocks of vmemmap and of the per-CPU areas at the top of 512 MiB."""
    limits = {"DMA": 4096, "DMA32": 131_034}
    zones = free_area_init(setup([(1, 159), (256, 131_034)], limits))
    first = memmap_init(zones)
    assert first.first_deferred_pfn == {0: 65_536}
    free = [(0x4000, 0x1F43D), (0x1FE00, 0x1FE23)]
    zone = zones.node(0).zones[1]
    runs = deferred_pageblocks(zone, zones, 65_536, free, first.pageblocks[0, 1])
    assert "".join(run.type * run.count for run in runs) == "M" * 243 + "UUUU" + "M"


def test_a_terabyte_in_no_time():
    """64 nodes, 6,400 ranges: nothing may go frame by frame, or range by range for each node."""
    pfn, ranges = 1, []
    for index in range(6400):
        pages = 40_000 + 7 * (index % 13)
        ranges.append((pfn, pfn + pages, index // 100))
        pfn += pages + index % 5
    limits = {"DMA": 4096, "DMA32": 1 << 20, "Normal": pfn}
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        zones = free_area_init(
            setup(ranges, limits, request=MovableRequest(kernelcore=pfn // 3)),
        )
        first = memmap_init(zones)
        best = min(best, time.perf_counter() - start)
    assert len(zones.placement.pfn) == 64
    assert len(by_node(zones.ranges)) == 64
    assert first.first_deferred_pfn
    assert best < 0.5  # measured: a tenth of it
