# SPDX-License-Identifier: GPL-2.0-or-later
"""The pass over the events that separates requests from outcomes.

Which consequence belongs to which request: a refill or fallback to the allocation (or bulk call) of
the same task and context that follows it; a drain to the free that it follows.
"""

from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.lib.struct import Array, i32, i64, u16
from physmem.replay.busy import find_busy, note_busy
from physmem.replay.decay import find_seen_decays
from physmem.replay.flow import (
    ABSENT,
    HARDIRQ,
    IS_DECAY,
    K_ALLOC,
    K_BATCHED,
    K_BULK,
    K_BULK_RET,
    K_DRAIN,
    K_DRAIN_ALL,
    K_DRAIN_BATCH,
    K_EXTFRAG,
    K_FREE,
    K_LOCKED,
    LEVELS,
    NO_OWNER,
    SOFTIRQ,
    Flow,
    Lowering,
)
from physmem.replay.request import (
    ALLOC,
    BULK,
    BUSY,
    COMMIT,
    DECAY,
    DRAIN_ALL,
    DRAIN_BATCH,
    EARLY,
    FREE,
    PREPARE,
    UNSEEN,
)

lowering_at = pointer_to(Lowering)


@kernel
def number_flows(pid: Array[i32], cpu: Array[u16], number: Array[i32], flow: Array[i32]) -> int:
    """Number the flow of each row, `number` by pid being zeros; behind the last number.

    The idle task is one flow per CPU; these have the first numbers, as many as `number[0]` says.
    """
    count = int(number[0])
    for row in range(len(pid)):
        task = int(pid[row])
        if task == 0:
            flow[row] = cpu[row]
            continue
        if number[task] == 0:
            number[task] = count
            count += 1
        flow[row] = number[task]
    return count


@inlined
def _append(w: Lowering, row: int, kind: int) -> int:
    at = w.nr_requests
    w.nr_requests = at + 1
    request = w.requests[at]
    request.row = row
    request.kind = kind
    request.order = w.ev_order[row]
    request.cpu = w.ev_cpu[row]
    request.gfp = w.ev_gfp[row]
    request.node = w.node_of_cpu[w.ev_cpu[row]]
    request.race = 0
    request.pfn = 0
    request.nr_expected = 0
    w.outcome[at] = NO_OWNER
    return at


@inlined
def _take_pending(w: Lowering, flow: Flow, request: int) -> None:
    """Give the waiting consequences to their request."""
    row = flow.first_pending
    count = flow.pending
    w.requests[request].nr_expected += count
    flow.pending = 0
    for _ in range(count):
        w.owner[row] = request
        row = int(w.chain[row])


@inlined
def _place(w: Lowering, flow: Flow, row: int, kind: int) -> int:
    """Index of the request that allocates at `row`: a new one, or the place of its first refill.

    The allocation's line comes last, its refill came first. An interrupt in between that found the
    per-CPU lists locked acted after the refill.
    """
    at = flow.reserved
    flow.reserved = NO_OWNER
    end = w.nr_requests
    if at == NO_OWNER:
        return _append(w, row, kind)
    if at + 1 == end:
        w.nr_requests = at
        return _append(w, row, kind)
    interrupted = False
    for between in range(at + 1, end):
        request = w.requests[between]
        if request.race & BUSY and request.cpu == w.ev_cpu[row]:
            interrupted = True
    if not interrupted:
        return _append(w, row, kind)
    w.nr_requests = at
    _append(w, row, kind)
    w.nr_requests = end
    w.requests[at].race = EARLY
    return at


@inlined
def _pack(w: Lowering, row: int) -> int:
    """A recorded consequence in the form that `physmem.mm.tracepoint` emits."""
    argument = 0
    if w.ev_kind[row] == K_LOCKED:
        argument = w.ev_arg0[row] & 1
    elif w.ev_kind[row] == K_EXTFRAG:
        argument = w.ev_arg0[row] & 0xF | (w.ev_arg1[row] & 7) << 4 | (w.ev_arg1[row] >> 8 & 1) << 7
    mt = w.ev_migratetype[row] & 0xFF
    return (
        (w.ev_pfn[row] & 0x7FFFFFFF) << 32
        | w.ev_kind[row] << 24
        | w.ev_order[row] << 16
        | mt << 8
        | argument
    )


@inlined
def lower_rows(w: Lowering, start: int, end: int) -> None:
    """Turn some rows into requests."""
    for row in range(start, end):
        kind = w.ev_kind[row]
        context = w.ev_context[row]
        level = 2 if context & HARDIRQ else 1 if context & SOFTIRQ else 0
        flow = w.flows[w.ev_flow[row] * LEVELS + level]
        if kind in (K_LOCKED, K_EXTFRAG):
            if flow.pending == 0:
                flow.first_pending = row
                if w.use_outcomes and flow.reserved == NO_OWNER:
                    flow.reserved = w.nr_requests
                    w.outcome[w.nr_requests] = NO_OWNER
                    w.nr_requests += 1
            else:
                w.chain[flow.last_pending] = row
            flow.last_pending = row
            flow.pending += 1
        elif kind == K_DRAIN:
            if w.owner[row] == IS_DECAY:
                flow.last_free = _append(w, row, DECAY)
            at = flow.last_free
            w.owner[row] = at
            if at != NO_OWNER:
                w.requests[at].nr_expected += 1
        elif kind == K_ALLOC:
            at = _place(w, flow, row, ALLOC)
            _take_pending(w, flow, at)
            w.outcome[at] = w.ev_pfn[row]
            if flow.bulk_row != NO_OWNER:
                flow.bulk_allocs += 1
            flow.last_free = NO_OWNER
        elif kind == K_FREE:
            at = _append(w, row, FREE)
            w.requests[at].pfn = w.ev_pfn[row] & ABSENT
            if level > 0:
                note_busy(w, row, at)
            if 0 <= w.ev_pfn[row] < len(w.last_prepared):
                w.last_prepared[w.ev_pfn[row]] = at
            flow.last_free = at
        elif kind == K_BATCHED:
            at = _append(w, row, COMMIT)
            w.requests[at].pfn = w.ev_pfn[row] & ABSENT
            if 0 <= w.ev_pfn[row] < len(w.last_prepared):
                prepared = w.last_prepared[w.ev_pfn[row]]
                if prepared != ABSENT:
                    w.requests[prepared].kind = PREPARE
                    w.requests[at].order = w.requests[prepared].order  # the line always says 0
                    w.last_prepared[w.ev_pfn[row]] = ABSENT
            flow.last_free = at
        elif kind == K_BULK:
            flow.bulk_row = row
            flow.bulk_allocs = 0
        elif kind == K_BULK_RET:
            if flow.bulk_row != NO_OWNER:
                at = _place(w, flow, row, BULK)
                _take_pending(w, flow, at)
                request = w.requests[at]
                request.pfn = max(w.ev_arg1[row] - flow.bulk_allocs, 0)
                request.gfp = w.ev_gfp[flow.bulk_row]
                if w.ev_arg0[flow.bulk_row] >= 0:
                    request.node = w.ev_arg0[flow.bulk_row]
                flow.bulk_row = NO_OWNER
            flow.last_free = NO_OWNER
        elif kind in (K_DRAIN_ALL, K_DRAIN_BATCH):
            at = _append(w, row, DRAIN_ALL if kind == K_DRAIN_ALL else DRAIN_BATCH)
            w.requests[at].pfn = w.ev_pfn[row] & ABSENT
            if kind == K_DRAIN_ALL:
                w.requests[at].cpu = w.ev_arg0[row]
            flow.last_free = at


@inlined
def _group(w: Lowering) -> int:
    """Sort the consequences by request, each request's in the order of the lines."""
    first = 0
    for at in range(w.nr_requests):
        w.requests[at].first = first
        first += w.requests[at].nr_expected
        w.requests[at].nr_expected = 0
    for row in range(len(w.ev_kind)):
        if K_LOCKED <= w.ev_kind[row] <= K_EXTFRAG:
            if w.owner[row] < 0:
                w.nr_unexplained += 1
                continue
            request = w.requests[w.owner[row]]
            w.expected[request.first + request.nr_expected] = _pack(w, row)
            request.nr_expected += 1
    return first + w.nr_unexplained


@kernel
def lower(h: int) -> int:
    """Turn rows into requests and group the consequences by request; how many of those."""
    w = lowering_at(h)
    if w.use_outcomes:
        find_busy(w)
    for at in range(len(w.seen_decays)):
        w.owner[w.seen_decays[at]] = IS_DECAY
    row = 0
    for part in range(len(w.decay_rows)):
        end = int(w.decay_rows[part])
        lower_rows(w, row, end)
        row = end
        if part < len(w.decay_cpus):
            at = _append(w, min(row, len(w.ev_kind) - 1), DECAY)
            w.requests[at].cpu = w.decay_cpus[part]
            w.requests[at].race = UNSEEN
            w.outcome[at] = w.decay_times[part]
    return _group(w)


@kernel
def seen_decays(h: int, seen: Array[i64]) -> int:
    """Rows of the first drain of each decay that shows; how many."""
    return find_seen_decays(lowering_at(h), seen)
