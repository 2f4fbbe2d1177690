# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frees in an interrupt found the per-CPU lists locked, by the rule alone."""

import numpy as np
import pytest

from physmem.replay.request import BUSY
from physmem.replay.requests import lower_events
from physmem.trace.events import NO_PREEMPT_COUNT, SOFTIRQ, Events, Kind

pytestmark = pytest.mark.pure

LOW, HIGH = 0x10, 0x80  # frames of two zones
BORDER = 0x40
TASK, OTHER = 7, 8


def busy(*rows, cpus=1, strict=False):
    """Whether the one free in an interrupt is BUSY. Rows: kind, pfn, depth, pid, interrupt, cpu."""
    table = np.array([(*row, *(TASK, 0, 0)[len(row) - 3 :]) for row in rows], np.int64)
    columns = {name: table[:, at] for at, name in enumerate(("kind", "pfn", "preempt", "pid"))}
    columns["context"] = table[:, 4] * SOFTIRQ
    columns["cpu"] = table[:, 5]
    columns["line"] = np.arange(1, len(rows) + 1)
    zeros = ("order", "gfp", "migratetype", "arg0", "arg1")
    columns |= {name: np.zeros(len(rows)) for name in zeros}
    lowered = lower_events(
        Events.from_columns(columns),
        max_pfn=0x100,
        cpu_node=(0,) * cpus,
        strict=strict,
        zone_starts=(BORDER, 0),
    )
    found = lowered.requests
    in_interrupt = lowered.context[found["row"]] > 0
    (answer,) = found["race"][in_interrupt] & BUSY
    return bool(answer)


def batched(pfn, depth=2):
    return (Kind.FREE_BATCHED, pfn, depth)


def interrupt(pfn, depth):
    return (Kind.FREE, pfn, depth, OTHER, 1)


@pytest.mark.parametrize(
    ("before", "depth", "after", "answer"),
    [
        # between two lines of one batch the lock is held all the time
        (batched(1), 2, batched(2), True),
        (batched(1), 4, batched(2), True),
        (batched(1), 1, batched(2), False),  # the lock counts: it cannot be held
        # after the last line only a depth above it tells
        (batched(1), 4, (Kind.FREE, 3, 0), True),
        (batched(1), 2, (Kind.FREE, 3, 0), False),
        (batched(1), 0, (Kind.FREE, 3, 0), False),
        # a refill and a drain hold the zone's lock, too
        ((Kind.ZONE_LOCKED, 4, 3), 3, (Kind.ALLOC, 4, 0), True),
        ((Kind.ZONE_LOCKED, 4, 3), 2, (Kind.ALLOC, 4, 0), False),
        ((Kind.EXTFRAG, 4, 4), 4, (Kind.ALLOC, 4, 0), True),
        ((Kind.PCPU_DRAIN, 4, 3), 3, (Kind.FREE, 5, 0), True),
        ((Kind.PCPU_DRAIN, 4, 3), 0, (Kind.FREE, 5, 0), False),
        # nobody holds anything
        ((Kind.ALLOC, 4, 0), 4, (Kind.FREE, 5, 0), False),
        ((Kind.FREE, 4, 0), 4, (Kind.FREE, 5, 0), False),
    ],
)
def test_depth_and_neighbours_tell(before, depth, after, answer):
    assert busy(before, interrupt(LOW, depth), after) is answer


def test_outcomes_are_not_looked_at_under_strict():
    drain, refill = (Kind.PCPU_DRAIN, 4, 3), (Kind.ZONE_LOCKED, 4, 3)
    for outcome in (drain, refill):
        assert busy(outcome, interrupt(LOW, 3), (Kind.ALLOC, 4, 0))
        assert not busy(outcome, interrupt(LOW, 3), (Kind.ALLOC, 4, 0), strict=True)
        assert busy(batched(1), outcome, interrupt(LOW, 4), batched(2), strict=True)


def test_the_lock_is_that_of_one_zone():
    assert busy(batched(LOW), interrupt(LOW + 1, 4), batched(LOW + 2))
    assert not busy(batched(HIGH), interrupt(LOW, 4), batched(HIGH + 1))
    assert not busy((Kind.ZONE_LOCKED, HIGH, 3), interrupt(LOW, 3), (Kind.ALLOC, HIGH, 0))


def test_without_a_depth_only_a_batch_tells():
    no = NO_PREEMPT_COUNT
    assert busy(batched(1, no), interrupt(LOW, no), batched(2, no))
    assert not busy(batched(1, no), interrupt(LOW, no), (Kind.FREE, 2, no))
    assert not busy((Kind.ZONE_LOCKED, 4, no), interrupt(LOW, no), (Kind.ALLOC, 4, no))


def test_lines_of_another_cpu_do_not_count():
    elsewhere = (Kind.FREE_BATCHED, 1, 2, OTHER, 0, 1)
    assert not busy(elsewhere, interrupt(LOW, 4), elsewhere, cpus=2)
    within = (batched(1), elsewhere, interrupt(LOW, 2), elsewhere, batched(2))
    assert busy(*within, cpus=2)
