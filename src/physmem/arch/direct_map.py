# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct map as a plain description: which memory with which page size, which table where.

Nothing is written: who wants the entries in simulated memory walks `DirectMap.pieces` and
`DirectMap.tables`, or listens as they are made (`observer`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from physmem.arch.descriptor import Level

_PAGE = 4096
"""Bytes of a table where entry code makes some (x86-32)."""


@dataclass(frozen=True, slots=True)
class MapPiece:
    """Physical bytes [start, end), mapped with leaves of up to `size` bytes.

    The outermost leaves may reach beyond the piece: a leaf maps all of its size.

    Attributes
    ----------
    size : 0: nothing is mapped, but there are tables for small pages
    va : virtual address of `start`; -1: where the direct map has it
    prot : name of the protection
    space : whose tables: "kernel", or "idmap" (virtual addresses equal to physical ones)
    static : the tables lie in the kernel image, nobody allocates them
    """

    start: int
    end: int
    size: int
    va: int = -1
    prot: str = "PAGE_KERNEL"
    space: str = "kernel"
    static: bool = False


@dataclass(frozen=True, slots=True)
class TablePages:
    """Page-table pages taken one after the other.

    Attributes
    ----------
    level : level whose entries the tables hold
    va : first virtual address that the first table covers
    paddr : physical address of the first table
    count, stride : number of tables, and bytes from one to the next
    source : "brk", "memblock", "bootmem", "e820" or "image"
    space : whose tables they are, as in `MapPiece`

    Examples
    --------
    >>> list(TablePages("pte", 0, 0x5000, 3, -0x1000, "memblock").addresses())
    [20480, 16384, 12288]
    """

    level: str
    va: int
    paddr: int
    count: int
    stride: int
    source: str
    space: str = "kernel"

    def addresses(self) -> Iterator[int]:
        """Physical address of each table."""
        return (self.paddr + n * self.stride for n in range(self.count))


class Observer(Protocol):
    """Is told of each step, in the kernel's order."""

    def on_tables(self, tables: TablePages) -> None:
        """Tables were taken."""

    def on_piece(self, piece: MapPiece) -> None:
        """A piece is mapped, its tables are there."""


@dataclass
class DirectMap:
    """What was mapped, and the tables for it, each in the kernel's order.

    Attributes
    ----------
    pieces : of the direct map
    tables : table pages that were allocated
    others : what else is mapped meanwhile: the kernel image, an identity map, room for the fixmap
    adopted : tables that the entry code left in the image (paddr 0: somewhere in it)
    steps : all of it in order
    offset : virtual address of physical byte 0 in the direct map
    observer : is told of all of it as it happens

    Examples
    --------
    >>> made = DirectMap()
    >>> made.add_piece(MapPiece(0, 1 << 20, 4096))
    >>> made.nr_tables(), made.max_mapped
    (0, 1048576)
    """

    pieces: list[MapPiece] = field(default_factory=list)
    tables: list[TablePages] = field(default_factory=list)
    others: list[MapPiece] = field(default_factory=list)
    adopted: list[TablePages] = field(default_factory=list)
    steps: list[MapPiece | TablePages] = field(default_factory=list)
    offset: int = 0
    observer: Observer | None = None

    def add_piece(self, piece: MapPiece) -> None:
        """Note a piece."""
        self.pieces.append(piece)
        self.steps.append(piece)
        if self.observer is not None:
            self.observer.on_piece(piece)

    def add_other(self, piece: MapPiece) -> None:
        """Note something mapped that is no part of the direct map."""
        self.others.append(piece)
        self.steps.append(piece)
        if self.observer is not None:
            self.observer.on_piece(piece)

    def add_tables(self, tables: TablePages) -> None:
        """Note tables."""
        (self.adopted if tables.source == "image" else self.tables).append(tables)
        self.steps.append(tables)
        if self.observer is not None:
            self.observer.on_tables(tables)

    def nr_tables(self, level: str | None = None) -> int:
        """Number of table pages, of one level or all."""
        return sum(t.count for t in self.tables if level in {None, t.level})

    @property
    def max_mapped(self) -> int:
        """First byte behind everything that is mapped."""
        return max((piece.end for piece in self.pieces), default=0)

    def is_mapped(self, start: int, end: int) -> bool:
        """The pieces cover [start, end).

        Linux: pfn_range_is_mapped(), arch/x86/mm/init.c (6.1)
        """
        for piece in sorted(self.pieces, key=lambda piece: piece.start):
            if piece.start <= start < piece.end:
                start = piece.end
        return start >= end


class Slots:
    """A set of numbers, kept as disjoint ascending ranges.

    Examples
    --------
    >>> slots = Slots()
    >>> slots.add(3, 5); slots.add(5, 9)
    >>> list(slots.missing(0, 12)), 8 in slots
    ([(0, 3), (9, 12)], True)
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add [start, end)."""
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges within [start, end) that are not in the set, ascending."""
        at = bisect_right(self._ends, start)
        while start < end:
            if at == len(self._starts) or self._starts[at] >= end:
                yield start, end
                return
            if start < self._starts[at]:
                yield start, self._starts[at]
            start = self._ends[at]
            at += 1

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]


TakeTables = Callable[[str, int, int], Sequence[tuple[int, int, int, str]]]
"""Gets level, virtual address and number of tables; gives (paddr, count, stride, source) runs."""


class _Table:
    """A table of an upper level: which slots are tables, and which are leaves."""

    def __init__(self) -> None:
        self.tables: dict[int, _Table] = {}
        self.lowest = Slots()
        self.leaves = Slots()


class TableTree:
    """Which page tables exist. A table is taken when it is first needed, top down.

    Parameters
    ----------
    levels : of the architecture; folded ones are skipped
    take : gives the pages
    made : description to fill in
    space : whose tables, as in `MapPiece`

    Examples
    --------
    >>> from physmem.arch.registry import ARCHS
    >>> made = DirectMap()
    >>> take = lambda level, va, count: [(0x9000, count, -4096, "memblock")]
    >>> tree = TableTree(ARCHS["x86_64"].levels, take, made)
    >>> tree.map(0xFFFF888000000000, 0xFFFF888000100000, {4096})
    >>> [tables.level for tables in made.tables]
    ['pud', 'pmd', 'pte']
    """

    def __init__(
        self, levels: Sequence[Level], take: TakeTables, made: DirectMap, space: str = "kernel"
    ) -> None:
        self.levels = [level for level in levels if not level.folded]
        self.take = take
        self.made = made
        self.space = space
        self.root = _Table()

    def map(self, va: int, end: int, sizes: set[int]) -> None:
        """Map virtual [va, end) with leaves of these sizes, the largest that its level allows.

        Linux: kernel_physical_mapping_init(), arch/x86/mm/init_64.c (6.1)
        """
        if va < end:
            self._walk(self.root, 0, va, end, sizes)

    def adopt(self, va: int, end: int, paddr: int = 0) -> None:
        """Tables for all pages of [va, end) exist already: they cost nothing.

        They lie side by side from `paddr` on; 0: somewhere in the image.
        """
        take, at = self.take, paddr

        def adopted(level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
            nonlocal at
            del level, va
            first = at
            at += count * _PAGE if paddr else 0
            return [(first, count, _PAGE if paddr else 0, "image")]

        self.take = adopted
        self.map(va, end, {self.levels[-1].size})
        self.take = take

    def _walk(self, table: _Table, depth: int, va: int, end: int, sizes: set[int]) -> None:
        level = self.levels[depth]
        low, high = va >> level.shift, (end - 1 >> level.shift) + 1
        below_is_lowest = depth + 2 == len(self.levels)
        if level.size in sizes:
            # what is a table stays one and is filled
            for slot in sorted(slot for slot in table.tables if low <= slot < high):
                self._descend(table.tables[slot], depth, slot, (va, end), sizes)
            table.leaves.add(low, high)
            return
        if below_is_lowest:
            for first, behind in list(table.lowest.missing(low, high)):
                self._take(depth + 1, first << level.shift, behind - first)
                table.lowest.add(first, behind)
            return
        for slot in range(low, high):
            if slot not in table.tables:
                self._take(depth + 1, slot << level.shift, 1)
                table.tables[slot] = _Table()
            self._descend(table.tables[slot], depth, slot, (va, end), sizes)

    def _descend(
        self, table: _Table, depth: int, slot: int, span: tuple[int, int], sizes: set[int]
    ) -> None:
        shift = self.levels[depth].shift
        start, end = max(span[0], slot << shift), min(span[1], slot + 1 << shift)
        self._walk(table, depth + 1, start, end, sizes)

    def _take(self, depth: int, va: int, count: int) -> None:
        level = self.levels[depth]
        span = self.levels[depth - 1].size
        for paddr, number, stride, source in self.take(level.name, va, count):
            made = TablePages(level.name, va, paddr, number, stride, source, self.space)
            self.made.add_tables(made)
            va += number * span
