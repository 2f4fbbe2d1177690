# SPDX-License-Identifier: GPL-2.0-or-later
"""Both slab allocators on machines of several nodes."""

from random import Random

import pytest

from physmem import Machine
from physmem.lib.errors import BadRequestError

NODES = 2


def node_of(machine, address):
    return machine.slab.node_of(machine.slab.paddr(address) >> 12)


@pytest.fixture(params=["slub", "slab"])
def machine(request):
    made = Machine.build("128MiB", nodes=NODES, cpus=4)
    made.slab_start(request.param)
    return made


def test_objects_come_from_the_node_that_was_asked_for(machine):
    cache = machine.kmem_cache_create("n", 700)
    for node in (1, 0, 1, 1, 0):
        address = cache.alloc(node=node)
        assert node_of(machine, address) == node
    for cpu in range(4):
        assert node_of(machine, cache.alloc(cpu=cpu)) == cpu // 2
    with pytest.raises(BadRequestError):
        cache.alloc(node=2)
    machine.slab.validate()


def test_objects_freed_elsewhere_go_home(machine):
    random = Random(5)
    before = None
    for round_ in range(3):
        caches = [machine.kmem_cache_create(f"r{round_}.{size}", size) for size in (40, 700, 2500)]
        live = []
        for step in range(1500):
            cpu = random.randrange(4)
            if live and random.random() < 0.47:
                cache, address = live.pop(random.randrange(len(live)))
                cache.free(address, cpu=cpu)
            else:
                cache = random.choice(caches)
                node = random.choice((None, None, 0, 1))
                live.append((cache, cache.alloc(cpu=cpu, node=node)))
            if step % 300 == 0:
                machine.slab.validate()
        while live:
            cache, address = live.pop()
            cache.free(address, cpu=random.randrange(4))
        machine.slab.validate()
        for cache in caches:
            cache.destroy()
        for cache in machine.slab.caches:
            cache.shrink()
        machine.drain()
        machine.slab.validate()
        machine.validate()
        free = machine.nr_free_pages
        assert before in {None, free}
        before = free


def test_one_full_node_is_left_alone(machine):
    cache = machine.kmem_cache_create("big", 4096)
    live = [cache.alloc(node=1) for _ in range(2000)]
    assert {node_of(machine, address) for address in live} == {1}
    cache.free_bulk(live)
    machine.slab.validate()


def test_reaping_drains_what_belongs_elsewhere():
    machine = Machine.build("128MiB", nodes=NODES, cpus=4)
    slab = machine.slab_start("slab")
    cache = machine.kmem_cache_create("alien", 300)
    live = [cache.alloc(cpu=3) for _ in range(200)]
    for address in live[:8]:
        cache.free(address, cpu=0)  # they wait in node 0's array for node 1
    assert cache.attributes()["remotefrees"] == "8"
    held = slab.tables.alien[(cache.number * NODES + 0) * NODES + 1]
    assert int(held["avail"]) == 8
    for _ in range(3):
        slab.reap(cpu=0)
    assert int(held["avail"]) == 0
    slab.validate()
    for address in live[8:]:
        cache.free(address, cpu=0)
    assert int(cache.attributes()["alienoverflow"]) > 0
    slab.validate()
    cache.destroy()
    slab.validate()
