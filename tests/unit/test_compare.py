# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing states: each answer says no exactly when its part differs."""

import copy
import doctest
import json

import pytest

from physmem.mm import compare
from physmem.mm.compare import MAX_DIFFERENCES, compare_states
from physmem.mm.state import State
from physmem.views.sample import small_state

pytestmark = pytest.mark.pure

ANSWERS = (
    "free_lists_equal",
    "pcp_lists_equal",
    "pageblocks_equal",
    "buddyinfo_equal",
    "pagetypeinfo_equal",
)


def differing(result):
    return {name for name in ANSWERS if not getattr(result, name)}


def changed(change):
    state = copy.deepcopy(small_state())
    change(state)
    return compare_states(small_state(), state)


def test_equal_states_are_equal():
    result = compare_states(small_state(), small_state())
    assert result.equal
    assert result.differences == ()
    assert result.nr_differences == 0


def test_order_of_a_list_counts_only_for_lists():
    result = changed(lambda state: state.zones[1].free[0][0].reverse())
    assert differing(result) == {"free_lists_equal"}
    (line,) = result.differences
    assert line == (
        "Node 0, zone Normal, order 0, Unmovable, position 0: expected 0x80c, actual 0x802 "
        "(2 chunks, the same ones in another order)"
    )


def test_a_chunk_missing():
    def change(state):
        state.zones[1].free[0][0].pop()
        state.zones[1].nr_free[0] -= 1

    result = changed(change)
    assert differing(result) == {"free_lists_equal", "buddyinfo_equal", "pagetypeinfo_equal"}
    assert result.differences[0] == (
        "Node 0, zone Normal, order 0, Unmovable, position 1: expected 0x802, actual its end "
        "(2 chunks expected, 1 there)"
    )
    assert "buddyinfo, order 0: expected 4, actual 3" in result.differences[1]
    assert "pagetypeinfo, order 0, Unmovable: expected 2, actual 1" in result.differences[2]


def test_another_chunk():
    def change(state):
        state.zones[1].free[0][0][1] = 2054

    result = changed(change)
    assert differing(result) == {"free_lists_equal"}
    assert "1 of 2 chunks are others" in result.differences[0]


def test_a_type_swapped_is_invisible_to_buddyinfo():
    def change(state):
        state.zones[1].free[0][2], state.zones[1].free[0][1] = (
            state.zones[1].free[0][1] + state.zones[1].free[0][2],
            [],
        )

    assert differing(changed(change)) == {"free_lists_equal", "pagetypeinfo_equal"}


def test_counter_without_list():
    def change(state):
        state.zones[0].nr_free[5] += 1

    assert differing(changed(change)) == {"buddyinfo_equal"}


def test_lengths_stand_for_counters_that_are_not_there():
    def change(state):
        for zone in state.zones:
            zone.nr_free = []

    assert changed(change).equal


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda pcp: setattr(pcp, "count", 514), "cpu 0, count: expected 515, actual 514"),
        (lambda pcp: pcp.lists[0].reverse(), "per-CPU list 0, position 0: expected 0x821"),
        (lambda pcp: pcp.lists[13].clear(), "per-CPU list 13, position 0: expected 0x1400"),
    ],
)
def test_per_cpu_lists(change, line):
    result = changed(lambda state: change(state.zones[1].pcp[0]))
    assert differing(result) == {"pcp_lists_equal"}
    assert line in result.differences[0]


def test_a_cpu_that_only_one_side_has():
    result = changed(lambda state: state.zones[1].pcp.clear())
    assert differing(result) == {"pcp_lists_equal"}


def test_empty_lists_equal_absent_ones():
    def change(state):
        state.zones[1].pcp[0].lists.append([])

    assert changed(change).equal


def test_pageblocks():
    def change(state):
        state.zones[1].pageblocks = "UUMMMRRH"

    result = changed(change)
    assert differing(result) == {"pageblocks_equal", "pagetypeinfo_equal"}
    assert result.differences[0] == (
        "Node 0, zone Normal, pageblock 6 at 0x1400: expected M, actual R"
    )


def test_pageblocks_in_other_places_have_equal_counts():
    def change(state):
        state.zones[1].pageblocks = "UUMMRMMH"

    assert differing(changed(change)) == {"pageblocks_equal"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda state: state.zones.pop(), "zones: expected 2, actual 1"),
        (lambda state: setattr(state, "pageblock_order", 10), "pageblock_order: expected 9"),
        (lambda state: setattr(state.zones[0], "start", 2), "start: expected 1, actual 2"),
        (lambda state: setattr(state.zones[0], "name", "DMA32"), "name: expected DMA"),
    ],
)
def test_different_machines_are_equal_in_nothing(change, line):
    result = changed(change)
    assert differing(result) == set(ANSWERS)
    assert line in result.differences[0]


def test_the_lines_end_and_the_count_does_not():
    def change(state):
        state.zones[1].free[0][0] = []
        state.zones[0].pageblocks = "RRRR"
        state.zones[1].pageblocks = "IIIIIIII"
        state.zones[1].pcp[0].lists = [[index] for index in range(14)]

    result = changed(change)
    assert len(result.differences) == MAX_DIFFERENCES < result.nr_differences


def test_to_dict_is_plain():
    made = changed(lambda state: state.zones[1].free[0][0].reverse()).to_dict()
    assert json.loads(json.dumps(made)) == made
    assert next(iter(made)) == "equal"
    assert made["equal"] is False


def test_states_of_no_type_lists():
    empty = State(zones=small_state().zones[:1])
    assert compare_states(empty, copy.deepcopy(empty)).equal


def test_examples():
    assert doctest.testmod(compare).failed == 0
