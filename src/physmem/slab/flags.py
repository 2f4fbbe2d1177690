# SPDX-License-Identifier: GPL-2.0-or-later
"""Flags of a cache, as names and as bits: what a caller asks for, what a kernel adds.

Linux: include/linux/slab.h, mm/slab.h (2.6.24, 6.1, 6.12)
"""

from physmem.lib.errors import BadRequestError

SLAB_CONSISTENCY_CHECKS = 0x100
SLAB_RED_ZONE = 0x400
SLAB_POISON = 0x800
SLAB_KMALLOC = 0x1000
SLAB_HWCACHE_ALIGN = 0x2000
SLAB_CACHE_DMA = 0x4000
SLAB_CACHE_DMA32 = 0x8000
SLAB_STORE_USER = 0x10000
SLAB_RECLAIM_ACCOUNT = 0x20000
SLAB_PANIC = 0x40000
SLAB_TYPESAFE_BY_RCU = 0x80000
SLAB_MEM_SPREAD = 0x100000
SLAB_TRACE = 0x200000
SLAB_NOLEAKTRACE = 0x800000
SLAB_NO_MERGE = 0x1000000
SLAB_FAILSLAB = 0x2000000
SLAB_ACCOUNT = 0x4000000
SLAB_NO_USER_FLAGS = 0x10000000
CFLGS_OFF_SLAB = 0x80000000
"""2.6.24, internal: the management of a slab lies outside of it."""

DEBUG_FLAGS = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE
DEBUG_METADATA = SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER
"""Flags that make an object larger."""

NAMES = {
    name: value
    for name, value in globals().items()
    if name.startswith("SLAB_") and isinstance(value, int)
}
NAMES["SLAB_DESTROY_BY_RCU"] = SLAB_TYPESAFE_BY_RCU
NAMES["SLAB_TEMPORARY"] = SLAB_RECLAIM_ACCOUNT
_CREATE = (
    DEBUG_FLAGS
    | SLAB_HWCACHE_ALIGN
    | SLAB_CACHE_DMA
    | SLAB_CACHE_DMA32
    | SLAB_RECLAIM_ACCOUNT
    | SLAB_PANIC
    | SLAB_TYPESAFE_BY_RCU
    | SLAB_MEM_SPREAD
    | SLAB_NOLEAKTRACE
    | SLAB_NO_MERGE
    | SLAB_FAILSLAB
    | SLAB_ACCOUNT
    | SLAB_NO_USER_FLAGS
    | SLAB_KMALLOC
)
LETTERS = {
    "F": SLAB_CONSISTENCY_CHECKS,
    "Z": SLAB_RED_ZONE,
    "P": SLAB_POISON,
    "U": SLAB_STORE_USER,
    "T": SLAB_TRACE,
    "A": SLAB_FAILSLAB,
}
"""Letters of the boot option slub_debug."""


def parse_flags(flags: str | int) -> int:
    """Bits of cache flags: a number, or names joined by '|' (with or without SLAB_).

    Raises
    ------
    BadRequestError
        An unknown name or a bit that no caller may set.

    Examples
    --------
    >>> hex(parse_flags("SLAB_HWCACHE_ALIGN|RECLAIM_ACCOUNT"))
    '0x22000'
    """
    if isinstance(flags, str):
        bits = 0
        for raw in flags.split("|"):
            word = raw.strip()
            name = word if word.startswith("SLAB_") else f"SLAB_{word}"
            if word in {"", "0"}:
                continue
            if name not in NAMES:
                known = ", ".join(sorted(NAMES))
                raise BadRequestError(f"{word!r} is no cache flag; known are {known}")
            bits |= NAMES[name]
    else:
        bits = int(flags)
    if bits & ~_CREATE:
        raise BadRequestError(f"cache flags {bits & ~_CREATE:#x}: no caller may set these bits")
    return bits


def flags_text(bits: int) -> str:
    """Names of the bits, joined by '|'.

    Examples
    --------
    >>> flags_text(0x2000 | 0x20000)
    'SLAB_HWCACHE_ALIGN|SLAB_RECLAIM_ACCOUNT'
    """
    names = {value: name for name, value in reversed(NAMES.items())}
    return "|".join(name for value, name in sorted(names.items()) if bits & value) or "0"
