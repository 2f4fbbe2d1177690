# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the requests over a machine: checkpoints, the search for races, what diverged."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.machine.tables import Tables
from physmem.mm.tracepoint import unpack
from physmem.replay.decay_moves import DecayMove, DecayToggle, decay_changes
from physmem.replay.engine import Run, replay
from physmem.replay.races import LOOK_AHEAD, Move, Toggle, candidates
from physmem.replay.request import ALLOC
from physmem.replay.requests import Requests

CHUNK = 50_000
"""Requests between two progress reports."""
CHECKPOINT_EVERY = 100_000
REQUESTS_PER_CHECKPOINT_BYTE = 1 / 20
KEEP_CHECKPOINTS = 6
GIVE_UP_AFTER = 16
"""Divergences without an explanation, after which no more are sought."""
RACES_PER_EVENT = 20e-6
"""More races than this are no races: the model or the start state is wrong."""
MIN_RACES = 3
TRIALS_PER_RACE = 40
MIN_PROGRESS = 64
"""Requests that must go by without a difference before an explanation is believed."""
DECAY_LOOK_AHEAD = 50_000
DECAY_TRIALS = 6_000
"""Trials of other times for decays, in all."""
WORTH_A_CHECKPOINT = 2_000
"""Requests that trials of decays need not carry out again and again."""
Change = Move | Toggle | DecayMove | DecayToggle
_COPIED = (
    *("memory", "mem_map", "zones", "pageset", "pageblock_flags"),
    *("order_map", "tree_free", "tree_at", "scratch"),
)
_COUNTED = ("twin", "zone_requests", "zone_exact")


@dataclass(frozen=True)
class Divergence:
    """One request whose answer is not the recorded one.

    `row` is the row of the event; `expected` and `predicted` are frames (-1: none), of the
    allocation or of the first consequence that differs; `consequences` holds all of the request:
    recorded and predicted, unpacked.
    """

    request: int
    row: int
    kind: int
    expected: int
    predicted: int
    consequences: tuple[list[tuple[int, ...]], list[tuple[int, ...]]]


@dataclass(eq=False)
class Checkpoint:
    """Everything that a replay changes, as it was before request `at`."""

    at: int
    buffers: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


class Runner:
    """Carries requests out on tables; `strict` neither follows outcomes nor seeks races."""

    def __init__(self, tables: Tables, requests: Requests, *, strict: bool) -> None:
        self.tables = tables
        self.requests = requests
        self.strict = strict
        max_pfn = int(tables.memory[0]["max_pfn"])
        nr_zones = len(tables.zones)
        self.arrays: dict[str, NDArray[Any]] = {
            "requests": requests.requests,
            "expected": requests.expected,
            "outcome": requests.outcome,
            "predicted": np.full(len(requests), -1, np.int64),
            "twin": np.arange(0 if strict else max_pfn, dtype=np.uint32),
            "zone_requests": np.zeros(nr_zones, np.int64),
            "zone_exact": np.zeros(nr_zones, np.int64),
        }
        self.record = np.zeros(1, dtype_of(Run))
        for name, array in self.arrays.items():
            attach(self.record[0], name, array)
        self.record[0]["memory_addr"] = address(tables.memory)
        self.record[0]["strict"] = strict
        self.record[0]["stop_at_divergence"] = 1
        self.kernel = ready(replay)
        self.checkpoints: list[Checkpoint] = []
        self._spare: list[dict[str, NDArray[np.uint8]]] = []
        self.first_divergence: Divergence | None = None
        self.seconds = 0.0
        allowed = int(RACES_PER_EVENT * len(requests.owner))
        self.races_left = 0 if strict else max(MIN_RACES, allowed - len(requests.races))
        self.trials_left = self.races_left * TRIALS_PER_RACE
        self.decay_trials_left = DECAY_TRIALS

    @property
    def stats(self) -> Any:
        """Counters of the run (`physmem.replay.engine.Run`)."""
        return self.record[0]

    def run(self, progress: Callable[[int, int], None] | None, chunk: int = CHUNK) -> None:
        """Carry everything out; `progress` gets (requests done, requests in all)."""
        total = len(self.requests)
        at = 0
        unexplained = 0
        spacing = max(
            CHECKPOINT_EVERY, int(self.tables.mem_map.nbytes * REQUESTS_PER_CHECKPOINT_BYTE)
        )
        next_checkpoint = 0
        start = time.perf_counter()
        while at < total:
            if at >= next_checkpoint and self.seeking:
                self._keep(self.save(at))
                next_checkpoint = at + spacing
            end = min(at + chunk, total)
            stop = self._advance(end)
            if stop == end:
                at = end
                if progress is not None:
                    self.seconds += time.perf_counter() - start
                    progress(at, total)
                    start = time.perf_counter()
                continue
            if self.seeking and unexplained < GIVE_UP_AFTER:
                back = self._explain(stop)
                if back is not None:
                    at = back
                    next_checkpoint = at
                    continue
                unexplained += 1
            self._note_first(stop)
            at = stop + 1
            next_checkpoint = at
            if not self.seeking or unexplained >= GIVE_UP_AFTER:
                self.record[0]["stop_at_divergence"] = 0
                next_checkpoint = total
        self.seconds += time.perf_counter() - start

    @property
    def seeking(self) -> bool:
        """Whether divergences are still held against the documented races."""
        return self.races_left > 0 and self.trials_left > 0

    def _advance(self, end: int) -> int:
        return self.kernel(address(self.record), end)

    def save(self, at: int) -> Checkpoint:
        """Copy of everything that a replay changes."""
        made = self._spare.pop() if self._spare else {}
        for name, source in self._changing():
            if name not in made:
                made[name] = np.empty_like(source)
            made[name][:] = source
        return Checkpoint(at, made)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint."""
        for name, target in self._changing():
            target[:] = checkpoint.buffers[name]

    def _changing(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Everything that a replay changes, as bytes: NumPy copies records field by field."""
        yield "record", self.record.view(np.uint8)
        for name in _COPIED:
            yield name, getattr(self.tables, name).view(np.uint8)
        for name in _COUNTED:
            yield name, self.arrays[name].view(np.uint8)

    def _keep(self, checkpoint: Checkpoint) -> None:
        kept = [old for old in self.checkpoints if old.at < checkpoint.at]
        kept = [*kept[1 - KEEP_CHECKPOINTS :], checkpoint]
        # memory that the host has given already costs less than fresh memory
        self._spare += [old.buffers for old in self.checkpoints if old not in kept]
        del self._spare[2:]
        self.checkpoints = kept

    def divergence(self, at: int) -> Divergence:
        """What differs at the request that was carried out last."""
        request = self.requests.requests[at]
        first = int(request["first"])
        recorded = self.requests.expected[first : first + int(request["nr_expected"])]
        emitted = self.tables.trace[1 : 1 + int(self.tables.trace[0])]
        expected, predicted = -1, -1
        kind = int(request["kind"])
        if kind == ALLOC and self.arrays["predicted"][at] != self.requests.outcome[at]:
            expected = int(self.requests.outcome[at])
            predicted = int(self.arrays["predicted"][at])
        else:
            for i in range(max(len(recorded), len(emitted))):
                one = int(recorded[i]) if i < len(recorded) else -1
                two = int(emitted[i]) if i < len(emitted) else -1
                if one != two:
                    expected = one >> 32 if one >= 0 else -1
                    predicted = two >> 32 if two >= 0 else -1
                    break
        return Divergence(
            request=at,
            row=int(request["row"]),
            kind=kind,
            expected=expected,
            predicted=predicted,
            consequences=([unpack(int(x)) for x in recorded], [unpack(int(x)) for x in emitted]),
        )

    def _explain(self, at: int) -> int | None:
        """Look for a race that explains the divergence at `at`; where to go on, or None."""
        after = self.save(at + 1)
        emitted = self.tables.trace[: 1 + min(int(self.tables.trace[0]), 1 << 16)].copy()
        found = self.divergence(at)
        best, best_stop = self._best_decay(at)
        look_ahead = DECAY_LOOK_AHEAD if len(self.requests.time) else LOOK_AHEAD
        if best_stop < min(at + look_ahead, len(self.requests)):
            races = candidates(self.requests, at, found.expected, found.predicted)
            other, other_stop = self._best(at, races, look_ahead)
            if other_stop > best_stop:
                best, best_stop = other, other_stop
        if best is None or best_stop < min(at + MIN_PROGRESS, len(self.requests)):
            self.restore(after)
            self.tables.trace[: len(emitted)] = emitted
            return None
        origin = self._checkpoint_before(best.first)
        if origin is None:  # cannot be: the candidate was tried from it
            return None
        best.apply(self.requests)
        best.mark(self.requests)
        if isinstance(best, Move | Toggle):
            self.races_left -= 1
        self.checkpoints = [kept for kept in self.checkpoints if kept.at <= origin.at]
        self.restore(origin)
        return origin.at

    def _best_decay(self, at: int) -> tuple[Change | None, int]:
        """Other time of a decay with which the replay gets farthest, and where it stops then."""
        best: Change | None = None
        best_stop = at
        end = min(at + DECAY_LOOK_AHEAD, len(self.requests))
        for changes in decay_changes(self.requests, at):
            if not changes or best_stop >= end or self.decay_trials_left <= 0:
                continue
            self._checkpoint_at(min(change.first for change in changes), at)
            trials, self.trials_left = self.trials_left, self.decay_trials_left
            change, stop = self._best(at, changes, DECAY_LOOK_AHEAD)
            self.decay_trials_left, self.trials_left = self.trials_left, trials
            if stop > best_stop:
                best, best_stop = change, stop
        return best, best_stop

    def _best(
        self, at: int, changes: Iterable[Change], look_ahead: int
    ) -> tuple[Change | None, int]:
        """Change with which the replay gets farthest, and where it stops then."""
        best: Change | None = None
        best_stop = at
        end = min(at + look_ahead, len(self.requests))
        for change in changes:
            origin = self._checkpoint_before(change.first)
            if origin is None:
                continue
            if self.trials_left == 0:
                break
            self.trials_left -= 1
            self.restore(origin)
            change.apply(self.requests)
            stop = self._advance(end)
            change.undo(self.requests)
            if stop > best_stop:
                best, best_stop = change, stop
            if stop >= end:
                break
        return best, best_stop

    def _checkpoint_at(self, first: int, at: int) -> None:
        """Make trials that begin at `first` cheap; the answers up to `at` are as recorded."""
        origin = self._checkpoint_before(first)
        if origin is None or first >= at or first - origin.at < WORTH_A_CHECKPOINT:
            return
        self.restore(origin)
        self._advance(first)
        self._keep(self.save(first))

    def _checkpoint_before(self, at: int) -> Checkpoint | None:
        before = [kept for kept in self.checkpoints if kept.at <= at]
        return before[-1] if before else None

    def _note_first(self, at: int) -> None:
        if self.first_divergence is None:
            self.first_divergence = self.divergence(at)
