# SPDX-License-Identifier: GPL-2.0-or-later
"""Other times for the decays that no line shows, when an answer differs.

A decay comes at a whole second of the kernel's clock, or a little later; the phase of that clock is
known only as well as the decays that show tell it. Where it comes matters only between requests
that refill or drain, because there `high` is used or moved: these are the places that are tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.replay.request import DECAY, REORDERED, UNSEEN
from physmem.replay.requests import Requests

EARLIER = 600_000_000
LATER = 1_000_000_000
"""ns before and behind its assumed time in which a decay is sought."""
LATE = 100_000_000
"""ns that a decay is late at most on a CPU that has work."""
PLACES = 256
"""Places tried per decay."""
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


def decay_moves(requests: Requests, at: int) -> Iterator[DecayMove | DecayToggle]:
    """Other places for the decays around the difference at position `at`, the nearest first."""
    if not len(requests.time):
        return
    decays = unseen_decays(requests.requests)
    here = int(np.searchsorted(decays, at, side="right"))
    around = decays[max(here - BEFORE, 0) : here + 1][::-1].tolist()
    for source in around:
        assumed = int(requests.outcome[source])
        places = _places(requests, assumed)
        times = requests.time[requests.requests["row"][places]]
        nearest = np.argsort(np.abs(times - assumed), kind="stable")[:PLACES]
        for place, time in zip(places[nearest].tolist(), times[nearest].tolist(), strict=True):
            # right before a request that is earlier, right behind one that is later
            if place != source and min(source, place) <= at:
                yield DecayMove(source, place, time)
    for source in around:
        if source <= at:
            yield DecayToggle(source)


def _places(requests: Requests, assumed: int) -> NDArray[Any]:
    """Positions of the requests near a time that refill or drain."""
    rows = np.searchsorted(requests.time, (assumed - EARLIER, assumed + LATER))
    order = np.maximum.accumulate(requests.requests["row"])
    low, high = np.searchsorted(order, rows)
    part = requests.requests[low:high]
    found: NDArray[Any] = np.flatnonzero((part["nr_expected"] > 0) & (part["kind"] != DECAY))
    return found + int(low)
