# SPDX-License-Identifier: GPL-2.0-or-later
"""The sizes of a kernel that knows no managed pages: all follow `present_pages`, an estimate.

Linux: init_per_zone_pages_min(), setup_per_zone_pages_min(), setup_per_zone_lowmem_reserve(),
zone_batchsize(), setup_pageset(), mm/page_alloc.c (2.6.24)
"""

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

from physmem.lib.errors import BadMachineError
from physmem.machine.layout import Layout
from physmem.machine.sizing import PAGE_SHIFT
from physmem.mm.state import PcpState, State

MIN_FREE_KBYTES = (128, 65536)
LOWMEM_RESERVE_RATIO = {"DMA": 256, "DMA32": 256}
"""Of other zones: `_RATIO`. Linux: sysctl_lowmem_reserve_ratio[]"""
_RATIO = 32
_KB_SHIFT = PAGE_SHIFT - 10
_MOST_BATCH = 512 << 10 >> PAGE_SHIFT


class PcpSizes(NamedTuple):
    """Sizes of a hot and a cold list, in frames."""

    high: int
    batch: int
    cold_high: int
    cold_batch: int


def min_free_kbytes(buffer_frames: int) -> int:
    """Memory to keep free, from the frames of all zones up to Normal (above their high watermark).

    Examples
    --------
    >>> min_free_kbytes(4000 + 221184), min_free_kbytes(2827 + 512_959), min_free_kbytes(1 << 40)
    (3796, 5745, 65536)

    Linux: init_per_zone_pages_min(), mm/page_alloc.c (2.6.24)
    """
    least, most = MIN_FREE_KBYTES
    return min(max(isqrt((buffer_frames << _KB_SHIFT) * 16), least), most)


def watermarks(kbytes: int, present: int, lowmem: int, *, highmem: bool = False) -> list[int]:
    """Watermarks min, low, high of a zone in frames, and 0; `lowmem`: frames below HighMem.

    Examples
    --------
    >>> watermarks(3796, 221184, 225184), watermarks(3796, 32768, 225184, highmem=True)
    ([932, 1165, 1398, 0], [32, 66, 101, 0])

    Linux: setup_per_zone_pages_min(), mm/page_alloc.c (2.6.24)
    """
    pages_min = kbytes >> _KB_SHIFT
    share = pages_min * present // lowmem if lowmem else 0
    least = min(max(present // 1024, 32), 128) if highmem else share
    return [least, least + share // 4, least + share // 2, 0]


def lowmem_reserve(present: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Frames that each zone of a node keeps from requests that could use higher zones.

    Parameters
    ----------
    present, names : per zone of the architecture, lowest first; 0 for a zone that is not there

    Examples
    --------
    >>> lowmem_reserve([4000, 221184, 32768, 0], ["DMA", "Normal", "HighMem", "Movable"])[:2]
    [[0, 864, 992, 992], [0, 0, 1024, 1024]]

    Linux: setup_per_zone_lowmem_reserve(), mm/page_alloc.c (2.6.24)
    """
    table = []
    for lower, name in enumerate(names):
        ratio = LOWMEM_RESERVE_RATIO.get(name, _RATIO)
        row = [0] * len(names)
        above = 0
        for higher in range(lower + 1, len(names)):
            above += present[higher]
            row[higher] = above // ratio
        table.append(row)
    return table


def pcp_sizes(present: int) -> PcpSizes:
    """Sizes of the hot and the cold list of a zone.

    Examples
    --------
    >>> pcp_sizes(3840), pcp_sizes(32768)[:2], pcp_sizes(1 << 30)
    (PcpSizes(high=0, batch=1, cold_high=0, cold_batch=1), (42, 7), PcpSizes(high=186, batch=31, \
cold_high=62, cold_batch=15))

    Linux: zone_batchsize(), setup_pageset(), mm/page_alloc.c (2.6.24)
    """
    batch = max(min(present // 1024, _MOST_BATCH) // 4, 1)
    return pcp_sizes_of((1 << ((batch + batch // 2).bit_length() - 1)) - 1)


def pcp_sizes_of(batch: int) -> PcpSizes:
    """Sizes of both lists from the zone's batch, as it is logged (0 for a small zone).

    Examples
    --------
    >>> pcp_sizes_of(0), pcp_sizes_of(7).cold_high
    (PcpSizes(high=0, batch=1, cold_high=0, cold_batch=1), 14)

    Linux: setup_pageset(), mm/page_alloc.c (2.6.24)
    """
    return PcpSizes(6 * batch, max(1, batch), 2 * batch, max(1, batch // 2))


def setup_present_sizes(state: State, layout: Layout, kbytes: int | None = None) -> None:
    """Fill in watermarks, reserves and per-CPU sizes as such a kernel does at boot.

    Raises
    ------
    BadMachineError
        `kbytes` (min_free_kbytes as an administrator sets it) is negative or more than there is.
    """
    normal = layout.zone_idx("Normal")
    buffers = sum(z.present for z in state.zones if layout.zone_idx(z.name) <= normal)
    if kbytes is not None and not 0 <= kbytes <= buffers << _KB_SHIFT:
        raise BadMachineError(
            f"min_free_kbytes {kbytes}: the machine has {buffers << _KB_SHIFT} kB"
        )
    least = min_free_kbytes(buffers) if kbytes is None else kbytes
    high = {zone.name for zone in state.zones if is_highmem(zone.name, layout)}
    lowmem = sum(zone.present for zone in state.zones if zone.name not in high)
    for zone in state.zones:
        zone.wmark = watermarks(least, zone.present, lowmem, highmem=zone.name in high)
    for node in {zone.node for zone in state.zones}:
        own = {zone.name: zone for zone in state.zones if zone.node == node}
        present = [own[name].present if name in own else 0 for name in layout.zone_names]
        table = lowmem_reserve(present, layout.zone_names)
        for name, zone in own.items():
            zone.lowmem_reserve = table[layout.zone_idx(name)]
    for zone in state.zones:
        sizes = pcp_sizes(zone.present)
        zone.pageset_high, zone.pageset_batch = sizes.high, sizes.batch
        zone.pcp = [
            PcpState(cpu=cpu, count=0, lists=[[], []], **sizes._asdict())
            for cpu in range(layout.nr_cpus)
        ]


def is_highmem(name: str, layout: Layout) -> bool:
    """Tell whether the kernel cannot address a zone directly: HighMem, and Movable made of it.

    Linux: is_highmem(), include/linux/mmzone.h (2.6.24)
    """
    return name == "HighMem" or (name == "Movable" and "HighMem" in layout.zone_names)
