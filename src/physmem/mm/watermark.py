# SPDX-License-Identifier: GPL-2.0-or-later
"""Watermarks: may a zone serve a request without going below its reserves?

Linux: zone_watermark_fast(), __zone_watermark_ok(), boost_watermark(), mm/page_alloc.c (6.1, 6.12)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.alloc_flags import (
    ALLOC_CMA,
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_HIGH,
    ALLOC_WMARK_MASK,
    ALLOC_WMARK_MIN,
)
from physmem.mm.features import BOOST_NEEDS_MIN_RESERVE, FREE_HIGHATOMIC, HALVING_WATERMARK
from physmem.mm.gfp_bits import GFP_ATOMIC_BIT
from physmem.mm.mmzone import (
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    NONE,
    WMARK_HIGH,
    WMARK_MIN,
    ZONE_BELOW_HIGH,
    Zone,
)


@kernel
def mult_frac(value: int, numerator: int, denominator: int) -> int:
    """Product value * numerator / denominator, in parts that cannot overflow.

    Linux: mult_frac(), include/linux/math.h
    """
    whole = value // denominator
    rest = value % denominator
    return whole * numerator + rest * numerator // denominator


@kernel
def wmark_pages(zone: Zone, level: int) -> int:
    """Watermark of a level with the boost. Linux: wmark_pages(), include/linux/mmzone.h (6.1)"""
    return zone.watermark[level] + zone.watermark_boost


@kernel
def boost_watermark(zone: Zone) -> bool:
    """Raise the watermarks for a while, so that kswapd frees whole pageblocks.

    Linux: boost_watermark(), mm/page_alloc.c (6.1); Linux commit 1c30844d2dfe (v5.0)
    """
    pageblock_nr_pages = 1 << zone.pageblock_order
    if zone.watermark_boost_factor == 0 or pageblock_nr_pages * 4 > zone.managed_pages:
        return False
    highest = mult_frac(zone.watermark[WMARK_HIGH], zone.watermark_boost_factor, 10000)
    if highest == 0:
        return False
    highest = max(highest, pageblock_nr_pages)
    zone.watermark_boost = min(zone.watermark_boost + pageblock_nr_pages, highest)
    return True


@kernel
def unusable_free(zone: Zone, order: int, alloc_flags: int) -> int:
    """Free frames that this attempt may not count on.

    Linux: __zone_watermark_unusable_free(), mm/page_alloc.c (6.1)
    """
    unusable = (1 << order) - 1
    if not alloc_flags & ALLOC_RESERVES:
        if zone.features & FREE_HIGHATOMIC:
            unusable += zone.nr_free_highatomic
        else:
            unusable += zone.nr_reserved_highatomic
    if zone.cma_type != NONE and not alloc_flags & ALLOC_CMA:
        unusable += zone.nr_free_cma
    return unusable


@kernel
def halving_watermark_ok(
    zone: Zone, order: int, mark: int, classzone_idx: int, alloc_flags: int
) -> bool:
    """Tell whether enough is free in blocks of each size: half of the mark for each order more.

    What 2.6.24 calls ALLOC_HIGH is ALLOC_MIN_RESERVE here, its ALLOC_HARDER is ALLOC_NON_BLOCK.

    Linux: zone_watermark_ok(), mm/page_alloc.c (2.6.24)
    """
    free = zone.nr_free_pages - (1 << order) + 1
    least = mark
    if alloc_flags & ALLOC_MIN_RESERVE:
        least -= least // 2
    if alloc_flags & ALLOC_NON_BLOCK:
        least -= least // 4
    if free <= least + zone.lowmem_reserve[classzone_idx]:
        return False
    for current in range(order):
        free -= zone.free_area[current].nr_free << current
        least >>= 1
        if free <= least:
            return False
    return True


@kernel
def zone_watermark_ok(
    zone: Zone, order: int, mark: int, highest_zoneidx: int, alloc_flags: int
) -> bool:
    """Tell whether the zone stays above `mark` and has a block that is large enough.

    Linux: __zone_watermark_ok(), mm/page_alloc.c (6.1.116+)
    """
    if zone.features & HALVING_WATERMARK:
        return halving_watermark_ok(zone, order, mark, highest_zoneidx, alloc_flags)
    free = zone.nr_free_pages - unusable_free(zone, order, alloc_flags)
    least = mark
    if alloc_flags & ALLOC_RESERVES:
        if alloc_flags & ALLOC_MIN_RESERVE:
            least -= least // 2
            if alloc_flags & ALLOC_NON_BLOCK:
                least -= least // 4
        if alloc_flags & ALLOC_OOM:
            least -= least // 2
    if free <= least + zone.lowmem_reserve[highest_zoneidx]:
        return False
    if order == 0:
        return True
    for current in range(order, zone.max_order + 1):
        if zone.free_area[current].nr_free == 0:
            continue
        for mt in range(MIGRATE_PCPTYPES):
            head = zone.free_area[current].head[mt]
            if zone.mem_map[head].next != head:
                return True
        if zone.cma_type != NONE and alloc_flags & ALLOC_CMA:
            head = zone.free_area[current].head[zone.cma_type]
            if zone.mem_map[head].next != head:
                return True
        if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
            head = zone.free_area[current].head[MIGRATE_HIGHATOMIC]
            if zone.mem_map[head].next != head:
                return True
    return False


@inlined
def zone_watermark_fast(
    zone: Zone, order: int, mark: int, highest_zoneidx: int, alloc_flags: int, gfp: int
) -> bool:
    """The watermark test of the zonelist walk: cheap for single frames, whole otherwise.

    Linux: zone_watermark_fast(), mm/page_alloc.c (6.1)
    """
    if order == 0:
        free = zone.nr_free_pages
        usable = free - min(free, unusable_free(zone, 0, alloc_flags))
        if usable > mark + zone.lowmem_reserve[highest_zoneidx]:
            return True
    if zone_watermark_ok(zone, order, mark, highest_zoneidx, alloc_flags):
        return True
    if zone.features & BOOST_NEEDS_MIN_RESERVE:
        excepted = alloc_flags & ALLOC_MIN_RESERVE
    else:
        excepted = gfp & GFP_ATOMIC_BIT
    if (
        order == 0
        and excepted
        and zone.watermark_boost
        and alloc_flags & ALLOC_WMARK_MASK == ALLOC_WMARK_MIN
    ):
        return zone_watermark_ok(
            zone, order, zone.watermark[WMARK_MIN], highest_zoneidx, alloc_flags
        )
    return False


@kernel
def above_high_mark(
    zone: Zone, order: int, highest_zoneidx: int, alloc_flags: int, gfp: int
) -> bool:
    """Test the high mark at a visit of an allocation, and note when it is not reached.

    Linux: get_page_from_freelist(), mm/page_alloc.c (6.12)
    """
    if zone.zone_flags & ZONE_BELOW_HIGH:
        return False
    mark = wmark_pages(zone, ALLOC_WMARK_HIGH)
    if zone_watermark_fast(zone, order, mark, highest_zoneidx, alloc_flags, gfp):
        return True
    zone.zone_flags |= ZONE_BELOW_HIGH
    return False
