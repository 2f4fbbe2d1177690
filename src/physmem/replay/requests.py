# SPDX-License-Identifier: GPL-2.0-or-later
"""From events to requests: what was asked of the allocator, apart from what it answered.

A trace mixes both. Requests are allocations (order, flags, CPU), frees, calls of the bulk allocator
and drains that come from outside. Answers ("outcomes") are the frame of each allocation and the
consequences: refills and splits (mm_page_alloc_zone_locked), drains, fallbacks. Requests go into
one array, outcomes into others, so that a prediction can be made with the requests alone.

Which consequence belongs to which request: a refill or fallback to the allocation (or bulk call) of
the same task and context that follows it; a drain to the free that it follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.replay.decay import NEVER, Decays, no_decays, unseen_decays, workers
from physmem.replay.flow import ABSENT, IN_INTERRUPT, LEVELS, NO_OWNER, Flow, Lowering
from physmem.replay.lowering import lower, number_flows, seen_decays
from physmem.replay.request import COUNTED, Request
from physmem.trace.events import Events


@dataclass(frozen=True)
class Requests:
    """Requests and, apart from them, the outcomes that were recorded.

    Attributes
    ----------
    requests : (n,) Request records in the order in which they are carried out
    expected : (k,) int64, packed consequences grouped by request
    outcome : (n,) int64, frame of each allocation (-1: failed; no allocation); of a decay that no
        line shows: when it is assumed to come, ns
    owner : (rows,) int32, by row of the events: request of a consequence, or -1
    unexplained : consequences that belong to no request
    flow_of_task : (rows,) int32, number of the task of each row
    context : (rows,) uint8, as in the events
    time : (rows,) int64, ns; empty where per-CPU lists do not decay, or no time is known
    """

    requests: NDArray[Any]
    expected: NDArray[np.int64]
    outcome: NDArray[np.int64]
    owner: NDArray[np.int32]
    consequences: int
    unexplained: int
    flow_of_task: NDArray[np.int32]
    context: NDArray[np.uint8]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.requests)

    def shift(self, source: int, target: int) -> None:
        """Carry request `source` out at position `target` of the order; the others make room."""
        low, high = min(source, target), max(source, target) + 1
        step = -1 if source < target else 1
        for array in (self.requests, self.outcome):
            array[low:high] = np.roll(array[low:high], step)

    @cached_property
    def in_interrupt(self) -> NDArray[np.bool_]:
        """(rows,) bool; made when the first race is sought."""
        return self.context & IN_INTERRUPT > 0

    @cached_property
    def flow(self) -> NDArray[np.int32]:
        """(rows,) int32, number of the task, or of the interrupt level of a task, of each row."""
        return self.flow_of_task * np.int32(2) + self.in_interrupt

    @property
    def races(self) -> NDArray[np.int64]:
        """Rows of the requests whose place or way an outcome decided, one per race."""
        counted = self.requests["race"] & COUNTED > 0
        return np.sort(self.requests["row"][counted].astype(np.int64))


def lower_events(
    events: Events,
    *,
    max_pfn: int,
    cpu_node: tuple[int, ...],
    strict: bool,
    zone_starts: Sequence[int] = (),
    decays: bool = False,
) -> Requests:
    """Separate requests from outcomes.

    Parameters
    ----------
    events : Events
        Rows between the two states; DRAIN_* rows name the zone by number in `pfn`.
    max_pfn : int
        Frames at and above do not exist.
    cpu_node : tuple of int
        Node of each CPU.
    strict : bool
        Use no outcome at all, not even its place among the lines.
    zone_starts : sequence of int
        First frame of each zone, in any order: a zone has its own per-CPU lock.
    decays : bool
        The per-CPU lists decay once a second; `events` have the column `ts`, or no decay is known.
    """
    n = len(events)
    flows, nr_flows = _number_flows(events, len(cpu_node))
    work = np.zeros(1, dtype_of(Lowering))
    record = work[0]
    record["use_outcomes"] = not strict
    record["last_overruled"] = -2
    record["nr_cpus"] = len(cpu_node)
    flow_table = np.zeros(nr_flows * LEVELS, dtype_of(Flow))
    for name in ("reserved", "last_free", "bulk_row"):
        flow_table[name] = NO_OWNER
    flow_table["last_time"] = NEVER
    timed = decays and not strict and "ts" in events.columns
    arrays: dict[str, NDArray[Any]] = {
        "ev_kind": events.kind,
        "ev_cpu": events.cpu,
        "ev_flow": flows,
        "ev_context": events.context,
        "ev_preempt": events.preempt,
        "ev_pfn": events.pfn,
        "ev_order": events.order,
        "ev_migratetype": events.migratetype,
        "ev_gfp": events.gfp,
        "ev_arg0": events.arg0,
        "ev_arg1": events.arg1,
        "node_of_cpu": np.array(cpu_node, np.int64),
        "zone_starts": np.sort(np.array(zone_starts, np.int64)),
        "flows": flow_table,
        "next_seen": np.empty(0 if strict else max_pfn, np.uint32),
        "last_prepared": np.full(max_pfn, ABSENT, np.uint32),
        "ev_time": events.ts if timed else np.empty(0, np.int64),
        "ev_worker": workers(events) if timed else np.empty(0, np.uint8),
        "owner": np.full(n, NO_OWNER, np.int32),
        "chain": np.empty(n, np.uint32),
        "expected": np.empty(n, np.int64),
    }
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in kept.items():
        attach(record, name, array)
    found = _find_decays(work, events, len(cpu_node)) if timed else no_decays(n)
    most = n + len(found.rows) + 2
    more: dict[str, NDArray[Any]] = {
        "decay_rows": found.rows,
        "decay_cpus": found.cpus,
        "decay_times": found.times,
        "seen_decays": found.seen,
        "requests": np.zeros(most, dtype_of(Request)),
        "outcome": np.empty(most, np.int64),
    }
    for name, array in more.items():
        attach(record, name, array)
    kept |= more
    consequences = ready(lower)(address(work))
    nr_requests = int(record["nr_requests"])
    return Requests(
        requests=kept["requests"][:nr_requests],
        expected=kept["expected"],
        outcome=kept["outcome"][:nr_requests],
        owner=kept["owner"],
        consequences=consequences,
        unexplained=int(record["nr_unexplained"]),
        flow_of_task=flows,
        context=events.context,
        time=kept["ev_time"],
    )


def _find_decays(work: NDArray[Any], events: Events, nr_cpus: int) -> Decays:
    """Decays that show, and where the others should be."""
    if not len(events):
        return no_decays(0)
    seen: Any = np.empty(len(events), np.int64)
    count = ready(seen_decays)(address(work), seen)
    return unseen_decays(events.ts, events.cpu, seen[:count].copy(), nr_cpus)


def _number_flows(events: Events, nr_cpus: int) -> tuple[NDArray[np.int32], int]:
    """Number of the flow of each row: one per task, the idle task once per CPU."""
    if not len(events):
        return np.empty(0, np.int32), 1
    pids: Any = events.pid
    cpus: Any = events.cpu
    top = int(pids.max()) + 1
    if top <= 1 << 23:  # PID_MAX_LIMIT on 64 bit is 4 Mi
        number: Any = np.zeros(top, np.int32)
        number[0] = nr_cpus
        flows: Any = np.empty(len(events), np.int32)
        return flows, ready(number_flows)(pids, cpus, number, flows)
    unique, numbered = np.unique(pids, return_inverse=True)
    flows = numbered.astype(np.int32) + np.int32(nr_cpus)
    idle = pids == 0
    flows[idle] = cpus[idle]
    return flows, len(unique) + nr_cpus
