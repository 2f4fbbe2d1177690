# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of the page allocator as plain data: what a recording holds and what a machine gives.

A recorded kernel's state and ours have one form, so that comparing them, printing /proc files from
them and drawing them is one piece of code each. Lists are in list order, head first: the head is
the end that an allocation takes from.

Linux: struct zone, struct per_cpu_pages, include/linux/mmzone.h (6.1)
"""

from typing import Any

import msgspec

from physmem.lib.errors import BadStateError
from physmem.mm.features import RESERVE_BLOCKS

BLOCK_LETTERS_CMA = "UMRHCI"
"""Letter of each migratetype in `ZoneState.pageblocks` on a kernel with CMA."""
BLOCK_LETTERS = "UMRHI"
"""The same without CMA: ISOLATE moves down by one."""
BLOCK_LETTERS_RESERVE = "URMXI"
"""The same where there is MIGRATE_RESERVE: MOVABLE has another number."""
NO_MEMORY = "."
"""Letter of a pageblock without memory."""

NAME_OF_LETTER = {
    "U": "Unmovable",
    "M": "Movable",
    "R": "Reclaimable",
    "H": "HighAtomic",
    "X": "Reserve",
    "C": "CMA",
    "I": "Isolate",
}
TYPE_NAMES = tuple(NAME_OF_LETTER[letter] for letter in BLOCK_LETTERS)
TYPE_NAMES_CMA = tuple(NAME_OF_LETTER[letter] for letter in BLOCK_LETTERS_CMA)


def block_letters(features: int, nr_migratetypes: int) -> str:
    """Letter of each migratetype of a kernel, in the order of their numbers there.

    Parameters
    ----------
    features : bits of `physmem.mm.features`
    """
    if features & RESERVE_BLOCKS:
        return BLOCK_LETTERS_RESERVE
    return BLOCK_LETTERS_CMA if nr_migratetypes > len(BLOCK_LETTERS) else BLOCK_LETTERS


def table_types(letters: str) -> list[int]:
    """Number in our tables of each migratetype of a kernel: there MOVABLE is always 1.

    Examples
    --------
    >>> table_types("URMXI"), table_types("UMRHCI")
    ([0, 2, 1, 3, 4], [0, 1, 2, 3, 4, 5])
    """
    ours = BLOCK_LETTERS_CMA if len(letters) > len(BLOCK_LETTERS) else BLOCK_LETTERS
    return [ours.index("H" if letter == "X" else letter) for letter in letters]


class PcpState(msgspec.Struct, forbid_unknown_fields=False):
    """Per-CPU lists of one (zone, CPU): `count` in frames, `lists[pindex]` pfns, head first.

    A kernel with a hot and a cold list has these two; `high` and `batch` are those of the hot one.
    `types` has one letter for each frame on them: the type that it remembers.
    """

    cpu: int
    count: int
    high: int
    batch: int
    lists: list[list[int]]
    free_factor: int | None = 0
    high_min: int | None = None
    high_max: int | None = None
    alloc_factor: int | None = None
    free_count: int | None = None
    flags: int | None = None
    cold_high: int | None = None
    cold_batch: int | None = None
    types: list[str] | None = None


class ZoneState(msgspec.Struct, forbid_unknown_fields=False):
    """One populated zone.

    `start` is its first pfn; `spanned`, `present`, `managed` are frames; `wmark` is min, low, high,
    promo without the boost; `free[order][migratetype]` lists the heads of the free blocks;
    `pageblocks` has one letter per pageblock, from the block that holds `start`.
    """

    node: int
    name: str
    start: int
    spanned: int
    managed: int
    present: int
    wmark: list[int]
    free: list[list[list[int]]]
    pcp: list[PcpState]
    pageblocks: str
    boost: int = 0
    highatomic: int = 0
    lowmem_reserve: list[int] = []
    pageset_high: int = 0
    pageset_high_max: int | None = None
    pageset_batch: int = 1
    nr_free: list[int] = []

    @property
    def end(self) -> int:
        """First pfn behind the span of the zone."""
        return self.start + self.spanned


class State(msgspec.Struct, forbid_unknown_fields=False):
    """Every populated zone, nodes ascending, zones of a node from low to high.

    `migratetypes` has the letter of each migratetype where they are not those of 6.1 and later.
    """

    zones: list[ZoneState]
    pageblock_order: int = 9
    migratetypes: str = ""

    @property
    def nr_migratetypes(self) -> int:
        """5 without CMA, 6 with."""
        return len(self.zones[0].free[0])

    @property
    def letters(self) -> str:
        """Letter of each migratetype in `ZoneState.pageblocks`."""
        return self.migratetypes or block_letters(0, self.nr_migratetypes)

    @property
    def type_names(self) -> tuple[str, ...]:
        """Name of each migratetype as the kernel prints it."""
        return tuple(NAME_OF_LETTER[letter] for letter in self.letters)


_DECODER = msgspec.json.Decoder(State)
"""Made here: two threads that use a type for the first time at once crash msgspec 0.22."""


def decode_state(text: bytes, source: str) -> State:
    """Read a state from its JSON form; `source` names it in an error.

    Raises
    ------
    BadStateError
        Not JSON, or not of the form of a state.
    """
    try:
        state = _DECODER.decode(text)
    except msgspec.DecodeError as error:
        msg = f"{source}: not a recorded memory state ({error}); record it again"
        raise BadStateError(msg) from None
    if not state.zones:
        msg = f"{source}: the state has no zone; record it again"
        raise BadStateError(msg)
    return state


def encode_state(state: State) -> bytes:
    """JSON text of a state."""
    return msgspec.json.encode(state)


def to_dict(state: State) -> dict[str, Any]:
    """Builtins form of a state (for `json.dump`, comparison in tests)."""
    result: dict[str, Any] = msgspec.to_builtins(state)
    return result
