# SPDX-License-Identifier: GPL-2.0-or-later
"""The consequences of a request, as the kernel's tracepoints tell them, packed into one integer.

Linux: include/trace/events/kmem.h (6.1)

    bits 32..62 pfn | 24..31 kind | 16..23 order | 8..15 migratetype | 0..7 argument

The argument is `percpu_refill` of mm_page_alloc_zone_locked; for mm_page_alloc_extfrag it is
fallback_order | fallback_migratetype << 4 | change_ownership << 7. The buffer's first element
counts the events behind it; a full buffer keeps counting, so that nothing is lost unseen.
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import Zone

ZONE_LOCKED = 4
PCPU_DRAIN = 5
EXTFRAG = 6


@kernel
def emit(zone: Zone, kind: int, pfn: int, order: int, mt: int, argument: int) -> None:
    """Record one tracepoint, when tracing is on."""
    size = len(zone.trace)
    if size == 0:
        return
    at = zone.trace[0] + 1
    zone.trace[0] = at
    if at < size:
        zone.trace[at] = pfn << 32 | kind << 24 | order << 16 | mt << 8 | argument


def unpack(event: int) -> tuple[int, int, int, int, int]:
    """(kind, pfn, order, migratetype, argument) of a packed tracepoint.

    Examples
    --------
    >>> unpack(7 << 32 | PCPU_DRAIN << 24 | 1 << 8)
    (5, 7, 0, 1, 0)
    """
    return event >> 24 & 0xFF, event >> 32, event >> 16 & 0xFF, event >> 8 & 0xFF, event & 0xFF
