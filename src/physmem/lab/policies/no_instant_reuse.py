# SPDX-License-Identifier: GPL-2.0-or-later
"""A block that has just become free is left alone for a while, so that its buddy may follow."""

from physmem.machine.policy import policy
from physmem.mm.mmzone import NONE
from physmem.mm.policy import BUILTIN, HEAD, Zone, first_free, next_free

RECENT = 64
"""Blocks that are left alone: their frames are `zone.scratch[1:]`, a ring; [0] counts frees."""


@policy
class NoInstantReuse:
    """Skip the blocks of the last frees, as long as there is another one of the same size."""

    @staticmethod
    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:  # noqa: ARG004 - hooks are called so
        """Note what becomes free."""
        zone.scratch[1 + zone.scratch[0] % RECENT] = pfn + 1
        zone.scratch[0] += 1
        return HEAD

    @staticmethod
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:  # noqa: ARG004 - hooks are called so
        """First block of the smallest fitting order that is not among the last ones."""
        for current in range(order, zone.max_order + 1):
            pfn = first_free(zone, current, mt)
            for _ in range(RECENT):
                if pfn == NONE:
                    break
                recent = False
                for slot in range(1, RECENT + 1):
                    recent |= zone.scratch[slot] == pfn + 1
                if not recent:
                    return pfn
                pfn = next_free(zone, pfn)
        return BUILTIN
