# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of one allocation: the CPU's free objects, its slab, its chain, its node, a new slab.

Linux: slab_alloc_node(), ___slab_alloc(), get_partial(), mm/slub.c (6.1)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.gfp import __GFP_THISNODE
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.slab.flags import SLAB_CONSISTENCY_CHECKS, SLAB_STORE_USER
from physmem.slab.slub_debug import (
    SLUB_RED_ACTIVE,
    SLUB_RED_INACTIVE,
    TRACK_ALLOC,
    check_object,
    check_slab,
    init_object,
    set_orig_size,
    set_track,
)
from physmem.slab.slub_list import add_full, add_partial, remove_partial
from physmem.slab.slub_object import get_freepointer, random_below
from physmem.slab.slub_page import allocate_slab, node_of
from physmem.slab.slub_partial import deactivate_slab, put_cpu_partial
from physmem.slab.slub_types import (
    ALLOC_FASTPATH,
    ALLOC_FROM_PARTIAL,
    ALLOC_NODE_MISMATCH,
    ALLOC_REFILL,
    ALLOC_SLOWPATH,
    CPU_PARTIAL_ALLOC,
    CPU_PARTIAL_NODE,
    DEACTIVATE_BYPASS,
    NO_SLAB,
    KmemCache,
    SlubMemory,
)

THISNODE = __GFP_THISNODE
BAD_SLAB = 3
"""`Slab.on_node` of a slab that failed a check: nobody may use its objects any more."""


@kernel
def take_freelist(m: SlubMemory, pfn: int) -> int:
    """Take all free objects of a slab for a CPU; the first of them."""
    slab = m.slab_map[pfn]
    address = slab.freelist
    slab.freelist = 0
    slab.inuse = slab.objects
    slab.frozen = 1 if address else 0
    return address


@kernel
def get_partial_node(m: SlubMemory, s: KmemCache, nid: int, cpu: int) -> int:
    """Take slabs off a node's partial list: one for the CPU (returned), some for its chain."""
    n = s.node_lists[nid]
    found = NO_SLAB
    taken = 0
    pfn = n.partial_head
    while pfn != NO_SLAB:
        after = int(m.slab_map[pfn].next)
        remove_partial(m, n, pfn)
        if found == NO_SLAB:
            found = pfn
            s.cpu_slab[cpu].stat[ALLOC_FROM_PARTIAL] += 1
            if m.unfrozen and s.cpu_partial_slabs == 0:
                break
        else:
            put_cpu_partial(m, s, pfn, cpu, False)
            s.cpu_slab[cpu].stat[CPU_PARTIAL_NODE] += 1
            taken += 1
        if not s.has_cpu_partial or taken > s.cpu_partial_slabs // 2:
            break
        pfn = after
    return found


@kernel
def get_any_partial(m: SlubMemory, s: KmemCache, cpu: int) -> int:
    """Look for a partial slab on other nodes, nearest first; the node, or NONE."""
    if not s.defrag_ratio or random_below(m, 1024) > s.defrag_ratio:
        return NONE
    memory = memory_at(m.memory)
    row = memory.cpu_node[cpu] * memory.nr_zones
    for i in range(memory.nr_zones):
        number = memory.zonelist[row + i].zone
        if number == NONE:
            break
        nid = memory.zones[number].node
        if s.node_lists[nid].nr_partial > s.min_partial:
            return nid
    return NONE


@kernel
def get_partial(m: SlubMemory, s: KmemCache, gfp: int, nid: int, cpu: int) -> int:
    """Take a partial slab of the requested or of any node; its first frame, or NO_SLAB."""
    memory = memory_at(m.memory)
    here = memory.cpu_node[cpu] if nid == NONE else nid
    found = get_partial_node(m, s, here, cpu)
    if found != NO_SLAB or m.nr_nodes == 1 or gfp & THISNODE:
        return found
    if nid != NONE and not m.any_node:
        return found
    other = get_any_partial(m, s, cpu)
    return NO_SLAB if other == NONE else get_partial_node(m, s, other, cpu)


@kernel
def alloc_checked(m: SlubMemory, s: KmemCache, pfn: int, cpu: int) -> int:
    """Take one object of a slab of a debug cache; 0: the slab failed a check."""
    slab = m.slab_map[pfn]
    address = slab.freelist
    if s.cache_flags & SLAB_CONSISTENCY_CHECKS and not (
        check_slab(m, s, pfn) and check_object(m, s, pfn, address, SLUB_RED_INACTIVE)
    ):
        slab.inuse = slab.objects
        slab.freelist = 0
        slab.frozen = 1
        return 0
    slab.freelist = get_freepointer(m, s, address)
    slab.inuse = slab.inuse + 1
    set_track(m, s, address, TRACK_ALLOC, cpu)
    if s.orig_offset:
        set_orig_size(m, s, address, s.object_size)  # until kmalloc knows better
    init_object(m, s, address, SLUB_RED_ACTIVE)
    return address


@kernel
def alloc_debug(m: SlubMemory, s: KmemCache, gfp: int, nid: int, cpu: int) -> int:
    """Allocate from a debug cache: one object of the node's first partial slab, or of a new one."""
    memory = memory_at(m.memory)
    node = memory.cpu_node[cpu] if nid == NONE else nid
    while True:
        n = s.node_lists[node]
        pfn = n.partial_head
        if pfn == NO_SLAB:
            break
        address = alloc_checked(m, s, pfn, cpu)
        slab = m.slab_map[pfn]
        if address == 0:
            remove_partial(m, n, pfn)
            slab.on_node = BAD_SLAB
            return 0
        s.cpu_slab[cpu].stat[ALLOC_FROM_PARTIAL] += 1
        if slab.inuse == slab.objects:
            remove_partial(m, n, pfn)
            if s.cache_flags & SLAB_STORE_USER:
                add_full(m, n, pfn)
        return address
    pfn = allocate_slab(m, s, gfp, nid, cpu)
    if pfn == NONE:
        return 0
    address = alloc_checked(m, s, pfn, cpu)
    slab = m.slab_map[pfn]
    n = s.node_lists[node_of(m, pfn)]
    if address == 0:
        slab.on_node = BAD_SLAB
    elif slab.inuse < slab.objects:
        add_partial(m, n, pfn, False)
    elif s.cache_flags & SLAB_STORE_USER:
        add_full(m, n, pfn)
    return address


@kernel
def alloc_slow(m: SlubMemory, s: KmemCache, gfp: int, nid: int, cpu: int) -> int:
    """Allocate when the CPU has no free object at hand; 0: no memory.

    Linux: ___slab_alloc(), mm/slub.c (6.1)
    """
    c = s.cpu_slab[cpu]
    c.stat[ALLOC_SLOWPATH] += 1
    if s.debug:
        return alloc_debug(m, s, gfp, nid, cpu)
    if nid != NONE and s.node_lists[nid].total_objects == 0 and m.nr_nodes > 1:
        memory = memory_at(m.memory)
        has_memory = False
        for number in range(memory.nr_zones):
            has_memory = has_memory or memory.zones[number].node == nid
        if not has_memory:
            nid = NONE
    address = 0
    while True:
        pfn = c.slab
        if pfn == NO_SLAB:
            pfn = c.partial
            if pfn == NO_SLAB:
                break
            c.partial = int(m.slab_map[pfn].next)
            c.slab = pfn
            c.stat[CPU_PARTIAL_ALLOC] += 1
            if nid == NONE or m.nr_nodes == 1 or node_of(m, pfn) == nid:
                address = take_freelist(m, pfn)
                break
        if nid != NONE and m.nr_nodes > 1 and node_of(m, pfn) != nid:
            c.stat[ALLOC_NODE_MISMATCH] += 1
            deactivate_slab(m, s, cpu)
            continue
        address = c.freelist
        if address:
            break
        address = take_freelist(m, pfn)
        if address:
            c.stat[ALLOC_REFILL] += 1
            break
        c.slab = NO_SLAB
        c.tid += 1
        c.stat[DEACTIVATE_BYPASS] += 1
    if address == 0:
        pfn = get_partial(m, s, gfp, nid, cpu)
        if pfn == NO_SLAB:
            pfn = allocate_slab(m, s, gfp, nid, cpu)
            if pfn == NONE:
                return 0
        c.slab = pfn
        address = take_freelist(m, pfn)
    c.freelist = get_freepointer(m, s, address)
    c.tid += 1
    return address


@inlined
def slab_alloc(m: SlubMemory, s: KmemCache, gfp: int, nid: int, cpu: int) -> int:
    """Allocate one object; its address, 0: no memory (or a failed check: `m.error`).

    Linux: slab_alloc_node(), mm/slub.c (6.1)
    """
    c = s.cpu_slab[cpu]
    address = c.freelist
    if address == 0 or (nid != NONE and m.nr_nodes > 1):
        return alloc_slow(m, s, gfp, nid, cpu)
    c.freelist = get_freepointer(m, s, address)
    c.tid += 1
    c.stat[ALLOC_FASTPATH] += 1
    return address
