# SPDX-License-Identifier: GPL-2.0-or-later
"""A slab allocator as plain data and arrays, to be kept in a file; and back.

Objects, links of free ones and notes about users lie in the machine's bytes, which the machine
keeps itself. Here is what lies beside them: caches, lists of slabs, arrays, options. A constructor
is a function, which no file can hold: its cache is opened without, and gives objects again as soon
as `Cache.ctor` is set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.ram import Ram
from physmem.lib.struct import dtype_of
from physmem.mm.mmzone import NONE
from physmem.slab import slab_state, slub_state
from physmem.slab.allocator import ObjectAllocator, Reserve
from physmem.slab.cache import Cache
from physmem.slab.slab_types import ArrayCache, KmemList3, SlabCache, SlabFrame, SlabMemory
from physmem.slab.slub_types import (
    FRAME_LARGE_TAIL,
    NO_SLAB,
    KmemCache,
    KmemCacheCpu,
    KmemCacheNode,
    Slab,
    SlubMemory,
)

if TYPE_CHECKING:
    from physmem.slab.slab import SlabAllocator
    from physmem.slab.slub import SlubAllocator

Arrays = dict[str, NDArray[Any]]
_LONGS, _SHORTS, _BYTES = np.dtype(np.int64), np.dtype(np.uint16), np.dtype(np.uint8)
DTYPES: dict[str, dict[str, Any]] = {
    "slub": {
        "slub": dtype_of(SlubMemory),
        "kmem_caches": dtype_of(KmemCache),
        "cpu_slab": dtype_of(KmemCacheCpu),
        "node_lists": dtype_of(KmemCacheNode),
        "slab_map": dtype_of(Slab),
        "live_objects": _BYTES,
        "random_seq": _SHORTS,
    },
    "slab": {
        "slab": dtype_of(SlabMemory),
        "slab_caches": dtype_of(SlabCache),
        "cpu_array": dtype_of(ArrayCache),
        "nodelists": dtype_of(KmemList3),
        "shared": dtype_of(ArrayCache),
        "alien": dtype_of(ArrayCache),
        "slab_frames": dtype_of(SlabFrame),
        "live_objects": _BYTES,
        "general": _LONGS,
        "reap_node": _LONGS,
        "cpu_online": _LONGS,
        "entries": _LONGS,
    },
}
"""Arrays that are kept, by allocator; all others follow from the options."""
_SLUB_GEOMETRY = (
    *("size", "offset", "align", "red_left_pad"),
    *("order", "objects", "min_order", "min_objects"),
)
_SLAB_GEOMETRY = (
    *("buffer_size", "obj_size", "obj_offset", "num", "gfporder"),
    *("colour", "colour_off", "slab_size", "off_slab"),
)
_JOINED = ("random_seq", "entries")
"""Dictionaries of small arrays, kept one behind the other."""
_MOVING = {
    "slub": ("gfp_allowed", "rng", "now", "nr_unreclaimable", "kmalloc_caches"),
    "slab": ("jiffies",),
}
"""Fields of the first record that change; the others follow from machine and options."""


def _cache_dict(cache: Cache) -> dict[str, Any]:
    return {
        "number": cache.number,
        "names": cache.names,
        "geometry": asdict(cache.geometry),
        "flags": cache.flags,
        "refcount": cache.refcount,
        "parts": cache.parts,
        "ctor": cache.ctor is not None or bool(cache.barred),
    }


def save(allocator: ObjectAllocator) -> tuple[dict[str, Any], Arrays]:
    """Plain data (for JSON) and arrays by name."""
    owner: Any = allocator
    tables = owner.tables
    arrays: Arrays = {}
    keys: list[list[Any]] = []
    for name in DTYPES[allocator.kind]:
        if name not in _JOINED:
            arrays[name] = getattr(tables, name)
            continue
        parts: dict[Any, NDArray[Any]] = getattr(tables, name)
        keys = [
            [*(key if isinstance(key, tuple) else (key,)), len(part)] for key, part in parts.items()
        ]
        empty = np.empty(0, DTYPES[allocator.kind][name])
        arrays[name] = np.concatenate([*parts.values(), empty])
    fields = {
        "kind": allocator.kind,
        "config": asdict(owner.config),
        "page_offset": allocator.page_offset,
        "users": allocator.users,
        "online": allocator.online,
        "free_numbers": owner.free_numbers,
        "next_number": owner.next_number,
        "caches": [_cache_dict(cache) for cache in allocator.caches],
        "keys": keys,
    }
    return fields, arrays


def load(
    memory: NDArray[Any], ram: Ram, fields: Mapping[str, Any], arrays: Arrays, reserve: Reserve
) -> ObjectAllocator:
    """Undo `save`, on the same machine opened again.

    Raises
    ------
    ValueError, LookupError, TypeError
        The parts do not fit together.
    CorruptStateError
        They fit, but break an invariant.
    """
    made: Any
    config: Any
    state: Any
    if fields["kind"] == "slub":
        from physmem.slab.slub import SlubAllocator
        from physmem.slab.slub_config import SlubConfig

        config, state = SlubConfig(**fields["config"]), slub_state
        made = SlubAllocator.__new__(SlubAllocator)
    elif fields["kind"] == "slab":
        from physmem.slab.slab import SlabAllocator
        from physmem.slab.slab_config import SlabConfig

        config, state = SlabConfig(**fields["config"]), slab_state
        made = SlabAllocator.__new__(SlabAllocator)
    else:
        raise ValueError(f"slab allocator {fields['kind']!r}")
    page_offset = int(fields["page_offset"])
    ObjectAllocator.__init__(made, memory, ram, page_offset, config.page_shift)
    made.config = config
    made.users = [str(name) for name in fields["users"]]
    online = [int(cpu) for cpu in fields["online"]]
    _sound("its CPUs", 0 in online, all(0 <= cpu < made.nr_cpus for cpu in online))
    made.online = online
    made.fast_cpus = made.nr_cpus if len(online) == made.nr_cpus else 0
    made.free_numbers = [int(number) for number in fields["free_numbers"]]
    made.next_number = int(fields["next_number"])
    fresh = state.make_tables(memory, ram, config, page_offset, reserve)
    made.tables = _tables(made.kind, fresh, arrays, fields["keys"])
    made.caches = [_cache(made, each) for each in fields["caches"]]
    made.by_name = {name: cache for cache in made.caches for name in cache.names}
    if made.kind == "slub":
        _check_slub(made)
    else:
        _check_slab(made)
    made.tables.attach(memory, ram)
    made.resume()
    made.validate()
    return made  # type: ignore[no-any-return]  # one of the two above


def _tables(kind: str, fresh: Any, arrays: Arrays, keys: Iterable[list[Any]]) -> Any:
    """Tables of a new allocator with what was kept in place."""
    changed: dict[str, Any] = {}
    for name, array in arrays.items():
        if name in _JOINED:
            at = 0
            parts = {}
            for *key, count in keys:
                if not 0 <= count <= len(array) - at:
                    raise ValueError(f"{name}: arrays are missing")
                where = tuple(key) if name == "entries" else int(key[0])
                parts[where] = array[at : at + count].copy()
                at += count
            changed[name] = parts
            continue
        if len(array) != len(getattr(fresh, name)):
            raise ValueError(f"{name}: {len(array)} records")
        changed[name] = array
    head = getattr(fresh, kind)
    for field in _MOVING[kind]:
        head[0][field] = changed[kind][0][field]
    changed[kind] = head
    return replace(fresh, **changed)


def _cache(made: Any, fields: Mapping[str, Any]) -> Cache:
    from physmem.slab.slab_sizes import SlabGeometry
    from physmem.slab.slub_sizes import SlubGeometry

    kind = SlubGeometry if made.kind == "slub" else SlabGeometry
    names = [str(name) for name in fields["names"]]
    number, flags = int(fields["number"]), int(fields["flags"])
    cache = Cache(made, number, names[0], kind(**fields["geometry"]), flags)
    cache.names = names
    cache.refcount = int(fields["refcount"])
    cache.parts = {str(name): [int(a) for a in part] for name, part in fields["parts"].items()}
    if fields["ctor"]:
        cache.barred = "its constructor is not in the file; set its `ctor` first"
    return cache


def _sound(what: str, *checks: Any) -> None:
    """Refuse what would lead a kernel out of its tables."""
    if not all(bool(each) for each in checks):
        raise ValueError(f"slab allocator: {what} cannot be")


def _check_caches(made: Any, records: Any, same: Iterable[str]) -> None:
    live = set(np.flatnonzero(records["live"]).tolist())
    numbers = [cache.number for cache in made.caches]
    _sound("numbers of its caches", live == set(numbers), len(live) == len(numbers))
    _sound(
        "free numbers",
        not live & set(made.free_numbers),
        all(0 <= number < len(records) for number in (*made.free_numbers, made.next_number)),
        max(live, default=-1) < made.next_number,
    )
    for cache in made.caches:
        record = records[cache.number]
        _sound(
            f"cache {cache.name}",
            int(record["number"]) == cache.number,
            *(int(record[name]) == int(getattr(cache.geometry, name)) for name in same),
        )


def _check_slub(made: "SlubAllocator") -> None:
    tables = made.tables
    records = tables.kmem_caches
    _check_caches(made, records, _SLUB_GEOMETRY)
    live = np.flatnonzero(records["live"])
    for cache in made.caches:
        g, record = cache.geometry, records[cache.number]
        _sound(
            f"cache {cache.name}",
            g.size > 0,
            0 <= g.offset <= g.size - made.config.word,
            0 < g.objects <= (made.config.page << g.order) // g.size,
            0 < g.min_objects <= (made.config.page << g.min_order) // g.size,
            0 <= g.min_order <= g.order <= 10,
            0 < int(record["object_size"]) <= int(record["inuse"]) <= g.size,
            0 <= int(record["track_offset"]) <= g.size,
            0 <= int(record["orig_offset"]) <= g.size,
        )
    classes = tables.slub[0]["kmalloc_caches"]
    _sound("its general caches", np.isin(classes[classes != NONE], live).all())
    frames = tables.slab_map
    used = frames[frames["kind"] != 0]
    _sound(
        "its slabs",
        (used["kind"] <= FRAME_LARGE_TAIL).all(),
        (used["head"] < len(frames)).all(),
        (used["order"] <= 10).all(),
        np.isin(used["cache"][used["kind"] == 1], live).all(),
    )
    for name, table in (("slab", tables.cpu_slab), ("partial", tables.cpu_slab)):
        at = table[name]
        _sound("a CPU's slab", ((at == NO_SLAB) | ((at >= 0) & (at < len(frames)))).all())


def _check_slab(made: "SlabAllocator") -> None:
    tables = made.tables
    records = tables.slab_caches
    _check_caches(made, records, _SLAB_GEOMETRY)
    cpus, nodes = tables.shape
    live = np.flatnonzero(records["live"])
    for cache in made.caches:
        g, record = cache.geometry, records[cache.number]
        inside = 0 if g.off_slab else g.slab_size
        _sound(
            f"cache {cache.name}",
            g.buffer_size > 0,
            g.num > 0,
            0 <= g.gfporder <= 10,
            g.colour * g.colour_off >= 0,
            g.num * g.buffer_size + inside <= made.config.page << g.gfporder,
            0 <= g.obj_offset <= g.obj_offset + g.obj_size <= g.buffer_size,
            not g.off_slab or int(record["slabp_cache"]) in live,
        )
    for key, array in tables.entries.items():
        kind, number, *at = key
        limits = {"cpu": [cpus], "shared": [nodes], "alien": [nodes, nodes]}[str(kind)]
        _sound(
            "an array",
            number in live,
            len(at) == len(limits),
            all(0 <= each < limit for each, limit in zip(at, limits, strict=True)),
        )
        _sound("an array", len(array) == int(slab_state.array_record(tables, key)["limit"]))
    third = len(tables.general) // 3
    caches = tables.general[third:]
    _sound(
        "its general caches",
        (tables.general[:third] == made.config.general_sizes).all(),
        np.isin(caches[caches != NONE], live).all(),
    )
    frames = tables.slab_frames
    used = frames[frames["kind"] != 0]
    _sound(
        "its slabs",
        (used["kind"] <= 2).all(),
        (used["head"] < len(frames)).all(),
        (used["nodeid"] < nodes).all(),
        np.isin(used["cache"], live).all(),
    )
    _sound(
        "its CPUs",
        ((tables.reap_node >= 0) & (tables.reap_node < nodes)).all(),
        (tables.cpu_online == [cpu in made.online for cpu in range(cpus)]).all(),
    )
