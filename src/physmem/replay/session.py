# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaying a capture: from the recorded start state to the comparison with the recorded end."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadCaptureError, BadRequestError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.layout import Layout, zone_names
from physmem.machine.load import fill_tables, read_tables
from physmem.machine.machine import Machine
from physmem.machine.profiles import PROFILES, feature_bits
from physmem.machine.tables import TRACE_EVENTS, Tables, build_tables
from physmem.mm.compare import compare_states
from physmem.mm.features import PCP_AUTO_TUNING
from physmem.mm.state import State
from physmem.replay import request as rq
from physmem.replay.columns import profile_for, replay_columns
from physmem.replay.engine import replay
from physmem.replay.lowering import lower
from physmem.replay.report import (
    Decays,
    FirstDivergence,
    RaceLine,
    Result,
    ZoneResult,
    explain,
    format_context,
    frame_text,
    where_is,
)
from physmem.replay.requests import Requests, lower_events
from physmem.replay.runner import CHUNK, Divergence, Runner
from physmem.replay.sample import Samples
from physmem.replay.zone_address import number_zones
from physmem.trace.capture import Capture, read_capture
from physmem.trace.events import Events
from physmem.trace.profile import profile_of
from physmem.trace.window import window

_RACE_TEXT = (
    (rq.BUSY, "freed in an interrupt that found the per-CPU lists locked: straight to free lists"),
)
_REORDERED_TEXT = "took effect at another place than its line's, between what others did"

Progress = Callable[[int, int], None]


def layout_of(capture: Capture) -> Layout:
    """Zones, CPUs and nodes of the recorded machine.

    Raises
    ------
    BadCaptureError
        The capture does not tell the architecture or the number of CPUs.
    """
    machine = capture.info.machine
    node = machine.zones[0].node if machine.zones else 0
    names = tuple(zone.name for zone in machine.zones if zone.node == node)
    return Layout(
        zone_names=names or zone_names(machine.arch),
        cpu_node=tuple(machine.cpu_node),
        node_distance=tuple(tuple(row) for row in machine.node_distance),
        thp=machine.thp,
        kernel=profile_for(capture.info),
    )


def _start_state(capture: Capture) -> State:
    if capture.state0 is None:
        msg = (
            "the capture holds no start state, so nothing can be predicted: import a recording"
            " with state0.json"
        )
        raise BadCaptureError(msg)
    return capture.state0


class RecordedMachine(Machine):
    """A machine that started as a recording tells, and can be given the recorded requests."""

    def replay(
        self,
        capture: Capture | str | os.PathLike[str],
        *,
        strict: bool = False,
        progress: "Progress | None" = None,
    ) -> Result:
        """Carry a capture's requests out on this machine, from the state that it is in now.

        Parameters and errors are those of `physmem.replay`. On a machine fresh from `physmem.load`
        the answers can be held against the recorded ones; on one that was used meanwhile they tell
        what that use changed.
        """
        if not isinstance(capture, Capture):
            capture = read_capture(capture, columns=replay_columns)
        self.tracing()
        session = Session.prepare(capture, strict=strict, tables=self.tables)
        return session.run(progress)


def load_machine(capture: Capture | str | os.PathLike[str]) -> RecordedMachine:
    """Machine in the recorded start state of a capture.

    Parameters
    ----------
    capture : Capture or path
        A capture, or the file that `physmem import` wrote.

    Raises
    ------
    BadCaptureError
        Not a capture, or one without a start state.
    BadStateError
        The recorded state contradicts itself.
    """
    if not isinstance(capture, Capture):
        capture = read_capture(capture, columns=("line",))
    state = _start_state(capture)
    layout = layout_of(capture)
    tables = build_tables(state, layout)
    fill_tables(tables, state, capture.info.movable0)
    return RecordedMachine(tables, layout, state.nr_migratetypes)


@dataclass
class Session:
    """A capture made ready to be replayed: requests apart from outcomes, machine at the start."""

    capture: Capture
    layout: Layout
    events: Events
    requests: Requests
    tables: Tables
    strict: bool
    lowering_seconds: float = 0.0
    runner: Runner | None = None
    origin: Tables | None = None

    @classmethod
    def prepare(
        cls, capture: Capture, *, strict: bool = False, tables: Tables | None = None
    ) -> "Session":
        """Load the start state (unless `tables` hold it) and separate requests from outcomes.

        Raises
        ------
        BadCaptureError
            The capture has no start state, or events of CPUs that the machine does not have.
        """
        state = _start_state(capture)
        layout = layout_of(capture)
        begin, end = window(capture)
        events = capture.events[begin:end].of_pages()
        if len(events) and int(events.cpu.max()) >= layout.nr_cpus:
            row = int(np.argmax(events.cpu >= layout.nr_cpus))
            msg = (
                f"trace line {int(events.line[row])}: cpu {int(events.cpu[row])}, but the recorded"
                f" machine has {layout.nr_cpus} cpus; trace and state do not belong together"
            )
            raise BadCaptureError(msg)
        origin = None
        if tables is None:
            tables = fresh_tables(state, layout, capture)
        else:
            origin = tables.copy()
        ready(replay)
        ready(lower)
        start = time.perf_counter()
        numbered = number_zones(events, capture, strict=strict)
        requests = lower_events(
            numbered,
            max_pfn=int(tables.memory[0]["max_pfn"]),
            cpu_node=layout.cpu_node,
            strict=strict,
            zone_starts=tables.zones["start_pfn"].tolist(),
            decays=bool(feature_bits(layout.kernel) & PCP_AUTO_TUNING),
        )
        seconds = time.perf_counter() - start
        return cls(capture, layout, events, requests, tables, strict, seconds, origin=origin)

    def run(self, progress: Progress | None = None, chunk: int = CHUNK) -> Result:
        """Replay and compare; see `replay_capture`."""
        self.runner = Runner(self.tables, self.requests, strict=self.strict)
        self.runner.run(progress, chunk)
        return self._result(self.runner)

    def run_sampled(self, count: int, progress: Progress | None = None) -> tuple[Result, Samples]:
        """Replay as `run` does and take `count` samples of the pageblocks on the way.

        The time of a sample is the trace's; without the column `ts` it is the request's number.
        """
        samples = Samples()
        timed = "ts" in self.events.columns

        def take(done: int, total: int) -> None:
            row = int(self.requests.requests["row"][done - 1]) if done else 0
            samples.take(self.tables, int(self.events.ts[row]) if timed else done)
            if progress is not None:
                progress(done, total)

        if len(self.events):
            take(0, len(self.requests))
        return self.run(take, max(1, len(self.requests) // count)), samples

    def state(self) -> State:
        """The model's state now."""
        names = self.layout.zone_names
        return read_tables(self.tables, names, _start_state(self.capture).nr_migratetypes)

    def machine(self) -> Machine:
        """A machine in the model's state now (a copy)."""
        return Machine(self.tables.copy(), self.layout, _start_state(self.capture).nr_migratetypes)

    def predictions(self) -> dict[str, NDArray[np.int64]]:
        """Recorded and predicted frame of every allocation, after `run`.

        Returns
        -------
        dict of (n,) int64
            `line` of the trace, `recorded` and `predicted` pfn (-1: failed), in line order.
        """
        if self.runner is None:
            msg = "nothing was predicted yet: call run() first"
            raise BadRequestError(msg)
        allocations = self.requests.requests["kind"] == rq.ALLOC
        rows = self.requests.requests["row"][allocations].astype(np.int64)
        order = np.argsort(rows, kind="stable")
        return {
            "line": self.events.line[rows[order]],
            "recorded": self.requests.outcome[allocations][order],
            "predicted": self.runner.arrays["predicted"][allocations][order],
        }

    def _result(self, runner: Runner) -> Result:
        stats = runner.stats
        state = self.state()
        state1 = self.capture.state1
        zones = tuple(
            ZoneResult(zone.node, zone.name, int(asked), int(exact))
            for zone, asked, exact in zip(
                state.zones,
                runner.arrays["zone_requests"],
                runner.arrays["zone_exact"],
                strict=True,
            )
        )
        first = runner.first_divergence
        return Result(
            kernel=self.capture.info.machine.kernel,
            strict=self.strict,
            events=len(self.events),
            allocations=int(stats["allocations"]),
            exact=int(stats["exact"]),
            consequences=self.requests.consequences,
            consequences_exact=int(stats["consequences_exact"]),
            consequences_extra=int(stats["consequences_extra"]),
            unexplained=self.requests.unexplained,
            frees=int(stats["frees"]),
            frees_unmatched=int(stats["frees_unmatched"]),
            bulk_pages=int(stats["bulk_pages"]),
            node_requests=int(stats["node_requests"]),
            lost_events=self.capture.info.lost,
            races=self._races(),
            decays=self._decays(),
            zones=zones,
            first_divergence=None if first is None else self._describe(first),
            final=None if state1 is None else compare_states(state1, state),
            state=state,
            seconds=runner.seconds + self.lowering_seconds,
            digest=f"{int(stats['digest']):012x}",
            notes=tuple(_notes(self)),
        )

    def _races(self) -> tuple[RaceLine, ...]:
        counted = self.requests.requests[self.requests.requests["race"] & rq.COUNTED > 0]
        lines = []
        for request in counted:
            text = _REORDERED_TEXT
            for bit, words in _RACE_TEXT:
                if request["race"] & bit:
                    text = words
                    break
            lines.append(RaceLine(int(self.events.line[request["row"]]), text))
        return tuple(sorted(lines, key=lambda race: race.line))

    def _decays(self) -> Decays:
        found = self.requests.requests[self.requests.requests["kind"] == rq.DECAY]
        unseen = found["race"] & rq.UNSEEN > 0
        return Decays(
            seen=int((~unseen).sum()),
            inferred=int((unseen & (found["pfn"] == 0)).sum()),
            moved=int((unseen & (found["race"] & rq.REORDERED > 0)).sum()),
        )

    def _describe(self, first: Divergence) -> FirstDivergence:
        state = self._state_before(first.request)
        recorded, predicted = first.consequences
        expected_text = frame_text(first.expected)
        predicted_text = frame_text(first.predicted)
        if first.kind != rq.ALLOC or first.expected == first.predicted:
            expected_text += f" ({len(recorded)} consequences)"
            predicted_text += f" ({len(predicted)} consequences)"
        return FirstDivergence(
            line=int(self.events.line[first.row]),
            expected=expected_text,
            predicted=predicted_text,
            why=explain(first),
            context=format_context(self.events, first.row),
            lists=(
                f"recorded: {where_is(state, first.expected)}",
                f"predicted: {where_is(state, first.predicted)}",
            ),
        )

    def _state_before(self, request: int) -> State:
        """The model's state before a request: replayed again from the start up to there."""
        start = _start_state(self.capture)
        if self.origin is not None:
            tables = self.origin.copy()
        else:
            tables = fresh_tables(start, self.layout, self.capture)
        runner = Runner(tables, self.requests, strict=self.strict)
        runner.record[0]["stop_at_divergence"] = 0
        runner.kernel(address(runner.record), request)
        return read_tables(tables, self.layout.zone_names, start.nr_migratetypes)


def _notes(session: Session) -> Iterator[str]:
    """What makes an exact replay unlikely from the start."""
    info = session.capture.info
    profile = session.layout.kernel
    own = not info.machine.kernel or profile_of(info.machine.kernel)[1]
    if not own or info.machine.profile != profile:
        yield (
            f"this kernel ({info.machine.kernel or 'unknown'}) was replayed with the rules of"
            f" {profile}, the nearest of {', '.join(PROFILES)}: expect differences"
        )
    if feature_bits(profile) & PCP_AUTO_TUNING and not len(session.requests.time):
        why = "--strict does not infer when" if session.strict else "the trace has no times"
        yield f"the per-CPU lists of this kernel decay once a second; {why}: expect differences"
    if info.lost:
        yield (
            f"{info.lost:,} events were lost while recording: record again with larger buffers"
            " for an exact replay"
        )


def fresh_tables(state: State, layout: Layout, capture: Capture) -> Tables:
    """Tables in the recorded start state, with a buffer for consequences."""
    tables = build_tables(state, layout)
    tables = replace(tables, trace=np.zeros(TRACE_EVENTS, np.int64))
    tables.attach()
    fill_tables(tables, state, capture.info.movable0)
    return tables


def replay_capture(
    capture: Capture | str | os.PathLike[str],
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Replay a capture and hold every answer against the recorded one.

    The machine starts in the recorded state and is given the requests only. Without `strict` an
    outcome may decide between documented races; each such decision is listed in `Result.races`.

    Parameters
    ----------
    capture : Capture or path
        A capture, or the file that `physmem import` wrote.
    strict : bool
        Use no outcome at all; frees name their frames.
    progress : callable, optional
        Called with (requests done, requests in all).

    Raises
    ------
    BadCaptureError
        Not a capture, or one without a start state.
    BadStateError
        The recorded state contradicts itself.
    """
    if not isinstance(capture, Capture):
        capture = read_capture(capture, columns=replay_columns)
    return Session.prepare(capture, strict=strict).run(progress)
