# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock against its three tables of cases: arrays, allocations, allocations on nodes."""

import pytest
from tests.model.boot_tables import ALLOCATIONS, ARRAYS, NODES, calls, regions, rows

from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.bootalloc.region import MEMBLOCK_HOTPLUG, NUMA_NO_NODE

BASE = 0x40000
SIZE = 16 << 10
NODE_SIZES = (4096, 1024, 2048, 2048, 1024, 1024, 4096, 1024)


class Bytes:
    """Memory full of one byte, so that clearing shows."""

    def __init__(self):
        self.bytes = bytearray(b"\xa5" * (BASE + SIZE))

    def zero(self, paddr, size):
        self.bytes[paddr : paddr + size] = bytes(size)


def _memblock(direction="-", ram=None):
    memblock = Memblock(MemblockConfig(smp_cache_bytes=32), ram=ram)
    if direction != "-":
        memblock.set_bottom_up(enable=direction == "bu")
    return memblock


def _held(array):
    return [(region.base, region.size, region.nid, region.flags) for region in array.regions]


def _ids(table):
    return [f"{name}, {direction}" for name, direction, _, _ in rows(table)]


def test_the_tables_are_complete():
    assert [len(rows(table)) for table in (ARRAYS, ALLOCATIONS, NODES)] == [37, 60, 26]
    for table in (ALLOCATIONS, NODES):
        for direction in ("td", "bu"):
            assert sum(row[1] == direction for row in rows(table)) == len(rows(table)) / 2


def test_the_state_at_the_start():
    memblock = Memblock()
    for array in (memblock.memory, memblock.reserved):
        assert (array.cnt, array.max, array.total_size, array.empty) == (1, 128, 0, True)
    assert not memblock.bottom_up
    assert memblock.current_limit == (1 << 64) - 1


@pytest.mark.parametrize("enable", [True, False])
def test_the_direction_is_what_was_set(enable):
    memblock = Memblock()
    memblock.set_bottom_up(enable=enable)
    assert memblock.bottom_up is enable


@pytest.mark.parametrize("row", rows(ARRAYS), ids=_ids(ARRAYS))
def test_arrays(row):
    _, _, operations, expected = row
    memblock = _memblock()
    does = {
        "add": memblock.add,
        "add_node": memblock.add_node,
        "res": memblock.reserve,
        "rm": memblock.remove,
        "free": memblock.phys_free,
        "trim": memblock.trim_memory,
    }
    for name, numbers in calls(operations):
        does[name](*numbers)
        memblock.validate()
    array = memblock.memory if expected.startswith("mem") else memblock.reserved
    assert _held(array) == regions(expected)
    assert array.total_size - array.trimmed == sum(size for _, size, _, _ in regions(expected))


def _reserve(memblock, name, numbers):
    if name == "gaps":
        for base in range(BASE, BASE + SIZE, 1280):
            memblock.reserve(base + 256, 1024)
    else:
        assert name == "res"
        memblock.reserve(*numbers)


def _forms(memblock, numbers, raw):
    """The calls of memblock that mean the same as a row's `alloc`."""
    size, align, *where = numbers
    if not where:
        start, end, nid = 0, 0, NUMA_NO_NODE
        plain = memblock.alloc_raw if raw else memblock.alloc
        yield lambda: plain(size, align)
    else:
        start, end, nid = (*where, NUMA_NO_NODE)[:3]
    if not raw and not end:
        yield lambda: memblock.alloc_from(size, align, start)
    if not raw and len(where) < 2 and not start:
        yield lambda: memblock.alloc_low(size, align)
    try_nid = memblock.alloc_try_nid_raw if raw else memblock.alloc_try_nid
    yield lambda: try_nid(size, align, start, end, nid)


def _check(memblock, ram, allocate, expected):
    before = bytes(ram.bytes)
    got = allocate()
    memblock.validate()
    address, _, array = expected.partition(";")
    if address == "fail":
        assert got == 0
        assert bytes(ram.bytes) == before
    else:
        assert got == calls(f"x({address})", BASE)[0][1][0]
    if array:
        assert _held(memblock.reserved) == regions(array, BASE)
    return got


def _run(row, raw, populate):
    name, direction, operations, expected = row
    *reservations, (last, numbers) = calls(operations, BASE)
    assert last == "alloc"
    nth, forms = 0, 1
    while nth < forms:
        ram = Bytes()
        memblock = _memblock(direction, ram)
        if name != "no memory at all":
            populate(memblock)
        for operation in reservations:
            _reserve(memblock, *operation)
        choices = list(_forms(memblock, numbers, raw))
        forms = len(choices)
        got = _check(memblock, ram, choices[nth], expected)
        if got:
            size = numbers[0]
            wanted = b"\xa5" * size if raw else bytes(size)
            assert ram.bytes[got : got + size] == wanted
            assert ram.bytes.count(0) == (0 if raw else size)
        nth += 1


@pytest.mark.parametrize("raw", [False, True], ids=["cleared", "raw"])
@pytest.mark.parametrize("row", rows(ALLOCATIONS), ids=_ids(ALLOCATIONS))
def test_allocations(row, raw):
    _run(row, raw, lambda memblock: memblock.add(BASE, SIZE))


def _nodes(memblock):
    base = BASE
    for nid, size in enumerate(NODE_SIZES):
        # Hot-pluggable memory is like any other while movable_node is off.
        memblock.add_node(base, size, nid, MEMBLOCK_HOTPLUG)
        base += size
    assert base == BASE + SIZE


@pytest.mark.parametrize("raw", [False, True], ids=["cleared", "raw"])
@pytest.mark.parametrize("row", rows(NODES), ids=_ids(NODES))
def test_allocations_on_nodes(row, raw):
    _run(row, raw, _nodes)
