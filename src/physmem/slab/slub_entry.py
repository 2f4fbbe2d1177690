# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of SLUB that Python calls: the state comes as the address of its `SlubMemory` record.

They believe nobody: a wrong pointer gets a code, and nothing is done. What a kernel would notice
only with debugging switched on (a double free) is noticed always.
"""

from physmem.lib.jit import inlined, kernel
from physmem.lib.struct import Array, i64
from physmem.mm.mmzone import NONE
from physmem.slab.codes import CHECK_FAILED
from physmem.slab.slub_alloc import BAD_SLAB, slab_alloc
from physmem.slab.slub_bulk import alloc_bulk, free_bulk
from physmem.slab.slub_debug import (
    ALREADY_FREE,
    INVALID_POINTER,
    NOT_A_SLAB,
    NOT_LARGE_START,
    OK,
    WRONG_CACHE,
    valid_pointer,
)
from physmem.slab.slub_free import slab_free
from physmem.slab.slub_kmalloc import ZERO_BIT, ZERO_SIZE, kfree, kmalloc
from physmem.slab.slub_object import (
    fill,
    is_live,
    mark_dead,
    mark_live,
    page_address,
    slub_at,
    virt_to_pfn,
)
from physmem.slab.slub_partial import flush_cpu_slab
from physmem.slab.slub_shrink import shrink_cache, shutdown_cache
from physmem.slab.slub_types import (
    FRAME_FREE,
    FRAME_LARGE,
    FRAME_SLAB,
    FRAME_SLAB_TAIL,
    SlubMemory,
)


@inlined
def why_not_kfree(m: SlubMemory, address: int) -> int:
    """OK, or why an address cannot be freed."""
    pfn = virt_to_pfn(m, address)
    if pfn < 0 or pfn >= len(m.slab_map):
        return NOT_A_SLAB
    kind = int(m.slab_map[pfn].kind)
    if kind == FRAME_SLAB or kind == FRAME_SLAB_TAIL:
        head = int(m.slab_map[pfn].head)
        if is_live(m, address) and m.slab_map[head].on_node != BAD_SLAB:
            return OK
        s = m.kmem_caches[int(m.slab_map[head].cache)]
        return ALREADY_FREE if valid_pointer(m, s, head, address) else INVALID_POINTER
    if kind == FRAME_LARGE:
        return OK if page_address(m, pfn) == address else NOT_LARGE_START
    return NOT_A_SLAB if kind == FRAME_FREE else NOT_LARGE_START


@kernel
def do_why_not(h: int, address: int) -> int:
    """OK, or why an address is no allocated object."""
    return why_not_kfree(slub_at(h), address)


@kernel
def do_cache_alloc(h: int, number: int, gfp: int, nid: int, cpu: int) -> int:
    """One object of a cache; its address, or 0."""
    m = slub_at(h)
    s = m.kmem_caches[number]
    address = slab_alloc(m, s, gfp, nid, cpu)
    if address != 0:
        if gfp & ZERO_BIT:
            fill(m, address, s.object_size, 0)
        mark_live(m, address)
    return address


@kernel
def do_cache_free(h: int, number: int, address: int, cpu: int) -> int:
    """Free an object of a cache: OK, or why it was not done."""
    m = slub_at(h)
    code = why_not_kfree(m, address)
    if code == NOT_LARGE_START:
        code = WRONG_CACHE
    if code != OK:
        return code
    head = int(m.slab_map[virt_to_pfn(m, address)].head)
    if m.slab_map[head].kind != FRAME_SLAB or m.slab_map[head].cache != number:
        return WRONG_CACHE
    if not slab_free(m, address, cpu):
        return CHECK_FAILED
    mark_dead(m, address)
    return OK


@kernel
def do_kmalloc(h: int, size: int, gfp: int, nid: int, cpu: int) -> int:
    """Memory by size; its address, or 0."""
    m = slub_at(h)
    address = kmalloc(m, size, gfp, nid, cpu)
    if address != 0 and address != ZERO_SIZE:
        mark_live(m, address)
    return address


@kernel
def do_kfree(h: int, address: int, cpu: int) -> int:
    """Free memory: OK, or why it was not done."""
    m = slub_at(h)
    if 0 <= address <= ZERO_SIZE:
        return OK
    code = why_not_kfree(m, address)
    if code != OK:
        return code
    if not kfree(m, address, cpu):
        return CHECK_FAILED
    mark_dead(m, address)
    return OK


@kernel
def do_alloc_bulk(h: int, number: int, gfp: int, cpu: int, out: Array[i64]) -> int:
    """Fill `out` with objects of a cache; 0, and nothing is kept, when memory is short."""
    m = slub_at(h)
    s = m.kmem_caches[number]
    got = alloc_bulk(m, s, gfp, cpu, out)
    if got < len(out):
        free_bulk(m, out, got, cpu)
        return 0
    for i in range(got):
        if gfp & ZERO_BIT:
            fill(m, out[i], s.object_size, 0)
        mark_live(m, out[i])
    return got


@kernel
def do_free_bulk(h: int, number: int, p: Array[i64], cpu: int) -> int:
    """Free all of `p`, objects of one cache (any: number NONE): -1, or the place of the first bad.

    Nothing is done when there is a bad one (or one that comes twice); its code is in `m.error`.
    """
    m = slub_at(h)
    bad = -1
    for i in range(len(p)):
        code = why_not_kfree(m, p[i])
        if code == OK and number != NONE:
            head = int(m.slab_map[virt_to_pfn(m, p[i])].head)
            if m.slab_map[head].kind != FRAME_SLAB or m.slab_map[head].cache != number:
                code = WRONG_CACHE
        if code != OK:
            m.error = code
            bad = i
            break
        mark_dead(m, p[i])  # so that the same object again is found
    if bad >= 0:
        for i in range(bad):
            mark_live(m, p[i])
        return bad
    return -1 if free_bulk(m, p, len(p), cpu) else len(p)


@kernel
def do_shrink(h: int, number: int) -> bool:
    """Shrink a cache; True: slabs remain."""
    m = slub_at(h)
    return shrink_cache(m, m.kmem_caches[number])


@kernel
def do_shutdown(h: int, number: int) -> int:
    """Free what is empty; slabs in use."""
    m = slub_at(h)
    return shutdown_cache(m, m.kmem_caches[number])


@kernel
def do_flush(h: int, number: int, cpu: int) -> None:
    """Take slab and chain of a cache away from a CPU."""
    m = slub_at(h)
    flush_cpu_slab(m, m.kmem_caches[number], cpu)
