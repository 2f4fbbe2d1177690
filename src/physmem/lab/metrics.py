# SPDX-License-Identifier: GPL-2.0-or-later
"""How good the memory of a machine is for huge pages, per zone and as a whole.

Both names of an index are kept: the *unusable* index is the FMFI of most papers, the
*fragmentation* index is what extfrag_index prints. Formulas: `physmem.views.fragmentation`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from physmem.lab import census as ce
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.machine import Machine
from physmem.mm.state import NAME_OF_LETTER, block_letters, table_types
from physmem.views.fragmentation import (
    extfrag_percent,
    fragmentation_index,
    free_chunks,
    free_frames,
    unusable_index,
)

HUGE_SHIFT = 21
"""2 MiB, whatever the size of a page."""


class Metrics(msgspec.Struct, frozen=True):
    """Figures of one zone, or (node -1, name "all") of the whole machine.

    Attributes
    ----------
    node, name : the zone
    managed_pages, free_pages, pcp_pages : frames: all, on free lists, on per-CPU lists
    nr_free : free blocks per order
    unusable_index : per order, thousandths (FMFI in most papers)
    fragmentation_index : per order, thousandths (debugfs extfrag_index); -1000: would not fail
    extfrag_percent : per order (proactive compaction)
    usable_order9_share : share 0..1 of the free frames in free blocks of order 9 and above
    pageblocks : number by type
    blocks : whole blocks of 2 MiB; free, movable_only, polluted: what is in them
    mixed : polluted blocks that also hold free or movable frames
    unmovable_pages, movable_pages : frames in use
    huge_now : 2 MiB pages that could be allocated at once
    huge_compacted : the same after perfect compaction: movable frames fill every gap
    """

    node: int
    name: str
    managed_pages: int
    free_pages: int
    pcp_pages: int
    nr_free: list[int]
    unusable_index: list[int]
    fragmentation_index: list[int]
    extfrag_percent: list[int]
    usable_order9_share: float
    pageblocks: dict[str, int]
    blocks: int
    free: int
    movable_only: int
    polluted: int
    mixed: int
    unmovable_pages: int
    movable_pages: int
    huge_now: int
    huge_compacted: int

    def flat(self) -> dict[str, float | int | str]:
        """One value per name: lists get the order behind their name."""
        result: dict[str, float | int | str] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, list):
                result |= {f"{name}_{order}": each for order, each in enumerate(value)}
            elif isinstance(value, dict):
                result |= {f"{name}_{kind}": each for kind, each in value.items()}
            else:
                result[name] = value
        return result


def usable_order9(nr_free: Sequence[int]) -> float:
    """Share 0..1 of the free frames that lie in free blocks of order 9 and above.

    Examples
    --------
    >>> usable_order9([512, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    0.5
    """
    free = free_frames(nr_free)
    return (free_chunks(nr_free, 9) << 9) / free if free else 0.0


def compacted(figures: Any, order: int) -> int:
    """Blocks of 2**order frames that perfect compaction could empty.

    Movable frames move into the gaps of polluted blocks first; what is left is packed.

    Examples
    --------
    >>> figures = np.zeros(ce.NR_FIGURES, np.int64)
    >>> figures[[ce.FREE, ce.MOVABLE_ONLY, ce.REACHABLE_MOVABLE, ce.POLLUTED_FREE]] = 1, 4, 900, 100
    >>> compacted(figures, 9)
    3
    """
    rest = max(0, int(figures[ce.REACHABLE_MOVABLE]) - int(figures[ce.POLLUTED_FREE]))
    return int(figures[ce.FREE] + figures[ce.MOVABLE_ONLY]) - -(-rest >> order)


def take_census(machine: Machine) -> Any:
    """(zones, NR_FIGURES) int64: `physmem.lab.census` of every zone."""
    order = max(HUGE_SHIFT - machine.layout.page_shift, 0)
    tables = machine.tables
    found = np.zeros((len(tables.zones), ce.NR_FIGURES), np.int64)
    none: Any = np.empty(0, np.uint32)
    for number in range(len(found)):
        row: Any = found[number]
        ready(ce.census)(address(tables.memory), number, order, row, none, none)
    return found


def metrics_of(machine: Machine) -> list[Metrics]:
    """Metrics of every zone; the whole machine is the last.

    Examples
    --------
    >>> import physmem
    >>> every = metrics_of(physmem.Machine.build("64MiB"))
    >>> every[-1].name, every[-1].huge_now, every[-1].polluted
    ('all', 32, 0)
    """
    tables, layout = machine.tables, machine.layout
    orders = layout.max_order + 1
    figures = take_census(machine)
    letters = block_letters(int(tables.memory[0]["features"]), machine.nr_migratetypes)
    nr_cpus = layout.nr_cpus
    found = []
    block = 0
    total_types: dict[str, int] = {}
    for number, zone in enumerate(tables.zones):
        count = len(zone["free_area"])
        nr_free = zone["free_area"]["nr_free"][: min(orders, count)].tolist()
        span = _span(zone)
        types = tables.pageblock_flags[block : block + span]
        block += span
        pageblocks = {
            NAME_OF_LETTER[letter]: int((types == mt).sum())
            for letter, mt in zip(letters, table_types(letters), strict=True)
        }
        for name, each in pageblocks.items():
            total_types[name] = total_types.get(name, 0) + each
        pcp = int(tables.pageset[number * nr_cpus : (number + 1) * nr_cpus]["count"].sum())
        found.append(
            _metrics(
                (int(zone["node"]), layout.zone_names[int(zone["zone_idx"])]),
                (int(zone["managed_pages"]), pcp),
                nr_free,
                pageblocks,
                figures[number],
                layout.page_shift,
            )
        )
    whole = [sum(each) for each in zip(*(zone.nr_free for zone in found), strict=True)]
    managed = sum(zone.managed_pages for zone in found), sum(zone.pcp_pages for zone in found)
    sums = figures.sum(axis=0)
    found.append(_metrics((-1, "all"), managed, whole, total_types, sums, layout.page_shift))
    return found


def _span(zone: Any) -> int:
    from physmem.machine.tables import nr_pageblocks

    return nr_pageblocks(zone)


def _metrics(
    zone: tuple[int, str],
    pages: tuple[int, int],
    nr_free: list[int],
    pageblocks: dict[str, int],
    figures: Any,
    page_shift: int,
) -> Metrics:
    orders = range(len(nr_free))
    huge = max(HUGE_SHIFT - page_shift, 0)
    return Metrics(
        node=zone[0],
        name=zone[1],
        managed_pages=pages[0],
        free_pages=free_frames(nr_free),
        pcp_pages=pages[1],
        nr_free=nr_free,
        unusable_index=[unusable_index(nr_free, order) for order in orders],
        fragmentation_index=[fragmentation_index(nr_free, order) for order in orders],
        extfrag_percent=[extfrag_percent(nr_free, order) for order in orders],
        usable_order9_share=round(usable_order9(nr_free), 6),
        pageblocks=pageblocks,
        blocks=int(figures[ce.BLOCKS]),
        free=int(figures[ce.FREE]),
        movable_only=int(figures[ce.MOVABLE_ONLY]),
        polluted=int(figures[ce.POLLUTED]),
        mixed=int(figures[ce.MIXED]),
        unmovable_pages=int(figures[ce.UNMOVABLE_FRAMES]),
        movable_pages=int(figures[ce.MOVABLE_FRAMES]),
        huge_now=free_chunks(nr_free, huge) if huge < len(nr_free) else 0,
        huge_compacted=compacted(figures, huge),
    )


def by_name(metrics: Iterable[Metrics]) -> dict[tuple[int, str], Metrics]:
    """Metrics by node and name of the zone."""
    return {(each.node, each.name): each for each in metrics}
