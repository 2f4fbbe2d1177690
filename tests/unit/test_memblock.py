# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock by worked examples: flags, growth, iterators, limits, logs, hand-over."""

import doctest
import importlib
import pkgutil

import pytest

import physmem.bootalloc
from physmem.bootalloc.handover import decompose
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.bootalloc.memblock_walk import PfnRange
from physmem.bootalloc.ranges import ULLONG_MAX, Wanted, next_mem_range
from physmem.bootalloc.region import (
    MAX_NUMNODES,
    MEMBLOCK_DRIVER_MANAGED,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    NUMA_NO_NODE,
)
from physmem.lib.errors import BadRequestError, BootAllocError, CorruptStateError

K, M, G = 1 << 10, 1 << 20, 1 << 30
NAMES = [module.name for module in pkgutil.iter_modules(physmem.bootalloc.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    module = importlib.import_module(f"physmem.bootalloc.{name}")
    assert doctest.testmod(module).failed == 0


def _spans(array):
    return [(region.base, region.end) for region in array]


def _cells(array):
    return [(region.base, region.end, region.nid, region.flags) for region in array]


# ---- worked examples ---------------------------------------------------------------------------


def _qemu(**config):
    memblock = Memblock(MemblockConfig(**config))
    memblock.add(0x1000, 0x9E000)
    memblock.add(0x100000, 0x3FEE0000)
    memblock.reserve(0, 1 * M)
    memblock.reserve(0x1000000, 0x2C00000)
    return memblock


def test_allocations_from_the_top_of_a_gigabyte():
    memblock = _qemu()
    assert memblock.alloc(0x2A80, 64) == 0x3FFDD580
    assert memblock.alloc(100, 64) == 0x3FFDD500
    assert memblock.alloc(100, 64) == 0x3FFDD480
    assert memblock.alloc_from(16 * M, 2 * M, 16 * M) == 0x3EE00000
    memblock.validate()


def test_node_and_flags_of_what_is_there_are_kept():
    memblock = Memblock()
    memblock.add_node(0, 16 * M, 0)
    memblock.add_node(16 * M, 16 * M, 1)
    memblock.mark_hotplug(8 * M, 16 * M)
    four = [
        (0, 8 * M, 0, 0),
        (8 * M, 16 * M, 0, MEMBLOCK_HOTPLUG),
        (16 * M, 24 * M, 1, MEMBLOCK_HOTPLUG),
        (24 * M, 32 * M, 1, 0),
    ]
    assert _cells(memblock.memory) == four
    memblock.add_node(0, 48 * M, 2)
    assert _cells(memblock.memory) == [*four, (32 * M, 48 * M, 2, 0)]
    memblock.clear_hotplug(0, 48 * M)
    assert [nid for _, _, nid, _ in _cells(memblock.memory)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("start", "end", "blocks"),
    [
        (
            1,
            159,
            "1,0 2,1 4,2 8,3 16,4 32,5 64,6 128,4 144,3 152,2 156,1 158,0",
        ),
        (5, 22, "5,0 6,1 8,3 16,2 20,1"),
        (0, 3 << 10, "0,10 1024,10 2048,10"),
        (0, 3, "0,1 2,0"),
        (1023, 2050, "1023,0 1024,10 2048,1"),
        (7, 7, ""),
    ],
)
def test_blocks(start, end, blocks):
    pfns, orders = decompose(start, end)
    told = " ".join(f"{pfn},{order}" for pfn, order in zip(pfns, orders, strict=True))
    assert told == blocks
    assert (pfns.dtype, orders.dtype) == ("int64", "uint8")


# ---- limits of addresses -----------------------------------------------------------------------


def test_page_0_is_never_found_and_may_be_reserved():
    memblock = Memblock()
    memblock.add(0, 0x2000)
    assert memblock.alloc(0x1000, 0x1000) == 0x1000
    assert memblock.alloc(0x1000, 0x1000) == 0
    memblock.set_bottom_up(enable=True)
    memblock.phys_free(0x1000, 0x1000)
    assert memblock.alloc(16, 16) == 0x1000


def test_the_current_limit_holds_back_every_allocation():
    memblock = _qemu()
    memblock.set_current_limit(2 * M)
    assert memblock.alloc(4 * K, 4 * K) == 2 * M - 4 * K
    assert memblock.alloc_try_nid(4 * K, 4 * K, 0, 512 * M, NUMA_NO_NODE) == 2 * M - 8 * K
    # Finding by range takes the end that it is given; only "accessible" means the limit.
    assert memblock.find_in_range(0, 16 * M, 4 * K, 4 * K) == 16 * M - 4 * K
    assert memblock.find_in_range(0, 0, 4 * K, 4 * K) == 2 * M - 12 * K
    assert memblock.find_in_range_node(4 * K, 4 * K, 0, 1, NUMA_NO_NODE) == 2 * M - 12 * K


def test_low_memory_ends_below_4_gib():
    memblock = Memblock()
    memblock.add(1 * G, 15 * G)
    assert memblock.alloc_low(0x1000, 0x1000) == 0xFFFF_E000
    assert memblock.alloc(0x1000, 0x1000) == 16 * G - 0x1000
    assert memblock.phys_alloc(0x1000, 0x1000) == 16 * G - 0x2000


def test_a_line_is_the_alignment_when_none_is_given():
    memblock = _qemu(smp_cache_bytes=128)
    assert memblock.alloc(1, 0) == 0x3FFE0000 - 128
    with pytest.raises(BadRequestError, match="power of two"):
        memblock.alloc(1, 3)


@pytest.mark.parametrize(("base", "size"), [(-1, 5), (0, -1), (1 << 64, 1)])
def test_no_such_range(base, size):
    with pytest.raises(BadRequestError, match="no physical range"):
        Memblock().add(base, size)


def test_2_to_the_60_bytes():
    memblock = Memblock()
    memblock.add(0, 1 << 60)
    assert memblock.alloc(1 << 59, 1 << 59) == 1 << 59
    given = memblock.free_all(1 << 48, max_order=47)
    assert given.pages == 1 << 47
    assert [tuple(map(len, blocks)) for _, blocks in given.blocks()] == [(2, 2)]


# ---- nodes, mirrors, flags ---------------------------------------------------------------------


def _two_nodes(**config):
    memblock = Memblock(MemblockConfig(**config))
    memblock.add_node(0, 64 * M, 0)
    memblock.add_node(64 * M, 64 * M, 1)
    return memblock


def test_a_node_is_preferred_or_exact():
    memblock = _two_nodes()
    assert memblock.alloc_node(0x1000, 0x1000, 0) == 64 * M - 0x1000
    assert memblock.phys_alloc_try_nid(0x1000, 0x1000, 0) == 64 * M - 0x2000
    assert memblock.alloc_try_nid(96 * M, 4 * K, 0, 0, 0) == 0
    assert memblock.alloc_try_nid(4 * K, 4 * K, 0, 0, 7) == 128 * M - 4 * K
    assert memblock.alloc_exact_nid_raw(4 * K, 4 * K, 0, 0, 7) == 0
    assert memblock.alloc_exact_nid_raw(4 * K, 4 * K, 96 * M, 0, 0) == 64 * M - 0x3000
    assert memblock.alloc_range_nid(4 * K, 4 * K, 0, 0, MAX_NUMNODES) == 128 * M - 8 * K


def test_hotpluggable_memory_is_left_alone_under_movable_node():
    for movable_node, found in ((False, 128 * M - 4 * K), (True, 64 * M - 4 * K)):
        memblock = _two_nodes(movable_node=movable_node)
        memblock.mark_hotplug(64 * M, 64 * M)
        asked = list(memblock.free_ranges(1, MEMBLOCK_HOTPLUG))
        assert asked == [(64 * M, 128 * M, 1)]
        assert memblock.alloc(4 * K, 4 * K) == found


def test_mirrored_memory_first_and_a_warning_without():
    log = []
    memblock = Memblock(MemblockConfig(mirrored_kernelcore=True), on_call=log.append)
    memblock.add(0, 128 * M)
    memblock.mark_mirror(32 * M, 1 * M)
    assert memblock.has_mirror
    assert memblock.alloc(512 * K, 4 * K) == 33 * M - 512 * K
    assert memblock.alloc(1 * M, 4 * K) == 127 * M
    told = [call.line() for call in log if call.note]
    assert told == ["Could not allocate 0x0000000000100000 bytes of mirrored memory"]
    plain = _two_nodes()
    plain.mark_mirror(0, 1 * M)
    assert not plain.has_mirror
    assert all(not region.flags & MEMBLOCK_MIRROR for region in plain.memory)


def test_nomap_and_driver_managed_memory_is_not_free():
    memblock = Memblock()
    memblock.add(0, 16 * M)
    memblock.mark_nomap(4 * M, 4 * M)
    memblock.add_node(16 * M, 4 * M, 0, MEMBLOCK_DRIVER_MANAGED)
    assert [(start, end) for start, end, _ in memblock.free_ranges()] == [
        (0, 4 * M),
        (8 * M, 16 * M),
    ]
    assert [(start, end) for start, end, _ in memblock.mem_ranges(reverse=True)] == [
        (16 * M, 20 * M),
        (8 * M, 16 * M),
        (0, 4 * M),
    ]
    nomap = [found.start for found in memblock.free_ranges(flags=MEMBLOCK_NOMAP)]
    assert nomap == [0, 4 * M, 8 * M]
    assert memblock.is_memory(5 * M)
    assert not memblock.is_map_memory(5 * M)
    assert list(memblock.mem_pfn_ranges(0)) == [PfnRange(16 * M >> 12, 20 * M >> 12, 0)]
    assert len(list(memblock.mem_pfn_ranges())) == 4
    memblock.clear_nomap(0, 16 * M)
    assert memblock.memory.cnt == 2


def test_without_numa_everything_is_on_node_0():
    memblock = Memblock(MemblockConfig(numa=False))
    memblock.add_node(0, 16 * M, 3)
    memblock.set_node(0, 16 * M, 5)
    memblock.add(16 * M, 16 * M)
    assert _cells(memblock.memory) == [(0, 32 * M, 0, 0)]
    assert "on node" not in memblock.dump()
    assert memblock.alloc_node(64, 64, 0) == 32 * M - 64


def test_partial_pages_are_no_pages():
    memblock = Memblock()
    memblock.add_node(0x1800, 0x2C00, 2)
    memblock.add_node(0x10100, 0x1200, 2)
    assert list(memblock.mem_pfn_ranges(2)) == [PfnRange(2, 4, 2)]
    memblock.reserve(0x2000, 1)
    assert list(memblock.free_pfn_ranges(0, 100)) == [PfnRange(3, 4, 2)]
    assert list(memblock.free_pfn_ranges(4, 100)) == []
    assert list(memblock.reserved_ranges()) == [(0x2000, 0x2001, MAX_NUMNODES)]
    assert memblock.search_pfn_nid(2) == 2
    assert memblock.search_pfn_nid(64) == NUMA_NO_NODE


# ---- iterators while the arrays change ---------------------------------------------------------


def test_a_walk_may_reserve_as_it_goes():
    memblock = Memblock()
    memblock.add(0, 1 * M)
    seen = []
    for start, end, _ in memblock.free_ranges():
        seen.append((start, end))
        if len(seen) < 4:
            memblock.reserve(end - 0x1000 * len(seen), 0x1000)
    # The first region ended with the range: the walk is over, whatever came before it.
    assert seen == [(0, 1 * M)]
    memblock = _two_nodes()
    seen = []
    for start, end, nid in memblock.free_ranges(reverse=True):
        seen.append((start, end))
        if nid == 1:
            memblock.reserve(16 * M, 1 * M)
            memblock.reserve(32 * M, 1 * M)
    # An index is a position: what was inserted above it pushes [33 MiB, 64 MiB) out of the walk.
    assert seen == [(64 * M, 128 * M), (17 * M, 32 * M), (0, 16 * M)]


def test_a_walk_goes_on_after_an_array_was_doubled():
    config = MemblockConfig(memory_regions=4, reserved_regions=4)
    memblock = Memblock(config)
    memblock.allow_resize()
    for megabyte in range(3):
        memblock.add_node(megabyte * 16 * M, 16 * M, megabyte)
    seen = []
    for start, end, nid in memblock.free_ranges():
        seen.append((start, end, nid))
        if nid == 0:
            for page in range(6):
                memblock.reserve(16 * M + page * 0x4000, 0x1000)
    assert memblock.reserved.max > 4
    assert seen[0] == (0, 16 * M, 0)
    assert [start for start, _, nid in seen if nid == 1] == [
        16 * M + page * 0x4000 + 0x1000 for page in range(6)
    ]
    memblock.validate()


def test_an_empty_range_between_touching_reservations_is_not_shown():
    memblock = Memblock()
    memblock.add(0, 0x4000)
    memblock.reserve(0x1000, 0x1000)
    memblock.reserve(0x2000, 0x1000)
    memblock.set_node(0x1000, 0x1000, 0, array=memblock.reserved)
    assert memblock.reserved.cnt == 2
    assert [start for start, _, _ in memblock.free_ranges()] == [0, 0x3000]
    wanted = Wanted(NUMA_NO_NODE, 0, movable_node=False)
    index, starts = 0, []
    while index != ULLONG_MAX:
        index, found = next_mem_range(memblock.memory, memblock.reserved, index, wanted)
        starts += [found.start] if found else []
    assert starts == [0, 0x2000, 0x3000]


# ---- growing -----------------------------------------------------------------------------------


def _crowded(count, **config):
    log = []
    memblock = Memblock(MemblockConfig(**config), on_call=lambda call: log.append(call.line()))
    memblock.add(0, 16 * M)
    memblock.allow_resize()
    for page in range(count):
        memblock.reserve(0x100000 + page * 0x2000, 0x1000)
    return memblock, log


def test_an_array_moves_into_the_memory_it_describes():
    memblock, log = _crowded(128)
    assert (memblock.reserved.max, memblock.reserved.area) == (128, None)
    memblock.reserve(0x100000 + 128 * 0x2000, 0x1000)
    # 256 regions of 24 bytes: two pages at the top.
    assert (memblock.reserved.max, memblock.reserved.area) == (256, 16 * M - 0x2000)
    assert log[-2:] == [
        "memblock: reserved is doubled to 256 at [0x0000000000ffe000-0x0000000000fff7ff]",
        "memblock_reserve: [0x0000000000ffe000-0x0000000000ffffff] memblock_double_array",
    ]
    assert memblock.reserved.cnt == 130
    memblock.validate()


def test_the_old_array_is_given_back():
    memblock, log = _crowded(256)
    assert memblock.reserved.max == 512
    assert memblock.reserved.area == 16 * M - 0x2000 - 0x3000
    assert not memblock.is_reserved(16 * M - 0x1000)
    assert (
        "memblock_phys_free: [0x0000000000ffe000-0x0000000000ffffff] memblock_double_array" in log
    )
    memblock.validate()


def test_the_new_array_keeps_off_the_area_being_reserved():
    memblock, _ = _crowded(128)
    memblock.reserve(12 * M, 4 * M)
    assert memblock.reserved.area == 12 * M - 0x2000
    above, _ = _crowded(128)
    above.reserve(8 * M, 4 * M)
    assert above.reserved.area == 16 * M - 0x2000


def test_the_memory_array_may_lie_anywhere():
    memblock = Memblock(MemblockConfig(memory_regions=2))
    memblock.allow_resize()
    memblock.add_node(0, 1 * M, 0)
    memblock.add_node(1 * M, 1 * M, 1)
    memblock.add_node(2 * M, 1 * M, 2)
    assert (memblock.memory.max, memblock.memory.area) == (4, 2 * M - 0x1000)
    memblock.validate()


def test_a_full_array_that_may_not_grow_is_an_error_and_stays():
    memblock = Memblock(MemblockConfig(reserved_regions=3))
    memblock.add(0, 16 * M)
    for page in (1, 3, 5):
        memblock.reserve(page << 12, 0x1000)
    before = _cells(memblock.reserved)
    with pytest.raises(BootAllocError, match=r"-ENOMEM.*may not grow yet"):
        memblock.reserve(7 << 12, 0x1000)
    assert memblock.alloc(64, 64) == 0
    assert _cells(memblock.reserved) == before
    memblock.allow_resize()
    memblock.set_current_limit(0x2000)
    with pytest.raises(BootAllocError, match="no memory for a larger one"):
        memblock.reserve(7 << 12, 0x1000)
    assert _cells(memblock.reserved) == before


def test_room_for_two_regions_at_least():
    with pytest.raises(BadRequestError, match="2 regions"):
        Memblock(MemblockConfig(memory_regions=1))


class _Slab:
    def __init__(self):
        self.live = []

    def kmalloc(self, size):
        self.live.append(size)
        return 0x5000_0000 + len(self.live)

    def kfree(self, paddr):
        self.live[paddr - 0x5000_0001] = 0


def test_arrays_grow_into_slab_memory_once_there_is_slab():
    memblock = Memblock(MemblockConfig(memory_regions=2))
    memblock.allow_resize()
    slab = _Slab()
    memblock.slab_is_available(slab)
    for nid in range(5):
        memblock.add_node(nid * M, M, nid)
    assert slab.live == [0, 8 * 24]
    assert memblock.reserved.empty
    assert memblock.discard() == ()
    assert slab.live == [0, 0]


# ---- the whole map -----------------------------------------------------------------------------


def test_trimming_does_not_lower_the_counted_size():
    memblock = Memblock()
    memblock.add(0x1000, 0x9EC00)
    memblock.add(0xA0100, 0x200)
    memblock.trim_memory(0x1000)
    assert _spans(memblock.memory) == [(0x1000, 0x9F000)]
    assert memblock.phys_mem_size() == 0x9EC00
    memblock.validate()


def test_a_limit_counts_memory_and_not_addresses():
    memblock = Memblock()
    memblock.add(1 * M, 3 * M)
    memblock.add(8 * M, 8 * M)
    memblock.reserve(2 * M, 12 * M)
    memblock.enforce_memory_limit(0)
    memblock.enforce_memory_limit(64 * M)
    assert memblock.end_of_dram() == 16 * M
    memblock.enforce_memory_limit(5 * M)
    assert _spans(memblock.memory) == [(1 * M, 4 * M), (8 * M, 10 * M)]
    assert _spans(memblock.reserved) == [(2 * M, 10 * M)]
    assert (memblock.start_of_dram(), memblock.end_of_dram()) == (1 * M, 10 * M)
    assert memblock.reserved_size() == 8 * M


def test_a_cap_keeps_nomap_memory_and_splits_it():
    memblock = Memblock()
    memblock.add(0, 16 * M)
    memblock.mark_nomap(3 * M, 2 * M)
    memblock.reserve(1 * M, 14 * M)
    memblock.cap_memory_range(4 * M, 0)
    assert memblock.memory.cnt == 3
    memblock.cap_memory_range(4 * M, 4 * M)
    assert _spans(memblock.memory) == [(3 * M, 4 * M), (4 * M, 5 * M), (5 * M, 8 * M)]
    assert _spans(memblock.reserved) == [(4 * M, 8 * M)]
    memblock.validate()
    memblock.mem_limit_remove_map(memblock.phys_addr_max)
    memblock.mem_limit_remove_map(3 * M)
    assert _spans(memblock.memory) == [(3 * M, 4 * M), (4 * M, 5 * M), (5 * M, 6 * M)]
    memblock.mark_hotplug(0, 0)
    memblock.clear_hotplug(0, 1)
    assert _spans(memblock.memory) == [(3 * M, 5 * M), (5 * M, 6 * M)]


def test_a_cap_of_nothing():
    log = []
    memblock = Memblock(on_call=lambda call: log.append(call.line()))
    memblock.cap_memory_range(0, 1 * M)
    assert log == ["memblock_cap_memory_range: No memory registered yet"]


def test_questions_at_the_edges():
    memblock = Memblock()
    memblock.add_node(1 * M, 1 * M, 0)
    memblock.add_node(2 * M, 1 * M, 1)
    memblock.reserve(0x180000, 0x1000)
    assert [memblock.is_memory(addr) for addr in (M - 1, M, 3 * M - 1, 3 * M)] == [
        False,
        True,
        True,
        False,
    ]
    assert memblock.search(2 * M) == 1
    assert memblock.search(0x180000, array=memblock.reserved) == 0
    assert memblock.is_region_memory(1 * M, 1 * M)
    assert not memblock.is_region_memory(1 * M, 1 * M + 1)
    assert memblock.is_region_reserved(0x17F000, 0x1001)
    assert not memblock.is_region_reserved(0x17F000, 0x1000)
    assert memblock.is_reserved(0x180FFF)
    assert not memblock.is_reserved(0x181000)


# ---- validate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaks", "invariant"),
    [
        (lambda memblock: setattr(memblock.memory.regions[1], "size", 0), "regions-not-empty"),
        (lambda memblock: setattr(memblock.memory.regions[0], "size", 1 << 40), "regions-sorted"),
        (lambda memblock: setattr(memblock.memory.regions[1], "nid", 0), "regions-merged"),
        (lambda memblock: setattr(memblock.memory, "total_size", 5), "regions-total"),
        (lambda memblock: setattr(memblock.memory, "max", 1), "regions-capacity"),
        (lambda memblock: setattr(memblock, "phys_addr_max", M), "regions-addresses"),
        (lambda memblock: setattr(memblock.memory, "area", 0x5000), "array-reserved"),
        (lambda memblock: memblock.reserved.regions.insert(0, memblock.reserved.regions[0]), None),
    ],
)
def test_validate_names_what_is_broken(breaks, invariant):
    memblock = _two_nodes()
    memblock.validate()
    breaks(memblock)
    with pytest.raises(CorruptStateError) as caught:
        memblock.validate()
    assert caught.value.invariant == (invariant or "regions-not-empty")
