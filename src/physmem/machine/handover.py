# SPDX-License-Identifier: GPL-2.0-or-later
"""The moment when a machine's own allocators take over what the boot allocator knows.

Linux: mm_init(), mem_init(), init/main.c (6.1); mem_init(), free_all_bootmem() (2.6.24)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from physmem.lib.errors import BadMachineError
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address
from physmem.machine.layout import Layout
from physmem.machine.load import fill_pageblocks, fill_pageset
from physmem.machine.tables import Tables, build_tables
from physmem.mm.free_core import do_free_core, do_free_reserved
from physmem.mm.lists import init_lists, mark_rest_in_use
from physmem.mm.mmzone import NONE
from physmem.mm.state import State


@dataclass(frozen=True, order=True)
class Reserved:
    """Frames [start_pfn, end_pfn) that the page allocator never got, and who holds them."""

    start_pfn: int
    end_pfn: int
    owner: str


@dataclass(frozen=True)
class MemMapPiece:
    """Where the records of frames [start_pfn, end_pfn) lie: physical address, in bytes."""

    start_pfn: int
    end_pfn: int
    paddr: int


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What a boot hands over.

    Attributes
    ----------
    state : zones with all sizes and pageblock types, their lists empty
    layout : zones, CPUs, nodes
    blocks : (pfn int64, order uint8) arrays of free blocks, in the order in which they are freed
    late : frames (start, end) that were reserved and are given back when the kernel is up
    reserved : what the page allocator does not get, without `late`
    mem_map : where the records of the frames lie
    grouping_disabled : too little memory to group pages by mobility
    ram : the bytes that the boot allocator's users wrote to
    """

    state: State
    layout: Layout
    blocks: Sequence[tuple[Any, Any]]
    late: Sequence[tuple[int, int]] = ()
    reserved: Sequence[Reserved] = ()
    mem_map: Sequence[MemMapPiece] = ()
    grouping_disabled: bool = False
    ram: Ram | None = field(default=None, compare=False)


def hand_over(plan: Handover) -> Tables:
    """Tables of the running machine: every free block freed, everything else in use.

    Raises
    ------
    BadMachineError
        A block lies outside the zones, or in two of them.
    """
    tables = build_tables(plan.state, plan.layout)
    h = address(tables.memory)
    tables.zones["grouping_disabled"] = int(plan.grouping_disabled)
    ready(init_lists)(h, int(tables.memory[0]["max_pfn"]))
    for number, zone in enumerate(plan.state.zones):
        fill_pageblocks(tables, number, zone, plan.state)
        fill_pageset(tables, number, zone)
    for pfns, orders in plan.blocks:
        wrong = ready(do_free_core)(h, pfns, orders)
        if wrong != NONE:
            raise BadMachineError(
                f"the boot allocator handed over frame {wrong:#x}, which is in no zone or in two;"
                " the firmware map and the nodes do not fit together"
            )
    for number in range(len(tables.zones)):
        ready(mark_rest_in_use)(h, number)
    for start, end in plan.late:
        ready(do_free_reserved)(h, start, end, 0)
    if plan.ram is not None:
        lay_mem_map(tables, plan.ram, plan.mem_map)
    return tables


def lay_mem_map(tables: Tables, ram: Ram, pieces: Sequence[MemMapPiece]) -> None:
    """Let the records of the frames lie at the physical addresses that the boot allocator gave.

    The kernel's records are larger than ours (struct page: 32 to 64 bytes, `Page`: 16): ours fill
    the first part of each piece, one behind the other.
    """
    records: Any = tables.mem_map
    for piece in pieces:
        part = records[piece.start_pfn : piece.end_pfn].view(np.uint8).reshape(-1)
        ram.overlay(piece.paddr, part)
