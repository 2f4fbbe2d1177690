# SPDX-License-Identifier: GPL-2.0-or-later
"""One cache as /proc/slabinfo counts it.

Linux: struct slabinfo, mm/slab.h (6.1); s_show(), mm/slab.c (2.6.24)
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheRow:
    """Counts of a cache; sizes in bytes.

    Attributes
    ----------
    name : oldest name
    active_objs, num_objs : objects that are allocated as far as the kernel counts, and all
    objsize, objperslab, pagesperslab : stride, objects and frames of a slab
    limit, batchcount, sharedfactor : tunables (SLUB: 0)
    active_slabs, num_slabs, sharedavail : slabs in use, all; objects in shared arrays (SLUB: 0)
    statistics : numbers behind "globalstat" and "cpustat" of debug builds of 2.6.24
    """

    name: str
    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    limit: int = 0
    batchcount: int = 0
    sharedfactor: int = 0
    active_slabs: int = 0
    num_slabs: int = 0
    sharedavail: int = 0
    statistics: tuple[tuple[int, ...], ...] = ()

    @property
    def frames(self) -> int:
        """Frames of all slabs of the usual order."""
        return self.num_slabs * self.pagesperslab
