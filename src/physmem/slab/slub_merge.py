# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches of equal shape become one; boot options switch debugging on.

Linux: find_mergeable(), mm/slab_common.c; kmem_cache_flags(), mm/slub.c (6.1)
"""

from typing import TYPE_CHECKING

from physmem.lib.errors import BadRequestError
from physmem.slab.flags import (
    DEBUG_METADATA,
    LETTERS,
    SLAB_ACCOUNT,
    SLAB_CACHE_DMA,
    SLAB_CACHE_DMA32,
    SLAB_CONSISTENCY_CHECKS,
    SLAB_FAILSLAB,
    SLAB_NO_MERGE,
    SLAB_NO_USER_FLAGS,
    SLAB_NOLEAKTRACE,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TRACE,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.slub_config import SlubConfig
from physmem.slab.slub_sizes import calculate_alignment, get_order, slub_geometry, up

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slub import SlubAllocator

NEVER_MERGE = (
    SLAB_RED_ZONE
    | SLAB_POISON
    | SLAB_STORE_USER
    | SLAB_TRACE
    | SLAB_TYPESAFE_BY_RCU
    | SLAB_NOLEAKTRACE
    | SLAB_FAILSLAB
    | SLAB_NO_MERGE
)
MERGE_SAME = SLAB_RECLAIM_ACCOUNT | SLAB_CACHE_DMA | SLAB_CACHE_DMA32 | SLAB_ACCOUNT
ALL_CHECKS = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER


def find_mergeable(
    slub: "SlubAllocator", size: int, align: int, flags: int, *, ctor: bool
) -> "Cache | None":
    """Oldest cache that can serve, or None. Linux: find_mergeable(), mm/slab_common.c (6.1)"""
    config = slub.config
    if not config.merge or ctor or flags & NEVER_MERGE:
        return None
    size = up(size, config.word)
    align = calculate_alignment(config, flags, align, size)
    size = up(size, align)
    for cache in reversed(slub.caches):
        stride = int(slub.tables.kmem_caches[cache.number]["size"])
        if (
            cache.refcount >= 0
            and not cache.flags & NEVER_MERGE
            and cache.ctor is None
            and size <= stride
            and flags & MERGE_SAME == cache.flags & MERGE_SAME
            and stride % align == 0
            and stride - size < config.word
        ):
            return cache
    return None


def _block(letters: str) -> tuple[int, bool]:
    """Flags of one block of slub_debug, and whether O is among its letters."""
    if letters == "-":
        return 0, False
    if not letters:
        return ALL_CHECKS, False
    bits, higher = 0, False
    for letter in letters.upper():
        if letter == "O":
            higher = True
        elif letter in LETTERS:
            bits |= LETTERS[letter]
        else:
            known = ", ".join((*LETTERS, "O", "-"))
            raise BadRequestError(f"slub_debug letter {letter!r}: known are {known}")
    return bits, higher


def debug_flags(config: SlubConfig, name: str, size: int, flags: int) -> int:
    """Flags of a cache after the boot option slub_debug.

    Examples
    --------
    >>> hex(debug_flags(SlubConfig(debug="ZP,kmalloc-*;U"), "kmalloc-64", 64, 0))
    '0xc00'

    Linux: kmem_cache_flags(), parse_slub_debug_flags(), mm/slub.c (6.1)
    """
    if config.debug is None or flags & SLAB_NO_USER_FLAGS:
        return flags
    everywhere, higher = 0, False
    for text in config.debug.split(";"):
        letters, *names = text.split(",")
        bits, orders = _block(letters.strip())
        if not names:
            everywhere |= bits
            higher = higher or orders
            continue
        for pattern in names:
            word = pattern.strip()
            hit = name.startswith(word[:-1]) if word.endswith("*") else name == word
            if hit:
                return flags | bits
    if flags & SLAB_NOLEAKTRACE:
        everywhere &= ~SLAB_STORE_USER
    if higher and everywhere & DEBUG_METADATA:
        plain = get_order(up(size, config.word), config.page_shift)
        stride = slub_geometry(config, size, 0, flags | everywhere).size
        if get_order(stride, config.page_shift) > plain:
            everywhere &= ~DEBUG_METADATA
    return flags | everywhere
