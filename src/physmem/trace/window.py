# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rows lie between the two states: as the recording says, and as the states themselves tell.

A recorder reads a state while the guest sleeps, and names the line that it lies before. A kernel
whose per-CPU lists decay drains them even then, once a second; a state may so lie some drains
before or behind its line. What was drained is on no per-CPU list any more: each state tells which
of the drains beside its line it has seen.
"""

from collections.abc import Iterable

from physmem.mm.state import State
from physmem.trace.capture import Capture
from physmem.trace.events import Kind


def window(capture: Capture) -> tuple[int, int]:
    """First row behind state0 and first row behind state1 (without states: all rows).

    The columns `kind` and `pfn` are needed.
    """
    info = capture.info
    begin = info.state0_row or 0
    end = len(capture.events) if info.state1_row is None else info.state1_row
    if capture.state0 is not None and info.state0_row is not None:
        begin = _settled(capture, begin, capture.state0)
    if capture.state1 is not None and info.state1_row is not None:
        end = _settled(capture, end, capture.state1)
    return begin, max(begin, end)


def _settled(capture: Capture, row: int, state: State) -> int:
    """Row that a state lies before, drains around `row` being told by the state."""
    kind, pfn = capture.events.kind, capture.events.pfn
    waiting: set[int] | None = None
    at = row
    while at < len(kind) and kind[at] == Kind.PCPU_DRAIN:
        waiting = waiting if waiting is not None else set(_on_pcp(state))
        if int(pfn[at]) in waiting:
            break
        at += 1
    if at > row:
        return at
    while at > 0 and kind[at - 1] == Kind.PCPU_DRAIN:
        waiting = waiting if waiting is not None else set(_on_pcp(state))
        if int(pfn[at - 1]) not in waiting:
            break
        at -= 1
    return at


def _on_pcp(state: State) -> Iterable[int]:
    for zone in state.zones:
        for pcp in zone.pcp:
            for members in pcp.lists:
                yield from members
