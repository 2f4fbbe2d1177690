# SPDX-License-Identifier: GPL-2.0-or-later
"""What requests caused inside the allocator, as the kernel's tracepoints would tell it."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from physmem.mm.mmzone import NONE
from physmem.mm.state import table_types
from physmem.mm.tracepoint import EXTFRAG, PCPU_DRAIN, ZONE_LOCKED

LOST = "lost"
"""Name of the event that ends a list which the buffer had no room for; `argument` counts them."""
_NAMES = {
    ZONE_LOCKED: "mm_page_alloc_zone_locked",
    PCPU_DRAIN: "mm_page_pcpu_drain",
    EXTFRAG: "mm_page_alloc_extfrag",
}


class Consequence(NamedTuple):
    """One tracepoint; `migratetype` is that of the list, of an extfrag event the requested one.

    Examples
    --------
    >>> Consequence("mm_page_pcpu_drain", 4096, 0, 1, 0)
    mm_page_pcpu_drain: pfn=0x1000 order=0 migratetype=1
    """

    name: str
    pfn: int
    order: int
    migratetype: int
    argument: int

    @property
    def percpu_refill(self) -> bool:
        """Of mm_page_alloc_zone_locked: a block of an order and type that per-CPU lists hold."""
        return self.name == _NAMES[ZONE_LOCKED] and self.argument != 0

    @property
    def fallback_order(self) -> int:
        """Of mm_page_alloc_extfrag: order of the block that was taken."""
        return self.argument & 0xF

    @property
    def fallback_migratetype(self) -> int:
        """Of mm_page_alloc_extfrag: list that it was taken from."""
        return self.argument >> 4 & 7

    @property
    def change_ownership(self) -> bool:
        """Of mm_page_alloc_extfrag: the pageblock has the requested type now."""
        return self.argument >> 7 & 1 == 1

    def __repr__(self) -> str:
        if self.name == LOST:
            return f"lost: {self.argument} events"
        text = f"{self.name}: pfn={self.pfn:#x} "
        if self.name == _NAMES[EXTFRAG]:
            return (
                f"{text}alloc_order={self.order} fallback_order={self.fallback_order} "
                f"alloc_migratetype={self.migratetype} "
                f"fallback_migratetype={self.fallback_migratetype} "
                f"change_ownership={int(self.change_ownership)}"
            )
        text += f"order={self.order} migratetype={self.migratetype}"
        if self.name == _NAMES[ZONE_LOCKED]:
            text += f" percpu_refill={self.argument}"
        return text


def read_trace(trace: NDArray[Any], letters: str = "") -> list[Consequence]:
    """Take the consequences out of a trace buffer (see `mm.tracepoint`) and empty it.

    `letters` of the kernel's migratetypes: events have its numbers, the buffer those of the tables.
    """
    if not len(trace):
        return []
    emitted = int(trace[0])
    trace[0] = 0
    kept = min(emitted, len(trace) - 1)
    found = [
        Consequence(
            _NAMES[packed >> 24 & 0xFF],
            packed >> 32,
            packed >> 16 & 0xFF,
            packed >> 8 & 0xFF,
            packed & 0xFF,
        )
        for packed in trace[1 : kept + 1].tolist()
    ]
    types = table_types(letters)
    if types != sorted(types):
        found = [_renumbered(event, types) for event in found]
    if kept < emitted:
        found.append(Consequence(LOST, NONE, NONE, NONE, emitted - kept))
    return found


def _renumbered(event: Consequence, types: list[int]) -> Consequence:
    """Event with the kernel's own numbers of migratetypes."""
    argument = event.argument
    if event.name == _NAMES[EXTFRAG]:
        argument = argument & ~0x70 | types.index(event.fallback_migratetype) << 4
    return event._replace(migratetype=types.index(event.migratetype), argument=argument)
