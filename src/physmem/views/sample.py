# SPDX-License-Identifier: GPL-2.0-or-later
"""A state small enough to check by eye, for examples and tests."""

from physmem.mm.state import PcpState, State, ZoneState

_ORDERS = 11
_TYPES = 5


def _lists(chunks: dict[tuple[int, int], list[int]]) -> list[list[list[int]]]:
    return [[chunks.get((order, mt), []) for mt in range(_TYPES)] for order in range(_ORDERS)]


def _zone(
    name: str, start: int, pageblocks: str, chunks: dict[tuple[int, int], list[int]]
) -> ZoneState:
    free = _lists(chunks)
    spanned = (len(pageblocks) << 9) - start % 512
    return ZoneState(
        node=0,
        name=name,
        start=start,
        spanned=spanned,
        present=spanned,
        managed=spanned - 100,
        wmark=[20, 25, 30, 35],
        free=free,
        pcp=[],
        pageblocks=pageblocks,
        nr_free=[sum(len(heads) for heads in lists) for lists in free],
    )


def small_state() -> State:
    """Two zones of one node: DMA of 4 pageblocks, not block aligned; Normal of 8, one CPU.

    Examples
    --------
    >>> [(zone.name, zone.pageblocks) for zone in small_state().zones]
    [('DMA', 'UMMM'), ('Normal', 'UUMMMRMH')]
    """
    dma = _zone("DMA", 1, "UMMM", {(5, 0): [64], (9, 1): [512], (10, 1): [1024]})
    normal = _zone(
        "Normal",
        2048,
        "UUMMMRMH",
        {
            (0, 0): [2060, 2050],
            (0, 1): [3100],
            (0, 2): [4620],
            (3, 0): [2064],
            (7, 3): [5632],
            (8, 2): [4864],
            (9, 1): [3584],
        },
    )
    lists: list[list[int]] = [[] for _ in range(14)]
    lists[0] = [2081, 2080]  # order 0, unmovable
    lists[1] = [3105]  # order 0, movable
    lists[13] = [5120]  # order 9, movable
    normal.highatomic = 512  # the pageblock H
    normal.pcp = [PcpState(cpu=0, count=515, high=600, batch=63, lists=lists)]
    return State(zones=[dma, normal], pageblock_order=9)
