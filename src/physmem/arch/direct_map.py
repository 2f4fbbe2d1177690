# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct map as a plain description: which memory with which page size, which table where.

Nothing is written: who wants the entries in simulated memory walks `DirectMap.tables` and
`DirectMap.leaves`, or both in order (`DirectMap.order`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from physmem.arch.descriptor import Level

KERNEL = "kernel"
"""The address space of the kernel itself."""
EMPTY = "empty"
"""One with nothing in it: where user addresses lead while no process runs (arm64)."""


@dataclass(frozen=True, slots=True)
class MapPiece:
    """Physical bytes [start, end), mapped with leaves of up to `size` bytes.

    The outermost leaves may reach beyond the piece: a leaf maps all of its size.
    """

    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class TablePages:
    """Page-table pages taken one after the other.

    Attributes
    ----------
    level : level whose entries the tables hold
    va : first virtual address that the first table covers
    paddr : physical address of the first table
    count, stride : number of tables, and bytes from one to the next
    source : "brk", "memblock", "bootmem", "e820", "image" or "buddy"
    bits : what the entries that point to them have besides the usual
    space : the address space: KERNEL, or another one that the start-up makes

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
    bits: int = 0
    space: str = KERNEL

    def addresses(self) -> Iterator[int]:
        """Physical address of each table."""
        return (self.paddr + n * self.stride for n in range(self.count))


@dataclass(frozen=True, slots=True)
class Leaves:
    """Entries of one level that map virtual bytes [va, end) to `paddr` and on.

    Attributes
    ----------
    level : level of the entries
    size : bytes of each
    prot : name of a protection, or the bits of it in an entry of the last level
    contiguous : groups that the hardware can treat as one are marked so
    space : as of `TablePages`
    """

    level: str
    va: int
    end: int
    paddr: int
    size: int
    prot: str | int
    contiguous: bool = False
    space: str = KERNEL


@dataclass(frozen=True, slots=True)
class Target:
    """Where a range of virtual addresses leads: to `paddr`, with which protection."""

    paddr: int
    prot: str | int = "PAGE_KERNEL"
    contiguous: bool = False


@dataclass
class DirectMap:
    """What was mapped, and the tables for it, each in the kernel's order.

    Attributes
    ----------
    pieces : memory in the direct map
    tables : tables that were allocated for it
    fixed : tables that lie in the kernel's image, or behind it from the entry code on
    order : all of these, and entries that map anything (direct map, image, memory map), in the
        order in which they are entered
    roots : physical address of the top table of each address space

    Examples
    --------
    >>> made = DirectMap()
    >>> made.add_piece(MapPiece(0, 1 << 20, 4096))
    >>> made.nr_tables(), made.max_mapped
    (0, 1048576)
    """

    pieces: list[MapPiece] = field(default_factory=list)
    tables: list[TablePages] = field(default_factory=list)
    fixed: list[TablePages] = field(default_factory=list)
    order: list[TablePages | Leaves] = field(default_factory=list)
    roots: dict[str, int] = field(default_factory=dict)

    def add_piece(self, piece: MapPiece) -> None:
        """Note a piece."""
        self.pieces.append(piece)

    def add_tables(self, tables: TablePages) -> None:
        """Note tables; those that follow on from the last ones extend that record."""
        self.tables.append(tables)
        self.order.append(tables)

    def add_leaves(self, leaves: Leaves) -> None:
        """Note entries; those that follow on from the last ones extend that record."""
        last = self.order[-1] if self.order else None
        if (
            isinstance(last, Leaves)
            and last.end == leaves.va
            and last.paddr + last.end - last.va == leaves.paddr
            and (last.size, last.prot, last.space) == (leaves.size, leaves.prot, leaves.space)
            and not (last.contiguous or leaves.contiguous)
        ):
            self.order[-1] = replace(last, end=leaves.end)
        else:
            self.order.append(leaves)

    def add_fixed(self, tables: TablePages) -> None:
        """Note tables that nobody had to allocate."""
        self.fixed.append(tables)
        self.order.append(tables)

    @property
    def leaves(self) -> tuple[Leaves, ...]:
        """Entries that map anything."""
        return tuple(step for step in self.order if isinstance(step, Leaves))

    def bytes_by_size(self, start: int, end: int) -> dict[int, int]:
        """Bytes that leaves of each size map in the kernel's addresses [start, end).

        Linux: direct_pages_count[], arch/x86/mm/pat/set_memory.c (6.1)

        Examples
        --------
        >>> made = DirectMap()
        >>> made.add_leaves(Leaves("pmd", 0, 4 << 20, 0, 2 << 20, "PAGE_KERNEL"))
        >>> made.bytes_by_size(0, 1 << 30)
        {2097152: 4194304}
        """
        found: dict[int, int] = {}
        later = Slots()
        for leaves in reversed(self.leaves):
            if leaves.space == KERNEL and start <= leaves.va < end:
                stay = sum(high - low for low, high in later.missing(leaves.va, leaves.end))
                later.add(leaves.va, leaves.end)
                found[leaves.size] = found.get(leaves.size, 0) + stay
        return {size: found[size] for size in sorted(found) if found[size]}

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

    def present(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges within [start, end) that are in the set, ascending."""
        at = start
        for low, high in [*self.missing(start, end), (end, end)]:
            if at < low:
                yield at, low
            at = high

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
    replaces : a large leaf takes the place of a table (x86-32); else the table is filled
    space : address space that the tables belong to

    Attributes
    ----------
    table_bits : of entries that point to tables made from now on, besides the usual

    Examples
    --------
    >>> from physmem.arch.registry import ARCHS
    >>> made = DirectMap()
    >>> take = lambda level, va, count: [(0x9000, count, -4096, "memblock")]
    >>> tree = TableTree(ARCHS["x86_64"].levels, take, made)
    >>> tree.map(0xFFFF888000000000, 0xFFFF888000100000, {4096}, Target(0))
    >>> [tables.level for tables in made.tables], [leaves.size for leaves in made.leaves]
    (['pud', 'pmd', 'pte'], [4096])
    """

    def __init__(
        self,
        levels: Sequence[Level],
        take: TakeTables,
        made: DirectMap,
        *,
        replaces: bool = False,
        space: str = KERNEL,
    ) -> None:
        self.levels = [level for level in levels if not level.folded]
        self.take = take
        self.made = made
        self.replaces = replaces
        self.space = space
        self.table_bits = 0
        self.root = _Table()
        self._note_tables = made.add_tables
        self._delta = 0
        self._to: Target | None = None

    def map(self, va: int, end: int, sizes: set[int], to: Target | None = None) -> None:
        """Map virtual [va, end) with leaves of these sizes, the largest that its level allows.

        Parameters
        ----------
        to : where `va` leads; None: only tables are made

        Linux: kernel_physical_mapping_init(), arch/x86/mm/init_64.c (6.1)
        """
        if va >= end:
            return
        self._to = to
        self._delta = 0 if to is None else to.paddr - va
        self._walk(self.root, 0, va, end, sizes)

    def adopt(self, va: int, end: int, take: TakeTables, to: Target | None = None) -> None:
        """Tables for all pages of [va, end) exist already: they cost nothing, `take` knows them."""
        taken, self.take = self.take, take
        self._note_tables = self.made.add_fixed
        self.map(va, end, {self.levels[-1].size}, to)
        self.take, self._note_tables = taken, self.made.add_tables

    def _walk(self, table: _Table, depth: int, va: int, end: int, sizes: set[int]) -> None:
        level = self.levels[depth]
        low, high = va >> level.shift, (end - 1 >> level.shift) + 1
        below_is_lowest = depth + 2 == len(self.levels)
        if level.size in sizes:
            # what is a table stays one and is filled
            inner = sorted(slot for slot in table.tables if low <= slot < high)
            for slot in inner:
                self._descend(table.tables[slot], depth, slot, (va, end), sizes)
            if self._to is not None:
                self._note_large(table, depth, (va, end), inner)
            table.leaves.add(low, high)
            return
        if below_is_lowest:
            for first, behind in list(table.lowest.missing(low, high)):
                self._take(depth + 1, first << level.shift, behind - first)
                table.lowest.add(first, behind)
            self._note(depth + 1, va, end)
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

    def _note_large(
        self, table: _Table, depth: int, span: tuple[int, int], inner: Sequence[int]
    ) -> None:
        """Note the large leaves of a range, and pages where tables of pages are in the way."""
        shift = self.levels[depth].shift
        low, high = span[0] >> shift, (span[1] - 1 >> shift) + 1
        filled = Slots()
        for slot in inner:
            filled.add(slot, slot + 1)
        if not self.replaces:
            for first, behind in table.lowest.present(low, high):
                filled.add(first, behind)
                self._note(depth + 1, max(span[0], first << shift), min(span[1], behind << shift))
            for first, behind in list(table.leaves.present(low, high)):
                filled.add(first, behind)
        for first, behind in filled.missing(low, high):
            self._note(depth, first << shift, behind << shift)

    def _note(self, depth: int, va: int, end: int) -> None:
        if self._to is None:
            return
        level = self.levels[depth]
        start = va & -level.size
        behind = -(-end // level.size) * level.size
        to = self._to
        self.made.add_leaves(
            Leaves(
                *(level.name, start, behind, start + self._delta, level.size),
                *(to.prot, to.contiguous, self.space),
            )
        )

    def _take(self, depth: int, va: int, count: int) -> None:
        level = self.levels[depth]
        span = self.levels[depth - 1].size
        for paddr, number, stride, source in self.take(level.name, va, count):
            self._note_tables(
                TablePages(
                    *(level.name, va, paddr, number, stride, source),
                    *(self.table_bits, self.space),
                )
            )
            va += number * span
