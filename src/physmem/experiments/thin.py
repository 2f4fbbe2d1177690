# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of the fragmenters: keep some frames of each aligned block, free the others."""

from physmem.experiments.random32 import Random, below
from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64, u8
from physmem.mm.free_area import run_length
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import HEAD_IN_USE, HEAD_ON_PCP, NR_PAGE_ORDERS
from physmem.mm.page_free import free_pages, page_zone


@kernel
def choose_kept(random: Random, places: Array[i64], count: int, kept: int) -> None:
    """Bring a random choice of `kept` of the first `count` places to the front."""
    for at in range(kept):
        other = at + below(random, count - at)
        place = places[at]
        places[at] = places[other]
        places[other] = place


@kernel
def thin_blocks(
    h: int,
    span: int,
    settings: Array[i64],
    random: Array[Random],
    places: Array[i64],
    whole: Array[u8],
) -> int:
    """Free all but some frames of each block of 2**span frames; how many were freed.

    Only single frames of the last allocation are looked at. `settings`: least and most frames to
    keep, then 1 for every second frame instead of random ones, then how many blocks keep any
    (at least the first so many of them, the rest is freed whole). `whole` is set for blocks that
    were held with all their frames; only these are chosen from.
    """
    m = memory_at(h)
    freed = 0
    chosen = 0
    for block in range(m.max_pfn >> span):
        start = block << span
        count = 0
        number = page_zone(m, start)
        if number >= 0:
            zone = m.zones[number]
            for pfn in range(start, min(start + (1 << span), zone.end_pfn)):
                if zone.mem_map[pfn].order == HEAD_IN_USE:  # order 0, handed out by the allocator
                    places[count] = pfn
                    count += 1
        if count == 0:
            continue
        whole[block] = int(count == 1 << span)
        kept = 0
        if whole[block] and chosen < settings[3]:
            chosen += 1
            kept = settings[0]
            if settings[1] > settings[0]:
                kept += below(random[0], settings[1] - settings[0] + 1)
            if settings[2]:
                kept = count // 2
                for at in range(kept):
                    places[at] = start + 2 * at
                for at in range(kept):
                    places[kept + at] = start + 2 * at + 1
            else:
                choose_kept(random[0], places, count, kept)
        for at in range(kept, count):
            free_pages(m, places[at], 0, 0, False)
            freed += 1
    return freed


@kernel
def free_by_order(h: int, span: int, whole: Array[u8], counts: Array[i64]) -> None:
    """Count free frames by the order of their block, in the marked blocks of 2**span frames."""
    m = memory_at(h)
    for number in range(m.nr_zones):
        zone = m.zones[number]
        pfn = zone.start_pfn
        while pfn < zone.end_pfn:
            mark = int(zone.mem_map[pfn].order)
            if mark & HEAD_IN_USE:
                pfn += 1 << (mark & ~HEAD_IN_USE)
            elif mark & HEAD_ON_PCP:
                pfn += 1 << (mark & ~HEAD_ON_PCP)
            elif mark:
                frames = run_length(zone, pfn) << (mark - 1)
                if mark <= NR_PAGE_ORDERS and whole[pfn >> span]:
                    counts[mark - 1] += frames
                pfn += frames
            else:
                pfn += 1
