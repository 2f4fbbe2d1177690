# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of one allocation: the CPU's array, refilled from the shared one or from slabs.

Linux: ____cache_alloc(), cache_alloc_refill(), ____cache_alloc_node(), fallback_alloc(), mm/slab.c
(2.6.24)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.gfp import __GFP_HARDWALL, __GFP_THISNODE
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_free import page_zone
from physmem.slab.slab_debug import CHECKS, check_alloc
from physmem.slab.slab_grow import (
    freepages,
    getpages,
    grow_on,
    install_slab,
    next_colour,
)
from physmem.slab.slab_object import list_add, list_del, mark_live, take_object
from physmem.slab.slab_types import (
    ACTIVE,
    ALLOCHIT,
    ALLOCMISS,
    BUFCTL_END,
    LISTALLOCS,
    MAXOBJS,
    NO_SLAB,
    NODEALLOCS,
    ON_FREE,
    ON_FULL,
    ON_PARTIAL,
    ArrayCache,
    KmemList3,
    SlabCache,
    SlabMemory,
)

BATCHREFILL_LIMIT = 16
WITHOUT_NODE = ~(__GFP_HARDWALL | __GFP_THISNODE)
THISNODE_BIT = __GFP_THISNODE


@kernel
def transfer_objects(to: ArrayCache, source: ArrayCache, most: int) -> int:
    """Move objects from the end of one array to the end of another; how many."""
    nr = min(source.avail, most, to.limit - to.avail)
    if nr <= 0:
        return 0
    for i in range(nr):
        to.entries[to.avail + i] = source.entries[source.avail - nr + i]
    source.avail -= nr
    to.avail += nr
    to.touched = 1
    return nr


@kernel
def local_node(m: SlabMemory, cpu: int) -> int:
    """Node of a CPU as SLAB counts nodes."""
    return memory_at(m.memory).cpu_node[cpu] if m.numa else 0


@kernel
def first_slab(l3: KmemList3) -> int:
    """Slab that the next object comes from, or NO_SLAB."""
    pfn = l3.first[ON_PARTIAL]
    if pfn == NO_SLAB:
        l3.free_touched = 1
        pfn = l3.first[ON_FREE]
    return pfn


@kernel
def refile(m: SlabMemory, l3: KmemList3, pfn: int) -> None:
    """Put a slab that gave objects at the head of the list where it belongs now."""
    list_del(m, l3, pfn)
    which = ON_FULL if m.slab_frames[pfn].free == BUFCTL_END else ON_PARTIAL
    list_add(m, l3, which, pfn)


@kernel
def count_active(c: SlabCache, change: int) -> None:
    """Count objects taken from slabs."""
    c.statistic[LISTALLOCS] += change
    c.statistic[ACTIVE] += change
    c.statistic[MAXOBJS] = max(c.statistic[MAXOBJS], c.statistic[ACTIVE])


@kernel
def refill(m: SlabMemory, c: SlabCache, ac: ArrayCache, nid: int) -> None:
    """Fill a CPU's empty array from the shared array, or from slabs.

    Linux: cache_alloc_refill(), mm/slab.c (2.6.24)
    """
    batch = ac.batchcount
    if not ac.touched and batch > BATCHREFILL_LIMIT:
        batch = BATCHREFILL_LIMIT
    l3 = c.nodelists[nid]
    if len(l3.shared) and transfer_objects(ac, l3.shared[0], batch):
        return
    while batch > 0:
        pfn = first_slab(l3)
        if pfn == NO_SLAB:
            break
        slab = m.slab_frames[pfn]
        while slab.inuse < c.num and batch > 0:
            batch -= 1
            ac.entries[ac.avail] = take_object(m, c, pfn)
            ac.avail += 1
        refile(m, l3, pfn)
    l3.free_objects -= ac.avail
    count_active(c, ac.avail)


@inlined
def pop(ac: ArrayCache) -> int:
    """Take the object that was put there last."""
    ac.touched = 1
    ac.avail -= 1
    return ac.entries[ac.avail]


@kernel
def take_one(m: SlabMemory, c: SlabCache, nid: int) -> int:
    """Take one object of a node's slabs, past all arrays; 0: no slab has one.

    Linux: ____cache_alloc_node(), mm/slab.c (2.6.24)
    """
    l3 = c.nodelists[nid]
    if not l3.present:
        return 0
    pfn = first_slab(l3)
    if pfn == NO_SLAB:
        return 0
    address = take_object(m, c, pfn)
    l3.free_objects -= 1
    refile(m, l3, pfn)
    c.statistic[NODEALLOCS] += 1
    count_active(c, 1)
    return address


# -- caches with their descriptors inside ----------------------------------------------------------


@kernel
def alloc_on(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """One object of a cache with its descriptors in the slabs; 0: no memory."""
    here = local_node(m, cpu)
    if nid == NONE or nid == here:
        ac = c.cpu_array[cpu]
        while True:
            if ac.avail > 0:
                return pop(ac)
            refill(m, c, ac, here)
            if ac.avail == 0 and not grow_on(m, c, gfp | m.thisnode, here, cpu):
                break
        if not m.numa:
            return 0
        nid = here
    while c.nodelists[nid].present:
        address = take_one(m, c, nid)
        if address != 0:
            return address
        if not grow_on(m, c, gfp | m.thisnode, nid, cpu):
            break
    return 0


# -- all caches ------------------------------------------------------------------------------------


@kernel
def alloc_descriptor(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """Memory for the descriptor of a slab that keeps it outside; 0: there is none."""
    d = m.slab_caches[c.slabp_cache]
    address = alloc_on(m, d, gfp & WITHOUT_NODE, nid, cpu)
    if address != 0:
        if d.cache_flags & CHECKS:
            check_alloc(m, d, address)
        address += d.obj_offset
        mark_live(m, address)
    return address


@kernel
def grow(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> bool:
    """One more slab; its descriptor may be an object of another cache."""
    if not c.off_slab:
        return grow_on(m, c, gfp, nid, cpu)
    offset = next_colour(c, nid)
    pfn = getpages(m, c, gfp, nid, cpu)
    if pfn == NONE:
        return False
    mgmt = alloc_descriptor(m, c, gfp, nid, cpu)
    if mgmt == 0:
        freepages(m, c, pfn, cpu)
        return False
    install_slab(m, c, pfn, mgmt, offset)
    return True


@kernel
def fallback_alloc(m: SlabMemory, c: SlabCache, gfp: int, cpu: int) -> int:
    """Take an object of any node: one that has some, else where frames are free.

    Linux: fallback_alloc(), mm/slab.c (2.6.24)
    """
    if gfp & THISNODE_BIT:
        return 0
    memory = memory_at(m.memory)
    row = memory.cpu_node[cpu] * memory.nr_zones
    for i in range(memory.nr_zones):
        number = memory.zonelist[row + i].zone
        if number == NONE:
            break
        nid = memory.zones[number].node
        if c.nodelists[nid].present and c.nodelists[nid].free_objects > 0:
            address = take_one(m, c, nid)
            if address != 0:
                return address
    pfn = getpages(m, c, gfp, NONE, cpu)
    if pfn == NONE:
        return 0
    nid = memory.zones[page_zone(memory, pfn)].node
    mgmt = 0
    if c.off_slab:
        mgmt = alloc_descriptor(m, c, gfp, nid, cpu)
        if mgmt == 0:
            freepages(m, c, pfn, cpu)
            return 0
    offset = next_colour(c, nid)
    install_slab(m, c, pfn, mgmt, offset)
    return take_one(m, c, nid)


@kernel
def alloc_node(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """One object of a node's slabs, or of any when the request allows it; 0: no memory."""
    while c.nodelists[nid].present:
        address = take_one(m, c, nid)
        if address != 0:
            return address
        if not grow(m, c, gfp | m.thisnode, nid, cpu):
            break
    return fallback_alloc(m, c, gfp, cpu) if m.numa else 0


@kernel
def alloc_slow(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """Allocate when the CPU's array is empty, or of a node; 0: no memory."""
    here = local_node(m, cpu)
    if nid == NONE or nid == here:
        ac = c.cpu_array[cpu]
        c.statistic[ALLOCMISS] += 1
        while True:
            if ac.avail > 0:
                return pop(ac)
            refill(m, c, ac, here)
            if ac.avail == 0 and not grow(m, c, gfp | m.thisnode, here, cpu):
                break
        if not m.numa:
            return 0
        nid = here
    return alloc_node(m, c, gfp, nid, cpu)


@inlined
def cache_alloc(m: SlabMemory, c: SlabCache, gfp: int, nid: int, cpu: int) -> int:
    """One object; the address of its stride, 0: no memory.

    Linux: __cache_alloc(), mm/slab.c (2.6.24)
    """
    ac = c.cpu_array[cpu]
    if ac.avail > 0 and (nid == NONE or not m.numa):
        c.statistic[ALLOCHIT] += 1
        ac.touched = 1
        ac.avail -= 1
        return ac.entries[ac.avail]
    return alloc_slow(m, c, gfp, nid if m.numa else NONE, cpu)
