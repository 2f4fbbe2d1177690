# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragmentation figures, pageblock contents and tables."""

import msgspec
import numpy as np
import pytest

from physmem.lib.errors import BadInputError, BadStateError
from physmem.mm.state import State
from physmem.views.blocks import ZoneBlocks, all_blocks, group_blocks, pcp_order, zone_blocks
from physmem.views.fragmentation import (
    block_shares,
    extfrag_index_text,
    extfrag_percent,
    format_index,
    fragmentation_index,
    fragmentation_rows,
    free_chunks,
    free_frames,
    unusable_index,
    unusable_index_text,
    usable_share,
)
from physmem.views.sample import small_state
from physmem.views.table import to_arrow, to_dicts

ORDERS = range(11)
MIXED = [500, 120, 40, 10, 0, 0, 0, 0, 0, 0, 0]
SINGLES = [3] + [0] * 10
GUEST = [6, 6, 6, 10, 8, 8, 8, 7, 6, 3, 39]


def printed(index, nr_free):
    return " ".join(format_index(index(nr_free, order)) for order in ORDERS)


def test_worked_numbers_of_the_unusable_index():
    assert free_frames(MIXED) == 980
    assert sum(MIXED) == 670
    assert printed(unusable_index, MIXED).startswith("0.000 0.510 0.755 0.918 1.000 1.000")
    assert free_frames(GUEST) == 44922
    assert printed(unusable_index, GUEST) == (
        "0.000 0.000 0.000 0.000 0.002 0.005 0.011 0.022 0.042 0.076 0.110"
    )


def test_worked_numbers_of_the_fragmentation_index():
    assert printed(fragmentation_index, MIXED) == (
        "-1.000 -1.000 -1.000 -1.000 0.908 0.953 0.976 0.988 0.993 0.996 0.998"
    )
    assert printed(fragmentation_index, SINGLES) == (
        "-1.000 0.167 0.417 0.542 0.605 0.636 0.652 0.659 0.663 0.665 0.666"
    )


def test_worked_numbers_of_extfrag():
    assert extfrag_percent(GUEST, 9) == 7
    assert extfrag_percent(MIXED, 0) == 0
    assert extfrag_percent(MIXED, 10) == 100


def test_nothing_free():
    nothing = [0] * 11
    assert unusable_index(nothing, 3) == 1000
    assert fragmentation_index(nothing, 3) == 0
    assert extfrag_percent(nothing, 3) == 0
    assert free_chunks(nothing, 3) == 0
    assert usable_share(State(zones=[_zone(small_state(), nr_free=nothing)]), 9) == 0


def test_one_chunk_gives_a_negative_index_with_two_signs():
    # C divides towards zero and keeps the sign in the remainder, which printf then shows.
    assert fragmentation_index([1, 0], 1) == -500
    assert format_index(-500, 2) == " 0.-500"
    assert format_index(-1500, 2) == "-1.-500"
    assert format_index(0) == "0.000"


def test_debugfs_lines():
    state = State(zones=[_zone(small_state(), name="DMA32", nr_free=GUEST)])
    values = "0.000 0.000 0.000 0.000 0.002 0.005 0.011 0.022 0.042 0.076 0.110 "
    assert unusable_index_text(state) == f"Node 0, zone    DMA32 {values}\n"
    state = State(zones=[_zone(small_state(), name="DMA", nr_free=SINGLES)])
    values = "-1.000  0.167  0.417  0.542  0.605  0.636  0.652  0.659  0.663  0.665  0.666 "
    assert extfrag_index_text(state) == f"Node 0, zone      DMA {values}\n"


def test_rows_repeat_the_functions():
    rows = fragmentation_rows(small_state())
    assert len(rows) == 22
    normal = [4, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0]
    row = rows[11 + 10]
    assert (row.zone, row.order, row.free) == ("Normal", 10, 0)
    assert row.unusable_index == unusable_index(normal, 10) == 1000
    assert row.fragmentation_index == fragmentation_index(normal, 10)
    assert row.extfrag_percent == 100


def test_usable_share_counts_all_zones():
    assert usable_share(small_state(), 0) == 1.0
    assert usable_share(small_state(), 10) == 1024 / (1568 + 908)


def test_block_shares():
    dma, normal = block_shares(small_state())
    # The first block of DMA lacks frame 0: partial, and in no other count.
    assert (dma.blocks, dma.partial, dma.free, dma.movable, dma.reachable) == (3, 1, 3, 3, 3)
    assert (normal.blocks, normal.partial) == (8, 0)
    assert (normal.free, normal.free_with_pcp, normal.full) == (1, 2, 2)
    assert (normal.movable, normal.reachable) == (4, 4)


def _zone(state, **fields):
    return msgspec.structs.replace(state.zones[1], **fields)


def _with(state, **fields):
    return State(zones=[_zone(state, **fields)], pageblock_order=state.pageblock_order)


def test_blocks_equal_a_plain_count():
    rng = np.random.default_rng(5)
    for pbo in (9, 10, 4):
        state = small_state()
        start, blocks = 3 + (1 << pbo), 6
        end = start + (blocks << pbo)
        free = [[[] for _ in range(5)] for _ in range(11)]
        taken = set()
        expected = {}
        for _ in range(300):
            order = int(rng.integers(0, 11))
            pfn = int(rng.integers(start, end)) >> order << order
            frames = range(pfn, pfn + (1 << order))
            if pfn < start or frames[-1] >= end or not taken.isdisjoint(frames):
                continue
            taken.update(frames)
            free[order][int(rng.integers(0, 5))].append(pfn)
            for frame in frames:
                expected[frame >> pbo] = expected.get(frame >> pbo, 0) + 1
        state.pageblock_order = pbo
        made = _zone(
            state, start=start, spanned=end - start, free=free, pcp=[], pageblocks="UMRHIM."
        )
        seen = zone_blocks(state, made)
        first = start >> pbo
        assert seen.first == first
        assert seen.free.tolist() == [expected.get(first + index, 0) for index in range(7)]
        assert seen.frames.tolist() == [(1 << pbo) - 3] + [1 << pbo] * 5 + [3]
        assert seen.types.tolist() == [0, 1, 2, 3, 4, 1, 255]


def test_types_with_cma():
    state = small_state()
    free = [[*lists, []] for lists in state.zones[1].free]
    seen = all_blocks(_with(state, free=free, pageblocks="UMRHCI.M"))[0]
    assert seen.types.tolist() == [0, 1, 2, 3, 4, 5, 255, 1]


def test_free_share_is_rounded_down():
    state = small_state()
    free = [[[] for _ in range(5)] for _ in range(11)]
    for order in range(9):
        free[order][1] = [2048 + 512 - (2 << order)]  # all but the last frame of block 4
    share = zone_blocks(state, _zone(state, free=free)).free_share()
    assert share[0] == 511 * 255 // 512 == 254
    twice = zone_blocks(state, _zone(state, free=[*free[:9], [[2048, 2048], [], [], [], []]]))
    assert twice.free_share()[0] == 255


def test_pcp_orders():
    assert [pcp_order(index, 9) for index in range(14)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [
        9,
        9,
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pageblocks": "UUMMMRMX"}, "pageblock letter 'X' is not one of UMRHI"),
        ({"pageblocks": "UUMMMRM\u20ac"}, "pageblock letter"),
        ({"pageblocks": "UUMM"}, "4 pageblock letters for 8 pageblocks"),
        ({"start": 2560, "spanned": 3584, "pageblocks": "UMMMRMH"}, "lies outside the zone"),
    ],
)
def test_a_state_that_contradicts_itself(fields, reason):
    state = _with(small_state(), **fields)
    with pytest.raises(BadStateError, match=reason):
        all_blocks(state)


def test_groups_take_the_commonest_type():
    ones = np.ones(6, np.int64)
    types = np.array([0, 1, 1, 2, 255, 255], np.uint8)
    blocks = ZoneBlocks(0, "Z", 3, 9, types, ones * 512, ones * 5, ones)
    groups = group_blocks(blocks, 2)
    assert (groups.first, groups.order) == (0, 11)
    assert groups.types.tolist() == [0, 1, 255]  # blocks 3 | 4 5 6 7 | 8
    assert groups.frames.tolist() == [512, 1536, 0]
    assert groups.free.tolist() == [5, 20, 5]
    assert groups.pcp.tolist() == [1, 4, 1]
    assert group_blocks(blocks, 0) is blocks


@pytest.mark.parametrize(
    ("what", "rows", "column", "total"),
    [
        ("free", 2 * 11 * 5, "frames", 1568 + 908),
        ("chunks", 11, "position", 1),
        ("pcp", 4, "order", 9),
        ("blocks", 12, "free", 1568 + 908),
        ("zones", 2, "free", 1568 + 908),
    ],
)
def test_tables(what, rows, column, total):
    table = to_arrow(small_state(), what)
    dicts = to_dicts(small_state(), what)
    assert table.num_rows == len(dicts) == rows
    assert table.to_pylist() == dicts
    assert sum(table[column].to_pylist()) == total


def test_table_of_chunks_keeps_list_order():
    rows = [row for row in to_dicts(small_state(), "chunks") if row["zone"] == "Normal"]
    assert [(row["position"], row["pfn"]) for row in rows[:2]] == [(0, 2060), (1, 2050)]


def test_table_of_blocks_without_memory():
    state = _with(small_state(), pageblocks="UUMM.RMH")
    assert to_arrow(state, "blocks")["migratetype"].to_pylist()[4] is None


def test_unknown_table():
    with pytest.raises(BadInputError, match="choose one of free, chunks, pcp, blocks, zones"):
        to_arrow(small_state(), "everything")
