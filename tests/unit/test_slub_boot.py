# SPDX-License-Identifier: GPL-2.0-or-later
"""SLUB starts as the kernel does: its calls of the page allocator, in order, and its caches."""

import pytest

from physmem import Machine
from physmem.lib.errors import BadRequestError

pytestmark = pytest.mark.pure

CLASSES = ["16", "32", "64", "96", "128", "192", "256", "512", "1k", "2k"]
STARTS = {
    # by kernel and CPUs: before the shuffles are made
    ("6.1", 1): "kmem_cache_node:0" + " kmem_cache:0" * 4,
    ("6.1", 2): "kmem_cache_node:0" + " kmem_cache:0" * 4,
    ("6.1", 8): "kmem_cache_node:0" + " kmem_cache:1" * 2,
    ("6.12", 2): "kmem_cache_node:0" + " kmem_cache:0" * 4,
    ("6.12", 8): "kmem_cache_node:0" + " kmem_cache:1" * 2,
}
SHUFFLES = {
    # newest cache first: the order of creation differs
    ("6.1", 1): "16:0 32:0 64:0 96:0 128:0 192:0 256:0 512:0 1k:1 2k:2",
    ("6.1", 2): "16:0 32:0 64:0 96:0 128:0 192:0 256:0 512:1 1k:2 2k:3",
    ("6.1", 8): "16:0 32:0 64:0 128:0 96:0 192:0 256:1 512:2 1k:3 2k:3",
    ("6.12", 2): "16:0 32:0 64:0 128:0 256:0 512:1 1k:2 2k:3 96:0 192:0",
    ("6.12", 8): "16:0 32:0 64:0 128:0 256:1 512:2 1k:3 2k:3 96:0 192:0",
}


def page_calls(slub):
    """Slabs made, as cache:order."""
    names = {cache.number: cache.name for cache in slub.caches}
    log = slub.tables.page_log
    calls = [int(log[1 + 2 * i]) for i in range(int(log[0]))]
    assert all(packed & 0xFF == 1 for packed in calls)
    return [f"{names[packed >> 16]}:{packed >> 8 & 0xFF}" for packed in calls]


def started(kernel, cpus, **options):
    machine = Machine.build("64MiB", cpus=cpus, kernel=kernel)
    slub = machine.slab_start(freelist_hardened=True, **options)
    slub.validate()
    machine.validate()
    return machine, slub


@pytest.mark.parametrize(("kernel", "cpus"), list(STARTS))
def test_calls_of_the_page_allocator(kernel, cpus):
    plain = STARTS[kernel, cpus].split()
    assert page_calls(started(kernel, cpus)[1]) == plain
    shuffled = [f"kmalloc-{each}" for each in SHUFFLES[kernel, cpus].split()]
    assert page_calls(started(kernel, cpus, freelist_random=True)[1]) == plain + shuffled


def test_every_node_has_its_records():
    machine = Machine.build("128MiB", cpus=2, nodes=2)
    slub = machine.slab_start("slub", freelist_random=True, freelist_hardened=True)
    assert page_calls(slub)[:2] == ["kmem_cache_node:0"] * 2
    rows = {row.name: row for row in slub.rows()}
    # a record for each node of each cache
    assert len(slub.cache("kmem_cache_node").live()) == 2 * len(slub.caches)
    assert len(slub.cache("kmem_cache").live()) == len(slub.caches) == 54
    # 216 bytes and a pointer for each node
    assert rows["kmem_cache"].objsize == 256
    assert slub.cache("kmem_cache").object_size == 232
    slub.validate()


@pytest.mark.parametrize(("kernel", "first", "last"), [("6.1", "8k", "8"), ("6.12", "8k", "96")])
def test_caches_in_the_order_of_their_creation(kernel, first, last):
    machine, slub = started(kernel, 2)
    names = [line.split()[0] for line in machine.slabinfo().splitlines()[2:]]
    kind = "dma-kmalloc" if kernel == "6.1" else "kmalloc-cg"
    assert names[0] == f"{kind}-{first}"
    assert names[-3:] == [f"kmalloc-{last}", "kmem_cache_node", "kmem_cache"]
    assert [cache.name for cache in slub.caches] == names


def test_an_architecture_may_keep_small_objects_apart():
    arm = Machine.build("64MiB", arch="arm64")
    assert arm.kmalloc_size_roundup(8) == 128
    assert arm.slab.cache("kmem_cache_node").size == 128
    assert arm.ksize(arm.kmalloc(8)) == 128
    new = Machine.build("64MiB", arch="arm64", kernel="6.12")
    assert new.ksize(new.kmalloc(8)) == 8
    told = Machine.build("64MiB", arch="arm64")
    told.slab_start(kmalloc_minalign=64)
    assert told.ksize(told.kmalloc(8)) == 64


@pytest.mark.parametrize("kernel", ["2.6.24", "6.1", "6.12"])
def test_slabs_group_by_mobility(kernel):
    machine = Machine.build("64MiB", kernel=kernel)
    kinds = {"plain": "", "reclaim": "SLAB_RECLAIM_ACCOUNT"}
    blocks = {}
    for name, flags in kinds.items():
        cache = machine.kmem_cache_create(name, 3000, flags=flags)
        live = cache.alloc_bulk(200)
        letters = {}
        for number, zone in enumerate(machine.snapshot().zones):
            for at, letter in enumerate(zone.pageblocks):
                letters[number, (zone.start >> 9) + at] = letter
        frames = {pfn >> 9 for pfn in machine.slab.cache_frames(cache).tolist()}
        blocks[name] = {letter for (_zone, block), letter in letters.items() if block in frames}
        cache.free_bulk(live)
        cache.shrink()
        assert len(machine.slab.cache_frames(cache)) == 0
        machine.validate()
    assert "R" in blocks["reclaim"]
    assert "R" not in blocks["plain"]
    assert "U" in blocks["plain"]


def test_attributes_that_can_be_written():
    machine = Machine.build("64MiB", cpus=2)
    machine.slab_start("slub")
    cache = machine.kmem_cache_create("thing", 1000)
    live = [cache.alloc(cpu=cpu) for cpu in (0, 1) for _ in range(200)]
    for address in live[::3]:
        cache.free(address)
    assert not cache.attributes()["slabs_cpu_partial"].startswith("0(0)")
    cache.set_attribute("cpu_partial", 100)
    shown = cache.attributes()
    assert shown["slabs_cpu_partial"].startswith("0(0)")
    assert (shown["cpu_partial"], shown["cpu_slabs"]) == ("100", "0")
    cache.set_attribute("min_partial", 1)
    for address in live[1::3] + live[2::3]:
        cache.free(address)
    cache.set_attribute("shrink", 1)
    assert cache.attributes()["slabs"] == "0"
    machine.slab.validate()
    for name, value in (("order", 1), ("shrink", 2), ("min_partial", -1), ("cpu_partial", "x")):
        with pytest.raises(BadRequestError):
            cache.set_attribute(name, value)
    with pytest.raises(BadRequestError, match="1000"):
        cache.set_attribute("remote_node_defrag_ratio", 1000)
    old = Machine.build("64MiB", kernel="2.6.24")
    with pytest.raises(BadRequestError, match="tune"):
        old.kmem_cache_create("x", 100).set_attribute("min_partial", 1)
