# SPDX-License-Identifier: GPL-2.0-or-later
"""Do the tables of other rules of placement agree with the lists? After `validate` found no fault.

Linux: none; `placement` says what the rules are.
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.address_order import member_below
from physmem.mm.free_area import run_length
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import (
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_TYPES,
    NONE,
    Zone,
)
from physmem.mm.pageblock import get_pageblock_migratetype
from physmem.mm.placement import ADDRESS_ORDER, CONFINED, TREES
from physmem.mm.tree import tree_of
from physmem.mm.validate import LIST, ORDER, WHOLE, broken

NOT_SORTED = 40
NOT_IN_MAP = 41
MAP_BIT = 42
TREE_FREE = 43
WRONG_SIDE = 44


@kernel
def check_sorted(zone: Zone, report: Array[i64]) -> int:
    """Check that lists ascend, and that each map leads from each member to the one before it."""
    for order in range(zone.max_order + 1):
        report[ORDER] = order
        for mt in range(MIGRATE_TYPES):
            report[LIST] = mt
            head = zone.free_area[order].head[mt]
            before = NONE
            pfn = int(zone.mem_map[head].next)
            while pfn != head:
                if pfn <= before:
                    return broken(report, NOT_SORTED, pfn, before, 0)
                found = member_below(zone, pfn, order, mt)
                if found != before:
                    return broken(report, NOT_IN_MAP, pfn, before, found)
                before = pfn
                pfn = int(zone.mem_map[pfn].next)
            last = member_below(zone, zone.end_pfn, order, mt)
            if last != before:
                return broken(report, MAP_BIT, last, before, last)
    report[ORDER] = NONE
    report[LIST] = NONE
    return WHOLE


@kernel
def check_trees(zone: Zone, report: Array[i64]) -> int:
    """Count the free frames of all trees again: taken off, put back."""
    for sign in range(-1, 2, 2):
        for order in range(zone.max_order + 1):
            for mt in range(MIGRATE_PCPTYPES):
                head = zone.free_area[order].head[mt]
                pfn = int(zone.mem_map[head].next)
                while pfn != head:
                    for block in range(run_length(zone, pfn)):
                        at = tree_of(zone, pfn + (block << order))
                        zone.tree_free[at] += sign << order
                    pfn = int(zone.mem_map[pfn].next)
        if sign < 0:
            wrong = NONE
            for tree in range(len(zone.tree_free)):
                if zone.tree_free[tree] and wrong == NONE:
                    wrong = tree
            if wrong != NONE:
                return broken(report, TREE_FREE, NONE, wrong, zone.tree_free[wrong])
    return WHOLE


@kernel
def check_sides(zone: Zone, report: Array[i64]) -> int:
    """Check that ordinary pageblocks are on their side of the border of the confined region."""
    for pfn in range(
        zone.first_block << zone.pageblock_order, zone.end_pfn, 1 << zone.pageblock_order
    ):
        mt = get_pageblock_migratetype(zone, pfn)
        inside = zone.confined_start <= max(pfn, zone.start_pfn) < zone.confined_end
        if mt < MIGRATE_PCPTYPES and inside == (mt == MIGRATE_MOVABLE):
            return broken(report, WRONG_SIDE, pfn, int(inside), mt)
    return WHOLE


@kernel
def check_placement(h: int, number: int, report: Array[i64]) -> int:
    """Check what a zone's rules of placement rest on; the reason of the first fault, or WHOLE."""
    zone = memory_at(h).zones[number]
    reason = WHOLE
    if zone.placement & ADDRESS_ORDER:
        reason = check_sorted(zone, report)
    if reason == WHOLE and zone.placement & TREES:
        reason = check_trees(zone, report)
    if reason == WHOLE and zone.placement & CONFINED:
        reason = check_sides(zone, report)
    return reason
