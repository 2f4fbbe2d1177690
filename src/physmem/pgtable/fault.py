# SPDX-License-Identifier: GPL-2.0-or-later
"""Anonymous memory that appears at its first use.

Linux: handle_mm_fault(), do_anonymous_page(), mm/memory.c; do_huge_pmd_anonymous_page(),
mm/huge_memory.c
"""

from physmem.lib.jit import inlined, kernel
from physmem.pgtable.entry import encode_address, leaf_flags, load, store
from physmem.pgtable.mapping import map_page
from physmem.pgtable.record import (
    FAULT_ACCESS,
    FAULT_COPIED,
    FAULT_HUGE,
    FAULT_MAPPED,
    FAULT_PRESENT,
    FAULT_SEGV,
    MAPPED_ALREADY,
    NO_MEMORY,
    NO_WRITE,
    OK,
    OLD,
    PROT_NONE,
    READ,
    USER,
    WRITE,
    TableRecord,
    table_at,
)
from physmem.pgtable.tables import frame_alloc, frame_free, frame_put, shares_of
from physmem.pgtable.touch import make_dirty
from physmem.pgtable.walk import refusal, walk

GFP_HIGHUSER_MOVABLE = 0x100CCA
GFP_TRANSHUGE_LIGHT = 0x3D20CA & ~0x400
"""Without direct reclaim: what a kernel asks for when it may fall back to small pages."""


@kernel
def find_vma(pt: TableRecord, va: int) -> int:
    """Number of the area that holds an address, or -1.

    Linux: find_vma(), mm/mmap.c
    """
    low, high = 0, len(pt.vma_start)
    while low < high:
        middle = (low + high) >> 1
        if pt.vma_end[middle] <= va:
            low = middle + 1
        else:
            high = middle
    if low < len(pt.vma_start) and pt.vma_start[low] <= va:
        return low
    return -1


@inlined
def huge_level(pt: TableRecord) -> int:
    """Level of huge pages: the one above the last."""
    return int(pt.nr_levels - 2)


@kernel
def fault_huge(pt: TableRecord, vma: int, va: int) -> int:
    """Map a huge page around an address; OK, or a code and nothing was done."""
    level = huge_level(pt)
    size = 1 << pt.lvl_shift[level]
    first = va & -size
    if not pt.lvl_leaf[level] or first < pt.vma_start[vma] or first + size > pt.vma_end[vma]:
        return MAPPED_ALREADY
    pa = frame_alloc(pt, GFP_TRANSHUGE_LIGHT, int(pt.lvl_shift[level] - pt.frame_shift))
    if pa < 0:
        return pa
    code = map_page(pt, first, pa, level, int(pt.vma_prot[vma]))
    if code != OK:  # a small page is there already
        frame_free(pt, pa, int(pt.lvl_shift[level] - pt.frame_shift))
        return code
    pt.walk_paddr = pa
    return OK


@kernel
def wp_fault(pt: TableRecord, prot: int) -> int:
    """After a walk to a page that is only protected because others have it, or had it.

    Who is alone may write; else there is a copy: its bytes are the caller's task, from `old_paddr`
    to `walk_paddr`.

    Linux: do_wp_page(), wp_page_copy(), wp_page_reuse(), mm/memory.c
    """
    level = int(pt.walk_level)
    slot = int(pt.walk_slot[level])
    size = 1 << pt.lvl_shift[level]
    pa = pt.walk_paddr & -size
    order = int(pt.lvl_shift[level] - pt.frame_shift)
    flags = leaf_flags(pt, level, prot) | pt.young
    did = FAULT_PRESENT
    if shares_of(pt, pa):
        pt.old_paddr = pa
        pa = frame_alloc(pt, GFP_HIGHUSER_MOVABLE, order)
        if pa < 0:
            return NO_MEMORY
        frame_put(pt, int(pt.old_paddr), order)
        did = FAULT_COPIED
    store(pt, slot, encode_address(pt, level, pa) | flags)
    pt.walk_paddr = pa
    return did


@kernel
def handle_fault(pt: TableRecord, va: int, access: int) -> int:
    """Let a user's access succeed if it may: FAULT_* or a negative code.

    The memory mapped is at `walk_paddr` and not cleared: to look at what was never written would
    cost memory of the host, so the caller, who knows what was written, does it.
    """
    vma = find_vma(pt, va)
    if vma < 0:
        return FAULT_SEGV
    prot = int(pt.vma_prot[vma])
    if prot & pt.present == 0:
        return FAULT_ACCESS
    reason = walk(pt, va)
    if reason == OLD:
        slot = int(pt.walk_slot[pt.walk_level])
        store(pt, slot, load(pt, slot) | pt.young)
        reason = walk(pt, va)
    if reason == OK and refusal(pt, access | USER) == NO_WRITE and prot & pt.soft_write:
        make_dirty(pt)
        slot = int(pt.walk_slot[pt.walk_level])
        store(pt, slot, load(pt, slot) | pt.dirty)  # for software, which may protect it again
        walk(pt, va)
    may_write = access & WRITE and prot & pt.soft_write
    if reason == OK and may_write and refusal(pt, access | USER) == NO_WRITE:
        return wp_fault(pt, prot)
    if reason == OK:
        return FAULT_PRESENT if refusal(pt, access | USER) == OK else FAULT_ACCESS
    if reason == PROT_NONE:
        return FAULT_ACCESS
    if access & WRITE and prot & pt.soft_write == 0:
        return FAULT_ACCESS
    if pt.vma_huge[vma] and fault_huge(pt, vma, va) == OK:
        return FAULT_HUGE
    order = int(pt.lvl_shift[pt.nr_levels - 1] - pt.frame_shift)
    pa = frame_alloc(pt, GFP_HIGHUSER_MOVABLE, order)
    if pa < 0:
        return NO_MEMORY
    code = map_page(pt, va & -pt.page_size, pa, int(pt.nr_levels - 1), prot)
    if code != OK:
        frame_free(pt, pa, order)
        return code
    pt.walk_paddr = pa
    return FAULT_MAPPED


@kernel
def do_fault(h: int, va: int, access: int) -> int:
    """`handle_fault` from Python."""
    return handle_fault(table_at(h), va, access)


@kernel
def do_fault_stream(h: int) -> int:
    """Touch all `queries` (bit 0: to write); faults that mapped.

    `answers`: what each did, a FAULT_* with the address of the memory mapped (FAULT_COPIED: the
    address alone, and `copied_from`), or a negative code.
    """
    pt = table_at(h)
    mapped = 0
    for i in range(len(pt.queries)):
        va = int(pt.queries[i])
        did = handle_fault(pt, va, WRITE if va & 1 else READ)
        if did == FAULT_MAPPED or did == FAULT_HUGE:
            did |= int(pt.walk_paddr)
            mapped += 1
        elif did == FAULT_COPIED:
            did = int(pt.walk_paddr)
            pt.copied_from[i] = pt.old_paddr
            mapped += 1
        pt.answers[i] = did
    return mapped
