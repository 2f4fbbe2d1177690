# SPDX-License-Identifier: GPL-2.0-or-later
"""The arrays of a cache: how large they are, and how larger ones take their place.

Linux: enable_cpucache(), do_tune_cpucache(), alloc_kmemlist(), mm/slab.c (2.6.24)
"""

from typing import TYPE_CHECKING

from physmem.lib.jit import ready
from physmem.slab.slab_entry import do_drain_cpu, do_drain_shared
from physmem.slab.slab_sizes import cpucache_limits
from physmem.slab.slab_state import set_array

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slab import SlabAllocator

BOOT_CPUCACHE_ENTRIES = 1
ALIEN_ENTRIES = 12


def init_list3(slab: "SlabAllocator", cache: "Cache", nid: int) -> None:
    """Lists of a node, empty. Linux: kmem_list3_init() and what its callers add"""
    nodes = slab.tables.shape[1]
    record = slab.tables.nodelists[cache.number * nodes + nid]
    interval = 4 * slab.config.hz
    descriptor = cache.parts["cache"][0] & ((1 << 8 * slab.config.word) - 1)
    record["present"] = 1
    record["colour_next"] = 0
    record["next_reap"] = slab.jiffies + interval + descriptor % interval


def boot_array(slab: "SlabAllocator", cache: "Cache", address: int) -> None:
    """The array of one entry that a cache has before the start is over; 0: a static one."""
    cache.parts["cpu"] = [address, *([0] * (slab.nr_cpus - 1))]
    set_array(slab.tables, ("cpu", cache.number, 0), BOOT_CPUCACHE_ENTRIES, 1)
    slab.tables.attach_cache(cache.number)


def enable_cpucache(slab: "SlabAllocator", cache: "Cache") -> None:
    """Give a cache the arrays that its stride calls for."""
    limit, batch, shared = cpucache_limits(slab.config, cache.geometry.buffer_size)
    tune(slab, cache, limit, batch, shared)


def tune(slab: "SlabAllocator", cache: "Cache", limit: int, batch: int, shared: int) -> None:
    """Replace the arrays of a cache."""
    config, tables = slab.config, slab.tables
    record = tables.slab_caches[cache.number]
    header, word = config.sizeof_array_cache, config.word
    work = slab.internal_kmalloc(word * (1 + config.nr_cpus), zero=True)
    made = {
        cpu: slab.internal_kmalloc(header + word * limit, nid=slab.cpu_node(cpu))
        for cpu in slab.online
    }
    old = cache.parts.setdefault("cpu", [0] * slab.nr_cpus)
    held = {}
    for cpu in slab.online:
        key = ("cpu", cache.number, cpu)
        if key in tables.entries:
            avail = int(tables.cpu_array[cache.number * slab.nr_cpus + cpu]["avail"])
            held[cpu] = tables.entries[key][:avail].copy()
    record["batchcount"], record["limit"], record["sharedfactor"] = batch, limit, shared
    for cpu in slab.online:
        set_array(tables, ("cpu", cache.number, cpu), limit, batch)
    tables.attach_cache(cache.number)
    for cpu in slab.online:
        if cpu in held:
            slab.free_to_slabs(cache, held[cpu], slab.cpu_node(cpu))
        before, old[cpu] = old[cpu], made[cpu]
        if before:
            slab.internal_kfree(before)
    slab.internal_kfree(work)
    for nid in slab.nodes:
        _alloc_list3(slab, cache, nid)


def _alloc_list3(slab: "SlabAllocator", cache: "Cache", nid: int) -> None:
    """Shared array, alien arrays and lists of one node. Linux: alloc_kmemlist() (2.6.24)"""
    config, tables = slab.config, slab.tables
    record = tables.slab_caches[cache.number]
    batch, limit = int(record["batchcount"]), int(record["limit"])
    shared = int(record["sharedfactor"])
    header, word = config.sizeof_array_cache, config.word
    aliens: list[int] = []
    if slab.use_alien:
        aliens = alloc_alien(slab, nid, limit)
    fresh = 0
    if shared:
        fresh = slab.internal_kmalloc(header + word * shared * batch, nid=nid)
    nodes = tables.shape[1]
    l3 = tables.nodelists[cache.number * nodes + nid]
    key = ("shared", cache.number, nid)
    parts = cache.parts
    old = parts.setdefault("shared", [0] * nodes)
    there = bool(l3["present"])
    if there and key in tables.entries:
        ready(do_drain_shared)(slab.handle, cache.number, nid)
    if not there:
        parts.setdefault("list3", [0] * nodes)[nid] = slab.internal_kmalloc(
            config.sizeof_list3, nid=nid
        )
        init_list3(slab, cache, nid)
    before, old[nid] = old[nid], fresh
    if shared:
        set_array(tables, key, shared * batch, 0xBAADF00D)
    else:
        tables.entries.pop(key, None)
    surplus: list[int] = []
    if aliens:
        mine = parts.setdefault(f"alien{nid}", [])
        if mine:
            surplus = aliens
        else:
            mine += aliens
            for other in range(nodes):
                size = 12 if limit > 1 else 1
                set_array(tables, ("alien", cache.number, nid, other), size, 0xBAADF00D)
    l3["free_limit"] = (1 + slab.online_of(nid)) * batch + cache.geometry.num
    tables.attach_cache(cache.number)
    if before:
        slab.internal_kfree(before)
    for address in reversed(surplus):
        slab.internal_kfree(address)


def alloc_alien(slab: "SlabAllocator", nid: int, limit: int) -> list[int]:
    """Memory of a node's alien arrays: the table of pointers, then one array per other node."""
    config = slab.config
    size = ALIEN_ENTRIES if limit > 1 else 1
    made = [slab.internal_kmalloc(config.word * config.nr_node_ids, nid=nid)]
    for other in slab.nodes:
        if other != nid:
            size_bytes = config.sizeof_array_cache + config.word * size
            made.append(slab.internal_kmalloc(size_bytes, nid=nid))
    return made


def drain_cpu(slab: "SlabAllocator", cache: "Cache", cpu: int) -> None:
    """Empty a CPU's array."""
    ready(do_drain_cpu)(slab.handle, cache.number, cpu, slab.cpu_node(cpu))
