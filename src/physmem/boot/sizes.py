# SPDX-License-Identifier: GPL-2.0-or-later
"""Reserves and watermarks that a kernel works out at boot, for any page size and kernel.

Linux: init_per_zone_pages_min(), mm/page_alloc.c (2.6.24); init_per_zone_wmark_min(),
mm/page_alloc.c, set_recommended_min_free_kbytes(), mm/khugepaged.c (6.1, 6.12)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.boot.limits import MOVABLE
from physmem.machine.present_sizes import lowmem_reserve as reserve_by_present
from physmem.machine.sizing import WATERMARK_SCALE_FACTOR
from physmem.machine.sizing import lowmem_reserve as reserve_by_zone

LEAST_MIN_FREE_KBYTES = 128
SWAP_CLUSTER_MAX = 32


@dataclass(frozen=True, slots=True)
class SizedZone:
    """What the sizes of a zone depend on.

    Attributes
    ----------
    nid, index, name : node, zone index, name
    pages : frames that count: `managed_pages` at that moment; 2.6.24: `present_pages`
    highmem : whether the kernel treats it as HighMem (`physmem.boot.zones.is_highmem`)
    """

    nid: int
    index: int
    name: str
    pages: int
    highmem: bool = False


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Watermarks of a zone in frames; 2.6.24 has no promo."""

    min: int
    low: int
    high: int
    promo: int


@dataclass(frozen=True, slots=True)
class Marks:
    """Watermarks of all zones, and what they come from.

    Attributes
    ----------
    min_free_kbytes : what is kept free, in KiB
    raised : whether huge pages raised it
    zones : watermarks, one per zone given
    """

    min_free_kbytes: int
    raised: bool
    zones: tuple[Watermarks, ...]


def free_buffer_pages(
    zones: Sequence[SizedZone], normal: int, high: Sequence[int] | None = None
) -> int:
    """Frames above the high watermark in zones that user buffers may come from.

    Parameters
    ----------
    normal : index of zone Normal
    high : high watermark of each zone; None: still 0

    Linux: nr_free_buffer_pages(), mm/page_alloc.c (2.6.24, 6.1)
    """
    marks = high or (0,) * len(zones)
    return sum(
        max(zone.pages - mark, 0)
        for zone, mark in zip(zones, marks, strict=True)
        if zone.index <= normal
    )


def min_free_kbytes(
    pages: int, geometry: Geometry, features: BootFeature, *, user: int = -1
) -> int:
    """Memory to keep free in KiB: grows with the square root of memory.

    Parameters
    ----------
    pages : `free_buffer_pages`
    user : value that the user set; a smaller result leaves it

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> min_free_kbytes(515786, Geometry(), boot_features("2.6.24"))
    5745
    >>> min_free_kbytes(3840 + 765931 + 1279203, Geometry(), boot_features("6.1"))
    11451

    Linux: init_per_zone_pages_min() (2.6.24), calculate_min_free_kbytes() (6.1)
    """
    most = 262144 if BootFeature.MIN_FREE_256M in features else 65536
    wanted = isqrt((pages * geometry.page_size >> 10) * 16)
    if wanted <= user:
        return user
    return min(max(wanted, LEAST_MIN_FREE_KBYTES), most)


def thp_min_free_kbytes(
    zones: Sequence[SizedZone], normal: int, high: Sequence[int], geometry: Geometry
) -> int:
    """What khugepaged asks for, in KiB: whole pageblocks for each type in each zone.

    Parameters
    ----------
    high : high watermark that each zone has already

    Linux: set_recommended_min_free_kbytes(), mm/khugepaged.c (6.1)
    """
    nr_zones = sum(1 for zone in zones if zone.pages and zone.index <= normal)
    frames = geometry.pageblock_pages * nr_zones * (2 + 3 * 3)
    frames = min(frames, free_buffer_pages(zones, normal, high) // 20)
    return frames * geometry.page_size >> 10


def huge_pages_fit(total_pages: int, geometry: Geometry) -> bool:
    """Whether the machine has the 512 MiB below which huge pages switch themselves off.

    Examples
    --------
    >>> huge_pages_fit(120319, Geometry()), huge_pages_fit(131072, Geometry())
    (False, True)

    Linux: hugepage_init(), mm/huge_memory.c (6.1)
    """
    return total_pages >= (512 << 20) // geometry.page_size


def zone_watermarks(
    zones: Sequence[SizedZone], kbytes: int, geometry: Geometry, features: BootFeature
) -> tuple[Watermarks, ...]:
    """Watermarks of all zones: each has its share of `kbytes`.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> zones = [SizedZone(0, 0, "DMA", 2827), SizedZone(0, 1, "DMA32", 512959)]
    >>> marks = zone_watermarks(zones, 5745, Geometry(), boot_features("2.6.24"))
    >>> [(zone.min, zone.low, zone.high) for zone in marks]
    [(7, 8, 10), (1428, 1785, 2142)]

    Linux: setup_per_zone_pages_min() (2.6.24), __setup_per_zone_wmarks() (6.1)
    """
    unimportant = [
        zone.highmem or (zone.name == MOVABLE and BootFeature.MOVABLE_NOT_LOWMEM in features)
        for zone in zones
    ]
    lowmem = sum(zone.pages for zone, high in zip(zones, unimportant, strict=True) if not high)
    pages_min = (kbytes << 10) // geometry.page_size
    marks = []
    for zone, unlike in zip(zones, unimportant, strict=True):
        share = pages_min * zone.pages // lowmem if lowmem else 0
        least = share
        if unlike:
            least = min(max(zone.pages // 1024, SWAP_CLUSTER_MAX), 128)
        if BootFeature.WATERMARK_SCALE in features:
            scaled = zone.pages // 10000 * WATERMARK_SCALE_FACTOR
            scaled += zone.pages % 10000 * WATERMARK_SCALE_FACTOR // 10000
            step = max(share // 4, scaled)
            marks.append(Watermarks(least, least + step, least + 2 * step, least + 3 * step))
        else:
            high = least + share // 2
            marks.append(Watermarks(least, least + share // 4, high, high))
    return tuple(marks)


def boot_watermarks(
    zones: Sequence[SizedZone],
    normal: int,
    build: tuple[Geometry, BootFeature],
    *,
    thp: bool = False,
    user: int = -1,
) -> Marks:
    """Watermarks once a kernel is up: from the square root, then raised for huge pages.

    Parameters
    ----------
    zones : zones of all nodes, empty ones too, with the frames at the first initcall
    normal : index of zone Normal
    build : geometry and features of the kernel
    thp : huge pages are enabled; `huge_pages_fit` must hold, too
    user : min_free_kbytes that the user set

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> zones = [SizedZone(0, 0, "DMA", 3840), SizedZone(0, 1, "DMA32", 765931),
    ...     SizedZone(0, 2, "Normal", 1279203)]
    >>> marks = boot_watermarks(zones, 2, (Geometry(), boot_features("6.1")), thp=True)
    >>> marks.min_free_kbytes, [(zone.min, zone.low, zone.high) for zone in marks.zones]
    (67584, [(31, 38, 45), (6315, 7893, 9471), (10548, 13185, 15822)])

    Linux: init_per_zone_wmark_min(), mm/page_alloc.c; start_stop_khugepaged() (6.1)
    """
    geometry, features = build
    pages = free_buffer_pages(zones, normal)
    kbytes = min_free_kbytes(pages, geometry, features, user=user)
    marks = zone_watermarks(zones, kbytes, geometry, features)
    total = sum(zone.pages for zone in zones)
    if thp and BootFeature.THP_MIN_FREE in features and huge_pages_fit(total, geometry):
        more = thp_min_free_kbytes(zones, normal, [zone.high for zone in marks], geometry)
        if more > kbytes:
            marks = zone_watermarks(zones, more, geometry, features)
            return Marks(min_free_kbytes=more, raised=True, zones=marks)
    return Marks(min_free_kbytes=kbytes, raised=False, zones=marks)


def lowmem_reserve(
    pages: Sequence[int], names: Sequence[str], features: BootFeature
) -> list[list[int]]:
    """Frames that each zone of a node keeps from requests that could use higher zones.

    Parameters
    ----------
    pages, names : per zone type, lowest first; 0 for a zone that is not there

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> old = boot_features("2.6.24")
    >>> lowmem_reserve([4064, 223520, 32497, 0], ["DMA", "Normal", "HighMem", "Movable"], old)
    [[0, 873, 1000, 1000], [0, 0, 1015, 1015], [0, 0, 0, 0], [0, 0, 0, 0]]

    Linux: setup_per_zone_lowmem_reserve(), mm/page_alloc.c (2.6.24, 6.1)
    """
    if BootFeature.RESERVE_RATIO_BY_ZONE in features:
        return reserve_by_zone(pages, names)
    return reserve_by_present(pages, names)


def total_reserve(
    pages: Sequence[int], reserve: Sequence[Sequence[int]], high: Sequence[int]
) -> int:
    """Frames of a node's zones that user memory never gets.

    Examples
    --------
    >>> reserve = [[0, 2991, 7988, 7988], [0, 0, 4996, 4996], [0] * 4, [0] * 4]
    >>> total_reserve([3840, 765931, 1279203, 0], reserve, [45, 9471, 15822, 0])
    34129

    Linux: calculate_totalreserve_pages(), mm/page_alloc.c (2.6.24, 6.1)
    """
    return sum(
        min(max(row) + mark, frames) for frames, row, mark in zip(pages, reserve, high, strict=True)
    )


def reserve_blocks(min_mark: int, geometry: Geometry) -> int:
    """Pageblocks that a zone of 2.6.24 wants as MIGRATE_RESERVE.

    Examples
    --------
    >>> reserve_blocks(1428, Geometry()), reserve_blocks(7, Geometry())
    (3, 1)

    Linux: setup_zone_migrate_reserve(), mm/page_alloc.c (2.6.24)
    """
    return -(-min_mark // geometry.pageblock_pages)


def node_reclaim_minimum(pages: int) -> tuple[int, int]:
    """Unmapped and slab frames below which a NUMA node does not reclaim from itself.

    Examples
    --------
    >>> node_reclaim_minimum(10000)
    (100, 500)

    Linux: free_area_init_core() (2.6.24), setup_min_unmapped_ratio() (6.1)
    """
    return pages * 1 // 100, pages * 5 // 100


def stat_threshold(pages: int, nr_cpus: int, geometry: Geometry) -> int:
    """Changes of a counter that a CPU keeps to itself.

    Examples
    --------
    >>> [stat_threshold(4096, 1, Geometry()), stat_threshold(65536, 2, Geometry())]
    [2, 12]

    Linux: calculate_normal_threshold(), mm/vmstat.c (6.1)
    """
    memory = pages * geometry.page_size >> 27
    return min(2 * nr_cpus.bit_length() * (1 + memory.bit_length()), 125)
