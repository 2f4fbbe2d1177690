# SPDX-License-Identifier: GPL-2.0-or-later
"""The bits of a request's flags that the allocator itself looks at.

Kernels know only these values; `GfpTable.internal` makes them of another Linux's bits.

Linux: include/linux/gfp_types.h (6.1; the same values in 6.12, where bit 0x200 is unused)
"""

GFP_DMA_BIT = 0x01
GFP_HIGHMEM_BIT = 0x02
GFP_DMA32_BIT = 0x04
GFP_MOVABLE_BIT = 0x08
GFP_RECLAIMABLE_BIT = 0x10
GFP_HIGH_BIT = 0x20
GFP_ATOMIC_BIT = 0x200
GFP_DIRECT_RECLAIM_BIT = 0x400
GFP_KSWAPD_RECLAIM_BIT = 0x800
GFP_NOWARN_BIT = 0x2000
GFP_RETRY_MAYFAIL_BIT = 0x4000
GFP_NORETRY_BIT = 0x10000
GFP_MEMALLOC_BIT = 0x20000
GFP_NOMEMALLOC_BIT = 0x80000
GFP_THISNODE_BIT = 0x200000
GFP_ACCOUNT_BIT = 0x400000
GFP_COLD_BIT = 1 << 32
"""Ours: __GFP_COLD of 2.6.24, which 6.1 has no bit for."""
GFP_LOCAL_ONLY = GFP_THISNODE_BIT | GFP_NOWARN_BIT | GFP_NORETRY_BIT
"""The composite GFP_THISNODE of 2.6.24."""
GFP_ZONEMASK = 0x0F
GFP_MOVABLE_MASK = 0x18
GFP_MOVABLE_SHIFT = 3
