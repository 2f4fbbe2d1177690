# SPDX-License-Identifier: GPL-2.0-or-later
"""How SLUB comes to life: the cache of caches is allocated from itself.

Linux: kmem_cache_init(), early_kmem_cache_node_alloc(), bootstrap(), mm/slub.c (6.1);
create_kmalloc_caches(), mm/slab_common.c
"""

from typing import TYPE_CHECKING

import numpy as np

from physmem.lib.jit import kernel
from physmem.lib.struct import attach
from physmem.mm.gfp import GFP_KERNEL
from physmem.mm.mmzone import NONE
from physmem.slab.allocator import signed
from physmem.slab.slub_config import SlubConfig, SlubFeature
from physmem.slab.slub_debug import SLUB_RED_ACTIVE, init_object
from physmem.slab.slub_list import add_partial
from physmem.slab.slub_object import fill, get_freepointer, mark_live, slub_at
from physmem.slab.slub_page import allocate_slab
from physmem.slab.slub_types import KmemCache

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slub import SlubAllocator

ZERO = 0x100


def sizeof_kmem_cache_node(config: SlubConfig) -> int:
    """Bytes of struct kmem_cache_node: lock, count, two lists, two counters (and a barn)."""
    size = 8 + 7 * config.word if config.word == 8 else 4 + 7 * config.word
    return size + config.word if config.features & SlubFeature.LARGE_NODE else size


def sizeof_kmem_cache(config: SlubConfig) -> int:
    """Bytes of struct kmem_cache up to the last node."""
    w = config.word
    if w == 8:
        size = 200 + 8 * config.freelist_hardened + 8 * config.freelist_random
        if config.features & SlubFeature.LARGE_NODE:
            size += 8
    else:
        size = 128 + 4 * config.freelist_hardened + 4 * config.freelist_random
    return size + w * config.nr_node_ids


@kernel
def do_early_node(h: int, number: int, nid: int, gfp: int) -> int:
    """First slab of the cache of node records on a node, its first object taken by hand."""
    m = slub_at(h)
    s: KmemCache = m.kmem_caches[number]
    pfn = allocate_slab(m, s, gfp, nid, 0)
    if pfn == NONE:
        return 0
    slab = m.slab_map[pfn]
    address = slab.freelist
    slab.freelist = get_freepointer(m, s, address)
    slab.inuse = 1
    if s.debug:
        init_object(m, s, address, SLUB_RED_ACTIVE)
    fill(m, address, s.object_size, 0)
    add_partial(m, s.node_lists[nid], pfn, False)
    mark_live(m, address)
    return address


def random_seq(slub: "SlubAllocator", cache: "Cache") -> None:
    """Permutation that shuffles new slabs. Linux: init_cache_random_seq(), mm/slub.c (6.1)"""
    count = cache.geometry.objects
    if count < 2:
        return
    address = slub.kmalloc(4 * count, GFP_KERNEL | ZERO)
    cache.parts["random_seq"] = [signed(address)]
    rng = np.random.default_rng((slub.config.seed, cache.number, 1))
    order = np.arange(count, dtype=np.uint16)
    for i in range(count - 1, 0, -1):
        j = int(rng.integers(0, 1 << 32)) % (i + 1)
        order[[i, j]] = order[[j, i]]
    slub.ram.write(slub.paddr(address), order.astype(np.uint32).tobytes())
    slub.tables.random_seq[cache.number] = order
    attach(slub.tables.kmem_caches[cache.number], "random_seq", order)
