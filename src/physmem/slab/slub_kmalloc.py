# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory by size: from the general caches, or beyond them straight from the page allocator.

Linux: kmalloc_slab(), kmalloc_type(), kmalloc_large(), kfree(), mm/slab_common.c (6.1)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.gfp import __GFP_ACCOUNT, __GFP_COMP, __GFP_DMA, __GFP_RECLAIMABLE, __GFP_ZERO
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages
from physmem.slab.kmalloc_classes import CGROUP, DMA, KMALLOC_MAX_SIZE, NORMAL, RECLAIM
from physmem.slab.slub_alloc import slab_alloc
from physmem.slab.slub_debug import init_requested
from physmem.slab.slub_free import slab_free
from physmem.slab.slub_object import fill, page_address, virt_to_pfn
from physmem.slab.slub_page import PAGES_ALLOCATED, PAGES_FREED, log_pages
from physmem.slab.slub_types import (
    FRAME_FREE,
    FRAME_LARGE,
    FRAME_LARGE_TAIL,
    NO_CACHE,
    NR_CLASSES,
    SlubMemory,
)

DMA_BIT = __GFP_DMA
RECLAIMABLE_BIT = __GFP_RECLAIMABLE
ACCOUNT_BIT = __GFP_ACCOUNT
ZERO_BIT = __GFP_ZERO
COMP_BIT = __GFP_COMP
ZERO_SIZE = 16
"""The pointer that a request of 0 bytes gets."""


@kernel
def fls(x: int) -> int:
    """1 + index of the highest set bit; 0 for 0."""
    n = 0
    while x:
        x >>= 1
        n += 1
    return n


@inlined
def kmalloc_slab(m: SlubMemory, size: int, gfp: int) -> int:
    """Number of the general cache that serves a request."""
    index = m.size_index[(size - 1) >> 3]
    kind = NORMAL
    if gfp & (DMA_BIT | RECLAIMABLE_BIT | ACCOUNT_BIT):
        if gfp & DMA_BIT and m.zone_dma:
            kind = DMA
        elif gfp & RECLAIMABLE_BIT:
            kind = RECLAIM
        elif gfp & ACCOUNT_BIT and m.kmalloc_types:
            kind = CGROUP
    return m.kmalloc_caches[kind * NR_CLASSES + index]


@kernel
def kmalloc_large(m: SlubMemory, size: int, gfp: int, nid: int, cpu: int) -> int:
    """Whole frames for a request beyond the general caches; 0: no memory."""
    if size > KMALLOC_MAX_SIZE:
        return 0
    memory = memory_at(m.memory)
    order = max(fls(size - 1) - m.page_shift, 0)
    node = memory.cpu_node[cpu] if nid == NONE else nid
    pfn = alloc_pages(memory, order, gfp | COMP_BIT, node, cpu, 0)
    if pfn == NONE:
        return 0
    for frame in range(pfn, pfn + (1 << order)):
        m.slab_map[frame].kind = FRAME_LARGE_TAIL
        m.slab_map[frame].head = pfn
    m.slab_map[pfn].kind = FRAME_LARGE
    m.slab_map[pfn].order = order
    m.nr_unreclaimable += 1 << (order + m.page_shift)
    log_pages(m, PAGES_ALLOCATED, order, NO_CACHE, pfn)
    if gfp & ZERO_BIT:
        fill(m, page_address(m, pfn), 1 << (order + m.page_shift), 0)
    return page_address(m, pfn)


@kernel
def free_large(m: SlubMemory, pfn: int, cpu: int) -> None:
    """Give the frames of a large kmalloc back."""
    order = int(m.slab_map[pfn].order)
    for frame in range(pfn, pfn + (1 << order)):
        m.slab_map[frame].kind = FRAME_FREE
    m.nr_unreclaimable -= 1 << (order + m.page_shift)
    log_pages(m, PAGES_FREED, order, NO_CACHE, pfn)
    free_pages(memory_at(m.memory), pfn, order, cpu, False)


@inlined
def kmalloc(m: SlubMemory, size: int, gfp: int, nid: int, cpu: int) -> int:
    """Memory of at least `size` bytes; 0: there is none. Linux: __kmalloc() (6.1)"""
    if size <= 0:
        return ZERO_SIZE if size == 0 else 0
    if size > 1 << m.shift_high:
        return kmalloc_large(m, size, gfp, nid, cpu)
    s = m.kmem_caches[kmalloc_slab(m, size, gfp)]
    address = slab_alloc(m, s, gfp, nid, cpu)
    if address != 0:
        if s.orig_offset:
            init_requested(m, s, address, size)
        if gfp & ZERO_BIT:
            fill(m, address, size if s.red_at_request else s.object_size, 0)
    return address


@inlined
def kfree(m: SlubMemory, address: int, cpu: int) -> bool:
    """Free what kmalloc or a cache gave; False: a check failed. Linux: kfree() (6.1)"""
    if 0 <= address <= ZERO_SIZE:
        return True
    pfn = virt_to_pfn(m, address)
    if m.slab_map[pfn].kind == FRAME_LARGE:
        free_large(m, pfn, cpu)
        return True
    return slab_free(m, address, cpu)
