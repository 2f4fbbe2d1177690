# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's pages given to its child as well: nobody may write to them before a copy is made.

DEVIATION: huge pages are split first, where a kernel shares them whole: who maps which part of a
huge page is not counted.

Linux: copy_page_range(), copy_present_pte(), mm/memory.c; dup_mmap(), kernel/fork.c
"""

from physmem.lib.jit import kernel
from physmem.pgtable.changing import descend
from physmem.pgtable.entry import (
    is_none,
    is_table,
    leaf_address,
    load,
    root_of,
    slot_of,
    store,
    wrprotect,
)
from physmem.pgtable.mapping import next_table
from physmem.pgtable.record import OK, TableRecord, table_at
from physmem.pgtable.split import split


@kernel
def copy_entry(child: TableRecord, va: int, entry: int) -> int:
    """Enter a page of the parent's, as one that was not accessed; OK or a code."""
    level = int(child.nr_levels - 1)
    slot = slot_of(child, root_of(child, va), 0, va)
    for k in range(level):
        table = next_table(child, k, slot)
        if table < 0:
            return table
        slot = slot_of(child, table, k + 1, va)
    store(child, slot, entry if child.accessed_faults else entry & ~child.young)
    return OK


@kernel
def copy_page_range(parent: TableRecord, child: TableRecord, va: int, end: int) -> int:
    """Share the pages of [va, end); OK or a code. What was done stays: the child gives it back."""
    last = int(parent.nr_levels - 1)
    while va < end:
        level = descend(parent, va)
        if level < 0:
            return level
        slot = int(parent.walk_slot[level])
        entry = load(parent, slot)
        size = 1 << parent.lvl_shift[level]
        if is_none(parent, entry) or is_table(parent, level, entry):
            va = (va & -size) + size
            continue
        if level < last:
            code = split(parent, slot, level)
            if code != OK:
                return code
            continue
        entry = wrprotect(parent, entry)
        code = copy_entry(child, va, entry)
        if code != OK:
            return code
        store(parent, slot, entry)
        child.frame_shares[leaf_address(parent, level, entry) >> parent.frame_shift] += 1
        va = (va & -size) + size
    return OK


@kernel
def do_copy_page_range(parent: int, child: int, va: int, end: int) -> int:
    """`copy_page_range` from Python."""
    return copy_page_range(table_at(parent), table_at(child), va, end)
