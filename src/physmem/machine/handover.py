# SPDX-License-Identifier: GPL-2.0-or-later
"""The moment when a machine's own allocators take over what the boot allocator knows.

Linux: mm_init(), mem_init(), init/main.c (6.1); mem_init(), free_all_bootmem() (2.6.24)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from physmem.lib.errors import BadMachineError
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address
from physmem.machine.layout import Layout
from physmem.machine.load import fill_pageblocks, fill_pageset
from physmem.machine.origin import KernelTables, MemMapPiece, Reserved
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables, build_tables
from physmem.mm.entry import do_alloc_pages, do_free_boot_pages, do_setup_reserve
from physmem.mm.features import MANAGED_PAGES, RESERVE_BLOCKS
from physmem.mm.free_core import do_free_core, do_free_reserved
from physmem.mm.lists import init_lists, mark_rest_in_use
from physmem.mm.mmzone import NONE
from physmem.mm.state import State
from physmem.pgtable.source import GFP_PGTABLE_KERNEL


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What a boot hands over.

    Attributes
    ----------
    state : zones with all sizes and pageblock types, their lists empty
    layout : zones, CPUs, nodes
    blocks : (pfn int64, order uint8) arrays of free blocks, in the order in which they are freed
    to_head : single frames go through the hot list of CPU 0, larger blocks to HEAD (bootmem); else
        all but CMA areas go to TAIL (memblock)
    boot_pagesets : until all blocks are there, per-CPU lists keep nothing
    early : frames (start, end) that were reserved and are given back before pageblocks are set
        aside (kernels with RESERVE_BLOCKS)
    late : frames (start, end) that were reserved and are given back when the kernel is up
    reserved : what the page allocator does not get, without `late`
    mem_map : where the records of the frames lie
    grouping_disabled : too little memory to group pages by mobility
    zonelists : per node (node, zone index) in the order in which a request looks, as the boot has
        decided; empty: worked out from `layout`
    ram : the bytes that the boot allocator's users wrote to
    page_table : the kernel's page table in them
    early_tables : tables that the kernel takes from the page allocator as soon as the first
        `early_after` of `blocks` are there: level and virtual address of each
    """

    state: State
    layout: Layout
    blocks: Sequence[tuple[Any, Any]]
    to_head: bool = False
    boot_pagesets: bool = False
    early: Sequence[tuple[int, int]] = ()
    late: Sequence[tuple[int, int]] = ()
    reserved: Sequence[Reserved] = ()
    mem_map: Sequence[MemMapPiece] = ()
    grouping_disabled: bool = False
    zonelists: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    ram: Ram | None = field(default=None, compare=False)
    page_table: KernelTables | None = None
    early_tables: Sequence[tuple[str, int]] = ()
    early_after: int = 0


def hand_over(plan: Handover) -> tuple[Tables, list[int]]:
    """Tables of the running machine: every free block freed, everything else in use.

    Returns
    -------
    tuple
        the tables, and the frames of `early_tables`

    Raises
    ------
    BadMachineError
        A block lies outside the zones, or in two of them.
    """
    tables = build_tables(plan.state, plan.layout)
    _fill_zonelists(tables, plan)
    h = address(tables.memory)
    tables.zones["grouping_disabled"] = int(plan.grouping_disabled)
    ready(init_lists)(h, int(tables.memory[0]["max_pfn"]))
    for number, zone in enumerate(plan.state.zones):
        fill_pageblocks(tables, number, zone, plan.state)
        fill_pageset(tables, number, zone)
    if plan.boot_pagesets:
        for field_name, size in _BOOT_PAGESET.items():
            tables.pageset[field_name] = size
    free = _free_to_head if plan.to_head else _free_to_tail
    early: list[int] = []
    for number, (pfns, orders) in enumerate(plan.blocks):
        if number == plan.early_after:
            early = _take_early(tables, len(plan.early_tables))
        if _is_cma(plan.state, int(pfns[0])):
            # an initcall frees these to HEAD: the same lists as from the last one on to TAIL
            wrong = _free_to_tail(h, pfns[::-1].copy(), orders[::-1].copy())
        else:
            wrong = free(h, pfns, orders)
        if wrong is not None:
            raise BadMachineError(
                f"the boot allocator handed over frame {wrong:#x}, which is in no zone or in two;"
                " the firmware map and the nodes do not fit together"
            )
    if not early:
        early = _take_early(tables, len(plan.early_tables))
    taken = tables.mem_map[early].copy()
    tables.mem_map["order"][early] = 0
    for number, zone in enumerate(plan.state.zones):
        ready(mark_rest_in_use)(h, number)
        fill_pageset(tables, number, zone)
    tables.mem_map[early] = taken
    for start, end in plan.early:
        ready(do_free_reserved)(h, start, end, 0)
    if feature_bits(plan.layout.kernel) & RESERVE_BLOCKS:
        for number in range(len(tables.zones)):
            ready(do_setup_reserve)(h, number)
    for start, end in plan.late:
        ready(do_free_reserved)(h, start, end, 0)
    return tables, early


def _take_early(tables: Tables, count: int) -> list[int]:
    """Single frames for page tables, at a time when nothing is kept free and no CPU has lists.

    Linux: preallocate_vmalloc_pages(), arch/x86/mm/init_64.c (6.1)

    Raises
    ------
    BadMachineError
        There are not so many.
    """
    if not count:
        return []
    zones, pageset = tables.zones, tables.pageset
    marks, reserves = zones["watermark"].copy(), zones["lowmem_reserve"].copy()
    sizes = pageset[[*_BOOT_PAGESET]].copy()
    zones["watermark"], zones["lowmem_reserve"] = 0, 0
    for name, size in _BOOT_PAGESET.items():
        pageset[name] = size
    h, run = address(tables.memory), ready(do_alloc_pages)
    frames = [run(h, 0, GFP_PGTABLE_KERNEL, NONE, 0) for _ in range(count)]
    zones["watermark"], zones["lowmem_reserve"] = marks, reserves
    for name in _BOOT_PAGESET:
        pageset[name] = sizes[name]
    for name in _COUNTERS:
        pageset[name] = 0
    if min(frames) < 0:
        raise BadMachineError(
            f"no frame for {count} page tables of the vmalloc area: the machine is too small"
        )
    return frames


def _fill_zonelists(tables: Tables, plan: Handover) -> None:
    """Put the boot's zonelists in place; zones that have no frame to give are left out."""
    zones = plan.state.zones
    managed = bool(feature_bits(plan.layout.kernel) & MANAGED_PAGES)
    numbers = {
        (zone.node, plan.layout.zone_idx(zone.name)): number
        for number, zone in enumerate(zones)
        if (zone.managed if managed else zone.present) > 0
    }
    for nid, order in plan.zonelists.items():
        rows = tables.zonelist[nid * len(zones) : (nid + 1) * len(zones)]
        rows["zone"] = NONE
        for row, ref in zip(rows, (ref for ref in order if ref in numbers), strict=False):
            row["zone"], row["zone_idx"] = numbers[ref], ref[1]


_COUNTERS = ("alloc_factor", "free_count", "free_factor", "flags")
"""What the lists of a CPU remember of past requests: new lists do not."""
_BOOT_PAGESET = {
    "high": 0,
    "batch": 1,
    "cold_high": 0,
    "cold_batch": 1,
    "high_min": 0,
    "high_max": 0,
}
"""Linux: boot_pageset[], mm/page_alloc.c (2.6.24)"""


def _is_cma(state: State, pfn: int) -> bool:
    """Whether the frame's pageblock belongs to an area of CMA.

    Linux: init_cma_reserved_pageblock(), mm/page_alloc.c (6.1)
    """
    block = pfn >> state.pageblock_order
    return any(
        zone.pageblocks[block - (zone.start >> state.pageblock_order)] == "C"
        for zone in state.zones
        if zone.start <= pfn < zone.end
    )


def _free_to_tail(h: int, pfns: Any, orders: Any) -> int | None:
    """Free blocks; the frame that could not be freed, or None."""
    wrong = ready(do_free_core)(h, pfns, orders)
    return None if wrong == NONE else int(wrong)


def _free_to_head(h: int, pfns: Any, orders: Any) -> int | None:
    """The same by way of CPU 0."""
    wrong = ready(do_free_boot_pages)(h, pfns, orders.astype(np.int64), 0)
    return None if wrong == NONE else int(pfns[wrong])
