# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that kernels differ in, one bit each: `Zone.features` and `Memory.features` hold the set.

A kernel (the function) asks for a bit, never for a version; `physmem.machine.profiles` says which
Linux has which bits, and which release or commit brought each.

Linux: mm/page_alloc.c (2.6.24, 6.1, 6.12)
"""

# -- ends of the free lists, and merging --
MERGE_TO_TAIL = 1 << 0  # a block whose pair may merge again goes to TAIL; else always to HEAD
MOVE_TO_TAIL = 1 << 1  # blocks that change their list go to its TAIL; else to its HEAD
TYPED_BARRIER = 1 << 2  # reserved and isolated pageblocks merge only among their own
LIST_TYPE_IS_BLOCK_TYPE = 1 << 3  # a free block is always on the list of its pageblock's type
FREES_READ_BLOCK_TYPE = 1 << 4  # a free asks the pageblock at that moment, no remembered type
ISOLATED_IS_FREE = 1 << 5  # blocks on the ISOLATE list count as free

# -- fallback between migratetypes --
CLAIM_OR_STEAL = 1 << 6  # claim whole pageblocks first, largest order first; then steal one block
TAKE_LARGEST = 1 << 7  # the largest block of a donor, its pageblock claimed when half of it is free

# -- reserves and watermarks --
RESERVE_BLOCKS = 1 << 8  # MIGRATE_RESERVE: pageblocks that serve when all else fails
HIGHATOMIC = 1 << 9  # pageblocks reserved for atomic requests above order 0
FREE_HIGHATOMIC = 1 << 10  # watermark tests take off what is free of them, not what is reserved
HALVING_WATERMARK = 1 << 11  # the mark halves per order; else one suitable free block is enough
HIGHATOMIC_WHOLE_BLOCKS = 1 << 21  # at most 1 % in whole pageblocks, none where that is less
CLASSZONE_IS_FIRST_ZONE = 1 << 12  # lowmem_reserve is indexed by the first zone of the list
BOOST = 1 << 13  # a fallback raises the watermarks for a while
BOOST_NEEDS_MIN_RESERVE = 1 << 14  # the exception from the boost asks for MIN_RESERVE, not a gfp
BELOW_HIGH = 1 << 15  # a zone that fell below its high mark drains its per-CPU lists sooner
NOFRAGMENT = 1 << 16  # requests avoid mixing mobilities in a pageblock at first

# -- per-CPU lists --
HOT_COLD = 1 << 17  # one list of order-0 frames per CPU, all types mixed, a hot and a cold one
PCP_AUTO_TUNING = 1 << 18  # high moves between high_min and high_max with the load
COUNT_AT_END = 1 << 19  # a refill corrects the zone's counter once, not block by block

# -- NUMA --
NODE_LOAD_LOCAL = 1 << 20  # the load of a node is forgotten for each local node's zonelist
ZONE_ORDER = 1 << 24  # zonelists may go zone by zone through all nodes; else node by node
LOCAL_GIVES_UP = 1 << 25  # a request for one node alone gets nothing from below the low mark

# -- the rest --
MANAGED_PAGES = 1 << 26  # zones know how many frames they manage; else sizes follow present_pages
BULK = 1 << 27  # many single frames with one request
