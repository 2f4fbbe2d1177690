# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation flags: how far one attempt may go.

Linux: mm/internal.h (6.1.116 and later 6.1.y: the reserve-flag rework of v6.3)
"""

ALLOC_WMARK_MIN = 0
ALLOC_WMARK_LOW = 1
ALLOC_WMARK_HIGH = 2
ALLOC_WMARK_MASK = 3
ALLOC_NO_WATERMARKS = 0x004
ALLOC_OOM = 0x008
ALLOC_NON_BLOCK = 0x010
ALLOC_MIN_RESERVE = 0x020
ALLOC_CPUSET = 0x040
ALLOC_CMA = 0x080
ALLOC_NOFRAGMENT = 0x100
ALLOC_HIGHATOMIC = 0x200
ALLOC_KSWAPD = 0x800
ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM
ALLOC_PCP_BUSY = 0x1000
"""Ours: the per-CPU lists are locked by the code that was interrupted; go to the free lists."""
ALLOC_COLD = 0x2000
"""Ours: take a single frame off the cold per-CPU list (`features.HOT_COLD`)."""
