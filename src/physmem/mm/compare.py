# SPDX-License-Identifier: GPL-2.0-or-later
"""Two states of one machine side by side: is every list the same, element by element?

The five answers go from the strictest to the coarsest: two states with equal lists print equal
/proc files, but equal /proc files say little about the lists.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from physmem.mm.state import PcpState, State, ZoneState

MAX_DIFFERENCES = 20
"""Lines that `Comparison.differences` holds; `nr_differences` counts them all."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two states have in common.

    Attributes
    ----------
    free_lists_equal : every free list has the same chunks in the same order
    pcp_lists_equal : so has every per-CPU list, and the counts of frames agree
    pageblocks_equal : every pageblock has the same migratetype
    buddyinfo_equal : free chunks per zone and order, as /proc/buddyinfo counts them
    pagetypeinfo_equal : free chunks per zone, order and migratetype, and pageblocks per migratetype
    nr_differences : lists, pageblocks and counters that differ
    differences : the first lines about them: node, zone, order, type, position, both values
    """

    free_lists_equal: bool
    pcp_lists_equal: bool
    pageblocks_equal: bool
    buddyinfo_equal: bool
    pagetypeinfo_equal: bool
    nr_differences: int
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """True when nothing that was compared differs."""
        return (
            self.free_lists_equal
            and self.pcp_lists_equal
            and self.pageblocks_equal
            and self.buddyinfo_equal
            and self.pagetypeinfo_equal
        )

    def to_dict(self) -> dict[str, Any]:
        """Builtins form with `equal` first, for `json.dump`."""
        return {"equal": self.equal, **asdict(self), "differences": list(self.differences)}


def compare_states(expected: State, actual: State) -> Comparison:
    """Compare two states of one machine.

    Parameters
    ----------
    expected, actual : State
        The words of `differences` call the first one expected. States of different machines
        (other zones or other spans) are equal in nothing; one line says why.

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> state = small_state()
    >>> state.zones[1].free[0][0].reverse()
    >>> result = compare_states(small_state(), state)
    >>> result.equal, result.free_lists_equal, result.buddyinfo_equal
    (False, False, True)
    >>> result.differences[0]
    'Node 0, zone Normal, order 0, Unmovable, position 0: expected 0x80c, actual 0x802 \
(2 chunks, the same ones in another order)'
    """
    shape = list(_shape(expected, actual))
    if shape:
        return Comparison(
            free_lists_equal=False,
            pcp_lists_equal=False,
            pageblocks_equal=False,
            buddyinfo_equal=False,
            pagetypeinfo_equal=False,
            nr_differences=len(shape),
            differences=tuple(shape[:MAX_DIFFERENCES]),
        )
    pairs = list(zip(expected.zones, actual.zones, strict=True))
    names = expected.type_names
    free = [line for a, b in pairs for line in _free_lists(a, b, names)]
    pcp = [line for a, b in pairs for line in _pcp_lists(a, b)]
    blocks = [line for a, b in pairs for line in _pageblocks(a, b, expected.pageblock_order)]
    buddyinfo = [line for a, b in pairs for line in _buddyinfo(a, b)]
    types = [line for a, b in pairs for line in _pagetypeinfo(a, b, names)]
    # The counters follow from the lists and blocks: they come last, where there is room.
    lines = free + pcp + blocks + buddyinfo + types
    return Comparison(
        free_lists_equal=not free,
        pcp_lists_equal=not pcp,
        pageblocks_equal=not blocks,
        buddyinfo_equal=not buddyinfo,
        pagetypeinfo_equal=not types,
        nr_differences=len(lines),
        differences=tuple(lines[:MAX_DIFFERENCES]),
    )


def _where(zone: ZoneState) -> str:
    return f"Node {zone.node}, zone {zone.name}"


def _shape(expected: State, actual: State) -> Iterator[str]:
    """Say in what the machines differ."""
    if len(expected.zones) != len(actual.zones):
        yield f"zones: expected {len(expected.zones)}, actual {len(actual.zones)}"
        return
    for what in ("pageblock_order", "nr_migratetypes"):
        a, b = getattr(expected, what), getattr(actual, what)
        if a != b:
            yield f"{what}: expected {a}, actual {b}"
    for a, b in zip(expected.zones, actual.zones, strict=True):
        for what in ("node", "name", "start", "spanned"):
            if getattr(a, what) != getattr(b, what):
                yield f"{_where(a)}, {what}: expected {getattr(a, what)}, actual {getattr(b, what)}"


def _members(where: str, expected: Sequence[int], actual: Sequence[int]) -> Iterator[str]:
    """One line when two lists differ: the first position where they do."""
    if expected == actual:
        return
    shorter = min(len(expected), len(actual))
    at = next((i for i in range(shorter) if expected[i] != actual[i]), shorter)
    sides = [f"{side[at]:#x}" if at < len(side) else "its end" for side in (expected, actual)]
    if len(expected) != len(actual):
        note = f"{len(expected)} chunks expected, {len(actual)} there"
    elif Counter(expected) == Counter(actual):
        note = f"{len(expected)} chunks, the same ones in another order"
    else:
        other = (Counter(expected) - Counter(actual)).total()
        note = f"{other} of {len(expected)} chunks are others"
    yield f"{where}, position {at}: expected {sides[0]}, actual {sides[1]} ({note})"


def _at(lists: Sequence[Any], index: int) -> Any:
    """Element of a list, or an empty list behind its end."""
    return lists[index] if index < len(lists) else []


def _free_lists(a: ZoneState, b: ZoneState, names: Sequence[str]) -> Iterator[str]:
    for order in range(max(len(a.free), len(b.free))):
        for mt, name in enumerate(names):
            where = f"{_where(a)}, order {order}, {name}"
            mine, other = _at(_at(a.free, order), mt), _at(_at(b.free, order), mt)
            yield from _members(where, mine, other)


def _pcp_lists(a: ZoneState, b: ZoneState) -> Iterator[str]:
    mine = {pcp.cpu: pcp for pcp in a.pcp}
    other = {pcp.cpu: pcp for pcp in b.pcp}
    for cpu in sorted(mine.keys() | other.keys()):
        absent = PcpState(cpu=cpu, count=0, high=0, batch=0, lists=[])
        one, two = mine.get(cpu, absent), other.get(cpu, absent)
        where = f"{_where(a)}, cpu {cpu}"
        if one.count != two.count:
            yield f"{where}, count: expected {one.count}, actual {two.count}"
        for pindex in range(max(len(one.lists), len(two.lists))):
            label = f"{where}, per-CPU list {pindex}"
            yield from _members(label, _at(one.lists, pindex), _at(two.lists, pindex))


def _pageblocks(a: ZoneState, b: ZoneState, pageblock_order: int) -> Iterator[str]:
    if a.pageblocks == b.pageblocks:
        return
    if len(a.pageblocks) != len(b.pageblocks):
        yield (f"{_where(a)}, pageblocks: expected {len(a.pageblocks)}, actual {len(b.pageblocks)}")
        return
    first = a.start >> pageblock_order
    for block, (one, two) in enumerate(zip(a.pageblocks, b.pageblocks, strict=True)):
        if one != two:
            pfn = (first + block) << pageblock_order
            yield f"{_where(a)}, pageblock {block} at {pfn:#x}: expected {one}, actual {two}"


def _buddyinfo(a: ZoneState, b: ZoneState) -> Iterator[str]:
    return _counts(f"{_where(a)}, buddyinfo, order", range(64), _by_order(a), _by_order(b))


def _by_order(zone: ZoneState) -> list[int]:
    """Free chunks per order: the kernel's counter where it is known, else the lists' lengths."""
    return zone.nr_free or [sum(map(len, lists)) for lists in zone.free]


def _pagetypeinfo(a: ZoneState, b: ZoneState, names: Sequence[str]) -> Iterator[str]:
    for order in range(max(len(a.free), len(b.free))):
        mine, other = _at(a.free, order), _at(b.free, order)
        where = f"{_where(a)}, pagetypeinfo, order {order},"
        yield from _counts(where, names, list(map(len, mine)), list(map(len, other)))
    blocks = [Counter(zone.pageblocks) for zone in (a, b)]
    letters = sorted(blocks[0].keys() | blocks[1].keys())
    counts = [[count[letter] for letter in letters] for count in blocks]
    yield from _counts(f"{_where(a)}, pagetypeinfo, pageblocks of type", letters, *counts)


def _counts(
    where: str, labels: Iterable[Any], expected: Sequence[int], actual: Sequence[int]
) -> Iterator[str]:
    longest = max(len(expected), len(actual))
    for index, label in zip(range(longest), labels, strict=False):
        a = expected[index] if index < len(expected) else 0
        b = actual[index] if index < len(actual) else 0
        if a != b:
            yield f"{where} {label}: expected {a}, actual {b}"
