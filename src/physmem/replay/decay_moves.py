# SPDX-License-Identifier: GPL-2.0-or-later
"""Other times for the decays that no line shows, when an answer differs.

A decay comes at a whole second of the kernel's clock, or a little later; the phase of that clock is
known only as well as the decays that show tell it. Requests that refill or drain use and move
`high`, so a decay before them is not one behind them; and it shows or does not show as `count`
changes with every request. Tried are the places beside the former, and some more, evenly spread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.replay.request import DECAY, REORDERED, UNSEEN
from physmem.replay.requests import Requests

NEAR = 60_000_000
EARLIER = 600_000_000
LATER = 1_000_000_000
"""ns before and behind its assumed time in which a decay is sought, at first and at last."""
LATE = 100_000_000
"""ns that a decay is late at most on a CPU that has work."""
PLACES = 300
STEPS = 100
"""Places tried per decay; those of them that are spread evenly."""
BEFORE = 2
"""Decays before a difference that may have caused it; the next one may come too late."""


@dataclass(frozen=True)
class DecayToggle:
    """Let an unseen decay not come at all: the worker had nothing to do, or came a second later."""

    source: int

    @property
    def first(self) -> int:
        """First position that changes."""
        return self.source

    def apply(self, requests: Requests) -> None:
        """Leave it out, or in."""
        requests.requests["pfn"][self.source] ^= 1

    def undo(self, requests: Requests) -> None:
        """Change it back."""
        self.apply(requests)

    def mark(self, requests: Requests) -> None:
        """Note that the decay was changed."""
        requests.requests["race"][self.source] |= REORDERED


@dataclass(frozen=True)
class DecayMove:
    """Let an unseen decay come at position `target` of the order instead of at `source`.

    `time` is the nearest to the assumed one with which it comes there.
    """

    source: int
    target: int
    time: int

    @property
    def first(self) -> int:
        """First position that changes."""
        return min(self.source, self.target)

    def apply(self, requests: Requests) -> None:
        """Change the order."""
        requests.shift(self.source, self.target)

    def undo(self, requests: Requests) -> None:
        """Change it back."""
        requests.shift(self.target, self.source)

    def mark(self, requests: Requests) -> None:
        """Note that the decay was moved; where that shows a wrong phase, the later ones move, too.

        Decays come late, by little when the CPU has work, and never early.
        """
        shift = self.time - int(requests.outcome[self.target])
        requests.outcome[self.target] = self.time
        requests.requests["race"][self.target] |= REORDERED
        if shift < 0 or shift > LATE:
            _shift_later(requests, self.target, shift)


def _shift_later(requests: Requests, after: int, shift: int) -> None:
    """Let all unseen decays behind a position come earlier, or later."""
    decays = (unseen_decays(requests.requests[after + 1 :]) + after + 1).tolist()
    for at in decays if shift < 0 else decays[::-1]:
        time = int(requests.outcome[at]) + shift
        row = int(np.searchsorted(requests.time, time))
        order = np.maximum.accumulate(requests.requests["row"])
        place = max(int(np.searchsorted(order, row)), after + 1)
        requests.outcome[at] = time
        requests.requests["row"][at] = min(row, len(requests.time) - 1)
        requests.shift(at, place - 1 if place > at else place)


def unseen_decays(requests: NDArray[Any]) -> NDArray[np.intp]:
    """Positions of the decays that no line shows."""
    return np.flatnonzero((requests["kind"] == DECAY) & (requests["race"] & UNSEEN > 0))


def decay_changes(requests: Requests, at: int) -> Iterator[list[DecayMove | DecayToggle]]:
    """Other times for the decays around the difference at position `at`, the likeliest ones first.

    Each list is about one decay, its nearest places first: what all of them change lies together.
    """
    if not len(requests.time):
        return
    decays = unseen_decays(requests.requests)
    here = int(np.searchsorted(decays, at, side="right"))
    around = decays[max(here - BEFORE, 0) : here + 1][::-1].tolist()
    for earlier, later in ((NEAR, NEAR), (EARLIER, LATER)):
        for source in around:
            yield list(_moves(requests, source, at, earlier, later))
        for source in around:
            if source <= at and later == NEAR:
                yield [DecayToggle(source)]


def _moves(
    requests: Requests, source: int, at: int, earlier: int, later: int
) -> Iterator[DecayMove]:
    """Other places for one decay, the nearest first."""
    time, records = requests.time, requests.requests
    assumed = int(requests.outcome[source])
    rows = np.searchsorted(time, (assumed - earlier, assumed + later))
    order = np.maximum.accumulate(records["row"])
    low, high = np.searchsorted(order, rows).tolist()
    part = records[low:high]
    acts = np.flatnonzero((part["nr_expected"] > 0) & (part["kind"] != DECAY)) + low
    step = max((high - low) // STEPS, 1)
    places = np.unique(np.concatenate((acts - 1, acts, acts + 1, np.arange(low, high, step))))
    places = places[(places >= low) & (places < high) & (places != source)]
    times = np.maximum(time[order[places]], 0)
    nearest = np.argsort(np.abs(times - assumed), kind="stable")[:PLACES]
    for place, when in zip(places[nearest].tolist(), times[nearest].tolist(), strict=True):
        if min(source, place) <= at:
            yield DecayMove(source, place, when)
