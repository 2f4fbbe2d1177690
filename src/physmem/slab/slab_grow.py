# SPDX-License-Identifier: GPL-2.0-or-later
"""A slab from the page allocator, and back.

Linux: cache_grow(), alloc_slabmgmt(), cache_init_objs(), slab_destroy(), mm/slab.c (2.6.24)

The descriptor of a slab may be an object of another cache, whose own slabs hold theirs; kernels do
not call themselves, so what such caches need comes first (names that end in _on).
"""

from physmem.lib.jit import kernel
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages, page_zone
from physmem.slab.flags import SLAB_RECLAIM_ACCOUNT
from physmem.slab.slab_debug import CHECKS, init_debug
from physmem.slab.slab_object import bufctl_place, list_add_tail
from physmem.slab.slab_types import (
    BUFCTL_END,
    FRAME_HEAD,
    FRAME_NONE,
    FRAME_TAIL,
    GROWN,
    ON_FREE,
    ON_NONE,
    REAPED,
    SlabCache,
    SlabMemory,
)
from physmem.slab.slub_page import PAGES_ALLOCATED, PAGES_FREED, SLAB_GFP

RECLAIMABLE = 0x10


@kernel
def log_pages(m: SlabMemory, kind: int, c: SlabCache, pfn: int) -> None:
    """Note a call of the page allocator, while there is room."""
    n = m.page_log[0]
    m.page_log[0] = n + 1
    at = 1 + 2 * n
    if at + 1 < len(m.page_log):
        m.page_log[at] = kind | c.gfporder << 8 | c.number << 16
        m.page_log[at + 1] = pfn


@kernel
def next_colour(c: SlabCache, nid: int) -> int:
    """Bytes that the next slab of a node is shifted by."""
    l3 = c.nodelists[nid]
    offset = l3.colour_next
    l3.colour_next += 1
    if l3.colour_next >= c.colour:
        l3.colour_next = 0
    return offset * c.colour_off


@kernel
def getpages(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """Frames for a slab; the first, or NONE. Linux: kmem_getpages(), mm/slab.c (2.6.24)"""
    flags = gfp & SLAB_GFP | c.gfpflags
    if c.cache_flags & SLAB_RECLAIM_ACCOUNT:
        flags |= RECLAIMABLE
    memory = memory_at(m.memory)
    node = memory.cpu_node[cpu] if nid == NONE else nid
    pfn = alloc_pages(memory, c.gfporder, flags, node, cpu, 0)
    if pfn != NONE:
        log_pages(m, PAGES_ALLOCATED, c, pfn)
    return pfn


@kernel
def freepages(m: SlabMemory, c: SlabCache, pfn: int, cpu: int) -> None:
    """Give the frames of a slab back."""
    for frame in range(pfn, pfn + (1 << c.gfporder)):
        m.slab_frames[frame].kind = FRAME_NONE
    log_pages(m, PAGES_FREED, c, pfn)
    free_pages(memory_at(m.memory), pfn, c.gfporder, cpu, False)


@kernel
def install_slab(m: SlabMemory, c: SlabCache, pfn: int, mgmt: int, offset: int) -> None:
    """Make a slab of frames: all objects free, at the tail of its node's free slabs."""
    memory = memory_at(m.memory)
    nid = memory.zones[page_zone(memory, pfn)].node if m.numa else 0
    for frame in range(pfn, pfn + (1 << c.gfporder)):
        m.slab_frames[frame].kind = FRAME_TAIL
        m.slab_frames[frame].head = pfn
        m.slab_frames[frame].cache = c.number
    slab = m.slab_frames[pfn]
    slab.kind = FRAME_HEAD
    slab.nodeid = nid
    slab.inuse = 0
    slab.free = 0
    slab.list = ON_NONE
    start = m.page_offset + (pfn << m.page_shift) + offset
    if c.off_slab:
        slab.mgmt = mgmt
        slab.s_mem = start
    else:
        slab.mgmt = start
        slab.s_mem = start + c.slab_size
    place = bufctl_place(m, pfn)
    for index in range(c.num):
        m.ram_ints[place + index] = index + 1
    m.ram_ints[place + c.num - 1] = BUFCTL_END
    if c.cache_flags & CHECKS:
        for index in range(c.num):
            init_debug(m, c, slab.s_mem + index * c.buffer_size)
    if c.ctor and m.nr_ctor < len(m.ctor_slabs):
        m.ctor_slabs[m.nr_ctor] = pfn
        m.nr_ctor += 1
    l3 = c.nodelists[nid]
    list_add_tail(m, l3, ON_FREE, pfn)
    l3.free_objects += c.num
    c.statistic[GROWN] += 1


@kernel
def grow_on(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> bool:
    """One more slab for a cache with its descriptors in the slabs."""
    offset = next_colour(c, nid)
    pfn = getpages(m, c, gfp, nid, cpu)
    if pfn == NONE:
        return False
    install_slab(m, c, pfn, 0, offset)
    return True


@kernel
def destroy_on(m: SlabMemory, c: SlabCache, pfn: int, cpu: int) -> None:
    """End a slab that is on no list and has its descriptor inside.

    DEVIATION: the grace period of SLAB_DESTROY_BY_RCU caches is over at once.
    """
    c.statistic[REAPED] += 1
    freepages(m, c, pfn, cpu)
