# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest block of another type serves, so that large ones stay whole."""

from physmem.machine.policy import policy
from physmem.mm.mmzone import MIGRATE_PCPTYPES, NONE
from physmem.mm.policy import Zone, first_free


@policy
class SmallestFirst:
    """Fall back on the smallest block that fits, and never take a pageblock over for it."""

    @staticmethod
    def choose_fallback(zone: Zone, order: int, mt: int, flags: int) -> int:  # noqa: ARG004 - hooks are called so
        """First block of the smallest order that has one of another type."""
        for current in range(order, zone.max_order + 1):
            for donor in range(MIGRATE_PCPTYPES):
                if donor != mt and first_free(zone, current, donor) != NONE:
                    return first_free(zone, current, donor)
        return NONE

    @staticmethod
    def claim_block(zone: Zone, pfn: int, order: int, mt: int) -> int:  # noqa: ARG004 - hooks are called so
        """Leave the pageblock to its type."""
        return 0
