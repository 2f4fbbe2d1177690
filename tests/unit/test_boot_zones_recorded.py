# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures and log lines of recorded boots: seven machines, five kernels."""

import dataclasses

import pytest

from physmem.boot.features import BootFeature, boot_features
from physmem.boot.geometry import Geometry
from physmem.boot.hash_tables import (
    DENTRY,
    INODE,
    MOUNT,
    HashRequest,
    hashes_are_distributed,
    size_hash_table,
    with_pointer,
)
from physmem.boot.memmap_init import memmap_init
from physmem.boot.movable import parse_movable
from physmem.boot.pcp_sizes import pcp_sizes
from physmem.boot.ranges import MemoryRange
from physmem.boot.sizes import SizedZone, boot_watermarks, free_buffer_pages, lowmem_reserve
from physmem.boot.zone_log import zone_lines
from physmem.boot.zonelist import (
    Topology,
    built_line,
    fallback_lines,
    node_order,
    policy_zone_line,
    vm_total_pages,
)
from physmem.boot.zones import ZoneSetup, free_area_init

X86_64 = ("DMA", "DMA32", "Normal", "Movable", "Device")
I386 = ("DMA", "Normal", "HighMem", "Movable")
ARM64 = ("DMA", "DMA32", "Normal", "Movable")


@dataclasses.dataclass
class Boot:
    """What is put in, and what the machine said and showed."""

    ranges: list
    limits: dict
    total: int
    dma_reserve: int
    late: dict  # first deferred frame of each node
    freed_later: dict  # frames freed after the initcalls began, by (node, zone)
    managed: dict  # as shown when all is up
    marks: dict  # min, low, high
    batch: dict
    kbytes: int
    protection: list
    kernel: str = "6.1"
    names: tuple = X86_64
    geometry: Geometry = dataclasses.field(default_factory=Geometry)
    nodes: int = 1
    movablecore: str | None = None
    deferred: bool = True


LIMITS_512M = {"DMA": 4096, "DMA32": 131_034, "Normal": 131_034}
MEMORY_512M = [(1, 159), (256, 131_034)]
FLAT_I386 = Geometry(
    pageblock_order=10,
    struct_page=40,
    section_size_bits=None,
    bits_per_long=32,
)
LATE_X86 = 509 + 649 + 510 + 478  # decrypted, initmem and the two gaps; initrd is 383

BOOTS = {
    "x86_64-512M": Boot(
        ranges=MEMORY_512M,
        limits=LIMITS_512M,
        total=128_730,
        dma_reserve=158,
        late={0: 65_536},
        freed_later={(0, 1): 383 + LATE_X86},
        managed={(0, 0): 3840, (0, 1): 116_479},
        marks={(0, 0): (22, 27, 32), (0, 1): (663, 828, 993)},
        batch={(0, 0): 1, (0, 1): 31},
        kbytes=2745,
        protection=[[0, 445, 445, 445, 445], [0] * 5],
    ),
    "x86_64-512M-movablecore": Boot(
        ranges=MEMORY_512M,
        limits=LIMITS_512M,
        total=128_730,
        dma_reserve=158,
        late={},
        freed_later={(0, 1): LATE_X86, (0, 3): 383},
        managed={(0, 0): 3840, (0, 1): 86_106, (0, 3): 30_373},
        marks={(0, 0): (19, 23, 27), (0, 1): (421, 526, 631), (0, 3): (150, 187, 224)},
        batch={(0, 0): 1, (0, 1): 15, (0, 3): 7},
        kbytes=2370,
        protection=[[0, 327, 327, 445, 445], [0, 0, 0, 117, 117]],
        movablecore="128M",
    ),
    "x86_64-2nodes": Boot(
        ranges=[(1, 159), (256, 163_840), (163_840, 262_106, 1)],
        limits={"DMA": 4096, "DMA32": 262_106, "Normal": 262_106},
        total=257_754,
        dma_reserve=158,
        late={0: 65_536, 1: 196_608},
        freed_later={(0, 1): LATE_X86, (1, 1): 383},
        managed={(0, 0): 3840, (0, 1): 148_974, (1, 1): 96_616},
        marks={
            (0, 0): (190, 237, 284),
            (0, 1): (7296, 9120, 10_944),
            (1, 1): (4782, 5977, 7172),
        },
        batch={(0, 0): 1, (0, 1): 31, (1, 1): 31},
        kbytes=49_080,
        protection=[[0, 573, 573, 573, 573], [0] * 5],
        nodes=2,
    ),
    "i386-highmem": Boot(
        ranges=[(1, 159), (256, 307_162)],
        limits={"DMA": 4096, "Normal": 224_254, "HighMem": 307_162},
        total=304_874,
        dma_reserve=0,
        late={},
        freed_later={(0, 1): 387 + 227},
        managed={(0, 0): 3840, (0, 1): 213_339, (0, 2): 82_908, (0, 3): 0},
        marks={
            (0, 0): (190, 237, 284),
            (0, 1): (10_567, 13_208, 15_849),
            (0, 2): (80, 1109, 2138),
            (0, 3): (32, 32, 32),
        },
        batch={(0, 0): 1, (0, 1): 63, (0, 2): 15},
        kbytes=43_032,
        protection=[[0, 830, 1154, 1154], [0, 0, 2590, 2590]],
        names=I386,
        geometry=FLAT_I386,
        deferred=False,
    ),
    "arm64-512M": Boot(
        ranges=[(262_144, 393_216)],
        limits={"DMA": 393_216},
        total=129_024,
        dma_reserve=0,
        late={0: 294_912},
        freed_later={(0, 0): 354 + 1152},
        managed={(0, 0): 122_608},
        marks={(0, 0): (695, 868, 1041)},
        batch={(0, 0): 31},
        kbytes=2783,
        protection=[[0, 0, 0, 0]],
        names=ARM64,
        geometry=Geometry(migrate_types=6),
    ),
    "x86_64-512M-6.12": Boot(
        ranges=MEMORY_512M,
        limits=LIMITS_512M,
        total=130_936,
        dma_reserve=158,
        late={0: 65_536},
        freed_later={(0, 1): 368 + 507 + 1004 + 345},
        managed={(0, 0): 3840, (0, 1): 115_161, (0, 3): 0},
        marks={(0, 0): (22, 27, 32), (0, 1): (660, 825, 990), (0, 3): (32, 32, 32)},
        batch={(0, 0): 1, (0, 1): 31},
        kbytes=2733,
        protection=[[0, 441, 441, 441, 441], [0] * 5],
        kernel="6.12",
    ),
}
NAMES = list(BOOTS)


def init(boot):
    features = boot_features(boot.kernel)
    return free_area_init(
        ZoneSetup(
            ranges=[MemoryRange(*one) for one in boot.ranges],
            names=boot.names,
            max_zone_pfn=boot.limits,
            geometry=boot.geometry,
            features=features,
            request=parse_movable(None, boot.movablecore, features),
            dma_reserve=boot.dma_reserve,
        )
    )


def at_initcalls(boot, zones):
    """All zones with the frames that they managed when the initcalls began."""
    return [
        SizedZone(
            node.nid,
            zone.index,
            zone.name,
            boot.managed.get((node.nid, zone.index), 0)
            - boot.freed_later.get((node.nid, zone.index), 0),
            zone.highmem,
        )
        for node in zones.nodes
        for zone in node.zones
    ]


@pytest.mark.parametrize("name", NAMES)
def test_deferred_frames(name):
    boot = BOOTS[name]
    assert memmap_init(init(boot), deferred=boot.deferred).first_deferred_pfn == boot.late


@pytest.mark.parametrize("name", NAMES)
def test_total_pages(name):
    boot = BOOTS[name]
    zones = init(boot)
    total = vm_total_pages(zones.first_pages())
    line = f"Built {boot.nodes} zonelists, mobility grouping on.  Total pages: {boot.total}"
    assert built_line(len(zones.nodes), total, boot.geometry) == line
    names = {"arm64": "DMA", "i386-": "HighMem", "x86_6": "DMA32"}
    policy = policy_zone_line(zones.populated(), boot.names)
    assert policy == f"Policy zone: {names[name[:5]]}"


@pytest.mark.parametrize("name", NAMES)
def test_watermarks(name):
    boot = BOOTS[name]
    zones = init(boot)
    sized = at_initcalls(boot, zones)
    build = (boot.geometry, zones.features)
    marks = boot_watermarks(sized, zones.limits.normal, build, thp=True)
    assert marks.min_free_kbytes == boot.kbytes
    assert marks.raised == (name in {"x86_64-2nodes", "i386-highmem"})
    found = {
        (zone.nid, zone.index): (mark.min, mark.low, mark.high)
        for zone, mark in zip(sized, marks.zones, strict=True)
    }
    assert {ref: found[ref] for ref in boot.marks} == boot.marks
    empty = {ref for ref in found if ref not in boot.marks}
    assert all(found[ref] == (0, 0, 0) for ref in empty)


@pytest.mark.parametrize("name", NAMES)
def test_protection(name):
    boot = BOOTS[name]
    zones = init(boot)
    first = [zone.pages for zone in at_initcalls(boot, zones) if zone.nid == 0]
    table = lowmem_reserve(first, boot.names, zones.features)
    assert table[: len(boot.protection)] == boot.protection
    assert not any(any(row) for row in table[len(boot.protection) :])


@pytest.mark.parametrize("name", NAMES)
def test_per_cpu_lists(name):
    boot = BOOTS[name]
    zones = init(boot)
    build = (boot.geometry, zones.features)
    for zone in at_initcalls(boot, zones):
        ref = (zone.nid, zone.index)
        if ref not in boot.batch:
            continue
        low = boot.marks[ref][1]
        sizes = pcp_sizes(zone.pages, low, 1, build)
        assert (sizes.batch, sizes.high_min) == (boot.batch[ref], low)
        if BootFeature.PCP_AUTO_TUNING in zones.features:
            assert sizes.high_max == {(0, 0): 480, (0, 1): 14_117}[ref]


LINES_512M = """\
Zone ranges:
  DMA      [mem 0x0000000000001000-0x0000000000ffffff]
  DMA32    [mem 0x0000000001000000-0x000000001ffd9fff]
  Normal   empty
  Device   empty
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000000001000-0x000000000009efff]
  node   0: [mem 0x0000000000100000-0x000000001ffd9fff]
Initmem setup node 0 [mem 0x0000000000001000-0x000000001ffd9fff]
On node 0, zone DMA: 1 pages in unavailable ranges
On node 0, zone DMA: 97 pages in unavailable ranges
On node 0, zone DMA32: 38 pages in unavailable ranges
"""
LINES = {
    "x86_64-512M": LINES_512M,
    "x86_64-512M-6.12": LINES_512M,
    "x86_64-512M-movablecore": LINES_512M.replace(
        "each node\n", "each node\n  Node 0: 0x0000000018000000\n"
    ).replace("zone DMA32: 38", "zone Movable: 38"),
    "x86_64-2nodes": """\
Zone ranges:
  DMA      [mem 0x0000000000001000-0x0000000000ffffff]
  DMA32    [mem 0x0000000001000000-0x000000003ffd9fff]
  Normal   empty
  Device   empty
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000000001000-0x000000000009efff]
  node   0: [mem 0x0000000000100000-0x0000000027ffffff]
  node   1: [mem 0x0000000028000000-0x000000003ffd9fff]
Initmem setup node 0 [mem 0x0000000000001000-0x0000000027ffffff]
Initmem setup node 1 [mem 0x0000000028000000-0x000000003ffd9fff]
On node 0, zone DMA: 1 pages in unavailable ranges
On node 0, zone DMA: 97 pages in unavailable ranges
On node 1, zone DMA32: 38 pages in unavailable ranges
""",
    "i386-highmem": """\
Zone ranges:
  DMA      [mem 0x0000000000001000-0x0000000000ffffff]
  Normal   [mem 0x0000000001000000-0x0000000036bfdfff]
  HighMem  [mem 0x0000000036bfe000-0x000000004afd9fff]
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000000001000-0x000000000009efff]
  node   0: [mem 0x0000000000100000-0x000000004afd9fff]
Initmem setup node 0 [mem 0x0000000000001000-0x000000004afd9fff]
On node 0, zone DMA: 1 pages in unavailable ranges
On node 0, zone DMA: 97 pages in unavailable ranges
""",
    "arm64-512M": """\
Zone ranges:
  DMA      [mem 0x0000000040000000-0x000000005fffffff]
  DMA32    empty
  Normal   empty
Movable zone start for each node
Early memory node ranges
  node   0: [mem 0x0000000040000000-0x000000005fffffff]
Initmem setup node 0 [mem 0x0000000040000000-0x000000005fffffff]
""",
}


@pytest.mark.parametrize("name", NAMES)
def test_lines(name):
    boot = BOOTS[name]
    zones = init(boot)
    lines = zone_lines(zones) + memmap_init(zones, deferred=boot.deferred).lines
    assert "\n".join(lines) + "\n" == LINES[name]


def test_order_of_the_two_nodes():
    topology = Topology([[10, 20], [20, 10]], [True, True], [True, True])
    lines = fallback_lines(node_order(topology, boot_features("6.1")))
    assert lines == ["Fallback order for Node 0: 0 1 ", "Fallback order for Node 1: 1 0 "]


HASHES = [
    ("x86_64-512M", DENTRY, "linear", "65536 (order: 7, 524288 bytes, linear)"),
    ("x86_64-512M", INODE, "linear", "32768 (order: 6, 262144 bytes, linear)"),
    ("x86_64-512M", MOUNT, "linear", "1024 (order: 1, 8192 bytes, linear)"),
    ("arm64-512M", DENTRY, "linear", "65536 (order: 7, 524288 bytes, linear)"),
    ("i386-highmem", DENTRY, "linear", "131072 (order: 7, 524288 bytes, linear)"),
    ("i386-highmem", INODE, "linear", "65536 (order: 6, 262144 bytes, linear)"),
    ("i386-highmem", MOUNT, "linear", "2048 (order: 1, 8192 bytes, linear)"),
    ("x86_64-2nodes", DENTRY, "vmalloc", "131072 (order: 8, 1048576 bytes, vmalloc)"),
    ("x86_64-2nodes", INODE, "vmalloc", "65536 (order: 7, 524288 bytes, vmalloc)"),
    ("x86_64-2nodes", MOUNT, "vmalloc", "2048 (order: 2, 16384 bytes, vmalloc)"),
    ("x86_64-512M-6.12", DENTRY, "linear", "65536 (order: 7, 524288 bytes, linear)"),
    ("x86_64-512M-6.12", INODE, "linear", "32768 (order: 6, 262144 bytes, linear)"),
]
TCP = HashRequest("TCP established", 8, scale=17, most=512 * 1024)
MPTCP = HashRequest("MPTCP token", 24, entries=512)
HASHES += [
    ("x86_64-512M", TCP, "linear", "4096 (order: 3, 32768 bytes, linear)"),
    ("x86_64-2nodes", TCP, "vmalloc", "8192 (order: 4, 65536 bytes, vmalloc)"),
    ("x86_64-512M", MPTCP, "linear", "512 (order: 2, 12288 bytes, linear)"),
]


@pytest.mark.parametrize(("name", "request_", "where", "line"), HASHES)
def test_hash_tables(name, request_, where, line):
    boot = BOOTS[name]
    zones = init(boot)
    assert hashes_are_distributed(boot.nodes, boot.geometry, numa=True) == (where == "vmalloc")
    if boot.geometry.bits_per_long == 32:
        request_ = with_pointer(request_, boot.geometry)
    table = size_hash_table(
        request_, zones.nr_kernel_pages, zones.nr_all_pages, boot.geometry, zones.features
    )
    head = f"{request_.name} hash table entries: "
    assert table.line(boot.geometry, zones.features, where) == head + line


def test_pages_of_user_buffers():
    boot = BOOTS["x86_64-512M-movablecore"]
    zones = init(boot)
    sized = at_initcalls(boot, zones)
    assert free_buffer_pages(sized, zones.limits.normal) == 3840 + 86_106 - LATE_X86
