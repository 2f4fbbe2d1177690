# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds each aligned block of memory: free frames, per-CPU ones, movable, unmovable.

One walk over all frames; the figures of the literature follow from its counts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import kernel, ready
from physmem.lib.struct import Array, address, u32
from physmem.machine.machine import Machine
from physmem.mm.free_area import run_length
from physmem.mm.lists import memory_at
from physmem.mm.mmzone import HEAD_IN_USE, HEAD_ON_PCP, PG_MOVABLE

FREE = 0
PCP = 1
MOVABLE = 2
UNMOVABLE = 3
RESERVED = 4
"""Kinds of frames: on a free list, on a per-CPU list, allocated as movable or not, and never handed
to the page allocator."""
KINDS = 5


@kernel
def add_span(counts: Array[u32], kind: int, span: int, pfn: int, frames: int) -> None:
    """Count frames [pfn, pfn + frames) as of one kind, in blocks of 2**span frames."""
    size = 1 << span
    end = pfn + frames
    while pfn < end:
        here = min(end, (pfn >> span << span) + size) - pfn
        counts[(pfn >> span) * KINDS + kind] += here
        pfn += here


@kernel
def take_census(h: int, span: int, counts: Array[u32]) -> None:
    """Count the frames of all zones by block (row) and kind (column)."""
    m = memory_at(h)
    for number in range(m.nr_zones):
        zone = m.zones[number]
        pfn = zone.start_pfn
        while pfn < zone.end_pfn:
            mark = int(zone.mem_map[pfn].order)
            frames = 1
            kind = RESERVED
            if mark & HEAD_IN_USE:
                frames = 1 << (mark & ~HEAD_IN_USE)
                kind = MOVABLE if zone.mem_map[pfn].flags & PG_MOVABLE else UNMOVABLE
            elif mark & HEAD_ON_PCP:
                frames = 1 << (mark & ~HEAD_ON_PCP)
                kind = PCP
            elif mark:
                frames = run_length(zone, pfn) << (mark - 1)
                kind = FREE
            frames = min(frames, zone.end_pfn - pfn)
            add_span(counts, kind, span, pfn, frames)
            pfn += frames


@dataclass(frozen=True)
class Census:
    """Frames of each kind in every aligned block of 2**order frames.

    `counts` has one row for each block that lies in a zone with all its frames, and a column for
    each of FREE, PCP, MOVABLE, UNMOVABLE, RESERVED.
    """

    order: int
    counts: NDArray[np.int64]
    frames: tuple[int, ...]
    """Frames of each kind, also those in blocks that are cut off."""

    @property
    def blocks(self) -> int:
        """Whole blocks that the page allocator was given at least one frame of."""
        return int((self.counts[:, RESERVED] < 1 << self.order).sum())

    @property
    def free_blocks(self) -> int:
        """Blocks with every frame on a free list."""
        return int((self.counts[:, FREE] == 1 << self.order).sum())

    @property
    def possible(self) -> int:
        """Blocks that the free frames would fill if they all lay together."""
        return self.frames[FREE] >> self.order

    @property
    def score(self) -> float:
        """Percent of the possible free blocks that are there (the score of LLFree)."""
        return 100 * self.free_blocks / self.possible if self.possible else 0.0

    @property
    def polluted(self) -> int:
        """Blocks with at least one frame that was allocated and cannot be moved."""
        return int((self.counts[:, UNMOVABLE] > 0).sum())

    @property
    def reachable(self) -> int:
        """Blocks that would be free if all movable frames went away (and per-CPU lists too)."""
        return int((self.counts[:, [UNMOVABLE, RESERVED]].sum(axis=1) == 0).sum())

    def share(self, kind: int) -> float:
        """Percent of the page allocator's frames that are of a kind."""
        managed = sum(self.frames[:RESERVED])
        return 100 * self.frames[kind] / managed if managed else 0.0

    @property
    def polluted_share(self) -> float:
        """Percent of the blocks that are polluted."""
        return 100 * self.polluted / self.blocks if self.blocks else 0.0

    @property
    def moves(self) -> int:
        """Pages to move for as many free blocks as possible: the emptiest go to the fullest.

        The greedy figure of LLFree's analysis, from the free counts alone: two pointers, one at the
        emptiest block that is not free, one at the fullest, until they meet.
        """
        size = 1 << self.order
        free = self.counts[:, FREE]
        free = np.sort(free[(free > 0) & (free < size)])[::-1]
        used = np.cumsum(size - free)
        room = free.sum() - np.cumsum(free)
        emptied = int((used <= room).sum())
        return int(used[emptied - 1]) if emptied else 0


def census(machine: Machine, order: int = 9) -> Census:
    """Count the frames of a machine by aligned blocks of 2**order frames (2 MiB with 4 KiB pages).

    Examples
    --------
    >>> machine = Machine.build("64MiB")
    >>> _ = machine.alloc_pages(gfp="GFP_KERNEL")
    >>> found = census(machine)
    >>> found.blocks, found.polluted, found.free_blocks, found.reachable
    (32, 1, 31, 31)
    """
    memory = machine.tables.memory[0]
    rows = (int(memory["max_pfn"]) + (1 << order) - 1 >> order) + 1
    raw: Any = np.zeros(rows * KINDS, np.uint32)
    ready(take_census)(address(machine.tables.memory), order, raw)
    counts = raw.reshape(rows, KINDS).astype(np.int64)
    frames = tuple(int(total) for total in counts.sum(axis=0))
    return Census(order, counts[counts.sum(axis=1) == 1 << order], frames)
