# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of SLAB that Python calls: the state comes as the address of its `SlabMemory` record.

They believe nobody: a wrong pointer gets a code, and nothing is done.
"""

from physmem.lib.jit import inlined, kernel
from physmem.lib.struct import Array, i64
from physmem.mm.mmzone import NONE
from physmem.slab.codes import CHECK_FAILED
from physmem.slab.slab_alloc import cache_alloc
from physmem.slab.slab_debug import (
    CHECKS,
    DOUBLE_FREE,
    INVALID_POINTER,
    NOT_A_SLAB,
    OK,
    WRONG_CACHE,
    check_alloc,
    check_free,
)
from physmem.slab.slab_free import (
    cache_free,
    drain_alien,
    free_block,
    return_object,
    slab_destroy,
)
from physmem.slab.slab_object import (
    fill,
    frame_of,
    is_live,
    mark_dead,
    mark_live,
    obj_to_index,
    slab_at,
)
from physmem.slab.slab_reap import drain_freelist, reap_cache, shrink_cache
from physmem.slab.slab_types import FRAME_NONE, NO_SLAB, SlabCache, SlabMemory

ZERO_BIT = 0x100
DMA_BIT = 1
ZERO_SIZE = 16
TABLE_TOP = 4096
"""Sizes up to this are looked up in a table of steps of 32 bytes."""


@inlined
def general_place(m: SlabMemory, size: int) -> int:
    """Place of the general cache for a size among them."""
    if size <= TABLE_TOP:
        return 0 + m.size_place[(size - 1) >> 5]
    nr = len(m.general) // 3
    place = 0
    while place < nr and m.general[place] < size:
        place += 1
    return place


@inlined
def kmalloc_cache(m: SlabMemory, size: int, gfp: int) -> int:
    """Number of the general cache for a request."""
    nr = len(m.general) // 3
    dma = nr if gfp & DMA_BIT and m.zone_dma else 0
    return m.general[nr + dma + general_place(m, size)]


@inlined
def object_alloc(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """One object as its user sees it; 0: no memory, or a check failed (`m.error`)."""
    address = cache_alloc(m, c, gfp, nid, cpu)
    if address == 0:
        return 0
    if c.cache_flags & CHECKS and not check_alloc(m, c, address):
        cache_free(m, c, address, cpu)
        return 0
    address += c.obj_offset
    if gfp & ZERO_BIT:
        fill(m, address, c.obj_size, 0)
    return address


@inlined
def object_free(m: SlabMemory, address: int, cpu: int) -> bool:
    """Free an object of any cache; False: a check failed."""
    c = m.slab_caches[0 + m.slab_frames[frame_of(m, address)].cache]
    address -= c.obj_offset
    if c.cache_flags & CHECKS and not check_free(m, c, address):
        return False
    cache_free(m, c, address, cpu)
    return True


@inlined
def kmalloc(m: SlabMemory, size: int, gfp: int, nid: int, cpu: int) -> int:
    """Memory of at least `size` bytes; 0: there is none. Linux: __kmalloc() (2.6.24)"""
    if size <= 0:
        return ZERO_SIZE if size == 0 else 0
    if size > m.kmalloc_max:
        return 0
    return object_alloc(m, m.slab_caches[kmalloc_cache(m, size, gfp)], gfp, nid, cpu)


@inlined
def kfree(m: SlabMemory, address: int, cpu: int) -> bool:
    """Free what kmalloc gave; False: a check failed. Linux: kfree() (2.6.24)"""
    if 0 <= address <= ZERO_SIZE:
        return True
    return object_free(m, address, cpu)


@inlined
def why_not(m: SlabMemory, address: int) -> int:
    """OK, or why an address cannot be freed."""
    pfn = (address - m.page_offset) >> m.page_shift
    if pfn < 0 or pfn >= len(m.slab_frames) or m.slab_frames[pfn].kind == FRAME_NONE:
        return NOT_A_SLAB
    if is_live(m, address):
        return OK
    head = 0 + m.slab_frames[pfn].head
    c = m.slab_caches[0 + m.slab_frames[pfn].cache]
    begin = address - c.obj_offset
    offset = begin - m.slab_frames[head].s_mem
    if offset < 0 or offset % c.buffer_size or obj_to_index(m, c, head, begin) >= c.num:
        return INVALID_POINTER
    return DOUBLE_FREE


@kernel
def do_why_not(h: int, address: int) -> int:
    """OK, or why an address is no allocated object."""
    return why_not(slab_at(h), address)


@kernel
def do_cache_alloc(h: int, number: int, gfp: int, nid: int, cpu: int) -> int:
    """One object of a cache; its address, or 0."""
    m = slab_at(h)
    address = object_alloc(m, m.slab_caches[number], gfp, nid, cpu)
    if address != 0:
        mark_live(m, address)
    return address


@kernel
def do_cache_free(h: int, number: int, address: int, cpu: int) -> int:
    """Free an object of a cache (NONE: of any): OK, or why it was not done."""
    m = slab_at(h)
    if number == NONE and 0 <= address <= ZERO_SIZE:
        return OK
    code = why_not(m, address)
    if code != OK:
        return code
    if number != NONE and m.slab_frames[frame_of(m, address)].cache != number:
        return WRONG_CACHE
    if not object_free(m, address, cpu):
        return CHECK_FAILED
    mark_dead(m, address)
    return OK


@kernel
def do_kmalloc(h: int, size: int, gfp: int, nid: int, cpu: int) -> int:
    """Memory by size; its address, or 0."""
    m = slab_at(h)
    address = kmalloc(m, size, gfp, nid, cpu)
    if address != 0 and address != ZERO_SIZE:
        mark_live(m, address)
    return address


@kernel
def do_kfree(h: int, address: int, cpu: int) -> int:
    """Free memory: OK, or why it was not done."""
    return do_cache_free(h, NONE, address, cpu)


@kernel
def do_alloc_many(h: int, number: int, gfp: int, cpu: int, out: Array[i64]) -> int:
    """Fill `out` with objects of a cache, one by one; how many there are."""
    for i in range(len(out)):
        out[i] = do_cache_alloc(h, number, gfp, NONE, cpu)
        if out[i] == 0:
            return i
    return len(out)


@kernel
def do_free_many(h: int, number: int, p: Array[i64], cpu: int) -> int:
    """Free all of `p` one by one: -1, or the place of the first bad; its code is in `m.error`.

    Nothing is done when there is a bad one (or one that comes twice); what only debug builds check
    is found on the way, after those before it were freed.
    """
    m = slab_at(h)
    for i in range(len(p)):
        code = why_not(m, p[i])
        if code == OK and number != NONE and m.slab_frames[frame_of(m, p[i])].cache != number:
            code = WRONG_CACHE
        if code != OK:
            for j in range(i):
                mark_live(m, p[j])
            m.error = code
            return i
        mark_dead(m, p[i])
    for i in range(len(p)):
        if not object_free(m, p[i], cpu):
            for j in range(i, len(p)):
                mark_live(m, p[j])
            return len(p)
    return -1


@kernel
def do_shrink(h: int, number: int) -> bool:
    """Shrink a cache; True: slabs remain."""
    m = slab_at(h)
    return shrink_cache(m, m.slab_caches[number])


@kernel
def do_reap(h: int, number: int, cpu: int) -> None:
    """One cache's part of a CPU's periodic work."""
    m = slab_at(h)
    reap_cache(m, m.slab_caches[number], cpu)


@kernel
def do_drain_cpu(h: int, number: int, cpu: int, nid: int) -> None:
    """Empty a CPU's array."""
    m = slab_at(h)
    c = m.slab_caches[number]
    ac = c.cpu_array[cpu]
    free_block(m, c, ac, ac.avail, nid, 0)
    ac.avail = 0


@kernel
def do_drain_shared(h: int, number: int, nid: int) -> None:
    """Empty a node's shared array."""
    m = slab_at(h)
    c = m.slab_caches[number]
    l3 = c.nodelists[nid]
    if len(l3.shared):
        free_block(m, c, l3.shared[0], l3.shared[0].avail, nid, 0)
        l3.shared[0].avail = 0


@kernel
def do_drain_alien(h: int, number: int, nid: int) -> None:
    """Empty a node's arrays for objects of other nodes."""
    m = slab_at(h)
    c = m.slab_caches[number]
    l3 = c.nodelists[nid]
    for other in range(len(l3.alien)):
        if l3.alien[other].avail > 0:
            drain_alien(m, c, l3.alien[other], other, 0)


@kernel
def do_drain_freelist(h: int, number: int, nid: int) -> int:
    """End all free slabs of a node; how many."""
    m = slab_at(h)
    c = m.slab_caches[number]
    return drain_freelist(m, c, c.nodelists[nid], 1 << 40, 0)


@kernel
def do_free_block(h: int, number: int, p: Array[i64], nid: int) -> None:
    """Give objects, which are in no array, back to their slabs."""
    m = slab_at(h)
    c = m.slab_caches[number]
    for i in range(len(p)):
        ended = return_object(m, c, p[i], nid)
        if ended != NO_SLAB:
            slab_destroy(m, c, ended, 0)
