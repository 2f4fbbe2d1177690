# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists of slabs: a node's partial and full lists, linked through the frames.

Linux: add_partial(), remove_partial(), add_full(), remove_full(), mm/slub.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.slab.slub_types import NO_SLAB, KmemCacheNode, SlubMemory

ON_PARTIAL = 1
ON_FULL = 2


@kernel
def add_partial(m: SlubMemory, n: KmemCacheNode, pfn: int, tail: bool) -> None:
    """Put a slab on a node's partial list."""
    n.nr_partial += 1
    slab = m.slab_map[pfn]
    slab.on_node = ON_PARTIAL
    if tail:
        last = n.partial_tail
        slab.prev = last
        slab.next = NO_SLAB
        if last == NO_SLAB:
            n.partial_head = pfn
        else:
            m.slab_map[last].next = pfn
        n.partial_tail = pfn
    else:
        first = n.partial_head
        slab.next = first
        slab.prev = NO_SLAB
        if first == NO_SLAB:
            n.partial_tail = pfn
        else:
            m.slab_map[first].prev = pfn
        n.partial_head = pfn


@kernel
def remove_partial(m: SlubMemory, n: KmemCacheNode, pfn: int) -> None:
    """Take a slab off a node's partial list."""
    n.nr_partial -= 1
    slab = m.slab_map[pfn]
    slab.on_node = 0
    before = int(slab.prev)
    after = int(slab.next)
    if before == NO_SLAB:
        n.partial_head = after
    else:
        m.slab_map[before].next = after
    if after == NO_SLAB:
        n.partial_tail = before
    else:
        m.slab_map[after].prev = before


@kernel
def add_full(m: SlubMemory, n: KmemCacheNode, pfn: int) -> None:
    """Put a slab at the head of a node's full list (caches that note users)."""
    slab = m.slab_map[pfn]
    slab.on_node = ON_FULL
    first = n.full_head
    slab.next = first
    slab.prev = NO_SLAB
    if first == NO_SLAB:
        n.full_tail = pfn
    else:
        m.slab_map[first].prev = pfn
    n.full_head = pfn


@kernel
def remove_full(m: SlubMemory, n: KmemCacheNode, pfn: int) -> None:
    """Take a slab off a node's full list."""
    slab = m.slab_map[pfn]
    slab.on_node = 0
    before = int(slab.prev)
    after = int(slab.next)
    if before == NO_SLAB:
        n.full_head = after
    else:
        m.slab_map[before].next = after
    if after == NO_SLAB:
        n.full_tail = before
    else:
        m.slab_map[after].prev = before
