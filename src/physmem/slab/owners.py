# SPDX-License-Identifier: GPL-2.0-or-later
"""From caches to frames to pageblocks: who pins a block of memory."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physmem.slab.allocator import ObjectAllocator


@dataclass(frozen=True)
class Pin:
    """What one cache has in one pageblock.

    Attributes
    ----------
    block : number of the pageblock (first frame >> pageblock order)
    cache : name
    frames : frames of its slabs there
    slabs : slabs that begin there
    objects : objects in use in these slabs; 0: a shrink would free them
    """

    block: int
    cache: str
    frames: int
    slabs: int
    objects: int


def pins(allocator: "ObjectAllocator", block: int | None = None) -> list[Pin]:
    """What every cache has in every pageblock (or in one), by block, most frames first.

    Examples
    --------
    >>> from physmem import Machine
    >>> machine = Machine.build("64MiB")
    >>> address = machine.kmalloc(4096)
    >>> frame = (address - machine.slab.page_offset) >> 12
    >>> [pin.cache for pin in pins(machine.slab, frame >> 9) if pin.cache == "kmalloc-4k"]
    ['kmalloc-4k']
    """
    order = int(allocator.memory[0]["pageblock_order"])
    found = []
    for cache in allocator.caches:
        attributes = allocator.attributes(cache)
        slab_order = int(attributes["order"])
        live = [allocator.paddr(each) >> allocator.page_shift for each in cache.live()]
        frames: Counter[int] = Counter()
        slabs: Counter[int] = Counter()
        objects: Counter[int] = Counter()
        for pfn in allocator.cache_frames(cache).tolist():
            at = pfn >> order
            if block is not None and at != block:
                continue
            slabs[at] += 1
            frames[at] += 1 << slab_order
            objects[at] += bisect_left(live, pfn + (1 << slab_order)) - bisect_left(live, pfn)
        found += [
            Pin(at, cache.names[0], frames[at], slabs[at], objects[at]) for at in sorted(slabs)
        ]
    return sorted(found, key=lambda pin: (pin.block, -pin.frames, pin.cache))
