# SPDX-License-Identifier: GPL-2.0-or-later
"""Borders of the zone types, the same for all nodes.

Linux: arch_zone_lowest_possible_pfn[], free_area_init(), mm/page_alloc.c (6.1);
free_area_init_nodes(), mm/page_alloc.c (2.6.24)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from physmem.boot.features import BootFeature
from physmem.lib.errors import BadMachineError

MOVABLE = "Movable"
HIGHMEM = "HighMem"


@dataclass(frozen=True)
class ZoneLimits:
    """Lowest and highest frame that a zone of each type may have.

    Attributes
    ----------
    names : zone types, lowest first; the position is the zone index
    low, high : frames [low, high) of each type; 0, 0 for Movable

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> limits = zone_limits(("DMA", "DMA32", "Normal", "Movable"),
    ...     {"DMA": 4096, "DMA32": 131034, "Normal": 131034}, 1, boot_features("6.1"))
    >>> limits.low, limits.high, limits.movable_zone
    ((1, 4096, 131034, 0), (4096, 131034, 131034, 0), 1)
    """

    names: tuple[str, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def movable(self) -> int:
        """Index of Movable."""
        return self.names.index(MOVABLE)

    @property
    def normal(self) -> int:
        """Index of the highest zone that ordinary kernel requests may use."""
        return self.names.index("Normal")

    @property
    def highmem(self) -> int | None:
        """Index of HighMem, if the architecture has it."""
        return self.names.index(HIGHMEM) if HIGHMEM in self.names else None

    @property
    def movable_zone(self) -> int:
        """Index of the zone that Movable takes its frames from: the highest one with frames.

        Linux: find_usable_zone_for_movable(), mm/page_alloc.c (6.1)
        """
        for index in reversed(range(len(self.names))):
            if index != self.movable and self.high[index] > self.low[index]:
                return index
        raise BadMachineError("no zone can have a frame: the zone limits leave nothing")


def zone_limits(
    names: Sequence[str], max_zone_pfn: Mapping[str, int], first_pfn: int, features: BootFeature
) -> ZoneLimits:
    """Line the zone types up: each begins where the one below ends.

    Parameters
    ----------
    names : zone types of the architecture, lowest first, with Movable
    max_zone_pfn : frame at which each type ends; types that are not named end where they begin
    first_pfn : lowest frame of memory

    Raises
    ------
    BadMachineError
        No Movable or Normal among the names, or a limit for an unknown or movable zone.

    Linux: free_area_init(), mm/page_alloc.c (6.1)
    """
    names = tuple(names)
    unknown = [name for name in max_zone_pfn if name not in names or name == MOVABLE]
    if unknown:
        raise BadMachineError(f"zone limit for {unknown[0]!r}: the zones are {', '.join(names)}")
    if MOVABLE not in names or "Normal" not in names:
        raise BadMachineError(f"zones {', '.join(names)}: Normal and Movable are missing")
    low, high = [], []
    current = first_pfn
    first_is_raw = BootFeature.EARLY_NODE_MAP in features
    for index, name in enumerate(names):
        if name == MOVABLE:
            low.append(0)
            high.append(0)
            continue
        limit = max_zone_pfn.get(name, 0)
        # 2.6.24 lets the first zone end below its start: then all of it is empty.
        end = limit if first_is_raw and index == 0 else max(limit, current)
        low.append(current)
        high.append(end)
        current = end
    return ZoneLimits(names, tuple(low), tuple(high))
