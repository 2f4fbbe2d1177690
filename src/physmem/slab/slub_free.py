# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back of an object: to the CPU's free objects, or to its slab, which may then move.

Linux: do_slab_free(), __slab_free(), free_to_partial_list(), mm/slub.c (6.1, 6.12)
"""

from physmem.lib.jit import inlined, kernel
from physmem.slab.flags import SLAB_CONSISTENCY_CHECKS, SLAB_STORE_USER
from physmem.slab.slub_debug import (
    ALREADY_FREE,
    INVALID_POINTER,
    SLUB_RED_ACTIVE,
    SLUB_RED_INACTIVE,
    TRACK_FREE,
    check_object,
    check_slab,
    init_object,
    note_error,
    on_freelist,
    set_track,
    valid_pointer,
)
from physmem.slab.slub_list import add_partial, remove_full, remove_partial
from physmem.slab.slub_object import get_freepointer, set_freepointer, virt_to_pfn
from physmem.slab.slub_page import discard_slab, node_of
from physmem.slab.slub_partial import put_cpu_partial
from physmem.slab.slub_types import (
    CPU_PARTIAL_FREE,
    FREE_ADD_PARTIAL,
    FREE_FASTPATH,
    FREE_FROZEN,
    FREE_REMOVE_PARTIAL,
    FREE_SLOWPATH,
    KmemCache,
    SlubMemory,
)


@kernel
def free_checked(m: SlubMemory, s: KmemCache, pfn: int, address: int, cpu: int) -> bool:
    """Check an object that is to be freed and mark it as free.

    Linux: free_debug_processing(), mm/slub.c (6.1)
    """
    if s.cache_flags & SLAB_CONSISTENCY_CHECKS:
        if not check_slab(m, s, pfn):
            return False
        if not valid_pointer(m, s, pfn, address):
            note_error(m, s, INVALID_POINTER, address, 0)
            return False
        if on_freelist(m, s, pfn, address):
            note_error(m, s, ALREADY_FREE, address, 0)
            return False
        if not check_object(m, s, pfn, address, SLUB_RED_ACTIVE):
            return False
    set_track(m, s, address, TRACK_FREE, cpu)
    init_object(m, s, address, SLUB_RED_INACTIVE)
    return True


@kernel
def free_debug(m: SlubMemory, pfn: int, head: int, tail: int, count: int, cpu: int) -> bool:
    """Free objects of a debug cache, chained from `head` to `tail`; False: a check failed.

    Linux: free_to_partial_list(), mm/slub.c (6.1.19x)
    """
    slab = m.slab_map[pfn]
    s = m.kmem_caches[int(slab.cache)]
    at = head
    for _ in range(count):
        after = 0 if at == tail else get_freepointer(m, s, at)
        if not free_checked(m, s, pfn, at, cpu):
            return False
        if after:
            set_freepointer(m, s, at, after)  # poison may have covered it
        at = after
    n = s.node_lists[node_of(m, pfn)]
    prior = slab.freelist
    slab.inuse = slab.inuse - count
    set_freepointer(m, s, tail, prior)
    slab.freelist = head
    empty = slab.inuse == 0 and n.nr_partial >= s.min_partial
    if prior == 0:
        if s.cache_flags & SLAB_STORE_USER:
            remove_full(m, n, pfn)
        if not empty:
            add_partial(m, n, pfn, True)
            s.cpu_slab[cpu].stat[FREE_ADD_PARTIAL] += 1
    elif empty:
        remove_partial(m, n, pfn)
        s.cpu_slab[cpu].stat[FREE_REMOVE_PARTIAL] += 1
    if empty:
        discard_slab(m, s, pfn, cpu)
    return True


@kernel
def free_slow(m: SlubMemory, pfn: int, head: int, tail: int, count: int, cpu: int) -> bool:
    """Free objects of one slab, chained from `head` to `tail`; False: a check failed.

    Linux: __slab_free(), mm/slub.c (6.1)
    """
    slab = m.slab_map[pfn]
    s = m.kmem_caches[int(slab.cache)]
    c = s.cpu_slab[cpu]
    c.stat[FREE_SLOWPATH] += 1
    if s.debug:
        return free_debug(m, pfn, head, tail, count, cpu)
    prior = slab.freelist
    set_freepointer(m, s, tail, prior)
    slab.freelist = head
    slab.inuse = slab.inuse - count
    if slab.frozen:
        c.stat[FREE_FROZEN] += 1
        return True
    if prior == 0:
        if s.has_cpu_partial:
            put_cpu_partial(m, s, pfn, cpu, True)
            c.stat[CPU_PARTIAL_FREE] += 1
            return True
        n = s.node_lists[node_of(m, pfn)]
        if slab.inuse == 0 and n.nr_partial >= s.min_partial:
            discard_slab(m, s, pfn, cpu)
            return True
        add_partial(m, n, pfn, True)
        c.stat[FREE_ADD_PARTIAL] += 1
        return True
    if slab.inuse == 0 and slab.on_node:
        n = s.node_lists[node_of(m, pfn)]
        if n.nr_partial >= s.min_partial:
            remove_partial(m, n, pfn)
            c.stat[FREE_REMOVE_PARTIAL] += 1
            discard_slab(m, s, pfn, cpu)
    return True


@inlined
def slab_free(m: SlubMemory, address: int, cpu: int) -> bool:
    """Free one object, which must be one; False: a check of a debug cache failed.

    Linux: do_slab_free(), mm/slub.c (6.1)
    """
    pfn = virt_to_pfn(m, address)
    pfn = int(m.slab_map[pfn].head)
    s = m.kmem_caches[int(m.slab_map[pfn].cache)]
    c = s.cpu_slab[cpu]
    if c.slab == pfn:
        set_freepointer(m, s, address, c.freelist)
        c.freelist = address
        c.tid += 1
        c.stat[FREE_FASTPATH] += 1
        return True
    return free_slow(m, pfn, address, address, 1, cpu)
