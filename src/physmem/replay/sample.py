# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples of a machine while it runs: how full each pageblock is, what type it has."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import kernel, ready
from physmem.lib.struct import Array, address, u32
from physmem.machine.tables import Tables, nr_pageblocks
from physmem.mm.free_area import run_length, run_start
from physmem.mm.lists import memory_at

NO_MEMORY = 255


@kernel
def count_free(h: int, number: int, counts: Array[u32]) -> int:
    """Free frames of each pageblock of a zone (on free lists); frames free in all of it."""
    m = memory_at(h)
    zone = m.zones[number]
    block = int(zone.pageblock_order)
    total = 0
    for at in range(len(counts)):
        counts[at] = 0
    for order in range(zone.max_order + 1):
        for mt in range(zone.isolate_type + 1):
            head = zone.free_area[order].head[mt]
            pfn = int(zone.mem_map[head].next)
            while pfn != head:
                frames = run_length(zone, pfn) << order
                total += frames
                first = (run_start(zone, pfn) >> block) - zone.first_block
                if order < block:
                    counts[first] += frames
                else:
                    for at in range(first, first + (frames >> block)):
                        counts[at] += 1 << block
                pfn = int(zone.mem_map[pfn].next)
    return total


@dataclass
class Samples:
    """Rows of samples, one per call of `take`.

    Attributes
    ----------
    times_ns : time of each sample
    free : (blocks,) uint8 per sample: free share of each pageblock, 255 = wholly free
    types : (blocks,) uint8 per sample: migratetype, 255 where a block has no memory
    usable : share of the free frames that lies in blocks of at least `usable_order`
    """

    usable_order: int = 9
    times_ns: list[int] = field(default_factory=list)
    free: list[NDArray[np.uint8]] = field(default_factory=list)
    types: list[NDArray[np.uint8]] = field(default_factory=list)
    usable: list[float] = field(default_factory=list)

    def take(self, tables: Tables, time_ns: int) -> None:
        """Add one sample of the state that the tables are in now."""
        order = int(tables.memory[0]["pageblock_order"])
        blocks = int(tables.memory[0]["max_pfn"]) >> order
        free = np.zeros(blocks, np.uint8)
        types = np.full(blocks, NO_MEMORY, np.uint8)
        frames_free = frames_usable = 0
        offset = 0
        count = ready(count_free)
        for number, zone in enumerate(tables.zones):
            span = nr_pageblocks(zone)
            counts = np.zeros(span, np.uint32)
            frames_free += count(address(tables.memory), number, cast("Any", counts))
            nr_free = zone["free_area"]["nr_free"]
            frames_usable += sum(
                int(nr_free[k]) << k for k in range(self.usable_order, len(nr_free))
            )
            first = int(zone["first_block"])
            share = counts.astype(np.uint64) * 255 >> order
            free[first : first + span] = np.maximum(free[first : first + span], share)
            types[first : first + span] = tables.pageblock_flags[offset : offset + span]
            offset += span
        self.times_ns.append(time_ns)
        self.free.append(free)
        self.types.append(types)
        self.usable.append(frames_usable / frames_free if frames_free else 0.0)
