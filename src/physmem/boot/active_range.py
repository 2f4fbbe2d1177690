# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in which Linux 2.6.24 notes which frames of which node are memory.

Linux: early_node_map[], add_active_range(), mm/page_alloc.c (2.6.24)
"""

from physmem.boot.ranges import MemoryRange
from physmem.firmware.numa_bootmem import grow_range
from physmem.lib.errors import BadMachineError


def max_active_regions(max_numnodes: int) -> int:
    """Entries of the table.

    Examples
    --------
    >>> max_active_regions(1), max_active_regions(64)
    (256, 3200)

    Linux: MAX_ACTIVE_REGIONS, mm/page_alloc.c (2.6.24)
    """
    return max_numnodes * 50 if max_numnodes >= 32 else 256


class EarlyNodeMap:
    """The table, with what the kernel logs while it grows.

    Entries of one node may come to touch or overlap: they are never merged with each other.

    Attributes
    ----------
    capacity : entries that fit
    lines : the log

    Examples
    --------
    >>> table = EarlyNodeMap(capacity=256)
    >>> table.add(0, 0, 159)
    >>> table.add(0, 256, 1000)
    >>> table.add(0, 900, 2000)
    >>> [(r.start_pfn, r.end_pfn) for r in table.sorted()]
    [(0, 159), (256, 2000)]
    >>> table.early_pfn_to_nid(300), table.early_pfn_to_nid(200)
    (0, 0)
    """

    def __init__(self, *, capacity: int = 256) -> None:
        self.capacity = capacity
        self.lines: list[str] = []
        self._entries: list[MemoryRange] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, nid: int, start_pfn: int, end_pfn: int) -> None:
        """Note a range: the first entry of the node that it touches takes it in.

        Raises
        ------
        BadMachineError
            Not a range of frames.

        Linux: add_active_range(), mm/page_alloc.c (2.6.24)
        """
        if not 0 <= start_pfn <= end_pfn or nid < 0:
            span = f"[{start_pfn:#x}, {end_pfn:#x})"
            raise BadMachineError(f"frames {span} of node {nid}: not a range of frames")
        self.lines.append(
            f"Entering add_active_range({nid}, {start_pfn}, {end_pfn}) "
            f"{len(self._entries)} entries of {self.capacity} used"
        )
        for index, old in enumerate(self._entries):
            known = old.start_pfn, old.end_pfn
            grown = grow_range(known, start_pfn, end_pfn) if old.nid == nid else None
            if grown is not None:
                self._entries[index] = MemoryRange(*grown, nid)
                return
        if len(self._entries) >= self.capacity:
            self.lines.append(f"More than {self.capacity} memory regions, truncating")
            return
        self._entries.append(MemoryRange(start_pfn, end_pfn, nid))

    def shrink(self, nid: int, old_end_pfn: int, new_end_pfn: int) -> None:
        """Move the end of the first entry of the node that ends at `old_end_pfn`.

        Linux: shrink_active_range(), mm/page_alloc.c (2.6.24)
        """
        for index, old in enumerate(self._entries):
            if old.nid == nid and old.end_pfn == old_end_pfn:
                self._entries[index] = MemoryRange(old.start_pfn, new_end_pfn, nid)
                return

    def clear(self) -> None:
        """Forget all entries: another source of node information is tried.

        Linux: remove_all_active_ranges(), mm/page_alloc.c (2.6.24)
        """
        self._entries.clear()

    def sorted(self) -> tuple[MemoryRange, ...]:
        """Return the entries by their first frame.

        Linux: sort_node_map(), mm/page_alloc.c (2.6.24)
        """
        return tuple(sorted(self._entries, key=lambda entry: entry.start_pfn))

    def early_pfn_to_nid(self, pfn: int) -> int:
        """Node of a frame; 0 when no entry has it.

        Linux: early_pfn_to_nid(), mm/page_alloc.c (2.6.24)
        """
        for entry in self._entries:
            if entry.start_pfn <= pfn < entry.end_pfn:
                return entry.nid
        return 0

    def __repr__(self) -> str:
        return f"EarlyNodeMap({len(self._entries)} of {self.capacity} entries)"


def active_range_lines(entries: tuple[MemoryRange, ...]) -> list[str]:
    r"""Lines that tell the sorted table.

    Examples
    --------
    >>> print("\n".join(active_range_lines((MemoryRange(0, 159),))))
    early_node_map[1] active PFN ranges
        0:        0 ->      159

    Linux: free_area_init_nodes(), mm/page_alloc.c (2.6.24)
    """
    lines = [f"early_node_map[{len(entries)}] active PFN ranges"]
    lines += [f"  {entry.nid:3d}: {entry.start_pfn:8d} -> {entry.end_pfn:8d}" for entry in entries]
    return lines
