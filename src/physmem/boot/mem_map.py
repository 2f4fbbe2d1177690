# SPDX-License-Identifier: GPL-2.0-or-later
"""Which physical bytes hold the records of which frames.

Linux: sparse_init_nid(), mm/sparse.c; alloc_node_mem_map(), mm/page_alloc.c (2.6.24, 6.1)
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from physmem.boot.booted import BootedMemory
from physmem.boot.owners import ReservedRange
from physmem.boot.zones import BootNode
from physmem.lib.struct import dtype_of
from physmem.machine.origin import MemMapPiece
from physmem.mm.mmzone import Page

OWNER = "mem_map"


def mem_map_pieces(booted: BootedMemory) -> tuple[MemMapPiece, ...]:
    """Where the records of all frames lie, as far as the boot allocator has a place for them.

    Our records are smaller than the kernel's: those of a node lie one behind the other in the first
    part of what the kernel took for the node. Where that is several ranges (no place for one), they
    are filled in order.
    """
    size = dtype_of(Page).itemsize
    maps = [held for held in booted.reserved if held.owner == OWNER]
    pieces = []
    for node in booted.boot_zones.nodes:
        room = _rooms(maps, node, booted)
        for start, end in _frames(node, booted):
            at = start
            while at < end and room:
                paddr, behind = room[0]
                count = min(end - at, (behind - paddr) // size)
                if count:
                    pieces.append(MemMapPiece(at, at + count, paddr))
                at += count
                room[0] = (paddr + count * size, behind)
                if behind - room[0][0] < size:
                    room.pop(0)
    return tuple(pieces)


def _rooms(
    maps: Sequence[ReservedRange], node: BootNode, booted: BootedMemory
) -> list[tuple[int, int]]:
    """Parts of the ranges that lie in a node, in bytes; one node takes all."""
    if len([n for n in booted.boot_zones.nodes if n.spanned]) == 1:
        return [(held.start, held.end) for held in maps]
    low = node.start_pfn << booted.page_shift
    high = node.start_pfn + node.spanned << booted.page_shift
    cut = [(max(held.start, low), min(held.end, high)) for held in maps]
    return [(start, end) for start, end in cut if start < end]


def _frames(node: BootNode, booted: BootedMemory) -> Iterator[tuple[int, int]]:
    """Frames of a node that have records: whole sections, or all of its span (FLATMEM)."""
    geometry = booted.boot_zones.geometry
    if not node.spanned:
        return
    end = node.start_pfn + node.spanned
    if geometry.section_size_bits is None:
        unit = geometry.max_order_pages
        yield node.start_pfn // unit * unit, end
        return
    pages = geometry.pages_per_section
    present: set[int] = set()
    for memory in booted.boot_zones.ranges:
        if memory.nid == node.nid:
            present.update(range(memory.start_pfn // pages, (memory.end_pfn - 1) // pages + 1))
    numbers = sorted(present)
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield run[0] * pages, (run[-1] + 1) * pages
