# SPDX-License-Identifier: GPL-2.0-or-later
"""The records of the pass that separates requests from outcomes (`physmem.replay.lowering`)."""

from physmem.lib.struct import Array, i8, i32, i64, struct, u8, u16, u32
from physmem.replay.request import Request
from physmem.trace.events import NO_PREEMPT_COUNT, Kind

NO_OWNER = -1
IS_BUSY = -2
"""`Lowering.owner` of a free in an interrupt: seen next when taken off a free list."""
IS_LISTED = -3
"""`Lowering.owner` of a free in an interrupt: seen next on a per-CPU list."""
IS_DECAY = -4
"""`Lowering.owner` of the first drain of a decay."""
LEVELS = 3
NO_DEPTH = NO_PREEMPT_COUNT

K_ALLOC = int(Kind.ALLOC)
K_FREE = int(Kind.FREE)
K_BATCHED = int(Kind.FREE_BATCHED)
K_LOCKED = int(Kind.ZONE_LOCKED)
K_DRAIN = int(Kind.PCPU_DRAIN)
K_EXTFRAG = int(Kind.EXTFRAG)
K_BULK = int(Kind.BULK)
K_BULK_RET = int(Kind.BULK_RET)
K_DRAIN_ALL = int(Kind.DRAIN_PAGES_ZONE)
K_DRAIN_BATCH = int(Kind.DRAIN_ZONE_PAGES)
IN_INTERRUPT = 12
PCP_ORDERS = 3
HARDIRQ = 4
SOFTIRQ = 8
ABSENT = 0xFFFFFFFF


@struct
class Flow:
    """What one task (or interrupt level of a CPU) is in the middle of."""

    pending: i64  # consequences waiting for their allocation
    first_pending: i64  # row of the first
    last_pending: i64
    reserved: i64  # request index set aside for the allocation, or NO_OWNER
    last_free: i64  # request that drains now belong to, or NO_OWNER
    bulk_row: i64  # row of the bulk call in progress, or NO_OWNER
    bulk_allocs: i64
    last_time: i64  # of the last free or drain (only where per-CPU lists decay)
    last_is_free: i64


@struct
class Lowering:
    """Everything that the pass over the events reads and writes."""

    nr_requests: i64
    nr_unexplained: i64  # consequences without a request
    nr_busy: i64
    last_overruled: i64  # row of the last free whose way was told by an outcome
    use_outcomes: i64  # 0 under --strict: the place of an outcome must not matter
    nr_cpus: i64
    ev_kind: Array[u8]
    ev_cpu: Array[u16]
    ev_flow: Array[i32]  # number of the task in the table of flows
    ev_context: Array[u8]
    ev_preempt: Array[u8]
    ev_pfn: Array[i64]
    ev_order: Array[u8]
    ev_migratetype: Array[i8]
    ev_gfp: Array[u32]
    ev_arg0: Array[i32]
    ev_arg1: Array[i32]
    ev_time: Array[i64]  # ns; empty where per-CPU lists do not decay
    ev_worker: Array[u8]  # 1: a kernel worker; empty as ev_time
    decay_rows: Array[i64]  # ascending: rows before which lists decay unseen; the last: no row
    decay_cpus: Array[u16]  # by decay row
    decay_times: Array[i64]  # by decay row: ns
    seen_decays: Array[i64]  # rows of the first drain of each decay that shows
    node_of_cpu: Array[i64]
    zone_starts: Array[i64]  # ascending: first frame of each zone
    flows: Array[Flow]
    next_seen: Array[u32]  # by frame: row where it is seen next
    last_prepared: Array[u32]  # by frame: request of its last mm_page_free
    requests: Array[Request]
    owner: Array[i32]  # by row: request of a consequence
    chain: Array[u32]  # by row: next pending consequence of the same flow
    expected: Array[i64]  # packed consequences, grouped by request
    outcome: Array[i64]  # by request: frame of an allocation, -1 when it failed
