# SPDX-License-Identifier: GPL-2.0-or-later
"""Large leaves and contiguous groups taken apart, so that a part of them can change.

Linux: __split_large_page(), arch/x86/mm/pat/set_memory.c; __contpte_try_unfold(), arch/arm64/mm
"""

from physmem.lib.jit import kernel
from physmem.pgtable.entry import (
    encode_address,
    encode_table,
    leaf_address,
    leaf_flags,
    load,
    store,
)
from physmem.pgtable.record import CANNOT_SPLIT, OK, TableRecord
from physmem.pgtable.tables import frame_split, table_alloc


@kernel
def address_bits(pt: TableRecord, level: int) -> int:
    """Bits of a leaf that are its address."""
    return pt.lvl_addr[level] >> pt.addr_shift | pt.lvl_high[level] >> pt.high_shift


@kernel
def unfold(pt: TableRecord, slot: int, level: int) -> None:
    """Make the members of the contiguous group around an entry ordinary leaves."""
    shift = int(pt.lvl_shift[level])
    members = 1 << (pt.lvl_cont[level] - shift)
    first = slot & -(members << pt.entry_shift)
    base = leaf_address(pt, level, load(pt, slot))  # for Svnapot: of the group
    for n in range(members):
        at = first + (n << pt.entry_shift)
        entry = load(pt, at)
        if entry & pt.cont_bit == 0:
            continue
        if pt.cont_low:
            flags = entry & ~address_bits(pt, level)
            entry = encode_address(pt, level, base + (n << shift)) | flags
        store(pt, at, entry & ~pt.cont_bit)


@kernel
def split(pt: TableRecord, slot: int, level: int) -> int:
    """Replace a large leaf by a table of leaves of the next level; OK or a code."""
    if load(pt, slot) & pt.cont_bit and pt.lvl_cont[level]:
        unfold(pt, slot, level)
    entry = load(pt, slot)
    pa = leaf_address(pt, level, entry)
    below = level + 1
    if pa & ~(pt.lvl_addr[below] | pt.lvl_high[below]):
        return CANNOT_SPLIT  # PSE-36: only a large page can be that high
    table = table_alloc(pt)
    if table < 0:
        return table
    flags = entry & ~address_bits(pt, level) & ~pt.lvl_set[level] | pt.lvl_clear[level]
    flags = leaf_flags(pt, below, flags)
    size = 1 << pt.lvl_shift[below]
    for n in range(pt.lvl_mask[below] + 1):
        at = table + (n << pt.entry_shift)
        store(pt, at, encode_address(pt, below, pa + n * size) | flags)
    if pt.free_frames:
        order = int(pt.lvl_shift[level] - pt.frame_shift)
        frame_split(pt, pa, order, int(pt.lvl_shift[below] - pt.frame_shift))
    pointer = encode_table(pt, table)
    if (
        pt.user_mask
        and entry & pt.user_mask == pt.user_value
        and pt.table_user_mask == pt.user_mask
    ):
        pointer |= pt.user_mask  # else what was the user's would be so no longer
    store(pt, slot, pointer & ~pt.lvl_table_reserved[level])
    return OK
