# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that hold tables: taken from a pool while the machine starts, then from the page allocator.

A pool is filled by whoever owns the boot allocator. Frames that came from it go back to it; frames
of the page allocator go back there.

Linux: pte_alloc_one(), pmd_alloc_one(), pgtable_pte_page_ctor(), include/asm-generic/pgalloc.h
"""

from physmem.lib.jit import kernel
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import HEAD_IN_USE, NONE, PG_IN_USE
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages
from physmem.pgtable.entry import is_none, load, store
from physmem.pgtable.record import FROM_BUDDY, NEED_TABLE, NO_MEMORY, OUTSIDE, TableRecord, table_at


@kernel
def frame_alloc(pt: TableRecord, gfp: int, order: int) -> int:
    """2**order frames of the page allocator: physical address, or NO_MEMORY."""
    m = memory_at(pt.memory_h)
    pfn = alloc_pages(m, order, gfp, pt.table_nid, pt.table_cpu, 0)
    if pfn == NONE:
        return NO_MEMORY
    return pfn << pt.frame_shift


@kernel
def frame_free(pt: TableRecord, pa: int, order: int) -> bool:
    """Give frames back; False when they are not a block of the page allocator."""
    m = memory_at(pt.memory_h)
    pfn = pa >> pt.frame_shift
    if pfn >= m.max_pfn or not m.mem_map[pfn].flags & PG_IN_USE:
        return False
    if m.mem_map[pfn].order != HEAD_IN_USE | order:
        return False
    return free_pages(m, pfn, order, pt.table_cpu, False)


@kernel
def shares_of(pt: TableRecord, pa: int) -> int:
    """Address spaces that have a page beside the first (page_count() - 1)."""
    pfn = pa >> pt.frame_shift
    return int(pt.frame_shares[pfn]) if pfn < len(pt.frame_shares) else 0


@kernel
def frame_put(pt: TableRecord, pa: int, order: int) -> None:
    """One user of a block less; the last gives it back.

    Linux: put_page(), include/linux/mm.h
    """
    if shares_of(pt, pa):
        pt.frame_shares[pa >> pt.frame_shift] -= 1
    else:
        frame_free(pt, pa, order)


@kernel
def frame_split(pt: TableRecord, pa: int, order: int, parts: int) -> None:
    """Make a block of 2**order frames 2**(order - parts) blocks of 2**parts, to free one by one.

    Linux: split_page(), mm/page_alloc.c
    """
    m = memory_at(pt.memory_h)
    pfn = pa >> pt.frame_shift
    if pfn >= m.max_pfn or m.mem_map[pfn].order != HEAD_IN_USE | order:
        return
    for frame in range(pfn, pfn + (1 << order), 1 << parts):
        m.mem_map[frame].order = HEAD_IN_USE | parts


@kernel
def zero_page(pt: TableRecord, pa: int) -> int:
    """Clear a page for a table; OUTSIDE when it is not in memory."""
    if pa < 0 or pa + pt.page_size > pt.ram_size:
        return OUTSIDE
    first = pa >> 3
    for word in range(first, first + (pt.page_size >> 3)):
        pt.ram_entries[word] = 0
    return 0


@kernel
def table_alloc(pt: TableRecord) -> int:
    """Zeroed page for a table: physical address, or a negative code.

    Linux: __get_free_page(GFP_PGTABLE_KERNEL); alloc_low_pages(), arch/x86/mm/init.c
    """
    if pt.nr_pool > 0:
        pt.nr_pool -= 1
        pa = int(pt.table_pool[pt.nr_pool]) << pt.frame_shift
    elif pt.table_source == FROM_BUDDY:
        pa = frame_alloc(pt, pt.table_gfp, pt.table_order)
        if pa < 0:
            return pa
    else:
        return NEED_TABLE
    if zero_page(pt, pa):
        return OUTSIDE
    pt.nr_tables += 1
    return pa


@kernel
def table_free(pt: TableRecord, pa: int) -> bool:
    """Give the page of a table back; False, and nothing done, when the pool is full.

    Linux: pte_free(), pmd_free(), ...
    """
    if pt.table_source != FROM_BUDDY or not frame_free(pt, pa, pt.table_order):
        if pt.nr_pool >= len(pt.table_pool):
            return False
        pt.table_pool[pt.nr_pool] = pa >> pt.frame_shift
        pt.nr_pool += 1
    pt.nr_tables -= 1
    return True


@kernel
def is_empty(pt: TableRecord, table: int, level: int) -> bool:
    """Whether a table has no entry."""
    for index in range(pt.lvl_mask[level] + 1):
        if not is_none(pt, load(pt, table + (index << pt.entry_shift))):
            return False
    return True


@kernel
def free_empty(pt: TableRecord, level: int) -> None:
    """Free the table at `level` of the walk just done if it is empty, and those above it likewise.

    Linux: free_pte_range(), free_pmd_range(), ..., mm/memory.c
    """
    while level > 0:
        table = int(pt.walk_slot[level]) & -pt.page_size
        if not is_empty(pt, table, level) or not table_free(pt, table):
            return
        level -= 1
        store(pt, int(pt.walk_slot[level]), 0)


@kernel
def do_table_alloc(h: int) -> int:
    """`table_alloc` from Python."""
    return table_alloc(table_at(h))


@kernel
def do_table_free(h: int, pa: int) -> bool:
    """`table_free` from Python."""
    return table_free(table_at(h), pa)


@kernel
def do_frame_alloc(h: int, gfp: int, order: int) -> int:
    """`frame_alloc` from Python."""
    return frame_alloc(table_at(h), gfp, order)


@kernel
def do_frame_split(h: int, pa: int, order: int, parts: int) -> None:
    """`frame_split` from Python."""
    frame_split(table_at(h), pa, order, parts)


@kernel
def do_frame_free(h: int, pa: int, order: int) -> bool:
    """`frame_free` from Python."""
    return frame_free(table_at(h), pa, order)
