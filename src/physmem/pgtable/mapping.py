# SPDX-License-Identifier: GPL-2.0-or-later
"""Entering mappings of ranges, with leaves as large as alignment and the caller allow.

Linux: vmap_range_noflush(), mm/vmalloc.c; phys_pud_init(), arch/x86/mm/init_64.c; alloc_init_pud(),
arch/arm64/mm/mmu.c; remap_pfn_range(), mm/memory.c
"""

from physmem.lib.jit import inlined, kernel
from physmem.pgtable.entry import (
    encode_address,
    encode_table,
    is_none,
    is_table,
    leaf_flags,
    load,
    root_of,
    slot_of,
    store,
    table_address,
)
from physmem.pgtable.record import (
    BAD_TABLE,
    LEAF_IN_THE_WAY,
    MAPPED_ALREADY,
    OK,
    OUTSIDE,
    TableRecord,
    table_at,
)
from physmem.pgtable.tables import table_alloc


@kernel
def next_table(pt: TableRecord, level: int, slot: int) -> int:
    """Table behind an entry, made if there is none: physical address, or a negative code.

    Linux: p4d_alloc(), pud_alloc(), pmd_alloc(), pte_alloc_kernel()
    """
    entry = load(pt, slot)
    if is_none(pt, entry):
        table = table_alloc(pt)
        if table >= 0:
            store(pt, slot, encode_table(pt, table) & ~pt.lvl_table_reserved[level])
        return table
    if not is_table(pt, level, entry):
        return LEAF_IN_THE_WAY if entry & (pt.present | pt.protnone) else BAD_TABLE
    table = table_address(pt, entry)
    if table < 0 or table + pt.page_size > pt.ram_size:
        return OUTSIDE
    return table


@inlined
def fits(pt: TableRecord, level: int, va: int, pa: int, end: int) -> bool:
    """Whether a leaf of this level can stand for the beginning of the range."""
    shift = pt.lvl_shift[level]
    if level + 1 == pt.nr_levels:
        return True
    if not pt.lvl_leaf[level] or shift > pt.largest:
        return False
    size = 1 << shift
    return (va | pa) & (size - 1) == 0 and end - va >= size


@inlined
def group_bits(pt: TableRecord, level: int, start: int, end: int, va: int, pa: int) -> int:
    """Bits of a leaf in a contiguous group that lies wholly in the range; else 0."""
    size = 1 << pt.lvl_cont[level]
    base = va & -size
    if base < start or base + size > end or (pa - (va - base)) & (size - 1):
        return 0
    return int(pt.cont_bit)


@kernel
def fill(pt: TableRecord, slot: int, level: int, va: int, pa: int, end: int) -> int:
    """Enter leaves from `slot` to the end of its table or range; how many. Flags: walk_entry[0]."""
    shift = int(pt.lvl_shift[level])
    size = 1 << shift
    left = pt.lvl_mask[level] + 1 - (va >> shift & pt.lvl_mask[level])
    count = min(left, (end - va) >> shift)
    flags = leaf_flags(pt, level, int(pt.walk_entry[0]))
    step = 1 << pt.entry_shift
    for n in range(count):
        if not is_none(pt, load(pt, slot)):
            return n
        store(pt, slot, encode_address(pt, level, pa) | flags)
        slot += step
        pa += size
    return count


@kernel
def fill_groups(pt: TableRecord, slot: int, level: int, va: int, pa: int, end: int) -> int:
    """`fill` that marks contiguous groups. Start of the range: walk_entry[1]."""
    shift = int(pt.lvl_shift[level])
    size = 1 << shift
    left = pt.lvl_mask[level] + 1 - (va >> shift & pt.lvl_mask[level])
    count = min(left, (end - va) >> shift)
    flags = leaf_flags(pt, level, int(pt.walk_entry[0]))
    start = int(pt.walk_entry[1])
    for n in range(count):
        if not is_none(pt, load(pt, slot)):
            return n
        group = group_bits(pt, level, start, end, va, pa)
        address = encode_address(pt, level, pa)
        if group and pt.cont_low:
            address = encode_address(pt, level, pa & -(1 << pt.lvl_cont[level])) | pt.cont_low
        store(pt, slot, address | flags | group)
        slot += 1 << pt.entry_shift
        va += size
        pa += size
    return count


@kernel
def map_range(pt: TableRecord, va: int, end: int, pa: int, prot: int, skip: bool) -> int:
    """Map [va, end) to `pa` on; OK or a code, and `done` says how far it came.

    With `skip`, what is mapped already stays as it is and counts as done.
    """
    start = va
    pt.nr_leaves = 0
    pt.done = va
    while va < end:
        table = root_of(pt, va)
        level = 0
        slot = slot_of(pt, table, 0, va)
        while not fits(pt, level, va, pa, end) or is_table(pt, level, load(pt, slot)):
            table = next_table(pt, level, slot)
            if table == LEAF_IN_THE_WAY and skip:
                break
            if table < 0:
                return table
            level += 1
            slot = slot_of(pt, table, level, va)
        pt.walk_entry[0] = prot
        pt.walk_entry[1] = start
        if table == LEAF_IN_THE_WAY:
            count = 0
        elif pt.use_cont and pt.lvl_cont[level]:
            count = fill_groups(pt, slot, level, va, pa, end)
        else:
            count = fill(pt, slot, level, va, pa, end)
        pt.nr_leaves += count
        size = 1 << pt.lvl_shift[level]
        va += count * size
        pa += count * size
        pt.done = va
        if count == 0:
            if not skip:
                return MAPPED_ALREADY
            pa -= va
            va = min((va & -size) + size, end)
            pa += va
            pt.done = va
    return OK


@kernel
def do_map(h: int, va: int, end: int, pa: int, prot: int, skip: bool) -> int:
    """`map_range` from Python."""
    return map_range(table_at(h), va, end, pa, prot, skip)


@kernel
def map_page(pt: TableRecord, va: int, pa: int, level: int, prot: int) -> int:
    """One leaf at a level, replacing nothing; OK or a code.

    Linux: set_pte_at() in do_anonymous_page(); set_pmd_at() in do_huge_pmd_anonymous_page()
    """
    slot = slot_of(pt, root_of(pt, va), 0, va)
    for k in range(level):
        table = next_table(pt, k, slot)
        if table < 0:
            return table
        slot = slot_of(pt, table, k + 1, va)
    if not is_none(pt, load(pt, slot)):
        return MAPPED_ALREADY
    store(pt, slot, encode_address(pt, level, pa) | leaf_flags(pt, level, prot))
    return OK
