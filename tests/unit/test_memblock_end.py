# SPDX-License-Identifier: GPL-2.0-or-later
"""What memblock logs, how it hands its memory over, and that it is gone afterwards."""

import pytest

from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.bootalloc.memblock_walk import PfnRange
from physmem.bootalloc.region import MAX_NUMNODES, MEMBLOCK_HOTPLUG, NUMA_NO_NODE
from physmem.lib.errors import BadRequestError, BootAllocError

M = 1 << 20


def _two_nodes():
    memblock = Memblock()
    memblock.add_node(0, 64 * M, 0)
    memblock.add_node(64 * M, 64 * M, 1)
    return memblock


# ---- the log -----------------------------------------------------------------------------------

# A 6.1 kernel's log of a machine with two nodes, from the first dump on.
LOGGED = """\
MEMBLOCK configuration:
 memory size = 0x000000003ff78c00 reserved size = 0x0000000002a01000
 memory.cnt  = 0x2
 memory[0x0]\t[0x0000000000001000-0x000000000009efff], 0x000000000009e000 bytes flags: 0x0
 memory[0x1]\t[0x0000000000100000-0x000000003ffd9fff], 0x000000003feda000 bytes flags: 0x0
 reserved.cnt  = 0x4
 reserved[0x0]\t[0x0000000000000000-0x000000000000ffff], 0x0000000000010000 bytes flags: 0x0
 reserved[0x1]\t[0x000000000009f000-0x00000000000fffff], 0x0000000000061000 bytes flags: 0x0
 reserved[0x2]\t[0x0000000001000000-0x0000000003810fff], 0x0000000002811000 bytes flags: 0x0
 reserved[0x3]\t[0x000000003fe51000-0x000000003ffcffff], 0x000000000017f000 bytes flags: 0x0"""

# What it logs next, the upper halves of the addresses left out.
CALLS = """\
memblock_phys_alloc_range: 28672 bytes align=0x1000\
 from=0x00000000 max_addr=0x00100000 reserve_real_mode
memblock_reserve: [0x00098000-0x0009efff] memblock_alloc_range_nid
memblock_reserve: [0x00000000-0x000fffff] setup_arch
memblock_phys_alloc_range: 2097152 bytes align=0x200000\
 from=0x00100000 max_addr=0x3ffda000 init_mem_mapping
memblock_reserve: [0x3fc00000-0x3fdfffff] memblock_alloc_range_nid
memblock_phys_free: [0x3fc00000-0x3fdfffff] init_mem_mapping
memblock_reserve: [0x3ffe0000-0x3ffe1bd3] acpi
memblock_reserve: [0x27fd5000-0x27ffffff] memblock_alloc_range_nid
memblock_reserve: [0x3fe26000-0x3fe50fff] memblock_alloc_range_nid
memblock_alloc_try_nid: 16384 bytes align=0x40 nid=-1\
 from=0x00000000 max_addr=0x00000000 sparse_init
memblock_reserve: [0x3ffd6000-0x3ffd9fff] memblock_alloc_range_nid
memblock_alloc_try_nid: 4096 bytes align=0x40 nid=0\
 from=0x00000000 max_addr=0x00000000 sparse_index_alloc
memblock_reserve: [0x27fd4000-0x27fd4fff] memblock_alloc_range_nid
memblock_alloc_try_nid: 280 bytes align=0x40 nid=0\
 from=0x20000000 max_addr=0x28000000 sparse_init_nid
memblock_reserve: [0x27fd3ec0-0x27fd3fd7] memblock_alloc_range_nid
memblock_alloc_exact_nid_raw: 10485760 bytes align=0x200000 nid=0\
 from=0x01000000 max_addr=0x00000000 sparse_init_nid
memblock_reserve: [0x27400000-0x27dfffff] memblock_alloc_range_nid
memblock_alloc_try_nid_raw: 4096 bytes align=0x1000 nid=0\
 from=0x01000000 max_addr=0x00000000 vmemmap
memblock_reserve: [0x27fd2000-0x27fd2fff] memblock_alloc_range_nid
memblock_free_late: [0x3fe51000-0x3ffcffff] free_initrd"""


def _two_node_machine(log):
    memblock = Memblock(on_call=lambda call: log.append(call.line()))
    memblock.add(0x1000, 0x9EC00, caller="e820__memblock_setup+0x65/0x7d")
    memblock.add(0x100000, 0x3FEDA000, caller="e820__memblock_setup+0x65/0x7d")
    memblock.trim_memory(0x1000)
    memblock.reserve(0, 0x10000)
    memblock.reserve(0x9F000, 0x61000)
    memblock.reserve(0x1000000, 0x2811000)
    memblock.reserve(0x3FE51000, 0x17F000)
    return memblock


def test_the_dump_is_the_kernels():
    log = []
    memblock = _two_node_machine(log)
    assert memblock.dump() == LOGGED
    assert log[:2] == [
        "memblock_add: [0x0000000000001000-0x000000000009fbff] e820__memblock_setup+0x65/0x7d",
        "memblock_add: [0x0000000000100000-0x000000003ffd9fff] e820__memblock_setup+0x65/0x7d",
    ]


def test_the_addresses_are_the_kernels():
    log = []
    memblock = _two_node_machine(log)
    memblock.set_node(0, 0x28000000, 0)
    memblock.set_node(0x28000000, 0x18000000, 1)
    log.clear()
    for size, align, low, high in [(28672, 0x1000, 0, 0x100000)]:
        assert memblock.phys_alloc_range(size, align, low, high, caller="reserve_real_mode")
    memblock.reserve(0, 0x100000, caller="setup_arch")
    memblock.phys_alloc_range(0x200000, 0x200000, 0x100000, 0x3FFDA000, caller="init_mem_mapping")
    memblock.phys_free(0x3FC00000, 0x200000, caller="init_mem_mapping")
    memblock.reserve(0x3FFE0000, 0x1BD4, caller="acpi")
    memblock.phys_alloc_try_nid(0x2B000, 0x1000, 0)
    memblock.phys_alloc_try_nid(0x2B000, 0x1000, 1)
    memblock.alloc(16384, 64, caller="sparse_init")
    memblock.alloc_node(4096, 64, 0, caller="sparse_index_alloc")
    memblock.alloc_try_nid(280, 64, 0x20000000, 0x28000000, 0, caller="sparse_init_nid")
    memblock.alloc_exact_nid_raw(10485760, 0x200000, 16 * M, 0, 0, caller="sparse_init_nid")
    memblock.alloc_try_nid_raw(4096, 4096, 16 * M, 0, 0, caller="vmemmap")
    memblock.free_late(0x3FE51000, 0x17F000, caller="free_initrd")
    assert "\n".join(log).replace("0x00000000", "0x") == CALLS


def test_addresses_of_32_bits_have_8_digits():
    log = []
    config = MemblockConfig(phys_addr_bits=32, numa=False)
    memblock = Memblock(config, on_call=lambda call: log.append(call.line(32)))
    memblock.add_node(0x1000, 0x9E000, 0, MEMBLOCK_HOTPLUG)
    memblock.remove(0x10000, (1 << 32) - 1)
    assert log == [
        "memblock_add_node: [0x00001000-0x0009efff] nid=0 flags=1",
        "memblock_remove: [0x00010000-0x0000fffe]",
    ]
    assert " memory[0x0]\t[0x00001000-0x0000ffff], 0x0000f000 bytes flags: 0x1" in memblock.dump()


def test_nodes_in_the_dump():
    memblock = _two_nodes()
    assert "0x0000000004000000 bytes on node 1 flags: 0x0" in memblock.dump()


# ---- the end -----------------------------------------------------------------------------------


def test_the_hand_over():
    memblock = _two_nodes()
    memblock.mark_hotplug(0, 1 * M)
    memblock.mark_nomap(32 * M, 0x1000)
    memblock.reserve(0, 0x1000)
    memblock.reserve(0x5800, 0x1000)
    given = memblock.free_all(max_low_pfn=96 * M >> 12)
    assert given.reserved == (
        PfnRange(0, 1, MAX_NUMNODES),
        PfnRange(5, 7, MAX_NUMNODES),
        PfnRange(0x2000, 0x2001, 0),
    )
    assert given.free == (
        PfnRange(1, 5, 0),
        PfnRange(7, 0x2000, 0),
        PfnRange(0x2001, 0x4000, 0),
        PfnRange(0x4000, 0x6000, 1),
    )
    assert given.pages == 0x6000 - 4
    assert memblock.memory.regions[0].flags == 0
    high = list(memblock.free_pfn_ranges(96 * M >> 12, 1 << 40))
    assert high == [PfnRange(0x6000, 0x8000, 1)]
    blocks = [(nid, len(pfns)) for nid, (pfns, _) in given.blocks()]
    assert blocks == [(0, 3), (0, 1 + 7 + 7), (0, 10 + 7), (1, 8)]


def test_deferred_blocks_are_counted_and_left_out():
    memblock = _two_nodes()
    given = memblock.free_all(1 << 30, first_deferred_pfn={1: 0x4400})
    assert given.pages == 0x8000
    blocks = {nid: pfns.tolist() for nid, (pfns, _) in given.blocks()}
    assert len(blocks[0]) == 16
    assert blocks[1] == [0x4000]
    both = _two_nodes().free_all(1 << 30, first_deferred_pfn=0x400)
    assert [(nid, pfns.tolist()) for nid, (pfns, _) in both.blocks()] == [(0, [0])]


def test_using_memblock_after_the_hand_over_is_an_error_that_says_so():
    memblock = _two_nodes()
    memblock.free_all(1 << 30)
    for call in (
        lambda: memblock.alloc(64, 64),
        lambda: memblock.alloc_raw(64, 64),
        lambda: memblock.alloc_exact_nid_raw(64, 64, 0, 0, 0),
        lambda: memblock.alloc_range_nid(64, 64, 0, 0, 0),
        lambda: memblock.phys_alloc_range(64, 64, 0, 0),
        lambda: memblock.phys_alloc_try_nid(64, 64, 0),
        lambda: memblock.find_in_range(0, 0, 64, 64),
        lambda: memblock.find_in_range_node(64, 64, 0, 0, 0),
        lambda: memblock.reserve(0, 64),
        lambda: memblock.phys_free(0, 64),
        lambda: memblock.free_all(1 << 30),
    ):
        with pytest.raises(BootAllocError, match=r"shut down.*use the page allocator"):
            call()
    # Architectures that keep memblock add memory to it later on.
    memblock.add_node(128 * M, 64 * M, 1)
    assert memblock.free_late(0x1800, 0x2000) == PfnRange(2, 3, NUMA_NO_NODE)
    assert memblock.free_late(0x1800, 0x100) == PfnRange(2, 2, NUMA_NO_NODE)
    memblock.discard()
    for call in (
        lambda: memblock.free_late(0, 0x1000),
        lambda: memblock.add(0, 0x1000),
        lambda: list(memblock.free_ranges()),
        memblock.discard,
    ):
        with pytest.raises(BootAllocError, match="discarded"):
            call()


def test_an_array_cannot_grow_between_hand_over_and_slab():
    memblock = Memblock(MemblockConfig(memory_regions=3))
    memblock.allow_resize()
    memblock.add_node(0, 1 * M, 0)
    memblock.free_all(1 << 30)
    memblock.add_node(2 * M, 1 * M, 1)
    memblock.add_node(4 * M, 1 * M, 2)
    with pytest.raises(BootAllocError, match="-ENOMEM"):
        memblock.add_node(6 * M, 1 * M, 3)


def test_grown_arrays_are_given_back_in_the_end():
    memblock = Memblock(MemblockConfig(memory_regions=2))
    memblock.add(0, 16 * M)
    memblock.allow_resize()
    for page in range(129):
        memblock.reserve(0x100000 + page * 0x2000, 0x1000)
    for nid in range(3):
        memblock.add_node((32 + nid) * M, 1 * M, nid)
    memblock.free_all(1 << 30)
    reserved, memory = memblock.reserved.area >> 12, memblock.memory.area >> 12
    assert memblock.discard() == (
        PfnRange(reserved, reserved + 2, NUMA_NO_NODE),
        PfnRange(memory, memory + 1, NUMA_NO_NODE),
    )


def test_struct_pages_of_noinit_reservations_are_the_owners():
    memblock = Memblock(MemblockConfig(rsrv_noinit=True))
    memblock.add(0, 16 * M)
    memblock.reserve(0, 1 * M)
    memblock.reserved_mark_noinit(0x4000, 0x4000)
    given = memblock.free_all(1 << 30)
    assert [(start, end) for start, end, _ in given.reserved] == [(0, 4), (8, 256)]
    with pytest.raises(BadRequestError, match=r"6\.12"):
        Memblock().reserved_mark_noinit(0, 1)
