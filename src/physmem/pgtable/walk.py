# SPDX-License-Identifier: GPL-2.0-or-later
"""Following an address through the tables, as an MMU does.

Linux: the hardware; follow_pte(), mm/memory.c; lookup_address(), arch/x86/mm/pat/set_memory.c
"""

from physmem.lib.jit import inlined, kernel, prefetch
from physmem.pgtable.entry import (
    canonical,
    is_none,
    is_table,
    leaf_address,
    leaf_shift,
    load,
    root_of,
    slot_of,
    table_address,
)
from physmem.pgtable.record import (
    BAD_ENTRY,
    EXEC,
    NO_EXEC,
    NO_READ,
    NO_USER,
    NO_WRITE,
    NOT_CANONICAL,
    NOT_PRESENT,
    OK,
    OLD,
    OUTSIDE_RAM,
    PROT_NONE,
    READ,
    USER,
    WRITE,
    TableRecord,
    table_at,
)

FAULT = -1
"""No physical address."""
BEGUN = -2
BLOCK = 128
"""Addresses that go down together."""


@inlined
def leaf_reason(pt: TableRecord, level: int, entry: int) -> int:
    """OK for an entry that maps memory, or why the hardware refuses it. It is no table."""
    if entry & pt.present == 0:
        if not is_none(pt, entry) and entry & pt.protnone:
            return PROT_NONE
        return NOT_PRESENT
    if level + 1 == pt.nr_levels:
        if entry & pt.last_mask != pt.last_value:
            return BAD_ENTRY
        if pt.last_no_table and entry & pt.kind_mask == pt.kind_value:
            return BAD_ENTRY
    elif not pt.lvl_leaf[level]:
        return BAD_ENTRY
    if entry & pt.lvl_leaf_reserved[level] or entry & pt.bad_mask == pt.bad_value:
        return BAD_ENTRY
    if pt.cont_low and entry & pt.cont_bit:  # of all group sizes one is defined
        group = (1 << pt.lvl_cont[level]) - (1 << pt.lvl_shift[level])
        if entry & group >> pt.addr_shift != pt.cont_low:
            return BAD_ENTRY
    if pt.accessed_faults and entry & pt.young == 0:
        return OLD
    return OK


@inlined
def rule(entry: int, mask: int, value: int) -> bool:
    """Whether an entry passes a rule."""
    return entry & mask == value


@inlined
def permissions(pt: TableRecord, level: int) -> int:
    """What the walk that ended with a leaf at `level` allows: READ, WRITE, EXEC, the same << 4."""
    leaf = int(pt.walk_entry[level])
    write = rule(leaf, pt.write_mask, pt.write_value)
    user = rule(leaf, pt.user_mask, pt.user_value)
    kexec = rule(leaf, pt.kexec_mask, pt.kexec_value)
    uexec = rule(leaf, pt.uexec_mask, pt.uexec_value)
    read = rule(leaf, pt.read_mask, pt.read_value)
    own = user
    for k in range(level):
        if pt.lvl_checks[k]:
            e = int(pt.walk_entry[k])
            write = write and rule(e, pt.table_write_mask, pt.table_write_value)
            user = user and rule(e, pt.table_user_mask, pt.table_user_value)
            kexec = kexec and rule(e, pt.table_kexec_mask, pt.table_kexec_value)
            uexec = uexec and rule(e, pt.table_uexec_mask, pt.table_uexec_value)
    if pt.user_write_no_kexec and user and write:
        kexec = False
    perm = 0
    if pt.kernel_reads_user or not own:
        perm |= (READ if read else 0) | (WRITE if write else 0)
    if kexec and (pt.kernel_runs_user or not own):
        perm |= EXEC
    if user:
        perm |= ((READ if read else 0) | (WRITE if write else 0)) << 4
    if uexec and (user or pt.exec_alone):
        perm |= EXEC << 4
    return perm


@kernel
def walk(pt: TableRecord, va: int) -> int:
    """Follow an address; entries, end and permissions are left in the record. OK or the reason."""
    pt.walk_level = -1
    pt.walk_perm = 0
    pt.walk_paddr = FAULT
    if not canonical(pt, va):
        return NOT_CANONICAL
    table = root_of(pt, va)
    for level in range(pt.nr_levels):
        slot = slot_of(pt, table, level, va)
        if slot < 0 or slot >= pt.ram_size:
            return OUTSIDE_RAM
        entry = load(pt, slot)
        pt.walk_level = level
        pt.walk_slot[level] = slot
        pt.walk_entry[level] = entry
        if is_table(pt, level, entry):
            if entry & pt.lvl_table_reserved[level]:
                return BAD_ENTRY
            table = table_address(pt, entry)
            continue
        reason = leaf_reason(pt, level, entry)
        if reason == OK or reason == OLD:
            mask = (1 << leaf_shift(pt, level, entry)) - 1
            pt.walk_paddr = leaf_address(pt, level, entry) & ~mask | va & mask
            pt.walk_perm = permissions(pt, level)
        return reason
    return BAD_ENTRY  # never reached: the last level has no tables


@kernel
def refusal(pt: TableRecord, access: int) -> int:
    """OK, or why the walk just done does not allow an access (READ, WRITE or EXEC, with USER)."""
    perm = int(pt.walk_perm)
    if access & USER:
        perm >>= 4
        if perm & (READ | WRITE | EXEC) == 0:
            return NO_USER
    if access & READ and not perm & READ:
        return NO_READ
    if access & WRITE and not perm & WRITE:
        return NO_WRITE
    if access & EXEC and not perm & EXEC:
        return NO_EXEC
    return OK


@kernel
def do_walk(h: int, va: int, access: int) -> int:
    """`walk` from Python, then `refusal` of an access other than 0."""
    pt = table_at(h)
    reason = walk(pt, va)
    if reason == OK and access:
        reason = refusal(pt, access)
    return reason


@kernel
def translate_odd(pt: TableRecord, va: int) -> int:
    """Physical address, or FAULT, by a full walk."""
    reason = walk(pt, va)
    return int(pt.walk_paddr) if reason == OK else FAULT


@inlined
def translate_level(pt: TableRecord, level: int, at: int, end: int) -> None:
    """Take the addresses [at, end) of a batch down by one level.

    answers: below FAULT, how far an address has come (BEGUN less its table); else its end.
    """
    shift, mask = int(pt.lvl_shift[level]), int(pt.lvl_mask[level])
    down, down_value = int(pt.lvl_down_mask[level]), int(pt.lvl_down_value[level])
    hit, hit_value = int(pt.lvl_hit_mask[level]), int(pt.lvl_hit_value[level])
    entry_shift, ram_size = int(pt.entry_shift), int(pt.ram_size)
    wide = entry_shift == 3
    addr_shift, high_shift = int(pt.addr_shift), int(pt.high_shift)
    table_addr, table_high = int(pt.table_addr) >> addr_shift, int(pt.table_high) >> high_shift
    leaf_addr, leaf_high = int(pt.lvl_addr[level]) >> addr_shift, int(pt.lvl_high[level])
    leaf_high >>= high_shift
    low = (1 << shift) - 1
    below = level + 1 if level + 1 < pt.nr_levels else level
    next_shift, next_mask = int(pt.lvl_shift[below]), int(pt.lvl_mask[below])
    for i in range(at, end):
        state = int(pt.answers[i])
        if state >= FAULT:
            continue
        va = int(pt.queries[i])
        slot = BEGUN - state + ((va >> shift & mask) << entry_shift)
        if slot >= ram_size:
            pt.answers[i] = FAULT
            continue
        entry = int(pt.ram_entries[slot >> 3]) if wide else int(pt.ram_entries32[slot >> 2])
        if entry & down == down_value:
            table = (entry & table_addr) << addr_shift
            if table_high:
                table |= (entry & table_high) << high_shift
            pt.answers[i] = BEGUN - table
            prefetch(pt.ram_entries, table + ((va >> next_shift & next_mask) << entry_shift) >> 3)
        elif entry & hit == hit_value:
            pa = (entry & leaf_addr) << addr_shift
            if leaf_high:
                pa |= (entry & leaf_high) << high_shift
            pt.answers[i] = pa | va & low
        else:
            pt.answers[i] = translate_odd(pt, va)


@kernel
def do_translate(h: int) -> int:
    """Translate all `queries` into `answers`; how many have a physical address.

    A block of addresses goes down level by level, and each asks for its entry of the next level: so
    the loads of one do not wait for another's. Nothing is remembered between addresses.
    """
    pt = table_at(h)
    found = 0
    for at in range(0, len(pt.queries), BLOCK):
        end = min(at + BLOCK, len(pt.queries))
        for i in range(at, end):
            va = int(pt.queries[i])
            pt.answers[i] = BEGUN - root_of(pt, va) if canonical(pt, va) else FAULT
        for level in range(pt.nr_levels):
            translate_level(pt, level, at, end)
        for i in range(at, end):
            found += pt.answers[i] != FAULT
    return found
