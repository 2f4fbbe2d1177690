# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving back what is not needed: bit by bit while time passes, or all at once.

Linux: cache_reap(), drain_array(), drain_freelist(), __cache_shrink(), mm/slab.c (2.6.24)
"""

from physmem.lib.jit import kernel
from physmem.mm.lists import memory_at
from physmem.slab.slab_free import drain_alien, free_block, move_down, slab_destroy
from physmem.slab.slab_object import list_del
from physmem.slab.slab_types import (
    NO_SLAB,
    ON_FREE,
    ON_FULL,
    ON_PARTIAL,
    ArrayCache,
    KmemList3,
    SlabCache,
    SlabMemory,
)


@kernel
def drain_array(
    m: SlabMemory, c: SlabCache, ac: ArrayCache, force: bool, nid: int, cpu: int
) -> None:
    """Give a fifth of an array back to the slabs, or all of it; one in use has time."""
    if ac.avail == 0:
        return
    if ac.touched and not force:
        ac.touched = 0
        return
    count = ac.avail if force else (ac.limit + 4) // 5
    if count > ac.avail:
        count = (ac.avail + 1) // 2
    free_block(m, c, ac, count, nid, cpu)
    move_down(ac, count)


@kernel
def drain_freelist(m: SlabMemory, c: SlabCache, l3: KmemList3, most: int, cpu: int) -> int:
    """End free slabs, oldest first; how many."""
    count = 0
    while count < most and l3.last[ON_FREE] != NO_SLAB:
        pfn = l3.last[ON_FREE]
        list_del(m, l3, pfn)
        l3.free_objects -= c.num
        slab_destroy(m, c, pfn, cpu)
        count += 1
    return count


@kernel
def reap_cache(m: SlabMemory, c: SlabCache, cpu: int) -> None:
    """One cache's part of a CPU's periodic work."""
    here = memory_at(m.memory).cpu_node[cpu] if m.numa else 0
    l3 = c.nodelists[here]
    if not l3.present:
        return
    if len(l3.alien):
        other = m.reap_node[cpu]
        if other != here and l3.alien[other].avail > 0:
            drain_alien(m, c, l3.alien[other], other, cpu)
    drain_array(m, c, c.cpu_array[cpu], False, here, cpu)
    if l3.next_reap > m.jiffies:
        return
    l3.next_reap = m.jiffies + m.reap_interval
    if len(l3.shared):
        drain_array(m, c, l3.shared[0], False, here, cpu)
    if l3.free_touched:
        l3.free_touched = 0
    else:
        most = (l3.free_limit + 5 * c.num - 1) // (5 * c.num)
        drain_freelist(m, c, l3, most, cpu)


@kernel
def shrink_cache(m: SlabMemory, c: SlabCache) -> bool:
    """Empty all arrays, end all free slabs; True: slabs remain."""
    for cpu in range(m.nr_cpus):
        if m.cpu_online[cpu]:
            ac = c.cpu_array[cpu]
            here = memory_at(m.memory).cpu_node[cpu] if m.numa else 0
            free_block(m, c, ac, ac.avail, here, cpu)
            ac.avail = 0
    for nid in range(m.nr_nodes):
        l3 = c.nodelists[nid]
        for other in range(len(l3.alien)):
            if l3.alien[other].avail > 0:
                drain_alien(m, c, l3.alien[other], other, 0)
    for nid in range(m.nr_nodes):
        l3 = c.nodelists[nid]
        if l3.present and len(l3.shared):
            drain_array(m, c, l3.shared[0], True, nid, 0)
    remain = False
    for nid in range(m.nr_nodes):
        l3 = c.nodelists[nid]
        if l3.present:
            drain_freelist(m, c, l3, 1 << 40, 0)
            remain = remain or l3.first[ON_FULL] != NO_SLAB or l3.first[ON_PARTIAL] != NO_SLAB
    return remain
