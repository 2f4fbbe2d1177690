# SPDX-License-Identifier: GPL-2.0-or-later
"""What the debug checks of both allocators find, and what their reports tell."""

import pytest

from physmem import Machine
from physmem.lib.errors import (
    BadPointerError,
    BadRequestError,
    CacheNameError,
    DoubleFreeError,
    ObjectsRemainError,
    OutOfMemoryError,
    OverrunError,
    UseAfterFreeError,
)

pytestmark = pytest.mark.pure
KINDS = ("slub", "slab")


@pytest.fixture(params=KINDS)
def machine(request):
    made = Machine.build("64MiB", cpus=2)
    made.slab_start(request.param)
    return made


@pytest.fixture(params=KINDS)
def debugging(request):
    made = Machine.build("64MiB", cpus=2)
    if request.param == "slub":
        made.slab_start("slub", debug="FZPU")
    else:
        made.slab_start("slab", debug=True)
    return made


def test_double_free(machine):
    address = machine.kmalloc(100)
    machine.kfree(address)
    with pytest.raises(DoubleFreeError, match="128") as caught:
        machine.kfree(address)
    error = caught.value
    assert error.address == address
    assert error.cache in {"kmalloc-128", "size-128"}
    assert error.slab == machine.slab.paddr(address) >> 12
    machine.slab.validate()


def test_pointers_that_are_none(machine):
    address = machine.kmalloc(100)
    cache = machine.kmem_cache_create("other", 300)
    for bad in (address + 8, 0x1234, (1 << 63) + 8, machine.slab.page_offset):
        with pytest.raises(BadPointerError) as caught:
            machine.kfree(bad)
        assert hex(bad) in str(caught.value)
    with pytest.raises(BadPointerError, match="another cache"):
        cache.free(address)
    with pytest.raises(BadRequestError):
        machine.kfree(1 << 70)
    with pytest.raises(BadRequestError):
        machine.kfree("x")
    for nothing in (0, 16):
        machine.kfree(nothing)
    machine.kfree(address)
    machine.slab.validate()


def test_bulk_is_all_or_nothing(machine):
    cache = machine.kmem_cache_create("bulk", 72)
    live = cache.alloc_bulk(100)
    assert len(set(live)) == 100
    with pytest.raises(DoubleFreeError):
        cache.free_bulk([*live, live[3]])
    assert cache.live() == sorted(live)
    cache.free_bulk(live)
    assert cache.live() == []
    assert cache.alloc_bulk(0) == []
    machine.slab.validate()


def test_names(machine):
    machine.kmem_cache_create("mine", 100)
    with pytest.raises(CacheNameError, match="mine"):
        machine.kmem_cache_create("mine", 50)
    with pytest.raises(BadRequestError):
        machine.kmem_cache_create("odd", 100, 3)
    with pytest.raises(BadRequestError):
        machine.kmem_cache_create("huge", 100 << 20)
    with pytest.raises(BadRequestError):
        machine.slab.cache("none")
    with pytest.raises(BadRequestError, match="runs already"):
        machine.slab_start()


def test_what_cannot_be_had(machine):
    with pytest.raises(BadRequestError):
        machine.kmalloc(5 << 20)
    with pytest.raises(BadRequestError):
        machine.kmalloc(-1)
    with pytest.raises(BadRequestError):
        machine.kmalloc(8, cpu=2)
    with pytest.raises(BadRequestError):
        machine.kmalloc(8, node=1)
    held = []

    def take_all():
        while True:
            held.append(machine.kmalloc(4 << 20))

    with pytest.raises(OutOfMemoryError, match="kmalloc"):
        take_all()
    machine.kfree_bulk(held)
    machine.slab.validate()


def test_no_such_allocator():
    machine = Machine.build("64MiB")
    with pytest.raises(BadRequestError, match="known are"):
        machine.slab_start("slob")
    with pytest.raises(BadRequestError):
        machine.slab_start("slub", nonsense=1)


def cache_for_debugging(machine):
    return machine.kmem_cache_create("victim", 100)


@pytest.mark.parametrize("behind", [False, True])
def test_overrun(debugging, behind):
    # 100 bytes are 104 in SLAB, and 100 with a red zone of 4 in SLUB
    right = 104 if debugging.slab.kind == "slab" else 101
    offset = right if behind else -1
    cache = cache_for_debugging(debugging)
    with debugging.slab.user("driver_a"):
        address = cache.alloc()
    before = debugging.slab.paddr(address)
    old = debugging.ram.read(before + offset, 1)
    debugging.ram.write(before + offset, b"\x77")
    with pytest.raises(OverrunError, match="0x77") as caught:
        cache.free(address)
    error = caught.value
    assert (error.cache, error.address, error.offset) == ("victim", address, offset)
    assert error.slab == before >> 12
    assert any("driver_a" in text for text in error.last_users)
    debugging.ram.write(before + offset, old)
    cache.free(address)
    debugging.slab.validate()


def test_use_after_free(debugging):
    cache = cache_for_debugging(debugging)
    keep = cache.alloc()
    with debugging.slab.user("driver_b"):
        address = cache.alloc()
        cache.free(address)
    debugging.object(keep)[:1] = b"x"
    debugging.ram.write(debugging.slab.paddr(address) + 5, b"\x6a")

    def take_many():
        for _ in range(100):
            cache.alloc()

    with pytest.raises(UseAfterFreeError, match="0x6a instead of 0x6b") as caught:
        take_many()
    assert caught.value.address == address
    assert caught.value.offset == 5
    assert any("driver_b" in text for text in caught.value.last_users)
    debugging.slab.validate()


def test_double_free_names_the_last_users(debugging):
    cache = cache_for_debugging(debugging)
    with debugging.slab.user("driver_c"):
        address = cache.alloc()
        cache.free(address)
    with pytest.raises(DoubleFreeError) as caught:
        cache.free(address)
    assert any("driver_c" in text for text in caught.value.last_users)


def test_objects_that_remain_name_their_users(debugging):
    cache = cache_for_debugging(debugging)
    with debugging.slab.user("leaker"):
        address = cache.alloc()
    with pytest.raises(ObjectsRemainError) as caught:
        cache.destroy()
    assert any("leaker" in text for text in caught.value.last_users)
    cache.free(address)
    cache.destroy()


def test_objects_live_through_random_work(debugging):
    cache = cache_for_debugging(debugging)
    live = [cache.alloc() for _ in range(90)]
    for address in live[::2]:
        cache.free(address)
    live = live[1::2] + [cache.alloc() for _ in range(30)]
    sizes = [debugging.kmalloc(size) for size in (8, 100, 1000, 5000, 100_000)]
    debugging.slab.validate()
    debugging.kfree_bulk([*live, *sizes])
    cache.destroy()
    debugging.slab.validate()


def test_constructor_and_bytes(machine):
    calls = []

    def ctor(view):
        calls.append(len(view))
        view[:4] = b"made"

    cache = machine.kmem_cache_create("constructed", 64, ctor=ctor)
    address = cache.alloc()
    assert bytes(cache.view(address)[:4]) == b"made"
    assert calls
    assert set(calls) == {64}
    cache.free(address)
    other = machine.kmem_cache_create("constructed2", 64, ctor=ctor)
    assert other is not cache


def test_the_kmalloc_family(machine):
    address = machine.kzalloc(50)
    size = machine.ksize(address)
    assert size == machine.kmalloc_size_roundup(50)
    assert bytes(machine.object(address)) == bytes(size)
    machine.object(address)[:5] = b"hello"
    assert machine.krealloc(address, size) == address
    moved = machine.krealloc(address, 1000)
    assert moved != address
    assert bytes(machine.object(moved)[:5]) == b"hello"
    assert machine.krealloc(moved, 0) == 16
    area = machine.kvmalloc(6 << 20)
    assert len(machine.vmalloc_area.areas[area].pfns) == 1536
    assert machine.vmalloc_area.pfn_of(area + 5000) == machine.vmalloc_area.areas[area].pfns[1]
    machine.kvfree(area)
    with pytest.raises(BadPointerError):
        machine.vmalloc_area.vfree(area)
    pool = machine.mempool_create(3, 200)
    taken = [pool.alloc() for _ in range(5)]
    for each in taken:
        pool.free(each)
    pool.resize(6)
    pool.resize(1)
    pool.destroy()
    machine.slab.validate()
    machine.validate()


def test_a_copy_goes_its_own_way(machine):
    cache = machine.kmem_cache_create("shared", 100)
    address = cache.alloc()
    copied = machine.copy()
    cache.free(address)
    assert copied.slab.cache("shared").live() == [address]
    copied.slab.cache("shared").free(address)
    copied.slab.validate()
    machine.slab.validate()
    assert machine.slabinfo() == copied.slabinfo()


@pytest.mark.parametrize(("kernel", "told"), [("6.1", False), ("6.12", True)])
def test_the_red_zone_of_a_kmalloc_may_begin_at_the_requested_size(kernel, told):
    machine = Machine.build("64MiB", kernel=kernel)
    machine.slab_start("slub", debug="FZPU")
    address = machine.kzalloc(90)
    assert bytes(machine.object(address, 90)) == bytes(90)
    machine.object(address, 96)[91:92] = b"!"
    if told:
        with pytest.raises(OverrunError, match="0x21 instead of 0xcc") as caught:
            machine.kfree(address)
        assert (caught.value.offset, caught.value.cache) == (91, "kmalloc-96")
        machine.object(address, 96)[91:92] = b"\xcc"
    machine.kfree(address)
    # a cache's own objects are whole
    moved = machine.krealloc(machine.kmalloc(90), 96)
    machine.object(moved, 96)[:] = bytes(96)
    machine.kfree(moved)
    for size in (1, 8, 95, 96, 97, 8192):
        machine.kfree(machine.kmalloc(size))
    machine.slab.validate()
