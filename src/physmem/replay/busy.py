# SPDX-License-Identifier: GPL-2.0-or-later
"""Frees in an interrupt that found the per-CPU lists locked: by the rule, and by what came after.

Linux: free_unref_page(), free_unref_page_list(), mm/page_alloc.c (6.1): without the lock the block
goes straight to the free lists.
"""

from physmem.lib.jit import inlined, kernel
from physmem.replay.flow import (
    IN_INTERRUPT,
    IS_BUSY,
    IS_LISTED,
    K_BATCHED,
    K_DRAIN,
    K_EXTFRAG,
    K_FREE,
    K_LOCKED,
    NO_DEPTH,
    NO_OWNER,
    PCP_ORDERS,
    Lowering,
)
from physmem.replay.request import BUSY, COUNTED


@kernel
def _zone_of(w: Lowering, pfn: int) -> int:
    """How many zones begin at or below a frame."""
    zone = 0
    while zone < len(w.zone_starts) and w.zone_starts[zone] <= pfn:
        zone += 1
    return zone


@kernel
def _step(w: Lowering, row: int, step: int, kinds: int) -> int:
    """Nearest row of the same CPU's tasks whose kind is below `kinds`, or out of range."""
    cpu = w.ev_cpu[row]
    at = row + step
    while 0 <= at < len(w.ev_kind) and (
        w.ev_cpu[at] != cpu
        or w.ev_context[at] & IN_INTERRUPT
        or (kinds == K_LOCKED and K_LOCKED <= w.ev_kind[at] <= K_EXTFRAG)
    ):
        at += step
    return at


@kernel
def busy_by_rule(w: Lowering, row: int) -> bool:
    """Tell from the lines around it whether an interrupt hit while its task held the per-CPU lock.

    The lock is a zone's: a free of another zone is not kept out.

    Frees of a list take the lock once for the whole batch, so between two of its lines
    (mm_page_free_batched) of one task it was held all the time. Where the kernel counts preemption,
    the depth tells of the other places: after the last line of a batch the interrupt must be deeper
    than that; a refill and a drain emit their lines under the zone's own lock, too, so an interrupt
    that is no less deep came before the per-CPU lock was left. Without a depth nothing tells.

    Lines of refills and drains are outcomes: with `use_outcomes` 0 they are not looked at.
    """
    last = _step(w, row, -1, 0 if w.use_outcomes else K_LOCKED)
    if last < 0:
        return False
    kind = w.ev_kind[last]
    under_zone_lock = K_LOCKED <= kind <= K_EXTFRAG
    if kind != K_BATCHED and not under_zone_lock:
        return False
    if _zone_of(w, w.ev_pfn[last]) != _zone_of(w, w.ev_pfn[row]):
        return False
    depth = w.ev_preempt[row]
    if depth != NO_DEPTH:
        if under_zone_lock and depth >= w.ev_preempt[last]:
            return True
        if kind == K_BATCHED and depth > w.ev_preempt[last]:
            return True
    before = _step(w, row, -1, K_LOCKED)
    after = _step(w, row, 1, K_LOCKED)
    return (
        before >= 0
        and after < len(w.ev_kind)
        and w.ev_kind[before] == K_BATCHED
        and w.ev_kind[after] == K_BATCHED
        and w.ev_flow[before] == w.ev_flow[after]
        and depth >= w.ev_preempt[before]
    )


@inlined
def find_busy(w: Lowering) -> None:
    """Find the frees that an interrupt made while the interrupted code held the per-CPU lock.

    Such a free cannot take the lock and goes straight to the free lists; no line says so. What
    shows it is where the frame is seen next: taken off a free list (mm_page_alloc_zone_locked)
    though it was never drained from a per-CPU list.
    """
    nowhere = len(w.ev_kind)
    for frame in range(len(w.next_seen)):
        w.next_seen[frame] = nowhere
    for row in range(len(w.ev_kind) - 1, -1, -1):
        kind = w.ev_kind[row]
        pfn = w.ev_pfn[row]
        if kind > K_DRAIN or pfn < 0:
            continue
        order = int(w.ev_order[row])
        if kind == K_FREE and w.ev_context[row] & IN_INTERRUPT and pfn < len(w.next_seen):
            seen = w.next_seen[pfn]
            if seen < nowhere and order <= PCP_ORDERS:
                w.owner[row] = IS_BUSY if w.ev_kind[seen] == K_LOCKED else IS_LISTED
        for frame in range(pfn, min(pfn + (1 << order), len(w.next_seen))):
            w.next_seen[frame] = row


@kernel
def note_busy(w: Lowering, row: int, at: int) -> None:
    """Mark a free in an interrupt that found the per-CPU lock taken.

    The rule decides; where the frame is seen next may overrule it, and that counts as a race.
    """
    by_rule = w.ev_order[row] <= PCP_ORDERS and busy_by_rule(w, row)
    told = w.owner[row]
    w.owner[row] = NO_OWNER
    busy = told == IS_BUSY or (by_rule and told != IS_LISTED)
    if busy:
        w.requests[at].race = BUSY
    if busy != by_rule:
        # one interrupt may free many frames: one race
        if w.last_overruled < row - 1 or w.ev_context[row - 1] & IN_INTERRUPT == 0:
            w.nr_busy += 1
            w.requests[at].race |= COUNTED
        w.last_overruled = row
