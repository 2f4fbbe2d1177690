# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem of 2.6.24 by its worked examples: merging, goals, limits, quirks, hand-over."""

import numpy as np
import pytest

from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.lib.errors import BadRequestError, BootAllocError, CorruptStateError

PAGE = 4096
M, G = 1 << 20, 1 << 30


def _bootmem(pages=1000, map_pfn=300, **config):
    config = {"bits_per_long": 32, "smp_cache_bytes": 32} | config
    bootmem = Bootmem(BootmemConfig(**config))
    bootmem.init_bootmem(map_pfn, pages)
    return bootmem


def _example():
    bootmem = _bootmem()
    bootmem.free(0, 0x9FC00)
    bootmem.free(M, 1000 * PAGE - M)
    bootmem.reserve(256 * PAGE, 44 * PAGE + 128)
    bootmem.reserve(0, PAGE)
    return bootmem


def _taken(bootmem, nid=0):
    node = bootmem.node(nid)
    return [at for at in range(node.pages) if node.bits.test(at)]


# ---- the worked example ------------------------------------------------------------------------

TRACE = [
    # size, align, goal, result, last_pos, last_offset
    (100, 32, 0, 0x1000, 1, 100),
    (100, 32, 0, 0x1080, 1, 228),
    (5000, 32, 0, 0x1100, 2, 1160),
    (4096, 4096, 0, 0x3000, 3, 0),
    (50, 32, 0, 0x4000, 4, 50),
    (2000, 32, 0x100000, 0x12D000, 301, 2000),
    (20, 32, 0x100000, 0x12D7E0, 301, 2036),
    (20, 32, 0, 0x5000, 5, 20),
    (8192, 8192, 0, 0x6000, 7, 0),
    (200000, 4096, 0, 0x8000, 56, 3392),
    (64, 32, 0x1000000, 0x38D40, 56, 3456),
]


def _run_trace():
    bootmem = _example()
    node = bootmem.node(0)
    for size, align, goal, result, last_pos, last_offset in TRACE:
        assert bootmem.alloc_nopanic(size, align, goal) == result
        assert (node.last_pos, node.last_offset) == (last_pos, last_offset)
        bootmem.validate()
    return bootmem


def test_the_worked_example():
    bootmem = _run_trace()
    bootmem.free(0x9000, PAGE)
    assert bootmem.alloc_nopanic(PAGE, PAGE, 0) == 0x9000
    assert (bootmem.node(0).last_pos, bootmem.node(0).last_offset) == (9, 0)


def test_what_the_worked_example_hands_over():
    bootmem = _run_trace()
    given = bootmem.free_all()
    assert given.runs.tolist() == [
        [57, 64, 0],
        [64, 128, 5],
        [128, 159, 0],
        [302, 320, 0],
        [320, 992, 5],
        [992, 1000, 0],
        [300, 301, 0],
    ]
    assert given.total == 801
    pfns, orders = given.arrays()
    assert len(pfns) == 7 + 2 + 31 + 18 + 21 + 8 + 1
    assert int((1 << orders.astype(np.int64)).sum()) == 801
    assert (pfns.dtype, orders.dtype) == ("int64", "uint8")


def test_the_bitmaps_size():
    assert _bootmem().node(0).map_size == 128
    assert [Bootmem().bootmap_pages(pages) for pages in (0, 1, 8 * PAGE, 8 * PAGE + 1)] == [
        0,
        1,
        1,
        2,
    ]
    assert Bootmem().init_bootmem_node(0, 1, 0, 65) == 16
    assert (_bootmem().min_low_pfn, _bootmem().max_low_pfn) == (300, 1000)


# ---- reserving and freeing ---------------------------------------------------------------------


def test_reserving_rounds_outwards_and_freeing_inwards():
    bootmem = _bootmem(pages=16)
    assert _taken(bootmem) == list(range(16))
    bootmem.free(1, 8 * PAGE)
    assert _taken(bootmem) == [0, *range(8, 16)]
    bootmem.reserve(3 * PAGE - 1, 2)
    assert _taken(bootmem) == [0, 2, 3, *range(8, 16)]
    bootmem.reserve(0, 4 * PAGE)
    assert _taken(bootmem) == [0, 1, 2, 3, *range(8, 16)]
    bootmem.validate()


@pytest.mark.parametrize(
    ("call", "addr", "size"),
    [
        ("reserve", 0, 0),
        ("reserve", 16 * PAGE, 1),
        ("reserve", 15 * PAGE, PAGE + 1),
        ("free", 0, 0),
        ("free", 15 * PAGE, 2 * PAGE),
        ("free", 2 * PAGE, PAGE),
        ("free", PAGE, 3 * PAGE),
    ],
)
def test_where_the_kernel_stops(call, addr, size):
    bootmem = _bootmem(pages=16)
    bootmem.free(2 * PAGE, PAGE)
    before = _taken(bootmem)
    with pytest.raises(BootAllocError, match="kernel BUG"):
        getattr(bootmem, call)(addr, size)
    assert _taken(bootmem) == before


def test_freeing_part_of_a_page_beyond_the_end_frees_nothing_there():
    bootmem = _bootmem(pages=16)
    bootmem.free(14 * PAGE, 2 * PAGE + 4095)
    assert _taken(bootmem) == list(range(14))


def test_a_range_that_starts_before_the_node():
    bootmem = Bootmem()
    bootmem.init_bootmem_node(0, 16, 16, 32)
    bootmem.free(15 * PAGE, 4 * PAGE)
    assert bootmem.node(0).free_pages == 0
    bootmem.free(15 * PAGE + 1, 2 * PAGE)
    assert bootmem.node(0).free_pages == 1
    bootmem.reserve(15 * PAGE, 4 * PAGE)
    assert bootmem.node(0).free_pages == 1
    with pytest.raises(BootAllocError, match="not in the node"):
        bootmem.reserve(0, PAGE)


def test_an_exclusive_reservation_is_refused_and_changes_nothing():
    bootmem = _bootmem(pages=16, exclusive=True)
    bootmem.free(0, 16 * PAGE)
    bootmem.reserve(4 * PAGE, PAGE, exclusive=True)
    with pytest.raises(BootAllocError, match="-EBUSY, page 0x4 is taken"):
        bootmem.reserve(2 * PAGE, 4 * PAGE, exclusive=True)
    assert _taken(bootmem) == [4]
    bootmem.reserve(2 * PAGE, 4 * PAGE)
    assert _taken(bootmem) == [2, 3, 4, 5]
    with pytest.raises(BadRequestError, match=r"2\.6\.25"):
        _bootmem().reserve(0, PAGE, exclusive=True)


# ---- quirks ------------------------------------------------------------------------------------


def test_the_first_aligned_page_after_a_failure_is_skipped():
    bootmem = _bootmem(pages=64, map_pfn=60)
    bootmem.free(0, 64 * PAGE)
    for page in (0, 6, 60):
        bootmem.reserve(page * PAGE, PAGE)
    assert bootmem.alloc_nopanic(16384, 16384, 0) == 0xC000


def test_the_limit_is_in_pages_and_the_last_success_in_bytes():
    bootmem = _bootmem(pages=4096)
    bootmem.free(0, 4096 * PAGE)
    bootmem.reserve(0, PAGE)
    assert bootmem.alloc_nopanic(PAGE, PAGE, 2 * M) == 0x200000
    assert bootmem.alloc_nopanic(PAGE, PAGE, 1 * M, 0xFFFF_FFFF) == 0x100000
    assert bootmem.alloc_nopanic(PAGE, PAGE, 1 * M) == 0x101000


def test_a_goal_below_the_node_is_none():
    bootmem = Bootmem()
    bootmem.init_bootmem_node(0, 1 << 20, 1 << 20, (1 << 20) + 64)
    bootmem.free(4 * G, 64 * PAGE)
    assert bootmem.alloc_core(0, PAGE, PAGE, 16 * M, 0) == 4 * G
    assert bootmem.alloc_core(0, PAGE, PAGE, 4 * G + 8 * PAGE, 0) == 4 * G + 8 * PAGE
    assert bootmem.alloc_core(0, PAGE, PAGE, 16 * M, 0) == 4 * G + PAGE
    assert bootmem.alloc_core(0, PAGE, PAGE, 0, 4 * G) is None
    assert bootmem.alloc_core(0, PAGE, PAGE, 0, 4 * G + 9 * PAGE) == 4 * G + 2 * PAGE


def test_an_alignment_is_relative_to_the_node():
    bootmem = Bootmem()
    bootmem.init_bootmem_node(0, 3, 3, 64)
    bootmem.free(3 * PAGE, 61 * PAGE)
    # The search starts at page 8, but rounds the index 5 up to 8: page 11 is not aligned.
    assert bootmem.alloc_core(0, PAGE, 8 * PAGE, 0, 0) == 11 * PAGE
    assert bootmem.alloc_core(0, PAGE, PAGE, 0, 0) == 3 * PAGE


def test_nothing_is_merged_after_a_full_page_or_with_page_alignment():
    bootmem = _bootmem(pages=64)
    bootmem.free(0, 64 * PAGE)
    assert bootmem.alloc_nopanic(100, 32, 0) == 0
    assert bootmem.alloc_nopanic(PAGE, PAGE, 0) == PAGE
    assert bootmem.alloc_nopanic(10, 32, 0) == 2 * PAGE
    # Exactly the rest of the page: the page is full, the next allocation takes a new one.
    assert bootmem.alloc_nopanic(PAGE - 32, 32, 0) == 2 * PAGE + 32
    assert (bootmem.node(0).last_pos, bootmem.node(0).last_offset) == (2, 0)
    assert bootmem.alloc_nopanic(10, 32, 0) == 3 * PAGE


@pytest.mark.parametrize(("size", "align"), [(0, 32), (-1, 32), (1, 3), (1, -2)])
def test_a_size_and_an_alignment_that_stop_the_kernel(size, align):
    with pytest.raises(BootAllocError, match="kernel BUG"):
        _example().alloc_nopanic(size, align, 0)


# ---- front ends --------------------------------------------------------------------------------


def _nodes():
    bootmem = Bootmem(BootmemConfig(smp_cache_bytes=128))
    # Set up out of order: the list is ascending by start.
    for nid, start in ((1, 5 * G), (0, 0), (2, 6 * G)):
        first = start // PAGE
        bootmem.init_bootmem_node(nid, first + 16, first, first + (64 * M >> 12))
        bootmem.free(start, 64 * M, nid)
        bootmem.reserve(start, 32 * PAGE, nid)
    return bootmem


def test_nodes_are_tried_in_order_of_their_start():
    bootmem = _nodes()
    assert [node.nid for node in bootmem.nodes] == [0, 1, 2]
    bootmem.validate()
    assert bootmem.alloc(100) == 16 * M
    assert bootmem.alloc(100) == 16 * M + 128
    assert bootmem.alloc_pages(100) == 16 * M + PAGE
    assert bootmem.alloc_low(100) == 32 * PAGE
    assert bootmem.alloc_low_pages(100) == 33 * PAGE
    assert bootmem.alloc_node(1, 100) == 5 * G + 32 * PAGE
    assert bootmem.alloc_pages_node(2, 100) == 6 * G + 32 * PAGE
    assert bootmem.alloc_low_pages_node(0, 100) == 34 * PAGE


def test_what_happens_when_there_is_none():
    bootmem = _nodes()
    assert bootmem.alloc_low_pages_node(1, 100) is None
    assert bootmem.alloc_node(1, 48 * M) == 5 * G + 32 * PAGE
    assert bootmem.alloc_node(1, 47 * M, PAGE, 5 * G) == 32 * PAGE
    assert bootmem.alloc_nopanic(64 * M, 32, 0) is None
    with pytest.raises(BootAllocError, match="bootmem alloc of 67108864 bytes failed! Out of mem"):
        bootmem.alloc(64 * M)
    with pytest.raises(BootAllocError, match="bootmem alloc of 67108864 bytes failed! Out of mem"):
        bootmem.alloc_node(1, 64 * M)
    with pytest.raises(BootAllocError, match="low bootmem alloc of 50331648 bytes failed! Out of"):
        bootmem.alloc_low(48 * M)


def test_a_node_that_is_not_there():
    with pytest.raises(BadRequestError, match="no node 7"):
        _nodes().reserve(0, PAGE, 7)
    with pytest.raises(BadRequestError, match="set up before"):
        _nodes().init_bootmem_node(1, 0, 0, 5)
    with pytest.raises(BadRequestError, match="no pages"):
        Bootmem().init_bootmem_node(1, 0, 9, 5)
    with pytest.raises(BadRequestError, match="32 or 64"):
        Bootmem(BootmemConfig(bits_per_long=48))


class _Ram:
    def __init__(self, size):
        self.bytes = np.full(size, 0xA5, np.uint8)

    def view(self, paddr, size):
        return self.bytes[paddr : paddr + size]

    def zero(self, paddr, size):
        self.bytes[paddr : paddr + size] = 0


def test_the_bitmap_lies_in_memory_and_what_is_allocated_is_clear():
    ram = _Ram(64 * PAGE)
    bootmem = Bootmem(ram=ram)
    assert bootmem.init_bootmem(5, 64) == 8
    assert ram.bytes[5 * PAGE : 5 * PAGE + 9].tolist() == [0xFF] * 8 + [0xA5]
    bootmem.free(8 * PAGE, 16 * PAGE)
    assert ram.bytes[5 * PAGE : 5 * PAGE + 4].tolist() == [0xFF, 0, 0, 0xFF]
    assert bootmem.alloc_low(100) == 8 * PAGE
    assert ram.bytes[8 * PAGE : 8 * PAGE + 101].tolist() == [0] * 100 + [0xA5]
    assert ram.bytes[5 * PAGE + 1] == 1
    given = bootmem.free_all()
    ram.bytes[:] = 0
    assert given.runs.tolist() == [[9, 24, 0], [5, 6, 0]]


# ---- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "long_bits", "fast"),
    [
        (0, 32, True),
        (0, 64, True),
        (256 << 10, 32, True),
        (256 << 10, 64, False),
        (512 << 10, 64, True),
        (128 << 10, 32, False),
        (2 * G, 64, True),
        (4 * G, 64, False),
        (4 * G, 32, False),
        (4 * G + (512 << 10), 64, True),
    ],
)
def test_whole_words_are_blocks_only_where_the_start_allows(start, long_bits, fast):
    bootmem = Bootmem(BootmemConfig(bits_per_long=long_bits))
    first = start // PAGE
    bootmem.init_bootmem_node(0, first, first, first + 3 * long_bits + 5)
    bootmem.free(start, (3 * long_bits + 5) * PAGE)
    bootmem.reserve(start, PAGE)
    given = bootmem.free_all()
    last = first + 3 * long_bits
    order = long_bits.bit_length() - 1
    if fast:
        expected = [
            [first + 1, first + long_bits, 0],
            [first + long_bits, last, order],
            [last, last + 5, 0],
        ]
    else:
        expected = [[first + 1, last + 5, 0]]
    assert given.runs.tolist() == [*expected, [first, first + 1, 0]]
    assert given.total == 3 * long_bits + 5


def test_using_bootmem_after_the_hand_over_is_an_error_that_says_so():
    bootmem = _nodes()
    bootmem.free_all(0)
    # The other nodes still serve.
    assert bootmem.alloc(100) == 5 * G + 32 * PAGE
    assert bootmem.alloc_node(0, 100) == 5 * G + 32 * PAGE + 128
    for call in (lambda: bootmem.reserve(0, PAGE), lambda: bootmem.free(0, PAGE)):
        with pytest.raises(BootAllocError, match=r"node 0 is shut down.*use the page allocator"):
            call()
    with pytest.raises(BootAllocError, match="given away before"):
        bootmem.free_all(0)
    bootmem.free_all(1)
    bootmem.free_all(2)
    bootmem.validate()
    for call in (
        lambda: bootmem.alloc(100),
        lambda: bootmem.alloc_nopanic(100, 32, 0),
        lambda: bootmem.alloc_low_pages(100),
        lambda: bootmem.alloc_node(1, 100),
        lambda: bootmem.alloc_low_pages_node(1, 100),
        lambda: bootmem.alloc_core(1, 100, 32, 0, 0),
    ):
        with pytest.raises(BootAllocError, match=r"shut down.*use the page allocator"):
            call()


def test_a_node_of_a_tebibyte():
    bootmem = Bootmem()
    pages = 1 << 28
    bootmem.init_bootmem(0x1000, pages)
    bootmem.free(M, (1 << 40) - M)
    bootmem.reserve(16 * M, 48 * M)
    assert bootmem.alloc(100) == 64 * M
    assert bootmem.alloc_pages(1 << 39) == 64 * M + PAGE
    # 48 MiB at 16 MiB are taken, so is the page of the first allocation: three runs.
    given = bootmem.free_all()
    after = ((64 * M) >> 12) + 1 + (1 << 27)
    assert given.runs.tolist() == [
        [256, 4096, 6],
        [after, after + 63, 0],
        [after + 63, pages, 6],
        [0x1000, 0x1000 + 8192, 0],
    ]
    assert given.total == 3840 + pages - after + 8192


# ---- validate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaks", "invariant"),
    [
        (lambda bootmem: bootmem.nodes.reverse(), "bootmem-order"),
        (lambda bootmem: bootmem.node(0).bits.set_run(500, 501), "bootmem-count"),
        (lambda bootmem: setattr(bootmem.node(0), "last_offset", PAGE), "bootmem-offset"),
    ],
)
def test_validate_names_what_is_broken(breaks, invariant):
    bootmem = _nodes()
    breaks(bootmem)
    with pytest.raises(CorruptStateError) as caught:
        bootmem.validate()
    assert caught.value.invariant == invariant


def test_validate_sees_a_bit_beyond_the_end():
    bootmem = _bootmem(pages=1000)
    bootmem.node(0).bits.clear_run(1000, 1001)
    with pytest.raises(CorruptStateError, match="bootmem-surplus"):
        bootmem.validate()
