# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that come and go: what they held goes back, and limits follow."""

from random import Random

import pytest

from physmem import Machine
from physmem.lib.errors import BadRequestError
from physmem.machine.machine import open_machine
from physmem.slab.slab_view import lists_of

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_nothing_is_lost(kind, nodes, tmp_path):
    machine = Machine.build("128MiB", cpus=4, nodes=nodes)
    slab = machine.slab_start(kind)
    random = Random(4)
    cache = machine.kmem_cache_create("thing", 700)
    live = []
    for round_ in range(4):
        for _ in range(300):
            cpu = random.choice(slab.online)
            if live and random.random() < 0.45:
                cache.free(live.pop(random.randrange(len(live))), cpu=cpu)
            else:
                live.append(cache.alloc(cpu=cpu))
        gone = [3, 2, 1][: round_ + 1]
        for cpu in gone:
            slab.cpu_down(cpu)
            slab.validate()
            assert cache.live() == sorted(live)
        with pytest.raises(BadRequestError, match="offline"):
            cache.alloc(cpu=3)
        with pytest.raises(BadRequestError, match="offline"):
            machine.kmalloc(8, cpu=3)
        live.append(cache.alloc())
        late = machine.kmem_cache_create(f"late{round_}", 200)
        late.free(late.alloc())
        machine.save(tmp_path / "m")
        again = open_machine(tmp_path / "m")
        assert again.slab.online == machine.copy().slab.online == slab.online
        for cpu in gone[::-1]:
            slab.cpu_up(cpu)
            slab.validate()
        assert slab.online == [0, 1, 2, 3]
        late.free(late.alloc(cpu=3), cpu=2)
        late.destroy()
    cache.free_bulk(live)
    cache.destroy()
    slab.validate()
    machine.validate()


@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_what_cannot_be(kind):
    machine = Machine.build("64MiB", cpus=2)
    slab = machine.slab_start(kind)
    for bad in (0, 2, -1):
        with pytest.raises(BadRequestError):
            slab.cpu_down(bad)
    for bad in (0, 1, 2):
        with pytest.raises(BadRequestError):
            slab.cpu_up(bad)
    slab.cpu_down(1)
    with pytest.raises(BadRequestError):
        slab.cpu_down(1)


def free_limits(slab):
    return {cache.name: int(lists_of(slab, cache)[0]["free_limit"]) for cache in slab.caches}


def test_limits_of_caches_made_before_and_after_the_other_cpus():
    """A CPU that comes is not counted itself: N * batch, for later caches (N + 1) * batch."""
    machine = Machine.build("64MiB", cpus=3)
    slab = machine.slab_start("slab")
    cache = machine.kmem_cache_create("later", 256)
    general = slab.cache("size-256")
    batch, num = 60, general.geometry.num
    limits = free_limits(slab)
    assert limits["size-256"] == 3 * batch + num
    assert limits["later"] == 4 * batch + cache.geometry.num
    slab.cpu_down(2)
    assert free_limits(slab)["later"] == 3 * batch + num
    slab.cpu_up(2)
    assert free_limits(slab)["later"] == 3 * batch + num


def test_a_node_without_cpus_keeps_its_slabs_only():
    machine = Machine.build("128MiB", cpus=2, nodes=2)
    slab = machine.slab_start("slab")
    cache = machine.kmem_cache_create("thing", 700)
    far = [cache.alloc(cpu=1) for _ in range(30)]
    for address in far[:5]:
        cache.free(address, cpu=0)
    slab.cpu_down(1)
    slab.validate()
    assert ("shared", cache.number, 1) not in slab.tables.entries
    assert ("alien", cache.number, 1, 0) not in slab.tables.entries
    assert cache.alloc(node=1)
    slab.cpu_up(1)
    assert ("shared", cache.number, 1) in slab.tables.entries
    assert cache.alloc(cpu=1)
    slab.validate()
