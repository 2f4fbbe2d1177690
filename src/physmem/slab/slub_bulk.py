# SPDX-License-Identifier: GPL-2.0-or-later
"""Many objects at once.

Linux: kmem_cache_alloc_bulk(), kmem_cache_free_bulk(), build_detached_freelist(), mm/slub.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.lib.struct import Array, i64
from physmem.mm.mmzone import NONE
from physmem.slab.slub_alloc import alloc_slow
from physmem.slab.slub_free import free_slow
from physmem.slab.slub_kmalloc import free_large
from physmem.slab.slub_object import get_freepointer, mark_dead, set_freepointer, virt_to_pfn
from physmem.slab.slub_types import (
    ALLOC_FASTPATH,
    FRAME_LARGE,
    FREE_FASTPATH,
    KmemCache,
    SlubMemory,
)

LOOKAHEAD = 3


@kernel
def alloc_bulk(m: SlubMemory, s: KmemCache, gfp: int, cpu: int, out: Array[i64]) -> int:
    """Fill `out` with objects; how many there are, fewer only when memory is short."""
    c = s.cpu_slab[cpu]
    for i in range(len(out)):
        address = c.freelist
        if address == 0:
            c.tid += 1
            address = alloc_slow(m, s, gfp, NONE, cpu)
            if address == 0:
                return i
        else:
            c.freelist = get_freepointer(m, s, address)
            c.stat[ALLOC_FASTPATH] += 1
        out[i] = address
    return len(out)


@kernel
def free_chain(m: SlubMemory, pfn: int, head: int, tail: int, count: int, cpu: int) -> bool:
    """Free objects of one slab, chained: to the CPU's free objects if it is its slab."""
    s = m.kmem_caches[int(m.slab_map[pfn].cache)]
    c = s.cpu_slab[cpu]
    if c.slab == pfn:
        set_freepointer(m, s, tail, c.freelist)
        c.freelist = head
        c.tid += 1
        c.stat[FREE_FASTPATH] += 1
        return True
    return free_slow(m, pfn, head, tail, count, cpu)


@kernel
def free_bulk(m: SlubMemory, p: Array[i64], count: int, cpu: int) -> bool:
    """Free the first `count` objects of `p` (reordered on the way); False: a check failed."""
    good = True
    size = count
    while size > 0:
        size -= 1
        address = p[size]
        frame = virt_to_pfn(m, address)
        pfn = int(m.slab_map[frame].head)
        mark_dead(m, address)
        if m.slab_map[pfn].kind == FRAME_LARGE:
            free_large(m, pfn, cpu)
            continue
        s = m.kmem_caches[int(m.slab_map[pfn].cache)]
        tail = address
        head = address
        chained = 1
        set_freepointer(m, s, address, 0)
        same = size
        at = size
        left = LOOKAHEAD
        while at > 0:
            at -= 1
            address = p[at]
            if m.slab_map[virt_to_pfn(m, address)].head == pfn:
                mark_dead(m, address)
                set_freepointer(m, s, address, head)
                head = address
                chained += 1
                same -= 1
                if at != same:
                    p[at] = p[same]
                    p[same] = address
                continue
            left -= 1
            if left == 0:
                break
        size = same
        good = free_chain(m, pfn, head, tail, chained, cpu) and good
    return good
