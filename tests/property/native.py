# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of the tests: what Python cannot ask a machine for, and random work at full speed."""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.alloc_flags import ALLOC_NO_WATERMARKS
from physmem.mm.entry import do_free_pages
from physmem.mm.features import BULK as HAS_BULK
from physmem.mm.gfp_bits import GFP_ACCOUNT_BIT
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import (
    alloc_pages,
    bulk_page,
    bulk_zone,
    first_zoneref,
    get_page_from_freelist,
    gfp_zone,
)
from physmem.mm.page_free import free_commit, free_pages, free_prepare, page_zone
from physmem.mm.pcp import drain_pages_zone, drain_zone_pages

# Fields of `ctl`.
SEED = 0  # state of the generator
NR_HELD = 1
TARGET = 2  # frames that shall be in use, at the moment
USED = 3  # frames in use
DONE = 4  # operations
GOT = 5  # blocks allocated
FAILED = 6  # requests that got nothing
FREED = 7
WRONG = 8  # step at which an answer made no sense, plus 1; 0: never
FRAME = 9  # the frame that it was about
NR_CTL = 10

# Kinds of operations in a log; each takes LOG_WIDTH numbers: kind, what was asked for, the answer.
ALLOC, BULK, FREE, DRAIN_BATCH, DRAIN_ALL = range(5)
LOG_WIDTH = 6


@kernel
def alloc_freely(h: int, order: int, gfp: int, cpu: int) -> int:
    """Allocate past the watermarks, in one walk."""
    m = memory_at(h)
    preferred = first_zoneref(m, 0, gfp_zone(m, gfp))
    return get_page_from_freelist(m, order, gfp, ALLOC_NO_WATERMARKS, preferred, cpu)


@kernel
def alloc_busy(h: int, order: int, gfp: int, nid: int, cpu: int, busy: int) -> int:
    """Allocate as an interrupt does that may find the per-CPU lists locked."""
    return alloc_pages(memory_at(h), order, gfp, nid, cpu, busy)


@kernel
def free_trusted(h: int, pfn: int, order: int, cpu: int, busy: bool) -> bool:
    """Free as a kernel does, which believes its callers: a part of a block, too."""
    return free_pages(memory_at(h), pfn, order, cpu, busy)


@kernel
def prepare(h: int, pfn: int, order: int) -> None:
    """First half of a free."""
    m = memory_at(h)
    free_prepare(m.zones[page_zone(m, pfn)], pfn, order)


@kernel
def commit(h: int, pfn: int, order: int, cpu: int) -> None:
    """Second half of a free."""
    m = memory_at(h)
    free_commit(m.zones[page_zone(m, pfn)], pfn, order, cpu, False)


@kernel
def draw(ctl: Array[i64], below: int) -> int:
    """Next random number of [0, below): the linear generator of 48 bits, its upper half."""
    ctl[SEED] = (ctl[SEED] * 25214903917 + 11) & 0xFFFFFFFFFFFF
    return (ctl[SEED] >> 16) % below


@kernel
def note(
    log: Array[i64], step: int, kind: int, a: int, b: int, c: int, d: int, answer: int
) -> None:
    """Write an operation to the log while there is room."""
    at = step * LOG_WIDTH
    if at + LOG_WIDTH <= len(log):
        log[at] = kind
        log[at + 1] = a
        log[at + 2] = b
        log[at + 3] = c
        log[at + 4] = d
        log[at + 5] = answer


@kernel
def keep(ctl: Array[i64], held: Array[i64], owned: Array[i64], pfn: int, order: int) -> bool:
    """Remember a block as ours; False if one of its frames is ours already."""
    for frame in range(pfn, pfn + (1 << order)):
        if frame >= len(owned) or owned[frame]:
            ctl[FRAME] = frame
            return False
        owned[frame] = 1
    held[ctl[NR_HELD]] = pfn << 8 | order
    ctl[NR_HELD] += 1
    ctl[USED] += 1 << order
    ctl[GOT] += 1
    return True


@kernel
def random_order(ctl: Array[i64], max_order: int, pageblock_order: int) -> int:
    """Mostly single frames, sometimes a huge page."""
    dice = draw(ctl, 64)
    if dice < 44:
        return 0
    if dice < 58:
        return 1 + draw(ctl, 3)
    if dice < 61:
        return min(pageblock_order, max_order)
    return draw(ctl, max_order + 1)


@kernel
def work(
    h: int,
    steps: int,
    ctl: Array[i64],
    held: Array[i64],
    owned: Array[i64],
    requests: Array[i64],
    log: Array[i64],
) -> int:
    """Do random operations; how many were done: less than `steps` if an answer made no sense.

    `requests`: gfp flags to choose from. Memory fills up and empties again and again.
    """
    m = memory_at(h)
    max_order = m.zones[0].max_order
    for step in range(steps):
        if draw(ctl, 4096) == 0:
            ctl[TARGET] = draw(ctl, len(owned) + len(owned) // 8)
        dice = draw(ctl, 256)
        cpu = draw(ctl, m.nr_cpus)
        ctl[DONE] += 1
        wants = ctl[USED] < ctl[TARGET]
        if dice == 0:
            number = draw(ctl, m.nr_zones)
            drain_zone_pages(m.zones[number], cpu)
            note(log, step, DRAIN_BATCH, number, cpu, 0, 0, 0)
        elif dice == 1 and draw(ctl, 8) == 0:
            number = draw(ctl, m.nr_zones)
            drain_pages_zone(m.zones[number], cpu)
            note(log, step, DRAIN_ALL, number, cpu, 0, 0, 0)
        elif (draw(ctl, 8) < 5) == wants and ctl[NR_HELD] + 32 < len(held):
            gfp = requests[draw(ctl, len(requests))]
            nid = m.cpu_node[cpu]
            if draw(ctl, 16) == 0:
                nid = draw(ctl, m.nr_nodes)
            if dice < 10:
                count = 2 + draw(ctl, 20)
                number = NONE
                got = 0
                if not m.features & HAS_BULK:
                    while got < count:
                        pfn = alloc_pages(m, 0, gfp, nid, cpu, 0)
                        if pfn == NONE:
                            break
                        if not keep(ctl, held, owned, pfn, 0):
                            ctl[WRONG] = ctl[DONE]
                            return step
                        got += 1
                    note(log, step, BULK, count, gfp, nid, cpu, got)
                    continue
                if not gfp & GFP_ACCOUNT_BIT:
                    number = bulk_zone(m, count, gfp, nid)
                while number != NONE and got < count:
                    pfn = bulk_page(m, number, gfp, cpu)
                    if pfn == NONE:
                        break
                    if not keep(ctl, held, owned, pfn, 0):
                        ctl[WRONG] = ctl[DONE]
                        return step
                    got += 1
                if got == 0:  # as callers do: one by the ordinary way
                    pfn = alloc_pages(m, 0, gfp, nid, cpu, 0)
                    if pfn != NONE:
                        if not keep(ctl, held, owned, pfn, 0):
                            ctl[WRONG] = ctl[DONE]
                            return step
                        got = 1
                note(log, step, BULK, count, gfp, nid, cpu, got)
            else:
                order = random_order(ctl, max_order, m.pageblock_order)
                pfn = alloc_pages(m, order, gfp, nid, cpu, 0)
                if pfn == NONE:
                    ctl[FAILED] += 1
                elif not keep(ctl, held, owned, pfn, order):
                    ctl[WRONG] = ctl[DONE]
                    return step
                note(log, step, ALLOC, order, gfp, nid, cpu, pfn)
        elif ctl[NR_HELD] > 0:
            at = draw(ctl, ctl[NR_HELD])
            pfn = held[at] >> 8
            order = held[at] & 0xFF
            ctl[NR_HELD] -= 1
            held[at] = held[ctl[NR_HELD]]
            for frame in range(pfn, pfn + (1 << order)):
                owned[frame] = 0
            if do_free_pages(h, pfn, order, cpu) != 0:
                ctl[FRAME] = pfn
                ctl[WRONG] = ctl[DONE]
                return step
            ctl[USED] -= 1 << order
            ctl[FREED] += 1
            note(log, step, FREE, pfn, order, cpu, 0, 0)
    return steps
