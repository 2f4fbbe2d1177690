# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns which frame: a pass over all requests that turns frame numbers into allocations.

A frame is *unseen* until a line names it, *listed* while it is free or on a per-CPU list, else it
belongs to a slot. What lines do not tell follows from these:

* the free of an unseen frame gives back what was taken before the trace begins;
* the free of a listed frame gives back what was taken silently since it was listed: by a bulk
  request, the first one after that whose frames are not all known; else by an unknown request;
* an allocation of a frame that belongs to a slot means that its free was not recorded.
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
    SILENT,
    TAKE,
    TAKE_BULK,
    TRY,
    Op,
)
from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.lib.struct import Array, i32, i64, struct, u8, u32
from physmem.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from physmem.mm.gfp_bits import GFP_MOVABLE_SHIFT
from physmem.mm.mmzone import MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE
from physmem.replay import request as rq
from physmem.replay.flow import K_DRAIN, K_LOCKED
from physmem.replay.request import Request

UNSEEN = -2
LISTED = -1
BOOT_NOTHING = 0
BOOT_DEFERRED = 1
BOOT_LATE = 2
R_ALLOC = rq.ALLOC
R_FREE = rq.FREE
R_COMMIT = rq.COMMIT
R_BULK = rq.BULK
R_DRAIN_ALL = rq.DRAIN_ALL
R_DRAIN_BATCH = rq.DRAIN_BATCH
R_DECAY = rq.DECAY
R_BUSY = rq.BUSY
USER = GFP_HIGHUSER_MOVABLE
KERNEL = GFP_KERNEL
RECLAIMABLE = GFP_KERNEL | 1 << (GFP_MOVABLE_SHIFT + 1)


@struct
class Slotting:
    """Everything that the pass reads and writes."""

    nr_ops: i64
    nr_slots: i64
    nr_early: i64  # slots from before the trace
    nr_boot: i64  # frames given back by the boot
    nr_bulk: i64  # frames of bulk requests so far ...
    first_bulk: i64  # ... and the first of them whose frame is not known
    nr_silent: i64  # frames taken by requests that no line shows, bulk requests left out
    nr_unseen_gives: i64  # frames whose free no line shows
    deferred_done: i64
    nr_deferred: i64  # frames handed over late
    full: i64  # 1: an array was too short
    slot_requests: Array[Request]
    slot_expected: Array[i64]
    slot_outcome: Array[i64]
    owner: Array[i32]  # by frame: slot, LISTED or UNSEEN
    boot_frame: Array[u8]  # by frame: BOOT_*
    listed_at: Array[u32]  # by frame: request with which it was listed
    listed_type: Array[u8]  # by frame: migratetype of its list
    frame_node: Array[u8]  # by frame: node, or NO_NODE
    node_of_cpu: Array[i64]
    slot_pfn: Array[i64]  # by slot: first frame
    slot_order: Array[u8]
    slot_row: Array[u32]
    early_slots: Array[i64]  # slots from before the trace that are freed
    boot_pfns: Array[i64]  # frames given back by the boot, in order
    bulk_slots: Array[i64]
    bulk_keys: Array[i64]
    ops: Array[Op]


slotting_at = pointer_to(Slotting)


@inlined
def add_op(w: Slotting, key: int, kind: int, slot: int, order: int, cpu: int) -> int:
    """Append an operation; its index."""
    at = w.nr_ops
    if at >= len(w.ops):
        w.full = 1
        return 0
    w.nr_ops = at + 1
    op = w.ops[at]
    op.key = key
    op.kind = kind
    op.slot = slot
    op.order = order
    op.cpu = cpu
    op.row = w.slot_requests[key].row if key < len(w.slot_requests) else 0
    op.gfp = 0
    op.offset = 0
    op.flags = 0
    op.node = NO_NODE
    return at


@kernel
def new_slot(w: Slotting, pfn: int, order: int, row: int) -> int:
    """Number of a new slot."""
    slot = w.nr_slots
    if slot >= len(w.slot_pfn):
        w.full = 1
        return 0
    w.nr_slots = slot + 1
    w.slot_pfn[slot] = pfn
    w.slot_order[slot] = order
    w.slot_row[slot] = row
    return slot


@kernel
def unseen_give(w: Slotting, key: int, pfn: int) -> None:
    """A frame of a slot turns up elsewhere: it was freed, and no line says when."""
    at = add_op(w, key, GIVE, w.owner[pfn], 0, 0)
    w.ops[at].offset = pfn - w.slot_pfn[w.owner[pfn]]
    w.ops[at].flags = SILENT
    w.owner[pfn] = LISTED
    w.nr_unseen_gives += 1


@kernel
def silent_slot(w: Slotting, pfn: int) -> int:
    """Slot of a frame that was taken without a line."""
    since = int(w.listed_at[pfn])
    bulk = w.first_bulk
    while bulk < w.nr_bulk:
        if w.bulk_slots[bulk] >= 0 and w.bulk_keys[bulk] >= since:
            slot = w.bulk_slots[bulk]
            w.bulk_slots[bulk] = -1
            w.slot_pfn[slot] = pfn
            while w.first_bulk < w.nr_bulk and w.bulk_slots[w.first_bulk] < 0:
                w.first_bulk += 1
            return slot
        bulk += 1
    request = w.slot_requests[since]
    slot = new_slot(w, pfn, 0, request.row)
    at = add_op(w, since, TAKE, slot, 0, request.cpu)
    op = w.ops[at]
    op.flags = SILENT
    op.node = w.frame_node[pfn]
    mt = w.listed_type[pfn]
    op.gfp = KERNEL
    if mt == MIGRATE_MOVABLE:
        op.gfp = USER
    elif mt == MIGRATE_RECLAIMABLE:
        op.gfp = RECLAIMABLE
    w.nr_silent += 1
    return slot


@kernel
def list_frames(w: Slotting, key: int, pfn: int, order: int, mt: int) -> None:
    """A line says that the frames of a block are on a list."""
    for frame in range(max(pfn, 0), min(pfn + (1 << order), len(w.owner))):
        if w.owner[frame] >= 0:
            unseen_give(w, key, frame)
        w.owner[frame] = LISTED
        w.listed_at[frame] = key
        w.listed_type[frame] = mt


@kernel
def take_block(w: Slotting, key: int, pfn: int) -> None:
    """A recorded allocation."""
    request = w.slot_requests[key]
    order = int(request.order)
    kind = TAKE if pfn >= 0 and pfn + (1 << order) <= len(w.owner) else TRY
    slot = new_slot(w, pfn, order, request.row) if kind == TAKE else 0
    if kind == TAKE:
        for frame in range(pfn, pfn + (1 << order)):
            if w.owner[frame] >= 0:
                unseen_give(w, key, frame)
            w.owner[frame] = slot
    at = add_op(w, key, kind, slot, order, request.cpu)
    op = w.ops[at]
    op.gfp = request.gfp
    if request.race & R_BUSY:
        op.flags = BUSY
    if kind == TAKE and w.frame_node[pfn] != w.node_of_cpu[request.cpu]:
        op.node = w.frame_node[pfn]


@kernel
def give_piece(w: Slotting, key: int, pfn: int, order: int) -> None:
    """Free a block of frames that are alike: of one slot, all unseen, or one that is listed."""
    request = w.slot_requests[key]
    slot = int(w.owner[pfn])
    early = slot == UNSEEN
    if early:
        if w.boot_frame[pfn] == BOOT_DEFERRED:
            if not w.deferred_done:
                add_op(w, key, GIVE_DEFERRED, 0, 0, request.cpu)
                w.deferred_done = 1
            w.nr_deferred += 1 << order
            for frame in range(pfn, pfn + (1 << order)):
                w.owner[frame] = LISTED
                w.listed_at[frame] = key
            return
        if w.boot_frame[pfn] == BOOT_LATE:
            for frame in range(pfn, pfn + (1 << order)):
                w.owner[frame] = LISTED
                w.listed_at[frame] = key
                if w.nr_boot < len(w.boot_pfns):
                    w.boot_pfns[w.nr_boot] = frame
                add_op(w, key, GIVE_BOOT, w.nr_boot, 0, request.cpu)
                w.nr_boot += 1
            return
        slot = new_slot(w, pfn, order, request.row)
        w.early_slots[w.nr_early] = slot
        w.nr_early += 1
    elif slot == LISTED:
        slot = silent_slot(w, pfn)
    at = add_op(w, key, GIVE, slot, order, request.cpu)
    op = w.ops[at]
    op.offset = pfn - w.slot_pfn[slot]
    if request.race & R_BUSY:
        op.flags = BUSY
    for frame in range(pfn, pfn + (1 << order)):
        w.owner[frame] = LISTED
        w.listed_at[frame] = key


@kernel
def give_block(w: Slotting, key: int, pfn: int, order: int) -> None:
    """A recorded free."""
    if pfn < 0 or pfn + (1 << order) > len(w.owner):
        return
    alike = order == 0 or w.owner[pfn] != LISTED
    for frame in range(pfn, pfn + (1 << order)):
        if w.owner[frame] != w.owner[pfn] or w.boot_frame[frame] != w.boot_frame[pfn]:
            alike = False
    if alike:
        give_piece(w, key, pfn, order)
        return
    for frame in range(pfn, pfn + (1 << order)):
        give_piece(w, key, frame, 0)


@kernel
def take_bulk(w: Slotting, key: int) -> None:
    """Frames of a bulk request, which are not known yet."""
    request = w.slot_requests[key]
    for _ in range(int(request.pfn)):
        slot = new_slot(w, -1, 0, request.row)
        at = add_op(w, key, TAKE_BULK, slot, 0, request.cpu)
        w.ops[at].gfp = request.gfp
        if request.node != w.node_of_cpu[request.cpu]:
            w.ops[at].node = request.node
        if w.nr_bulk >= len(w.bulk_slots):
            w.full = 1
            return
        w.bulk_slots[w.nr_bulk] = slot
        w.bulk_keys[w.nr_bulk] = key
        w.nr_bulk += 1


@inlined
def see_consequences(w: Slotting, key: int) -> None:
    """What a request caused: frames that came to lists."""
    first = int(w.slot_requests[key].first)
    for at in range(first, first + int(w.slot_requests[key].nr_expected)):
        packed = w.slot_expected[at]
        kind = packed >> 24 & 0xFF
        if kind == K_LOCKED or kind == K_DRAIN:
            list_frames(w, key, packed >> 32, packed >> 16 & 0xFF, packed >> 8 & 0xFF)


@kernel
def assign_slots(h: int) -> int:
    """Turn requests into operations; how many."""
    w = slotting_at(h)
    for key in range(len(w.slot_requests)):
        request = w.slot_requests[key]
        kind = request.kind
        if kind == R_ALLOC:
            see_consequences(w, key)
            take_block(w, key, w.slot_outcome[key])
            continue
        if kind == R_FREE or kind == R_COMMIT:
            give_block(w, key, int(request.pfn), int(request.order))
        elif kind == R_BULK:
            see_consequences(w, key)
            take_bulk(w, key)
            continue
        elif kind == R_DRAIN_ALL or kind == R_DRAIN_BATCH:
            code = DRAIN_ALL if kind == R_DRAIN_ALL else DRAIN_BATCH
            add_op(w, key, code, int(request.pfn), 0, request.cpu)
        elif kind == R_DECAY and request.pfn == 0:
            add_op(w, key, DECAY, 0, 0, request.cpu)
        see_consequences(w, key)
    return w.nr_ops


@kernel
def settle(h: int, in_use: Array[u8]) -> int:
    """Let the slots agree with a state behind the last request; frames in use since ever.

    `in_use` is 1 for frames in use in that state. Frames that are in use but belong to no slot get
    one: `owner` of the unseen ones is left UNSEEN.
    """
    w = slotting_at(h)
    unseen = 0
    last = len(w.slot_requests)
    for frame in range(min(len(in_use), len(w.owner))):
        if in_use[frame]:
            if w.owner[frame] == LISTED:
                w.owner[frame] = silent_slot(w, frame)
            elif w.owner[frame] == UNSEEN:
                unseen += 1
        elif w.owner[frame] >= 0:
            unseen_give(w, last, frame)
    return unseen
