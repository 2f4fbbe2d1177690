# SPDX-License-Identifier: GPL-2.0-or-later
"""Other times for the decays that no line shows, when an answer differs.

A decay comes at a whole second of the kernel's clock, or later; the phase of that clock is known
only as well as the decays that show tell it. Where it comes matters only between requests that
refill or drain, because there `high` is used or moved: these are the places that are tried.
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
    """Let an unseen decay come at position `target` of the order instead of at `source`."""

    source: int
    target: int

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
        """Note that the decay was moved; when it came earlier, the later ones do so too.

        Decays come late but never early: the phase was assumed too late.
        """
        moved = requests.requests[self.target]
        time = requests.time
        assert time is not None
        behind = requests.requests[self.target + 1 :]
        there = np.flatnonzero(behind["kind"] != 0)[:1]
        row = int(behind["row"][there[0]]) if len(there) else len(time) - 1
        shift = int(time[row]) - int(time[moved["row"]])
        moved["row"] = row
        moved["race"] |= REORDERED
        if shift < 0:
            _shift_later(requests, self.target, shift)


def _shift_later(requests: Requests, after: int, shift: int) -> None:
    """Let all unseen decays behind a position come earlier."""
    time = requests.time
    assert time is not None
    for at in unseen_decays(requests.requests[after + 1 :]) + after + 1:
        row = int(np.searchsorted(time, time[requests.requests["row"][at]] + shift))
        target = _position_of(requests.requests, row, int(at))
        if after < target < at:
            requests.requests["row"][at] = row
            requests.shift(int(at), target)


def _position_of(requests: NDArray[Any], row: int, below: int) -> int:
    """First position of a request at or behind a row, sought from `below` downwards."""
    rows = np.maximum.accumulate(requests["row"][:below])
    return int(np.searchsorted(rows, row))


def unseen_decays(requests: NDArray[Any]) -> NDArray[np.intp]:
    """Positions of the decays that no line shows."""
    return np.flatnonzero((requests["kind"] == DECAY) & (requests["race"] & UNSEEN > 0))


def decay_moves(requests: Requests, at: int) -> Iterator[DecayMove | DecayToggle]:
    """Other places for the decays around the difference at position `at`, the nearest first."""
    if requests.time is None:
        return
    decays = unseen_decays(requests.requests)
    here = int(np.searchsorted(decays, at, side="right"))
    around = decays[max(here - BEFORE, 0) : here + 1][::-1].tolist()
    for source in around:
        assumed = int(requests.time[requests.requests["row"][source]])
        places = _places(requests, assumed)
        away = np.abs(requests.time[requests.requests["row"][places]] - assumed)
        for place in places[np.argsort(away, kind="stable")][:PLACES].tolist():
            target = place - 1 if place > source else place
            if target != source and min(source, target) <= at:
                yield DecayMove(source, target)
    for source in around:
        if source <= at:
            yield DecayToggle(source)


def _places(requests: Requests, assumed: int) -> NDArray[np.intp]:
    """Positions of the requests near a time that refill or drain."""
    time = requests.time
    assert time is not None
    rows = np.searchsorted(time, (assumed - EARLIER, assumed + LATER))
    order = np.maximum.accumulate(requests.requests["row"])
    low, high = np.searchsorted(order, rows)
    part = requests.requests[low:high]
    return low + np.flatnonzero((part["nr_expected"] > 0) & (part["kind"] != DECAY))
