# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving back what is not needed: CPU slabs, chains, empty slabs; and the end of a cache.

Linux: __kmem_cache_do_shrink(), __kmem_cache_shutdown(), mm/slub.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.slab.slub_list import add_partial
from physmem.slab.slub_page import discard_slab
from physmem.slab.slub_partial import flush_cpu_slab
from physmem.slab.slub_types import (
    NO_SLAB,
    SHRINK_PROMOTE_MAX,
    KmemCache,
    KmemCacheNode,
    SlubMemory,
)


@kernel
def flush_all(m: SlubMemory, s: KmemCache) -> None:
    """Take slabs and chains away from all CPUs, in their order."""
    for cpu in range(m.nr_cpus):
        flush_cpu_slab(m, s, cpu)


@kernel
def shrink_node(m: SlubMemory, s: KmemCache, n: KmemCacheNode) -> None:
    """Free a node's empty slabs; slabs with few free objects move to the front of its list."""
    for free in range(SHRINK_PROMOTE_MAX + 1):
        m.bucket[free] = NO_SLAB  # [0]: slabs to discard
    rest_head = NO_SLAB
    rest_tail = NO_SLAB
    pfn = n.partial_head
    while pfn != NO_SLAB:
        slab = m.slab_map[pfn]
        after = int(slab.next)
        slab.on_node = 0
        unused = 0 + slab.objects - slab.inuse
        if unused == slab.objects or unused <= SHRINK_PROMOTE_MAX:
            place = 0 if slab.inuse == 0 else unused
            slab.next = m.bucket[place]
            m.bucket[place] = pfn
        else:
            slab.next = NO_SLAB
            if rest_head == NO_SLAB:
                rest_head = pfn
            else:
                m.slab_map[rest_tail].next = pfn
            rest_tail = pfn
        pfn = after
    n.nr_partial = 0
    n.partial_head = NO_SLAB
    n.partial_tail = NO_SLAB
    for free in range(1, SHRINK_PROMOTE_MAX + 2):
        pfn = m.bucket[free] if free <= SHRINK_PROMOTE_MAX else rest_head
        while pfn != NO_SLAB:
            after = int(m.slab_map[pfn].next)
            add_partial(m, n, pfn, True)
            pfn = after
    pfn = m.bucket[0]
    while pfn != NO_SLAB:
        after = int(m.slab_map[pfn].next)
        discard_slab(m, s, pfn, 0)
        pfn = after


@kernel
def shrink_cache(m: SlubMemory, s: KmemCache) -> bool:
    """Free all empty slabs of a cache; True: slabs remain."""
    flush_all(m, s)
    remain = False
    for nid in range(m.nr_nodes):
        n = s.node_lists[nid]
        shrink_node(m, s, n)
        remain = remain or n.nr_slabs > 0
    return remain


@kernel
def shutdown_cache(m: SlubMemory, s: KmemCache) -> int:
    """Free all empty slabs of a cache that is to end; the number of those that are in use.

    Linux: __kmem_cache_shutdown(), free_partial(), mm/slub.c (6.1)
    """
    flush_all(m, s)
    left = 0
    for nid in range(m.nr_nodes):
        n = s.node_lists[nid]
        discard = NO_SLAB
        pfn = n.partial_head
        kept_head = NO_SLAB
        kept_tail = NO_SLAB
        while pfn != NO_SLAB:
            slab = m.slab_map[pfn]
            after = int(slab.next)
            slab.on_node = 0
            if slab.inuse == 0:
                slab.next = discard
                discard = pfn
            else:
                slab.next = NO_SLAB
                if kept_head == NO_SLAB:
                    kept_head = pfn
                else:
                    m.slab_map[kept_tail].next = pfn
                kept_tail = pfn
            pfn = after
        n.nr_partial = 0
        n.partial_head = NO_SLAB
        n.partial_tail = NO_SLAB
        while kept_head != NO_SLAB:
            after = int(m.slab_map[kept_head].next)
            add_partial(m, n, kept_head, True)
            kept_head = after
        while discard != NO_SLAB:
            after = int(m.slab_map[discard].next)
            discard_slab(m, s, discard, 0)
            discard = after
        left += n.nr_slabs
    return left
