# SPDX-License-Identifier: GPL-2.0-or-later
"""One entry: where it is, what it is, what it says. Positions count hardware levels, top first.

Linux: arch/*/include/asm/pgtable.h, include/linux/pgtable.h
"""

from physmem.lib.jit import inlined
from physmem.pgtable.record import TableRecord


@inlined
def load(pt: TableRecord, slot: int) -> int:
    """Entry at a physical address."""
    if pt.entry_shift == 3:
        return int(pt.ram_entries[slot >> 3])
    return int(pt.ram_entries32[slot >> 2])


@inlined
def store(pt: TableRecord, slot: int, entry: int) -> None:
    """Write the entry at a physical address.

    Linux: set_pte(), set_pmd(), ...
    """
    if pt.entry_shift == 3:
        pt.ram_entries[slot >> 3] = entry
    else:
        pt.ram_entries32[slot >> 2] = entry & 0xFFFFFFFF


@inlined
def root_of(pt: TableRecord, va: int) -> int:
    """Top table for an address."""
    if pt.two_roots and va < 0:
        return int(pt.root_high)
    return int(pt.root)


@inlined
def slot_of(pt: TableRecord, table: int, level: int, va: int) -> int:
    """Physical address of the entry for `va` in a table of a level.

    Linux: pgd_offset(), p4d_offset(), pud_offset(), pmd_offset(), pte_offset_kernel()
    """
    return table + ((va >> pt.lvl_shift[level] & pt.lvl_mask[level]) << pt.entry_shift)


@inlined
def canonical(pt: TableRecord, va: int) -> bool:
    """Whether the hardware accepts the address at all."""
    above = va >> pt.canonical_shift
    return above == 0 or above == pt.canonical_high


@inlined
def is_none(pt: TableRecord, entry: int) -> bool:
    """Empty."""
    return entry & pt.none_mask == 0


@inlined
def is_table(pt: TableRecord, level: int, entry: int) -> bool:
    """A pointer to a table."""
    return (
        level + 1 < pt.nr_levels
        and entry & pt.present != 0
        and entry & pt.kind_mask == pt.kind_value
    )


@inlined
def is_last(pt: TableRecord, level: int) -> bool:
    """The level of the smallest pages."""
    return level + 1 == pt.nr_levels


@inlined
def table_address(pt: TableRecord, entry: int) -> int:
    """Physical address of the table that an entry points to."""
    low = (entry & pt.table_addr >> pt.addr_shift) << pt.addr_shift
    return low | (entry & pt.table_high >> pt.high_shift) << pt.high_shift


@inlined
def leaf_address(pt: TableRecord, level: int, entry: int) -> int:
    """Physical address that a leaf maps; of the group's start for a Svnapot leaf."""
    low = (entry & pt.lvl_addr[level] >> pt.addr_shift) << pt.addr_shift
    pa = low | (entry & pt.lvl_high[level] >> pt.high_shift) << pt.high_shift
    if pt.cont_low and entry & pt.cont_bit and pt.lvl_cont[level]:
        pa &= -1 << pt.lvl_cont[level]
    return pa


@inlined
def leaf_shift(pt: TableRecord, level: int, entry: int) -> int:
    """log2 of the bytes that an address from `leaf_address` stands for."""
    if pt.cont_low and entry & pt.cont_bit and pt.lvl_cont[level]:
        return int(pt.lvl_cont[level])
    return int(pt.lvl_shift[level])


@inlined
def encode_address(pt: TableRecord, level: int, pa: int) -> int:
    """Address bits of a leaf."""
    low = (pa & pt.lvl_addr[level]) >> pt.addr_shift
    return low | (pa & pt.lvl_high[level]) >> pt.high_shift


@inlined
def encode_table(pt: TableRecord, pa: int) -> int:
    """Pointer to a table."""
    low = (pa & pt.table_addr) >> pt.addr_shift
    return low | (pa & pt.table_high) >> pt.high_shift | pt.table_bits


@inlined
def leaf_flags(pt: TableRecord, level: int, prot: int) -> int:
    """A page protection in the form of a level."""
    return prot & ~pt.lvl_clear[level] | pt.lvl_set[level]


@inlined
def modify(pt: TableRecord, level: int, entry: int, prot: int) -> int:
    """Another protection; address, young, dirty and the like stay.

    Linux: pte_modify()
    """
    if entry & pt.hw_dirty_mask == pt.hw_dirty_value:
        entry |= pt.dirty
    return entry & pt.keep | leaf_flags(pt, level, prot) & ~pt.keep


@inlined
def wrprotect(pt: TableRecord, entry: int) -> int:
    """A leaf that may not be written to; what was dirty stays so.

    Linux: pte_wrprotect()
    """
    if entry & pt.hw_dirty_mask == pt.hw_dirty_value:
        entry |= pt.dirty
    return (entry | pt.wrprotect_set) & ~pt.wrprotect_clear
