# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames whose struct page was left for later: a thread per node initialises and frees them.

Linux: page_alloc_init_late(), deferred_init_memmap(), deferred_free_range(), mm/page_alloc.c
(6.1); mm/mm_init.c (6.12)
"""

from typing import TYPE_CHECKING

from physmem.boot.boot import Boot
from physmem.boot.features import BootFeature
from physmem.boot.mem_init import joined, pages_by_zone

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def chunks(
    start: int, end: int, order: int
) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]":
    """Frames [start, end) as whole aligned blocks of an order, and the rest frame by frame.

    Examples
    --------
    >>> pfn, order = chunks(510, 1538, 9)
    >>> pfn.tolist(), order.tolist()
    ([510, 511, 512, 1024, 1536, 1537], [0, 0, 9, 9, 0, 0])
    """
    import numpy as np

    size = 1 << order
    first, last = -(-start // size) * size, end // size * size
    if first >= last:
        pfn = np.arange(start, end, dtype=np.int64)
        return pfn, np.zeros(pfn.size, np.uint8)
    head = np.arange(start, first, dtype=np.int64)
    whole = np.arange(first, last, size, dtype=np.int64)
    tail = np.arange(last, end, dtype=np.int64)
    orders = np.zeros(head.size + whole.size + tail.size, np.uint8)
    orders[head.size : head.size + whole.size] = order
    return np.concatenate([head, whole, tail]), orders


def page_alloc_init_late(boot: Boot) -> None:
    """Free what was left for later, node by node; give up memblock's own arrays.

    Linux: page_alloc_init_late(), mm/page_alloc.c (6.1)
    """
    zones, memmap = boot.zones, boot.memmap
    if zones is None or memmap is None:
        raise RuntimeError("zones come before deferred pages")
    order = boot.geometry.pageblock_order
    if BootFeature.DEFERRED_IN_LARGEST_BLOCKS in boot.features:
        order = boot.geometry.nr_orders - 1
    for nid, first in sorted(memmap.first_deferred_pfn.items()):
        node = zones.node(nid)
        zone = max((z for z in node.zones if z.spanned), key=lambda z: z.end_pfn)
        spans = [
            (start, end, nid)
            for start, end, _ in boot.memblock.free_pfn_ranges(first, zone.end_pfn, nid)
        ]
        boot.deferred_spans += [(start, end) for start, end, _ in spans]
        boot.deferred[nid] = joined(chunks(start, end, order) for start, end, _ in spans)
        for ref, pages in pages_by_zone(zones, spans).items():
            boot.managed[ref] += pages
        boot.say(f"node {nid} deferred pages initialised in 0ms")
    if not boot.config.keeps_memblock:
        _discard(boot)


def _discard(boot: Boot) -> None:
    """The arrays that memblock had grown into go to the page allocator.

    Linux: memblock_discard(), mm/memblock.c (6.1)
    """
    zones = boot.zones
    if zones is None:
        raise RuntimeError("zones come before the end of memblock")
    spans = [(start, end, -1) for start, end, _ in boot.memblock.discard()]
    for ref, pages in pages_by_zone(zones, spans).items():
        boot.managed[ref] += pages
        boot.totalram += pages
