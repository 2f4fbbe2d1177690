# SPDX-License-Identifier: GPL-2.0-or-later
"""Races that a trace only hints at: when an answer differs, does another order explain it?

The line of a free is printed before the frame reaches its list, the line of an allocation after the
frame left it, and two CPUs print while one of them holds the zone's lock. Between the line and the
deed an interrupt, another task or another CPU may have acted. The candidates are exactly these:

* a free that took effect only when its task ran again, behind what others did meanwhile;
* an allocation that had its frame before what others did, though its line comes later;
* two CPUs in the same zone, in the other order;
* a free in an interrupt that did, or did not, find the per-CPU lists locked.

A candidate is accepted only when the replay then goes on without a difference for a while. Each
accepted one counts as a race and is listed with its line. Nothing of this happens under --strict.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from physmem.replay import request as rq
from physmem.replay.requests import Requests

LOOK_BACK = 200_000
LOOK_AHEAD = 4_000
NEIGHBOURS = 64


@dataclass(frozen=True)
class Move:
    """Carry request `source` out at position `target` of the order instead of at its own."""

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
        """Count the race on the moved request (after `apply`)."""
        requests.requests["race"][self.target] |= rq.REORDERED | rq.COUNTED


@dataclass(frozen=True)
class Toggle:
    """Let a free in an interrupt find the per-CPU lists locked, or not."""

    source: int

    @property
    def first(self) -> int:
        """First position that changes."""
        return self.source

    def apply(self, requests: Requests) -> None:
        """Change the way of the free."""
        requests.requests["race"][self.source] ^= rq.BUSY

    def undo(self, requests: Requests) -> None:
        """Change it back."""
        self.apply(requests)

    def mark(self, requests: Requests) -> None:
        """Count the race (after `apply`)."""
        requests.requests["race"][self.source] |= rq.REORDERED | rq.COUNTED


def candidates(
    requests: Requests, at: int, expected: int, predicted: int
) -> Iterator[Move | Toggle]:
    """Other orders that could explain the difference at request `at`.

    Parameters
    ----------
    expected, predicted : int
        First frame that differs, as recorded and as predicted; -1: none.
    """
    seen: set[Move | Toggle] = set()
    for candidate in _all(requests, at, expected, predicted):
        if candidate not in seen:
            seen.add(candidate)
            yield candidate


def _all(requests: Requests, at: int, expected: int, predicted: int) -> Iterator[Move | Toggle]:
    for frame in (expected, predicted):
        free = _last_free(requests, at, frame)
        if free is not None:
            yield from _put_off(requests, free)
            if requests.in_interrupt[requests.requests["row"][free]]:
                yield Toggle(free)
    yield from _had_it_before(requests, at, predicted)
    yield from _put_off(requests, at)
    yield from _foreign_before(requests, at)
    yield from _other_cpu(requests, at)


def _last_free(requests: Requests, at: int, frame: int) -> int | None:
    """Request before `at` that freed a frame, the last one."""
    if frame < 0:
        return None
    low = max(at - LOOK_BACK, 0)
    part = requests.requests[low:at]
    size = np.int64(1) << part["order"].astype(np.int64)
    first = part["pfn"].astype(np.int64)
    frees = (part["kind"] == rq.FREE) | (part["kind"] == rq.COMMIT)
    found = np.flatnonzero(frees & (first <= frame) & (frame < first + size))
    return low + int(found[-1]) if len(found) else None


def _put_off(requests: Requests, at: int) -> Iterator[Move]:
    """Carry a request out when its task runs again, behind what others did in between."""
    part = requests.requests[at : at + LOOK_AHEAD]
    flow = requests.flow[part["row"]]
    same_cpu = part["cpu"] == part["cpu"][0]
    own = np.flatnonzero(same_cpu[1:] & (flow[1:] == flow[0]) & (part["kind"][1:] != 0))
    end = int(own[0]) + 1 if len(own) else len(part)
    foreign = np.flatnonzero(same_cpu[1:end] & (part["kind"][1:end] != 0))
    if len(foreign):
        yield Move(at, at + 1 + int(foreign[-1]))
        for other in foreign[:-1][:NEIGHBOURS].tolist():
            yield Move(at, at + 1 + other)


def _had_it_before(requests: Requests, at: int, frame: int) -> Iterator[Move]:
    """An allocation whose line comes later had the frame already."""
    if frame < 0:
        return
    end = at + 1 + LOOK_AHEAD
    later = np.flatnonzero(
        (requests.outcome[at + 1 : end] == frame)
        & (requests.requests["kind"][at + 1 : end] == rq.ALLOC)
    )
    if len(later):
        yield Move(at + 1 + int(later[0]), at)


def _foreign_before(requests: Requests, at: int) -> Iterator[Move]:
    """What another task or an interrupt did right before came right after."""
    low = max(at - NEIGHBOURS, 0)
    part = requests.requests[low : at + 1]
    flow = requests.flow[part["row"]]
    foreign = np.flatnonzero((flow[:-1] != flow[-1]) & (part["kind"][:-1] != 0))
    for other in foreign[::-1][:8].tolist():
        yield Move(low + other, at)


def _other_cpu(requests: Requests, at: int) -> Iterator[Move]:
    """Another CPU held the zone's lock first, or last."""
    low = max(at - NEIGHBOURS, 0)
    part = requests.requests[low : at + 1 + NEIGHBOURS]
    centre = at - low
    busy = (part["cpu"] != part["cpu"][centre]) & (part["nr_expected"] > 0)
    for other in np.flatnonzero(busy[centre + 1 :])[:8].tolist():
        yield Move(at + 1 + other, at)
    for other in np.flatnonzero(busy[:centre])[::-1][:8].tolist():
        yield Move(at, low + other)
