# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU lists that size themselves: `high` moves between `high_min` and `high_max`.

Linux: nr_pcp_alloc(), nr_pcp_high(), nr_pcp_free(), free_unref_page_commit(), decay_pcp_high(),
mm/page_alloc.c (6.12); Linux 6.7 brought it

Allocations without frees let refills double and `high` grow; frees without allocations let drains
grow. While the zone is below its high watermark, or is reclaimed, `high` falls with each free; once
a second it falls by an eighth, and what the lists hold above it is drained.
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.alloc_flags import ALLOC_WMARK_HIGH
from physmem.mm.mmzone import (
    PAGE_ALLOC_COSTLY_ORDER,
    PCPF_FREE_HIGH_BATCH,
    PCPF_PREV_FREE_HIGH_ORDER,
    ZONE_BELOW_HIGH,
    ZONE_RECLAIM_ACTIVE,
    PerCpuPages,
    Zone,
)
from physmem.mm.watermark import wmark_pages, zone_watermark_ok

PCP_BATCH_SCALE_MAX = 5
DECAY_SHIFT = 3


@kernel
def clamp(value: int, low: int, high: int) -> int:
    """Value, or the bound that it is beyond; the upper one is asked first, should they be crossed.

    Linux: clamp(), include/linux/minmax.h (6.12)
    """
    if value >= high:
        return high
    return max(value, low)


@kernel
def nr_pcp_alloc(zone: Zone, pcp: PerCpuPages, order: int) -> int:
    """Blocks of a refill: doubles while only single frames are allocated; `high` grows with it.

    Linux: nr_pcp_alloc(), mm/page_alloc.c (6.12)
    """
    pcp.high = clamp(pcp.high, pcp.high_min, pcp.high_max)
    if pcp.high < pcp.batch:
        return 1
    batch = int(pcp.batch)
    if order == 0:
        batch <<= pcp.alloc_factor
    if pcp.high_min != pcp.high_max and not zone.zone_flags & ZONE_BELOW_HIGH:
        pcp.high = min(pcp.high + batch, pcp.high_max)
    if order == 0:
        most = max(pcp.high - pcp.count - pcp.batch, pcp.batch)
        if batch <= most and pcp.alloc_factor < PCP_BATCH_SCALE_MAX:
            pcp.alloc_factor += 1
        batch = min(batch, most)
    if batch > 1:
        batch = max(batch >> order, 2)
    return batch


@kernel
def tuned_pcp_high(zone: Zone, pcp: PerCpuPages, free_high: bool) -> int:
    """Frames at which the lists are drained now; moves `high`.

    Linux: nr_pcp_high(), mm/page_alloc.c (6.12)
    """
    high = clamp(pcp.high, pcp.high_min, pcp.high_max)
    pcp.high = high
    if high == 0:
        return 0
    if free_high:
        pcp.high = max(high - (pcp.batch << PCP_BATCH_SCALE_MAX), pcp.high_min)
        return 0
    lowered = max(high - max(pcp.free_count, pcp.batch), pcp.high_min)
    if zone.zone_flags & ZONE_RECLAIM_ACTIVE:
        pcp.high = lowered
        return min(pcp.batch << 2, lowered)
    if pcp.high_min == pcp.high_max:
        return high
    if zone.zone_flags & ZONE_BELOW_HIGH:
        pcp.high = lowered
        return max(pcp.count, pcp.high_min)
    if pcp.count >= high:
        needed = pcp.free_count + pcp.batch
        if high < needed:
            pcp.high = clamp(needed, pcp.high_min, pcp.high_max)
    return high


@kernel
def tuned_pcp_free(pcp: PerCpuPages, high: int, free_high: bool) -> int:
    """Frames to drain now: as many as were freed lately, within bounds.

    Linux: nr_pcp_free(), mm/page_alloc.c (6.12)
    """
    if free_high:
        return min(pcp.count, pcp.batch << PCP_BATCH_SCALE_MAX)
    if high < pcp.batch:
        return 1
    return clamp(pcp.free_count, pcp.batch, high - pcp.batch)


@inlined
def tune_on_free(pcp: PerCpuPages, order: int) -> bool:
    """Note a freed block that is on its list already; True: blocks of several frames pile up.

    Linux: free_unref_page_commit(), mm/page_alloc.c (6.12)
    """
    pcp.alloc_factor >>= 1
    free_high = False
    if 0 < order <= PAGE_ALLOC_COSTLY_ORDER:
        free_high = (
            pcp.free_count >= pcp.batch
            and pcp.flags & PCPF_PREV_FREE_HIGH_ORDER != 0
            and (pcp.flags & PCPF_FREE_HIGH_BATCH == 0 or pcp.count >= pcp.batch)
        )
        pcp.flags |= PCPF_PREV_FREE_HIGH_ORDER
    else:
        pcp.flags &= ~PCPF_PREV_FREE_HIGH_ORDER
    if pcp.free_count < pcp.batch << PCP_BATCH_SCALE_MAX:
        pcp.free_count += 1 << order
    return free_high


@kernel
def no_longer_below_high(zone: Zone) -> None:
    """After a drain: let `high` grow again if the zone is above its high watermark now.

    Linux: free_unref_page_commit(), mm/page_alloc.c (6.12)
    """
    if zone.zone_flags & ZONE_BELOW_HIGH:
        mark = wmark_pages(zone, ALLOC_WMARK_HIGH)
        if zone_watermark_ok(zone, 0, mark, zone.movable_idx, 0):
            zone.zone_flags &= ~ZONE_BELOW_HIGH


@kernel
def decayed_high(pcp: PerCpuPages) -> int:
    """Let `high` fall as it does once a second; frames above it, which are to be drained.

    Linux: decay_pcp_high(), mm/page_alloc.c (6.12)
    """
    if pcp.high > pcp.high_min:
        slowly = max(pcp.high - (pcp.high >> DECAY_SHIFT), pcp.high_min)
        pcp.high = max(pcp.count - (pcp.batch << PCP_BATCH_SCALE_MAX), slowly)
    return pcp.count - pcp.high
