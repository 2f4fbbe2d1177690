# SPDX-License-Identifier: GPL-2.0-or-later
"""Geometry of a SLAB cache: stride, order, objects, where the management lies, colours.

Linux: kmem_cache_create(), cache_estimate(), calculate_slab_order(), enable_cpucache(),
mm/slab.c (2.6.24)
"""

from dataclasses import dataclass

from physmem.lib.errors import BadRequestError
from physmem.slab.flags import (
    SLAB_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.slab_config import SlabConfig, up

BUFCTL = 4
"""Bytes of one link of the free chain."""
SLAB_LIMIT = (1 << 32) - 4


@dataclass(frozen=True)
class SlabGeometry:
    """Everything about a cache that follows from its size, alignment and flags.

    Attributes
    ----------
    buffer_size, obj_size : stride; bytes asked for (they differ with debugging)
    obj_offset : bytes in front of the object in its stride
    align : of the objects
    num, gfporder : objects and order of a slab
    off_slab : management outside of the slab
    moved_on : it was to be outside, but the left-over had room for it
    slab_size : bytes of the management
    left_over : bytes of a slab that nothing uses
    colour, colour_off : how many colours, and bytes from one to the next
    flags : SLAB_* bits after the rules of debugging
    """

    buffer_size: int
    obj_size: int
    obj_offset: int
    align: int
    num: int
    gfporder: int
    off_slab: bool
    moved_on: bool
    slab_size: int
    left_over: int
    colour: int
    colour_off: int
    flags: int


def cache_estimate(
    config: SlabConfig, order: int, size: int, align: int, *, off_slab: bool
) -> tuple[int, int]:
    """Objects of a slab and bytes left over. Linux: cache_estimate(), mm/slab.c (2.6.24)"""
    slab = config.page << order
    if off_slab:
        num = min(slab // size, SLAB_LIMIT)
        return num, slab - num * size
    head = config.sizeof_slab
    num = (slab - head) // (size + BUFCTL)
    if up(head + BUFCTL * num, align) + num * size > slab:
        num -= 1
    num = min(num, SLAB_LIMIT)
    return num, slab - num * size - up(head + BUFCTL * num, align)


def calculate_slab_order(
    config: SlabConfig, size: int, align: int, flags: int, *, off_slab: bool
) -> tuple[int, int, int]:
    """Objects, order, bytes left over; 0 objects: impossible.

    Linux: calculate_slab_order(), mm/slab.c (2.6.24)
    """
    found = (0, 0, 0)
    for order in range(config.kmalloc_max_order + 1):
        num, left = cache_estimate(config, order, size, align, off_slab=off_slab)
        if not num:
            continue
        if off_slab and num > (size - config.sizeof_slab) // BUFCTL:
            break
        found = (num, order, left)
        if (
            flags & SLAB_RECLAIM_ACCOUNT
            or order >= config.break_gfp_order
            or left * 8 <= config.page << order
        ):
            break
    return found


def _debug_flags(config: SlabConfig, size: int, flags: int) -> int:
    """Linux: kmem_cache_create(), mm/slab.c (2.6.24, DEBUG_SLAB)."""
    if size < config.page or (size - 1).bit_length() == (size - 1 + 24).bit_length():
        flags |= SLAB_RED_ZONE | SLAB_STORE_USER
    if not flags & SLAB_TYPESAFE_BY_RCU:
        flags |= SLAB_POISON
    return flags


def slab_geometry(
    config: SlabConfig, size: int, align: int = 0, flags: int = 0, *, early: bool = False
) -> SlabGeometry:
    """Geometry of a cache.

    Parameters
    ----------
    size, align : int
        Bytes, as the creator asks.
    flags : int
        SLAB_* bits.
    early : bool
        One of the first two general caches, which cannot keep their management elsewhere.

    Raises
    ------
    BadRequestError
        Smaller than a word, larger than the largest general cache, or no order holds an object.

    Examples
    --------
    >>> g = slab_geometry(SlabConfig(), 500, flags=0x2000)
    >>> g.buffer_size, g.num, g.off_slab, g.colour
    (512, 7, False, 6)
    """
    if not config.word <= size <= config.kmalloc_max_size:
        raise BadRequestError(
            f"size {size}: a cache holds objects of {config.word} .. {config.kmalloc_max_size}"
        )
    word = config.word
    if config.debug:
        flags = _debug_flags(config, size, flags)
    else:
        flags &= ~(SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER)
    size = up(size, word)
    ralign = word
    if flags & SLAB_HWCACHE_ALIGN:
        ralign = config.line
        while size <= ralign // 2:
            ralign //= 2
    if flags & SLAB_STORE_USER:
        ralign = word
    if flags & SLAB_RED_ZONE:
        ralign = 8
        size = up(size, 8)
    ralign = max(ralign, align)
    if ralign > 8:
        flags &= ~(SLAB_RED_ZONE | SLAB_STORE_USER)
    obj_size, obj_offset = size, 0
    if flags & SLAB_RED_ZONE:
        obj_offset += 8
        size += 16
    if flags & SLAB_STORE_USER:
        size += 8 if flags & SLAB_RED_ZONE else word
    off_slab = size >= config.page >> 3 and not early
    size = up(size, ralign)
    num, order, left = calculate_slab_order(config, size, ralign, flags, off_slab=off_slab)
    if not num:
        raise BadRequestError(f"objects of {size} bytes: no order holds one")
    slab_size = up(BUFCTL * num + config.sizeof_slab, ralign)
    moved_on = off_slab and left >= slab_size
    if moved_on:
        off_slab = False
        left -= slab_size
    if off_slab:
        slab_size = BUFCTL * num + config.sizeof_slab
    colour_off = max(config.line, ralign)
    return SlabGeometry(
        buffer_size=size,
        obj_size=obj_size,
        obj_offset=obj_offset,
        align=ralign,
        num=num,
        gfporder=order,
        off_slab=off_slab,
        moved_on=moved_on,
        slab_size=slab_size,
        left_over=left,
        colour=left // colour_off,
        colour_off=colour_off,
        flags=flags,
    )


def cache_cache_geometry(config: SlabConfig) -> SlabGeometry:
    """Geometry of the cache of caches. Linux: kmem_cache_init(), mm/slab.c (2.6.24)"""
    line = config.line
    size = up(config.sizeof_kmem_cache, line)
    for order in range(config.kmalloc_max_order + 1):
        num, left = cache_estimate(config, order, size, line, off_slab=False)
        if num:
            return SlabGeometry(
                buffer_size=size,
                obj_size=config.sizeof_kmem_cache,
                obj_offset=0,
                align=line,
                num=num,
                gfporder=order,
                off_slab=False,
                moved_on=False,
                slab_size=up(BUFCTL * num + config.sizeof_slab, line),
                left_over=left,
                colour=left // line,
                colour_off=line,
                flags=0,
            )
    raise BadRequestError("NR_CPUS is so large that no slab holds a cache")


def cpucache_limits(config: SlabConfig, buffer_size: int) -> tuple[int, int, int]:
    """Limit, batchcount and sharedfactor of a cache by its stride.

    Linux: enable_cpucache(), mm/slab.c (2.6.24)
    """
    if buffer_size > 131072:
        limit = 1
    elif buffer_size > config.page:
        limit = 8
    elif buffer_size > 1024:
        limit = 24
    else:
        limit = 54 if buffer_size > 256 else 120
    if config.debug:
        limit = min(limit, 32)
    shared = 8 if buffer_size <= config.page and config.possible > 1 else 0
    return limit, (limit + 1) // 2, shared
