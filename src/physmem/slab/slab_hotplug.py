# SPDX-License-Identifier: GPL-2.0-or-later
"""A CPU comes or goes: its arrays, and what its node has for all CPUs.

Linux: cpuup_callback(), mm/slab.c (2.6.24)
"""

from typing import TYPE_CHECKING

from physmem.lib.jit import ready
from physmem.slab.slab_entry import do_drain_alien, do_drain_freelist, do_drain_shared
from physmem.slab.slab_state import set_array
from physmem.slab.slab_tune import alloc_alien, drain_cpu, init_list3

if TYPE_CHECKING:
    from physmem.slab.slab import SlabAllocator

JUNK_BATCH = 0xBAADF00D
"""Batch of arrays that never ask for it, as in the kernel."""


def cpu_up(slab: "SlabAllocator", cpu: int) -> None:
    """Make a CPU ready to allocate: CPU_UP_PREPARE, then online."""
    config, tables = slab.config, slab.tables
    nodes = tables.shape[1]
    nid = slab.cpu_node(cpu)
    for cache in list(slab.caches):
        l3 = tables.nodelists[cache.number * nodes + nid]
        if not l3["present"]:
            list3 = cache.parts.setdefault("list3", [0] * nodes)
            list3[nid] = slab.internal_kmalloc(config.sizeof_list3, nid=nid)
            init_list3(slab, cache, nid)
        # the new CPU is not online yet: it does not count
        batch = int(tables.slab_caches[cache.number]["batchcount"])
        l3["free_limit"] = (1 + slab.online_of(nid)) * batch + cache.geometry.num
    header, word = config.sizeof_array_cache, config.word
    for cache in list(slab.caches):
        record = tables.slab_caches[cache.number]
        limit, batch = int(record["limit"]), int(record["batchcount"])
        shared = int(record["sharedfactor"]) * batch
        parts = cache.parts
        array = slab.internal_kmalloc(header + word * limit, nid=nid)
        spare = slab.internal_kmalloc(header + word * shared, nid=nid) if shared else 0
        aliens = alloc_alien(slab, nid, limit) if slab.use_alien else []
        parts.setdefault("cpu", [0] * slab.nr_cpus)[cpu] = array
        set_array(tables, ("cpu", cache.number, cpu), limit, batch)
        if spare and ("shared", cache.number, nid) not in tables.entries:
            parts.setdefault("shared", [0] * nodes)[nid] = spare
            set_array(tables, ("shared", cache.number, nid), shared, JUNK_BATCH)
            spare = 0
        if aliens and not parts.get(f"alien{nid}"):
            parts[f"alien{nid}"] = aliens
            for other in range(nodes):
                set_array(
                    tables, ("alien", cache.number, nid, other), 12 if limit > 1 else 1, JUNK_BATCH
                )
            aliens = []
        tables.attach_cache(cache.number)
        for address in (spare, *aliens[1:], *aliens[:1]):
            if address:
                slab.internal_kfree(address)
    slab.online = sorted({*slab.online, cpu})
    tables.cpu_online[cpu] = 1


def cpu_dead(slab: "SlabAllocator", cpu: int) -> None:
    """Take back what a CPU held that is offline now."""
    tables = slab.tables
    nodes = tables.shape[1]
    nid = slab.cpu_node(cpu)
    slab.online = [each for each in slab.online if each != cpu]
    tables.cpu_online[cpu] = 0
    for cache in list(slab.caches):
        parts = cache.parts
        l3 = tables.nodelists[cache.number * nodes + nid]
        l3["free_limit"] -= int(tables.slab_caches[cache.number]["batchcount"])
        drain_cpu(slab, cache, cpu)
        garbage = [parts["cpu"][cpu]]
        parts["cpu"][cpu] = 0
        del tables.entries["cpu", cache.number, cpu]
        if not slab.online_of(nid):
            if ("shared", cache.number, nid) in tables.entries:
                ready(do_drain_shared)(slab.handle, cache.number, nid)
                garbage.insert(0, parts["shared"][nid])
                parts["shared"][nid] = 0
                del tables.entries["shared", cache.number, nid]
            if f"alien{nid}" in parts:
                ready(do_drain_alien)(slab.handle, cache.number, nid)
                aliens = parts.pop(f"alien{nid}")
                garbage[-1:-1] = [*aliens[1:], *aliens[:1]]
                for other in range(nodes):
                    del tables.entries["alien", cache.number, nid, other]
        tables.attach_cache(cache.number)
        for address in garbage:
            if address:
                slab.internal_kfree(address)
    for cache in slab.caches:
        ready(do_drain_freelist)(slab.handle, cache.number, nid)
