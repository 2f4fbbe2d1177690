# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/pagetypeinfo: free chunks of each order and migratetype, and pageblocks of each type.

The kernel prints one table per node, nodes one after another. 5 migratetypes without CMA, 6 with.

Linux: pagetypeinfo_show(), mm/vmstat.c (6.1)
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from physmem.lib.errors import BadInputError
from physmem.mm.state import BLOCK_LETTERS_RESERVE, State, ZoneState

LIST_CAP = 100_000
"""Where the kernel stops to count a list: it holds the zone lock while it walks."""

_FREE_TITLE = "Free pages count per migrate type at order"
_BLOCKS_TITLE = "Number of blocks type"
_MIXED_TITLE = "Number of mixed blocks"
_FREE_ROW = re.compile(r"Node\s+(\d+), zone\s+(\S+), type\s+(\S+)((?:\s+>?\d+)+)")
_COUNTS_ROW = re.compile(r"Node\s+(\d+), zone\s+(\S+)((?:\s+\d+)+)")


class FreeRow(msgspec.Struct, frozen=True):
    """Free chunks of one migratetype: `counts[order]`; a True in `capped` means "or more"."""

    zone: str
    type: str
    counts: tuple[int, ...]
    capped: tuple[bool, ...]


class BlocksRow(msgspec.Struct, frozen=True):
    """Pageblocks of one zone: `counts[migratetype]`."""

    zone: str
    counts: tuple[int, ...]


class NodeTypes(msgspec.Struct, frozen=True):
    """What the kernel prints for one node; `mixed` only with page_owner, else empty."""

    node: int
    page_block_order: int
    pages_per_block: int
    types: tuple[str, ...]
    free: list[FreeRow]
    blocks: list[BlocksRow]
    mixed: list[BlocksRow] = []


def pageblock_counts(zone: ZoneState, letters: str, pageblock_order: int) -> tuple[int, ...]:
    """Count pageblocks of each migratetype as the kernel does.

    The kernel steps from the first frame of the zone by one block without aligning first, so a zone
    that starts inside a block samples each block at that offset and may miss the block that its
    last frames lie in. Sample k always lies in block k of the zone, because both start at the same
    frame and advance by the same step.

    Linux: pagetypeinfo_showblockcount_print(), mm/vmstat.c (6.1)

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> pageblock_counts(small_state().zones[1], "UMRHI", 9)
    (2, 4, 1, 1, 0)
    """
    samples = -(-zone.spanned // (1 << pageblock_order))
    seen = zone.pageblocks[:samples]
    return tuple(seen.count(letter) for letter in letters)


def _free_row(zone: ZoneState, mt: int, name: str) -> FreeRow:
    lengths = [len(lists[mt]) for lists in zone.free]
    counts = tuple(min(length, LIST_CAP) for length in lengths)
    # The kernel stops at the 100000th element and then cannot know whether it was the last.
    return FreeRow(zone.name, name, counts, tuple(length >= LIST_CAP for length in lengths))


def _whole_row(zone: ZoneState, mt: int, name: str) -> FreeRow:
    """Row of a kernel that counts lists to their end."""
    counts = tuple(len(lists[mt]) for lists in zone.free)
    return FreeRow(zone.name, name, counts, (False,) * len(counts))


def pagetypeinfo_rows(state: State) -> list[NodeTypes]:
    """Contents of /proc/pagetypeinfo for a state, one item per node.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> node = pagetypeinfo_rows(small_state())[0]
    >>> [(row.zone, row.counts) for row in node.blocks]
    [('DMA', (1, 3, 0, 0, 0)), ('Normal', (2, 4, 1, 1, 0))]
    """
    order = state.pageblock_order
    types = state.type_names[: state.nr_migratetypes]
    row = _free_row
    if state.letters == BLOCK_LETTERS_RESERVE:  # a kernel that has no name for ISOLATE
        types, row = (*types[:-1], "<NULL>"), _whole_row
    letters = state.letters[: state.nr_migratetypes]
    nodes = []
    for node, group in groupby(state.zones, key=lambda zone: zone.node):
        zones = list(group)
        free = [row(zone, mt, name) for zone in zones for mt, name in enumerate(types)]
        blocks = [BlocksRow(zone.name, pageblock_counts(zone, letters, order)) for zone in zones]
        nodes.append(NodeTypes(node, order, 1 << order, types, free, blocks))
    return nodes


def _format_blocks(title: str, node: NodeTypes, rows: Sequence[BlocksRow]) -> list[str]:
    lines = ["\n", f"{title + ' ':<23s}" + "".join(f"{name:>12s} " for name in node.types), "\n"]
    for row in rows:
        counts = "".join(f"{count:12d} " for count in row.counts)
        lines.append(f"Node {node.node}, zone {row.zone:>8s} {counts}\n")
    return lines


def format_pagetypeinfo(nodes: Iterable[NodeTypes]) -> str:
    """Text of the tables, byte for byte as the kernel prints it."""
    text: list[str] = []
    for node in nodes:
        orders = len(node.free[0].counts) if node.free else 0
        text += [
            f"Page block order: {node.page_block_order}\n",
            f"Pages per block:  {node.pages_per_block}\n\n",
            f"{_FREE_TITLE:<43s} " + "".join(f"{order:6d} " for order in range(orders)) + "\n",
        ]
        for row in node.free:
            counts = "".join(
                f"{'>' if more else ''}{count:6d} "
                for count, more in zip(row.counts, row.capped, strict=True)
            )
            text.append(
                f"Node {node.node:4d}, zone {row.zone:>8s}, type {row.type:>12s} {counts}\n"
            )
        text += _format_blocks(_BLOCKS_TITLE, node, node.blocks)
        if node.mixed:
            text += _format_blocks(_MIXED_TITLE, node, node.mixed)
    return "".join(text)


def pagetypeinfo(state: State) -> str:
    """Text of /proc/pagetypeinfo for a state.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> pagetypeinfo(small_state()).splitlines()[-1]
    'Node 0, zone   Normal            2            4            1            1            0 '
    """
    return format_pagetypeinfo(pagetypeinfo_rows(state))


class _Reader:
    """The tables of one text, line by line."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.nodes: list[NodeTypes] = []
        self.number = 0
        self.order = -1
        self.rows: list[BlocksRow] | None = None
        for self.number, line in enumerate(text.splitlines(), 1):
            self._line(line.strip())

    def _fail(self, what: str) -> BadInputError:
        return BadInputError(f"{self.source}:{self.number}: {what}; copy /proc/pagetypeinfo again")

    def _line(self, line: str) -> None:
        if not line or line.startswith(_FREE_TITLE):
            return
        if line.startswith("Page block order:"):
            self.order = self._number(line)
        elif line.startswith("Pages per block:"):
            # The node's number is known only from its rows.
            self.nodes.append(NodeTypes(-1, self.order, self._number(line), (), [], []))
            self.rows = None
        elif not self.nodes:
            raise self._fail(f"expected 'Page block order:', found {line[:60]!r}")
        elif line.startswith(_BLOCKS_TITLE):
            self.rows = self.nodes[-1].blocks
            self._replace(types=tuple(line.removeprefix(_BLOCKS_TITLE).split()))
        elif line.startswith(_MIXED_TITLE):
            self.rows = self.nodes[-1].mixed
        else:
            self._row(line)

    def _replace(self, **fields: object) -> None:
        self.nodes[-1] = msgspec.structs.replace(self.nodes[-1], **fields)

    def _number(self, line: str) -> int:
        value = line.partition(":")[2].strip()
        if not value.isdecimal():
            raise self._fail(f"not a number: {line[:60]!r}")
        return int(value)

    def _row(self, line: str) -> None:
        match = (_FREE_ROW if self.rows is None else _COUNTS_ROW).fullmatch(line)
        if match is None:
            raise self._fail(f"not a row of this table: {line[:60]!r}")
        number = int(match[1])
        if self.nodes[-1].node == -1:
            self._replace(node=number)
        elif self.nodes[-1].node != number:
            raise self._fail(f"node {number} in the table of node {self.nodes[-1].node}")
        if self.rows is None:
            fields = re.findall(r">?\d+", match[4])
            counts = tuple(int(field.lstrip(">")) for field in fields)
            capped = tuple(field.startswith(">") for field in fields)
            self._same_length(counts, [row.counts for row in self.nodes[-1].free])
            self.nodes[-1].free.append(FreeRow(match[2], match[3], counts, capped))
        else:
            counts = tuple(map(int, match[3].split()))
            self._same_length(counts, [self.nodes[-1].types])
            self.rows.append(BlocksRow(match[2], counts))

    def _same_length(self, counts: Sequence[int], others: Sequence[Sequence[object]]) -> None:
        if others and len(counts) != len(others[0]):
            raise self._fail(f"{len(counts)} columns where {len(others[0])} are expected")


def parse_pagetypeinfo(text: str, source: str = "pagetypeinfo") -> list[NodeTypes]:
    """Read the text of /proc/pagetypeinfo (2.6.24 to 6.18); `source` names it in an error.

    Raises
    ------
    BadInputError
        Empty, cut off, or not of this form.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> text = pagetypeinfo(small_state())
    >>> format_pagetypeinfo(parse_pagetypeinfo(text)) == text
    True
    """
    reader = _Reader(text, source)
    if not reader.nodes:
        raise BadInputError(f"{source}: empty; expected the text of /proc/pagetypeinfo")
    for node in reader.nodes:
        if not node.free or not node.blocks:
            raise BadInputError(f"{source}: a table is missing; copy /proc/pagetypeinfo again")
    return reader.nodes
