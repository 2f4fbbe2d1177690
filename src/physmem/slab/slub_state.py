# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffers behind SLUB, and its records filled in.

Linux: mm/slub.c, mm/slab_common.c (6.1)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.ram import Ram
from physmem.lib.struct import address, attach, dtype_of
from physmem.mm.mmzone import NONE
from physmem.slab.allocator import Duplicate, Reserve, signed
from physmem.slab.flags import (
    DEBUG_FLAGS,
    SLAB_CACHE_DMA,
    SLAB_CACHE_DMA32,
    SLAB_KMALLOC,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.kmalloc_classes import kmalloc_index, shift_high
from physmem.slab.slub_config import SlubConfig, SlubFeature
from physmem.slab.slub_sizes import SlubGeometry, request_size, track_size
from physmem.slab.slub_types import (
    NO_SLAB,
    KmemCache,
    KmemCacheCpu,
    KmemCacheNode,
    Slab,
    SlubMemory,
)

MAX_CACHES = 2048
CTOR_SLABS = 1 << 14
PAGE_LOG = 1 << 17
GFP_COMP = 0x40000
GFP_DMA = 0x1
GFP_DMA32 = 0x4
GFP_RECLAIMABLE = 0x10
GFP_BOOT_MASK = 0xFFFFFFFF & ~(0xC00 | 0x40 | 0x80)
"""Early boot: nobody can reclaim, nothing can be written."""


@dataclass(frozen=True)
class SlubTables:
    """Buffers of one SLUB. `slub` has one element; the others hang on it by address."""

    slub: NDArray[Any]
    kmem_caches: NDArray[Any]
    cpu_slab: NDArray[Any]  # caches x CPUs
    node_lists: NDArray[Any]  # caches x nodes
    slab_map: NDArray[Any]  # per frame
    live_objects: NDArray[np.uint8]
    ctor_slabs: NDArray[np.int64]
    page_log: NDArray[np.int64]
    size_index: NDArray[np.uint8]
    random_seq: dict[int, NDArray[np.uint16]]

    def attach(self, memory: NDArray[Any], ram: Ram) -> None:
        """Write the buffers' addresses into the records that point to them."""
        slub = self.slub[0]
        slub["memory"] = address(memory)
        for name in (
            "kmem_caches",
            "slab_map",
            "live_objects",
            "ctor_slabs",
            "page_log",
            "size_index",
        ):
            attach(slub, name, getattr(self, name))
        whole = ram.whole
        attach(slub, "ram_bytes", whole)
        attach(slub, "ram_ints", whole.view(np.uint32))
        attach(slub, "ram_longs", whole.view(np.int64))
        cpus, nodes = int(slub["nr_cpus"]), int(slub["nr_nodes"])
        for number in np.flatnonzero(self.kmem_caches["live"]).tolist():
            cache = self.kmem_caches[number]
            attach(cache, "cpu_slab", self.cpu_slab[number * cpus : (number + 1) * cpus])
            attach(cache, "node_lists", self.node_lists[number * nodes : (number + 1) * nodes])
            attach(cache, "random_seq", self.random_seq.get(number, np.empty(0, np.uint16)))

    def copy(self, duplicate: Duplicate) -> "SlubTables":
        """Independent copy of all buffers, to be attached."""
        made: dict[str, Any] = {
            name: duplicate(getattr(self, name))
            for name in self.__dataclass_fields__
            if name != "random_seq"
        }
        return SlubTables(**made, random_seq=dict(self.random_seq))


def make_tables(
    memory: NDArray[Any], ram: Ram, config: SlubConfig, page_offset: int, reserve: Reserve
) -> SlubTables:
    """Buffers for a machine, no cache yet."""
    head = memory[0]
    cpus = int(head["nr_cpus"])
    nodes = int(head["zonelist_len"]) // int(head["nr_zones"])
    frames = int(head["max_pfn"])
    tables = SlubTables(
        slub=reserve(1, dtype_of(SlubMemory)),
        kmem_caches=reserve(MAX_CACHES, dtype_of(KmemCache)),
        cpu_slab=reserve(MAX_CACHES * cpus, dtype_of(KmemCacheCpu)),
        node_lists=reserve(MAX_CACHES * nodes, dtype_of(KmemCacheNode)),
        slab_map=reserve(frames, dtype_of(Slab)),
        live_objects=reserve((frames << config.page_shift >> 6) + 8, np.uint8),
        ctor_slabs=reserve(CTOR_SLABS, np.int64),
        page_log=reserve(2 * PAGE_LOG + 1, np.int64),
        size_index=np.array(
            [kmalloc_index(config, size) for size in range(8, (1 << shift_high(config)) + 1, 8)],
            np.uint8,
        ),
        random_seq={},
    )
    slub = tables.slub[0]
    features = config.features
    slub["page_offset"] = signed(page_offset)
    slub["page_shift"] = config.page_shift
    slub["word"] = config.word
    slub["nr_cpus"] = cpus
    slub["nr_nodes"] = nodes
    slub["unfrozen"] = bool(features & SlubFeature.PARTIAL_UNFROZEN)
    slub["any_node"] = bool(features & SlubFeature.ANY_NODE_ON_REQUEST)
    slub["comp_always"] = bool(features & SlubFeature.COMP_ALWAYS)
    slub["shift_high"] = shift_high(config)
    slub["kmalloc_types"] = config.memcg
    slub["zone_dma"] = config.zone_dma
    slub["gfp_allowed"] = GFP_BOOT_MASK
    slub["rng"] = (config.seed ^ 0x5DEECE66D) & 0xFFFFFFFFFFFF
    slub["kmalloc_caches"] = NONE
    tables.attach(memory, ram)
    return tables


def fill_cache(
    tables: SlubTables, number: int, config: SlubConfig, geometry: SlubGeometry, flags: int
) -> None:
    """Fill in the record of a cache; the page-log and constructor fields stay as they are."""
    slub = tables.slub[0]
    cpus, nodes = int(slub["nr_cpus"]), int(slub["nr_nodes"])
    cpu_slab = tables.cpu_slab[number * cpus : (number + 1) * cpus]
    node_lists = tables.node_lists[number * nodes : (number + 1) * nodes]
    record = tables.kmem_caches[number]
    record["number"] = number
    record["live"] = 1
    record["cache_flags"] = flags
    for name in (
        "size",
        "object_size",
        "offset",
        "inuse",
        "align",
        "red_left_pad",
        "order",
        "objects",
        "min_order",
        "min_objects",
        "min_partial",
        "cpu_partial",
        "cpu_partial_slabs",
    ):
        record[name] = getattr(geometry, name)
    debug = bool(flags & DEBUG_FLAGS)
    record["debug"] = debug
    record["has_cpu_partial"] = config.cpu_partial and not debug
    record["allocflags"] = _allocflags(geometry.order, flags, always=bool(slub["comp_always"]))
    record["defrag_ratio"] = 1000
    record["ctor"] = 0
    record["poison_object"] = 0
    track = track_size(config)
    record["track_size"] = track
    outside = geometry.offset >= geometry.inuse
    record["track_offset"] = geometry.offset + config.word if outside else geometry.inuse
    noted = flags & SLAB_STORE_USER and flags & SLAB_KMALLOC
    record["orig_offset"] = int(record["track_offset"]) + 2 * track if noted else 0
    record["orig_size"] = request_size(config) if noted else 0
    tight = noted and config.features & SlubFeature.RED_ZONE_AT_REQUEST
    record["red_at_request"] = bool(tight and flags & SLAB_RED_ZONE)
    record["secret"] = 0
    cpu_slab[:] = np.zeros(1, cpu_slab.dtype)
    cpu_slab["slab"] = cpu_slab["partial"] = NO_SLAB
    node_lists[:] = np.zeros(1, node_lists.dtype)
    for name in ("partial_head", "partial_tail", "full_head", "full_tail"):
        node_lists[name] = NO_SLAB
    tables.random_seq.pop(number, None)
    attach(record, "cpu_slab", cpu_slab)
    attach(record, "node_lists", node_lists)
    attach(record, "random_seq", np.empty(0, np.uint16))


def set_constructed(tables: SlubTables, number: int, *, ctor: bool) -> None:
    """Say whether objects are constructed, and with that whether they can be poisoned."""
    record = tables.kmem_caches[number]
    flags = int(record["cache_flags"])
    record["ctor"] = ctor
    record["poison_object"] = bool(
        flags & SLAB_POISON and not flags & SLAB_TYPESAFE_BY_RCU and not ctor
    )


def _allocflags(order: int, flags: int, *, always: bool) -> int:
    """Flags that every new slab of a cache is asked for with."""
    bits = GFP_COMP if order or always else 0
    if flags & SLAB_CACHE_DMA:
        bits |= GFP_DMA
    if flags & SLAB_CACHE_DMA32:
        bits |= GFP_DMA32
    if flags & SLAB_RECLAIM_ACCOUNT:
        bits |= GFP_RECLAIMABLE
    return bits
