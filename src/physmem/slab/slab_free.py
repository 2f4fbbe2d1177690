# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back of an object: to the CPU's array, the shared one, its slab; to its own node.

Linux: __cache_free(), cache_flusharray(), free_block(), cache_free_alien(), mm/slab.c (2.6.24)
"""

from physmem.lib.jit import inlined, kernel
from physmem.mm.lists import memory_at
from physmem.slab.slab_debug import CHECKS, check_free
from physmem.slab.slab_grow import destroy_on
from physmem.slab.slab_object import (
    frame_of,
    list_add,
    list_add_tail,
    list_del,
    mark_dead,
    put_object,
)
from physmem.slab.slab_types import (
    ACTIVE,
    ALIENOVERFLOW,
    FREEHIT,
    FREEMISS,
    MAXFREEABLE,
    NO_SLAB,
    ON_FREE,
    ON_PARTIAL,
    REMOTEFREES,
    ArrayCache,
    KmemList3,
    SlabCache,
    SlabMemory,
)


@kernel
def return_object(m: SlabMemory, c: SlabCache, address: int, nid: int) -> int:
    """Give an object back to its slab; first frame of the slab if it is to end, else NO_SLAB."""
    pfn = frame_of(m, address)
    l3 = c.nodelists[nid]
    list_del(m, l3, pfn)
    put_object(m, c, pfn, address)
    c.statistic[ACTIVE] -= 1
    l3.free_objects += 1
    if m.slab_frames[pfn].inuse == 0:
        if l3.free_objects > l3.free_limit:
            l3.free_objects -= c.num
            return pfn
        list_add(m, l3, ON_FREE, pfn)
    else:
        list_add_tail(m, l3, ON_PARTIAL, pfn)
    return NO_SLAB


@kernel
def take_room(ac: ArrayCache, shared: ArrayCache, batch: int) -> int:
    """Move the oldest objects of an array to the end of the shared one; how many."""
    room = shared.limit - shared.avail
    batch = min(batch, room)
    for i in range(batch):
        shared.entries[shared.avail + i] = ac.entries[i]
    shared.avail += batch
    return batch


@kernel
def move_down(ac: ArrayCache, count: int) -> None:
    """Close the gap at the start of an array."""
    ac.avail -= count
    for i in range(ac.avail):
        ac.entries[i] = ac.entries[count + i]


@kernel
def count_freeable(m: SlabMemory, c: SlabCache, l3: KmemList3) -> None:
    """Note how many free slabs there were at most."""
    if m.checks:
        count = 0
        pfn = l3.first[ON_FREE]
        while pfn != NO_SLAB:
            count += 1
            pfn = 0 + m.slab_frames[pfn].next
        c.statistic[MAXFREEABLE] = max(c.statistic[MAXFREEABLE], count)


# -- caches with their descriptors inside ----------------------------------------------------------


@kernel
def free_block_on(m: SlabMemory, c: SlabCache, ac: ArrayCache, count: int, nid: int) -> None:
    """Give the oldest `count` objects of an array back to their slabs."""
    for i in range(count):
        ended = return_object(m, c, ac.entries[i], nid)
        if ended != NO_SLAB:
            destroy_on(m, c, ended, 0)


@kernel
def flush_on(m: SlabMemory, c: SlabCache, ac: ArrayCache, nid: int) -> None:
    """Make room in a full array. Linux: cache_flusharray(), mm/slab.c (2.6.24)"""
    batch = ac.batchcount
    l3 = c.nodelists[nid]
    moved = 0
    if len(l3.shared) and l3.shared[0].limit > l3.shared[0].avail:
        moved = take_room(ac, l3.shared[0], batch)
    if moved == 0:
        moved = batch
        free_block_on(m, c, ac, batch, nid)
    count_freeable(m, c, l3)
    move_down(ac, moved)


@kernel
def drain_alien_on(m: SlabMemory, c: SlabCache, alien: ArrayCache, nid: int) -> None:
    """Send objects of another node home."""
    l3 = c.nodelists[nid]
    if len(l3.shared):
        shared = l3.shared[0]
        nr = min(alien.avail, alien.limit, shared.limit - shared.avail)
        for i in range(nr):
            shared.entries[shared.avail + i] = alien.entries[alien.avail - nr + i]
        if nr > 0:
            shared.avail += nr
            shared.touched = 1
            alien.avail -= nr
    free_block_on(m, c, alien, alien.avail, nid)
    alien.avail = 0


@kernel
def free_on(m: SlabMemory, c: SlabCache, address: int, cpu: int) -> None:
    """Free an object of a cache with its descriptors in the slabs."""
    ac = c.cpu_array[cpu]
    here = 0
    if m.numa:
        here = memory_at(m.memory).cpu_node[cpu]
        home = 0 + m.slab_frames[frame_of(m, address)].nodeid
        if home != here:
            c.statistic[REMOTEFREES] += 1
            l3 = c.nodelists[here]
            if len(l3.alien):
                alien = l3.alien[home]
                if alien.avail == alien.limit:
                    c.statistic[ALIENOVERFLOW] += 1
                    drain_alien_on(m, c, alien, home)
                alien.entries[alien.avail] = address
                alien.avail += 1
            else:
                ended = return_object(m, c, address, home)
                if ended != NO_SLAB:
                    destroy_on(m, c, ended, cpu)
            return
    if ac.avail < ac.limit:
        c.statistic[FREEHIT] += 1
    else:
        c.statistic[FREEMISS] += 1
        flush_on(m, c, ac, here)
    ac.entries[ac.avail] = address
    ac.avail += 1


# -- all caches ------------------------------------------------------------------------------------


@kernel
def slab_destroy(m: SlabMemory, c: SlabCache, pfn: int, cpu: int) -> None:
    """End a slab that is on no list: frames first, then the descriptor."""
    mgmt = m.slab_frames[pfn].mgmt
    destroy_on(m, c, pfn, cpu)
    if c.off_slab:
        d = m.slab_caches[c.slabp_cache]
        mark_dead(m, mgmt)
        mgmt -= d.obj_offset
        if d.cache_flags & CHECKS:
            check_free(m, d, mgmt)
        free_on(m, d, mgmt, cpu)


@kernel
def free_block(m: SlabMemory, c: SlabCache, ac: ArrayCache, count: int, nid: int, cpu: int) -> None:
    """Give the oldest `count` objects of an array back to their slabs."""
    for i in range(count):
        ended = return_object(m, c, ac.entries[i], nid)
        if ended != NO_SLAB:
            slab_destroy(m, c, ended, cpu)


@kernel
def flush(m: SlabMemory, c: SlabCache, ac: ArrayCache, nid: int, cpu: int) -> None:
    """Make room in a full array. Linux: cache_flusharray(), mm/slab.c (2.6.24)"""
    batch = ac.batchcount
    l3 = c.nodelists[nid]
    moved = 0
    if len(l3.shared) and l3.shared[0].limit > l3.shared[0].avail:
        moved = take_room(ac, l3.shared[0], batch)
    if moved == 0:
        moved = batch
        free_block(m, c, ac, batch, nid, cpu)
    count_freeable(m, c, l3)
    move_down(ac, moved)


@kernel
def drain_alien(m: SlabMemory, c: SlabCache, alien: ArrayCache, nid: int, cpu: int) -> None:
    """Send objects of another node home. Linux: __drain_alien_cache(), mm/slab.c (2.6.24)"""
    l3 = c.nodelists[nid]
    if len(l3.shared):
        shared = l3.shared[0]
        nr = min(alien.avail, alien.limit, shared.limit - shared.avail)
        for i in range(nr):
            shared.entries[shared.avail + i] = alien.entries[alien.avail - nr + i]
        if nr > 0:
            shared.avail += nr
            shared.touched = 1
            alien.avail -= nr
    free_block(m, c, alien, alien.avail, nid, cpu)
    alien.avail = 0


@kernel
def free_remote(m: SlabMemory, c: SlabCache, address: int, home: int, cpu: int) -> None:
    """Free an object of another node. Linux: cache_free_alien(), mm/slab.c (2.6.24)"""
    c.statistic[REMOTEFREES] += 1
    l3 = c.nodelists[memory_at(m.memory).cpu_node[cpu]]
    if len(l3.alien):
        alien = l3.alien[home]
        if alien.avail == alien.limit:
            c.statistic[ALIENOVERFLOW] += 1
            drain_alien(m, c, alien, home, cpu)
        alien.entries[alien.avail] = address
        alien.avail += 1
        return
    ended = return_object(m, c, address, home)
    if ended != NO_SLAB:
        slab_destroy(m, c, ended, cpu)


@inlined
def cache_free(m: SlabMemory, c: SlabCache, address: int, cpu: int) -> None:
    """Free one object, by the address of its stride. Linux: __cache_free(), mm/slab.c (2.6.24)"""
    here = 0
    if m.numa:
        here = memory_at(m.memory).cpu_node[cpu]
        home = 0 + m.slab_frames[frame_of(m, address)].nodeid
        if home != here:
            free_remote(m, c, address, home, cpu)
            return
    ac = c.cpu_array[cpu]
    if ac.avail < ac.limit:
        c.statistic[FREEHIT] += 1
    else:
        c.statistic[FREEMISS] += 1
        flush(m, c, ac, here, cpu)
    ac.entries[ac.avail] = address
    ac.avail += 1
