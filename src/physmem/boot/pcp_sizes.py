# SPDX-License-Identifier: GPL-2.0-or-later
"""How many frames a CPU's own lists hold, and move at a time.

Linux: zone_batchsize(), setup_pageset(), mm/page_alloc.c (2.6.24); zone_batchsize(),
zone_highsize(), zone_set_pageset_high_and_batch(), mm/page_alloc.c (6.1, 6.12)
"""

from dataclasses import dataclass

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry
from physmem.lib.errors import BadMachineError
from physmem.machine.present_sizes import pcp_sizes_of
from physmem.machine.sizing import pcp_high

LEAST_FRACTION = 8


@dataclass(frozen=True, slots=True)
class PcpSizes:
    """Sizes of a CPU's lists in one zone.

    Attributes
    ----------
    batch : frames per refill or drain
    high_min, high_max : frames at which the lists are drained; equal: no auto-tuning
    """

    batch: int
    high_min: int
    high_max: int


@dataclass(frozen=True, slots=True)
class HotColdSizes:
    """Sizes of the two lists of 2.6.24.

    Attributes
    ----------
    hot_high, cold_high : frames at which a list is drained
    hot_batch, cold_batch : frames per refill or drain
    """

    hot_high: int
    hot_batch: int
    cold_high: int
    cold_batch: int


BOOT_PCP = PcpSizes(batch=1, high_min=0, high_max=0)
"""Lists until setup_per_cpu_pageset(): every frame passes through at once."""


def zone_batch(pages: int, geometry: Geometry, features: BootFeature) -> int:
    """Batch by the size of a zone, as it is logged: 0 for small zones (lists then use 1).

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> old, new = boot_features("2.6.24"), boot_features("6.1")
    >>> [zone_batch(frames, Geometry(), old) for frames in (3840, 32768, 1 << 20)]
    [0, 7, 31]
    >>> [zone_batch(frames, Geometry(), new) for frames in (3840, 32768, 1 << 20)]
    [0, 7, 63]

    Linux: zone_batchsize(), mm/page_alloc.c (2.6.24, 6.1)
    """
    most = (1 << 20 if BootFeature.PCP_BATCH_1M in features else 1 << 19) // geometry.page_size
    batch = max(min(pages // 1024, most) // 4, 1)
    return (1 << ((batch + batch // 2).bit_length() - 1)) - 1


def _check_fraction(fraction: int) -> None:
    if fraction != 0 and fraction < LEAST_FRACTION:
        raise BadMachineError(f"per-CPU fraction {fraction}: 0, or at least {LEAST_FRACTION}")


def pcp_sizes(
    managed: int,
    low_mark: int,
    nr_cpus: int,
    build: tuple[Geometry, BootFeature],
    *,
    fraction: int = 0,
) -> PcpSizes:
    """Sizes of a CPU's lists.

    Parameters
    ----------
    managed, low_mark : of the zone, at that moment
    nr_cpus : online CPUs of the zone's node (and the one that comes up); if it has none, all
    build : geometry and features of the kernel
    fraction : percpu_pagelist_high_fraction; 0: not set

    Raises
    ------
    BadMachineError
        A fraction from 1 to 7.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> pcp_sizes(112937, 825, 1, (Geometry(), boot_features("6.12")))
    PcpSizes(batch=31, high_min=825, high_max=14117)
    >>> pcp_sizes(3840, 27, 1, (Geometry(), boot_features("6.1")))
    PcpSizes(batch=1, high_min=27, high_max=27)

    Linux: zone_set_pageset_high_and_batch(), mm/page_alloc.c (6.1, 6.12)
    """
    _check_fraction(fraction)
    geometry, features = build
    batch = max(zone_batch(managed, geometry, features), 1)
    high_min = pcp_high(managed // fraction if fraction else low_mark, batch, nr_cpus)
    high_max = high_min
    if BootFeature.PCP_AUTO_TUNING in features and not fraction:
        high_max = pcp_high(managed // LEAST_FRACTION, batch, nr_cpus)
    return PcpSizes(batch, high_min, high_max)


def hot_cold_sizes(
    present: int, build: tuple[Geometry, BootFeature], *, fraction: int = 0, boot: bool = False
) -> HotColdSizes:
    """Sizes of a CPU's hot and cold list (2.6.24).

    Parameters
    ----------
    fraction : percpu_pagelist_fraction; 0: not set
    boot : the lists that NUMA kernels use until setup_per_cpu_pageset()

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> hot_cold_sizes(131072, (Geometry(), boot_features("2.6.24")))
    HotColdSizes(hot_high=186, hot_batch=31, cold_high=62, cold_batch=15)

    Linux: setup_pageset(), setup_pagelist_highmark(), mm/page_alloc.c (2.6.24)
    """
    _check_fraction(fraction)
    geometry, features = build
    batch = 0 if boot else zone_batch(present, geometry, features)
    sizes = pcp_sizes_of(batch)
    hot_high, hot_batch = sizes.high, sizes.batch
    if fraction and not boot:
        hot_high = present // fraction
        hot_batch = min(max(1, hot_high // 4), geometry.page_shift * 8)
    return HotColdSizes(hot_high, hot_batch, sizes.cold_high, sizes.cold_batch)
