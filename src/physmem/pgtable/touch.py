# SPDX-License-Identifier: GPL-2.0-or-later
"""An access as the hardware does it: the walk, and the accessed and dirty bits that it leaves.

x86 and riscv64 set both bits in the leaf; x86 sets "accessed" in the tables above too (not in the
pointer table of PAE). arm64 leaves that to the kernel unless its hardware management is on.

Linux: the hardware; __ptep_set_access_flags(), arch/arm64/mm/fault.c for the kernel's part
"""

from physmem.lib.jit import kernel
from physmem.pgtable.entry import load, store
from physmem.pgtable.record import NO_WRITE, OK, OLD, WRITE, TableRecord, table_at
from physmem.pgtable.walk import refusal, walk


@kernel
def make_dirty(pt: TableRecord) -> None:
    """After a walk to a leaf that is writable but clean: let the hardware write (arm64).

    Linux: ptep_set_access_flags(), arch/arm64/mm/fault.c; the hardware with TCR.HD
    """
    slot = int(pt.walk_slot[pt.walk_level])
    entry = load(pt, slot)
    if pt.hw_dirty_mask and entry & pt.soft_write:
        store(pt, slot, entry & ~(pt.hw_dirty_mask & ~pt.soft_write))


@kernel
def set_flags(pt: TableRecord, written: bool) -> None:
    """Set what the hardware sets after the walk just done."""
    level = int(pt.walk_level)
    for k in range(level + 1):
        flags = int(pt.young)
        if k < level and not (pt.young_tables and pt.lvl_checks[k]):
            continue
        if k == level and written:
            flags |= pt.dirty
        entry = load(pt, int(pt.walk_slot[k]))
        if entry & flags != flags:
            store(pt, int(pt.walk_slot[k]), entry | flags)
            pt.walk_entry[k] = entry | flags


@kernel
def touch(pt: TableRecord, va: int, access: int, managed: bool) -> int:
    """Access an address; OK, or why it faults. `managed`: arm64 with TCR.HA and TCR.HD."""
    reason = walk(pt, va)
    slot = int(pt.walk_slot[pt.walk_level]) if pt.walk_level >= 0 else 0
    entry = load(pt, slot)
    if reason == OLD and managed:
        store(pt, slot, entry | pt.young)
        reason = walk(pt, va)
    if reason != OK:
        return reason
    reason = refusal(pt, access)
    if reason == NO_WRITE and managed:
        make_dirty(pt)
        if walk(pt, va) == OK:
            reason = refusal(pt, access)
    if reason != OK and managed:
        store(pt, slot, entry)  # an access that is refused leaves no marks
    if reason == OK and not pt.accessed_faults:
        set_flags(pt, access & WRITE != 0)
    return reason


@kernel
def do_touch(h: int, va: int, access: int, managed: bool) -> int:
    """`touch` from Python."""
    return touch(table_at(h), va, access, managed)
