# SPDX-License-Identifier: GPL-2.0-or-later
"""From caches to frames to pageblocks: who pins a block of memory."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from physmem.lib.errors import BadRequestError
from physmem.mm.mmzone import PG_IN_USE
from physmem.slab.nodes import frames_of

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


@dataclass(frozen=True)
class BlockPins:
    """Who keeps one pageblock from being free as a whole.

    Attributes
    ----------
    block, first, end : number of the pageblock; its first frame, and the one behind its last
    owner : what the frame that was asked for belongs to, in words
    pins : caches with slabs there, most frames first
    slab_frames : frames of slabs; idle_frames : of them, of slabs without an object in use
    other_frames : frames in use that are no slab's
    free_frames : the others (a hole counts as free)
    """

    block: int
    first: int
    end: int
    owner: str
    pins: tuple[Pin, ...]
    slab_frames: int
    idle_frames: int
    other_frames: int
    free_frames: int


def block_pins(allocator: "ObjectAllocator", pfn: int) -> BlockPins:
    """Who pins the pageblock of a frame.

    Raises
    ------
    BadRequestError
        No such frame.

    Examples
    --------
    >>> from physmem import Machine
    >>> machine = Machine.build("64MiB")
    >>> address = machine.kmalloc(4096)
    >>> found = block_pins(machine.slab, machine.slab.paddr(address) >> 12)
    >>> found.owner
    'byte 0 of object 0 (allocated) of cache kmalloc-4k, slab at frame 0x1008'
    >>> found.slab_frames + found.other_frames + found.free_frames
    512
    """
    pages = frames_of(allocator.memory)
    frames = int(allocator.memory[0]["max_pfn"])
    if not 0 <= pfn < frames:
        raise BadRequestError(f"frame {pfn:#x}: this machine has frames 0 .. {frames - 1:#x}")
    order = int(allocator.memory[0]["pageblock_order"])
    block = pfn >> order
    first, end = block << order, min((block + 1) << order, frames)
    found = pins(allocator, block)
    used = int(np.count_nonzero(pages[first:end]["flags"] & PG_IN_USE))
    mine = sum(pin.frames for pin in found)
    idle = 0
    for cache in allocator.caches:
        slab_order = int(allocator.attributes(cache)["order"])
        live = {allocator.paddr(each) >> allocator.page_shift for each in cache.live()}
        for head in allocator.cache_frames(cache).tolist():
            if head >> order == block and not live.intersection(
                range(head, head + (1 << slab_order))
            ):
                idle += 1 << slab_order
    owner = allocator.owner(allocator.page_offset + (pfn << allocator.page_shift))
    return BlockPins(
        block, first, end, owner, tuple(found), mine, idle, used - mine, end - first - used
    )
