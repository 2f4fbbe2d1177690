# SPDX-License-Identifier: GPL-2.0-or-later
"""The sizes that a kernel works out at boot: reserves, watermarks, per-CPU list lengths.

Linux: calculate_min_free_kbytes(), __setup_per_zone_wmarks(), setup_per_zone_lowmem_reserve(),
zone_batchsize(), zone_highsize(), mm/page_alloc.c (6.1); set_recommended_min_free_kbytes(),
mm/khugepaged.c (6.1)
"""

from collections.abc import Sequence
from math import isqrt

PAGE_SHIFT = 12
MIN_FREE_KBYTES = (128, 262144)
WATERMARK_SCALE_FACTOR = 10
LOWMEM_RESERVE_RATIO = {"DMA": 256, "DMA32": 256, "Normal": 32}
"""Zones that are not named keep nothing back. Linux: sysctl_lowmem_reserve_ratio[]"""
_KB_SHIFT = PAGE_SHIFT - 10
_THP_LEAST_FRAMES = 512 << (20 - PAGE_SHIFT)


def min_free_kbytes(buffer_frames: int) -> int:
    """Memory to keep free, from the frames of all zones up to Normal (above their high watermark).

    Examples
    --------
    >>> min_free_kbytes(3840 + 500000 + 3600000), min_free_kbytes(1 << 40)
    (16206, 262144)

    Linux: calculate_min_free_kbytes(), mm/page_alloc.c (6.1)
    """
    least, most = MIN_FREE_KBYTES
    return min(max(isqrt((buffer_frames << _KB_SHIFT) * 16), least), most)


def thp_min_free_kbytes(pageblock_order: int, nr_zones: int, buffer_frames: int, total: int) -> int:
    """What khugepaged asks for, so that pageblocks of each type stay free; 0 on small machines.

    Linux: set_recommended_min_free_kbytes(), mm/khugepaged.c (6.1)
    """
    if total < _THP_LEAST_FRAMES:
        return 0
    frames = (nr_zones * (2 + 9)) << pageblock_order
    return min(frames, buffer_frames // 20) << _KB_SHIFT


def watermarks(
    kbytes: int,
    managed: int,
    lowmem: int,
    *,
    highmem: bool = False,
    scale: int = WATERMARK_SCALE_FACTOR,
) -> list[int]:
    """Watermarks min, low, high, promo of a zone in frames; `lowmem`: frames below HighMem.

    `scale` is the sysctl watermark_scale_factor.

    Examples
    --------
    >>> watermarks(1847, 49463, 3840 + 49463), watermarks(67584, 3600000, 4103840)
    ([427, 533, 639, 745], [14821, 18526, 22231, 25936])

    Linux: __setup_per_zone_wmarks(), mm/page_alloc.c (6.1)
    """
    share = (kbytes >> _KB_SHIFT) * managed // lowmem if lowmem else 0
    least = min(max(managed // 1024, 32), 128) if highmem else share
    scaled = managed // 10000 * scale
    scaled += managed % 10000 * scale // 10000
    step = max(share // 4, scaled)
    return [least + level * step for level in range(4)]


def lowmem_reserve(managed: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """Frames that each zone of a node keeps from requests that could use higher zones.

    Parameters
    ----------
    managed, names : per zone of the architecture, lowest first; 0 for a zone that is not there

    Examples
    --------
    >>> names = ("DMA", "DMA32", "Normal", "Movable", "Device")
    >>> lowmem_reserve([3840, 500000, 3600000, 0, 0], names)[:2]
    [[0, 1953, 16015, 16015, 16015], [0, 0, 14062, 14062, 14062]]

    Linux: setup_per_zone_lowmem_reserve(), mm/page_alloc.c (6.1)
    """
    table = []
    for lower, name in enumerate(names):
        ratio = LOWMEM_RESERVE_RATIO.get(name, 0)
        row = [0] * len(names)
        above = 0
        for higher in range(lower + 1, len(names)):
            above += managed[higher]
            row[higher] = above // ratio if ratio and managed[lower] else 0
        table.append(row)
    return table


def pcp_batch(managed: int) -> int:
    """Frames per refill or drain.

    Examples
    --------
    >>> [pcp_batch(frames) for frames in (3840, 16384, 65536, 262144, 1 << 28)]
    [1, 3, 15, 63, 63]

    Linux: zone_batchsize(), mm/page_alloc.c (6.1)
    """
    batch = max(min(managed >> 10, 256) // 4, 1)
    grown = batch + batch // 2
    return max((1 << (grown.bit_length() - 1)) - 1, 1)


def pcp_high(share: int, batch: int, nr_local_cpus: int) -> int:
    """Frames on a CPU's lists at which they are drained.

    `share` is the low watermark; for the upper bound of lists that size themselves, an eighth of
    the zone.

    Examples
    --------
    >>> pcp_high(825, 31, 1), pcp_high(112936 // 8, 31, 1)
    (825, 14117)

    Linux: zone_highsize(), mm/page_alloc.c (6.1, 6.12)
    """
    return max(share // max(nr_local_cpus, 1), 4 * batch)
