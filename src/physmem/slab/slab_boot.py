# SPDX-License-Identifier: GPL-2.0-or-later
"""How SLAB comes to life: from one static cache to all general ones.

Linux: kmem_cache_init(), setup_cpu_cache(), mm/slab.c (2.6.24)
"""

from typing import TYPE_CHECKING

from physmem.slab.flags import SLAB_CACHE_DMA, SLAB_HWCACHE_ALIGN
from physmem.slab.slab_sizes import cache_cache_geometry, slab_geometry
from physmem.slab.slab_tune import boot_array, enable_cpucache, init_list3

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slab import SlabAllocator

ARCH_KMALLOC_MINALIGN = 8


class _Start:
    """What the start has come to."""

    def __init__(self, slab: "SlabAllocator") -> None:
        self.slab = slab
        self.config = slab.config
        self.early = True

    def general(self, size: int, *, dma: bool = False) -> "Cache":
        """Create a general cache as far as its arrays."""
        slab, config = self.slab, self.config
        flags = SLAB_HWCACHE_ALIGN | (SLAB_CACHE_DMA if dma else 0)
        geometry = slab_geometry(config, size, ARCH_KMALLOC_MINALIGN, flags, early=self.early)
        address = slab.internal_alloc(slab.cache_cache)
        cache = slab.new_cache(f"size-{size}{'(DMA)' if dma else ''}", geometry)
        cache.parts["cache"] = [address]
        sizes = config.general_sizes
        place = len(sizes) * (2 if dma else 1) + sizes.index(size)
        slab.tables.general[place] = cache.number
        return cache

    def static_lists(self, cache: "Cache") -> None:
        """Lists that are part of the kernel's image."""
        cache.parts["list3"] = [0] * self.slab.nr_nodes
        for nid in self.slab.nodes:
            init_list3(self.slab, cache, nid)

    def own_lists(self, cache: "Cache") -> None:
        """Lists from the general caches."""
        slab = self.slab
        cache.parts["list3"] = [0] * slab.nr_nodes
        for nid in slab.nodes:
            cache.parts["list3"][nid] = slab.internal_kmalloc(self.config.sizeof_list3, nid=nid)
            init_list3(slab, cache, nid)


def start_slab(slab: "SlabAllocator") -> None:
    """Start SLAB; its calls of the page allocator are those of the kernel."""
    config = slab.config
    start = _Start(slab)
    main = slab.new_cache("kmem_cache", cache_cache_geometry(config))
    main.parts["cache"] = [0]
    slab.cache_cache = main
    boot_array(slab, main, 0)
    start.static_lists(main)
    slab.push(main)
    index_ac = config.general_size(config.sizeof_arraycache_init)
    index_l3 = config.general_size(config.sizeof_list3)
    made: dict[int, Cache] = {}
    made[index_ac] = first = start.general(index_ac)
    boot_array(slab, first, 0)
    start.static_lists(first)
    slab.push(first)
    if index_l3 != index_ac:
        made[index_l3] = second = start.general(index_l3)
        boot_array(slab, second, slab.internal_kmalloc(config.sizeof_arraycache_init))
        start.static_lists(second)
        slab.push(second)
    start.early = False
    for size in config.general_sizes:
        for dma in (False, True) if config.zone_dma else (False,):
            if not dma and size in made:
                continue
            cache = start.general(size, dma=dma)
            boot_array(slab, cache, slab.internal_kmalloc(config.sizeof_arraycache_init))
            start.own_lists(cache)
            slab.push(cache)
    for cache in (main, first):
        cache.parts["cpu"][0] = slab.internal_kmalloc(config.sizeof_arraycache_init)
    main.parts["list3"][slab.nodes[0]] = slab.internal_kmalloc(
        config.sizeof_list3, nid=slab.nodes[0]
    )
    for nid in slab.nodes:
        first.parts["list3"][nid] = slab.internal_kmalloc(config.sizeof_list3, nid=nid)
        if index_l3 != index_ac:
            made[index_l3].parts["list3"][nid] = slab.internal_kmalloc(config.sizeof_list3, nid=nid)
    for cache in list(slab.caches):
        enable_cpucache(slab, cache)
