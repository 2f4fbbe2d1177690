# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation identity: requests become slots, frees name them, silence is accounted for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.lab.op import GIVE, GIVE_BOOT, GIVE_DEFERRED, SILENT, TAKE, TAKE_BULK, TRY
from physmem.lab.slots import BOOT_DEFERRED, BOOT_LATE, UNSEEN
from physmem.lab.workload import _Slots
from physmem.mm.state import State, ZoneState
from physmem.replay.requests import lower_events
from physmem.trace.events import NO_PREEMPT_COUNT, Events, Kind

FRAMES = 256
KERNEL = 0xCC0


def state():
    zone = ZoneState(0, "Normal", 0, FRAMES, FRAMES, FRAMES, [0] * 4, [[[]] * 5] * 11, [], "M")
    return State([zone])


def slots_of(rows, boot=None):
    """Pass over rows (kind, pfn, order, gfp, arg0, arg1)."""
    table = np.array([(*row, *(0,) * (6 - len(row))) for row in rows], np.int64).reshape(-1, 6)
    names = ("kind", "pfn", "order", "gfp", "arg0", "arg1")
    columns = {name: table[:, at] for at, name in enumerate(names)}
    columns["line"] = np.arange(1, len(rows) + 1)
    columns["pid"] = np.full(len(rows), 7)
    columns |= {name: np.zeros(len(rows)) for name in ("cpu", "context", "migratetype")}
    columns["preempt"] = np.full(len(rows), NO_PREEMPT_COUNT)
    requests = lower_events(
        Events.from_columns(columns), max_pfn=FRAMES, cpu_node=(0,), strict=False
    )
    work = _Slots(requests, state(), FRAMES, (0,))
    for first, count, mark in boot or ():
        work.boot_frame[first : first + count] = mark
    count = work.assign()
    return work, work.ops[:count]


def brief(ops):
    return [(int(o["kind"]), int(o["slot"]), int(o["offset"]), int(o["order"])) for o in ops]


def test_a_free_names_the_allocation_and_the_piece():
    _, ops = slots_of(
        [
            (Kind.ALLOC, 8, 3, KERNEL),
            (Kind.FREE, 12, 1),
            (Kind.FREE, 8, 2),
            (Kind.ALLOC, 12, 1, KERNEL),
            (Kind.FREE, 14, 1),
            (Kind.FREE, 12, 1),
        ]
    )
    assert brief(ops) == [
        (TAKE, 0, 0, 3),
        (GIVE, 0, 4, 1),
        (GIVE, 0, 0, 2),
        (TAKE, 1, 0, 1),
        (GIVE, 0, 6, 1),
        (GIVE, 1, 0, 1),
    ]


def test_a_free_of_a_frame_never_seen_gives_back_what_was_taken_before():
    work, ops = slots_of([(Kind.FREE, 16, 2), (Kind.ALLOC, 16, 0, KERNEL)])
    assert brief(ops) == [(GIVE, 0, 0, 2), (TAKE, 1, 0, 0)]
    assert work.count("nr_early") == 1
    assert work.slot_pfn[0] == 16


def test_frames_of_the_boot_are_no_allocations():
    boot = ((0, 64, BOOT_DEFERRED), (100, 2, BOOT_LATE))
    work, ops = slots_of(
        [(Kind.FREE, 0, 5), (Kind.FREE, 32, 5), (Kind.FREE, 101, 0), (Kind.FREE, 100, 0)], boot
    )
    assert [kind for kind, *_ in brief(ops)] == [GIVE_DEFERRED, GIVE_BOOT, GIVE_BOOT]
    assert work.boot_pfns[:2].tolist() == [101, 100]
    assert work.count("nr_deferred") == 64
    assert work.count("nr_early") == 0


def test_a_bulk_request_owns_the_silent_frames_that_come_back():
    work, ops = slots_of(
        [
            (Kind.ZONE_LOCKED, 40, 0),
            (Kind.ZONE_LOCKED, 41, 0),
            (Kind.BULK, -1, 0, KERNEL, 0, 2),
            (Kind.BULK_RET, -1, 0, 0, 0, 2),
            (Kind.FREE, 41, 0),
            (Kind.FREE, 40, 0),
        ]
    )
    assert brief(ops) == [
        (TAKE_BULK, 0, 0, 0),
        (TAKE_BULK, 1, 0, 0),
        (GIVE, 0, 0, 0),
        (GIVE, 1, 0, 0),
    ]
    assert work.count("nr_silent") == 0


def test_a_silent_frame_without_a_bulk_request_gets_an_allocation_where_it_was_listed():
    work, ops = slots_of(
        [
            (Kind.ZONE_LOCKED, 50, 0),
            (Kind.ALLOC, 51, 0, KERNEL),
            (Kind.ALLOC, 60, 0, KERNEL),
            (Kind.FREE, 50, 0),
        ]
    )
    assert work.count("nr_silent") == 1
    silent = ops[ops["flags"] & SILENT != 0]
    assert len(silent) == 1
    assert int(silent[0]["kind"]) == TAKE
    assert int(silent[0]["key"]) == 0  # right after the request that listed it


def test_a_frame_that_turns_up_again_was_freed():
    work, ops = slots_of([(Kind.ALLOC, 70, 0, KERNEL), (Kind.ALLOC, 70, 0, KERNEL)])
    assert brief(ops) == [(TAKE, 0, 0, 0), (GIVE, 0, 0, 0), (TAKE, 1, 0, 0)]
    assert work.count("nr_unseen_gives") == 1


def test_a_failed_allocation_is_tried_and_owns_nothing():
    work, ops = slots_of([(Kind.ALLOC, -1, 4, KERNEL)])
    assert [kind for kind, *_ in brief(ops)] == [TRY]
    assert work.count("nr_slots") == 0


def test_settling_agrees_with_the_state_at_the_end():
    work, _ = slots_of([(Kind.ZONE_LOCKED, 80, 0), (Kind.ALLOC, 81, 0, KERNEL), (Kind.FREE, 90, 0)])
    in_use = np.zeros(FRAMES, np.uint8)
    in_use[[80, 200]] = 1  # 81 was freed, 80 was taken, 200 was never seen
    count = work.settle(in_use)
    assert work.count("nr_silent") == 1
    assert work.count("nr_unseen_gives") == 1
    assert work.owner[200] == UNSEEN
    assert brief(work.ops[:count])[-1][0] in (GIVE, TAKE)


@st.composite
def histories(draw):
    """Rows of a machine that obeys: blocks are free when taken, frees name frames in use."""
    owner, rows = {}, []
    for _ in range(draw(st.integers(1, 40))):
        order = draw(st.integers(0, 3))
        pfn = draw(st.integers(0, (FRAMES >> order) - 1)) << order
        block = range(pfn, pfn + (1 << order))
        held = [owner.get(frame, "unseen") for frame in block]
        if all(each in ("unseen", None) for each in held) and draw(st.booleans()):
            number = len(rows)
            owner.update(dict.fromkeys(block, number))
            rows.append((Kind.ALLOC, pfn, order, KERNEL))
        elif held[0] is not None and all(each == held[0] for each in held):
            owner.update(dict.fromkeys(block))
            rows.append((Kind.FREE, pfn, order))
    return rows


@settings(max_examples=60, deadline=None)
@given(histories())
def test_identity_is_that_of_a_dictionary(rows):
    """Every piece that is freed is the recorded frames of its slot, each frame once per life."""
    if not rows:
        return
    work, ops = slots_of(rows)
    alive, found = {}, []
    for op in ops:
        slot = int(op["slot"])
        if op["kind"] == TAKE:
            alive[slot] = set(range(1 << int(op["order"])))
            found.append((Kind.ALLOC, int(work.slot_pfn[slot]), int(op["order"])))
            continue
        pieces = set(range(int(op["offset"]), int(op["offset"]) + (1 << int(op["order"]))))
        if slot in alive:
            assert pieces <= alive[slot]
            alive[slot] -= pieces
        found.append((Kind.FREE, int(work.slot_pfn[slot]) + int(op["offset"]), int(op["order"])))
    assert found == [(kind, pfn, order) for kind, pfn, order, *_ in rows]
