# SPDX-License-Identifier: GPL-2.0-or-later
"""No grouping by mobility, but with all free lists in place: what would that do to huge pages?"""

from physmem.machine.policy import policy
from physmem.mm.mmzone import MIGRATE_MOVABLE
from physmem.mm.policy import Zone


@policy
class EverythingMovable:
    """Serve every request from movable memory."""

    @staticmethod
    def choose_migratetype(zone: Zone, order: int, gfp: int, mt: int) -> int:  # noqa: ARG004 - hooks are called so
        """MOVABLE, whatever the flags say."""
        return MIGRATE_MOVABLE
