# SPDX-License-Identifier: GPL-2.0-or-later
"""The record behind a page table: its format in numbers, its roots, and where tables come from.

Kernels know no format by name: they read masks, shifts and rules from here. Entries are signed
64-bit numbers (unsigned ones would become floats next to signed ones); so are virtual addresses,
whose upper half is negative and therefore ends at 0 without a special case.

Linux: struct mm_struct.pgd, include/linux/mm_types.h
"""

from typing import Annotated

from physmem.lib.jit import pointer_to
from physmem.lib.struct import Array, i64, struct, u32

MAX_LEVELS = 5

# What a walk found.
OK = 0
NOT_CANONICAL = 1
NOT_PRESENT = 2
PROT_NONE = 3
BAD_ENTRY = 4
OUTSIDE_RAM = 5
OLD = 6  # the accessed flag is not set and the hardware does not set it
NO_USER = 7
NO_READ = 8
NO_WRITE = 9
NO_EXEC = 10

# Kinds of access.
READ, WRITE, EXEC = 1, 2, 4
USER = 8

# Results of changes, besides OK and OUTSIDE_RAM.
NEED_TABLE = -1
NO_MEMORY = -2
MAPPED_ALREADY = -3
LEAF_IN_THE_WAY = -4
BAD_TABLE = -5
FULL = -6
OUTSIDE = -7
CANNOT_SPLIT = -8

# What a fault did, besides codes of changes.
FAULT_MAPPED, FAULT_HUGE, FAULT_PRESENT, FAULT_COPIED, FAULT_SEGV, FAULT_ACCESS = (
    1,
    2,
    3,
    4,
    -20,
    -21,
)

# Where table pages come from.
FROM_POOL, FROM_BUDDY = 0, 1


@struct
class TableRecord:
    """One address space's page table."""

    root: i64  # physical address of the top table
    root_high: i64  # of the one for the upper half, where the format has two
    two_roots: i64
    entry_shift: i64  # log2 of the bytes of an entry
    nr_levels: i64
    page_size: i64
    canonical_shift: i64
    canonical_high: i64  # what the bits above are for the upper half: -1, or 0 without one
    addr_shift: i64
    high_shift: i64
    table_addr: i64
    table_high: i64
    table_bits: i64  # flags of a new pointer to a table
    present: i64
    protnone: i64
    none_mask: i64  # bits that count when an entry is tested for being empty
    kind_mask: i64
    kind_value: i64
    last_mask: i64
    last_value: i64
    last_no_table: i64
    bad_mask: i64
    bad_value: i64
    read_mask: i64
    read_value: i64
    write_mask: i64
    write_value: i64
    kexec_mask: i64
    kexec_value: i64
    uexec_mask: i64
    uexec_value: i64
    user_mask: i64
    user_value: i64
    table_write_mask: i64
    table_write_value: i64
    table_user_mask: i64
    table_user_value: i64
    table_kexec_mask: i64
    table_kexec_value: i64
    table_uexec_mask: i64
    table_uexec_value: i64
    young: i64
    young_tables: i64  # 1: the hardware sets `young` in pointers to tables too
    dirty: i64
    soft_write: i64  # what makes a protection writable for the kernel
    accessed_faults: i64
    hw_dirty_mask: i64
    hw_dirty_value: i64
    keep: i64
    wrprotect_set: i64
    wrprotect_clear: i64
    cont_bit: i64
    cont_low: i64
    exec_alone: i64
    kernel_reads_user: i64
    kernel_runs_user: i64
    user_write_no_kexec: i64
    lvl_shift: Annotated[Array[i64], MAX_LEVELS]
    lvl_mask: Annotated[Array[i64], MAX_LEVELS]  # entries - 1
    lvl_leaf: Annotated[Array[i64], MAX_LEVELS]
    lvl_addr: Annotated[Array[i64], MAX_LEVELS]
    lvl_high: Annotated[Array[i64], MAX_LEVELS]
    lvl_set: Annotated[Array[i64], MAX_LEVELS]
    lvl_clear: Annotated[Array[i64], MAX_LEVELS]
    lvl_leaf_reserved: Annotated[Array[i64], MAX_LEVELS]
    lvl_table_reserved: Annotated[Array[i64], MAX_LEVELS]
    lvl_cont: Annotated[Array[i64], MAX_LEVELS]
    lvl_checks: Annotated[Array[i64], MAX_LEVELS]
    # Short tests: true for any good pointer to a table; true only for a good leaf.
    lvl_down_mask: Annotated[Array[i64], MAX_LEVELS]
    lvl_down_value: Annotated[Array[i64], MAX_LEVELS]
    lvl_hit_mask: Annotated[Array[i64], MAX_LEVELS]
    lvl_hit_value: Annotated[Array[i64], MAX_LEVELS]
    ram_size: i64
    nr_tables: i64  # pages that hold tables now, the roots among them
    nr_leaves: i64  # leaves entered or removed by the last call
    done: i64  # virtual address up to which the last call came
    use_cont: i64  # 1: mark contiguous groups while mapping
    free_frames: i64  # 1: frames that are unmapped go back to the page allocator
    keep_tables: i64  # 1: tables that become empty stay
    largest: i64  # log2 of the largest leaf to use while mapping
    table_source: i64
    table_order: i64  # log2 of the machine's frames in one table page
    frame_shift: i64  # log2 of the bytes of the machine's frames
    memory_h: i64  # address of the machine's Memory record
    table_gfp: i64
    table_nid: i64
    table_cpu: i64
    nr_pool: i64
    walk_level: i64  # where a walk ended
    walk_perm: i64  # READ | WRITE | EXEC of the kernel, and of the user 4 bits higher
    walk_paddr: i64
    old_paddr: i64  # of the page that the last fault copied
    walk_slot: Annotated[Array[i64], MAX_LEVELS]  # physical address of each level's entry
    walk_entry: Annotated[Array[i64], MAX_LEVELS]
    table_pool: Array[i64]  # frames of table pages at hand: [0 .. nr_pool)
    vma_start: Array[i64]  # mapped areas in order of address (for fault-in)
    vma_end: Array[i64]
    vma_prot: Array[i64]  # protection of pages; 0: no access
    vma_huge: Array[i64]  # 1: huge pages where they fit
    queries: Array[i64]  # virtual addresses to translate
    answers: Array[i64]  # their physical addresses
    copied_from: Array[i64]  # of faults that copied a page: where from
    frame_shares: Array[i64]  # by frame: address spaces that have it beside the first; or empty
    ram_entries: Array[i64]  # the machine's bytes as entries of 8 bytes
    ram_entries32: Array[u32]  # and of 4


table_at = pointer_to(TableRecord)
"""The record at an address (inside kernels)."""
