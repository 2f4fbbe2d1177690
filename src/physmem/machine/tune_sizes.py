# SPDX-License-Identifier: GPL-2.0-or-later
"""New sizes for a machine that is there: watermarks and per-CPU lists, as its sysctls set them.

Linux: min_free_kbytes_sysctl_handler(), watermark_scale_factor_sysctl_handler(),
__setup_per_zone_wmarks(), zone_pcp_update(), mm/page_alloc.c (6.1); setup_per_zone_pages_min()
(2.6.24)
"""

from typing import Any

import numpy as np

from physmem.lib.errors import TuningError
from physmem.machine import present_sizes, sizing
from physmem.machine.knobs import Tuning
from physmem.machine.layout import Layout
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables
from physmem.mm.features import BOOST, HOT_COLD, MANAGED_PAGES, PCP_AUTO_TUNING
from physmem.mm.mmzone import WMARK_HIGH, WMARK_LOW, WMARK_MIN

_PCP_STEADY = 4
"""Least `high` over `batch` of a per-CPU list. Linux: zone_highsize(), mm/page_alloc.c (6.1)"""


def set_sizes(tables: Tables, layout: Layout, tuning: Tuning) -> None:
    """Apply the knobs of watermarks, then those of per-CPU lists (drained before).

    Raises
    ------
    TuningError
        The machine's kernel has no such setting, or more is to be kept free than there is.
    """
    features = feature_bits(layout.kernel)
    if tuning.watermark_boost_factor is not None:
        if not features & BOOST:
            raise TuningError(f"watermark_boost_factor: Linux {layout.kernel} boosts no watermark")
        tables.zones["watermark_boost_factor"] = tuning.watermark_boost_factor
    if tuning.watermark_scale_factor is not None and not features & MANAGED_PAGES:
        raise TuningError(f"watermark_scale_factor: Linux {layout.kernel} does not have it")
    if tuning.min_free_kbytes is not None or tuning.watermark_scale_factor is not None:
        _set_watermarks(tables, layout, tuning)
    if tuning.pcp is not None or tuning.batch is not None:
        _set_pcp(tables, layout, tuning)


# ---- watermarks ----------------------------------------------------------------------------------


def _frames(tables: Tables, layout: Layout) -> Any:
    """Frames of each zone that sizes follow."""
    managed = feature_bits(layout.kernel) & MANAGED_PAGES
    return tables.zones["managed_pages" if managed else "present_pages"]


def _is_extra(tables: Tables, layout: Layout) -> Any:
    """Which zones count as high memory, which has no share of min_free_kbytes."""
    names = np.array(layout.zone_names)[tables.zones["zone_idx"]]
    features = feature_bits(layout.kernel)
    extra = names == "HighMem"
    # kernels since 6.7 leave Movable out; before, it is what the highest zone is
    if features & PCP_AUTO_TUNING or "HighMem" in layout.zone_names:
        extra |= names == "Movable"
    return extra


def _set_watermarks(tables: Tables, layout: Layout, tuning: Tuning) -> None:
    frames, extra = _frames(tables, layout), _is_extra(tables, layout)
    shift = layout.page_shift - 10
    lowmem = int(frames[~extra].sum())
    wanted = tuning.min_free_kbytes
    if wanted is None:  # what the present marks were made of, to a frame or two
        own = tables.zones["watermark"][:, WMARK_MIN][~extra]
        wanted = int(own.sum() + len(own) - 1) << shift
    elif wanted == "auto":
        wanted = _auto(tables, layout, tuning)
    elif wanted >> shift > lowmem:
        raise TuningError(f"min_free_kbytes={wanted}: the machine has {lowmem << shift} KiB")
    _write(tables, layout, tuning, wanted)


def _write(tables: Tables, layout: Layout, tuning: Tuning, kbytes: int) -> None:
    frames, extra = _frames(tables, layout), _is_extra(tables, layout)
    lowmem = int(frames[~extra].sum())
    kib = kbytes >> (layout.page_shift - 10) << 2  # the formulas are those of 4 KiB frames
    scale = tuning.watermark_scale_factor or sizing.WATERMARK_SCALE_FACTOR
    managed = feature_bits(layout.kernel) & MANAGED_PAGES
    for number, pages in enumerate(frames.tolist()):
        highmem = bool(extra[number])
        if managed:
            marks = sizing.watermarks(kib, pages, lowmem, highmem=highmem, scale=scale)
        else:
            marks = present_sizes.watermarks(kib, pages, lowmem, highmem=highmem)
        tables.zones[number]["watermark"][: len(marks)] = marks
    tables.zones["watermark_boost"] = 0


def _auto(tables: Tables, layout: Layout, tuning: Tuning) -> int:
    """min_free_kbytes as a kernel works it out with the memory that there is now."""
    frames = _frames(tables, layout)
    normal = tables.zones["zone_idx"] <= layout.zone_idx("Normal")
    total = int(frames[normal].sum())
    shift = layout.page_shift - 10
    if not feature_bits(layout.kernel) & MANAGED_PAGES:
        return present_sizes.min_free_kbytes(total << shift >> 2)
    kbytes = sizing.min_free_kbytes(total << shift >> 2)
    if layout.thp:
        _write(tables, layout, tuning, kbytes)
        marks = tables.zones["watermark"][:, WMARK_HIGH]
        free = int(np.maximum(frames - marks, 0)[normal].sum())
        order = int(tables.memory[0]["pageblock_order"])
        least = 512 << (20 - layout.page_shift)
        if total >= least:
            blocks = (int(normal.sum()) * (2 + 9)) << order
            kbytes = max(kbytes, min(blocks, free // 20) << shift)
    return kbytes


# ---- per-CPU lists -------------------------------------------------------------------------------


def _set_pcp(tables: Tables, layout: Layout, tuning: Tuning) -> None:
    features = feature_bits(layout.kernel)
    frames = _frames(tables, layout).tolist()
    for number, zone in enumerate(tables.zones):
        records = tables.pageset[number * layout.nr_cpus : (number + 1) * layout.nr_cpus]
        batch = tuning.batch or _batch(frames[number], features)
        most = None
        if tuning.pcp == 0:
            batch, high = 1, 0
        elif tuning.pcp is None or tuning.pcp == "auto":
            local = layout.cpu_node.count(int(zone["node"])) or layout.nr_cpus
            if features & HOT_COLD:
                high = present_sizes.pcp_sizes(frames[number]).high
                if tuning.batch is not None:
                    high = 6 * batch
            else:
                high = sizing.pcp_high(int(zone["watermark"][WMARK_LOW]), batch, local)
                most = sizing.pcp_high(frames[number] // 8, batch, local)
        else:
            high = tuning.pcp
            if tuning.batch is None:
                batch = max(min(batch, high // _PCP_STEADY), 1)
            high = max(high, _PCP_STEADY * batch)
        _write_pcp(records, features, batch, high, high if most is None else most)


def _batch(frames: int, features: int) -> int:
    if features & HOT_COLD:
        return present_sizes.pcp_sizes(frames).batch
    return sizing.pcp_batch(frames)


def _write_pcp(records: Any, features: int, batch: int, high: int, most: int) -> None:
    records["batch"] = batch
    records["high"] = high
    records["free_factor"] = 0
    if features & HOT_COLD:
        records["cold_high"] = high // 3
        records["cold_batch"] = max(batch // 2, 1)
    if features & PCP_AUTO_TUNING:
        records["high"] = 0
        records["high_min"] = high
        records["high_max"] = max(most, high)
        records["alloc_factor"] = 0
        records["free_count"] = 0
        records["flags"] = 0
