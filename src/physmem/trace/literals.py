# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts that the scanner of ftrace text compares with, as tables for its kernels.

Linux: include/trace/events/kmem.h (6.1)
"""

import numpy as np
from numpy.typing import NDArray

from physmem.trace.events import EVENT_NAMES, Kind

NAMES = tuple(EVENT_NAMES[kind] for kind in Kind)
"""Events that are read; the number of a name is its `Kind`."""
KEYS = (
    "page",
    "pfn",
    "order",
    "migratetype",
    "percpu_refill",
    "gfp_flags",
    "alloc_order",
    "fallback_order",
    "alloc_migratetype",
    "fallback_migratetype",
    "change_ownership",
    "gfp",
    "nid",
    "nr",
    "ret",
    "zone",
    "cpu",
    "ptr",
    "bytes_req",
    "bytes_alloc",
    "call_site",
    "name",
)
"""Fields that are read; the number of a key is its place here, behind the names."""
(
    K_PAGE,
    K_PFN,
    K_ORDER,
    K_MIGRATETYPE,
    K_REFILL,
    K_GFP_FLAGS,
    K_ALLOC_ORDER,
    K_FALLBACK_ORDER,
    K_ALLOC_TYPE,
    K_FALLBACK_TYPE,
    K_OWNERSHIP,
    K_GFP,
    K_NID,
    K_NR,
    K_RET,
    K_ZONE,
    K_CPU,
    K_PTR,
    K_BYTES_REQ,
    K_BYTES_ALLOC,
    K_CALL_SITE,
    K_NAME,
) = range(len(NAMES) + 1, len(NAMES) + 1 + len(KEYS))
NR_WORDS = len(NAMES) + 1 + len(KEYS)

FIELDS: dict[Kind, tuple[int, ...]] = {
    Kind.ALLOC: (K_PFN, K_ORDER, K_MIGRATETYPE, K_GFP_FLAGS),
    Kind.FREE: (K_PFN, K_ORDER),
    Kind.FREE_BATCHED: (K_PFN,),
    Kind.ZONE_LOCKED: (K_PFN, K_ORDER, K_MIGRATETYPE),
    Kind.PCPU_DRAIN: (K_PFN, K_ORDER, K_MIGRATETYPE),
    Kind.EXTFRAG: (K_PFN, K_ALLOC_ORDER, K_FALLBACK_ORDER, K_ALLOC_TYPE, K_FALLBACK_TYPE),
    Kind.BULK: (K_GFP, K_NID, K_NR),
    Kind.BULK_RET: (K_RET,),
    Kind.DRAIN_PAGES_ZONE: (K_ZONE, K_CPU),
    Kind.DRAIN_ZONE_PAGES: (K_ZONE,),
    Kind.ISOLATE_FREE: (K_ORDER,),
    Kind.MARKER: (),
    Kind.KMALLOC: (K_PTR, K_BYTES_ALLOC),
    Kind.KFREE: (K_PTR,),
    Kind.CACHE_ALLOC: (K_PTR, K_BYTES_ALLOC),
    Kind.CACHE_FREE: (K_PTR,),
}
"""Fields that an event must have; others are read when they are there."""

LITERALS = (
    "",
    *(f"{name}:" for name in NAMES),
    *(f"{key}=" for key in KEYS),
    "kmem:",
    "CPU:",
    "[LOST ",
    "cpus=",
    "version = ",
    "=> ",
)
"""Every text that the scanner compares with, by number: names, keys and what follows them."""
L_KMEM, L_CPU_LINE, L_LOST, L_CPUS_LINE, L_VERSION_LINE, L_STACK = range(
    len(LITERALS) - 6, len(LITERALS)
)
LITERAL_SHIFT = 7
"""Log2 of the bytes of an entry of the table of literals: pairs (word, mask), last the length."""
GUESSES = 8
"""Keys per kind in the table of guesses."""
ORDER_OF_KEYS: dict[Kind, tuple[int, ...]] = {
    Kind.ALLOC: (K_PAGE, K_PFN, K_ORDER, K_MIGRATETYPE, K_GFP_FLAGS),
    Kind.FREE: (K_PAGE, K_PFN, K_ORDER),
    Kind.FREE_BATCHED: (K_PAGE, K_PFN, K_ORDER),
    Kind.ZONE_LOCKED: (K_PAGE, K_PFN, K_ORDER, K_MIGRATETYPE, K_REFILL),
    Kind.PCPU_DRAIN: (K_PAGE, K_PFN, K_ORDER, K_MIGRATETYPE),
    Kind.KMALLOC: (K_CALL_SITE, K_PTR, K_BYTES_REQ, K_BYTES_ALLOC, K_GFP_FLAGS),
    Kind.KFREE: (K_CALL_SITE, K_PTR),
    Kind.CACHE_ALLOC: (K_CALL_SITE, K_PTR, K_BYTES_REQ, K_BYTES_ALLOC, K_GFP_FLAGS),
    Kind.CACHE_FREE: (K_CALL_SITE, K_PTR, K_NAME),
}
"""Order in which the frequent events print their fields: tried first, never relied on."""


def literal_table() -> NDArray[np.int64]:
    """Table of the literals, (number, 16): up to 7 pairs (word, mask), 0, length."""
    table = np.zeros((len(LITERALS), 16), np.int64)
    for number, literal in enumerate(LITERALS):
        text = literal.encode()
        size = -len(text) % 8 + len(text)
        table[number, 0 : size // 4 : 2] = np.frombuffer(text.ljust(size, b"\0"), np.int64)
        mask = (b"\xff" * len(text)).ljust(size, b"\0")
        table[number, 1 : size // 4 : 2] = np.frombuffer(mask, np.int64)
        table[number, 15] = len(text)
    return table


def guess_table() -> NDArray[np.int64]:
    """Keys of each kind in the order in which they come, flat, GUESSES per kind; 0: no guess."""
    table = np.zeros((len(Kind) + 1, GUESSES), np.int64)
    for kind, keys in ORDER_OF_KEYS.items():
        table[kind, : len(keys)] = keys
    return table.reshape(-1)
