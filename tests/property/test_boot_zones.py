# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones of random memory maps against a twin that looks at every frame."""

import random

import pytest
from tests.model.boot_zones import Machine, order_of_nodes

from physmem.boot.features import boot_features
from physmem.boot.geometry import Geometry
from physmem.boot.limits import ZoneLimits
from physmem.boot.memmap_init import memmap_init
from physmem.boot.movable import MovableRequest
from physmem.boot.ranges import HOTPLUG, MIRROR, MemoryRange
from physmem.boot.zonelist import Topology, node_order
from physmem.boot.zones import ZoneSetup, free_area_init
from physmem.lib.errors import BadMachineError

NAMES = (
    ("DMA", "DMA32", "Normal", "Movable"),
    ("DMA", "Normal", "HighMem", "Movable"),
    ("DMA32", "Normal", "Movable", "Device"),
)
MAPS, QUICK_MAPS = 10_000, 500
TOPOLOGIES = 5_000


def random_ranges(rng, base, nodes, *, interleaved):
    """Disjoint ranges with gaps, given to nodes in order or at random."""
    count = rng.randint(1, 9)
    pfn = base + rng.choice([0, 0, 1, rng.randint(0, 20)])
    pieces = []
    for _ in range(count):
        pages = rng.choice([1, 2, rng.randint(1, 9), rng.randint(1, 50)])
        pieces.append((pfn, pfn + pages))
        pfn += pages + rng.choice([0, 0, 1, rng.randint(0, 7), rng.randint(0, 40)])
    if interleaved:
        nids = [rng.choice(nodes) for _ in pieces]
    else:
        nids = sorted(rng.choice(range(len(nodes))) for _ in pieces)
        nids = [nodes[index] for index in nids]
    flags = [rng.choice([0, 0, HOTPLUG, MIRROR, HOTPLUG | MIRROR]) for _ in pieces]
    return [
        (start, end, nid, flag) for (start, end), nid, flag in zip(pieces, nids, flags, strict=True)
    ]


def random_case(rng):
    """A kernel, its geometry, memory, zone limits and a request."""
    old = rng.random() < 0.4
    names = rng.choice(NAMES)
    nodes = rng.choice([[0], [0], [0, 1], [0, 1, 2], [0, 2, 5]])
    mirror = not old and rng.random() < 0.25
    page_shift = 20 if mirror else 12
    base = rng.choice([0, 0, 1, 64, 100])
    if mirror:
        base = 4096 - rng.randint(0, 60)
    ranges = random_ranges(rng, base, nodes, interleaved=not mirror and rng.random() < 0.2)
    bottom, end = ranges[0][0], ranges[-1][1]
    limits = {}
    last = bottom
    for name in names:
        if name in {"Movable", "Device"}:
            continue
        last = rng.choice([last, rng.randint(last, end), rng.randint(bottom, end)])
        limits[name] = last
    top = [name for name in names if name not in {"Movable", "Device"}][-1]
    limits[top] = end
    if rng.random() < 0.2:
        limits[names[0]] = rng.randint(0, bottom)
    total = sum(stop - start for start, stop, _, _ in ranges)
    amount = [0, 0, 1, rng.randint(0, total), rng.randint(0, total + 20)]
    ask = {
        "kernelcore": rng.choice(amount),
        "movablecore": rng.choice(amount),
        "percent": rng.choice([0, 0, rng.randint(1, 120)]),
        "mirror": mirror,
        "movable_node": not old and rng.random() < 0.15,
    }
    orders = rng.randint(1, 5)
    sparse = rng.random() < 0.6
    section = orders - 1 + rng.randint(0, 2)
    geometry = Geometry(
        page_shift=page_shift,
        nr_orders=orders,
        pageblock_order=rng.randint(0, orders - 1),
        section_size_bits=page_shift + section if sparse else None,
    )
    return old, names, geometry, ranges, limits, ask


def compare(seed):
    rng = random.Random(seed)
    old, names, geometry, ranges, limits, ask = random_case(rng)
    twin = Machine(
        ranges,
        names,
        limits,
        old=old,
        mo=geometry.max_order_pages,
        pb=geometry.pageblock_pages,
        section=geometry.pages_per_section if geometry.sparse else None,
        page_shift=geometry.page_shift,
    )
    twin.place(ask)
    memory = [MemoryRange(*one) for one in ranges]
    rng.shuffle(memory)
    setup = ZoneSetup(
        ranges=memory,
        names=names,
        max_zone_pfn=limits,
        geometry=geometry,
        features=boot_features("2.6.24" if old else "6.1"),
        request=MovableRequest(
            kernelcore=ask["kernelcore"],
            movablecore=ask["movablecore"],
            kernelcore_percent=0 if old else ask["percent"],
            mirror=ask["mirror"],
            movable_node=ask["movable_node"],
        ),
    )
    wanted = {nid: twin.spans(nid) for nid in twin.nodes}
    if any(absent > spanned for zones in wanted.values() for _, spanned, absent in zones):
        with pytest.raises(BadMachineError, match="count twice"):
            free_area_init(setup)
        return
    zones = free_area_init(setup)
    assert dict(zones.placement.pfn) == twin.begin
    found = {
        node.nid: [(zone.start_pfn, zone.spanned, zone.absent) for zone in node.zones]
        for node in zones.nodes
    }
    assert found == wanted
    deferred = bool(rng.getrandbits(1))
    holes, late = ([], {}) if old else twin.init(deferred=deferred)
    first = memmap_init(zones, deferred=deferred)
    assert [(hole.zone, hole.nid, hole.pages) for hole in first.unavailable] == holes
    assert first.first_deferred_pfn == late
    if ask["mirror"] and not ask["movable_node"]:
        return  # zones overlap: a pageblock has two owners
    for zone in zones.zones():
        runs = first.pageblocks[zone.nid, zone.index]
        assert all(run.count > 0 for run in runs)
        starts = [sum(run.count for run in runs[:index]) for index in range(len(runs))]
        assert [run.start_block for run in runs] == starts
        letters = "".join(run.type * run.count for run in runs)
        assert letters == twin.block_types(zone.nid, zone.index), (zone, runs)


def test_random_maps_quick():
    for seed in range(QUICK_MAPS):
        compare(seed)


@pytest.mark.slow
def test_random_maps():
    for seed in range(QUICK_MAPS, MAPS):
        compare(seed)


def random_topology(rng):
    count = rng.randint(1, 9)
    steps = rng.choice([[20], [16, 22], [11, 12, 21, 31], list(range(11, 40))])
    distance = [[10] * count for _ in range(count)]
    for low in range(count):
        for high in range(low):
            distance[low][high] = rng.choice(steps)
            same = rng.random() < 0.9
            distance[high][low] = distance[low][high] if same else rng.choice(steps)
    memory = [rng.random() < 0.85 for _ in range(count)]
    cpus = [rng.random() < 0.85 for _ in range(count)]
    return distance, memory, cpus


@pytest.mark.parametrize("kernel", ["2.6.24", "6.1"])
def test_random_topologies(kernel):
    for seed in range(TOPOLOGIES):
        distance, memory, cpus = random_topology(random.Random(seed))
        found = node_order(Topology(distance, memory, cpus), boot_features(kernel))
        assert found == order_of_nodes(distance, memory, cpus, old=kernel == "2.6.24"), seed


def test_limits_leave_a_zone():
    with pytest.raises(BadMachineError):
        _ = ZoneLimits(("DMA", "Normal", "Movable"), (5, 5, 0), (5, 5, 0)).movable_zone
