# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/buddyinfo: free chunks of each order, one line per populated zone.

The form never changed: 2.6.24 to 6.18 print the same. Frames on per-CPU lists are in none of the
counts.

Linux: frag_show_print(), mm/vmstat.c (6.1)
"""

import re
from collections.abc import Iterable

import msgspec

from physmem.lib.errors import BadInputError
from physmem.mm.state import State, ZoneState

_LINE = re.compile(r"Node\s+(\d+),\s+zone\s+(\S+)((?:\s+\d+)+)\s*")


class BuddyinfoRow(msgspec.Struct, frozen=True):
    """One line: `counts[order]` free chunks of 2**order frames."""

    node: int
    zone: str
    counts: tuple[int, ...]

    @property
    def free_frames(self) -> int:
        """Frames in all counted chunks."""
        return sum(count << order for order, count in enumerate(self.counts))


def free_counts(zone: ZoneState) -> tuple[int, ...]:
    """Free chunks of each order of one zone: the kernel's counter, else the lengths of its lists.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> free_counts(small_state().zones[0])
    (0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1)
    """
    return tuple(zone.nr_free or (sum(len(heads) for heads in lists) for lists in zone.free))


def buddyinfo_rows(state: State) -> list[BuddyinfoRow]:
    """Rows of /proc/buddyinfo for a state, in the order in which the kernel prints zones."""
    return [BuddyinfoRow(zone.node, zone.name, free_counts(zone)) for zone in state.zones]


def format_buddyinfo(rows: Iterable[BuddyinfoRow]) -> str:
    """Text of the rows, byte for byte as the kernel prints it (each line ends in a blank)."""
    lines = []
    for row in rows:
        counts = "".join(f"{count:6d} " for count in row.counts)
        lines.append(f"Node {row.node}, zone {row.zone:>8s} {counts}\n")
    return "".join(lines)


def buddyinfo(state: State) -> str:
    """Text of /proc/buddyinfo for a state.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> buddyinfo(small_state()).splitlines()[0][:52]
    'Node 0, zone      DMA      0      0      0      0   '
    """
    return format_buddyinfo(buddyinfo_rows(state))


def parse_buddyinfo(text: str, source: str = "buddyinfo") -> list[BuddyinfoRow]:
    """Read the text of /proc/buddyinfo; `source` names it in an error.

    Raises
    ------
    BadInputError
        No line at all, a line of another form, or lines with different numbers of orders.

    Examples
    --------
    >>> parse_buddyinfo("Node 0, zone      DMA      0      2 ")[0].counts
    (0, 2)
    """
    rows: list[BuddyinfoRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise BadInputError(
                f"{source}:{number}: not a line of /proc/buddyinfo: {line.strip()[:60]!r}; "
                "copy the file again"
            )
        node, zone, counts = match.groups()
        rows.append(BuddyinfoRow(int(node), zone, tuple(map(int, counts.split()))))
        if len(rows[-1].counts) != len(rows[0].counts):
            raise BadInputError(
                f"{source}:{number}: {len(rows[-1].counts)} orders, but {len(rows[0].counts)} in "
                "the first line; the text is cut off, copy the file again"
            )
    if not rows:
        raise BadInputError(f"{source}: empty; expected the text of /proc/buddyinfo")
    return rows
