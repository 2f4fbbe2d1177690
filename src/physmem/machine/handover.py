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
from physmem.machine.origin import MemMapPiece, Reserved
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables, build_tables
from physmem.mm.entry import do_free_boot_pages, do_setup_reserve
from physmem.mm.features import MANAGED_PAGES, RESERVE_BLOCKS
from physmem.mm.free_core import do_free_core, do_free_reserved
from physmem.mm.lists import init_lists, mark_rest_in_use
from physmem.mm.mmzone import NONE
from physmem.mm.state import State


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


def hand_over(plan: Handover) -> Tables:
    """Tables of the running machine: every free block freed, everything else in use.

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
    for pfns, orders in plan.blocks:
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
    for number, zone in enumerate(plan.state.zones):
        ready(mark_rest_in_use)(h, number)
        fill_pageset(tables, number, zone)
    for start, end in plan.early:
        ready(do_free_reserved)(h, start, end, 0)
    if feature_bits(plan.layout.kernel) & RESERVE_BLOCKS:
        for number in range(len(tables.zones)):
            ready(do_setup_reserve)(h, number)
    for start, end in plan.late:
        ready(do_free_reserved)(h, start, end, 0)
    return tables


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


_BOOT_PAGESET = {"high": 0, "batch": 1, "cold_high": 0, "cold_batch": 1}
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
