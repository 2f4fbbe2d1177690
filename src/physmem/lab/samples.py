# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics over time: figures of every zone after every N operations."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lab import census as ce
from physmem.lab.metrics import HUGE_SHIFT, compacted, usable_order9
from physmem.lab.variant import Run
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.views.fragmentation import (
    fragmentation_index,
    free_chunks,
    free_frames,
    unusable_index,
)

Row = dict[str, Any]
WHOLE = "all"


@dataclass(eq=False)
class Samples:
    """What `Run.carry_out` is watched with.

    Attributes
    ----------
    done : operations carried out before each sample
    time_ns : recorded time of the last of them; its number where no times were recorded
    nr_free : (zones, orders) int64 per sample
    figures : (zones, NR_FIGURES) int64 per sample (`physmem.lab.census`)
    counters : (fallbacks, failed) per sample
    pinned, movable : (2 MiB blocks,) frames in use that cannot, and can, be moved, per sample
    """

    done: list[int] = field(default_factory=list)
    time_ns: list[int] = field(default_factory=list)
    nr_free: list[NDArray[np.int64]] = field(default_factory=list)
    figures: list[NDArray[np.int64]] = field(default_factory=list)
    counters: list[tuple[int, int]] = field(default_factory=list)
    pinned: list[NDArray[np.uint16]] = field(default_factory=list)
    movable: list[NDArray[np.uint16]] = field(default_factory=list)

    def __call__(self, run: Run, done: int) -> None:
        """Take a sample."""
        machine, workload = run.machine, run.workload
        tables = machine.tables
        events = workload.events
        row = int(workload.ops["row"][done - 1]) if done else 0
        timed = "ts" in events.columns and len(events)
        self.time_ns.append(int(events.ts[row]) if timed else done)
        self.done.append(done)
        orders = machine.layout.max_order + 1
        self.nr_free.append(tables.zones["free_area"]["nr_free"][:, :orders].astype(np.int64))
        order = max(HUGE_SHIFT - machine.layout.page_shift, 0)
        blocks = (int(tables.memory[0]["max_pfn"]) >> order) + 1
        pinned, movable = np.zeros(blocks, np.uint32), np.zeros(blocks, np.uint32)
        figures = np.zeros((len(tables.zones), ce.NR_FIGURES), np.int64)
        for number in range(len(figures)):
            arrays: tuple[Any, Any, Any] = figures[number], pinned, movable
            ready(ce.census)(address(tables.memory), number, order, *arrays)
        self.figures.append(figures)
        self.pinned.append(pinned.astype(np.uint16))
        self.movable.append(movable.astype(np.uint16))
        self.counters.append((int(tables.zones["nr_steals"].sum()), run.count("failed")))

    def rows(self, run: Run) -> list[Row]:
        """One row per sample and zone; the whole machine is a zone of node -1."""
        layout = run.machine.layout
        huge = max(HUGE_SHIFT - layout.page_shift, 0)
        zones = [
            (int(zone["node"]), layout.zone_names[int(zone["zone_idx"])])
            for zone in run.machine.tables.zones
        ]
        rows: list[Row] = []
        for at, done in enumerate(self.done):
            for number in range(-1, len(zones)):
                node, name = zones[number] if number >= 0 else (-1, WHOLE)
                part = slice(number, number + 1) if number >= 0 else slice(None)
                nr_free = self.nr_free[at][part].sum(axis=0).tolist()
                figures = self.figures[at][part].sum(axis=0)
                top = min(huge, len(nr_free) - 1)
                rows.append(
                    {
                        "done": done,
                        "time_ns": self.time_ns[at],
                        "node": node,
                        "zone": name,
                        "free_pages": free_frames(nr_free),
                        "usable_order9_share": round(usable_order9(nr_free), 6),
                        "unusable_index_huge": unusable_index(nr_free, top),
                        "fragmentation_index_huge": fragmentation_index(nr_free, top),
                        "huge_now": free_chunks(nr_free, huge) if huge < len(nr_free) else 0,
                        "huge_compacted": compacted(figures, huge),
                        "blocks": int(figures[ce.BLOCKS]),
                        "free": int(figures[ce.FREE]),
                        "movable_only": int(figures[ce.MOVABLE_ONLY]),
                        "polluted": int(figures[ce.POLLUTED]),
                        "mixed": int(figures[ce.MIXED]),
                        "unmovable_pages": int(figures[ce.UNMOVABLE_FRAMES]),
                        "movable_pages": int(figures[ce.MOVABLE_FRAMES]),
                        "fallbacks": self.counters[at][0],
                        "failed": self.counters[at][1],
                    }
                )
        return rows

    def maps(self, run: Run) -> NDArray[np.uint8]:
        """(samples, 2 MiB blocks) uint8: `physmem.views.availability` tells what each value is."""
        from physmem.views.availability import FREE, FULL, MIXED, MOVABLE, NO_MEMORY

        order = max(HUGE_SHIFT - run.machine.layout.page_shift, 0)
        pinned, movable = np.array(self.pinned), np.array(self.movable)
        kinds = np.full(pinned.shape, NO_MEMORY, np.uint8)
        for zone in run.machine.tables.zones:
            first = int(zone["start_pfn"]) >> order
            kinds[:, first : (int(zone["end_pfn"]) - 1 >> order) + 1] = FREE
        kinds[movable > 0] = MOVABLE
        kinds[pinned > 0] = MIXED
        kinds[pinned >= 1 << order] = FULL
        return kinds
