# SPDX-License-Identifier: GPL-2.0-or-later
"""The twin against small worked examples: nodes, watermarks, whole requests."""

import random

import pytest
from tests.model import V2_6_24, V61, V61_CMA, Machine, ZoneSpec
from tests.model.features import ALLOC_CMA, ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK
from tests.model.features import ALLOC_NO_WATERMARKS as NO_MARKS
from tests.model.numa import NodeOrder
from tests.model.toy import ALL, KERNELS, blocks_of, events_of, toy

# ---- nodes -------------------------------------------------------------------------------------


def node_orders(distance, kernel, cpu_nodes=None):
    nodes = range(len(distance))
    orders = NodeOrder(
        distance,
        nodes,
        nodes if cpu_nodes is None else cpu_nodes,
        load_per_local_node=KERNELS[kernel].node_load_per_local_node,
    ).build()
    return ["".join(map(str, orders[node])) for node in nodes]


def distances(nr_nodes, remote):
    return [[10 if a == b else remote(a, b) for b in range(nr_nodes)] for a in range(nr_nodes)]


@pytest.mark.parametrize("kernel", ALL)
def test_node_order_of_equal_nodes(kernel):
    four = distances(4, lambda _a, _b: 20)
    assert node_orders(four, kernel) == ["0123", "1230", "2301", "3012"]
    # A node without CPUs is preferred: nobody works there.
    three = distances(3, lambda _a, _b: 20)
    assert node_orders(three, kernel, cpu_nodes=[0, 1]) == ["021", "120", "201"]


def test_node_order_of_two_pairs():
    pairs = distances(4, lambda a, b: 16 if a // 2 == b // 2 else 32)
    assert node_orders(pairs, "6.1") == ["0123", "1032", "2301", "3210"]
    # 2.6.24 forgets the load of the nodes between one local node and the next.
    assert node_orders(pairs, "2.6.24") == ["0123", "1023", "2301", "3201"]


def test_node_order_of_a_ring():
    ring = distances(6, lambda a, b: 20 if (a - b) % 6 in (1, 5) else 30)
    assert node_orders(ring, "6.1") == ["015234", "120345", "231450", "342501", "453012", "504123"]


def test_zonelist_goes_down_within_a_node_then_to_the_next():
    specs = [ZoneSpec(0, "DMA", 0, 1024), ZoneSpec(0, "DMA32", 1024, 1024)]
    specs += [ZoneSpec(0, "Normal", 2048, 1024), ZoneSpec(1, "Normal", 3072, 1024)]
    machine = Machine(specs, nr_cpus=2, cpu_node=[0, 1])
    names = {n: [(z.node, z.name) for z in zones] for n, zones in machine.zonelists.items()}
    local = [(0, "Normal"), (0, "DMA32"), (0, "DMA")]
    assert names == {0: [*local, (1, "Normal")], 1: [(1, "Normal"), *local]}


# ---- watermarks --------------------------------------------------------------------------------


def sparse_zone(features):
    """Make a zone with 20, 10 and 5 free chunks of orders 0, 1 and 2, none beside its buddy."""
    lists = {(0, "M"): [8 * i for i in range(20)], (1, "M"): [256 + 8 * i for i in range(10)]}
    lists[2, "M"] = [512 + 8 * i for i in range(5)]
    return toy(features, lists, "MM", span=1024, pbo=9, top=10).zones[0]


def test_watermark_of_2_6_24_halves_the_mark_per_order():
    zone = sparse_zone(V2_6_24)
    assert zone.nr_free_pages == 60
    # order 2: 57 > 16; without the 20 singles 37 > 8; without the 10 pairs 17 > 4.
    assert zone.zone_watermark_ok(2, 16, 2, 0)
    # order 3: 53 > 16; 33 > 8; 13 > 4; without the 5 quadruples -7 is not > 2.
    assert not zone.zone_watermark_ok(3, 16, 2, 0)
    zone.lowmem_reserve = [0, 0, 41, 0, 0]
    assert not zone.zone_watermark_ok(2, 16, 2, 0)  # 57 is not more than 16 + 41
    assert zone.zone_watermark_ok(2, 16, 2, ALLOC_MIN_RESERVE)  # half the mark


def test_watermark_of_6_1_wants_a_chunk():
    zone = sparse_zone(V61)
    assert zone.zone_watermark_ok(2, 16, 2, 0)  # 60 - 3 = 57 > 16, and a chunk of order 2 is there
    assert not zone.zone_watermark_ok(3, 16, 2, 0)  # enough frames, but no chunk
    zone.lowmem_reserve = [0, 0, 41, 0, 0]
    assert not zone.zone_watermark_ok(2, 16, 2, 0)
    assert zone.zone_watermark_ok(2, 16, 1, 0)  # a request for a lower zone: no reserve


def test_watermark_discounts_of_6_1():
    zone = sparse_zone(V61)
    both = ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK
    # 60 free frames pass below these marks: m, half of it, three quarters of the half.
    for flags, largest in [(0, 59), (ALLOC_NON_BLOCK, 59), (ALLOC_MIN_RESERVE, 118), (both, 156)]:
        assert zone.zone_watermark_ok(0, largest, 2, flags)
        assert not zone.zone_watermark_ok(0, largest + 1, 2, flags)
    zone.nr_reserved_highatomic = 30  # set aside: not for ordinary requests
    assert zone.zone_watermark_ok(0, 29, 2, 0)
    assert not zone.zone_watermark_ok(0, 30, 2, 0)
    assert zone.zone_watermark_ok(0, 59, 2, ALLOC_NON_BLOCK)


def test_watermark_ignores_boost_for_atomic_requests():
    zone = sparse_zone(V61)
    zone.wmark, zone.watermark_boost = [20, 30, 40, 50], 100
    mark = zone.wmark_pages(0)
    assert not zone.zone_watermark_fast(0, mark, 2, 0, 0)
    assert zone.zone_watermark_fast(0, mark, 2, 0, V61.gfp.ATOMIC)
    assert not zone.zone_watermark_fast(0, zone.wmark_pages(1), 2, 1, V61.gfp.ATOMIC)


# ---- whole requests ----------------------------------------------------------------------------


def test_nofragment_tries_dma32_before_it_fragments_normal():
    # Normal has only M memory below block size, DMA32 a whole free U block.
    specs = [ZoneSpec(0, "DMA32", 0, 1024), ZoneSpec(0, "Normal", 1024, 1024)]
    machine = Machine(specs, watermark_boost_factor=0)
    machine.memblock_free_pages(0, 1024)
    machine.memblock_free_pages(1024, 1024 + 256)
    kernel = 0xC00
    assert machine.alloc_pages(2, kernel) == 0
    assert events_of(machine)[0][:4] == ["xf", 0, 2, 10]
    machine.validate()
    # Without DMA32 there is nobody to help out: Normal is fragmented in the second walk.
    machine = Machine(specs[1:], watermark_boost_factor=0)
    machine.memblock_free_pages(1024, 1024 + 256)
    assert machine.alloc_pages(2, kernel) == 1024
    assert events_of(machine)[0][:4] == ["xf", 1024, 2, 8]
    machine.validate()


def test_lowmem_reserve_keeps_requests_out_of_lower_zones():
    specs = [
        ZoneSpec(0, "DMA32", 0, 1024, wmark=(10, 12, 14, 16), lowmem_reserve=(0, 0, 1020, 0, 0)),
        ZoneSpec(0, "Normal", 1024, 1024, wmark=(10, 12, 14, 16)),
    ]
    machine = Machine(specs)
    machine.memblock_free_pages(0, 1024)
    assert machine.alloc_pages(0, 0xC00) is None  # 1024 is not more than 12 + 1020
    assert machine.alloc_pages(0, 0xC04) == 0  # a DMA32 request needs no reserve


def test_atomic_request_reserves_a_block_and_may_use_it():
    # The slow path of an atomic order-2 request sets the block of what it got aside.
    machine = toy(V61, "o5/M:[0,32]")
    machine.zones[0].wmark = [4, 63, 64, 65]
    atomic = V61.gfp.HIGH | V61.gfp.ATOMIC | V61.gfp.KSWAPD_RECLAIM
    assert machine.alloc_pages(2, atomic) == 0
    assert blocks_of(machine) == "HUMM"
    machine.validate()


def test_cma_frames_serve_movable_requests_first_while_they_are_the_larger_half():
    # before  o4/M:[0] o5/C:[32]   32 of 48 free frames are CMA
    # From 16 of 32 on it is smallest fit on M, and CMA again when M is empty.
    machine = toy(V61_CMA, "o4/M:[0] o4/C:[32,48]", "MUCC", batch=1, high=4)
    movable = machine.features.gfp.MOVABLE
    first = [machine.alloc_pages(3, movable, alloc_flags=NO_MARKS | ALLOC_CMA) for _ in range(6)]
    assert first == [32, 40, 0, 48, 8, 56]
    machine.validate()
    assert machine.alloc_pages(3, movable, alloc_flags=NO_MARKS | ALLOC_CMA) is None
    for pfn in first:
        machine.free_pages(pfn, 3)
        machine.validate()
    # Requests that are not movable, and movable ones without the right, never get them.
    assert machine.alloc_pages(4, 0, alloc_flags=NO_MARKS) == 0
    assert machine.alloc_pages(4, movable, alloc_flags=NO_MARKS) is None


def test_random_work_on_two_nodes_keeps_the_invariants():
    specs = [
        ZoneSpec(0, "DMA32", 0, 1024, wmark=(8, 16, 24, 32), batch=3, high=20),
        ZoneSpec(0, "Normal", 1024, 1536, wmark=(8, 16, 24, 32), batch=7, high=40),
        ZoneSpec(1, "Normal", 2560, 1536, wmark=(8, 16, 24, 32), batch=7, high=40),
    ]
    specs[0].lowmem_reserve = (0, 0, 30, 30, 0)
    machine = Machine(specs, nr_cpus=2, cpu_node=[0, 1], pageblock_order=5, max_order=8)
    machine.memblock_free_pages(3, 4090)
    rng, held = random.Random(12), []
    for step in range(3000):
        cpu = rng.randrange(2)
        if rng.random() < (0.62 if step < 2000 else 0.3):
            order = rng.choice([0, 0, 0, 0, 1, 2, 3, 5])
            gfp = rng.choice([0xC00, 0xC10, 0xC0A, 0xC08, 0x820, 0x800])
            if order == 0 and rng.random() < 0.1:
                held += [(pfn, 0) for pfn in machine.alloc_bulk(5, gfp, cpu)]
            elif (pfn := machine.alloc_pages(order, gfp, cpu)) is not None:
                held.append((pfn, order))
        elif held:
            machine.free_pages(*held.pop(rng.randrange(len(held))), cpu)
        if step % 60 == 0:
            machine.validate()
            machine.drain_zone_pages(rng.randrange(3), cpu)
    assert {event[0] for event in machine.events} == {"zl", "xf", "dr"}
    while held:
        machine.free_pages(*held.pop(), 1)
    machine.drain_all_pages()
    machine.validate()
    assert sum(zone.nr_free_pages for zone in machine.zones) == 4090 - 3
