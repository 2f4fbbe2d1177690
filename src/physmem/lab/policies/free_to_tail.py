# SPDX-License-Identifier: GPL-2.0-or-later
"""What is freed goes to TAIL: it has the most time to find its buddy before it is used again."""

from physmem.machine.policy import policy
from physmem.mm.policy import TAIL, Zone


@policy
class FreeToTail:
    """Reuse free blocks in the order in which they became free."""

    @staticmethod
    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:  # noqa: ARG004 - hooks are called so
        """TAIL, always."""
        return TAIL
