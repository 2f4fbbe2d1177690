# SPDX-License-Identifier: GPL-2.0-or-later
"""Carrying a workload out on a machine, at full speed: slots get frames, nothing is compared.

The zone and the frame are the machine's choice; only the CPU, the node that is asked first, the
order and the flags are the recorded ones. A drain from outside names its zone; zones that the
recorded machine does not have are drained with the highest one of their node that it has.
"""

from physmem.lab.op import (
    BUSY,
    DECAY,
    DRAIN_ALL,
    DRAIN_BATCH,
    GIVE,
    GIVE_BOOT,
    GIVE_DEFERRED,
    NO_NODE,
    TAKE,
    TAKE_BULK,
    TICK,
    TRY,
    Op,
)
from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.lib.struct import Array, i64, struct, u8, u32
from physmem.mm.alloc_flags import ALLOC_PCP_BUSY
from physmem.mm.features import BULK, PCP_AUTO_TUNING
from physmem.mm.gfp_bits import GFP_MOVABLE_MASK, GFP_MOVABLE_SHIFT
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE, PG_MOVABLE, WMARK_LOW, WMARK_MIN, Memory
from physmem.mm.page_alloc import alloc_pages, bulk_page, bulk_zone
from physmem.mm.page_free import free_pages, page_zone
from physmem.mm.pcp import decay_pcp_high, drain_pages_zone, drain_zone_pages
from physmem.mm.tracepoint import EXTFRAG

NR_ORDERS = 16
NR_TYPES = 4
_SHIFT_KIND = 24


@struct
class EarlyOp:
    """One request of the part before the trace."""

    early_slot: i64  # or -1: a gap
    early_gfp: u32
    early_order: u8
    early_node: u8
    early_movable: u8


@struct
class Placing:
    """A workload on its way through a machine."""

    memory_addr: i64
    next_op: i64
    page_shift_more: i64  # log2 of how many recorded pages make one page of the machine
    takes: i64
    failed: i64
    gives: i64
    gives_skipped: i64  # of allocations that failed here
    gives_refused: i64  # frames that are not in use: a bug, or a policy's
    early_failed: i64
    fragmenting: i64  # fallbacks below the order of a pageblock
    below_low: i64  # allocations that left their zone below its low watermark ...
    below_min: i64  # ... and below the minimum
    tried_again: i64
    tried_got: i64  # of them: served here
    place_ops: Array[Op]
    place_pfn: Array[i64]  # by slot: its frame, or -1
    frames_left: Array[u32]  # by slot: recorded frames not yet freed
    order_of_slot: Array[u8]  # by slot: recorded order
    boot_to: Array[i64]  # by frame given back by the boot: our frame, or -1
    zone_map: Array[i64]  # by zone: recorded zone whose drains it follows
    early_ops: Array[EarlyOp]
    failed_of: Array[i64]  # order * NR_TYPES + migratetype of the flags


placing_at = pointer_to(Placing)


@inlined
def count_extfrag(m: Memory, r: Placing) -> None:
    """Count fallbacks that left a pageblock mixed."""
    emitted = min(m.trace[0], len(m.trace) - 1)
    for at in range(1, emitted + 1):
        packed = m.trace[at]
        if packed >> _SHIFT_KIND & 0xFF == EXTFRAG and packed & 0xF < m.pageblock_order:
            r.fragmenting += 1


@inlined
def asked_node(m: Memory, node: int, cpu: int) -> int:
    """Node that an allocation asks first."""
    if node == NO_NODE or node >= m.nr_nodes:
        return int(m.cpu_node[cpu])
    return node


@kernel
def take(m: Memory, r: Placing, at: int, cpu: int) -> int:
    """Allocate for one operation; the frame or NONE."""
    op = r.place_ops[at]
    order = max(int(op.order) - r.page_shift_more, 0)
    node = asked_node(m, int(op.node), cpu)
    if len(m.trace):
        m.trace[0] = 0
    pfn = NONE
    if op.kind == TAKE_BULK and m.features & BULK:
        number = bulk_zone(m, 1, op.gfp, node)
        if number != NONE:
            pfn = bulk_page(m, number, op.gfp, cpu)
    if pfn == NONE:
        pfn = alloc_pages(m, order, op.gfp, node, cpu, ALLOC_PCP_BUSY if op.flags & BUSY else 0)
    if len(m.trace) and m.trace[0]:
        count_extfrag(m, r)
    r.takes += 1
    if pfn == NONE:
        mt = (op.gfp & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT
        r.failed_of[order * NR_TYPES + mt] += 1
        r.failed += 1
        return pfn
    number = page_zone(m, pfn)
    zone = m.zones[number]
    if zone.nr_free_pages < zone.watermark[WMARK_LOW]:
        r.below_low += 1
        if zone.nr_free_pages < zone.watermark[WMARK_MIN]:
            r.below_min += 1
    return pfn


@kernel
def give(m: Memory, r: Placing, at: int, cpu: int) -> None:
    """Free a slot or a piece of it."""
    op = r.place_ops[at]
    slot = int(op.slot)
    pfn = r.place_pfn[slot]
    frames = 1 << int(op.order)
    r.frames_left[slot] = max(int(r.frames_left[slot]) - frames, 0)
    if pfn < 0:
        r.gives_skipped += 1
        return
    order = int(op.order)
    if r.page_shift_more:
        # several recorded pages share one of ours: it is free when the last of them is
        if r.frames_left[slot]:
            return
        order = max(int(r.order_of_slot[slot]) - r.page_shift_more, 0)
    else:
        pfn += op.offset
    r.gives += 1
    if not free_pages(m, pfn, order, cpu, op.flags & BUSY != 0):
        r.gives_refused += 1


@kernel
def drain(m: Memory, r: Placing, at: int, cpu: int) -> None:
    """A drain from outside, or a second that has passed."""
    op = r.place_ops[at]
    for number in range(m.nr_zones):
        if op.kind in (DECAY, TICK):
            if m.features & PCP_AUTO_TUNING:
                decay_pcp_high(m.zones[number], cpu)
        elif r.zone_map[number] == op.slot:
            if op.kind == DRAIN_ALL:
                drain_pages_zone(m.zones[number], cpu)
            else:
                drain_zone_pages(m.zones[number], cpu)


@kernel
def place(h: int, end: int) -> int:
    """Carry operations out up to `end`; where it stopped: at `end`, or behind a GIVE_DEFERRED."""
    r = placing_at(h)
    m = memory_at(r.memory_addr)
    for at in range(r.next_op, end):
        op = r.place_ops[at]
        cpu = int(op.cpu)
        if cpu >= m.nr_cpus:
            cpu = cpu % m.nr_cpus
        if op.kind == TAKE or op.kind == TAKE_BULK:
            pfn = take(m, r, at, cpu)
            r.place_pfn[op.slot] = pfn
            r.frames_left[op.slot] = 1 << int(op.order)
        elif op.kind == GIVE:
            give(m, r, at, cpu)
        elif op.kind == TRY:
            r.tried_again += 1
            order = max(int(op.order) - r.page_shift_more, 0)
            pfn = alloc_pages(m, order, op.gfp, asked_node(m, int(op.node), cpu), cpu, 0)
            if pfn != NONE:
                r.tried_got += 1
                free_pages(m, pfn, order, cpu, False)
        elif op.kind == GIVE_BOOT:
            pfn = r.boot_to[op.slot]
            if pfn >= 0:
                free_pages(m, pfn, 0, cpu, False)
        elif op.kind in (DRAIN_ALL, DRAIN_BATCH, DECAY, TICK):
            drain(m, r, at, cpu)
        elif op.kind == GIVE_DEFERRED:
            r.next_op = at + 1
            return at + 1
    r.next_op = end
    return end


@kernel
def place_early(h: int, gaps: Array[i64]) -> int:
    """Make the requests before the trace, straight off the free lists; how many gaps there are.

    The frames of the gaps are collected and given back at the end.
    """
    r = placing_at(h)
    m = memory_at(r.memory_addr)
    nr_gaps = 0
    for at in range(len(r.early_ops)):
        request = r.early_ops[at]
        slot = int(request.early_slot)
        order = max(int(request.early_order) - r.page_shift_more, 0)
        node = int(request.early_node)
        if node >= m.nr_nodes:
            node = int(m.cpu_node[0])
        pfn = alloc_pages(m, order, request.early_gfp, node, 0, ALLOC_PCP_BUSY)
        if slot < 0:
            if pfn != NONE:
                gaps[nr_gaps] = pfn
                nr_gaps += 1
            continue
        r.place_pfn[slot] = pfn
        r.frames_left[slot] = 1 << int(request.early_order)
        if pfn == NONE:
            r.early_failed += 1
            continue
        for frame in range(pfn, pfn + (1 << order)):
            if request.early_movable:
                m.mem_map[frame].flags |= PG_MOVABLE
            else:
                m.mem_map[frame].flags &= ~PG_MOVABLE
    for at in range(nr_gaps):
        free_pages(m, gaps[at], 0, 0, True)
    return nr_gaps
