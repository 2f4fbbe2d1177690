# SPDX-License-Identifier: GPL-2.0-or-later
"""Removing the mappings of a range, and giving them another protection.

A large leaf or contiguous group that the range cuts is taken apart first.

Linux: vunmap_range_noflush(), mm/vmalloc.c; zap_pte_range() and free_pgd_range(), mm/memory.c;
change_protection(), mm/mprotect.c
"""

from physmem.lib.jit import inlined, kernel
from physmem.pgtable.entry import (
    is_none,
    is_table,
    leaf_address,
    load,
    modify,
    root_of,
    slot_of,
    store,
    table_address,
    wrprotect,
)
from physmem.pgtable.record import OK, OUTSIDE, TableRecord, table_at
from physmem.pgtable.split import split, unfold
from physmem.pgtable.tables import frame_put, free_empty, shares_of


@kernel
def descend(pt: TableRecord, va: int) -> int:
    """Level of the first entry for `va` that is no pointer to a table; or OUTSIDE."""
    table = root_of(pt, va)
    level = 0
    while True:
        slot = slot_of(pt, table, level, va)
        pt.walk_slot[level] = slot
        entry = load(pt, slot)
        if not is_table(pt, level, entry):
            return level
        table = table_address(pt, entry)
        if table < 0 or table + pt.page_size > pt.ram_size:
            return OUTSIDE
        level += 1


@inlined
def cuts_group(pt: TableRecord, level: int, entry: int, start: int, end: int, va: int) -> bool:
    """Whether a range has only a part of the contiguous group that a leaf belongs to."""
    if not entry & pt.cont_bit or not pt.lvl_cont[level]:
        return False
    base = va & -(1 << pt.lvl_cont[level])
    return base < start or base + (1 << pt.lvl_cont[level]) > end


@kernel
def change_run(pt: TableRecord, level: int, va: int, end: int, start: int, prot: int) -> int:
    """Change the leaves of one table from `va` on; the address where it stopped.

    It stops at the end of the table or range, at a pointer to a table, and at a leaf that must be
    split: at `va` itself if that is the first. `prot` 0 removes.
    """
    shift = int(pt.lvl_shift[level])
    size = 1 << shift
    slot = int(pt.walk_slot[level])
    left = pt.lvl_mask[level] + 1 - (va >> shift & pt.lvl_mask[level])
    for _ in range(left):
        if va >= end:
            break
        entry = load(pt, slot)
        if not is_none(pt, entry):
            if is_table(pt, level, entry) or va & (size - 1) or end - va < size:
                break
            if cuts_group(pt, level, entry, start, end, va):
                unfold(pt, slot, level)
                entry = load(pt, slot)
            if prot == 0:
                store(pt, slot, 0)
                if pt.free_frames:
                    frame_put(pt, leaf_address(pt, level, entry), shift - pt.frame_shift)
                pt.nr_leaves += size // pt.page_size
            elif entry & (pt.present | pt.protnone):
                entry = modify(pt, level, entry, prot)
                if pt.free_frames and shares_of(pt, leaf_address(pt, level, entry)):
                    entry = wrprotect(pt, entry)  # a write has to copy it first
                store(pt, slot, entry)
                pt.nr_leaves += size // pt.page_size
        slot += 1 << pt.entry_shift
        va = (va & -size) + size
    return va


@kernel
def change_range(pt: TableRecord, va: int, end: int, prot: int, start: int) -> int:
    """Remove (`prot` 0) or protect [va, end); OK or a code, and `done` says how far it came.

    `start` is where the whole range begins: after a table was asked for, `va` is further on.
    """
    while va < end:
        pt.done = va
        level = descend(pt, va)
        if level < 0:
            return level
        stop = change_run(pt, level, va, end, start, prot)
        if stop == va:
            code = split(pt, int(pt.walk_slot[level]), level)
            if code != OK:
                return code
            continue
        va = stop
        if prot == 0 and not pt.keep_tables:
            free_empty(pt, level)
    pt.done = min(va, end)
    return OK


@kernel
def do_change(h: int, va: int, end: int, prot: int, start: int) -> int:
    """`change_range` from Python."""
    pt = table_at(h)
    if va == start:
        pt.nr_leaves = 0
    return change_range(pt, va, end, prot, start)
