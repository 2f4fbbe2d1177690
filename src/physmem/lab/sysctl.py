# SPDX-License-Identifier: GPL-2.0-or-later
"""Sysctls of /proc/sys/vm on a booted machine: what an administrator writes there.

Linux: __setup_per_zone_wmarks(), setup_per_zone_lowmem_reserve(), zone_highsize(),
zone_set_pageset_high_and_batch(), mm/page_alloc.c (6.1, 6.12); setup_per_zone_pages_min(),
setup_pagelist_highmark() (2.6.24)
"""

from collections.abc import Mapping
from typing import Any

from physmem.boot.booted import BootedMemory
from physmem.boot.features import BootFeature, boot_features
from physmem.lib.errors import BadInputError
from physmem.machine.machine import Machine
from physmem.machine.sizing import pcp_high

_HIGHMEM_LEAST = (32, 128)


def apply_sysctls(
    machine: Machine, memory: BootedMemory, values: Mapping[str, tuple[int, ...]]
) -> None:
    """Write sysctls of a machine that has just booted.

    Raises
    ------
    BadInputError
        A value that the kernel would refuse.
    """
    features = boot_features(memory.kernel)
    scale = values.get("watermark_scale_factor", (10,))[0]
    if not 1 <= scale <= 3000:
        raise BadInputError(f"watermark_scale_factor={scale}: 1 to 3000")
    if "watermark_boost_factor" in values:
        machine.tables.zones["watermark_boost_factor"] = values["watermark_boost_factor"][0]
    if "min_free_kbytes" in values or "watermark_scale_factor" in values:
        kbytes = values.get("min_free_kbytes", (memory.min_free_kbytes,))[0]
        _watermarks(machine, memory, kbytes, scale, features)
    if "lowmem_reserve_ratio" in values:
        _reserve(machine, memory, values["lowmem_reserve_ratio"])
    fraction = values.get("percpu_pagelist_high_fraction", (0,))[0]
    if 0 < fraction < 8:
        raise BadInputError(f"percpu_pagelist_high_fraction={fraction}: 0, or at least 8")
    if fraction or "min_free_kbytes" in values or "watermark_scale_factor" in values:
        _pcp(machine, fraction, features)


def _watermarks(
    machine: Machine, memory: BootedMemory, kbytes: int, scale: int, features: BootFeature
) -> None:
    names = machine.layout.zone_names
    zones = machine.tables.zones
    total = int(zones["managed_pages"].sum()) << (memory.page_shift - 10)
    if kbytes > total:
        raise BadInputError(f"min_free_kbytes={kbytes}: the machine has {total} KiB")
    unlike = [_unlike(names[int(zone["zone_idx"])], features) for zone in zones]
    lowmem = sum(int(z["managed_pages"]) for z, high in zip(zones, unlike, strict=True) if not high)
    wanted = kbytes << 10 >> memory.page_shift
    for zone, high in zip(zones, unlike, strict=True):
        pages = int(zone["managed_pages"])
        share = wanted * pages // lowmem if lowmem else 0
        low, most = _HIGHMEM_LEAST
        least = min(max(pages // 1024, low), most) if high else share
        if BootFeature.WATERMARK_SCALE in features:
            step = max(share // 4, pages * scale // 10000)
            zone["watermark"] = [least + level * step for level in range(4)]
        else:
            zone["watermark"] = [least, least + share // 4, least + share // 2, 0]
        zone["watermark_boost"] = 0


def _unlike(name: str, features: BootFeature) -> bool:
    """Zones whose watermarks do not follow min_free_kbytes."""
    return name == "HighMem" or (name == "Movable" and BootFeature.MOVABLE_NOT_LOWMEM in features)


def _reserve(machine: Machine, memory: BootedMemory, ratios: tuple[int, ...]) -> None:
    """Frames that lower zones keep from requests that could use higher ones."""
    nr_zones = len(machine.layout.zone_names)
    managed: dict[tuple[int, int], int] = {
        (zone.node, zone.index): zone.managed_pages for zone in memory.zones
    }
    for zone in machine.tables.zones:
        node, lower = int(zone["node"]), int(zone["zone_idx"])
        ratio = ratios[lower] if lower < len(ratios) else 0
        above = 0
        row: Any = zone["lowmem_reserve"]
        for higher in range(lower + 1, nr_zones):
            above += managed.get((node, higher), 0)
            row[higher] = above // ratio if ratio else 0


def _pcp(machine: Machine, fraction: int, features: BootFeature) -> None:
    """Sizes of per-CPU lists, which follow the low watermark or the fraction."""
    tables, layout = machine.tables, machine.layout
    for number, zone in enumerate(tables.zones):
        local = layout.cpu_node.count(int(zone["node"])) or layout.nr_cpus
        pagesets = tables.pageset[number * layout.nr_cpus : (number + 1) * layout.nr_cpus]
        managed, batch = int(zone["managed_pages"]), int(pagesets["batch"][0])
        if BootFeature.MEMBLOCK not in features:
            if fraction:
                pagesets["high"] = managed // fraction
                pagesets["batch"] = min(max(1, managed // fraction // 4), layout.page_shift * 8)
            continue
        share = managed // fraction if fraction else int(zone["watermark"][1])
        high = pcp_high(share, batch, local)
        if BootFeature.PCP_AUTO_TUNING in features:
            pagesets["high_min"] = high
            pagesets["high_max"] = high if fraction else pcp_high(managed // 8, batch, local)
        else:
            pagesets["high"] = high
