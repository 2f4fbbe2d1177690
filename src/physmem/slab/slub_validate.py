# SPDX-License-Identifier: GPL-2.0-or-later
"""Every invariant of SLUB, checked against the bytes themselves.

Linux: validate_slab_cache(), mm/slub.c (6.1)
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from physmem.lib.errors import CorruptStateError
from physmem.mm.mmzone import HEAD_IN_USE, PG_IN_USE
from physmem.slab.nodes import frames_of
from physmem.slab.slub_alloc import BAD_SLAB
from physmem.slab.slub_types import FRAME_SLAB, FRAME_SLAB_TAIL, NO_SLAB
from physmem.slab.slub_view import cpu_records, node_records, slab_list

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slub import SlubAllocator


def swab64(value: int) -> int:
    """Bytes of a word in reverse order."""
    return int.from_bytes((value & ((1 << 64) - 1)).to_bytes(8, "little"), "big")


class SlubCheck:
    """One check of one allocator."""

    def __init__(self, slub: "SlubAllocator") -> None:
        self.slub = slub
        self.frames = slub.tables.slab_map
        self.word = slub.config.word
        self.mask = (1 << 8 * self.word) - 1
        self.pages = frames_of(slub.memory)

    def fail(self, invariant: str, detail: str) -> None:
        """Raise for a broken invariant."""
        raise CorruptStateError(invariant, detail)

    def chain(self, cache: "Cache", record: Any, pfn: int, first: int) -> list[int]:
        """Places of the objects on a free chain, in order."""
        base = (pfn << self.slub.page_shift) + int(record["red_left_pad"])
        stride, objects = int(record["size"]), int(self.frames[pfn]["objects"])
        secret, offset = int(record["secret"]), int(record["offset"])
        found: list[int] = []
        address = first & self.mask
        while address:
            paddr = self.slub.paddr(address) & self.mask
            index, rest = divmod(paddr - base, stride)
            where = f"cache {cache.name}, slab {pfn:#x}"
            if rest or not 0 <= index < objects:
                self.fail("freelist", f"{where}: link to {address:#x}, where no object begins")
            if index in found:
                self.fail("freelist", f"{where}: object {index} is twice on the chain")
            found.append(index)
            raw = self.slub.ram.read(paddr + offset, self.word)
            value = int.from_bytes(raw, "little")
            if secret:
                value ^= secret ^ swab64((address + offset) & self.mask)
            address = value & self.mask
        return found

    def cache(self, cache: "Cache", slabs: list[int]) -> None:
        """Check one cache; `slabs` are the first frames of all that it has."""
        slub, frames = self.slub, self.frames
        record = slub.tables.kmem_caches[cache.number]
        place: dict[int, str] = {}

        def put(pfn: int, where: str) -> None:
            if pfn in place:
                self.fail("slab_place", f"slab {pfn:#x}: {place[pfn]} and {where}")
            if pfn not in known:
                self.fail("slab_place", f"{where}: frame {pfn:#x} is no slab of {cache.name}")
            place[pfn] = where

        known = set(slabs)
        hidden: dict[int, int] = {}
        for cpu, each in enumerate(cpu_records(slub, cache)):
            if int(each["slab"]) != NO_SLAB:
                put(int(each["slab"]), f"slab of cpu {cpu}")
                hidden[int(each["slab"])] = int(each["freelist"])
            members = slab_list(slub, int(each["partial"]))
            for at, pfn in enumerate(members):
                put(pfn, f"chain of cpu {cpu}")
                if int(frames[pfn]["slabs"]) != len(members) - at:
                    self.fail("chain_slabs", f"slab {pfn:#x} counts {int(frames[pfn]['slabs'])}")
                if int(frames[pfn]["freelist"]) == 0:
                    self.fail("slab_place", f"slab {pfn:#x} is full but on the chain of cpu {cpu}")
        for nid, node in enumerate(node_records(slub, cache)):
            members = slab_list(slub, int(node["partial_head"]))
            for pfn in members:
                put(pfn, f"partial list of node {nid}")
                if int(frames[pfn]["freelist"]) == 0 or slub.node_of(pfn) != nid:
                    self.fail("slab_place", f"slab {pfn:#x} does not belong on node {nid}'s list")
                if int(frames[pfn]["frozen"]) or int(frames[pfn]["on_node"]) != 1:
                    self.fail("slab_place", f"slab {pfn:#x} on node {nid}'s list is frozen")
            if len(members) != int(node["nr_partial"]):
                self.fail("nr_partial", f"{cache.name}: {int(node['nr_partial'])}, {len(members)}")
            for pfn in slab_list(slub, int(node["full_head"])):
                put(pfn, f"full list of node {nid}")
            here = [pfn for pfn in slabs if slub.node_of(pfn) == nid]
            if len(here) != int(node["nr_slabs"]):
                self.fail("nr_slabs", f"{cache.name}: {int(node['nr_slabs'])}, {len(here)} there")
            total = sum(int(frames[pfn]["objects"]) for pfn in here)
            if total != int(node["total_objects"]):
                self.fail("nr_slabs", f"{cache.name}: {int(node['total_objects'])} objects")
        for pfn in slabs:
            self.slab(cache, record, pfn, hidden.get(pfn))
            full = int(frames[pfn]["freelist"]) == 0
            bad = int(frames[pfn]["on_node"]) == BAD_SLAB
            if pfn not in place and not full and not bad:
                self.fail("slab_place", f"slab {pfn:#x} of {cache.name} has free objects, no list")

    def slab(self, cache: "Cache", record: Any, pfn: int, hidden: int | None) -> None:
        """Check one slab; `hidden` is the free chain that a CPU took."""
        frame = self.frames[pfn]
        where = f"cache {cache.name}, slab {pfn:#x}"
        for each in range(pfn, pfn + (1 << int(frame["order"]))):
            mine = self.frames[each]
            if int(mine["head"]) != pfn or int(mine["kind"]) not in {FRAME_SLAB, FRAME_SLAB_TAIL}:
                self.fail("frames", f"{where}: frame {each:#x} belongs elsewhere")
            if not int(self.pages[each]["flags"]) & PG_IN_USE:
                self.fail("frames", f"{where}: frame {each:#x} is not in use")
        if int(self.pages[pfn]["order"]) != HEAD_IN_USE | int(frame["order"]):
            self.fail("frames", f"{where}: not a block of order {int(frame['order'])}")
        objects, inuse = int(frame["objects"]), int(frame["inuse"])
        free = self.chain(cache, record, pfn, int(frame["freelist"]))
        if int(frame["on_node"]) == BAD_SLAB:
            return
        if inuse + len(free) != objects:
            self.fail("slab_objects", f"{where}: {inuse} + {len(free)} free, {objects} objects")
        if hidden:
            more = self.chain(cache, record, pfn, hidden)
            if set(more) & set(free):
                self.fail("freelist", f"{where}: an object is on both chains")
            free += more
        stride = int(record["size"])
        base = (pfn << self.slub.page_shift) + int(record["red_left_pad"])
        for index in range(objects):
            at = base + index * stride
            live = int(self.slub.tables.live_objects[at >> 6]) >> (at >> 3 & 7) & 1
            if live == (index in free):
                state = "on a free chain" if index in free else "on no free chain"
                self.fail("live_objects", f"{where}: object {index} is {state}, mark {live}")


def validate_slub(slub: "SlubAllocator") -> None:
    """Check every invariant that `physmem.slab.slub_types` lists.

    Raises
    ------
    CorruptStateError
        The first that does not hold; it names the invariant.
    """
    check = SlubCheck(slub)
    heads = np.flatnonzero(slub.tables.slab_map["kind"] == FRAME_SLAB).tolist()
    per_cache: dict[int, list[int]] = {}
    for pfn in heads:
        per_cache.setdefault(int(slub.tables.slab_map[pfn]["cache"]), []).append(pfn)
    known = {cache.number for cache in slub.caches}
    for number in per_cache.keys() - known:
        check.fail("slab_place", f"slabs of cache number {number}, which does not exist")
    for cache in slub.caches:
        check.cache(cache, per_cache.get(cache.number, []))
