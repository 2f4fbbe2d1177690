# SPDX-License-Identifier: GPL-2.0-or-later
"""How fragmented free memory is: the kernel's own indices, and what is left for huge pages.

The literature abuses the names: the *unusable* index is the FMFI of Ingens and most papers, while
FreeBSD calls a variant of the *fragmentation* index FMFI. The formulas are those of the kernel,
with its integer divisions. `nr_free[order]` counts free chunks of all migratetypes; frames on
per-CPU lists are in none of the figures.

Linux: fill_contig_page_info(), __fragmentation_index(), unusable_free_index(),
extfrag_for_order(), mm/vmstat.c (6.1)
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from physmem.mm.state import State
from physmem.views.blocks import zone_blocks
from physmem.views.buddyinfo import free_counts


def free_frames(nr_free: Sequence[int]) -> int:
    """Frames in free chunks."""
    return sum(count << order for order, count in enumerate(nr_free))


def free_chunks(nr_free: Sequence[int], order: int) -> int:
    """Chunks of exactly 2**order frames that fit into free chunks of that order and above.

    Examples
    --------
    >>> free_chunks([5, 0, 1, 2], 2)
    5
    """
    return sum(nr_free[k] << (k - order) for k in range(order, len(nr_free)))


def _unusable(nr_free: Sequence[int], order: int, whole: int) -> int:
    free = free_frames(nr_free)
    return (free - (free_chunks(nr_free, order) << order)) * whole // free


def unusable_index(nr_free: Sequence[int], order: int) -> int:
    """Thousandths of free memory that no request of this order can use (FMFI in most papers).

    0 = all of it can be used, 1000 = none. 1000 also when nothing is free.

    Examples
    --------
    >>> [unusable_index([500, 120, 40, 10], order) for order in range(5)]
    [0, 510, 755, 918, 1000]
    """
    return _unusable(nr_free, order, 1000) if any(nr_free) else 1000


def fragmentation_index(nr_free: Sequence[int], order: int) -> int:
    """Why a request of this order would fail: 0 = lack of memory, 1000 = fragmentation.

    -1000 when it would not fail; 0 when nothing is free. A single free chunk, smaller than the
    request, gives a value below 0.

    Examples
    --------
    >>> [fragmentation_index([3], order) for order in range(4)]
    [-1000, 167, 417, 542]
    """
    blocks = sum(nr_free)
    if blocks == 0:
        return 0
    if free_chunks(nr_free, order) > 0:
        return -1000
    return 1000 - (1000 + free_frames(nr_free) * 1000 // (1 << order)) // blocks


def extfrag_percent(nr_free: Sequence[int], order: int) -> int:
    """Percent of free memory that no request of this order can use; 0 when nothing is free.

    The measure of proactive compaction.

    Examples
    --------
    >>> extfrag_percent([6, 6, 6, 10, 8, 8, 8, 7, 6, 3, 39], 9)
    7
    """
    return _unusable(nr_free, order, 100) if any(nr_free) else 0


def format_index(value: int, width: int = 1) -> str:
    """Thousandths as the kernel prints them: C division, so each part carries its own sign.

    Examples
    --------
    >>> format_index(-1000, 2), format_index(908, 2), format_index(-500, 2)
    ('-1.000', ' 0.908', ' 0.-500')
    """
    whole = abs(value) // 1000 * (-1 if value < 0 else 1)
    return f"{whole:{width}d}.{value - whole * 1000:03d}"


def _debugfs(state: State, index: Callable[[Sequence[int], int], int], width: int) -> str:
    lines = []
    for zone in state.zones:
        nr_free = free_counts(zone)
        values = "".join(
            f"{format_index(index(nr_free, order), width)} " for order in range(len(nr_free))
        )
        lines.append(f"Node {zone.node}, zone {zone.name:>8s} {values}\n")
    return "".join(lines)


def unusable_index_text(state: State) -> str:
    """Text of /sys/kernel/debug/extfrag/unusable_index for a state."""
    return _debugfs(state, unusable_index, 1)


def extfrag_index_text(state: State) -> str:
    """Text of /sys/kernel/debug/extfrag/extfrag_index for a state."""
    return _debugfs(state, fragmentation_index, 2)


class FragmentationRow(msgspec.Struct, frozen=True):
    """The three measures of one zone and order; the indices in thousandths."""

    node: int
    zone: str
    order: int
    free: int
    unusable_index: int
    fragmentation_index: int
    extfrag_percent: int


def fragmentation_rows(state: State) -> list[FragmentationRow]:
    """Every measure for every zone and order of a state.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> row = fragmentation_rows(small_state())[9]
    >>> row.zone, row.order, row.unusable_index, row.extfrag_percent
    ('DMA', 9, 20, 2)
    """
    rows = []
    for zone in state.zones:
        nr_free = free_counts(zone)
        rows += [
            FragmentationRow(
                zone.node,
                zone.name,
                order,
                nr_free[order],
                unusable_index(nr_free, order),
                fragmentation_index(nr_free, order),
                extfrag_percent(nr_free, order),
            )
            for order in range(len(nr_free))
        ]
    return rows


def usable_share(state: State, order: int) -> float:
    """Share 0..1 of all free frames that lie in free chunks of this order and above.

    0 when nothing is free. For order 9 the same measure as the score of LLFree (there in percent).

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> round(usable_share(small_state(), 9), 3)
    0.827
    """
    counts = [free_counts(zone) for zone in state.zones]
    free = sum(map(free_frames, counts))
    usable = sum(free_chunks(nr_free, order) << order for nr_free in counts)
    return usable / free if free else 0.0


class BlockShares(msgspec.Struct, frozen=True):
    """Pageblocks of one zone, by what a state can tell of them.

    `free` are wholly on buddy lists; `free_with_pcp` also counts frames on per-CPU lists;
    `full` have no free frame on any list. `movable` have a type that only movable pages should use
    (Movable, CMA); `reachable` are free or of such a type: the most that compaction could make
    free. A state holds no owner of allocated frames, hence a movable block may contain strays that
    pin it, and `reachable` is an upper bound. `partial` blocks, cut by the zone's ends, are in no
    other count.
    """

    node: int
    zone: str
    blocks: int
    free: int
    free_with_pcp: int
    full: int
    movable: int
    reachable: int
    partial: int


def block_shares(state: State) -> list[BlockShares]:
    """Count the pageblocks of each zone (2 MiB on x86-64) by what a state can tell of them.

    Raises
    ------
    BadStateError
        A list names a frame outside its zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> share = block_shares(small_state())[1]
    >>> share.blocks, share.free, share.free_with_pcp, share.movable, share.reachable
    (8, 1, 2, 4, 4)
    """
    movable_names = {"Movable", "CMA"}
    movable_types = [mt for mt, name in enumerate(state.type_names) if name in movable_names]
    size = 1 << state.pageblock_order
    rows = []
    for zone in state.zones:
        blocks = zone_blocks(state, zone)
        memory = blocks.types != blocks.NONE
        whole = memory & (blocks.frames == size)
        free = whole & (blocks.free == size)
        movable = whole & np.isin(blocks.types, movable_types)
        counts = [
            whole,
            free,
            whole & (blocks.free + blocks.pcp == size),
            whole & (blocks.free + blocks.pcp == 0),
            movable,
            movable | free,
            memory & ~whole,
        ]
        numbers = [int(np.count_nonzero(mask)) for mask in counts]
        rows.append(BlockShares(zone.node, zone.name, *numbers))
    return rows
