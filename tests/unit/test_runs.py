# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of untouched blocks of the largest order: one member of a list, same behaviour."""

import random
import resource

import numpy as np
import pytest

from physmem import Machine
from physmem.lib.errors import BadFreeError, CorruptStateError


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
