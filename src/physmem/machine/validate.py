# SPDX-License-Identifier: GPL-2.0-or-later
"""Every invariant of a machine's tables by name; `mm.mmzone` explains them."""

from typing import Any

import numpy as np

from physmem.lib.errors import CorruptStateError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.tables import Tables
from physmem.mm import validate as v
from physmem.mm import validate_placement as p
from physmem.mm.mmzone import NONE

_REASONS = {
    v.WILD_LINK: ("list_links", "after {pfn} comes {found:#x}, which is no frame and not the head"),
    v.ONE_WAY_LINK: ("list_links", "{pfn} was reached from {expected:#x}, its prev is {found:#x}"),
    v.WRONG_MARK: ("list_links", "{pfn} has the mark {found:#x}, the list's is {expected:#x}"),
    v.WRONG_TYPE: ("list_links", "{pfn} says migratetype {found}, the list's is {expected}"),
    v.WRONG_ZONE: ("list_links", "{pfn} says zone {found}, it is on a list of zone {expected}"),
    v.UNUSED_LIST: ("list_links", "{found} blocks on a list that this machine does not use"),
    v.UNLISTED: ("list_links", "{found} heads of blocks in the zone, {expected} on its lists"),
    v.BAD_PLACE: ("free_order", "the block at {pfn} is misaligned or leaves its zone"),
    v.PCP_PLACE: ("pcp_lists", "the block at {pfn} is misaligned or leaves its zone"),
    v.PCP_TYPE: ("pcp_lists", "{pfn} has the cached migratetype {found}, which goes elsewhere"),
    v.PCP_SIZES: ("pcp_lists", "high {expected}, batch {found}, or free_factor is impossible"),
    v.PCP_COUNT: ("pcp_count", "count is {found}, {expected} frames are on the lists"),
    v.NR_FREE: ("nr_free", "nr_free is {found}, {expected} blocks are on the lists"),
    v.NR_FREE_PAGES: ("nr_free_pages", "{found} counted, {expected} on the lists"),
    v.NR_FREE_CMA: ("nr_free_cma", "{found} counted, {expected} on the lists"),
    v.NR_FREE_HIGHATOMIC: ("nr_free_highatomic", "{found} counted, {expected} on the lists"),
    v.BLOCK_LIST: (
        "block_list",
        "{pfn} is free on the list of type {found}, its pageblock: {expected}",
    ),
    v.NESTED: ("free_disjoint", "{pfn} in the block at {expected:#x} is marked {found:#x} itself"),
    v.NOT_MERGED: ("free_coalesced", "{pfn} and its buddy {found:#x} are both free"),
    v.FLAGS_ON_LIST: ("in_use", "{pfn} is on a list and has the flags {found:#x}"),
    v.USED_INSIDE: ("in_use", "{pfn} in the block at {expected:#x} has the flags {found:#x}"),
    v.NOWHERE: ("in_use", "{pfn} is neither in use nor on a list"),
    v.BAD_FLAGS: ("in_use", "{pfn} has the flags {found:#x}, which exclude each other"),
    v.TOO_MUCH: ("in_use", "{found} frames are free, the zone manages {expected}"),
    v.WATERMARKS: ("watermark", "min {expected}, low {found}: not ascending, or negative"),
    v.BLOCK_TYPE: ("pageblocks", "the pageblock at {pfn} has the type {found}"),
    v.NR_ISOLATED: ("pageblocks", "{found} isolated pageblocks counted, there are {expected}"),
    v.NR_HIGHATOMIC: ("pageblocks", "{found} frames reserved, there are {expected} HIGHATOMIC"),
    p.NOT_SORTED: ("address_order", "{pfn} is behind a higher frame, {expected:#x}"),
    p.NOT_IN_MAP: ("address_order", "the map has {found} before {pfn}, the list {expected}"),
    p.MAP_BIT: ("address_order", "the map ends with {found}, the list with {expected}"),
    p.TREE_FREE: ("tree_free", "tree {expected} has {found} frames too many, or too few"),
    p.WRONG_SIDE: ("confined", "the pageblock at {pfn} is on the wrong side, type {found}"),
}
INVARIANTS = tuple(sorted({name for name, _ in _REASONS.values()}))
"""Names that `CorruptStateError.invariant` may have."""


def validate_tables(tables: Tables, zone_names: tuple[str, ...]) -> None:
    """Check every invariant of every zone.

    Raises
    ------
    CorruptStateError
        The first that is broken, with zone, order, list and frame.
    """
    report: Any = np.empty(v.LENGTH + 1, np.int64)
    check, h = ready(v.check_zone), address(tables.memory)
    for number, zone in enumerate(tables.zones):
        reason = check(h, number, report)
        if reason == v.WHOLE and int(zone["placement"]):
            reason = ready(p.check_placement)(h, number, report)
        if reason != v.WHOLE:
            name = zone_names[int(zone["zone_idx"])]
            where = f"node {int(zone['node'])}, zone {name}"
            raise _error(reason, where, report.tolist())


def _error(reason: int, where: str, report: list[int]) -> CorruptStateError:
    order, which, cpu, pfn, expected, found = report[: v.LENGTH]
    if cpu != NONE:
        where += f", cpu {cpu}"
    if order != NONE:
        where += f", order {order}"
    if which != NONE:
        where += f", {'migratetype' if cpu == NONE else 'per-CPU list'} {which}"
    invariant, text = _REASONS[reason]
    frame = "the head" if pfn == NONE else f"frame {pfn:#x}"
    detail = text.format(pfn=frame, expected=expected, found=found)
    return CorruptStateError(invariant, f"{where}: {detail}")
