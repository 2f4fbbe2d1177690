# SPDX-License-Identifier: GPL-2.0-or-later
"""What every pageblock holds, computed from the lists of a state: the data behind the pictures.

0.1 s for the 524,288 pageblocks of 1 TiB; the time goes into turning lists into arrays.
"""

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadStateError
from physmem.mm.state import NO_MEMORY, State, ZoneState

FRAME_SHIFT = 12
"""Frames are taken as 4 KiB: a state does not tell their size."""

_PCP_ORDERS = 4  # orders 0..3 have lists for three migratetypes each; behind them: huge pages
_PCP_TYPES = 3


class ZoneBlocks(msgspec.Struct, frozen=True):
    """Pageblocks of one zone, or groups of neighbouring pageblocks.

    `first` is the number of the first one counted from frame 0 (pfn >> order, for a group the
    number of the group); `order` the frames of one as a power of two. The arrays have one element
    for each: `types` uint8 migratetype or NONE; `frames` int64 inside the zone's span; `free` int64
    on buddy lists; `pcp` int64 on per-CPU lists.
    """

    NONE: ClassVar[int] = 255

    node: int
    zone: str
    first: int
    order: int
    types: NDArray[np.uint8]
    frames: NDArray[np.int64]
    free: NDArray[np.int64]
    pcp: NDArray[np.int64]

    @property
    def label(self) -> str:
        """Short heading: node and zone."""
        return f"Node {self.node}, zone {self.zone}"

    def free_share(self) -> NDArray[np.uint8]:
        """Free share of each as 0..255, rounded down: only 255 means wholly free."""
        share = self.free * 255 // np.maximum(self.frames, 1)
        # A state that lists a frame twice still gets a picture.
        result: NDArray[np.uint8] = np.minimum(share, 255).astype(np.uint8)
        return result


_UNITS = (("TiB", 30), ("GiB", 20), ("MiB", 10), ("KiB", 0))  # powers of two of one KiB


def address(pfn: int) -> str:
    """Physical address of a frame, or a size in frames, exact: in the largest unit that fits.

    Examples
    --------
    >>> address(0), address(4096), address(9 << 15), address(1 << 28), address(4095)
    ('0', '16 MiB', '1.125 GiB', '1 TiB', '16380 KiB')
    """
    kib = pfn << (FRAME_SHIFT - 10)
    if kib == 0:
        return "0"
    for unit, shift in _UNITS[:-1]:
        # Eighths at most: 1.125 GiB, but 1281 MiB.
        if kib >> shift and not kib % (1 << (shift - 3)):
            return f"{kib / (1 << shift):.12g} {unit}"
    return f"{kib} KiB"


def size_text(frames: int) -> str:
    """Size for a reader: at most three digits, rounded.

    Examples
    --------
    >>> size_text(4095), size_text(126938), size_text(307162), size_text(2040 << 9), size_text(0)
    ('16 MiB', '496 MiB', '1.17 GiB', '3.98 GiB', '0')
    """
    kib = frames << (FRAME_SHIFT - 10)
    for unit, shift in _UNITS:
        value = kib / (1 << shift)
        if value >= 0.9995:
            digits = max(0, 2 - len(f"{value:.0f}") + 1)
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if digits else text} {unit}"
    return "0"


def _codes(state: State, zone: ZoneState) -> NDArray[np.uint8]:
    """Migratetype of each pageblock from its letter."""
    table = np.full(256, 254, np.uint8)
    table[ord(NO_MEMORY)] = ZoneBlocks.NONE
    for mt, letter in enumerate(state.letters):
        table[ord(letter)] = mt
    letters = np.frombuffer(zone.pageblocks.encode("latin-1", "replace"), np.uint8)
    codes: NDArray[np.uint8] = table[letters]
    if (codes == 254).any():
        letter = zone.pageblocks[int(np.argmax(codes == 254))]
        raise BadStateError(
            f"node {zone.node} zone {zone.name}: pageblock letter {letter!r} is not one of "
            f"{state.letters + NO_MEMORY}; record the state again"
        )
    return codes


def _add(
    zone: ZoneState, counts: NDArray[np.int64], heads: list[int], order: int, pbo: int
) -> None:
    """Add the frames of chunks of one order to the counts of their pageblocks."""
    if not heads:
        return
    pfns = np.array(heads, np.int64)
    low, high = int(pfns.min()), int(pfns.max()) + (1 << order)
    if low < zone.start or high > zone.end:
        raise BadStateError(
            f"node {zone.node} zone {zone.name}: free chunk of order {order} at frame "
            f"{low if low < zone.start else high - (1 << order)} lies outside the zone "
            f"[{zone.start}, {zone.end}); record the state again"
        )
    index = (pfns >> pbo) - (zone.start >> pbo)
    if order > pbo:
        index = (index[:, None] + np.arange(1 << (order - pbo))).ravel()
    counts += np.bincount(index, minlength=len(counts)) << min(order, pbo)


def pcp_order(pindex: int, pageblock_order: int) -> int:
    """Order of the chunks on a per-CPU list.

    Linux: pindex_to_order(), mm/page_alloc.c (6.1)
    """
    return pindex // _PCP_TYPES if pindex < _PCP_ORDERS * _PCP_TYPES else pageblock_order


def zone_blocks(state: State, zone: ZoneState) -> ZoneBlocks:
    """Type and free frames of every pageblock of one zone.

    Raises
    ------
    BadStateError
        A list names a frame outside the zone, or a pageblock has an unknown letter.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> state = small_state()
    >>> blocks = zone_blocks(state, state.zones[1])
    >>> blocks.first, blocks.types.tolist()
    (4, [0, 0, 1, 1, 1, 2, 1, 3])
    >>> blocks.free.tolist(), blocks.pcp.tolist()
    ([10, 0, 1, 512, 0, 257, 0, 128], [2, 0, 1, 0, 0, 0, 512, 0])
    """
    pbo = state.pageblock_order
    first = zone.start >> pbo
    needed = ((zone.end - 1) >> pbo) + 1 - first
    types = _codes(state, zone)
    if len(types) != needed:
        raise BadStateError(
            f"node {zone.node} zone {zone.name}: {len(types)} pageblock letters for {needed} "
            "pageblocks; record the state again"
        )
    edges = (np.arange(first, first + needed + 1, dtype=np.int64) << pbo).clip(zone.start, zone.end)
    free = np.zeros(needed, np.int64)
    for order, lists in enumerate(zone.free):
        for heads in lists:
            _add(zone, free, heads, order, pbo)
    pcp = np.zeros(needed, np.int64)
    for cpu in zone.pcp:
        for pindex, heads in enumerate(cpu.lists):
            _add(zone, pcp, heads, pcp_order(pindex, pbo), pbo)
    return ZoneBlocks(zone.node, zone.name, first, pbo, types, np.diff(edges), free, pcp)


def all_blocks(state: State) -> list[ZoneBlocks]:
    """Type and free frames of every pageblock, zone by zone."""
    return [zone_blocks(state, zone) for zone in state.zones]


def group_blocks(blocks: ZoneBlocks, shift: int) -> ZoneBlocks:
    """Join aligned runs of 2**shift pageblocks; the type of a group is that of most of its frames.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> state = small_state()
    >>> group_blocks(zone_blocks(state, state.zones[1]), 2).types.tolist()
    [0, 1]
    """
    if shift == 0:
        return blocks
    number = np.arange(blocks.first, blocks.first + len(blocks.types)) >> shift
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    group = number - number[0]
    memory = blocks.types != ZoneBlocks.NONE
    of_type = np.bincount(
        group[memory] * 8 + blocks.types[memory],
        weights=blocks.frames[memory],
        minlength=len(starts) * 8,
    ).reshape(-1, 8)
    types = of_type.argmax(axis=1).astype(np.uint8)
    types[of_type.sum(axis=1) == 0] = ZoneBlocks.NONE
    return ZoneBlocks(
        blocks.node,
        blocks.zone,
        int(number[0]),
        blocks.order + shift,
        types,
        np.add.reduceat(np.where(memory, blocks.frames, 0), starts),
        np.add.reduceat(blocks.free, starts),
        np.add.reduceat(blocks.pcp, starts),
    )
