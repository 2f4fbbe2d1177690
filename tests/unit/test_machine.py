# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python face of a machine: building, asking, giving back, looking, and its refusals."""

import doctest
import subprocess
import sys
import time

import numpy as np
import pytest

import physmem
from physmem.lib import output
from physmem.lib.errors import (
    BadFreeError,
    BadMachineError,
    BadRequestError,
    BadStateError,
    OutOfMemoryError,
    PhysmemError,
)
from physmem.lib.jit import PURE
from physmem.machine import build, consequences, machine, sizing
from physmem.machine.layout import Layout, zone_names
from physmem.machine.machine import Machine
from physmem.mm.compare import compare_states
from physmem.views import buddyinfo, pagetypeinfo
from physmem.views.sample import small_state

pytestmark = pytest.mark.pure

SMALL = "20MiB"
MOVABLE = "GFP_HIGHUSER_MOVABLE"


def sample_machine():
    names = ("DMA", "Normal")
    return Machine.from_state(small_state(), Layout(zone_names=names))


@pytest.mark.parametrize("module", [build, consequences, machine, output, sizing])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


# -- building -------------------------------------------------------------------------------------


def test_zones_of_architectures():
    def spans(memory, **options):
        made = Machine.build(memory, **options)
        made.validate()
        return [(z.node, z.name, z.start_pfn, z.end_pfn) for z in made.zones]

    assert spans("20MiB") == [(0, "DMA", 0, 4096), (0, "DMA32", 4096, 5120)]
    assert spans("16MiB", arch="arm64") == [(0, "DMA", 1 << 18, (1 << 18) + 4096)]
    assert spans("16MiB", arch="riscv64") == [(0, "DMA32", 1 << 19, (1 << 19) + 4096)]
    assert spans("20MiB", nodes=2, cpus=2) == [
        (0, "DMA", 0, 2048),
        (1, "DMA", 2048, 4096),
        (1, "DMA32", 4096, 5120),
    ]
    if not PURE:
        assert [name for _, name, _, _ in spans("5GiB")] == ["DMA", "DMA32", "Normal"]
        assert spans("1GiB", arch="i386")[2] == (0, "HighMem", 0x36BFE, 1 << 18)


def test_everything_is_free_and_in_ascending_order():
    made = Machine.build(5121 << 12)
    state = made.snapshot()
    assert state.zones[0].free[10][1] == [0, 1024, 2048, 3072]
    assert state.zones[1].free[10][1] == [4096]
    assert state.zones[1].free[0][1] == [5120]
    assert made.nr_free_pages == 5121
    assert state.zones[1].pageblocks == "MMM"


def test_a_machine_too_small_to_group_is_unmovable():
    made = Machine.build("4MiB")
    assert made.snapshot().zones[0].pageblocks == "UU"
    made.free_pages(made.alloc_pages(0, MOVABLE, cpu=0))
    assert made.snapshot().zones[0].pcp[0].lists[1] == []
    made.validate()


def test_sizes_are_those_of_a_kernel():
    made = Machine.build("64MiB", cpus=2)
    dma, dma32 = made.zones
    kbytes = sizing.min_free_kbytes(16384)
    assert kbytes == 1024
    assert dma.watermark == (64, 80, 96, 112)
    assert dma32.watermark == (192, 240, 288, 336)
    assert dma.lowmem_reserve == (0, 48, 48, 48, 48)
    assert (dma32.pcp_batch, dma32.pcp_high) == (3, 120)
    assert Machine.build(SMALL, min_free_kbytes=0).zones[0].watermark[0] == 0


@pytest.mark.parametrize(
    ("memory", "options"),
    [
        ("0", {}),
        (0, {}),
        (-4096, {}),
        ("4095", {}),
        (1 << 60, {}),
        ("16EiB", {}),
        ("much", {}),
        ("1,5GiB", {}),
        (None, {}),
        (2.5, {}),
        ("64MiB", {"arch": "sparc"}),
        ("64MiB", {"cpus": 0}),
        ("64MiB", {"cpus": 1 << 20}),
        ("64MiB", {"nodes": -1}),
        ("4MiB", {"nodes": 2}),
        ("64MiB", {"min_free_kbytes": -1}),
        ("64MiB", {"min_free_kbytes": 1 << 40}),
        ("8GiB", {"arch": "i386"}),
    ],
)
def test_machines_that_cannot_exist(memory, options):
    with pytest.raises(BadMachineError) as caught:
        Machine.build(memory, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(PURE, reason="plain Python is not fast")
def test_a_tebibyte_starts_at_once_and_costs_little():
    code = (
        "import time\n"
        "from physmem.machine.machine import Machine\n"
        "Machine.build('4MiB')\n"
        "took = 9.0\n"
        "for _ in range(3):\n"
        "    start = time.perf_counter()\n"
        "    machine = Machine.build('1TiB')\n"
        "    took = min(took, time.perf_counter() - start)\n"
        "    assert machine.nr_free_pages == 1 << 28\n"
        "    del machine\n"
        # the peak of this program alone: getrusage counts that of the process that forked it, too
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(took, int(peak.split()[1]) / 2**20)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    took, gib = map(float, ran.stdout.split())
    assert took < 2.0
    assert gib < 1.5


def test_sixteen_bytes_per_page():
    made = Machine.build("64MiB")
    assert 16 <= made.bytes_per_page < 17.5
    assert made.memory_use == pytest.approx(made.bytes_per_page * 16384)


# -- asking and giving back -----------------------------------------------------------------------


def test_one_large_block_hands_out_ascending_frames():
    made = Machine.build(SMALL)
    first = made.alloc_pages(0, MOVABLE)
    batch = made.zones[1].pcp_batch
    assert [made.alloc_pages(0, MOVABLE) for _ in range(batch - 1)] == [
        first + i for i in range(1, batch)
    ]
    made.validate()


def test_gfp_as_text_and_bits():
    one, other = Machine.build(SMALL), Machine.build(SMALL)
    for flags, bits in (("GFP_KERNEL", 0xCC0), (MOVABLE, 0x100CCA), ("GFP_KERNEL|GFP_DMA", 0xCC1)):
        assert one.alloc_pages(0, flags) == other.alloc_pages(0, bits)
    assert one == other


def test_numpy_integers_are_integers():
    made = Machine.build(SMALL)
    pfn = made.alloc_pages(np.int8(2), np.uint32(0xCC0), cpu=np.int64(0), node=np.int64(0))
    made.free_pages(np.int64(pfn), np.uint8(2), cpu=np.uint8(0))
    made.validate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"order": 11}, "orders 0 .. 10"),
        ({"order": -1}, "orders 0 .. 10"),
        ({"order": 1.5}, "whole number"),
        ({"order": "1"}, "whole number"),
        ({"order": 1 << 70}, "orders 0 .. 10"),
        ({"cpu": 2}, "cpus 0 .. 1"),
        ({"cpu": -1}, "cpus 0 .. 1"),
        ({"cpu": None}, "whole number"),
        ({"node": 1}, "nodes 0 .. 0"),
        ({"node": -1}, "nodes 0 .. 0"),
        ({"node": "0"}, "whole number"),
        ({"gfp": "GFP_KERNAL"}, "GFP_KERNAL"),
        ({"gfp": 1 << 32}, "32 bits"),
        ({"gfp": 1.5}, "whole number"),
        ({"gfp": None}, "whole number"),
    ],
)
def test_requests_that_no_kernel_would_accept(arguments, words):
    made = Machine.build(SMALL, cpus=2)
    with pytest.raises(BadRequestError, match=words):
        made.alloc_pages(**arguments)
    made.validate()
    assert made == Machine.build(SMALL, cpus=2)


def test_node_minus_one_is_no_node():
    with pytest.raises(BadRequestError):
        Machine.build("20MiB", nodes=2).alloc_pages(node=-1)


def test_a_cpu_asks_its_own_node_first():
    made = Machine.build("32MiB", nodes=2, cpus=2)
    assert made.alloc_pages(4, cpu=0) < 4096 <= made.alloc_pages(4, cpu=1)
    assert made.alloc_pages(4, cpu=1, node=0) < 4096
    made.validate()


def test_memory_ends_with_a_message():
    made = Machine.build(SMALL)
    live = []

    def take_all():
        while True:
            live.append(made.alloc_pages(6))

    with pytest.raises(OutOfMemoryError) as caught:
        take_all()
    text = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert "alloc_pages(order=6, gfp=GFP_KERNEL, cpu=0, node=0)" in text
    assert f"node 0 DMA {made.zones[0].free_pages} free" in text
    assert "node 0 DMA32" in text
    assert "\n" not in text
    made.validate()
    for pfn in live:
        made.free_pages(pfn, 6)
    assert made.nr_free_pages == 5120


def test_bulk():
    made = Machine.build(SMALL)
    got = made.alloc_pages_bulk(50, MOVABLE)
    assert len(set(got)) == 50
    assert len(made.alloc_pages_bulk(1)) == 1
    assert made.alloc_pages_bulk(0) == []
    assert len(made.alloc_pages_bulk(5, "GFP_KERNEL_ACCOUNT")) == 1
    assert 0 <= len(made.alloc_pages_bulk(5120)) <= 1  # no zone can serve all: one by one
    made.validate()
    for pfn in got:
        made.free_pages(pfn)
    made.validate()
    for nr in (-1, 1 << 40, 2.5):
        with pytest.raises(BadRequestError):
            made.alloc_pages_bulk(nr)
    with pytest.raises(BadRequestError):
        made.alloc_pages_bulk(2, cpu=1)


def test_bulk_takes_no_more_than_there_is():
    made = Machine.build("4MiB", min_free_kbytes=0)
    got = made.alloc_pages_bulk(1000)
    while pfns := made.alloc_pages_bulk(100):
        got += pfns
    assert len(set(got)) == len(got) <= 1024
    made.validate()


def refused(made, pfn, order=0, **options):
    before = made.copy()
    with pytest.raises(BadFreeError) as caught:
        made.free_pages(pfn, order, **options)
    assert made == before
    assert "\n" not in str(caught.value)
    assert f"free_pages({pfn:#x}, order={order})" in str(caught.value)
    return str(caught.value)


def test_frees_that_are_wrong():
    made = Machine.build(SMALL)
    pfn = made.alloc_pages(3)
    assert "wrong order, it was allocated with order 3" in refused(made, pfn, 2)
    words = f"not the first frame of its block; it is in use, in the block of order 3 at {pfn:#x}"
    assert words in refused(made, pfn + 4, 2)
    assert "misaligned" in refused(made, pfn + 1, 3)
    single = {made.alloc_pages() for _ in range(16)}
    first = next(pfn for pfn in single if pfn + 1 in single and pfn % 2 == 0)
    assert "wrong order, it was allocated with order 0" in refused(made, first, 1)
    made.free_pages(pfn, 3)
    text = refused(made, pfn, 3)
    assert "double free" in text
    assert "on a per-CPU list (cpu 0, list 9)" in text
    made.drain()
    text = refused(made, pfn, 3)
    assert "double free or never allocated" in text
    assert "is free, in the block of order" in text
    assert "on the " in text
    assert "outside memory" in refused(made, 1 << 30)
    assert "outside memory" in refused(made, -1)
    assert "outside memory" in refused(made, 1 << 70)
    assert "outside memory" in refused(made, 5120)


def test_a_block_larger_than_what_was_allocated():
    made = Machine.build("16MiB")
    made.alloc_pages(10)
    pfn = made.alloc_pages(0)
    text = refused(made, pfn & ~7, 3)
    assert "wrong order" in text or "double free or never allocated" in text


def test_free_with_impossible_order_or_cpu():
    made = Machine.build(SMALL)
    pfn = made.alloc_pages()
    for options in ({"order": 11}, {"order": -1}, {"order": None}, {"cpu": 1}, {"cpu": -1}):
        with pytest.raises(BadRequestError):
            made.free_pages(pfn, **options)
    with pytest.raises(BadRequestError):
        made.free_pages(pfn + 0.5)
    with pytest.raises(BadRequestError):
        made.free_pages("7")
    made.free_pages(pfn)


def test_frames_of_a_loaded_state_are_freed_in_any_order():
    made = sample_machine()
    assert "in use since the state was loaded" in made.frame(3)
    made.free_pages(2, 1)
    made.free_pages(1)
    made.free_pages(4, 2)
    made.validate()
    assert "free" in refused(made, 64)


def test_drain():
    made = Machine.build(SMALL, cpus=2)
    for cpu in (0, 1):
        for gfp in ("GFP_KERNEL", "GFP_KERNEL|GFP_DMA"):
            made.free_pages(made.alloc_pages(0, gfp, cpu=cpu), cpu=cpu)
    counts = [[pcp.count for pcp in zone.pcp] for zone in made.snapshot().zones]
    assert min(map(min, counts)) > 0
    made.drain(cpu=1, zone="DMA")
    state = made.snapshot()
    assert [pcp.count for pcp in state.zones[0].pcp] == [counts[0][0], 0]
    assert [pcp.count for pcp in state.zones[1].pcp] == counts[1]
    made.drain(zone=1)
    assert [pcp.count for pcp in made.snapshot().zones[1].pcp] == [0, 0]
    made.drain()
    assert made.nr_free_pages == 5120
    made.validate()
    for options in ({"cpu": 2}, {"zone": "Normal"}, {"zone": 2}, {"zone": -1}, {"zone": 0.5}):
        with pytest.raises(BadRequestError):
            made.drain(**options)


# -- looking --------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_went_in():
    made = sample_machine()
    made.validate()
    assert compare_states(small_state(), made.snapshot()).equal
    assert made.buddyinfo() == buddyinfo.buddyinfo(small_state())
    assert made.pagetypeinfo() == pagetypeinfo.pagetypeinfo(small_state())
    assert made.nr_free_pages == sum(zone.free_pages for zone in made.zones)
    assert "Normal" in made._repr_html_()
    assert repr(made) == (
        f"Machine(24 MiB in 2 zones, 1 node, 1 cpu: {made.nr_free_pages} of 6143 frames free)"
    )


def test_pageblocks_without_memory_stay_so():
    state = small_state()
    state.zones[1].pageblocks = "UUMMM.MH"
    state.zones[1].free[0][2].clear()
    state.zones[1].free[8][2].clear()
    state.zones[1].nr_free = []
    made = Machine.from_state(state, Layout(zone_names=("DMA", "Normal")))
    assert made.snapshot().zones[1].pageblocks == "UUMMM.MH"
    made.validate()
    assert "not all of the block is memory" in refused(made, 4700)
    state.zones[1].free[0][2].append(4620)
    with pytest.raises(BadStateError, match="outside the zone's memory"):
        Machine.from_state(state, Layout(zone_names=("DMA", "Normal")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda zone: zone.free[0][0].append(2060), "on another list"),
        (lambda zone: zone.free[0][1].append(2060), "on another list"),
        (lambda zone: zone.free[0][0].append(3584 + 7), "overlap"),
        (lambda zone: zone.free[1][0].append(2051), "misaligned"),
        (lambda zone: zone.free[0][0].append(7), "outside"),
        (lambda zone: zone.free[0][0].append(-7), "outside"),
        (lambda zone: zone.free[0][0].append(1 << 70), "no frame"),
        (lambda zone: zone.free[0][0].append(6144), "outside"),
        (lambda zone: zone.pcp[0].lists[0].append(2060), "on another list"),
        (lambda zone: zone.pcp[0].lists[0].append(2100), "516"),
        (lambda zone: setattr(zone.pcp[0], "batch", 0), "batch 0"),
        (lambda zone: setattr(zone.pcp[0], "cpu", 1), "cpu 1"),
        (lambda zone: setattr(zone, "pageblocks", "UUMMMRMX"), "unknown type 'X'"),
        (lambda zone: setattr(zone, "pageblocks", "UU"), "2 pageblock letters"),
        (lambda zone: zone.free.pop(), "10 orders"),
    ],
)
def test_states_that_contradict_themselves(change, words):
    state = small_state()
    change(state.zones[1])
    with pytest.raises(PhysmemError, match=words) as caught:
        Machine.from_state(state, Layout(zone_names=("DMA", "Normal")))
    assert isinstance(caught.value, BadStateError)


def test_cpus_that_a_state_does_not_mention_can_be_used():
    state = small_state()
    state.zones[0].pcp = []
    state.zones[0].pageset_high, state.zones[0].pageset_batch = 50, 7
    made = Machine.from_state(state, Layout(zone_names=("DMA", "Normal"), cpu_node=(0, 0)))
    for _ in range(100):
        made.free_pages(made.alloc_pages(0, "GFP_KERNEL|GFP_DMA", cpu=1), cpu=1)
    made.drain()
    made.validate()


def test_zone_names_of_an_unknown_architecture():
    with pytest.raises(BadMachineError, match="vax"):
        zone_names("vax")


def test_free_blocks_is_a_table():
    table = sample_machine().free_blocks()
    assert table.num_rows == 11
    assert table["pfn"].to_pylist()[:2] == [64, 512]


def test_frames_in_words():
    made = Machine.build(SMALL)
    assert made.frame(-1) == made.frame(1 << 40) == "outside all zones"
    assert "free, in the block of order 10 at 0x400 on the Movable list" in made.frame(0x4FF)
    pfn = made.alloc_pages(2, MOVABLE)
    assert made.frame(pfn + 3) == (
        f"in use, in the block of order 2 at {pfn:#x}, movable, of node 0, zone DMA32"
    )
    made.free_pages(pfn, 2)
    assert f"(cpu 0, list 7) in the block of order 2 at {pfn:#x}" in made.frame(pfn + 1)


# -- consequences ---------------------------------------------------------------------------------


def test_events_are_collected_only_while_tracing():
    made = Machine.build("64MiB")
    made.alloc_pages(4)
    assert made.events() == []
    made.tracing()
    pfn = made.alloc_pages(0, MOVABLE)
    events = made.events()
    assert len(events) == made.zones[1].pcp_batch
    assert (events[0].name, events[0].pfn) == ("mm_page_alloc_zone_locked", pfn)
    assert events[0].percpu_refill
    assert made.events() == []
    made.free_pages(pfn)
    made.drain()
    assert repr(made.events()[0]).startswith("mm_page_pcpu_drain: pfn=0x")
    made.tracing(on=False)
    made.alloc_pages(4)
    assert made.events() == []
    made.validate()


def test_a_fallback_in_words():
    made = Machine.build("64MiB")
    made.tracing()
    made.alloc_pages(3, "GFP_KERNEL")
    fallback = next(event for event in made.events() if event.name == "mm_page_alloc_extfrag")
    assert (fallback.fallback_order, fallback.fallback_migratetype) == (10, 1)
    assert fallback.change_ownership
    assert repr(fallback) == (
        f"mm_page_alloc_extfrag: pfn={fallback.pfn:#x} alloc_order=3 fallback_order=10 "
        "alloc_migratetype=0 fallback_migratetype=1 change_ownership=1"
    )


def test_events_without_room_are_counted(monkeypatch):
    monkeypatch.setattr(machine, "TRACE_EVENTS", 3)
    made = Machine.build("64MiB")
    made.tracing()
    for _ in range(10):
        made.alloc_pages(4)
    events = made.events()
    assert [event.name == "lost" for event in events] == [False, False, True]
    assert repr(events[-1]) == f"lost: {events[-1].argument} events"
    assert events[-1].argument >= 8


# -- several machines, and the package ------------------------------------------------------------


def test_machines_are_independent():
    one, other = Machine.build(SMALL), Machine.build(SMALL)
    pfn = one.alloc_pages(3)
    assert other == Machine.build(SMALL)
    assert other.alloc_pages(3) == pfn
    one.tracing()
    other.alloc_pages(4)
    assert one.events() == []


@pytest.mark.skipif(PURE, reason="plain Python is not fast")
def test_a_pair_of_calls_is_cheap():
    made = Machine.build("64MiB")
    alloc, free = made.alloc_pages, made.free_pages
    best = 1.0
    for _ in range(200):
        start = time.perf_counter()
        for _ in range(500):
            free(alloc())
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 3e-6  # 1.1 us where it was measured


def test_the_package_is_light_and_lazy():
    code = (
        "import sys, physmem\n"
        "heavy = {'numpy', 'numba', 'pyarrow', 'msgspec', 'PIL', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(physmem.__all__) == set(dir(physmem))\n"
        "load, replay = physmem.load, physmem.replay\n"
        "assert callable(load) and callable(replay)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_public_names():
    assert physmem.Machine is Machine
    assert physmem.open is physmem.open_machine is machine.open_machine
    assert physmem.errors.BadFreeError is physmem.BadFreeError is BadFreeError
    assert physmem.Layout is Layout
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = physmem.nothing_like_it


def test_the_package_replay_can_be_called_whoever_imported_it_first():
    program = (
        "import physmem.replay.request, physmem, sys;"
        "assert callable(physmem.replay);"
        "from physmem.replay import request;"
        "physmem.Machine; assert callable(physmem.replay)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
