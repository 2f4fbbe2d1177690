# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay itself: carry out requests on a machine, hold its answers against the recorded ones.

`do_alloc`, `do_free`, `do_bulk` and `do_drain` predict; under `strict` they see requests only. The
`compare_*` functions count: frames of allocations, and the consequences of each request one by one.
After a divergence a replay goes on: a recorded free frees whatever the model gave to the same
allocation (`twin` maps recorded frames to ours); under `strict` it frees the frame it names.
"""

from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.lib.struct import Array, i64, struct, u32
from physmem.mm.alloc_flags import ALLOC_PCP_BUSY
from physmem.mm.features import PCP_AUTO_TUNING
from physmem.mm.mmzone import NONE, PG_PREPARED, Memory
from physmem.mm.page_alloc import alloc_pages, bulk_page, bulk_zone
from physmem.mm.page_free import free_commit, free_prepare, is_in_use, page_zone
from physmem.mm.pcp import decay_pcp_high, drain_pages_zone, drain_zone_pages
from physmem.replay.request import (
    ALLOC,
    BULK,
    BUSY,
    COMMIT,
    DECAY,
    DRAIN_ALL,
    DRAIN_BATCH,
    FREE,
    NODE,
    PREPARE,
    Request,
)

NO_TWIN = 0xFFFFFFFF


@struct
class Run:
    """Progress and results of a replay."""

    memory_addr: i64  # Memory record of the machine
    strict: i64  # frees name the frame itself; outcomes are only counted
    next_request: i64
    stop_at_divergence: i64  # 1: return after the first request that diverges
    diverged: i64  # requests whose answer differed
    allocations: i64
    exact: i64
    consequences_exact: i64
    consequences_extra: i64  # predicted, not recorded
    frees: i64
    frees_unmatched: i64  # of frames that the model does not have in use
    bulk_pages: i64
    bulk_failed: i64
    node_requests: i64
    trace_overflow: i64
    decays_after_frees: i64  # without a line of their own
    digest: i64  # over all predictions: frames and consequences, in order
    requests: Array[Request]
    expected: Array[i64]
    outcome: Array[i64]
    predicted: Array[i64]  # by request: frame of an allocation, -1 none
    twin: Array[u32]  # by recorded frame: our frame
    zone_requests: Array[i64]  # by zone: allocations recorded there
    zone_exact: Array[i64]


_DIGEST_MASK = (1 << 48) - 1

run_at = pointer_to(Run)
machine_at = pointer_to(Memory)


@kernel
def node_asked_for(m: Memory, r: Run, at: int) -> int:
    """Node of an allocation: the CPU's, or the recorded frame's where our rules would not go there.

    The event does not tell the node that was asked for. A frame on another node while the CPU's own
    node could serve means a request for that node.
    """
    request = r.requests[at]
    number = page_zone(m, r.outcome[at])
    if number == NONE or m.zones[number].node == request.node:
        return request.node
    return m.zones[number].node


@inlined
def do_alloc(m: Memory, r: Run, at: int) -> int:
    """Carry out an allocation; the predicted frame."""
    request = r.requests[at]
    busy = ALLOC_PCP_BUSY if request.race & BUSY else 0
    node = int(request.node)
    if m.nr_nodes > 1 and not r.strict:
        node = node_asked_for(m, r, at)
        if node != request.node:
            r.node_requests += 1
            request.race |= NODE
    return alloc_pages(m, request.order, request.gfp, node, request.cpu, busy)


@inlined
def do_free(m: Memory, r: Run, at: int) -> None:
    """Carry out a free, or one half of it."""
    request = r.requests[at]
    recorded = int(request.pfn)
    pfn = recorded
    if not r.strict:
        if recorded >= len(r.twin) or r.twin[recorded] == NO_TWIN:
            r.frees_unmatched += 1
            return
        pfn = int(r.twin[recorded])
    number = page_zone(m, pfn)
    if number == NONE:
        r.frees_unmatched += 1
        return
    zone = m.zones[number]
    order = int(request.order)
    if request.kind == COMMIT:
        if zone.mem_map[pfn].flags != PG_PREPARED:
            return  # its preparation was already counted as unmatched
    else:
        r.frees += 1
        if not is_in_use(zone, pfn, order):
            r.frees_unmatched += 1
            return
        free_prepare(zone, pfn, order)
        if request.kind == PREPARE:
            return
    free_commit(zone, pfn, order, request.cpu, request.race & BUSY != 0)
    if not r.strict:
        for frame in range(recorded, min(recorded + (1 << order), len(r.twin))):
            r.twin[frame] = frame


@kernel
def do_bulk(m: Memory, r: Run, at: int) -> None:
    """Carry out a bulk allocation of `request.pfn` silent frames."""
    request = r.requests[at]
    wanted = int(request.pfn)
    number = bulk_zone(m, wanted, request.gfp, request.node)
    for _ in range(wanted):
        pfn = NONE
        if number != NONE:
            pfn = bulk_page(m, number, request.gfp, request.cpu)
        if pfn == NONE:
            r.bulk_failed += 1
        else:
            r.bulk_pages += 1


@kernel
def do_drain(m: Memory, r: Run, at: int) -> None:
    """Carry out a drain that came from outside."""
    request = r.requests[at]
    if (request.kind != DECAY and request.pfn >= m.nr_zones) or request.cpu >= m.nr_cpus:
        return
    if request.kind == DECAY:
        if request.pfn:
            return  # it did not come
        for number in range(m.nr_zones):
            decay_pcp_high(m.zones[number], request.cpu)
    elif request.kind == DRAIN_ALL:
        drain_pages_zone(m.zones[request.pfn], request.cpu)
    else:
        drain_zone_pages(m.zones[request.pfn], request.cpu)


@kernel
def do_decay_after_free(m: Memory, r: Run, at: int) -> None:
    """More drains than a free causes: its task, a kernel worker, went on to let lists decay."""
    if r.strict:
        return
    r.decays_after_frees += 1
    for number in range(m.nr_zones):
        decay_pcp_high(m.zones[number], r.requests[at].cpu)


@kernel
def add_to_digest(r: Run, value: int) -> None:
    """Let a prediction count in the digest of all of them."""
    r.digest = (r.digest * 31 + ((value ^ value >> 24) & _DIGEST_MASK)) & _DIGEST_MASK


@inlined
def compare_consequences(m: Memory, r: Run, at: int) -> bool:
    """Count the consequences of one request that are as recorded; True when all are."""
    first = int(r.requests[at].first)
    count = int(r.requests[at].nr_expected)
    emitted = m.trace[0]
    if count == 0 and emitted == 0:
        return True
    if emitted >= len(m.trace):
        r.trace_overflow += 1
        emitted = len(m.trace) - 1
    same = 0
    for i in range(emitted):
        add_to_digest(r, m.trace[i + 1])
    for i in range(min(count, emitted)):
        if m.trace[i + 1] == r.expected[first + i]:
            same += 1
    r.consequences_exact += same
    if emitted > count:
        r.consequences_extra += emitted - count
    return same == count and emitted == count


@inlined
def compare_allocation(m: Memory, r: Run, at: int, pfn: int) -> bool:
    """Count an allocation, exact or not, and remember whose frame ours is."""
    recorded = r.outcome[at]
    r.predicted[at] = pfn
    add_to_digest(r, pfn)
    r.allocations += 1
    exact = pfn == recorded
    if exact:
        r.exact += 1
    number = page_zone(m, recorded if recorded != NONE else pfn)
    if number != NONE:
        r.zone_requests[number] += 1
        if exact:
            r.zone_exact[number] += 1
    if recorded != NONE and not r.strict:
        size = 1 << int(r.requests[at].order)
        for i in range(min(size, len(r.twin) - recorded)):
            r.twin[recorded + i] = NO_TWIN if pfn == NONE else pfn + i
    return exact


@kernel
def replay(h: int, end: int) -> int:
    """Carry out requests up to `end`; index of the request that diverged first, or `end`."""
    r = run_at(h)
    m = machine_at(r.memory_addr)
    for at in range(r.next_request, end):
        kind = r.requests[at].kind
        m.trace[0] = 0
        exact = True
        if kind == ALLOC:
            exact = compare_allocation(m, r, at, do_alloc(m, r, at))
        elif kind in (FREE, COMMIT, PREPARE):
            do_free(m, r, at)
            if m.features & PCP_AUTO_TUNING and r.requests[at].nr_expected > m.trace[0]:
                do_decay_after_free(m, r, at)
        elif kind == BULK:
            do_bulk(m, r, at)
        elif kind in (DRAIN_ALL, DRAIN_BATCH, DECAY):
            do_drain(m, r, at)
        if not compare_consequences(m, r, at):
            exact = False
        if not exact:
            r.diverged += 1
            if r.stop_at_divergence:
                r.next_request = at + 1
                return at
    r.next_request = end
    return end
