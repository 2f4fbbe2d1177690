# SPDX-License-Identifier: GPL-2.0-or-later
"""Zonelists, reserves, per-CPU lists and hash tables: worked examples of several kernels."""

import pytest

from physmem.boot.features import boot_features
from physmem.boot.geometry import Geometry
from physmem.boot.hash_tables import (
    DENTRY,
    INODE,
    HashRequest,
    HashTable,
    pid_hash_line,
    pid_hash_table,
    size_hash_table,
    with_pointer,
)
from physmem.boot.map_sizes import section_map_bytes, section_root_bytes, section_usage_bytes
from physmem.boot.pcp_sizes import hot_cold_sizes, pcp_sizes, zone_batch
from physmem.boot.sizes import (
    SizedZone,
    boot_watermarks,
    lowmem_reserve,
    min_free_kbytes,
    reserve_blocks,
    total_reserve,
    zone_watermarks,
)
from physmem.boot.zonelist import (
    NODE_ORDER,
    ZONE_ORDER,
    Topology,
    build_zonelists,
    built_line,
    default_zonelist_order,
    far_nodes,
    groups_by_mobility,
    node_order,
    node_rotation,
    policy_zone_line,
)
from physmem.lib.errors import BadMachineError

OLD, NEW, NEWEST = (boot_features(kernel) for kernel in ("2.6.24", "6.1", "6.12"))
G4K = Geometry()
X86_64 = ("DMA", "DMA32", "Normal", "Movable")
I386 = ("DMA", "Normal", "HighMem", "Movable")


def sized(*pages, names=X86_64, nid=0):
    return [
        SizedZone(nid, index, names[index], frames, names[index] == "HighMem")
        for index, frames in enumerate(pages)
    ]


def marks(zones, normal, features, **more):
    result = boot_watermarks(zones, normal, (G4K, features), **more)
    rows = [(mark.min, mark.low, mark.high) for mark in result.zones]
    return result.min_free_kbytes, rows


# -- zonelists --


def topology(distance, cpus=None, memory=None):
    count = len(distance)
    return Topology(distance, memory or [True] * count, cpus or [True] * count)


def text(orders):
    return " ".join("".join(map(str, order)) for order in orders)


ALL_20 = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
PAIRS = [[10 if a == b else 16 if a // 2 == b // 2 else 22 for b in range(4)] for a in range(4)]
RING = [[10 if a == b else 20 if (a - b) % 6 in {1, 5} else 30 for b in range(6)] for a in range(6)]


@pytest.mark.parametrize(
    ("distance", "cpus", "old", "new"),
    [
        (ALL_20, None, "0123 1230 2301 3012", "0123 1230 2301 3012"),
        (PAIRS, None, "0123 1023 2301 3201", "0123 1032 2301 3210"),
        (ALL_20, [1, 1, 0, 1], "0213 1230 2301 3201", "0213 1230 2301 3201"),
        ([row[:3] for row in ALL_20[:3]], [1, 1, 0], "021 120 201", "021 120 201"),
        (RING, None, None, "015234 120345 231450 342501 453012 504123"),
    ],
)
def test_node_order(distance, cpus, old, new):
    assert text(node_order(topology(distance, cpus), NEW)) == new
    if old:
        assert text(node_order(topology(distance, cpus), OLD)) == old


def test_a_node_without_memory_is_only_its_own_first():
    orders = node_order(topology(ALL_20, memory=[True, False, True, True]), NEW)
    assert [order[0] for order in orders] == [0, 1, 2, 3]
    assert all(1 not in order[1:] for order in orders)
    lists = build_zonelists(orders[1], {0: [0], 2: [0], 3: [0]}, 2)
    assert lists.local == ((), ())
    assert lists.fallback == ((3, 0), (2, 0), (0, 0))


def test_zonelists_by_node_and_by_zone():
    populated = {0: [0, 1, 3], 1: [1, 2]}
    by_node = build_zonelists([0, 1], populated, 4, NODE_ORDER)
    assert by_node.by_zone[0] == ((0, 0),)
    assert by_node.by_zone[2] == ((0, 1), (0, 0), (1, 2), (1, 1))
    assert by_node.fallback == ((0, 3), (0, 1), (0, 0), (1, 2), (1, 1))
    assert by_node.local[3] == ((0, 3), (0, 1), (0, 0))
    by_zone = build_zonelists([1, 0], populated, 4, ZONE_ORDER)
    assert by_zone.fallback == ((0, 3), (1, 2), (1, 1), (0, 1), (0, 0))
    assert by_zone.by_zone[1] == ((1, 1), (0, 1), (0, 0))
    assert by_zone.local[3] == ((1, 2), (1, 1))


def test_choice_of_node_or_zone_order():
    none_low = {(0, 2): 1000, (1, 2): 1000}
    assert default_zonelist_order(none_low, 2) == NODE_ORDER
    mostly_low = {(0, 1): 1001, (1, 2): 1000}
    assert default_zonelist_order(mostly_low, 2) == NODE_ORDER
    low_node = {(0, 1): 900, (0, 2): 100, (1, 2): 1000, (2, 2): 1000}
    assert default_zonelist_order(low_node, 2) == NODE_ORDER
    little_low = {(0, 1): 100, (0, 2): 900, (1, 2): 1000}
    assert default_zonelist_order(little_low, 2) == ZONE_ORDER


def test_zonelist_lines():
    assert built_line(2, 100, G4K, NODE_ORDER) == (
        "Built 2 zonelists in Node order, mobility grouping off.  Total pages: 100"
    )
    assert policy_zone_line({0: [0, 1, 2], 1: [2, 3]}, X86_64) == "Policy zone: Normal"
    with_cma = Geometry(migrate_types=6)
    assert [groups_by_mobility(pages, with_cma) for pages in (3071, 3072)] == [False, True]
    assert node_rotation(2) == [[0, 1], [1, 0]]
    assert not far_nodes(topology(ALL_20))
    assert far_nodes(topology(PAIRS))


@pytest.mark.parametrize(
    "bad", [([], [], []), ([[10]], [True, True], [True]), ([[9]], [True], [True])]
)
def test_topologies_that_cannot_exist(bad):
    with pytest.raises(BadMachineError):
        Topology(*bad)


# -- reserves --


def test_watermarks_of_the_old_kernel():
    assert marks(sized(2827, 512_959), 2, OLD) == (5745, [(7, 8, 10), (1428, 1785, 2142)])
    kbytes, rows = marks(sized(4064, 223_520, 32_497, names=I386), 1, OLD)
    assert kbytes == 3816
    assert rows == [(17, 21, 25), (936, 1170, 1404), (32, 66, 100)]
    kbytes, rows = marks(sized(4000, 221_184, 32_768, names=I386), 1, OLD)
    assert kbytes == 3796
    assert rows == [(16, 20, 24), (932, 1165, 1398), (32, 66, 101)]


def test_watermarks_of_6_1():
    zones = sized(3840, 765_931, 1_279_203)
    assert marks(zones, 2, NEW) == (
        11451,
        [(5, 8, 11), (1069, 1834, 2599), (1786, 3065, 4344)],
    )
    thp = (67584, [(31, 38, 45), (6315, 7893, 9471), (10_548, 13_185, 15_822)])
    assert marks(zones, 2, NEW, thp=True) == thp
    assert marks(sized(3840, 49_463), 2, NEW, thp=True) == (1846, [(33, 41, 49), (427, 533, 639)])
    zones = sized(3840, 500_000, 3_600_000)
    assert marks(zones, 2, NEW) == (
        16206,
        [(3, 6, 9), (493, 993, 1493), (3553, 7153, 10_753)],
    )
    assert marks(zones, 2, NEW, thp=True)[1][2] == (14_821, 18_526, 22_231)


def test_empty_movable_zone():
    """6.1 keeps 32 frames of it when it would be HighMem; 6.12 always."""
    zones = sized(3840, 100_000, 0, 0)
    assert marks(zones, 2, NEW)[1][3] == (0, 0, 0)
    assert marks(zones, 2, NEWEST)[1][3] == (32, 32, 32)
    rows = zone_watermarks([SizedZone(0, 3, "Movable", 0, highmem=True)], 1000, G4K, NEW)
    assert rows[0].promo == 32


def test_limits_of_min_free_kbytes():
    assert [min_free_kbytes(pages, G4K, NEW) for pages in (1, 1 << 40)] == [128, 262_144]
    assert [min_free_kbytes(pages, G4K, OLD) for pages in (1, 1 << 40)] == [128, 65_536]
    assert min_free_kbytes(1 << 18, G4K, NEW, user=1000) == 4096
    assert min_free_kbytes(1 << 18, G4K, NEW, user=9000) == 9000


@pytest.mark.parametrize("shift", [12, 14, 16])
def test_page_size_does_not_change_what_is_kept_free(shift):
    geometry = Geometry(page_shift=shift, nr_orders=11, section_size_bits=29)
    assert min_free_kbytes((8 << 30) >> shift, geometry, NEW) == 11_585
    rows = zone_watermarks([SizedZone(0, 0, "DMA", (8 << 30) >> shift)], 11_585, geometry, NEW)
    assert rows[0].min == (11_585 << 10) >> shift


def test_lowmem_reserve():
    old = lowmem_reserve([2827, 512_959, 0, 0], X86_64, OLD)
    assert old == [[0, 2003, 2003, 2003], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    old = lowmem_reserve([4000, 221_184, 32_768, 0], I386, OLD)
    assert old[:2] == [[0, 864, 992, 992], [0, 0, 1024, 1024]]
    pages = [3840, 765_931, 1_279_203, 0]
    new = lowmem_reserve(pages, X86_64, NEW)
    assert new == [[0, 2991, 7988, 7988], [0, 0, 4996, 4996], [0] * 4, [0] * 4]
    assert total_reserve(pages, new, [45, 9471, 15_822, 0]) == 34_129
    assert total_reserve([10, 0], [[0, 50], [0, 0]], [5, 0]) == 10
    assert lowmem_reserve([0, 100, 100, 0], X86_64, NEW)[0] == [0] * 4
    assert lowmem_reserve([0, 100_000, 100_000, 0], X86_64, OLD)[0] == [0, 390, 781, 781]


def test_reserve_blocks():
    assert [reserve_blocks(mark, G4K) for mark in (0, 1, 512, 513)] == [0, 1, 1, 2]


# -- per-CPU lists --

PAGES = (3840, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)


def test_sizes_of_per_cpu_lists():
    hot_cold = [hot_cold_sizes(pages, (G4K, OLD)) for pages in PAGES]
    assert [(one.hot_high, one.hot_batch) for one in hot_cold] == [
        (0, 1),
        (6, 1),
        (18, 3),
        (42, 7),
        (90, 15),
        (186, 31),
        (186, 31),
    ]
    assert [(one.cold_high, one.cold_batch) for one in hot_cold] == [
        (0, 1),
        (2, 1),
        (6, 1),
        (14, 3),
        (30, 7),
        (62, 15),
        (62, 15),
    ]
    batches = [pcp_sizes(pages, 0, 1, (G4K, NEW)).batch for pages in PAGES]
    assert batches == [1, 1, 3, 7, 15, 31, 63]


def test_special_per_cpu_lists():
    boot = hot_cold_sizes(262_144, (G4K, OLD), boot=True)
    assert (boot.hot_high, boot.hot_batch, boot.cold_high, boot.cold_batch) == (0, 1, 0, 1)
    fraction = hot_cold_sizes(262_144, (G4K, OLD), fraction=8)
    assert (fraction.hot_high, fraction.hot_batch, fraction.cold_high) == (32_768, 96, 62)
    assert hot_cold_sizes(80, (G4K, OLD), fraction=8).hot_batch == 2
    both = pcp_sizes(100_000, 500, 2, (G4K, NEWEST), fraction=10)
    assert (both.high_min, both.high_max) == (5000, 5000)
    least = pcp_sizes(100_000, 0, 4, (G4K, NEW))
    assert least.high_min == 4 * least.batch
    assert zone_batch(1 << 20, Geometry(page_shift=16, section_size_bits=29), NEW) == 3
    with pytest.raises(BadMachineError, match="fraction"):
        pcp_sizes(1, 1, 1, (G4K, NEW), fraction=7)


# -- hash tables --


def test_hash_tables_of_the_old_kernel():
    pages = 515_786
    dentry = size_hash_table(DENTRY, pages, pages, G4K, OLD)
    assert dentry.line(G4K, OLD) == (
        "Dentry cache hash table entries: 262144 (order: 9, 2097152 bytes)"
    )
    inode = size_hash_table(INODE, pages, pages, G4K, OLD)
    assert inode.line(G4K, OLD) == (
        "Inode-cache hash table entries: 131072 (order: 8, 1048576 bytes)"
    )
    pid = pid_hash_table(pages, G4K)
    assert pid_hash_line(pid) == "PID hash table entries: 4096 (order: 12, 32768 bytes)"
    assert pid_hash_table(0, G4K).entries == 16


def test_hash_tables_grow_slower_beyond_64_gib():
    entries = [
        size_hash_table(DENTRY, gib << 18, gib << 18, G4K, NEW).entries
        for gib in (32, 64, 128, 256, 512, 1024)
    ]
    assert entries == [1 << 22, 1 << 23, 1 << 23, 1 << 24, 1 << 24, 1 << 25]
    old = size_hash_table(DENTRY, 1 << 28, 1 << 28, G4K, OLD)
    assert old.entries == 1 << 27


def test_limits_of_hash_tables():
    def size(**more):
        return size_hash_table(HashRequest("T", 8, scale=13, **more), 1000, 1000, G4K, NEW)

    assert size().entries == 512
    assert size(least=1 << 12).entries == 1 << 12
    assert size(most=100).entries == 64
    assert size(entries=300).entries == 512
    tiny = size_hash_table(HashRequest("T", 8, scale=20), 100, 100, G4K, NEW)
    assert tiny.entries == 512
    small = size_hash_table(HashRequest("T", 8, scale=24, small_shift=4), 100, 100, G4K, NEW)
    assert small.entries == 16
    assert small.line(G4K, NEW) == "T hash table entries: 16 (order: 0, 128 bytes, linear)"
    with pytest.raises(BadMachineError, match="single bucket"):
        size_hash_table(HashRequest("T", 4096, scale=12), 1, 1, G4K, NEW)


def test_a_table_that_finds_no_memory_is_halved():
    table = HashTable("T", 8, 1).halved()
    assert table.entries == 1
    with pytest.raises(BadMachineError, match="Failed to allocate T hash table"):
        table.halved()
    assert with_pointer(DENTRY, Geometry(bits_per_long=32)).bucket_bytes == 4


# -- what describes frames --


def test_maps_of_sections():
    assert section_map_bytes(G4K, 2 << 20) == 2 << 20
    assert section_usage_bytes(G4K, NEW) == 56
    assert section_usage_bytes(G4K, NEW, rcu_head=False) == 40
    assert section_usage_bytes(G4K, OLD) == 24
    assert section_root_bytes(G4K, 46) == (16_384, 256)
    assert section_root_bytes(G4K, 46, descriptor=32) == (32_768, 128)
