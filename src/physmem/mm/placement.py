# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that an experimenter sets, one bit each: `Zone.placement` and `Memory.placement` hold them.

No bit: all is as the kernel does it. `features` are what kernels differ in; these are what no
kernel does, or only at somebody's wish. Kernels (the functions) test all bits that concern them at
once, so that a machine without any pays for one test.

Linux: mm/shuffle.c (6.1); vm.defrag_mode, mm/page_alloc.c (6.15)
"""

ADDRESS_ORDER = 1 << 0  # lists are sorted: the lowest free block first
LIFO = 1 << 1  # what becomes free goes to HEAD, always
FIFO = 1 << 2  # what becomes free goes to TAIL, always
SHUFFLED = 1 << 3  # free blocks of the largest order go to a random end
TREES = 1 << 4  # each CPU fills one tree of pageblocks after the other
CONFINED = 1 << 5  # unmovable and reclaimable memory within [confined_start, confined_end) only
NO_FALLBACK = 1 << 6  # nothing from other types
DEFRAG = 1 << 7  # whole pageblocks only, until a request would fail
NO_HIGHATOMIC = 1 << 8  # no pageblock is set aside for atomic requests

# -- a policy's functions: bit HOOKED << hook says that `Zone.hook[hook]` is set --
HOOK_MIGRATETYPE = 0
HOOK_BLOCK = 1
HOOK_FALLBACK = 2
HOOK_LIST_END = 3
HOOK_CLAIM = 4
HOOKED = 1 << 16
HOOKED_MIGRATETYPE = HOOKED << HOOK_MIGRATETYPE
HOOKED_BLOCK = HOOKED << HOOK_BLOCK
HOOKED_FALLBACK = HOOKED << HOOK_FALLBACK
HOOKED_LIST_END = HOOKED << HOOK_LIST_END
HOOKED_CLAIM = HOOKED << HOOK_CLAIM

# -- what is asked at once --
ON_LISTS = ADDRESS_ORDER | LIFO | FIFO | TREES
ON_FREE = ON_LISTS | SHUFFLED | HOOKED_LIST_END
ON_PICK = ON_LISTS | HOOKED_BLOCK
ON_FALLBACK = CONFINED | NO_FALLBACK | HOOKED_FALLBACK

BUILTIN = -2
"""No block, but the advice to go on as the kernel does."""
