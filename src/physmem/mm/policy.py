# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking a policy: its functions are called by address, each answer is checked before it counts.

A wrong answer is written down in `Zone.verdict` (the first one stays), and the kernel's own rule
decides instead, so that the lists stay whole whatever a policy says.

    choose_migratetype(zone, order, gfp, mt)  type of a request; `mt`: what the flags say
    choose_block(zone, order, mt, flags)      free block of the type's lists to split
    choose_fallback(zone, order, mt, flags)   free block of another type, or NONE: none
    choose_list_end(zone, pfn, order, mt)     HEAD or TAIL for what has become free
    claim_block(zone, pfn, order, mt)         1: the request's type takes the pageblock; 0: not

Each may answer BUILTIN: as the kernel does it.
"""

from physmem.lib.jit import RAISED, call_hook, kernel
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    NONE,
    Zone,
)
from physmem.mm.placement import (
    BUILTIN,
    HOOK_BLOCK,
    HOOK_CLAIM,
    HOOK_FALLBACK,
    HOOK_LIST_END,
    HOOK_MIGRATETYPE,
)

__all__ = [
    "BUILTIN",
    "HEAD",
    "MIGRATE_MOVABLE",
    "MIGRATE_PCPTYPES",
    "MIGRATE_RECLAIMABLE",
    "MIGRATE_UNMOVABLE",
    "NONE",
    "TAIL",
    "Zone",
    "first_free",
    "last_free",
    "next_free",
]
"""What a policy needs."""

HEAD = 0
TAIL = 1

HOOKS = (
    ("choose_migratetype", ("order", "gfp", "mt")),
    ("choose_block", ("order", "mt", "flags")),
    ("choose_fallback", ("order", "mt", "flags")),
    ("choose_list_end", ("pfn", "order", "mt")),
    ("claim_block", ("pfn", "order", "mt")),
)
"""Name and arguments (behind the zone) of each function that a policy may have, by hook number."""

SOUND = 0
NO_SUCH_TYPE = 1
NO_SUCH_END = 2
NOT_IN_ZONE = 3
NOT_FREE = 4
WRONG_LIST = 5
TOO_SMALL = 6
HAS_RAISED = 7
NO_ANSWER = 8

CODE = 0
HOOK = 1
ANSWER = 2
ARGUMENT = 3
"""Fields of `Zone.verdict`; three arguments."""


@kernel
def complain(zone: Zone, code: int, hook: int, answer: int, a: int, b: int, c: int) -> None:  # noqa: PLR0913, PLR0917 - all of them are written down
    """Note a wrong answer, if it is the first."""
    if answer == RAISED:
        code = HAS_RAISED
    if zone.verdict[CODE] == SOUND:
        zone.verdict[CODE] = code
        zone.verdict[HOOK] = hook
        zone.verdict[ANSWER] = answer
        zone.verdict[ARGUMENT] = a
        zone.verdict[ARGUMENT + 1] = b
        zone.verdict[ARGUMENT + 2] = c


@kernel
def ask_migratetype(zone: Zone, order: int, gfp: int, mt: int) -> int:
    """Type of a request."""
    answer = call_hook(zone.hook[HOOK_MIGRATETYPE], zone, order, gfp, mt)
    if 0 <= answer < MIGRATE_PCPTYPES:
        return answer
    if answer != BUILTIN:
        complain(zone, NO_SUCH_TYPE, HOOK_MIGRATETYPE, answer, order, gfp, mt)
    return mt


@kernel
def ask_list_end(zone: Zone, pfn: int, order: int, mt: int, to_tail: bool) -> bool:
    """Tell whether a block goes to TAIL; `to_tail`: what the kernel does."""
    answer = call_hook(zone.hook[HOOK_LIST_END], zone, pfn, order, mt)
    if answer == HEAD or answer == TAIL:
        return answer == TAIL
    if answer != BUILTIN:
        complain(zone, NO_SUCH_END, HOOK_LIST_END, answer, pfn, order, mt)
    return to_tail


@kernel
def ask_claim(zone: Zone, pfn: int, order: int, mt: int) -> int:
    """Whether a pageblock is claimed: 1, 0 or BUILTIN."""
    answer = call_hook(zone.hook[HOOK_CLAIM], zone, pfn, order, mt)
    if answer == 0 or answer == 1 or answer == BUILTIN:
        return answer
    complain(zone, NO_ANSWER, HOOK_CLAIM, answer, pfn, order, mt)
    return BUILTIN


@kernel
def why_not_this(zone: Zone, pfn: int, order: int) -> int:
    """What speaks against a block that a policy names for a request of an order, its type aside."""
    if pfn < zone.start_pfn or pfn >= zone.end_pfn:
        return NOT_IN_ZONE
    mark = int(zone.mem_map[pfn].order)
    if mark == 0 or mark > zone.max_order + 1 or zone.mem_map[pfn].zone != zone.number:
        return NOT_FREE
    return SOUND if mark > order else TOO_SMALL


@kernel
def ask_block(zone: Zone, order: int, mt: int, flags: int) -> int:
    """Free block on the lists of a type that serves a request; NONE: none, or BUILTIN."""
    answer = call_hook(zone.hook[HOOK_BLOCK], zone, order, mt, flags)
    if answer == BUILTIN or answer == NONE:
        return answer
    reason = why_not_this(zone, answer, order)
    if reason == SOUND and zone.mem_map[answer].mt != mt:
        reason = WRONG_LIST
    if reason == SOUND:
        return answer
    complain(zone, reason, HOOK_BLOCK, answer, order, mt, flags)
    return BUILTIN


@kernel
def ask_fallback(zone: Zone, order: int, mt: int, flags: int) -> int:
    """Free block of another type that serves a request; NONE: none, or BUILTIN."""
    answer = call_hook(zone.hook[HOOK_FALLBACK], zone, order, mt, flags)
    if answer == BUILTIN or answer == NONE:
        return answer
    reason = why_not_this(zone, answer, order)
    if reason == SOUND:
        donor = int(zone.mem_map[answer].mt)
        if donor == mt or donor >= MIGRATE_PCPTYPES:
            reason = WRONG_LIST
    if reason == SOUND:
        return answer
    complain(zone, reason, HOOK_FALLBACK, answer, order, mt, flags)
    return BUILTIN


# ---- for policies themselves ---------------------------------------------------------------------


@kernel
def first_free(zone: Zone, order: int, mt: int) -> int:
    """Block at HEAD of a free list, or NONE."""
    head = zone.free_area[order].head[mt]
    pfn = int(zone.mem_map[head].next)
    return NONE if pfn == head else pfn


@kernel
def last_free(zone: Zone, order: int, mt: int) -> int:
    """Block at TAIL of a free list, or NONE."""
    head = zone.free_area[order].head[mt]
    pfn = int(zone.mem_map[head].prev)
    return NONE if pfn == head else pfn


@kernel
def next_free(zone: Zone, pfn: int) -> int:
    """Block behind a free block on its list, or NONE."""
    order = int(zone.mem_map[pfn].order) - 1
    behind = int(zone.mem_map[pfn].next)
    return NONE if behind == zone.free_area[order].head[zone.mem_map[pfn].mt] else behind
