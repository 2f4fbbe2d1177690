# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that Python calls: the machine comes as the address of its `Memory` record."""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.features import BULK, PCP_AUTO_TUNING
from physmem.mm.hand_over import free_boot_pages
from physmem.mm.hot_cold import free_hot_cold_page
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import alloc_pages, bulk_page, bulk_zone
from physmem.mm.page_check import FREED, OUTSIDE, enclosing_block, why_not_free
from physmem.mm.page_free import free_commit, free_prepare, page_zone
from physmem.mm.pcp import decay_pcp_high, drain_pages_zone, drain_zone_pages
from physmem.mm.reserve import setup_migrate_reserve

BAD_ARGUMENT = -2
"""No such order, CPU or node."""


@kernel
def do_alloc_pages(h: int, order: int, gfp: int, nid: int, cpu: int) -> int:
    """`alloc_pages` from Python, on the CPU's own node if `nid` is NONE; pfn, NONE or BAD_ARGUMENT.

    The arguments are checked here because it costs less here.
    """
    m = memory_at(h)
    if cpu < 0 or cpu >= m.nr_cpus or order < 0 or order > m.zones[0].max_order:
        return BAD_ARGUMENT
    if nid == NONE:
        nid = m.cpu_node[cpu]
    elif nid < 0 or nid >= len(m.zonelist) // m.nr_zones:
        return BAD_ARGUMENT
    return alloc_pages(m, order, gfp, nid, cpu, 0)


@kernel
def do_free_pages(h: int, pfn: int, order: int, cpu: int) -> int:
    """`free_pages` from Python: FREED, BAD_ARGUMENT, or why nothing was done."""
    m = memory_at(h)
    if cpu < 0 or cpu >= m.nr_cpus or order < 0 or order > m.zones[0].max_order:
        return BAD_ARGUMENT
    number = page_zone(m, pfn)
    if number == NONE:
        return OUTSIDE
    zone = m.zones[number]
    reason = why_not_free(zone, pfn, order)
    if reason == FREED:
        free_prepare(zone, pfn, order)
        free_commit(zone, pfn, order, cpu, False)
    return reason


@kernel
def do_free_cold_page(h: int, pfn: int, cpu: int) -> int:
    """`free_pages` of one frame that is not in any cache: as `do_free_pages` answers."""
    m = memory_at(h)
    if cpu < 0 or cpu >= m.nr_cpus:
        return BAD_ARGUMENT
    number = page_zone(m, pfn)
    if number == NONE:
        return OUTSIDE
    zone = m.zones[number]
    reason = why_not_free(zone, pfn, 0)
    if reason == FREED:
        free_prepare(zone, pfn, 0)
        zone.mem_map[pfn].flags = 0
        free_hot_cold_page(zone, pfn, 0, cpu, True, False)
    return reason


@kernel
def do_free_boot_pages(h: int, pfns: Array[i64], orders: Array[i64], cpu: int) -> int:
    """`free_boot_pages` from Python: the boot allocator hands its free blocks over."""
    return free_boot_pages(memory_at(h), pfns, orders, cpu)


@kernel
def do_setup_reserve(h: int, number: int) -> None:
    """`setup_migrate_reserve` from Python, of one zone."""
    setup_migrate_reserve(memory_at(h).zones[number])


@kernel
def do_find_block(h: int, pfn: int) -> int:
    """First frame of the allocated block that holds a frame in use, as far as known."""
    m = memory_at(h)
    number = page_zone(m, pfn)
    return pfn if number == NONE else enclosing_block(m.zones[number], pfn)


@kernel
def do_find_zone(h: int, pfn: int) -> int:
    """Zone of a frame, or NONE."""
    return page_zone(memory_at(h), pfn)


@kernel
def do_alloc_pages_bulk(h: int, gfp: int, nid: int, cpu: int, out: Array[i64]) -> int:
    """`alloc_pages_bulk` from Python: fill `out`; how many frames were obtained.

    A kernel without BULK serves one request after another.
    """
    m = memory_at(h)
    if not m.features & BULK:
        for i in range(len(out)):
            out[i] = alloc_pages(m, 0, gfp, nid, cpu, 0)
            if out[i] == NONE:
                return i
        return len(out)
    number = bulk_zone(m, len(out), gfp, nid)
    if number == NONE:
        return 0
    for i in range(len(out)):
        pfn = bulk_page(m, number, gfp, cpu)
        if pfn == NONE:
            return i
        out[i] = pfn
    return len(out)


@kernel
def do_drain(h: int, number: int, cpu: int, everything: bool) -> None:
    """Drain one CPU's lists of one zone: one batch, or everything."""
    m = memory_at(h)
    if everything:
        drain_pages_zone(m.zones[number], cpu)
    else:
        drain_zone_pages(m.zones[number], cpu)


@kernel
def do_tick(h: int, cpu: int) -> None:
    """What a second changes on one CPU: per-CPU lists that size themselves decay, of each zone.

    Linux: refresh_cpu_vm_stats(), mm/vmstat.c (6.12)
    """
    m = memory_at(h)
    if m.features & PCP_AUTO_TUNING:
        for number in range(m.nr_zones):
            decay_pcp_high(m.zones[number], cpu)
