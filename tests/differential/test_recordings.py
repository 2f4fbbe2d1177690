# SPDX-License-Identifier: GPL-2.0-or-later
"""Real kernels, frame by frame: every answer and the whole final state as recorded."""

from pathlib import Path

import numpy as np
import pytest

from physmem.mm.state import State
from physmem.replay.columns import replay_columns
from physmem.replay.request import COUNTED
from physmem.replay.session import RecordedMachine, Session, load_machine
from physmem.trace.capture import Capture, read_capture
from physmem.trace.events import Events, Kind

RECORDINGS = Path(__file__).parents[1] / "recordings"

# name -> (allocations, races at most per million events, exact under --strict too)
KERNELS = {
    "linux-6.1-x86_64-512M": (457_034, 0, True),
    "linux-6.1-i386-highmem": (439_964, 0, True),
    "linux-6.1-x86_64-2nodes": (359_778, 20, False),
    "linux-6.1-arm64-512M": (388_806, 20, False),
    "linux-6.12-x86_64-512M": (422_268, 0, False),
}
OUTCOMES = (Kind.ALLOC, Kind.ZONE_LOCKED, Kind.PCPU_DRAIN, Kind.EXTFRAG)


@pytest.fixture(scope="module", params=sorted(KERNELS))
def recording(request):
    return request.param, read_capture(
        RECORDINGS / f"{request.param}.physmem", columns=replay_columns
    )


def with_events(capture: Capture, events: Events) -> Capture:
    return Capture(events, capture.info, capture.state0, capture.state1)


def changed(events: Events, **columns) -> Events:
    every = {name: getattr(events, name) for name in events.columns}
    return Events.from_columns(every | columns, events.comms, events.markers)


def test_every_answer_and_the_final_state(recording):
    name, capture = recording
    allocations, races_per_million, _ = KERNELS[name]
    session = Session.prepare(capture)
    result = session.run()
    assert result.allocations == allocations
    assert result.exact == allocations
    assert result.exact_share == 1.0
    assert result.consequences_exact == result.consequences > 250_000
    assert (result.consequences_extra, result.unexplained, result.frees_unmatched) == (0, 0, 0)
    assert result.first_divergence is None
    assert result.final.equal, result.final.differences
    assert len(result.races) <= races_per_million * result.events / 1e6
    assert sum(zone.requests for zone in result.zones) == allocations
    machine = session.machine()
    machine.validate()
    assert isinstance(machine.snapshot(), State)


def test_strict_is_exact_where_nothing_races(recording):
    name, capture = recording
    result = Session.prepare(capture, strict=True).run()
    assert result.races == ()
    assert result.equal == KERNELS[name][2]
    assert (result.first_divergence is None) == KERNELS[name][2]
    if not result.equal:
        first = result.first_divergence
        assert len(first.context) == 20
        assert sum(line.startswith(">") for line in first.context) == 1
        assert first.why
        assert len(first.lists) == 2


def test_decays_that_show_and_that_do_not():
    path = RECORDINGS / "linux-6.12-x86_64-512M.physmem"
    session = Session.prepare(read_capture(path, columns=replay_columns))
    decays = session.run().decays
    assert (decays.seen, decays.inferred) == (7, 9)  # one a second
    assert decays.moved <= 2
    record = session.runner.requests.requests
    assert not (record["race"] & COUNTED).any()


def test_seconds_before_anything_shows():
    """A recording that begins with silent seconds: high falls until the lists hold more."""
    path = RECORDINGS / "linux-6.12-x86_64-256M-short.physmem"
    result = Session.prepare(read_capture(path, columns=replay_columns)).run()
    assert result.equal, result.first_divergence
    assert (result.allocations, result.decays.seen) == (27_914, 7)
    assert result.decays.inferred == 4


def corrupted(events: Events, seed: int) -> Events:
    """Wrong frames in every outcome: allocations, refills, drains, fallbacks."""
    rng = np.random.default_rng(seed)
    rows = np.isin(events.kind, OUTCOMES)
    pfn = events.pfn.copy()
    pfn[rows] = rng.integers(0, 1 << 20, int(rows.sum()))
    order = events.order.copy()
    order[np.isin(events.kind, OUTCOMES[1:])] ^= 1
    return changed(events, pfn=pfn, order=order)


def test_strict_predictions_do_not_see_outcomes(recording):
    _, capture = recording
    session = Session.prepare(capture, strict=True)
    result = session.run()
    for seed in (1, 2):
        blind = Session.prepare(with_events(capture, corrupted(capture.events, seed)), strict=True)
        found = blind.run()
        assert found.digest == result.digest
        assert found.state == result.state
        mine, theirs = blind.predictions(), session.predictions()
        assert np.array_equal(mine["predicted"], theirs["predicted"])
        assert not np.array_equal(mine["recorded"], theirs["recorded"])
        assert found.exact < result.exact  # and the comparison does see them
        assert found.first_divergence is not None


def test_strict_predictions_do_not_need_consequences(recording):
    _, capture = recording
    result = Session.prepare(capture, strict=True).run()
    info, events = capture.info, capture.events[capture.info.state0_row : capture.info.state1_row]
    keep = ~np.isin(events.kind, OUTCOMES[1:])
    columns = {name: getattr(events, name)[keep] for name in events.columns}
    part = Events.from_columns(columns, events.comms, events.markers)
    bare = type(info)(machine=info.machine, movable0=info.movable0)
    found = Session.prepare(Capture(part, bare, capture.state0, None), strict=True).run()
    assert found.digest == result.digest
    assert found.consequences == 0
    assert found.consequences_extra == result.consequences_exact + (
        result.consequences_extra
        if result.equal
        else found.consequences_extra - result.consequences_exact
    )


def test_a_wrong_answer_is_found_and_named():
    capture = read_capture(RECORDINGS / "linux-6.1-x86_64-512M.physmem", columns=replay_columns)
    rows = np.flatnonzero(capture.events.kind == Kind.ALLOC)
    row = int(rows[len(rows) // 2])
    pfn = capture.events.pfn.copy()
    real = int(pfn[row])
    pfn[row] = real + 1
    result = Session.prepare(with_events(capture, changed(capture.events, pfn=pfn))).run()
    assert not result.equal
    assert result.first_divergence.line == int(capture.events.line[row])
    assert result.first_divergence.expected == f"{real + 1:#x}"
    assert result.first_divergence.predicted == f"{real:#x}"
    assert result.exact >= result.allocations - 10  # it goes on by allocation identity


def test_a_wrong_start_state_is_found():
    capture = read_capture(RECORDINGS / "linux-6.1-x86_64-512M.physmem", columns=replay_columns)
    zone = capture.state0.zones[1]
    zone.pcp[0].lists[0].reverse()
    result = Session.prepare(capture).run()
    assert not result.equal
    assert 0 < result.exact < result.allocations
    assert result.first_divergence.lists[0].startswith("recorded: 0x")


def test_a_machine_replays_from_where_it_is():
    path = RECORDINGS / "linux-6.1-x86_64-512M.physmem"
    machine = load_machine(path)
    assert isinstance(machine, RecordedMachine)
    before = machine.snapshot()
    assert machine.replay(path).equal
    assert machine.snapshot() != before
    machine.validate()
    used = load_machine(path)
    used.alloc_pages(gfp="GFP_HIGHUSER_MOVABLE")
    assert not used.replay(path).equal
