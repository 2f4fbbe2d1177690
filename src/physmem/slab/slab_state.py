# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffers behind SLAB, and its records filled in.

Linux: mm/slab.c (2.6.24)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.ram import Ram
from physmem.lib.struct import address, attach, dtype_of
from physmem.mm.gfp import __GFP_NORETRY, __GFP_NOWARN, __GFP_THISNODE
from physmem.mm.mmzone import NONE
from physmem.slab.allocator import Duplicate, Reserve, signed
from physmem.slab.flags import SLAB_CACHE_DMA
from physmem.slab.slab_config import SlabConfig
from physmem.slab.slab_entry import TABLE_TOP
from physmem.slab.slab_sizes import SlabGeometry
from physmem.slab.slab_types import (
    NO_SLAB,
    ArrayCache,
    KmemList3,
    SlabCache,
    SlabFrame,
    SlabMemory,
)

MAX_CACHES = 2048
CTOR_SLABS = 1 << 14
PAGE_LOG = 1 << 17
GFP_THISNODE = __GFP_THISNODE | __GFP_NOWARN | __GFP_NORETRY


@dataclass(frozen=True)
class SlabTables:
    """Buffers of one SLAB. `slab` has one element; the others hang on it by address.

    `entries` holds the objects of every array, by ("cpu", cache, cpu), ("shared", cache, node) or
    ("alien", cache, node, other).
    """

    slab: NDArray[Any]
    slab_caches: NDArray[Any]
    cpu_array: NDArray[Any]  # caches x CPUs
    nodelists: NDArray[Any]  # caches x nodes
    shared: NDArray[Any]  # caches x nodes
    alien: NDArray[Any]  # caches x nodes x nodes
    slab_frames: NDArray[Any]
    live_objects: NDArray[np.uint8]
    ctor_slabs: NDArray[np.int64]
    page_log: NDArray[np.int64]
    general: NDArray[np.int64]
    size_place: NDArray[np.uint8]
    reap_node: NDArray[np.int64]
    cpu_online: NDArray[np.int64]
    entries: dict[tuple[Any, ...], NDArray[np.int64]]

    @property
    def shape(self) -> tuple[int, int]:
        """CPUs and nodes."""
        return int(self.slab[0]["nr_cpus"]), int(self.slab[0]["nr_nodes"])

    def attach(self, memory: NDArray[Any], ram: Ram) -> None:
        """Write the buffers' addresses into the records that point to them."""
        slab = self.slab[0]
        slab["memory"] = address(memory)
        for name in (
            "slab_caches",
            "slab_frames",
            "live_objects",
            "ctor_slabs",
            "page_log",
            "general",
            "size_place",
            "reap_node",
            "cpu_online",
        ):
            attach(slab, name, getattr(self, name))
        whole = ram.whole
        attach(slab, "ram_bytes", whole)
        attach(slab, "ram_ints", whole.view(np.uint32))
        attach(slab, "ram_longs", whole.view(np.int64))
        for number in np.flatnonzero(self.slab_caches["live"]).tolist():
            self.attach_cache(number)

    def attach_cache(self, number: int) -> None:
        """Write the addresses of one cache's arrays and lists."""
        cpus, nodes = self.shape
        cache = self.slab_caches[number]
        attach(cache, "cpu_array", self.cpu_array[number * cpus : (number + 1) * cpus])
        attach(cache, "nodelists", self.nodelists[number * nodes : (number + 1) * nodes])
        none = self.entries.get(("none",), np.empty(0, np.int64))
        for cpu in range(cpus):
            entries = self.entries.get(("cpu", number, cpu), none)
            attach(self.cpu_array[number * cpus + cpu], "entries", entries)
        for nid in range(nodes):
            l3 = self.nodelists[number * nodes + nid]
            at = number * nodes + nid
            entries = self.entries.get(("shared", number, nid), none)
            has = ("shared", number, nid) in self.entries
            attach(self.shared[at], "entries", entries)
            attach(l3, "shared", self.shared[at : at + has])
            has = ("alien", number, nid, 0) in self.entries
            first = at * nodes
            for other in range(nodes):
                entries = self.entries.get(("alien", number, nid, other), none)
                attach(self.alien[first + other], "entries", entries)
            attach(l3, "alien", self.alien[first : first + nodes * has])

    def copy(self, duplicate: Duplicate) -> "SlabTables":
        """Independent copy of all buffers, to be attached."""
        made: dict[str, Any] = {
            name: duplicate(getattr(self, name))
            for name in self.__dataclass_fields__
            if name != "entries"
        }
        entries = {key: array.copy() for key, array in self.entries.items()}
        return SlabTables(**made, entries=entries)


def make_tables(
    memory: NDArray[Any], ram: Ram, config: SlabConfig, page_offset: int, reserve: Reserve
) -> SlabTables:
    """Buffers for a machine, no cache yet."""
    head = memory[0]
    cpus = int(head["nr_cpus"])
    nodes = int(head["zonelist_len"]) // int(head["nr_zones"]) if config.numa else 1
    frames = int(head["max_pfn"])
    sizes = config.general_sizes
    place = [
        next(i for i, general in enumerate(sizes) if size <= general)
        for size in range(32, TABLE_TOP + 1, 32)
    ]
    tables = SlabTables(
        slab=reserve(1, dtype_of(SlabMemory)),
        slab_caches=reserve(MAX_CACHES, dtype_of(SlabCache)),
        cpu_array=reserve(MAX_CACHES * cpus, dtype_of(ArrayCache)),
        nodelists=reserve(MAX_CACHES * nodes, dtype_of(KmemList3)),
        shared=reserve(MAX_CACHES * nodes, dtype_of(ArrayCache)),
        alien=reserve(MAX_CACHES * nodes * nodes, dtype_of(ArrayCache)),
        slab_frames=reserve(frames, dtype_of(SlabFrame)),
        live_objects=reserve((frames << config.page_shift >> 5) + 8, np.uint8),
        ctor_slabs=reserve(CTOR_SLABS, np.int64),
        page_log=reserve(2 * PAGE_LOG + 1, np.int64),
        general=np.full(3 * len(sizes), NONE, np.int64),
        size_place=np.array(place, np.uint8),
        reap_node=np.zeros(cpus, np.int64),
        cpu_online=np.zeros(cpus, np.int64),
        entries={},
    )
    tables.general[: len(sizes)] = sizes
    tables.cpu_online[0] = 1  # the others come after the start
    slab = tables.slab[0]
    slab["page_offset"] = signed(page_offset)
    slab["page_shift"] = config.page_shift
    slab["word"] = config.word
    slab["nr_cpus"] = cpus
    slab["nr_nodes"] = nodes
    slab["numa"] = config.numa
    slab["thisnode"] = GFP_THISNODE if config.numa else 0
    slab["sizeof_slab"] = config.sizeof_slab
    slab["reap_interval"] = 4 * config.hz
    slab["checks"] = config.debug
    slab["zone_dma"] = config.zone_dma
    slab["kmalloc_max"] = config.kmalloc_max_size
    tables.attach(memory, ram)
    return tables


def fill_cache(
    tables: SlabTables, number: int, geometry: SlabGeometry, slabp_cache: int, *, ctor: bool
) -> None:
    """Fill in the record of a cache: no slab, no array."""
    cpus, nodes = tables.shape
    record = tables.slab_caches[number]
    record["number"] = number
    record["live"] = 1
    record["cache_flags"] = geometry.flags
    for name in (
        "buffer_size",
        "obj_size",
        "obj_offset",
        "num",
        "gfporder",
        "colour",
        "colour_off",
        "slab_size",
    ):
        record[name] = getattr(geometry, name)
    size = geometry.buffer_size
    record["reciprocal"] = ((1 << 32) + size - 1) // size
    record["gfpflags"] = 1 if geometry.flags & SLAB_CACHE_DMA else 0
    record["off_slab"] = geometry.off_slab
    record["slabp_cache"] = slabp_cache
    record["ctor"] = ctor
    record["batchcount"] = record["limit"] = 1
    record["sharedfactor"] = 0
    record["statistic"] = 0
    for table, first, count in (
        (tables.cpu_array, number * cpus, cpus),
        (tables.nodelists, number * nodes, nodes),
        (tables.shared, number * nodes, nodes),
        (tables.alien, number * nodes * nodes, nodes * nodes),
    ):
        table[first : first + count] = np.zeros(1, table.dtype)
    lists = tables.nodelists[number * nodes : (number + 1) * nodes]
    lists["first"] = lists["last"] = NO_SLAB
    for key in [key for key in tables.entries if len(key) > 1 and key[1] == number]:
        del tables.entries[key]
    tables.attach_cache(number)


def array_record(tables: SlabTables, key: tuple[Any, ...]) -> Any:
    """Record of an array, by its key in `SlabTables.entries`."""
    cpus, nodes = tables.shape
    kind, number, at = key[:3]
    if kind == "cpu":
        return tables.cpu_array[number * cpus + at]
    if kind == "shared":
        return tables.shared[number * nodes + at]
    return tables.alien[(number * nodes + at) * nodes + key[3]]


def set_array(tables: SlabTables, key: tuple[Any, ...], limit: int, batch: int) -> Any:
    """Make an array of objects, empty; its record."""
    record = array_record(tables, key)
    record["avail"] = record["touched"] = 0
    record["limit"], record["batchcount"] = limit, batch
    tables.entries[key] = np.zeros(limit, np.int64)
    return record
