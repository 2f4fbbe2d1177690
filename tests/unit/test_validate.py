# SPDX-License-Identifier: GPL-2.0-or-later
"""Break each invariant on purpose and hear its name."""

import random

import numpy as np
import pytest

from physmem.lib.errors import CorruptStateError, OutOfMemoryError
from physmem.machine.machine import Machine
from physmem.machine.tuning import Tuning, tune
from physmem.machine.validate import INVARIANTS
from physmem.mm import mmzone
from physmem.mm.mmzone import HEAD_IN_USE, PG_IN_USE, PG_MOVABLE, PG_PREPARED

pytestmark = pytest.mark.pure


@pytest.fixture
def machine():
    """DMA and DMA32, two CPUs, some frames in use, some on per-CPU lists."""
    made = Machine.build("20MiB", cpus=2)
    for cpu in (0, 1):
        frames = [made.alloc_pages(cpu=cpu) for _ in range(6)]
        for pfn in frames[::2]:
            made.free_pages(pfn, cpu=cpu)
        made.alloc_pages(4, "GFP_HIGHUSER_MOVABLE", cpu=cpu)
        made.free_pages(made.alloc_pages(0, "GFP_KERNEL|GFP_DMA"))
    made.validate()
    return made


def free_head(machine, at_least=0):
    """(zone number, order, migratetype, pfn) of some free block."""
    frames = machine.tables.mem_map
    for number, zone in enumerate(machine.tables.zones):
        for order in range(at_least, 11):
            for mt, head in enumerate(zone["free_area"][order]["head"].tolist()):
                pfn = int(frames[head]["next"])
                if pfn != head:
                    return number, order, mt, pfn
    raise AssertionError


def pcp_list(machine):
    """(zone number, cpu, pindex, head, pfn) of some per-CPU list that is not empty."""
    frames, cpus = machine.tables.mem_map, machine.layout.nr_cpus
    for at, pageset in enumerate(machine.tables.pageset):
        for pindex, head in enumerate(pageset["head"].tolist()):
            if int(frames[head]["next"]) != head:
                return at // cpus, at % cpus, pindex, head, int(frames[head]["next"])
    raise AssertionError


def poke(machine, pfn, **fields):
    for name, value in fields.items():
        machine.tables.mem_map[name][pfn] = value


def next_to_nowhere(machine):
    _, _, _, pfn = free_head(machine)
    poke(machine, pfn, next=len(machine.tables.mem_map) + 5)


def next_to_another_head(machine):
    _, _, _, pfn = free_head(machine)
    other = int(machine.tables.zones[1]["free_area"][9]["head"][4])
    poke(machine, pfn, next=other)


def prev_wrong(machine):
    _, _, _, pfn = free_head(machine)
    poke(machine, pfn, prev=1)


def tail_wrong(machine):
    number, order, mt, pfn = free_head(machine)
    head = int(machine.tables.zones[number]["free_area"][order]["head"][mt])
    poke(machine, head, prev=head if int(machine.tables.mem_map[head]["prev"]) == pfn else pfn)


def mark_of_another_order(machine):
    _, order, _, pfn = free_head(machine)
    poke(machine, pfn, order=order + 2)


def type_of_another_list(machine):
    _, _, mt, pfn = free_head(machine)
    poke(machine, pfn, mt=(mt + 1) % 3)


def another_zone(machine):
    number, _, _, pfn = free_head(machine)
    poke(machine, pfn, zone=1 - number)


def head_without_list(machine):
    pfn = machine.alloc_pages()
    poke(machine, pfn, order=1, flags=0, zone=0)
    poke(machine, pfn ^ 1, order=HEAD_IN_USE, flags=PG_IN_USE)


def misaligned(machine):
    number, order, mt, pfn = free_head(machine, at_least=4)
    head = int(machine.tables.zones[number]["free_area"][order]["head"][mt])
    frames = machine.tables.mem_map
    frames[pfn + 1] = frames[pfn]
    before, after = int(frames[pfn]["prev"]), int(frames[pfn]["next"])
    poke(machine, before, next=pfn + 1)
    poke(machine, after, prev=pfn + 1)
    assert head in (before, after) or before != after


def nested(machine):
    _, _, _, pfn = free_head(machine, at_least=3)
    poke(machine, pfn + 4, order=1)


def nested_pcp(machine):
    _, _, _, pfn = free_head(machine, at_least=3)
    poke(machine, pfn + 1, order=mmzone.HEAD_ON_PCP)


def not_merged(machine):
    number, order = next(
        (n, o) for o in range(9, 0, -1) for n in (0, 1) if first(machine, n, o) is not None
    )
    # split one block by hand: both halves stay free
    mt, pfn = first(machine, number, order)
    zone, frames = machine.tables.zones[number], machine.tables.mem_map
    half = pfn + (1 << (order - 1))
    before, after = int(frames[pfn]["prev"]), int(frames[pfn]["next"])
    frames["next"][before], frames["prev"][after] = after, before
    zone["free_area"]["nr_free"][order] -= 1
    head = int(zone["free_area"][order - 1]["head"][mt])
    last = int(frames[head]["prev"])
    for block in (pfn, half):
        frames["next"][last], frames["prev"][block] = block, last
        frames["order"][block], frames["mt"][block], frames["zone"][block] = order, mt, number
        last = block
    frames["next"][last], frames["prev"][head] = head, last
    zone["free_area"]["nr_free"][order - 1] += 2


def first(machine, number, order):
    for mt, head in enumerate(machine.tables.zones[number]["free_area"][order]["head"].tolist()):
        pfn = int(machine.tables.mem_map[head]["next"])
        if pfn != head:
            return mt, pfn
    return None


def counter(name):
    def poke_counter(machine):
        machine.tables.zones[name][1] += 1

    return poke_counter


def nr_free(machine):
    machine.tables.zones[1]["free_area"]["nr_free"][3] += 1


def too_much(machine):
    machine.tables.zones["managed_pages"][1] = 10


def pcp_count(machine):
    number, cpu, _, _, _ = pcp_list(machine)
    machine.tables.pageset["count"][number * 2 + cpu] -= 1


def pcp_type(machine):
    _, _, pindex, _, pfn = pcp_list(machine)
    poke(machine, pfn, mt=(pindex + 1) % 3)


def pcp_isolated(machine):
    _, _, _, _, pfn = pcp_list(machine)
    poke(machine, pfn, mt=4)


def pcp_batch(machine):
    machine.tables.pageset["batch"][2] = 0


def pcp_free_factor(machine):
    machine.tables.pageset["free_factor"][0] = 6


def pcp_outside(machine):
    number, _, _, _, pfn = pcp_list(machine)
    frames = machine.tables.mem_map
    assert number == 0
    stranger = 4100
    frames[stranger] = frames[pfn]
    before, after = int(frames[pfn]["prev"]), int(frames[pfn]["next"])
    frames["next"][before], frames["prev"][after] = stranger, stranger


def used_on_list(machine):
    _, _, _, pfn = free_head(machine)
    poke(machine, pfn, flags=PG_IN_USE)


def used_inside(machine):
    _, _, _, pfn = free_head(machine, at_least=1)
    poke(machine, pfn + 1, flags=PG_IN_USE)


def lost_frame(machine):
    pfn = machine.alloc_pages()
    poke(machine, pfn, flags=0)


def flags_that_exclude(machine):
    poke(machine, machine.alloc_pages(), flags=PG_PREPARED | PG_IN_USE)


def movable_but_not_in_use(machine):
    poke(machine, machine.alloc_pages(), flags=PG_MOVABLE)


def wmark_order(machine):
    machine.tables.zones["watermark"][1][1] = 0


def boost(machine):
    machine.tables.zones["watermark_boost"][0] = -1


def block_type(machine):
    machine.tables.pageblock_flags[3] = 5


def block_without_memory(machine):
    number, _, _, pfn = free_head(machine)
    machine.tables.pageblock_flags[pfn >> 9] = 255
    assert number in (0, 1)


def block_isolated(machine):
    machine.tables.pageblock_flags[3] = 4


def block_highatomic(machine):
    machine.tables.pageblock_flags[3] = 3


def unused_list(machine):
    number, order, mt, _ = free_head(machine)
    zone, frames = machine.tables.zones[number], machine.tables.mem_map
    old, new = (int(zone["free_area"][order]["head"][which]) for which in (mt, 5))
    frames["next"][new], frames["prev"][new] = frames["next"][old], frames["prev"][old]
    frames["prev"][frames["next"][new]] = new
    frames["next"][frames["prev"][new]] = new
    frames["next"][old] = frames["prev"][old] = old


def head_among_frames(machine):
    machine.tables.zones["free_area"]["head"][0, 2, 1] = 7


BREAKS = [
    (next_to_nowhere, "list_links"),
    (next_to_another_head, "list_links"),
    (prev_wrong, "list_links"),
    (tail_wrong, "list_links"),
    (mark_of_another_order, "list_links"),
    (type_of_another_list, "list_links"),
    (another_zone, "list_links"),
    (head_without_list, "list_links"),
    (unused_list, "list_links"),
    (head_among_frames, "list_links"),
    (misaligned, "free_order"),
    (nested, "free_disjoint"),
    (nested_pcp, "free_disjoint"),
    (not_merged, "free_coalesced"),
    (nr_free, "nr_free"),
    (counter("nr_free_pages"), "nr_free_pages"),
    (counter("nr_free_cma"), "nr_free_cma"),
    (pcp_count, "pcp_count"),
    (pcp_type, "pcp_lists"),
    (pcp_isolated, "pcp_lists"),
    (pcp_batch, "pcp_lists"),
    (pcp_free_factor, "pcp_lists"),
    (pcp_outside, "pcp_lists"),
    (used_on_list, "in_use"),
    (used_inside, "in_use"),
    (lost_frame, "in_use"),
    (flags_that_exclude, "in_use"),
    (movable_but_not_in_use, "in_use"),
    (too_much, "in_use"),
    (wmark_order, "watermark"),
    (boost, "watermark"),
    (block_type, "pageblocks"),
    (block_without_memory, "pageblocks"),
    (block_isolated, "pageblocks"),
    (block_highatomic, "pageblocks"),
    (counter("nr_isolate_pageblock"), "pageblocks"),
]


def other_block(machine):
    number, _, _, pfn = free_head(machine, at_least=1)
    assert number == 0
    machine.tables.pageblock_flags[pfn >> 9] ^= 1


def free_count(machine):
    machine.tables.pageset["free_count"][1] = -1


def high_bounds(machine):
    machine.tables.pageset["high_min"][1] = -1


def alloc_factor(machine):
    machine.tables.pageset["alloc_factor"][0] = 6


BREAKS_6_12 = [
    (other_block, "block_list"),
    (counter("nr_free_highatomic"), "nr_free_highatomic"),
    (counter("nr_reserved_highatomic"), "pageblocks"),
    (free_count, "pcp_lists"),
    (high_bounds, "pcp_lists"),
    (alloc_factor, "pcp_lists"),
]


def _label(value):
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("breaks", "invariant"), BREAKS, ids=_label)
def test_each_break_is_found_and_named(machine, breaks, invariant):
    breaks(machine)
    with pytest.raises(CorruptStateError) as caught:
        machine.validate()
    assert caught.value.invariant == invariant
    assert "zone DMA" in caught.value.detail
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("breaks", "invariant"), BREAKS_6_12, ids=_label)
def test_a_newer_kernel_knows_more_invariants(breaks, invariant):
    machine = Machine.build("20MiB", cpus=2, kernel="6.12")
    machine.validate()
    test_each_break_is_found_and_named(machine, breaks, invariant)


def unsorted(machine):
    machine.tables.order_map[:] = 0


def miscounted(machine):
    machine.tables.tree_free[0] += 1


def wrong_side(machine):
    types = machine.tables.pageblock_flags
    types[np.flatnonzero(types == mmzone.MIGRATE_UNMOVABLE)[0]] = mmzone.MIGRATE_MOVABLE


BREAKS_TUNED = [
    ({"list_order": "address"}, unsorted, "address_order"),
    ({"tree": "on"}, miscounted, "tree_free"),
    ({"confine": "8MiB"}, wrong_side, "confined"),
]


@pytest.mark.parametrize(("knobs", "breaks", "invariant"), BREAKS_TUNED)
def test_a_tuned_machine_keeps_more_invariants(knobs, breaks, invariant):
    machine = tune(Machine.build("20MiB"), Tuning.parse(knobs))
    machine.validate()
    breaks(machine)
    with pytest.raises(CorruptStateError, match=invariant):
        machine.validate()


def test_every_invariant_is_broken_somewhere():
    tuned = {name for _, _, name in BREAKS_TUNED}
    assert {name for _, name in BREAKS + BREAKS_6_12} | tuned == set(INVARIANTS)
    documented = mmzone.__doc__[mmzone.__doc__.index("Invariants") :]
    assert all(f"    {name} " in documented for name in INVARIANTS)


def test_a_free_in_two_steps_is_whole_in_between(machine):
    pfn = machine.alloc_pages(3)
    for frame in range(pfn, pfn + 8):
        poke(machine, frame, flags=0, order=0)
    poke(machine, pfn, flags=PG_PREPARED)
    machine.validate()


def random_step(machine, rng, live):
    if rng.random() < 0.55 or not live:
        order = rng.choice((0, 0, 0, 0, 1, 2, 3, 4, 9, 10))
        gfp = rng.choice(
            ("GFP_KERNEL", "GFP_HIGHUSER_MOVABLE", "GFP_NOFS|__GFP_RECLAIMABLE", 0xA20)
        )
        try:
            live.append((machine.alloc_pages(order, gfp, cpu=rng.randrange(2)), order))
        except OutOfMemoryError:
            assert machine.nr_free_pages < 16384
    else:
        pfn, order = live.pop(rng.randrange(len(live)))
        machine.free_pages(pfn, order, cpu=rng.randrange(2))
    if rng.random() < 0.01:
        machine.drain(cpu=rng.choice((None, 0, 1)))


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_break_nothing(seed):
    from physmem.lib.jit import PURE

    rng = random.Random(seed)
    machine = Machine.build("16MiB" if PURE else "64MiB", cpus=2)
    total, live = machine.nr_free_pages, []
    for _ in range(60 if PURE else 4000):
        random_step(machine, rng, live)
        machine.validate()
    for pfn, order in live:
        machine.free_pages(pfn, order)
    machine.drain()
    machine.validate()
    assert machine.nr_free_pages == total
