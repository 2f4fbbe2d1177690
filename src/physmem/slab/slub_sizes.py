# SPDX-License-Identifier: GPL-2.0-or-later
"""Geometry of a SLUB cache: stride, place of the free pointer, order, objects, partial limits.

Linux: calculate_sizes(), calculate_order(), set_cpu_partial(), mm/slub.c;
calculate_alignment(), mm/slab_common.c (6.1, 6.7+)
"""

from dataclasses import dataclass

from physmem.lib.errors import BadRequestError
from physmem.slab.flags import (
    DEBUG_FLAGS,
    SLAB_HWCACHE_ALIGN,
    SLAB_KMALLOC,
    SLAB_POISON,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.slub_config import SlubConfig, SlubFeature

MAX_OBJS_PER_PAGE = 32767
MIN_PARTIAL = 5
MAX_PARTIAL = 10
MAX_ORDER = 10
"""Largest order of the page allocator."""


@dataclass(frozen=True)
class SlubGeometry:
    """Everything about a cache that follows from its size, alignment and flags.

    Attributes
    ----------
    object_size, size : bytes asked for; stride
    inuse : bytes up to where metadata may begin
    offset : of the free pointer in the object
    align : of every object
    red_left_pad : bytes in front of the first object
    order, objects : of a slab; min_order, min_objects : when memory is short
    min_partial : slabs that a node keeps even when they are empty
    cpu_partial, cpu_partial_slabs : objects, slabs that a CPU's chain may hold
    """

    object_size: int
    size: int
    inuse: int
    offset: int
    align: int
    red_left_pad: int
    order: int
    objects: int
    min_order: int
    min_objects: int
    min_partial: int
    cpu_partial: int
    cpu_partial_slabs: int

    @property
    def pages(self) -> int:
        """Frames of a slab."""
        return 1 << self.order


def up(x: int, a: int) -> int:
    """Round up to a multiple."""
    return -(-x // a) * a


def get_order(size: int, page_shift: int = 12) -> int:
    """Least order whose block holds `size` bytes."""
    return max(0, (size - 1).bit_length() - page_shift)


def calculate_alignment(config: SlubConfig, flags: int, align: int, size: int) -> int:
    """Alignment of the objects of a cache. Linux: calculate_alignment(), mm/slab_common.c (6.1)"""
    if flags & SLAB_HWCACHE_ALIGN:
        ralign = config.line
        while size <= ralign // 2:
            ralign //= 2
        align = max(align, ralign)
    return up(max(align, config.slab_minalign), config.word)


def track_size(config: SlubConfig) -> int:
    """Bytes of the note about the last user of an object. Linux: struct track, mm/slub.c (6.1)"""
    if config.word == 8:
        return 32 if config.stackdepot else 24
    return 20 if config.stackdepot else 16


def request_size(config: SlubConfig) -> int:
    """Bytes of the noted size of a kmalloc. Linux: set_orig_size(), mm/slub.c (6.1, 6.12)"""
    return config.word if config.features & SlubFeature.LONG_REQUEST_SIZE else 4


def _fits(config: SlubConfig, size: int, order: int, fraction: int) -> bool:
    slab = config.page << order
    return slab % size <= slab // fraction


def _order_6_1(config: SlubConfig, size: int, least: int) -> int:
    """Linux: calculate_order(), calc_slab_order(), mm/slub.c (6.1)."""

    def calc(objects: int, most: int, fraction: int) -> int:
        if (config.page << config.min_order) // size > MAX_OBJS_PER_PAGE:
            return get_order(size * MAX_OBJS_PER_PAGE, config.page_shift) - 1
        first = max(config.min_order, get_order(objects * size, config.page_shift))
        for order in range(first, most + 1):
            if _fits(config, size, order, fraction):
                return order
        return most + 1

    objects = min(least, (config.page << config.max_order) // size)
    while objects > 1:
        for fraction in (16, 8, 4):
            order = calc(objects, config.max_order, fraction)
            if order <= config.max_order:
                return order
        objects -= 1
    order = calc(1, config.max_order, 1)
    if order <= config.max_order:
        return order
    return calc(1, MAX_ORDER, 1)


def _order_6_7(config: SlubConfig, size: int, least: int) -> int:
    """Linux: calculate_order(), mm/slub.c (6.7)."""
    objects = min(least, max((config.page << config.max_order) // size, 1))
    first = max(config.min_order, get_order(objects * size, config.page_shift))
    if (config.page << first) // size > MAX_OBJS_PER_PAGE:
        return get_order(size * MAX_OBJS_PER_PAGE, config.page_shift) - 1
    for fraction in (16, 8, 4, 2):
        for order in range(first, config.max_order + 1):
            if _fits(config, size, order, fraction):
                return order
    return get_order(size, config.page_shift)


def calculate_order(config: SlubConfig, size: int) -> int:
    """Order of the slabs of a cache with this stride; above MAX_ORDER: there can be no such cache.

    Examples
    --------
    >>> [calculate_order(SlubConfig(cpus=cpus), 512) for cpus in (1, 2, 8, 128)]
    [0, 1, 2, 3]
    """
    least = config.min_objects
    if not least:
        # with one CPU present, those that may come are counted
        cpus = config.cpus if config.cpus > 1 else config.possible_cpus
        least = 4 * (cpus.bit_length() + 1)
    if config.features & SlubFeature.LOWEST_WASTE_ORDER:
        return _order_6_7(config, size, least)
    return _order_6_1(config, size, least)


def slub_geometry(
    config: SlubConfig,
    size: int,
    align: int = 0,
    flags: int = 0,
    *,
    ctor: bool = False,
    freeptr_offset: int | None = None,
) -> SlubGeometry:
    """Geometry of a cache.

    Parameters
    ----------
    size, align : int
        Bytes, as the creator asks.
    flags : int
        SLAB_* bits.
    ctor : bool
        Objects are constructed: they keep their contents while free.
    freeptr_offset : int, optional
        The creator gives the free pointer a place in the object (6.12).

    Raises
    ------
    BadRequestError
        No order holds one object.

    Examples
    --------
    >>> g = slub_geometry(SlubConfig(cpus=2), 120)
    >>> g.size, g.order, g.objects, g.offset, g.cpu_partial_slabs
    (120, 0, 34, 56, 8)
    """
    word = config.word
    align = calculate_alignment(config, flags, align, size)
    stride = up(size, word)
    if flags & SLAB_RED_ZONE and stride == size:
        stride += word
    inuse = stride
    # the link must not lie where the red zone of a small request may begin
    tight = bool(config.features & SlubFeature.RED_ZONE_AT_REQUEST)
    kmalloc_noted = bool(flags & SLAB_STORE_USER and flags & SLAB_KMALLOC)
    outside = (
        (flags & SLAB_TYPESAFE_BY_RCU and freeptr_offset is None)
        or flags & SLAB_POISON
        or ctor
        or (flags & SLAB_RED_ZONE and (size < word or (kmalloc_noted and tight)))
    )
    if outside:
        offset = stride
        stride += word
    elif freeptr_offset is not None:
        offset = freeptr_offset
    else:
        offset = size // 2 // word * word
    if flags & SLAB_STORE_USER:
        stride += 2 * track_size(config)
        if kmalloc_noted:
            stride += request_size(config)
    red_left_pad = 0
    if flags & SLAB_RED_ZONE:
        red_left_pad = up(word, align)
        stride += word + red_left_pad
    stride = up(stride, align)
    order = calculate_order(config, stride)
    if order > MAX_ORDER:
        raise BadRequestError(f"objects of {size} bytes: no order of the page allocator holds one")
    objects = (config.page << order) // stride
    min_order = get_order(stride, config.page_shift)
    cpu_partial = _cpu_partial(config, stride, flags)
    return SlubGeometry(
        object_size=size,
        size=stride,
        inuse=inuse,
        offset=offset,
        align=align,
        red_left_pad=red_left_pad,
        order=order,
        objects=objects,
        min_order=min_order,
        min_objects=(config.page << min_order) // stride,
        min_partial=min(max((stride.bit_length() - 1) // 2, MIN_PARTIAL), MAX_PARTIAL),
        cpu_partial=cpu_partial,
        cpu_partial_slabs=-(-2 * cpu_partial // objects),
    )


def _cpu_partial(config: SlubConfig, size: int, flags: int) -> int:
    """Linux: set_cpu_partial(), mm/slub.c (6.1)."""
    if not config.cpu_partial or flags & DEBUG_FLAGS:
        return 0
    if size >= config.page:
        return 6
    if size >= 1024:
        return 24
    return 52 if size >= 256 else 120
