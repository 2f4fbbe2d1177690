# SPDX-License-Identifier: GPL-2.0-or-later
"""The twin against small worked examples: split, merge, fallback, reserves.

The drawings show lists head first: `o2/M:[24,20]` is the free list of order 2, type M, whose head
is the chunk of frame 24.
"""

import pytest
from tests.model import V2_6_24, V61
from tests.model.features import ALLOC_HIGHATOMIC, ALLOC_MIN_RESERVE
from tests.model.toy import (
    ALL,
    KERNELS,
    V61_ON,
    assert_lists,
    blocks_of,
    events_of,
    give,
    lists_of,
    pcp_of,
    take,
    toy,
)

# ---- split and merge ---------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ALL)
def test_split_returns_the_lowest_frames_and_lists_the_upper_halves(kernel):
    # before  [................................|................................]  o5/M: 0, 32
    # take 0  [#.-.---.-------.---------------.|...                                1+2+4+8+16 left
    machine = toy(KERNELS[kernel], "o5/M:[0,32]")
    assert take(machine, 0, "M") == 0
    assert_lists(machine, "o0/M:[1] o1/M:[2] o2/M:[4] o3/M:[8] o4/M:[16] o5/M:[32]")
    assert take(machine, 2, "M") == 4  # a chunk of just this order is there
    assert_lists(machine, "o0/M:[1] o1/M:[2] o3/M:[8] o4/M:[16] o5/M:[32]")
    assert take(machine, 1, "M") == 2
    assert_lists(machine, "o0/M:[1] o3/M:[8] o4/M:[16] o5/M:[32]")
    assert take(machine, 1, "M") == 8  # order 3 is the smallest left: 8 = 2 taken + 2 + 4
    assert_lists(machine, "o0/M:[1] o1/M:[10] o2/M:[12] o4/M:[16] o5/M:[32]")


@pytest.mark.parametrize("kernel", ALL)
def test_merge_and_list_ends(kernel):
    # Frames 0..15 are in use, one by one; freed in the order 0 5 3 2 4 6 7 1.
    machine = toy(KERNELS[kernel], "o5/M:[0,32]")
    rest = " o4/M:[16] o5/M:[32]"
    assert [take(machine, 0, "M") for _ in range(16)] == list(range(16))
    assert_lists(machine, rest)
    # free 6:  0 . . . 4 4 6 .   its buddy 7 is missing, but the buddy of the pair (6,7), which is
    #                            the pair (4,5), is free: two merges wait for 7. From 6.1 on such a
    #                            frame goes to the tail, where it is taken last.
    six = "o0/M:[6,0]" if kernel == "2.6.24" else "o0/M:[0,6]"
    for pfn, expected in [
        (0, "o0/M:[0]"),
        (5, "o0/M:[5,0]"),
        (3, "o0/M:[3,5,0]"),
        (2, "o0/M:[5,0] o1/M:[2]"),
        (4, "o0/M:[0] o1/M:[4,2]"),
        (6, six + " o1/M:[4,2]"),
        (7, "o0/M:[0] o1/M:[2] o2/M:[4]"),
    ]:
        give(machine, pfn)
        assert_lists(machine, expected + rest)
    give(machine, 1)  # 1+0, with 2, with 4: eight frames; 8..15 are still in use
    assert_lists(machine, "o3/M:[0] o4/M:[16] o5/M:[32]")


@pytest.mark.parametrize(
    ("kernel", "blocks", "expected", "blocks_after"),
    [
        ("2.6.24", "MXMM", "o5/M:[0,32]", "MXMM"),  # no barrier: the reserve is swallowed
        ("6.1", "MHMM", "o4/M:[0] o4/H:[16] o5/M:[32]", "MHMM"),
        ("6.1", "MIMM", "o4/M:[0] o4/I:[16] o5/M:[32]", "MIMM"),
        ("6.1", "MUMM", "o5/M:[0,32]", "MUMM"),  # list M, half of it in a U block
        ("6.12", "MUMM", "o5/M:[0,32]", "MMMM"),  # the swallowed block changes its type
        ("6.12", "MHMM", "o4/M:[0] o4/H:[16] o5/M:[32]", "MHMM"),
    ],
)
def test_merge_across_blocks(kernel, blocks, expected, blocks_after):
    # Block 0 was in use and is freed beside block 1, which is free on the list of its own type.
    machine = toy(KERNELS[kernel], f"o4/{blocks[1]}:[16] o5/M:[32]", blocks)
    give(machine, 0, 4)
    assert_lists(machine, expected)
    assert blocks_of(machine) == blocks_after


@pytest.mark.parametrize(
    ("kernel", "blocks", "expected", "blocks_after"),
    [
        ("6.1", "MMMU", "o5/M:[32]", "MMMU"),  # the first block's type counts
        ("6.1", "MMUM", "o5/U:[32]", "MMUM"),
        ("6.1", "MMMH", "o5/M:[32]", "MMMH"),
        ("6.12", "MMMU", "o5/U:[32]", "MMUU"),  # freed block by block: the last one wins
        ("6.12", "MMUM", "o5/M:[32]", "MMMM"),
        ("6.12", "MMMH", "o4/M:[32] o4/H:[48]", "MMMH"),
    ],
)
def test_free_of_two_blocks_at_once(kernel, blocks, expected, blocks_after):
    machine = toy(KERNELS[kernel], "", blocks)
    give(machine, 32, 5)
    assert_lists(machine, expected)
    assert blocks_of(machine) == blocks_after


# ---- fallback ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "blocks", "events"),
    [
        ("2.6.24", "UMMM", []),  # the second block of the chunk keeps its type
        ("6.1", "UUMM", [["xf", 0, 0, 5, 0, 1, 1], ["zl", 0, 0, 0, 1]]),
        ("6.12", "UUMM", [["xf", 0, 0, 5, 0, 1, 1]]),  # taken whole: no smallest fit afterwards
    ],
)
def test_fallback_of_u_into_a_free_zone(kernel, blocks, events):
    machine = toy(KERNELS[kernel], "o5/M:[0,32]")
    assert take(machine, 0, "U") == 0
    assert_lists(machine, "o0/U:[1] o1/U:[2] o2/U:[4] o3/U:[8] o4/U:[16] o5/M:[32]")
    assert blocks_of(machine) == blocks
    assert events_of(machine) == events


# Block 0: 0-3 free. Block 1: 20-29 free, in use by movable data: 16-19, 30, 31.
#   block 0  [0 0 0 0 # # # # # # # # # # # #]
#   block 1  [# # # # a a a a b b b b c c # #]    a = (20,o2)  b = (24,o2)  c = (28,o1)
MOSTLY_FREE = "o1/M:[28] o2/M:[24,20,0]"


@pytest.mark.parametrize(
    ("kernel", "result", "after", "events"),
    [
        # The chunk chosen is the chunk cut. Moved ascending to the head: descending afterwards.
        ("2.6.24", 24, "o0/U:[25] o1/U:[26,28] o2/U:[20] o2/M:[0]", []),
        # Moved ascending to the tail, then smallest fit: it finds c, not the chunk of the event.
        (
            "6.1",
            28,
            "o0/U:[29] o2/U:[20,24] o2/M:[0]",
            [["xf", 24, 0, 2, 0, 1, 1], ["zl", 28, 0, 0, 1]],
        ),
        # The same lists; the event comes last and tells the frame returned.
        (
            "6.12",
            28,
            "o0/U:[29] o2/U:[20,24] o2/M:[0]",
            [["zl", 28, 0, 0, 1], ["xf", 28, 0, 2, 0, 1, 1]],
        ),
    ],
)
def test_fallback_of_u_claims_a_block_more_than_half_free(kernel, result, after, events):
    machine = toy(KERNELS[kernel], MOSTLY_FREE, used_by="M")
    assert take(machine, 0, "U") == result
    assert_lists(machine, after)
    assert blocks_of(machine) == "MUMM"
    assert events_of(machine) == events


# Block 1: only 20, 21, 22 free; the 13 others hold movable data.
#   block 1  [# # # # a a b # # # # # # # # #]    a = (20,o1)  b = (22,o0)
@pytest.mark.parametrize(
    ("kernel", "result", "after", "events"),
    [
        ("2.6.24", 20, "o0/M:[21,22]", []),  # too small to try the block: rest stays with M
        # All of it moves to U although the block stays M; smallest fit prefers b.
        ("6.1", 22, "o1/U:[20]", [["xf", 20, 0, 1, 0, 1, 0], ["zl", 22, 0, 0, 1]]),
        ("6.12", 22, "o1/M:[20]", [["xf", 22, 0, 0, 0, 1, 0]]),  # smallest chunk stolen
    ],
)
def test_fallback_of_u_into_a_full_block(kernel, result, after, events):
    machine = toy(KERNELS[kernel], "o0/M:[22] o1/M:[20]", used_by="M")
    assert take(machine, 0, "U") == result
    assert_lists(machine, after)
    assert blocks_of(machine) == "MMMM"
    assert events_of(machine) == events
    if kernel == "6.12":  # the next one is cut out of a; its other half stays with M
        assert take(machine, 0, "U") == 20
        assert_lists(machine, "o0/M:[21]")
        assert events_of(machine) == [["xf", 20, 0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("kernel", "result", "after", "events"),
    [
        ("2.6.24", 40, "o0/R:[41] o1/R:[42] o0/M:[20] o1/M:[2]", []),
        (
            "6.1",
            40,
            "o0/R:[41] o1/R:[42] o0/M:[20] o1/M:[2]",
            [["xf", 40, 0, 2, 2, 1, 0], ["zl", 40, 0, 2, 1]],
        ),
        ("6.12", 20, "o1/M:[2] o2/M:[40]", [["xf", 20, 0, 0, 2, 1, 0]]),
    ],
)
def test_fallback_of_r_largest_or_smallest(kernel, result, after, events):
    machine = toy(KERNELS[kernel], "o0/M:[20] o1/M:[2] o2/M:[40]", used_by="M")
    assert take(machine, 0, "R") == result
    assert_lists(machine, after)
    assert blocks_of(machine) == "MMMM"
    assert events_of(machine) == events


@pytest.mark.parametrize("kernel", ALL)
def test_fallback_of_u_with_one_larger_chunk(kernel):
    machine = toy(KERNELS[kernel], "o0/M:[20] o2/M:[4]", used_by="M")
    if kernel == "6.12":
        assert [take(machine, 0, "U"), take(machine, 0, "U")] == [20, 4]
        assert_lists(machine, "o0/M:[5] o1/M:[6]")
    else:
        assert take(machine, 0, "U") == 4
        assert_lists(machine, "o0/U:[5] o1/U:[6] o0/M:[20]")
    assert blocks_of(machine) == "MMMM"


# All blocks U and in use, except 16, 17, 33, 50, 51.
@pytest.mark.parametrize(
    ("kernel", "steps"),
    [
        (
            "2.6.24",  # largest first, the remainder stays with the donor
            [(50, "o0/U:[51,33] o1/U:[16]"), (16, "o0/U:[17,51,33]"), (17, "o0/U:[51,33]")],
        ),
        (
            "6.1",  # smallest first; the chunk moves to M before it is cut
            [(33, "o1/U:[50,16]"), (50, "o0/M:[51] o1/U:[16]"), (51, "o1/U:[16]")],
        ),
        (
            "6.12",  # smallest first; the remainder stays with the donor
            [(33, "o1/U:[50,16]"), (50, "o0/U:[51] o1/U:[16]"), (51, "o1/U:[16]")],
        ),
    ],
)
def test_fallback_of_m_takes_little(kernel, steps):
    machine = toy(KERNELS[kernel], "o0/U:[33] o1/U:[50,16]", "UUUU")
    for result, after in steps:
        assert take(machine, 0, "M") == result
        assert_lists(machine, after)
    assert blocks_of(machine) == "UUUU"
    fallbacks = [event for event in events_of(machine) if event[0] == "xf"]
    assert len(fallbacks) == {"2.6.24": 0, "6.1": 2, "6.12": 3}[kernel]  # 2.6.24: no trace points


@pytest.mark.parametrize("kernel", ALL)
def test_fallback_of_m_takes_half_a_block(kernel):
    # 0..7 free: order 3 is at least half the pageblock order, and 8 frames are half the block.
    machine = toy(KERNELS[kernel], "o0/U:[33] o1/U:[16] o3/U:[0]", "UUUU")
    assert take(machine, 0, "M") == 0
    assert_lists(machine, "o0/M:[1] o1/M:[2] o2/M:[4] o0/U:[33] o1/U:[16]")
    assert blocks_of(machine) == "MUUU"


@pytest.mark.parametrize("kernel", V61_ON)
def test_fallback_in_a_block_cut_by_the_zone_start(kernel):
    # Zone [8,56): block 0 has only 8..15 in it, block 3 only 48..55.
    machine = toy(KERNELS[kernel], "o3/M:[8,48]", start=8, span=48)
    assert take(machine, 0, "U") == 8
    owner = "U" if kernel == "6.1" else "M"
    assert_lists(machine, f"o0/{owner}:[9] o1/{owner}:[10] o2/{owner}:[12] o3/M:[48]")
    assert blocks_of(machine) == owner + "MMM"
    if kernel == "6.1":  # the block that ends outside: nothing is counted, one chunk moves
        machine = toy(KERNELS[kernel], "o3/M:[48,8]", start=8, span=48)
        assert take(machine, 0, "U") == 48
        assert_lists(machine, "o0/U:[49] o1/U:[50] o2/U:[52] o3/M:[8]")
        assert blocks_of(machine) == "MMMM"


def test_watermark_boost_follows_a_fallback_below_block_size():
    zone = toy(V61, "o0/M:[22] o1/M:[20]", used_by="M").zones[0]
    zone.watermark_boost_factor, zone.wmark = 15000, [10, 20, 30, 40]
    zone.boost_watermark(0x800)
    assert (zone.watermark_boost, zone.boosted_watermark) == (16, True)
    for _ in range(3):
        zone.boost_watermark(0)
    assert zone.watermark_boost == 45  # one and a half times the high mark, at most
    assert [zone.wmark_pages(level) for level in range(3)] == [55, 65, 75]


# ---- reserves ----------------------------------------------------------------------------------


def test_reserve_blocks_of_2_6_24():
    # [0 . . . . .|. . . . . .]  three order-5 chunks over six blocks; frame 0 belongs to the boot.
    machine = toy(V2_6_24, "o5/M:[0,32,64]", "MMMMMM", span=96)
    zone = machine.zones[0]
    zone.setup_zone_migrate_reserve(20, frozenset({0}))
    assert blocks_of(machine) == "MXXMMM"  # block 1 has no chunk head: none of it moves
    assert_lists(machine, "o5/M:[0,64] o5/X:[32]")
    ordinary = [*range(32), *range(64, 96)]
    assert [take(machine, 0, "M") for _ in range(64)] == ordinary
    assert take(machine, 0, "M") == 32  # nothing else is left
    assert_lists(machine, "o0/X:[33] o1/X:[34] o2/X:[36] o3/X:[40] o4/X:[48]")
    assert take(machine, 0, "U") == 33
    zone.setup_zone_migrate_reserve(10, frozenset({0}))  # one block is enough now: block 1
    assert blocks_of(machine) == "MXMMMM"
    assert_lists(machine, "o1/M:[34] o2/M:[36] o3/M:[40] o4/X:[48]")


def test_highatomic_reserve():
    # take (0,o2) for U: blocks 0 and 1 turn U. Then block 0 is set aside:
    #   before  o2/U:[4] o3/U:[8] o4/U:[16] o5/M:[32]     blocks U U M M
    #   after   o2/H:[4] o3/H:[8] o4/U:[16] o5/M:[32]     blocks H U M M
    machine = toy(V61, "o5/M:[0,32]")
    zone = machine.zones[0]
    assert take(machine, 2, "U") == 0
    assert blocks_of(machine) == "UUMM"
    zone.reserve_highatomic_pageblock(0, 2)
    machine.validate()
    assert_lists(machine, "o2/H:[4] o3/H:[8] o4/U:[16] o5/M:[32]")
    assert (blocks_of(machine), zone.nr_reserved_highatomic) == ("HUMM", 16)
    zone.reserve_highatomic_pageblock(16, 2)  # one block is the limit of so small a zone
    assert blocks_of(machine) == "HUMM"
    give(machine, 0, 2)
    assert_lists(machine, "o4/H:[0] o4/U:[16] o5/M:[32]")  # buddies, but one is set aside
    assert take(machine, 0, "U") == 16
    assert zone.rmqueue_buddy(2, "U", ALLOC_HIGHATOMIC | ALLOC_MIN_RESERVE) == 0
    machine.zones[0].nr_in_use += 4
    assert_lists(machine, "o2/H:[4] o3/H:[8] o0/U:[17] o1/U:[18] o2/U:[20] o3/U:[24] o5/M:[32]")
    assert not zone.unreserve_highatomic_pageblock("R", force=False)  # one block may stay
    assert zone.unreserve_highatomic_pageblock("R", force=True)
    machine.validate()
    assert (blocks_of(machine), zone.nr_reserved_highatomic) == ("RUMM", 0)
    assert lists_of(machine)[2, "R"] == [4]


def test_freed_highatomic_frame_waits_on_the_movable_list_and_returns_to_its_own():
    machine = toy(V61, "o5/M:[32]", "HMMM", batch=3, high=12)
    machine.free_pages(5, 0)
    assert pcp_of(machine) == {"0/M": [5]}
    machine.drain_pages_zone(0, 0)
    assert_lists(machine, "o0/H:[5] o5/M:[32]")
    assert events_of(machine) == [["dr", 5, 0, 3]]


def test_isolated_block_keeps_its_frames_away():
    machine = toy(V61, "o5/M:[32]", batch=3, high=12)
    machine.free_pages(5, 0)
    machine.free_pages(20, 0)
    machine.zones[0].set_migratetype_isolate(0)
    machine.free_pages(6, 0)  # straight to the list of isolated chunks
    assert_lists(machine, "o0/I:[6] o5/M:[32]")
    machine.drain_pages_zone(0, 0)  # while a block is isolated, blocks are asked, not memories
    assert events_of(machine) == [["dr", 5, 0, 4], ["dr", 20, 0, 1]]
    assert_lists(machine, "o0/I:[5,6] o0/M:[20] o5/M:[32]")
    assert machine.zones[0].nr_free_pages == 33
    machine.zones[0].unset_migratetype_isolate(0, "M")
    machine.validate()
    assert_lists(machine, "o0/M:[20,5,6] o5/M:[32]")
    assert machine.zones[0].nr_free_pages == 35
