# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be read off SLUB: counts, attributes, who owns an address.

Linux: get_slabinfo(), slab_attribute functions, mm/slub.c (6.1)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadRequestError
from physmem.lib.jit import ready
from physmem.slab.flags import (
    SLAB_ACCOUNT,
    SLAB_CACHE_DMA,
    SLAB_CACHE_DMA32,
    SLAB_CONSISTENCY_CHECKS,
    SLAB_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TRACE,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.rows import CacheRow
from physmem.slab.slub_entry import do_flush
from physmem.slab.slub_merge import NEVER_MERGE
from physmem.slab.slub_types import (
    FRAME_FREE,
    FRAME_LARGE,
    FRAME_LARGE_TAIL,
    FRAME_SLAB,
    NO_SLAB,
    STATS,
)

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slub import SlubAllocator

MASK = (1 << 64) - 1


def cpu_records(slub: "SlubAllocator", cache: "Cache") -> NDArray[Any]:
    """Records of the CPUs."""
    n = slub.nr_cpus
    return slub.tables.cpu_slab[cache.number * n : (cache.number + 1) * n]


def node_records(slub: "SlubAllocator", cache: "Cache") -> NDArray[Any]:
    """Records of the nodes."""
    n = slub.nr_nodes
    return slub.tables.node_lists[cache.number * n : (cache.number + 1) * n]


def slab_list(slub: "SlubAllocator", first: int) -> list[int]:
    """Slabs of a list or chain, from its first member on."""
    frames = slub.tables.slab_map
    found: list[int] = []
    while first != NO_SLAB and len(found) <= len(frames):
        found.append(first)
        first = int(frames[first]["next"])
    return found


def partial_counts(slub: "SlubAllocator", node: Any) -> tuple[int, int]:
    """Free objects and objects in use on a node's partial list.

    From 6.8 on a list of more than 10,000 slabs is estimated from both of its ends; here it is
    counted.
    """
    members = slab_list(slub, int(node["partial_head"]))
    records = slub.tables.slab_map[members]
    inuse = int(records["inuse"].astype(np.int64).sum())
    return int(records["objects"].astype(np.int64).sum()) - inuse, inuse


def slabinfo_rows(slub: "SlubAllocator") -> list[CacheRow]:
    """Counts of all caches, newest first."""
    rows = []
    for cache in slub.caches:
        record = slub.tables.kmem_caches[cache.number]
        nodes = node_records(slub, cache)
        free = sum(partial_counts(slub, node)[0] for node in nodes)
        total = int(nodes["total_objects"].sum())
        slabs = int(nodes["nr_slabs"].sum())
        rows.append(
            CacheRow(
                name=cache.names[0],
                active_objs=total - free,
                num_objs=total,
                objsize=int(record["size"]),
                objperslab=int(record["objects"]),
                pagesperslab=1 << int(record["order"]),
                active_slabs=slabs,
                num_slabs=slabs,
            )
        )
    return rows


def slab_frames(slub: "SlubAllocator", cache: "Cache") -> NDArray[np.int64]:
    """First frame of every slab, ascending."""
    frames = slub.tables.slab_map
    mine = (frames["kind"] == FRAME_SLAB) & (frames["cache"] == cache.number)
    return np.flatnonzero(mine).astype(np.int64)


def live_addresses(slub: "SlubAllocator", cache: "Cache") -> list[int]:
    """Objects that are allocated, ascending."""
    record = slub.tables.kmem_caches[cache.number]
    stride, pad = int(record["size"]), int(record["red_left_pad"])
    found = []
    for pfn in slab_frames(slub, cache).tolist():
        base = (pfn << slub.page_shift) + pad
        for index in range(int(slub.tables.slab_map[pfn]["objects"])):
            at = base + index * stride
            if int(slub.tables.live_objects[at >> 6]) >> (at >> 3 & 7) & 1:
                found.append((slub.page_offset + at) & MASK)
    return found


def ksize(slub: "SlubAllocator", address: int) -> int:
    """Usable bytes of an allocated object. Linux: __ksize(), mm/slab_common.c (6.1, 6.12)"""
    frames = slub.tables.slab_map
    frame = frames[slub.paddr(address) >> slub.page_shift]
    if int(frame["kind"]) == FRAME_LARGE:
        return 1 << (int(frame["order"]) + slub.page_shift)
    record = slub.tables.kmem_caches[int(frames[int(frame["head"])]["cache"])]
    flags = int(record["cache_flags"])
    if record["red_at_request"]:
        # who asks means to use all of it: skip_orig_size_check()
        at = slub.paddr(address) + int(record["orig_offset"])
        slub.ram.write(at, int(record["object_size"]).to_bytes(4, "little"))
    if flags & (SLAB_RED_ZONE | SLAB_POISON):
        return int(record["object_size"])
    if flags & (SLAB_TYPESAFE_BY_RCU | SLAB_STORE_USER):
        return int(record["inuse"])
    return int(record["size"])


def owner_text(slub: "SlubAllocator", address: int) -> str:
    """What an address belongs to, in one clause."""
    frames = slub.tables.slab_map
    paddr = slub.paddr(address)
    pfn = paddr >> slub.page_shift
    if pfn >= len(frames):
        return "outside of the memory"
    kind = int(frames[pfn]["kind"])
    if kind == FRAME_FREE:
        return f"frame {pfn:#x} holds no slab"
    head = int(frames[pfn]["head"])
    if kind in {FRAME_LARGE, FRAME_LARGE_TAIL}:
        return f"kmalloc of order {int(frames[head]['order'])} at frame {head:#x}"
    number = int(frames[head]["cache"])
    cache = next(each for each in slub.caches if each.number == number)
    record = slub.tables.kmem_caches[number]
    base = (head << slub.page_shift) + int(record["red_left_pad"])
    index, within = divmod(paddr - base, int(record["size"]))
    at = base + index * int(record["size"])
    live = int(slub.tables.live_objects[at >> 6]) >> (at >> 3 & 7) & 1
    state = "allocated" if live else "free"
    return (
        f"byte {within} of object {index} ({state}) of cache {cache.name}, slab at frame {head:#x}"
    )


def _per_node(values: list[int]) -> str:
    total = sum(values)
    return " ".join([str(total), *(f"N{nid}={each}" for nid, each in enumerate(values) if each)])


def directory(slub: "SlubAllocator", cache: "Cache") -> str:
    """Name of the cache's directory in /sys/kernel/slab."""
    if not slub.config.merge or cache.flags & NEVER_MERGE or cache.ctor or cache.refcount < 0:
        return cache.names[0]
    letters = "".join(
        letter
        for letter, bit in (
            ("d", SLAB_CACHE_DMA),
            ("D", SLAB_CACHE_DMA32),
            ("a", SLAB_RECLAIM_ACCOUNT),
            ("F", SLAB_CONSISTENCY_CHECKS),
            ("A", SLAB_ACCOUNT),
        )
        if cache.flags & bit
    )
    size = int(slub.tables.kmem_caches[cache.number]["size"])
    return f":{letters}{'-' if letters else ''}{size:07d}"


def attributes(slub: "SlubAllocator", cache: "Cache") -> dict[str, str]:
    """Attributes as /sys/kernel/slab shows them, statistics included."""
    record = slub.tables.kmem_caches[cache.number]
    cpus, nodes = cpu_records(slub, cache), node_records(slub, cache)
    frames = slub.tables.slab_map
    counts = [partial_counts(slub, node) for node in nodes]
    totals = [int(each) for each in nodes["total_objects"]]
    slabs_on_chain = [
        0 if int(cpu["partial"]) == NO_SLAB else int(frames[int(cpu["partial"])]["slabs"])
        for cpu in cpus
    ]
    cpu_slabs = [0] * slub.nr_nodes
    for cpu, chain in zip(cpus, slabs_on_chain, strict=True):
        for pfn, count in ((int(cpu["slab"]), 1), (int(cpu["partial"]), chain)):
            if pfn != NO_SLAB:
                cpu_slabs[slub.node_of(pfn)] += count
    objs = int(record["objects"])
    chained = sum(slabs_on_chain)
    per_cpu = "".join(
        f" C{cpu}={count * objs // 2}({count})" for cpu, count in enumerate(slabs_on_chain) if count
    )
    flags = int(record["cache_flags"])
    found = {
        "aliases": str(max(cache.refcount - 1, 0)),
        "align": str(int(record["align"])),
        "cache_dma": str(int(bool(flags & SLAB_CACHE_DMA))),
        "cpu_partial": str(int(record["cpu_partial"])),
        "cpu_slabs": _per_node(cpu_slabs),
        "ctor": getattr(cache.ctor, "__name__", "") if cache.ctor else "",
        "destroy_by_rcu": str(int(bool(flags & SLAB_TYPESAFE_BY_RCU))),
        "hwcache_align": str(int(bool(flags & SLAB_HWCACHE_ALIGN))),
        "min_partial": str(int(record["min_partial"])),
        "object_size": str(int(record["object_size"])),
        "objects": _per_node([t - c[0] for t, c in zip(totals, counts, strict=True)]),
        "objects_partial": _per_node([inuse for _free, inuse in counts]),
        "objs_per_slab": str(objs),
        "order": str(int(record["order"])),
        "partial": _per_node([int(each) for each in nodes["nr_partial"]]),
        "poison": str(int(bool(flags & SLAB_POISON))),
        "reclaim_account": str(int(bool(flags & SLAB_RECLAIM_ACCOUNT))),
        "red_zone": str(int(bool(flags & SLAB_RED_ZONE))),
        "remote_node_defrag_ratio": str(int(record["defrag_ratio"]) // 10),
        "sanity_checks": str(int(bool(flags & SLAB_CONSISTENCY_CHECKS))),
        "slab_size": str(int(record["size"])),
        "slabs": _per_node([int(each) for each in nodes["nr_slabs"]]),
        "slabs_cpu_partial": f"{chained * objs // 2}({chained}){per_cpu}",
        "store_user": str(int(bool(flags & SLAB_STORE_USER))),
        "total_objects": _per_node(totals),
        "trace": str(int(bool(flags & SLAB_TRACE))),
        "usersize": str(int(record["object_size"]) if flags & 0x1000 else 0),
    }
    stat = cpus["stat"].sum(axis=0)
    for number, name in enumerate(STATS):
        found[name] = str(int(stat[number]))
    return found


def set_attribute(slub: "SlubAllocator", cache: "Cache", name: str, value: int) -> None:
    """Write an attribute of a cache."""
    record = slub.tables.kmem_caches[cache.number]
    where = f"cache {cache.name}, {name}: {value}"
    if not 0 <= value < 1 << 31:
        raise BadRequestError(f"{where}: 0 .. {(1 << 31) - 1} is possible")
    if name == "min_partial":
        record["min_partial"] = value
    elif name == "cpu_partial":
        if value and not record["has_cpu_partial"]:
            raise BadRequestError(f"{where}: the CPUs keep no slabs of this cache")
        record["cpu_partial"] = value
        record["cpu_partial_slabs"] = -(-2 * value // int(record["objects"]))
        for cpu in range(slub.nr_cpus):
            ready(do_flush)(slub._h, cache.number, cpu)  # noqa: SLF001 - our own
    elif name == "remote_node_defrag_ratio":
        if value > 100:
            raise BadRequestError(f"{where}: 0 .. 100 is possible")
        record["defrag_ratio"] = value * 10
    elif name == "shrink" and value == 1:
        slub.shrink(cache)
    else:
        raise BadRequestError(f"{where}: no attribute that can be set so")
