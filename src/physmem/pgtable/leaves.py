# SPDX-License-Identifier: GPL-2.0-or-later
"""All leaves of a range, those side by side with equal attributes as one.

Linux: ptdump_walk_pgd(), mm/ptdump.c; note_page(), arch/x86/mm/dump_pagetables.c
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.pgtable.changing import descend
from physmem.pgtable.entry import is_none, leaf_address, load
from physmem.pgtable.record import OK, TableRecord, table_at
from physmem.pgtable.split import address_bits
from physmem.pgtable.walk import leaf_reason, permissions

ROW = 6
"""Numbers per range: va, end, paddr, level, flags (the entry less its address), permissions."""


@kernel
def read_path(pt: TableRecord, level: int) -> None:
    """Load the entries of the walk that `descend` just did."""
    for k in range(level + 1):
        pt.walk_entry[k] = load(pt, int(pt.walk_slot[k]))


@kernel
def collect(pt: TableRecord, va: int, end: int, merge: int, out: Array[i64]) -> int:
    """Fill `out` with ranges from `va` on; how many. `done` says where to go on.

    merge: 0 no leaves with others, 1 those that continue each other in memory too, 2 without
    regard to where they lead.
    """
    rows = 0
    last = -1
    while va < end:
        level = descend(pt, va)
        if level < 0:
            break
        read_path(pt, level)
        size = 1 << pt.lvl_shift[level]
        entry = int(pt.walk_entry[level])
        if is_none(pt, entry):
            va = (va & -size) + size
            continue
        reason = leaf_reason(pt, level, entry)
        pa = leaf_address(pt, level, entry)
        if pt.cont_low and entry & pt.cont_bit:
            pa |= va & ((1 << pt.lvl_cont[level]) - 1) & -size
        flags = entry & ~address_bits(pt, level)
        perm = permissions(pt, level) if reason == OK else 0
        first = va & -size
        joins = (
            merge > 0
            and last >= 0
            and out[last + 1] == first
            and out[last + 3] == level
            and out[last + 4] == flags
            and out[last + 5] == perm
            and (merge == 2 or out[last + 2] + (first - out[last]) == pa)
        )
        if joins:
            out[last + 1] = first + size
        else:
            last = rows * ROW
            if last + ROW > len(out):
                break
            out[last] = first
            out[last + 1] = first + size
            out[last + 2] = pa
            out[last + 3] = level
            out[last + 4] = flags
            out[last + 5] = perm
            rows += 1
        va = first + size
    pt.done = va
    return rows


@kernel
def do_collect(h: int, va: int, end: int, merge: int, out: Array[i64]) -> int:
    """`collect` from Python."""
    return collect(table_at(h), va, end, merge, out)
