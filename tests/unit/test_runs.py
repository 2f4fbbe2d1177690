# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of untouched blocks of the largest order: one member of a list, same behaviour."""

import random
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import physmem
from physmem import Machine
from physmem.lib.errors import BadFreeError, CorruptStateError
from physmem.lib.jit import kernel, ready
from physmem.lib.struct import address
from physmem.mm.free_area import split_run
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import MIGRATE_TYPES


def _rings(machine):
    """Members of all free lists as they hang together in memory: runs count once."""
    frames = int(machine.tables.memory[0]["max_pfn"])
    return int((machine.tables.mem_map[:frames]["order"] > 0).sum())


def test_untouched_memory_is_one_member_and_reads_as_every_block():
    machine = Machine.build("4GiB", min_free_kbytes=0)
    zone = machine.snapshot().zones[1]
    assert (_rings(machine), zone.name) == (len(machine.zones), "DMA32")
    assert zone.free[10][1] == list(range(zone.start, zone.end, 1024))
    assert zone.nr_free[10] == len(zone.free[10][1])


def test_blocks_leave_a_run_from_its_head_in_order():
    machine = Machine.build("1GiB")
    start = machine.zones[1].start_pfn
    got = [machine.alloc_pages(10, "GFP_HIGHUSER_MOVABLE") for _ in range(5)]
    assert got == [start + 1024 * n for n in range(5)]
    machine.validate()
    for pfn in (got[2], got[0], got[4]):
        machine.free_pages(pfn, 10)
    machine.validate()
    head = machine.snapshot().zones[1].free[10][1][:4]
    assert head == [got[4], got[0], got[2], start + 5 * 1024]


def test_a_frame_deep_in_a_run_is_known_as_free():
    machine = Machine.build("1GiB")
    assert machine.frame(0x20123) == (
        "free, in the block of order 10 at 0x20000 on the Movable list of node 0, zone DMA32"
    )
    with pytest.raises(BadFreeError, match=r"free, in the block of order 10 at 0x20000"):
        machine.free_pages(0x20000, 10)


def test_a_fallback_takes_one_block_of_a_run():
    machine = Machine.build("1GiB", min_free_kbytes=0)
    before = machine.zones[1].free_pages
    machine.alloc_pages(0, "GFP_KERNEL")
    machine.drain()
    machine.validate()
    zone = machine.snapshot().zones[1]
    assert machine.zones[1].free_pages == before - 1
    assert len(zone.free[10][1]) == before // 1024 - 1


def test_random_work_ends_where_it_began_and_copies_agree():
    machine = Machine.build("256MiB", cpus=2)
    chance, held = random.Random(5), []
    for step in range(3000):
        if held and chance.random() < 0.45:
            pfn, order = held.pop(chance.randrange(len(held)))
            machine.free_pages(pfn, order, cpu=step & 1)
        else:
            order = chance.choice((0, 1, 3, 5, 9, 10))
            try:
                held.append((machine.alloc_pages(order, "GFP_KERNEL", cpu=step & 1), order))
            except MemoryError:
                continue
        if step % 500 == 0:
            machine.validate()
            assert machine.copy() == machine
    for pfn, order in held:
        machine.free_pages(pfn, order)
    machine.drain()
    machine.validate()
    assert machine.nr_free_pages == 256 << 8


def test_a_run_that_is_too_long_is_found():
    machine = Machine.build("1GiB")
    start = machine.zones[1].start_pfn
    machine.tables.mem_map["private"][start] += 5
    with pytest.raises(CorruptStateError, match="free_order"):
        machine.validate()


def test_a_terabyte_costs_no_more_than_a_gigabyte():
    Machine.build("1GiB")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    machine = Machine.build("1TiB", nodes=8, cpus=8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    assert np.sum([zone.free_pages for zone in machine.zones]) == 1 << 28


def test_a_pageblock_is_found_inside_a_run_by_its_place():
    machine = Machine.build("64MiB", arch="i386", kernel="2.6.24")  # sets pageblocks aside
    zone = machine.snapshot().zones[1]
    assert zone.pageblocks[:2] == "XM"
    reserved = machine.snapshot().letters.index("X")
    assert zone.free[10][reserved] == [zone.start]
    machine.validate()


# -- runs that go downwards --


def _largest(machine):
    """Members of the lists of largest blocks: runs count once."""
    frames = int(machine.tables.memory[0]["max_pfn"])
    mark = machine.layout.max_order + 1
    return int((machine.tables.mem_map[:frames]["order"] == mark).sum())


def _movable(machine):
    """The list of the largest blocks of movable memory in the last zone."""
    state = machine.snapshot()
    return state.zones[-1].free[10][state.letters.index("M")]


def test_blocks_listed_downwards_are_one_member():
    """2.6.24 has the highest block in front after its start; a state read back keeps that."""
    machine = physmem.boot("8GiB", kernel="2.6.24")
    movable = _movable(machine)
    assert len(movable) > 1000
    assert movable == sorted(movable, reverse=True)
    assert _largest(machine) < 10
    again = Machine.from_state(machine.snapshot(), machine.layout)
    assert _largest(again) <= _largest(machine)
    assert again.snapshot() == machine.snapshot()
    machine.validate()


def test_blocks_leave_a_run_that_goes_down_from_the_top():
    machine = physmem.boot("8GiB", kernel="2.6.24")
    listed = _movable(machine)
    got = [machine.alloc_pages(10, "GFP_HIGHUSER_MOVABLE") for _ in range(5)]
    assert got == listed[:5]
    for pfn in (got[2], got[0], got[4]):
        machine.free_pages(pfn, 10)
    machine.validate()
    assert _movable(machine)[:4] == [got[4], got[0], got[2], listed[5]]


def test_a_frame_deep_in_a_run_that_goes_down_is_known_as_free():
    machine = physmem.boot("8GiB", kernel="2.6.24")
    block = _movable(machine)[50]
    assert machine.frame(block + 5).startswith(f"free, in the block of order 10 at {block:#x} on")
    with pytest.raises(BadFreeError, match="free, in the block of order 10"):
        machine.free_pages(block, 10)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_runs_up_and_down_behave_as_single_blocks(data):
    """The same requests of machines whose lists are stored as runs and as single blocks."""
    kernel = data.draw(st.sampled_from(["2.6.24", "6.1", "6.12"]))
    machine = Machine.build("64MiB", kernel=kernel)
    state = machine.snapshot()
    for zone in state.zones:
        for row in zone.free[10:11]:
            for members in row:
                order = data.draw(st.sampled_from(["up", "down", "mixed"]))
                if order == "down":
                    members.reverse()
                elif order == "mixed":
                    members[:] = data.draw(st.permutations(members))
    runs = Machine.from_state(state, machine.layout)
    single = Machine.from_state(state, machine.layout)
    _take_apart(single)
    assert _rings(single) >= _rings(runs)
    held = []
    for _ in range(data.draw(st.integers(1, 25))):
        if held and data.draw(st.booleans()):
            pfn, order = held.pop(data.draw(st.integers(0, len(held) - 1)))
            for each in (runs, single):
                each.free_pages(pfn, order)
            continue
        order = data.draw(st.sampled_from([0, 3, 8, 9, 10]))
        gfp = data.draw(st.sampled_from(["GFP_KERNEL", "GFP_HIGHUSER_MOVABLE"]))
        got = [_asked(each, order, gfp) for each in (runs, single)]
        assert got[0] == got[1]
        if got[0] is not None:
            held.append((got[0], order))
    assert runs.snapshot() == single.snapshot()
    runs.validate()
    single.validate()
    assert runs.copy() == runs


def _asked(machine, order, gfp):
    try:
        return machine.alloc_pages(order, gfp)
    except MemoryError:
        return None


def _take_apart(machine):
    """Store every block of the largest order as a member of its own."""
    h = address(machine.tables.memory)
    frames = int(machine.tables.memory[0]["max_pfn"])
    apart = ready(do_take_apart)
    for number in range(len(machine.tables.zones)):
        apart(h, number)
    largest = machine.tables.mem_map[:frames]["order"] == machine.layout.max_order + 1
    assert not machine.tables.mem_map[:frames]["private"][largest].any()


@kernel
def do_take_apart(h: int, number: int) -> None:
    zone = memory_at(h).zones[number]
    for mt in range(MIGRATE_TYPES):
        head = zone.free_area[zone.max_order].head[mt]
        pfn = int(zone.mem_map[head].next)
        while pfn != head:
            split_run(zone, pfn, zone.max_order)
            pfn = int(zone.mem_map[pfn].next)


def test_a_run_that_goes_down_too_far_is_found():
    machine = physmem.boot("8GiB", kernel="2.6.24")
    top = _movable(machine)[0]
    machine.tables.mem_map["private"][top] += 1 << 12
    with pytest.raises(CorruptStateError, match="free_order"):
        machine.validate()
