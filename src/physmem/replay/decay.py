# SPDX-License-Identifier: GPL-2.0-or-later
"""When per-CPU lists decay: once a second on each CPU, mostly without a line in the trace.

Linux: vmstat_update(), refresh_cpu_vm_stats(), mm/vmstat.c (6.12); decay_pcp_high(),
mm/page_alloc.c (6.12); round_jiffies_relative(), kernel/time/timer.c

A kernel worker ("kworker/...") of each CPU runs at whole seconds of the kernel's clock, later when
the CPU was asleep or busy. What it drains shows as drains that follow no free. When it only lowers
`high`, nothing shows: the phase is then that of the decays that do show, and where the answers say
that it came earlier or later, it is moved (`physmem.replay.decay_moves`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.replay.flow import (
    HARDIRQ,
    K_BATCHED,
    K_DRAIN,
    K_DRAIN_ALL,
    K_DRAIN_BATCH,
    K_FREE,
    LEVELS,
    SOFTIRQ,
    Lowering,
)
from physmem.trace.events import Events

PERIOD = 1_000_000_000
"""ns. Linux: sysctl_stat_interval, mm/vmstat.c"""
FIRST_DRAIN_WITHIN = 100_000
NEXT_DRAIN_WITHIN = 50_000_000
"""ns: a drain longer after a kernel worker's last free, or last drain, belongs to a decay."""
JITTER = 2_000_000
"""ns by which a decay may seem to come before its second."""
NEVER = -1


@dataclass(frozen=True)
class Decays:
    """Decays that show and those that do not, in the order of rows.

    Attributes
    ----------
    seen : (k,) int64, rows of the first drain of each
    rows : (m + 1,) int64, rows before which one shows in no line; then the number of rows
    cpus : (m,) uint16, CPU of each of these
    times : (m,) int64, ns, when they are assumed to come
    """

    seen: NDArray[np.int64]
    rows: NDArray[np.int64]
    cpus: NDArray[np.uint16]
    times: NDArray[np.int64]


def no_decays(nr_rows: int) -> Decays:
    """Lists that do not decay, or nobody knows when."""
    none = np.empty(0, np.int64)
    return Decays(none, np.array([nr_rows], np.int64), np.empty(0, np.uint16), none)


@kernel
def find_seen_decays(w: Lowering, seen: Array[i64]) -> int:
    """Rows of drains that follow no free of their kernel worker; how many."""
    count = 0
    for row in range(len(w.ev_kind)):
        kind = w.ev_kind[row]
        if kind not in (K_FREE, K_BATCHED, K_DRAIN, K_DRAIN_ALL, K_DRAIN_BATCH):
            continue
        context = w.ev_context[row]
        level = 2 if context & HARDIRQ else 1 if context & SOFTIRQ else 0
        flow = w.flows[w.ev_flow[row] * LEVELS + level]
        time = w.ev_time[row]
        if kind == K_DRAIN and level == 0 and w.ev_worker[row]:
            limit = FIRST_DRAIN_WITHIN if flow.last_is_free else NEXT_DRAIN_WITHIN
            if flow.last_time == NEVER or time - flow.last_time > limit:
                seen[count] = row
                count += 1
        flow.last_time = time
        flow.last_is_free = int(kind in (K_FREE, K_BATCHED))
    return count


def workers(events: Events) -> NDArray[np.uint8]:
    """(rows,) uint8: 1 where a kernel worker is at work (all rows, if no names are known)."""
    if "comm" not in events.columns:
        return np.ones(len(events), np.uint8)
    is_worker = np.array([name.startswith("kworker/") for name in events.comms], np.uint8)
    return is_worker[events.comm] if len(is_worker) else np.zeros(len(events), np.uint8)


def phase_of(times: NDArray[np.int64]) -> int | None:
    """Place of the kernel's whole seconds in the trace's: decays come late, never early.

    Examples
    --------
    >>> phase_of(np.array([5_450_000_000, 6_460_000_000, 9_700_000_000]))
    450000000
    >>> phase_of(np.array([1_950_000_000, 2_990_000_000, 5_040_000_000]))
    950000000
    """
    if not len(times):
        return None
    places = np.unique(times % PERIOD)
    gaps = np.diff(places, append=places[0] + PERIOD)
    return int(places[(int(np.argmax(gaps)) + 1) % len(places)])


def unseen_decays(
    time: NDArray[np.int64], cpu: NDArray[np.uint16], seen: NDArray[np.int64], nr_cpus: int
) -> Decays:
    """Put a decay at each second of each CPU in which none shows."""
    phase = phase_of(time[seen])
    if phase is None:
        phase = int(time[0]) % PERIOD  # any; the first decay that is found puts the others right
    first = (int(time[0]) - phase) // PERIOD + 1
    last = (int(time[-1]) - phase) // PERIOD
    seconds = np.arange(first, last + 1)
    due, cpus = [], []
    for each in range(nr_cpus):
        shown = time[seen[cpu[seen] == each]]
        missing = np.setdiff1d(seconds, (shown - phase + JITTER) // PERIOD)
        due.append(missing * PERIOD + phase)
        cpus.append(np.full(len(missing), each, np.uint16))
    times, owners = np.concatenate(due), np.concatenate(cpus)
    order = np.argsort(times, kind="stable")
    rows = np.searchsorted(time, times[order])
    return Decays(seen, np.append(rows, len(time)), owners[order], times[order])
