# SPDX-License-Identifier: GPL-2.0-or-later
"""The part before the trace: what was in use when the first event was recorded.

The boot log tells what the boot allocator kept; the states and the frees of frames that no event
allocated tell what was in use. The rest was allocated by requests that nobody recorded. They are
made again in the order of their frames, which is the order in which a fresh machine gives them out:

* the flags follow from the zone and from the type of the pageblock that the frame lay in;
* what lay free between them, in a pageblock that they had begun, is allocated with them and given
  back afterwards, so that the gaps come back, too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.mm.gfp import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_USER
from physmem.mm.gfp_bits import (
    GFP_DMA32_BIT,
    GFP_DMA_BIT,
    GFP_HIGHMEM_BIT,
    GFP_MOVABLE_BIT,
    GFP_MOVABLE_SHIFT,
)
from physmem.mm.state import NO_MEMORY, State, ZoneState
from physmem.trace.capture import Capture
from physmem.views.blocks import pcp_order

GAP = -1
"""Slot of a gap."""
_RECLAIMABLE_BIT = 1 << (GFP_MOVABLE_SHIFT + 1)


@dataclass(frozen=True, eq=False)
class Early:
    """Requests before the trace, in their order.

    Attributes
    ----------
    pfn : (n,) int64, where it was when recorded
    order : (n,) uint8
    slot : (n,) int64, number of the allocation, or GAP
    gfp : (n,) uint32
    node : (n,) uint8
    movable : (n,) bool, the frames can be moved
    held : (k,) int64, frames held for ever: their slots follow those of the trace, in this order
    """

    pfn: NDArray[np.int64]
    order: NDArray[np.uint8]
    slot: NDArray[np.int64]
    gfp: NDArray[np.uint32]
    node: NDArray[np.uint8]
    movable: NDArray[np.bool_]
    held: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pfn)

    @property
    def nr_pages(self) -> int:
        """Frames of all but the gaps."""
        return int((1 << self.order[self.slot != GAP].astype(np.int64)).sum())


def frames_in_use(state: State, max_pfn: int) -> NDArray[np.uint8]:
    """(max_pfn,) uint8: 1 for each frame of a zone that is on no list."""
    use = np.zeros(max_pfn, np.uint8)
    for zone in state.zones:
        use[zone.start : zone.end] = 1
    for zone in state.zones:
        for order, lists in enumerate(zone.free):
            for heads in lists:
                _clear(use, heads, order)
        for pcp in zone.pcp:
            for pindex, heads in enumerate(pcp.lists):
                _clear(use, heads, pcp_order(pindex, state.pageblock_order))
    return use


def _clear(use: NDArray[np.uint8], heads: list[int], order: int) -> None:
    if heads:
        frames = np.array(heads, np.int64)[:, None] + np.arange(1 << order)
        use[frames[frames < len(use)]] = 0


def early_part(
    capture: Capture,
    slots: tuple[NDArray[np.int64], NDArray[np.uint8]],
    freed: NDArray[np.int64],
    held: NDArray[np.int64],
    boot: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    *,
    first_slot: int,
) -> Early:
    """Requests that put a fresh machine into the state in which the trace begins.

    Parameters
    ----------
    slots : first frame and order by slot
    freed : slots from before the trace that the trace frees
    held : frames from before the trace that stay in use
    boot : by frame: in use when the boot is complete; given back by the boot during the trace
    first_slot : number of the slot of held[0]
    """
    state = capture.state0 or capture.state1
    if state is None:
        raise RuntimeError("a workload has a state")
    pfn = np.concatenate([slots[0][freed], held])
    order = np.concatenate([slots[1][freed], np.zeros(len(held), np.uint8)])
    slot = np.concatenate([freed, first_slot + np.arange(len(held))])
    taken = np.zeros(len(boot[1]), np.bool_)
    for each in np.unique(order):
        heads = pfn[order == each]
        taken[(heads[:, None] + np.arange(1 << int(each))).ravel()] = True
    gaps = _gaps(state, taken, boot)
    pfn = np.concatenate([pfn, gaps])
    order = np.concatenate([order, np.zeros(len(gaps), np.uint8)])
    slot = np.concatenate([slot, np.full(len(gaps), GAP, np.int64)])
    by_place = np.argsort(pfn, kind="stable")
    pfn, order, slot = pfn[by_place], order[by_place], slot[by_place]
    movable = np.zeros(len(taken), np.bool_)
    for start, count in capture.info.movable0 if capture.info.state0_row == 0 else ():
        movable[start : start + count] = True
    gfp, node = _flags(state, pfn, movable)
    return Early(pfn, order, slot, gfp, node, movable[pfn], held)


def _gaps(
    state: State,
    taken: NDArray[np.bool_],
    boot: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> NDArray[np.int64]:
    """Frames that were free in a pageblock that is in use up to a later frame."""
    reserved = boot[1] != 0
    reserved[: len(boot[0])] |= boot[0] != 0
    shift = state.pageblock_order
    memory = np.zeros(len(taken), np.bool_)
    for zone in state.zones:
        memory[zone.start : zone.end] = True
        for number, letter in enumerate(zone.pageblocks):
            if letter == NO_MEMORY:
                first = ((zone.start >> shift) + number) << shift
                memory[first : first + (1 << shift)] = False
    frames = np.flatnonzero(taken)
    if not len(frames):
        return np.empty(0, np.int64)
    last = np.zeros((len(taken) >> shift) + 1, np.int64)
    np.maximum.at(last, frames >> shift, frames)
    free = np.flatnonzero(memory & ~taken & ~reserved)
    gaps: NDArray[np.int64] = free[free < last[free >> shift]]
    return gaps


def _flags(
    state: State, pfn: NDArray[np.int64], movable: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Flags and node of requests that would have got frames where these are."""
    gfp = np.full(len(pfn), GFP_KERNEL, np.uint32)
    node = np.zeros(len(pfn), np.uint8)
    for zone in state.zones:
        inside = (pfn >= zone.start) & (pfn < zone.end)
        if not inside.any():
            continue
        letters = np.frombuffer(zone.pageblocks.encode(), np.uint8)
        frames = pfn[inside]
        types = letters[(frames >> state.pageblock_order) - (zone.start >> state.pageblock_order)]
        gfp[inside] = _zone_flags(state, zone, types, movable[frames])
        node[inside] = zone.node
    return gfp, node


def _zone_flags(state: State, zone: ZoneState, types: Any, movable: Any) -> NDArray[np.uint32]:
    """Flags by type of the pageblock; zones that no ordinary request prefers are named."""
    kernel = {"DMA": GFP_DMA_BIT, "DMA32": GFP_DMA32_BIT, "Normal": 0}
    if zone.name == "Movable":
        return np.full(len(types), GFP_HIGHUSER_MOVABLE, np.uint32)
    extra = kernel.get(zone.name, GFP_HIGHMEM_BIT)
    ordinary = [other.name for other in state.zones if other.node == zone.node]
    top = [name for name in kernel if name in ordinary][-1:]
    if zone.name in top:
        extra = 0
    flags = np.full(len(types), GFP_KERNEL | extra, np.uint32)
    flags[types == ord("R")] |= _RECLAIMABLE_BIT
    in_movable = np.isin(types, (ord("M"), ord("C")))
    flags[in_movable] = GFP_USER | GFP_MOVABLE_BIT | extra
    if extra == 0:
        flags[in_movable & movable] = GFP_HIGHUSER_MOVABLE
    return flags
