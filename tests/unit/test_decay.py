# SPDX-License-Identifier: GPL-2.0-or-later
"""When per-CPU lists decayed: found again in traces of machines whose seconds are known here.

A `Recorder` works on a machine as a guest would, and writes down what a kernel would print. Its
seconds have any phase, come late by a little when there is work and by more when there is none, and
sometimes do not come at all.
"""

from random import Random

import msgspec
import numpy as np
import pytest

from physmem.machine.machine import Machine
from physmem.mm.gfp import parse_gfp
from physmem.replay.columns import COLUMNS, profile_for, replay_columns
from physmem.replay.decay import PERIOD, phase_of
from physmem.replay.decay_moves import unseen_decays
from physmem.replay.report import Decays
from physmem.replay.session import Session
from physmem.trace.capture import Capture, CaptureInfo
from physmem.trace.events import Events, Kind
from physmem.trace.info import MachineInfo, ZoneInfo
from physmem.trace.window import window

MOVABLE = parse_gfp("GFP_HIGHUSER_MOVABLE")
USER, WORKER = 77, 11
NAMES = ("ts", "cpu", "pid", "comm", "context", "preempt", "kind", "pfn", "order", "migratetype")
NAMES = (*NAMES, "gfp", "arg0", "arg1")


class Recorder:
    """A machine at work, and the lines that tell of it."""

    def __init__(self, seed, memory="64MiB"):
        self.rng = Random(seed)
        self.machine = Machine.build(memory, kernel="6.12")
        self.machine.tracing()
        self.rows = []
        self.now = 5 * PERIOD
        self.phase = self.rng.randrange(PERIOD)
        self.due = self.next_second()
        self.held = []
        self.ticks = []  # when the seconds came
        self.shown = 0
        for _ in range(3000):  # so that lists are long already
            self.held.append(self.machine.alloc_pages(gfp=MOVABLE))
        for _ in range(1500):
            self.machine.free_pages(self.held.pop(self.rng.randrange(len(self.held))))
        self.machine.events()
        self.state0 = self.machine.snapshot()
        self.movable0 = [(pfn, 1) for pfn in self.held]

    def next_second(self):
        return (self.now - self.phase) // PERIOD * PERIOD + PERIOD + self.phase

    def add(self, kind, pfn, order=0, mt=-1, gfp=0, arg0=-1, arg1=-1, pid=USER):
        comm = 1 if pid == WORKER else 0
        row = (self.now, 0, pid, comm, 0, 0, kind, pfn, order, mt, gfp, arg0, arg1)
        self.rows.append(row)
        self.now += 1000

    def consequences(self, pid=USER):
        told = self.machine.events()
        for event in told:
            mt = event.migratetype
            if event.name == "mm_page_alloc_extfrag":
                other = event.fallback_migratetype | int(event.change_ownership) << 8
                order = event.fallback_order
                self.add(Kind.EXTFRAG, event.pfn, event.order, mt, 0, order, other, pid)
            elif event.name == "mm_page_pcpu_drain":
                self.add(Kind.PCPU_DRAIN, event.pfn, event.order, mt, pid=pid)
            else:
                refill = int(event.percpu_refill)
                self.add(Kind.ZONE_LOCKED, event.pfn, event.order, mt, 0, refill, pid=pid)
        return len(told)

    def second(self):
        """Let the worker run if its second has come."""
        if self.now < self.due:
            return
        if self.rng.random() > 0.05:
            self.machine.tick()
            self.ticks.append(self.now)
            self.shown += self.consequences(WORKER) > 0
        self.due = self.next_second()
        if self.rng.random() < 0.5:
            self.due += int(self.rng.expovariate(1 / 6e6))

    def pause(self, seconds):
        end = self.now + int(seconds * PERIOD)
        while self.due < end:
            self.now = self.due + int(self.rng.expovariate(1 / 80e6))
            self.second()
        self.now = max(self.now, end)

    def work(self, count, gets):
        for _ in range(count):
            self.now += int(self.rng.expovariate(1 / 150e3))
            self.second()
            order = self.rng.choice((0,) * 30 + (1, 2))
            if self.held and self.rng.random() > gets:
                pfn, order = self.held.pop(self.rng.randrange(len(self.held))), 0
                self.add(Kind.FREE, pfn, order)
                self.machine.free_pages(pfn, order)
                self.consequences()
            else:
                pfn = self.machine.alloc_pages(order, MOVABLE)
                self.consequences()
                self.add(Kind.ALLOC, pfn, order, 1, MOVABLE)
                if order:
                    self.add(Kind.FREE, pfn, order)
                    self.machine.free_pages(pfn, order)
                    self.consequences()
                else:
                    self.held.append(pfn)

    def run(self):
        self.pause(4)
        for _ in range(9):
            self.work(4000, self.rng.choice((0.1, 0.3, 0.5, 0.6, 0.85)))
        self.pause(2.5)
        return self.capture()

    def capture(self, names=(*NAMES, "line")):
        columns = dict(zip(NAMES, np.array(self.rows, np.int64).T, strict=True))
        columns["line"] = np.arange(len(self.rows)) + 1
        events = Events.from_columns(
            {name: columns[name] for name in names}, ["user", "kworker/0:1"]
        )
        names = ("DMA", "DMA32", "Normal", "Movable", "Device")
        machine = MachineInfo(
            kernel="6.12.107",
            profile="6.12",
            arch="x86_64",
            zones=[ZoneInfo(0, index, name) for index, name in enumerate(names)],
        )
        info = CaptureInfo(
            machine=machine,
            rows=len(events),
            state0_row=0,
            state1_row=len(events),
            movable0=self.movable0,
        )
        return Capture(events, info, self.state0, self.machine.snapshot())


@pytest.mark.parametrize("seed", range(6))
def test_seconds_are_found(seed):
    recorder = Recorder(seed)
    capture = recorder.run()
    session = Session.prepare(capture)
    result = session.run()
    assert result.equal, (result, result.first_divergence)
    assert result.races == ()
    assert result.decays.seen == recorder.shown
    assert result.notes == ()
    session.machine().validate()


def test_a_wrong_phase_is_put_right(monkeypatch):
    recorder = Recorder(3)
    capture = recorder.run()
    monkeypatch.setattr(
        "physmem.replay.decay.phase_of", lambda _: (recorder.phase - 50_000_000) % PERIOD
    )
    session = Session.prepare(capture)
    result = session.run()
    assert result.equal, result.first_divergence
    assert result.decays.moved > 0


@pytest.mark.parametrize("seed", range(4))
def test_without_a_pause_the_phase_is_hardly_known(seed):
    recorder = Recorder(f"busy {seed}")
    for gets in (0.6, 0.3, 0.7, 0.4):
        recorder.work(5000, gets)
    result = Session.prepare(recorder.capture()).run()
    assert result.exact == result.allocations
    assert result.equal, result.first_divergence


def test_without_times_and_under_strict_nothing_is_inferred():
    recorder = Recorder(1)
    capture = recorder.run()
    result = Session.prepare(capture, strict=True).run()
    assert result.decays == Decays()
    assert "decay once a second; --strict does not infer when" in result.notes[0]
    timeless = recorder.capture(tuple(name for name in (*NAMES, "line") if name != "ts"))
    result = Session.prepare(timeless).run()
    assert result.decays == Decays()
    assert "the trace has no times" in result.notes[0]


def test_drains_right_behind_a_free_of_the_worker():
    """The worker frees something, then lets lists decay: nothing tells where one thing ends."""
    recorder = Recorder(2)
    recorder.work(500, 0.2)
    recorder.due = recorder.now + 10 * PERIOD
    pfn = recorder.held.pop()
    recorder.add(Kind.FREE, pfn, pid=WORKER)
    recorder.machine.free_pages(pfn)
    assert recorder.consequences(WORKER) == 0
    shown = 0
    while not shown:
        recorder.machine.tick()
        shown = recorder.consequences(WORKER)
        if not shown:  # let it be seen at once
            recorder.machine.tables.pageset[1]["high"] -= 50
    session = Session.prepare(recorder.capture())
    assert session.run().allocations > 0
    assert int(session.runner.stats["decays_after_frees"]) == 1


def drains(recorder, count):
    """Let the worker drain so many frames; how many lines that are."""
    pageset = recorder.machine.tables.pageset[1]
    pageset["high"] = (int(pageset["count"]) - count) * 8 // 7
    recorder.now += PERIOD
    recorder.machine.tick()
    return recorder.consequences(WORKER)


def test_a_state_some_drains_beside_its_line():
    recorder = Recorder(5)
    before = recorder.machine.snapshot()
    first = drains(recorder, 30)
    middle = recorder.machine.snapshot()
    second = drains(recorder, 20)
    assert min(first, second) > 0
    after = recorder.machine.snapshot()
    capture = recorder.capture()
    rows = first + second

    def seen(state0, row0, state1, row1):
        info = msgspec.structs.replace(capture.info, state0_row=row0, state1_row=row1)
        return window(Capture(capture.events, info, state0, state1))

    assert seen(before, 0, after, rows) == (0, rows)
    assert seen(middle, first, middle, first) == (first, first)
    assert seen(before, first, middle, rows) == (0, first)  # read before their lines
    assert seen(middle, 0, after, first) == (first, rows)  # read behind them
    assert seen(None, None, None, None) == (0, rows)
    assert seen(None, 3, None, 5) == (3, 5)


def test_phases():
    assert phase_of(np.empty(0, np.int64)) is None
    assert phase_of(np.array([7 * PERIOD])) == 0


def test_columns_and_profiles():
    machine = MachineInfo(profile="6.12")
    info = CaptureInfo(machine=machine, columns=[*NAMES, "line"])
    assert replay_columns(info) == (*COLUMNS, "ts", "comm")
    info.columns.remove("ts")
    assert replay_columns(info) == (*COLUMNS, "comm")
    assert replay_columns(CaptureInfo()) == COLUMNS
    assert profile_for(CaptureInfo()) == "6.1"
    assert profile_for(CaptureInfo(machine=MachineInfo("6.18.2", "6.18"))) == "6.12"


def test_a_kernel_without_a_profile_of_its_own_is_noted():
    recorder = Recorder(1)
    recorder.work(50, 0.5)
    capture = recorder.capture()
    capture.info.machine.kernel = "6.8.0-31-generic"
    notes = Session.prepare(capture).run().notes
    assert "6.8.0-31-generic" in notes[0]
    assert "rules of 6.12" in notes[0]


def test_an_older_kernel_has_no_decays():
    recorder = Recorder(1)
    recorder.work(100, 0.5)
    capture = recorder.capture()
    capture.info.machine.profile = "6.1"
    capture.info.machine.kernel = "6.1.170"
    session = Session.prepare(capture)
    session.run()
    assert not len(unseen_decays(session.requests.requests))
