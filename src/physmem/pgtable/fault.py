# SPDX-License-Identifier: GPL-2.0-or-later
"""Anonymous memory that appears at its first use.

Linux: handle_mm_fault(), do_anonymous_page(), mm/memory.c; do_huge_pmd_anonymous_page(),
mm/huge_memory.c
"""

from physmem.lib.jit import inlined, kernel
from physmem.pgtable.entry import load, store
from physmem.pgtable.mapping import map_page
from physmem.pgtable.record import (
    FAULT_ACCESS,
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
from physmem.pgtable.tables import frame_alloc, frame_free
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
    if reason == OK and refusal(pt, access | USER) == NO_WRITE:
        make_dirty(pt)
        slot = int(pt.walk_slot[pt.walk_level])
        store(pt, slot, load(pt, slot) | pt.dirty)  # for software, which may protect it again
        walk(pt, va)
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

    `answers`: what each did, a FAULT_* with the address of the memory mapped, or a negative code.
    """
    pt = table_at(h)
    mapped = 0
    for i in range(len(pt.queries)):
        va = int(pt.queries[i])
        did = handle_fault(pt, va, WRITE if va & 1 else READ)
        if did == FAULT_MAPPED or did == FAULT_HUGE:
            did |= int(pt.walk_paddr)
            mapped += 1
        pt.answers[i] = did
    return mapped
