# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at a machine: snapshots, /proc texts, frames in words, differences."""

from typing import TYPE_CHECKING, Any

import numpy as np

from physmem.machine.base import MachineBase
from physmem.machine.describe import frame_state
from physmem.machine.load import read_tables
from physmem.mm.compare import compare_states
from physmem.mm.mmzone import HEAD_IN_USE, PG_IN_USE, PG_MOVABLE
from physmem.mm.state import State

if TYPE_CHECKING:
    import pyarrow as pa


class Reading(MachineBase):
    """What can be read of a machine; nothing here changes it."""

    @property
    def nr_free_pages(self) -> int:
        """Frames on the free lists of all zones (those on per-CPU lists are not among them)."""
        return int(self.tables.zones["nr_free_pages"].sum())

    @property
    def memory_use(self) -> int:
        """Bytes of address space that the tables take; parts never touched need no RAM."""
        return self.tables.nbytes

    @property
    def bytes_per_page(self) -> float:
        """Bytes of tables per simulated frame: 16 for the frame itself, the rest shared."""
        return self.memory_use / int(self.tables.zones["spanned_pages"].sum())

    def snapshot(self) -> State:
        """State of all lists as plain data, equal in form to a recorded one."""
        return read_tables(self.tables, self.layout.zone_names, self.nr_migratetypes)

    def frame(self, pfn: int) -> str:
        """What a frame is now, in words.

        Examples
        --------
        >>> Machine.build("64MiB").frame(0x1001)
        'free, in the block of order 10 at 0x1000 on the Movable list of node 0, zone DMA32'
        """
        number = self._integer("pfn", pfn)
        state = frame_state(self.tables, self.layout.zone_names, number)
        owner = self.origin.owner(number)
        if owner is None or not state.startswith("in use since"):
            return state
        return state.replace("in use since the state was loaded", f"reserved since boot ({owner})")

    def buddyinfo(self) -> str:
        """Text of /proc/buddyinfo, byte for byte as the kernel prints it."""
        from physmem.views.buddyinfo import buddyinfo

        return buddyinfo(self.snapshot())

    def pagetypeinfo(self) -> str:
        """Text of /proc/pagetypeinfo, byte for byte as the kernel prints it."""
        from physmem.views.pagetypeinfo import pagetypeinfo

        return pagetypeinfo(self.snapshot())

    def zoneinfo(self) -> str:
        """Text of /proc/zoneinfo in the form of the machine's Linux; unknown counters are 0."""
        from physmem.views.zoneinfo import zoneinfo

        layout = self.layout
        return zoneinfo(
            self.snapshot(),
            layout.zone_names,
            kernel=layout.kernel,
            numa="HighMem" not in layout.zone_names,
            page_shift=layout.page_shift,
            nodes=layout.cpu_node,
        )

    def free_blocks(self) -> "pa.Table":
        """Every free block as a row of an Arrow table.

        Columns: node, zone, order, migratetype, position on its list (0 is the head), pfn.
        """
        from physmem.views.table import to_arrow

        return to_arrow(self.snapshot(), "chunks")

    # -- comparing --------------------------------------------------------------------------------

    def differences(self, other: "Reading") -> tuple[str, ...]:
        """Lines about what differs, at most some twenty; empty when the machines are equal."""
        if self.layout != other.layout:
            return (f"layout: {self.layout}, the other has {other.layout}",)
        mine, theirs = self.snapshot(), other.snapshot()
        lines = list(compare_states(mine, theirs).differences)
        if not lines and mine != theirs:
            lines += [
                f"Node {a.node}, zone {a.name}, {field}: {getattr(a, field)}, {getattr(b, field)}"
                for a, b in zip(mine.zones, theirs.zones, strict=True)
                for field in a.__struct_fields__
                if getattr(a, field) != getattr(b, field)
            ]
        if not lines:
            pfns = np.flatnonzero(self._use() != other._use())  # noqa: SLF001 - the same class
            if len(pfns):
                pfn = int(pfns[0])
                lines.append(
                    f"frame {pfn:#x}: {self.frame(pfn)}; {other.frame(pfn)}"
                    f" ({len(pfns)} frames differ in their use)"
                )
        return tuple(lines[:20])

    def __eq__(self, other: object) -> bool:
        """Equal lists, counters and sizes, and the same frames in use in the same blocks."""
        if not isinstance(other, Reading):
            return NotImplemented
        return not self.differences(other)

    __hash__ = None  # type: ignore[assignment]  # it changes with every request

    def _use(self) -> Any:
        """For each frame: flags that say how it is used, and order of the block it begins."""
        frames = self.tables.mem_map[: int(self.tables.memory[0]["max_pfn"])]
        use = frames["flags"] & (PG_IN_USE | PG_MOVABLE)
        marks = frames["order"]
        return use.astype(np.uint16) << 8 | np.where(marks & HEAD_IN_USE, marks, 0)

    def __repr__(self) -> str:
        from physmem.views.blocks import size_text

        zones = self.tables.zones
        # 2.6.24 takes the memory map off what it calls present, and frees more than that
        frames = int(np.maximum(zones["present_pages"], zones["managed_pages"]).sum())
        size = size_text(frames << (self.layout.page_shift - 12))
        nodes = len(set(zones["node"].tolist()))
        parts = [
            f"{number} {word}{'s' if number != 1 else ''}"
            for number, word in ((len(zones), "zone"), (nodes, "node"), (self._nr_cpus, "cpu"))
        ]
        return (
            f"Machine({size} in {parts[0]}, {parts[1]}, {parts[2]}: "
            f"{self.nr_free_pages} of {frames} frames free)"
        )

    def _repr_html_(self) -> str:
        from physmem.views.html import state_html

        return state_html(self.snapshot())
