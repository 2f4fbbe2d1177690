# SPDX-License-Identifier: GPL-2.0-or-later
"""Does a recorded memory state agree with itself, with the other state and with the trace?"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadStateError
from physmem.mm.state import NO_MEMORY, State, ZoneState

MIGRATE_PCPTYPES = 3
"""Per-CPU lists of each order 0 to 3; behind them come those of the pageblock order."""


def pcp_list_order(pindex: int, pageblock_order: int) -> int:
    """Order of the blocks on per-CPU list `pindex`."""
    order = pindex // MIGRATE_PCPTYPES
    return order if order <= 3 else pageblock_order


def _lists(state: State, zone: ZoneState) -> Iterator[tuple[str, int, Sequence[int]]]:
    """Yield name, order and heads of each list of a zone."""
    for order, types in enumerate(zone.free):
        for migratetype, heads in enumerate(types):
            yield f"free list order {order} {state.type_names[migratetype]}", order, heads
    for pcp in zone.pcp:
        for pindex, heads in enumerate(pcp.lists):
            order = pcp_list_order(pindex, state.pageblock_order)
            yield f"per-CPU list {pindex} of CPU {pcp.cpu}", order, heads


def check_state(state: State, source: str) -> None:
    """Check that a state does not contradict itself.

    Raises
    ------
    BadStateError
        Names source, zone, list and frame: a frame outside of its zone, a block that is not
        aligned, a frame on two lists, a wrong counter, pageblocks that do not cover the zone.
    """
    if not 1 <= state.pageblock_order <= 20:
        raise BadStateError(f"{source}: pageblock order {state.pageblock_order} cannot be")
    starts: list[NDArray[np.int64]] = []
    sizes: list[NDArray[np.int64]] = []
    names: list[tuple[int, str]] = []
    for zone in state.zones:
        where = f"{source}: node {zone.node}, zone {zone.name}"
        _check_counters(state, zone, where)
        for name, order, heads in _lists(state, zone):
            if not heads:
                continue
            pfns = np.array(heads, np.int64)
            bad = (pfns < zone.start) | (pfns + (1 << order) > zone.end)
            if bad.any():
                raise BadStateError(
                    f"{where}, {name}: frame {int(pfns[bad][0]):#x} lies outside of the zone "
                    f"({zone.start:#x} to {zone.end:#x})"
                )
            bad = (pfns & ((1 << order) - 1)) != 0
            if bad.any():
                raise BadStateError(
                    f"{where}, {name}: frame {int(pfns[bad][0]):#x} is no multiple of {1 << order}"
                )
            starts.append(pfns)
            sizes.append(np.full(len(pfns), 1 << order, np.int64))
            names.append((len(pfns), f"{where}, {name}"))
    _check_disjoint(starts, sizes, names)


def _check_disjoint(
    starts: list[NDArray[np.int64]], sizes: list[NDArray[np.int64]], names: list[tuple[int, str]]
) -> None:
    if not starts:
        return
    start, size = np.concatenate(starts), np.concatenate(sizes)
    owner = np.repeat(np.arange(len(names)), [count for count, _ in names])
    by_start = np.argsort(start, kind="stable")
    start, size, owner = start[by_start], size[by_start], owner[by_start]
    clash = np.flatnonzero(start[1:] < start[:-1] + size[:-1])
    if len(clash):
        i = int(clash[0])
        first, second = names[int(owner[i])][1], names[int(owner[i + 1])][1]
        raise BadStateError(
            f"{first}: frame {int(start[i + 1]):#x} is on {second.split(', ', 2)[-1]} too"
        )


def _check_counters(state: State, zone: ZoneState, where: str) -> None:
    if zone.spanned <= 0 or zone.start < 0 or not 0 <= zone.managed <= zone.present <= zone.spanned:
        raise BadStateError(
            f"{where}: managed {zone.managed}, present {zone.present}, spanned {zone.spanned} "
            "frames cannot be"
        )
    if any(len(types) != state.nr_migratetypes for types in zone.free):
        raise BadStateError(f"{where}: free lists of different numbers of migratetypes")
    for order, counted in enumerate(zone.nr_free):
        found = sum(map(len, zone.free[order])) if order < len(zone.free) else 0
        if found != counted:
            raise BadStateError(
                f"{where}: nr_free of order {order} is {counted}, but its lists hold {found} blocks"
            )
    for pcp in zone.pcp:
        found = sum(
            len(heads) << pcp_list_order(pindex, state.pageblock_order)
            for pindex, heads in enumerate(pcp.lists)
        )
        if found != pcp.count:
            raise BadStateError(
                f"{where}: the per-CPU lists of CPU {pcp.cpu} hold {found} frames, "
                f"their count is {pcp.count}"
            )
    order = state.pageblock_order
    blocks = ((zone.end - 1) >> order) - (zone.start >> order) + 1
    if len(zone.pageblocks) != blocks:
        raise BadStateError(
            f"{where}: {len(zone.pageblocks)} pageblocks, but its span has {blocks}"
        )
    strange = set(zone.pageblocks) - set(state.letters + NO_MEMORY)
    if strange:
        raise BadStateError(f"{where}: pageblocks with unknown letters {''.join(sorted(strange))}")


def check_same_machine(state0: State, state1: State) -> None:
    """Check that two states are of one machine.

    Raises
    ------
    BadStateError
        Other zones, or other numbers of lists.
    """
    spans0 = [(zone.node, zone.name, zone.start, zone.spanned) for zone in state0.zones]
    spans1 = [(zone.node, zone.name, zone.start, zone.spanned) for zone in state1.zones]
    if spans0 != spans1:
        other = next((b for a, b in zip(spans0, spans1, strict=False) if a != b), None)
        name = f"zone {other[1]} of node {other[0]}" if other else "the number of zones"
        raise BadStateError(f"state1: {name} differs from state0: they are of different machines")
    if state0.nr_migratetypes != state1.nr_migratetypes:
        raise BadStateError("state1: another number of migratetypes than state0")


def check_against_trace(state: State, source: str, allocated: Sequence[tuple[int, int]]) -> None:
    """Check that no frame is free in a state that the trace before it allocated and did not free.

    `allocated` are runs (start, count), ascending.

    Raises
    ------
    BadStateError
        Names the zone, list and frame.
    """
    if not allocated:
        return
    runs = np.array(allocated, np.int64)
    begins, ends = runs[:, 0], runs[:, 0] + runs[:, 1]
    for zone in state.zones:
        for name, order, heads in _lists(state, zone):
            pfns = np.array(heads, np.int64)
            after = np.searchsorted(ends, pfns, side="right")  # first run that ends behind pfn
            inside = after < len(begins)
            hit = np.flatnonzero(begins[after[inside]] < pfns[inside] + (1 << order))
            if len(hit):
                pfn = int(pfns[inside][hit[0]])
                raise BadStateError(
                    f"{source}: node {zone.node}, zone {zone.name}, {name}: frame {pfn:#x} is "
                    "free, but the trace has allocated it: state and trace do not belong together"
                )
