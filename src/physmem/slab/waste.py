# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the bytes of a cache's frames are: in objects, around them, in free objects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from physmem.slab.slub_view import node_records, partial_counts

if TYPE_CHECKING:
    from physmem.slab.allocator import ObjectAllocator
    from physmem.slab.cache import Cache
    from physmem.slab.slab import SlabAllocator
    from physmem.slab.slub import SlubAllocator


@dataclass(frozen=True)
class CacheWaste:
    """Bytes of one cache; the parts add up to `total`.

    Attributes
    ----------
    used : objects in use, without what their stride has more
    internal : what the strides of objects in use have more than the objects
    left_over : of slabs, no object has it: rest, colour and management
    partial : free objects of slabs that lie on lists of nodes
    per_cpu : free objects at hand: of CPU slabs and chains, in arrays
    """

    name: str
    total: int
    used: int
    internal: int
    left_over: int
    partial: int
    per_cpu: int

    @property
    def wasted(self) -> int:
        """Everything but `used`."""
        return self.total - self.used


def _free_slub(slub: "SlubAllocator", cache: "Cache") -> tuple[int, int, int]:
    """Objects; free ones on lists of nodes; free ones of CPUs."""
    nodes = node_records(slub, cache)
    listed = sum(partial_counts(slub, node)[0] for node in nodes)
    total = int(nodes["total_objects"].sum())
    live = len(slub.live_addresses(cache))
    return total, listed, total - live - listed


def _free_slab(slab: "SlabAllocator", cache: "Cache") -> tuple[int, int, int]:
    row = next(row for row in slab.rows() if row.name == cache.name)
    free = row.num_objs - row.active_objs
    return row.num_objs, free, row.active_objs - len(slab.live_addresses(cache))


def cache_waste(allocator: "ObjectAllocator", cache: "Cache") -> CacheWaste:
    """Account for every byte of a cache's frames."""
    attributes = allocator.attributes(cache)
    stride, size = int(attributes["slab_size"]), int(attributes["object_size"])
    if allocator.kind == "slub":
        total, listed, at_hand = _free_slub(allocator, cache)  # type: ignore[arg-type]  # by kind
        frames = allocator.tables.slab_map  # type: ignore[attr-defined]  # by kind
        slabs = allocator.cache_frames(cache)
        nr_frames = sum(1 << int(frames[pfn]["order"]) for pfn in slabs.tolist())
    else:
        total, listed, at_hand = _free_slab(allocator, cache)  # type: ignore[arg-type]  # by kind
        nr_frames = len(allocator.cache_frames(cache)) << int(attributes["order"])
    live = total - listed - at_hand
    everything = nr_frames << allocator.page_shift
    return CacheWaste(
        name=cache.names[0],
        total=everything,
        used=live * size,
        internal=live * (stride - size),
        left_over=everything - total * stride,
        partial=listed * stride,
        per_cpu=at_hand * stride,
    )


def all_waste(allocator: "ObjectAllocator") -> list[CacheWaste]:
    """Accounts of all caches that have frames, the largest waste first."""
    found = [cache_waste(allocator, cache) for cache in allocator.caches]
    return sorted((each for each in found if each.total), key=lambda each: -each.wasted)
