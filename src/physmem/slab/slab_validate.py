# SPDX-License-Identifier: GPL-2.0-or-later
"""Every invariant of SLAB, checked against the bytes themselves.

Linux: check_slabp(), mm/slab.c (2.6.24)
"""

from typing import TYPE_CHECKING

import numpy as np

from physmem.lib.errors import CorruptStateError
from physmem.mm.mmzone import HEAD_IN_USE, PG_IN_USE
from physmem.slab.nodes import frames_of
from physmem.slab.slab_state import array_record
from physmem.slab.slab_types import (
    BUFCTL_END,
    FRAME_HEAD,
    FRAME_TAIL,
    ON_FREE,
    ON_FULL,
    ON_PARTIAL,
)
from physmem.slab.slab_view import is_live, lists_of, slab_list

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slab import SlabAllocator

MASK = (1 << 64) - 1
_LISTS = {ON_PARTIAL: "partial", ON_FULL: "full", ON_FREE: "free"}


def fail(invariant: str, detail: str) -> None:
    """Raise for a broken invariant."""
    raise CorruptStateError(invariant, detail)


def free_chain(slab: "SlabAllocator", cache: "Cache", pfn: int) -> list[int]:
    """Numbers of the free objects of a slab, in the order of its chain."""
    frame = slab.tables.slab_frames[pfn]
    base = slab.paddr(int(frame["mgmt"]) & MASK) + slab.config.sizeof_slab
    found: list[int] = []
    index = int(frame["free"])
    while index != BUFCTL_END:
        if index >= cache.geometry.num or index in found:
            fail("bufctl", f"cache {cache.name}, slab {pfn:#x}: chain {found} leads to {index}")
        found.append(index)
        index = int.from_bytes(slab.ram.read(base + 4 * index, 4), "little")
    return found


def arrays_of(slab: "SlabAllocator", cache: "Cache") -> dict[int, str]:
    """Objects in arrays: address of the stride and where it is."""
    tables = slab.tables
    found: dict[int, str] = {}
    for key, entries in tables.entries.items():
        if key[1] != cache.number:
            continue
        avail = int(array_record(tables, key)["avail"])
        where = " ".join(map(str, (key[0], *key[2:])))
        if not 0 <= avail <= len(entries):
            fail("arrays", f"cache {cache.name}, {where}: {avail} of {len(entries)}")
        for address in entries[:avail].tolist():
            if address in found:
                fail("arrays", f"{address & MASK:#x} is in array {found[address]} and in {where}")
            found[address] = where
    return found


def check_cache(slab: "SlabAllocator", cache: "Cache", slabs: set[int]) -> None:
    """Check one cache; `slabs` are the first frames of all that it has."""
    frames = slab.tables.slab_frames
    pages = frames_of(slab.memory)
    g = cache.geometry
    held = arrays_of(slab, cache)
    seen: set[int] = set()
    for nid, l3 in enumerate(lists_of(slab, cache)):
        free_objects = 0
        for which, name in _LISTS.items():
            for pfn in slab_list(slab, l3, which):
                where = f"cache {cache.name}, slab {pfn:#x} on the {name} list of node {nid}"
                if pfn not in slabs or pfn in seen:
                    fail("slab_list", f"{where}: no slab of it, or on two lists")
                seen.add(pfn)
                inuse = int(frames[pfn]["inuse"])
                right = ON_FREE if not inuse else ON_FULL if inuse == g.num else ON_PARTIAL
                if which != right or int(frames[pfn]["list"]) != which:
                    fail("slab_list", f"{where}: {inuse} of {g.num} in use")
                if slab.node_of(pfn) != nid or int(frames[pfn]["nodeid"]) != nid:
                    fail("slab_list", f"{where}: its frames are of another node")
                free_objects += g.num - inuse
                _check_slab(slab, cache, pfn, held)
                for each in range(pfn, pfn + (1 << g.gfporder)):
                    kind = FRAME_HEAD if each == pfn else FRAME_TAIL
                    if int(frames[each]["kind"]) != kind or int(frames[each]["head"]) != pfn:
                        fail("frames", f"{where}: frame {each:#x} belongs elsewhere")
                    if not int(pages[each]["flags"]) & PG_IN_USE:
                        fail("frames", f"{where}: frame {each:#x} is not in use")
                if int(pages[pfn]["order"]) != HEAD_IN_USE | g.gfporder:
                    fail("frames", f"{where}: not a block of order {g.gfporder}")
        if free_objects != int(l3["free_objects"]):
            fail("free_objects", f"cache {cache.name}: {int(l3['free_objects'])}, {free_objects}")
    for address, where in held.items():
        pfn = slab.paddr(address & MASK) >> slab.page_shift
        head = int(frames[pfn]["head"]) if pfn < len(frames) else -1
        index, rest = divmod(address - int(frames[head]["s_mem"]), g.buffer_size)
        if head not in slabs or rest or not 0 <= index < g.num:
            fail("arrays", f"cache {cache.name}: {address & MASK:#x} in {where} is no object of it")
    if seen != slabs:
        fail("slab_list", f"cache {cache.name}: slabs {sorted(slabs - seen)} are on no list")


def _check_slab(slab: "SlabAllocator", cache: "Cache", pfn: int, held: dict[int, str]) -> None:
    frame = slab.tables.slab_frames[pfn]
    g = cache.geometry
    chain = free_chain(slab, cache, pfn)
    if len(chain) != g.num - int(frame["inuse"]):
        fail("bufctl", f"cache {cache.name}, slab {pfn:#x}: {len(chain)} on the chain")
    base = int(frame["s_mem"])
    start = (pfn << slab.page_shift) - 1
    end = (pfn + (1 << g.gfporder)) << slab.page_shift
    if not start < slab.paddr(base & MASK) <= end - g.num * g.buffer_size:
        fail("frames", f"cache {cache.name}, slab {pfn:#x}: objects at {base & MASK:#x}")
    for index in range(g.num):
        address = base + index * g.buffer_size
        free = index in chain
        if free and address in held:
            fail("arrays", f"{address & MASK:#x} is free in its slab and in array {held[address]}")
        live = is_live(slab, slab.paddr((address + g.obj_offset) & MASK))
        if live == (free or address in held):
            fail("live_objects", f"cache {cache.name}, slab {pfn:#x}: object {index}, mark {live}")


def validate_slab(slab: "SlabAllocator") -> None:
    """Check every invariant that `physmem.slab.slab_types` lists.

    Raises
    ------
    CorruptStateError
        The first that does not hold; it names the invariant.
    """
    frames = slab.tables.slab_frames
    per_cache: dict[int, set[int]] = {}
    for pfn in np.flatnonzero(frames["kind"] == FRAME_HEAD).tolist():
        per_cache.setdefault(int(frames[pfn]["cache"]), set()).add(pfn)
    known = {cache.number for cache in slab.caches}
    for number in per_cache.keys() - known:
        fail("slab_list", f"slabs of cache number {number}, which does not exist")
    for cache in slab.caches:
        check_cache(slab, cache, per_cache.get(cache.number, set()))
