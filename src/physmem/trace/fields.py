# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the fields of an event into a row.

Linux: include/trace/events/kmem.h (6.1)
"""

from physmem.lib.jit import kernel
from physmem.trace.bytescan import (
    NEWLINE,
    SITE,
    SPACE,
    Row,
    Scan,
    byte,
    end_of_word,
    gfp_of_text,
    match,
    number,
    number_of_text,
    pointer,
    word,
)
from physmem.trace.events import NO_PFN, Kind
from physmem.trace.literals import (
    GUESSES,
    K_ALLOC_ORDER,
    K_ALLOC_TYPE,
    K_BYTES_ALLOC,
    K_BYTES_REQ,
    K_CALL_SITE,
    K_CPU,
    K_FALLBACK_ORDER,
    K_FALLBACK_TYPE,
    K_GFP,
    K_GFP_FLAGS,
    K_MIGRATETYPE,
    K_NAME,
    K_NID,
    K_NR,
    K_ORDER,
    K_OWNERSHIP,
    K_PAGE,
    K_PFN,
    K_PTR,
    K_REFILL,
    K_RET,
    K_ZONE,
)

MAX_PFN = 1 << 40
MAX_ORDER = 32
MAX_MIGRATETYPE = 15

ALLOC = int(Kind.ALLOC)
FREE = int(Kind.FREE)
FREE_BATCHED = int(Kind.FREE_BATCHED)
ZONE_LOCKED = int(Kind.ZONE_LOCKED)
EXTFRAG = int(Kind.EXTFRAG)
BULK = int(Kind.BULK)
BULK_RET = int(Kind.BULK_RET)
DRAIN_PAGES_ZONE = int(Kind.DRAIN_PAGES_ZONE)
ISOLATE_FREE = int(Kind.ISOLATE_FREE)
CACHE_FREE = int(Kind.CACHE_FREE)


@kernel
def int32(value: int) -> int:
    """Return the low 32 bits as a C int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


@kernel
def key_at(s: Scan, p: int) -> int:
    """Return the number of the key at `p`; 0: none that is read."""
    for key in range(K_PAGE, K_NAME + 1):
        if match(s, p, key):
            return key
    return 0


@kernel
def read_fields(s: Scan, p: int, kind: int) -> int:
    """Read `key=value` words up to the end of the line into `s.fields`.

    Returns the set of the keys as bits by number; -1: a damaged value; -2: NEED.
    """
    seen = 0
    guess = s.guesses + kind * GUESSES * 8
    while True:
        while byte(p) <= SPACE:
            if byte(p) == NEWLINE:
                s.at = p
                return seen
            p += 1
        key = word(guess)
        if key == 0 or not match(s, p, key):
            key = key_at(s, p)
        else:
            guess += 8
        if key <= K_PAGE:
            p = end_of_word(p)
            continue
        if seen >> key & 1:  # two lines in one: the newline between them is damaged
            return -1
        p = match(s, p, key)
        if key == K_GFP_FLAGS:
            p = gfp_of_text(s, p)
            if p == 0:
                return -2
        elif key == K_PTR:
            p = pointer(s, p)
            if p == 0:
                return -1
        elif key == K_CALL_SITE or key == K_NAME:
            q = end_of_word(p)
            text = number_of_text(s, p, q, SITE)
            if text < 0:
                return -2
            s.value = text
            p = q
        else:
            p = number(s, p)
            if p == 0 or byte(p) > SPACE:
                return -1
        s.fields[key] = s.value
        seen |= 1 << key


@kernel
def frame(s: Scan, kind: int, shift: int) -> int:
    """Return the frame of the fields, NO_PFN for a failed allocation, -2 for one that cannot be."""
    pfn = s.fields[K_PFN]
    if kind == ALLOC and (pfn == 0 or pfn == -1 or pfn == 0xFFFFFFFF):
        return NO_PFN
    if not 0 <= pfn < MAX_PFN or pfn & ((1 << shift) - 1):
        return -2
    return pfn


@kernel
def page_event(s: Scan, row: Row, kind: int, seen: int) -> bool:
    """Fill the row of an event of the page allocator; False: a value that cannot be."""
    f = s.fields
    order = 0
    migratetype = -1
    shift = 0
    if kind == EXTFRAG:
        order = f[K_ALLOC_ORDER]
        migratetype = f[K_ALLOC_TYPE]
        fallback = f[K_FALLBACK_TYPE]
        if not 0 <= f[K_FALLBACK_ORDER] <= MAX_ORDER or not 0 <= fallback <= MAX_MIGRATETYPE:
            return False
        row.arg0 = f[K_FALLBACK_ORDER]
        row.arg1 = fallback
        if seen >> K_OWNERSHIP & 1:
            row.arg1 = fallback | (f[K_OWNERSHIP] & 1) << 8
    elif kind != FREE_BATCHED:
        order = f[K_ORDER]
        shift = order
        if kind != FREE:
            migratetype = f[K_MIGRATETYPE]
    if not 0 <= order <= MAX_ORDER or not -1 <= migratetype <= MAX_MIGRATETYPE:
        return False
    pfn = frame(s, kind, shift)
    if pfn == -2:
        return False
    row.pfn = pfn
    row.order = order
    row.migratetype = migratetype
    if kind == ALLOC:
        row.gfp = f[K_GFP_FLAGS]
    elif kind == ZONE_LOCKED:
        row.arg0 = 1 if order == 0 else 0  # what was printed before the field came (5.19)
        if seen >> K_REFILL & 1:
            row.arg0 = f[K_REFILL] & 1
    return True


@kernel
def probe(s: Scan, row: Row, kind: int, seen: int) -> bool:
    """Fill the row of a probe; False: a value that cannot be."""
    f = s.fields
    if kind == BULK:
        row.gfp = f[K_GFP] & 0xFFFFFFFF
        row.arg0 = int32(f[K_NID])
        row.arg1 = int32(f[K_NR])
    elif kind == BULK_RET:
        row.arg1 = int32(f[K_RET])
    elif kind == ISOLATE_FREE:
        if not 0 <= f[K_ORDER] <= MAX_ORDER:
            return False
        row.order = f[K_ORDER]
        if seen >> K_PFN & 1:
            row.pfn = f[K_PFN]
    else:
        row.pfn = f[K_ZONE]
        if kind == DRAIN_PAGES_ZONE:
            row.arg0 = int32(f[K_CPU])
    return True


@kernel
def object_event(s: Scan, row: Row, kind: int, seen: int) -> bool:
    """Fill the row of an event of the slab allocator; False: a value that cannot be."""
    f = s.fields
    row.pfn = f[K_PTR]
    if seen >> K_GFP_FLAGS & 1:
        row.gfp = f[K_GFP_FLAGS]
    if seen >> K_CALL_SITE & 1:
        row.site = f[K_CALL_SITE]
    if kind == CACHE_FREE and seen >> K_NAME & 1:
        row.site = f[K_NAME]
    if seen >> K_BYTES_ALLOC & 1:
        size = f[K_BYTES_ALLOC]
        wanted = f[K_BYTES_REQ] if seen >> K_BYTES_REQ & 1 else size
        if not 0 <= size < 1 << 31 or not 0 <= wanted < 1 << 31:
            return False
        row.arg0 = wanted
        row.arg1 = size
    return True
