# SPDX-License-Identifier: GPL-2.0-or-later
"""The size classes of kmalloc and the kinds of memory they come in (SLUB).

Linux: mm/slab_common.c: kmalloc_info[], setup_kmalloc_cache_index_table(), create_kmalloc_caches();
include/linux/slab.h: kmalloc_type() (6.1, 6.12)
"""

from dataclasses import dataclass

from physmem.lib.errors import BadRequestError
from physmem.mm.gfp import __GFP_ACCOUNT, __GFP_DMA, __GFP_RECLAIMABLE
from physmem.slab.flags import (
    SLAB_ACCOUNT,
    SLAB_CACHE_DMA,
    SLAB_NO_MERGE,
    SLAB_RECLAIM_ACCOUNT,
)
from physmem.slab.slub_config import SlubConfig, SlubFeature
from physmem.slab.slub_sizes import get_order

KMALLOC_MAX_SIZE = 4 << 20
ZERO_SIZE_PTR = 16
NORMAL, CGROUP, RECLAIM, DMA = range(4)
TYPES = ("kmalloc", "kmalloc-cg", "kmalloc-rcl", "dma-kmalloc")
NR_CLASSES = 14
_SMALL = (3, 4, 5, 5, 6, 6, 6, 6, 1, 1, 1, 1, 7, 7, 7, 7, 2, 2, 2, 2, 2, 2, 2, 2)


@dataclass(frozen=True)
class KmallocClass:
    """One general cache: kind and index of its size class, and how it is created."""

    type: int
    index: int
    size: int
    align: int
    flags: int
    name: str
    mergeable: bool


def shift_high(config: SlubConfig) -> int:
    """Log2 of the largest size that is served from a cache."""
    return config.page_shift + 1


def index_table(config: SlubConfig) -> tuple[int, ...]:
    """Class of sizes up to 192, by (size - 1) // 8."""
    table = list(_SMALL)
    least = config.kmalloc_minalign
    low = least.bit_length() - 1
    for size in range(8, least, 8):
        table[(size - 1) // 8] = low
    if least >= 64:
        for size in range(72, 97, 8):
            table[(size - 1) // 8] = 7
    if least >= 128:
        for size in range(136, 193, 8):
            table[(size - 1) // 8] = 8
    return tuple(table)


def class_size(index: int) -> int:
    """Bytes of a class."""
    return {1: 96, 2: 192}.get(index, 1 << index)


def class_name(kind: int, size: int) -> str:
    """Name of a general cache.

    Examples
    --------
    >>> class_name(RECLAIM, 1024)
    'kmalloc-rcl-1k'
    """
    text = f"{size >> 10}k" if size >= 1024 else str(size)
    return f"{TYPES[kind]}-{text}"


def kmalloc_index(config: SlubConfig, size: int) -> int:
    """Class of a size that a cache serves.

    Linux: kmalloc_slab(), mm/slab_common.c (6.1)
    """
    return index_table(config)[(size - 1) // 8] if size <= 192 else (size - 1).bit_length()


def kmalloc_type(config: SlubConfig, gfp: int) -> int:
    """Kind of a request. Linux: kmalloc_type(), include/linux/slab.h (6.1)"""
    if gfp & __GFP_DMA and config.zone_dma:
        return DMA
    if not config.memcg:
        return RECLAIM if gfp & __GFP_RECLAIMABLE else NORMAL
    if gfp & __GFP_RECLAIMABLE:
        return RECLAIM
    return CGROUP if gfp & __GFP_ACCOUNT else NORMAL


def kmalloc_size_roundup(config: SlubConfig, size: int) -> int:
    """Bytes that a request of this size gets.

    Examples
    --------
    >>> [kmalloc_size_roundup(SlubConfig(), n) for n in (0, 1, 100, 8193)]
    [0, 8, 128, 16384]
    """
    if size < 0:
        raise BadRequestError(f"size {size}: not negative")
    if size == 0 or size >= (1 << 8 * config.word) - 1:
        return size
    if size > KMALLOC_MAX_SIZE and config.features & SlubFeature.ROUNDUP_KEEPS_HUGE:
        return size
    if size > 1 << shift_high(config):
        return config.page << get_order(size, config.page_shift)
    return class_size(kmalloc_index(config, size))


def kmalloc_classes(config: SlubConfig) -> list[KmallocClass]:
    """The general caches in the order in which a kernel creates them."""
    divisor = bool(config.features & SlubFeature.DIVISOR_ALIGN)
    late = bool(config.features & SlubFeature.CGROUP_LAST)
    kinds = [NORMAL]
    if config.memcg and not late:
        kinds.append(CGROUP)
    kinds.append(RECLAIM)
    if config.zone_dma:
        kinds.append(DMA)
    if config.memcg and late:
        kinds.append(CGROUP)
    flags = {NORMAL: 0, CGROUP: SLAB_ACCOUNT, RECLAIM: SLAB_RECLAIM_ACCOUNT, DMA: SLAB_CACHE_DMA}
    made = []
    for kind in kinds:
        for index in _indices(config, odd_first=late):
            size = class_size(index)
            least = config.kmalloc_minalign
            align = max(least, size & -size) if divisor or not size & (size - 1) else least
            mergeable = kind != NORMAL or not config.memcg
            extra = 0
            if not mergeable and config.features & SlubFeature.NO_MERGE_FLAG:
                extra = SLAB_NO_MERGE
            made.append(
                KmallocClass(
                    type=kind,
                    index=index,
                    size=size,
                    align=align,
                    flags=flags[kind] | extra,
                    name=class_name(kind, size),
                    mergeable=mergeable,
                )
            )
    return made


def _indices(config: SlubConfig, *, odd_first: bool) -> list[int]:
    least = config.kmalloc_minalign
    powers = list(range(least.bit_length() - 1, shift_high(config) + 1))
    odd = [index for index, limit in ((1, 32), (2, 64)) if least <= limit]
    if odd_first:
        return odd + powers
    order: list[int] = []
    for index in powers:
        order.append(index)
        if index == 6 and 1 in odd:
            order.append(1)
        if index == 7 and 2 in odd:
            order.append(2)
    return order
