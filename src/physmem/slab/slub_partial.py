# SPDX-License-Identifier: GPL-2.0-or-later
"""A CPU's slab and its chain of partial slabs: put there, taken down, flushed.

Linux: put_cpu_partial(), __unfreeze_partials(), deactivate_slab(), flush_slab(), mm/slub.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.slab.slub_list import add_partial
from physmem.slab.slub_object import get_freepointer, set_freepointer
from physmem.slab.slub_page import discard_slab, node_of
from physmem.slab.slub_types import (
    CPU_PARTIAL_DRAIN,
    CPUSLAB_FLUSH,
    DEACTIVATE_EMPTY,
    DEACTIVATE_FULL,
    DEACTIVATE_REMOTE_FREES,
    DEACTIVATE_TO_HEAD,
    DEACTIVATE_TO_TAIL,
    FREE_ADD_PARTIAL,
    NO_SLAB,
    KmemCache,
    SlubMemory,
)


@kernel
def unfreeze_partials(m: SlubMemory, s: KmemCache, first: int, cpu: int) -> None:
    """Put a whole chain on the partial lists of its slabs' nodes; empty slabs too many go.

    Linux: __unfreeze_partials(), __put_partials(), mm/slub.c (6.1, 6.12)
    """
    discard = NO_SLAB
    pfn = first
    while pfn != NO_SLAB:
        slab = m.slab_map[pfn]
        after = int(slab.next)
        slab.frozen = 0
        slab.slabs = 0
        n = s.node_lists[node_of(m, pfn)]
        if slab.inuse == 0 and n.nr_partial >= s.min_partial:
            slab.next = discard
            discard = pfn
        else:
            add_partial(m, n, pfn, True)
            s.cpu_slab[cpu].stat[FREE_ADD_PARTIAL] += 1
        pfn = after
    while discard != NO_SLAB:
        after = int(m.slab_map[discard].next)
        s.cpu_slab[cpu].stat[DEACTIVATE_EMPTY] += 1
        discard_slab(m, s, discard, cpu)
        discard = after


@kernel
def put_cpu_partial(m: SlubMemory, s: KmemCache, pfn: int, cpu: int, drain: bool) -> None:
    """Put a slab at the head of the CPU's chain; a chain that is full goes to the node first.

    Linux: put_cpu_partial(), mm/slub.c (6.1)
    """
    c = s.cpu_slab[cpu]
    old = c.partial
    count = 0
    overflow = NO_SLAB
    if old != NO_SLAB:
        count = int(m.slab_map[old].slabs)
        if drain and count >= s.cpu_partial_slabs:
            overflow = old
            old = NO_SLAB
            count = 0
    slab = m.slab_map[pfn]
    slab.slabs = count + 1
    slab.next = old
    slab.prev = NO_SLAB
    slab.frozen = 0 if m.unfrozen else 1
    c.partial = pfn
    if overflow != NO_SLAB:
        unfreeze_partials(m, s, overflow, cpu)
        c.stat[CPU_PARTIAL_DRAIN] += 1


@kernel
def deactivate_slab(m: SlubMemory, s: KmemCache, cpu: int) -> None:
    """Take the CPU's slab away from it; its free objects go back to the slab.

    Linux: deactivate_slab(), mm/slub.c (6.1)
    """
    c = s.cpu_slab[cpu]
    pfn = c.slab
    first = c.freelist
    c.slab = NO_SLAB
    c.freelist = 0
    c.tid += 1
    slab = m.slab_map[pfn]
    tail = slab.freelist != 0
    if tail:
        c.stat[DEACTIVATE_REMOTE_FREES] += 1
    if first != 0:
        last = first
        count = 1
        while True:
            after = get_freepointer(m, s, last)
            if after == 0:
                break
            last = after
            count += 1
        set_freepointer(m, s, last, slab.freelist)
        slab.freelist = first
        slab.inuse = slab.inuse - count
    slab.frozen = 0
    n = s.node_lists[node_of(m, pfn)]
    if slab.inuse == 0 and n.nr_partial >= s.min_partial:
        c.stat[DEACTIVATE_EMPTY] += 1
        discard_slab(m, s, pfn, cpu)
    elif slab.freelist != 0:
        add_partial(m, n, pfn, tail)
        c.stat[DEACTIVATE_TO_TAIL if tail else DEACTIVATE_TO_HEAD] += 1
    else:
        c.stat[DEACTIVATE_FULL] += 1


@kernel
def flush_cpu_slab(m: SlubMemory, s: KmemCache, cpu: int) -> None:
    """Take slab and chain away from a CPU. Linux: flush_cpu_slab(), mm/slub.c (6.1)"""
    c = s.cpu_slab[cpu]
    if c.slab != NO_SLAB:
        deactivate_slab(m, s, cpu)
        c.stat[CPUSLAB_FLUSH] += 1
    chain = c.partial
    if chain != NO_SLAB:
        c.partial = NO_SLAB
        unfreeze_partials(m, s, chain, cpu)
