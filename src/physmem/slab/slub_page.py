# SPDX-License-Identifier: GPL-2.0-or-later
"""A slab from the page allocator, and back.

Linux: allocate_slab(), shuffle_freelist(), __free_slab(), discard_slab(), mm/slub.c (6.1)
"""

from physmem.lib.jit import kernel
from physmem.mm.gfp import (
    __GFP_DIRECT_RECLAIM,
    __GFP_FS,
    __GFP_HARDWALL,
    __GFP_HIGH,
    __GFP_IO,
    __GFP_MEMALLOC,
    __GFP_NOFAIL,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIM,
    __GFP_RETRY_MAYFAIL,
    __GFP_THISNODE,
)
from physmem.mm.gfp_bits import GFP_ATOMIC_BIT
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import NONE
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages, page_zone
from physmem.slab.slub_debug import init_slab_padding, setup_object_debug
from physmem.slab.slub_list import remove_full
from physmem.slab.slub_object import (
    page_address,
    random_below,
    set_freepointer,
)
from physmem.slab.slub_types import (
    ALLOC_SLAB,
    FRAME_FREE,
    FRAME_SLAB,
    FRAME_SLAB_TAIL,
    FREE_SLAB,
    NO_SLAB,
    ORDER_FALLBACK,
    KmemCache,
    SlubMemory,
)

PAGES_ALLOCATED = 1
PAGES_FREED = 2
SLAB_GFP = (
    __GFP_RECLAIM
    | __GFP_HIGH
    | __GFP_IO
    | __GFP_FS
    | __GFP_NOWARN
    | __GFP_RETRY_MAYFAIL
    | __GFP_NOFAIL
    | __GFP_NORETRY
    | __GFP_MEMALLOC
    | __GFP_NOMEMALLOC
    | GFP_ATOMIC_BIT
    | __GFP_HARDWALL
    | __GFP_THISNODE
)
"""What of a caller's flags reaches the page allocator."""
DIRECT_RECLAIM = __GFP_DIRECT_RECLAIM
RECLAIM = __GFP_RECLAIM
NOWARN_NORETRY = __GFP_NOWARN | __GFP_NORETRY
NOFAIL = __GFP_NOFAIL
NOMEMALLOC = __GFP_NOMEMALLOC


@kernel
def log_pages(m: SlubMemory, kind: int, order: int, cache: int, pfn: int) -> None:
    """Note a call of the page allocator, while there is room."""
    n = m.page_log[0]
    m.page_log[0] = n + 1
    at = 1 + 2 * n
    if at + 1 < len(m.page_log):
        m.page_log[at] = kind | order << 8 | cache << 16
        m.page_log[at + 1] = pfn


@kernel
def node_of(m: SlubMemory, pfn: int) -> int:
    """Node of a frame."""
    memory = memory_at(m.memory)
    return memory.zones[page_zone(memory, pfn)].node


@kernel
def nth_object(m: SlubMemory, s: KmemCache, pfn: int, index: int) -> int:
    """Address of an object of a slab by its place."""
    return page_address(m, pfn) + s.red_left_pad + index * s.size


@kernel
def build_freelist(m: SlubMemory, s: KmemCache, pfn: int) -> None:
    """Chain all objects of a new slab: by address, or shuffled."""
    slab = m.slab_map[pfn]
    objects = int(slab.objects)
    if len(s.random_seq) == 0 or objects < 2:
        last = nth_object(m, s, pfn, objects - 1)
        at = nth_object(m, s, pfn, 0)
        slab.freelist = at
        while at < last:
            set_freepointer(m, s, at, at + s.size)
            at += s.size
        set_freepointer(m, s, last, 0)
        return
    count = len(s.random_seq)
    place = random_below(m, count)
    previous = 0
    for _ in range(count):
        index = int(s.random_seq[place])
        place += 1
        if place == count:
            place = 0
        if index >= objects:  # a slab of a lower order
            continue
        at = nth_object(m, s, pfn, index)
        if previous == 0:
            slab.freelist = at
        else:
            set_freepointer(m, s, previous, at)
        previous = at
    set_freepointer(m, s, previous, 0)


@kernel
def allocate_slab(m: SlubMemory, s: KmemCache, gfp: int, nid: int, cpu: int) -> int:
    """Frames for a new slab, all objects free; first frame, or NONE."""
    memory = memory_at(m.memory)
    node = memory.cpu_node[cpu] if nid == NONE else nid
    flags = gfp & SLAB_GFP & m.gfp_allowed | s.allocflags
    order = s.order
    first = (flags | NOWARN_NORETRY) & ~NOFAIL
    if first & DIRECT_RECLAIM and order > s.min_order:
        first = (first | NOMEMALLOC) & ~RECLAIM
    objects = s.objects
    pfn = alloc_pages(memory, order, first, node, cpu, 0)
    if pfn == NONE:
        order = s.min_order
        objects = s.min_objects
        pfn = alloc_pages(memory, order, flags, node, cpu, 0)
        if pfn == NONE:
            return NONE
        s.cpu_slab[cpu].stat[ORDER_FALLBACK] += 1
    for frame in range(pfn, pfn + (1 << order)):
        m.slab_map[frame].kind = FRAME_SLAB_TAIL
        m.slab_map[frame].head = pfn
    slab = m.slab_map[pfn]
    slab.kind = FRAME_SLAB
    slab.order = order
    slab.cache = s.number
    slab.objects = objects
    slab.inuse = 0
    slab.frozen = 0
    slab.on_node = 0
    slab.slabs = 0
    slab.next = NO_SLAB
    slab.prev = NO_SLAB
    if s.debug:
        init_slab_padding(m, s, pfn)
        for index in range(objects):
            setup_object_debug(m, s, nth_object(m, s, pfn, index))
    build_freelist(m, s, pfn)
    if s.ctor and m.nr_ctor < len(m.ctor_slabs):
        m.ctor_slabs[m.nr_ctor] = pfn
        m.nr_ctor += 1
    log_pages(m, PAGES_ALLOCATED, order, s.number, pfn)
    s.cpu_slab[cpu].stat[ALLOC_SLAB] += 1
    n = s.node_lists[node_of(m, pfn)]
    n.nr_slabs += 1
    n.total_objects += objects
    return pfn


@kernel
def discard_slab(m: SlubMemory, s: KmemCache, pfn: int, cpu: int) -> None:
    """Give an empty slab, which is on no list, back to the page allocator.

    DEVIATION: the grace period of SLAB_TYPESAFE_BY_RCU caches is over at once.
    """
    slab = m.slab_map[pfn]
    n = s.node_lists[node_of(m, pfn)]
    if slab.on_node:
        remove_full(m, n, pfn)
    n.nr_slabs -= 1
    n.total_objects -= int(slab.objects)
    s.cpu_slab[cpu].stat[FREE_SLAB] += 1
    order = int(slab.order)
    for frame in range(pfn, pfn + (1 << order)):
        m.slab_map[frame].kind = FRAME_FREE
    log_pages(m, PAGES_FREED, order, s.number, pfn)
    free_pages(memory_at(m.memory), pfn, order, cpu, False)
