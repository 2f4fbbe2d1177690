# SPDX-License-Identifier: GPL-2.0-or-later
"""Both slab allocators against dictionary twins, and the lives of many caches."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.model import slab as slab_model
from tests.model import slub as slub_model

from physmem import Machine
from physmem.lib.errors import DoubleFreeError, ObjectsRemainError
from physmem.slab.slab_types import ON_FREE, ON_FULL, ON_PARTIAL
from physmem.slab.slab_view import lists_of
from physmem.slab.slab_view import slab_list as slab_members
from physmem.slab.slub_types import NO_SLAB
from physmem.slab.slub_view import cpu_records, node_records, slab_list

CPUS = 2


class _Pair(RuleBasedStateMachine):
    """Operations on a cache and on its twin; slabs are numbered in the order of their making."""

    def start(self, kind, size, **options):
        self.machine = Machine.build("64MiB", cpus=CPUS)
        self.slab = self.machine.slab_start(kind, **options)
        self.cache = self.slab.kmem_cache_create("twin", size)
        self.numbers = {}
        self.live = []

    def number(self, address):
        head, base = self.head(address)
        if head not in self.numbers:
            self.numbers[head] = len(self.made)
            self.made.append(head)
        return self.numbers[head], (self.slab.paddr(address) - base) // self.cache.size

    def allocated(self, address, expected):
        slab, index, made = expected
        if made:
            self.numbers.pop(self.head(address)[0], None)
        assert self.number(address) == (slab, index)
        self.live.append((address, slab, index))

    def pick(self, choice):
        return self.live.pop(choice % len(self.live))

    @invariant()
    def valid(self):
        self.slab.validate()
        self.machine.validate()
        assert len(self.cache.live()) == len(self.live)


class SlubPair(_Pair):
    def __init__(self):
        super().__init__()
        self.start("slub", 1000)
        g = self.cache.geometry
        record = self.slab.tables.kmem_caches[self.cache.number]
        record["min_partial"], record["cpu_partial_slabs"] = 2, 2
        self.twin = slub_model.Cache(g.objects, 2, 2, CPUS)
        self.made = []

    def head(self, address):
        head = int(self.slab.tables.slab_map[self.slab.paddr(address) >> 12]["head"])
        return head, head << 12

    @rule(cpu=st.integers(0, CPUS - 1), count=st.integers(1, 20))
    def alloc(self, cpu, count):
        for _ in range(count):
            expected = self.twin.alloc(cpu)
            self.allocated(self.cache.alloc(cpu=cpu), expected)

    @precondition(lambda self: self.live)
    @rule(cpu=st.integers(0, CPUS - 1), choices=st.lists(st.integers(0, 999), max_size=12))
    def free(self, cpu, choices):
        for choice in choices:
            if self.live:
                address, slab, index = self.pick(choice)
                self.twin.free(cpu, slab, index)
                self.cache.free(address, cpu=cpu)
                if choice == 0:
                    with pytest.raises(DoubleFreeError):
                        self.cache.free(address, cpu=cpu)

    @rule()
    def shrink(self):
        assert self.cache.shrink() == self.twin.shrink()

    @invariant()
    def same_places(self):
        numbers = {head: number for number, head in enumerate(self.made)}
        for cpu, each in enumerate(cpu_records(self.slab, self.cache)):
            slab = int(each["slab"])
            assert (None if slab == NO_SLAB else numbers[slab]) == self.twin.cpu_slab[cpu]
            chain = [numbers[p] for p in slab_list(self.slab, int(each["partial"]))]
            assert chain == self.twin.chain[cpu]
        node = node_records(self.slab, self.cache)[0]
        partial = [numbers[p] for p in slab_list(self.slab, int(node["partial_head"]))]
        assert partial == self.twin.partial
        assert int(node["nr_slabs"]) == len(self.twin.slabs)


class SlabPair(_Pair):
    def __init__(self):
        super().__init__()
        self.start("slab", 600, cpus=1, possible_cpus=2)
        self.slab.tune(self.cache, 10, 5, 2)
        g = self.cache.geometry
        self.twin = slab_model.Cache(g.num, 10, 5, 2, 2 * 5 + g.num)
        self.made = []

    def head(self, address):
        frames = self.slab.tables.slab_frames
        head = int(frames[self.slab.paddr(address) >> 12]["head"])
        return head, self.slab.paddr(int(frames[head]["s_mem"]) % (1 << 64))

    @rule(count=st.integers(1, 20))
    def alloc(self, count):
        for _ in range(count):
            expected = self.twin.alloc()
            self.allocated(self.cache.alloc(), expected)

    @precondition(lambda self: self.live)
    @rule(choices=st.lists(st.integers(0, 999), max_size=12))
    def free(self, choices):
        for choice in choices:
            if self.live:
                address, slab, index = self.pick(choice)
                self.twin.free(slab, index)
                self.cache.free(address)

    @rule()
    def shrink(self):
        assert self.cache.shrink() == self.twin.shrink()

    @invariant()
    def same_places(self):
        numbers = {head: number for number, head in enumerate(self.made)}
        l3 = lists_of(self.slab, self.cache)[0]
        for which, wanted in (
            (ON_PARTIAL, self.twin.partial),
            (ON_FULL, self.twin.full),
            (ON_FREE, self.twin.unused),
        ):
            members = [numbers.get(p) for p in slab_members(self.slab, l3, which)]
            assert members == wanted
        assert int(l3["free_objects"]) == self.twin.free_objects()


TestSlubAgainstItsTwin = SlubPair.TestCase
TestSlubAgainstItsTwin.settings = settings(max_examples=25, stateful_step_count=25)
TestSlabAgainstItsTwin = SlabPair.TestCase
TestSlabAgainstItsTwin.settings = settings(max_examples=25, stateful_step_count=25)


def cache_life(machine, random, number):
    """Create, fill, free at random, shrink, destroy."""
    size = random.choice((8, 24, 100, 192, 500, 1000, 3000, 5000))
    flags = random.choice(("", "SLAB_HWCACHE_ALIGN", "RECLAIM_ACCOUNT"))
    cache = machine.kmem_cache_create(f"life{number}", size, 0, flags)
    live = cache.alloc_bulk(random.randrange(1, 40))
    random.shuffle(live)
    while live:
        cache.free(live.pop(), cpu=random.randrange(CPUS) if machine.slab.kind == "slub" else 0)
        if random.random() < 0.2:
            live.append(cache.alloc())
        if random.random() < 0.02:
            cache.shrink()
    cache.destroy()


def frames_after_shrinking(machine):
    for cache in machine.slab.caches:
        cache.shrink()
    machine.drain()
    return machine.nr_free_pages


def many_lives(kind, count):
    machine = Machine.build("64MiB", cpus=CPUS)
    machine.slab_start(kind)
    before = frames_after_shrinking(machine)
    random = Random(f"{kind} {count}")
    for number in range(count):
        cache_life(machine, random, number)
    machine.slab.validate()
    machine.validate()
    assert frames_after_shrinking(machine) == before


@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_every_frame_comes_back(kind):
    many_lives(kind, 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_every_frame_comes_back_after_10_000_lives(kind):
    many_lives(kind, 10_000)


@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_a_cache_with_objects_stays(kind):
    machine = Machine.build("64MiB")
    machine.slab_start(kind)
    cache = machine.kmem_cache_create("busy", 100)
    address = cache.alloc()
    with pytest.raises(ObjectsRemainError, match="busy") as caught:
        cache.destroy()
    assert caught.value.address == address
    machine.slab.validate()
    cache.free(address)
    cache.destroy()
