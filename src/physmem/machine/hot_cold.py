# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot and cold per-CPU lists between a state and the tables: sizes, and what frames remember.

Linux: struct per_cpu_pageset, include/linux/mmzone.h (2.6.24)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadStateError
from physmem.machine.tables import Tables
from physmem.mm.hot_cold import COLD, NR_HOT_COLD_LISTS
from physmem.mm.state import PcpState, ZoneState, table_types


def fill_cold(record: Any, zone: ZoneState, pcp: PcpState) -> None:
    """Sizes and count of the cold list; by default a third and a half of the hot one's.

    Raises
    ------
    BadStateError
        More than two lists, or impossible sizes.
    """
    where = f"zone {zone.name}, cpu {pcp.cpu}"
    if len(pcp.lists) > NR_HOT_COLD_LISTS:
        raise BadStateError(
            f"{where}: {len(pcp.lists)} per-CPU lists, this kernel has a hot and a cold"
        )
    high, batch = pcp.cold_high, pcp.cold_batch
    record["cold_high"] = pcp.high // 3 if high is None else high
    record["cold_batch"] = max(pcp.batch // 2, 1) if batch is None else batch
    if int(record["cold_high"]) < 0 or int(record["cold_batch"]) < 1:
        raise BadStateError(f"{where}: cold_batch {batch}, cold_high {high} are impossible")
    record["cold_count"] = len(pcp.lists[COLD]) if len(pcp.lists) > COLD else 0


def remembered(
    zone: ZoneState, pcp: PcpState, pindex: int, blocks: NDArray[np.uint8], letters: str
) -> NDArray[np.uint8]:
    """Types that the frames of a list remember; `blocks`: those of their pageblocks, the default.

    Raises
    ------
    BadStateError
        Not one known letter for each frame.
    """
    if pcp.types is None:
        return blocks
    text = pcp.types[pindex] if pindex < len(pcp.types) else ""
    if len(text) != len(blocks) or not set(text) <= set(letters):
        raise BadStateError(
            f"zone {zone.name}, cpu {pcp.cpu}: the frames on the per-CPU list {pindex} remember"
            f" {text[:40]!r}; one letter of {letters} for each of {len(blocks)} frames is needed"
        )
    numbers = dict(zip(letters, table_types(letters), strict=True))
    return np.array([numbers[letter] for letter in text], np.uint8)


def read_cold(tables: Tables, record: Any, lists: list[list[int]], letters: str) -> dict[str, Any]:
    """Fields of a `PcpState` that only a hot and a cold list have."""
    shown = np.zeros(256, np.uint8)
    shown[table_types(letters)] = np.frombuffer(letters.encode(), np.uint8)
    marks = [tables.mem_map["mt"][np.array(pfns, np.int64)] for pfns in lists]
    return {
        "cold_high": int(record["cold_high"]),
        "cold_batch": int(record["cold_batch"]),
        "types": [shown[mts].tobytes().decode() for mts in marks],
    }
