# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames the rows so far have allocated, for a trace of any length.

One byte per frame, in sections of 32,768 frames that are made when a row touches them: a trace of a
large machine costs what it touches.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadStateError
from physmem.lib.jit import kernel, pointer_to, ready
from physmem.lib.struct import Array, address, attach, dtype_of, i32, i64, struct, u8
from physmem.mm.gfp_bits import GFP_MOVABLE_BIT
from physmem.mm.state import State
from physmem.trace.bytescan import Row
from physmem.trace.events import NO_PFN
from physmem.trace.fields import ALLOC, BULK, FREE, MAX_PFN

SECTION_SHIFT = 15
SECTION_SIZE = 1 << SECTION_SHIFT
ALLOCATED = 1
MOVABLE = 2


@struct
class Span:
    """Frames `start` to `end` (exclusive) of a zone."""

    start: i64
    end: i64


@struct
class Ledger:
    """`frames[section[pfn >> SECTION_SHIFT] + pfn % SECTION_SIZE]`; section 0 is none."""

    section: Array[i32]
    frames: Array[u8]
    new_rows: Array[Row]
    spans: Array[Span]  # zones; empty: not known
    failed: i64
    unknown_frees: i64
    wanted: i64  # section to make before the row can be counted
    outside: i64  # rows whose frame lies in no zone
    outside_line: i64  # line and frame of the first of them
    outside_pfn: i64


ledger_at = pointer_to(Ledger)


@kernel
def in_spans(ledger: Ledger, pfn: int) -> bool:
    """Tell whether a frame lies in a zone."""
    for i in range(len(ledger.spans)):
        if ledger.spans[i].start <= pfn < ledger.spans[i].end:
            return True
    return len(ledger.spans) == 0


@kernel
def enter_rows(address: int, row: int, end: int) -> int:
    """Enter the rows `row` to `end` of the batch; the row that wants a section first, or `end`."""
    ledger = ledger_at(address)
    frames = ledger.frames
    while row < end:
        r = ledger.new_rows[row]
        if r.kind < BULK and r.pfn != NO_PFN and not in_spans(ledger, r.pfn):
            if ledger.outside == 0:
                ledger.outside_line = r.line
                ledger.outside_pfn = r.pfn
            ledger.outside += 1
        if r.kind == ALLOC and r.pfn == NO_PFN:
            ledger.failed += 1
        elif r.kind == ALLOC or r.kind == FREE:
            base = ledger.section[r.pfn >> SECTION_SHIFT] * SECTION_SIZE
            if base == 0:
                ledger.wanted = r.pfn >> SECTION_SHIFT
                return row
            first = base + (r.pfn & (SECTION_SIZE - 1))
            last = min(first + (1 << r.order), base + SECTION_SIZE)
            if r.kind == ALLOC:
                value = ALLOCATED | (MOVABLE if r.gfp & GFP_MOVABLE_BIT else 0)
                for i in range(first, last):
                    frames[i] = value
            else:
                if frames[first] == 0:
                    ledger.unknown_frees += 1
                for i in range(first, last):
                    frames[i] = 0
        row += 1
    return row


class FrameLedger:
    """The ledger as an object.

    Attributes
    ----------
    failed, unknown_frees : int
        Failed allocations; frees of frames that no earlier row had allocated.
    """

    def __init__(self, state: State | None = None) -> None:
        spans = np.zeros(len(state.zones) if state else 0, dtype_of(Span))
        for i, zone in enumerate(state.zones if state else ()):
            spans[i] = (zone.start, zone.end)
        self._record = np.zeros(1, dtype_of(Ledger))
        self._sections = np.zeros(
            MAX_PFN >> SECTION_SHIFT, np.int32
        )  # untouched parts cost nothing
        self._frames = np.zeros(64 * SECTION_SIZE, np.uint8)
        self._made: list[int] = []
        self._spans = spans
        for name, array in (
            ("section", self._sections),
            ("frames", self._frames),
            ("spans", spans),
        ):
            attach(self._record[0], name, array)

    @property
    def failed(self) -> int:
        """Failed allocations."""
        return int(self._record[0]["failed"])

    @property
    def unknown_frees(self) -> int:
        """Frees of frames that no earlier row had allocated."""
        return int(self._record[0]["unknown_frees"])

    def enter(self, rows: NDArray[Any]) -> None:
        """Enter rows (contiguous, dtype of `Row`) in their order.

        Raises
        ------
        BadStateError
            A frame that lies in no zone of the state.
        """
        record = self._record[0]
        attach(record, "new_rows", rows)
        run = ready(enter_rows)
        row = 0
        while (row := run(address(self._record), row, len(rows))) < len(rows):
            self._make_section(int(record["wanted"]))
        if record["outside"]:
            raise BadStateError(
                f"frame {int(record['outside_pfn']):#x} of trace line {record['outside_line']} "
                "lies in no zone of state0: state and trace come from different machines or boots"
            )

    def _make_section(self, wanted: int) -> None:
        self._made.append(wanted)
        if (len(self._made) + 1) * SECTION_SIZE > len(self._frames):
            grown = np.zeros(2 * len(self._frames), np.uint8)
            grown[: len(self._frames)] = self._frames
            self._frames = grown
            attach(self._record[0], "frames", grown)
        self._sections[wanted] = len(self._made)

    def _runs(self, mask: int) -> list[tuple[int, int]]:
        """Runs (start, count) of frames with a bit of the mask, ascending."""
        runs: list[tuple[int, int]] = []
        for section in sorted(self._made):
            base = int(self._sections[section]) * SECTION_SIZE
            marked = (self._frames[base : base + SECTION_SIZE] & mask) != 0
            edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
            for begin, end in edges.reshape(-1, 2).tolist():
                start = section * SECTION_SIZE + begin
                if runs and sum(runs[-1]) == start:
                    runs[-1] = (runs[-1][0], runs[-1][1] + end - begin)
                else:
                    runs.append((start, end - begin))
        return runs

    def movable(self) -> list[tuple[int, int]]:
        """Frames allocated with __GFP_MOVABLE and not freed since, as runs (start, count)."""
        return self._runs(MOVABLE)

    def allocated(self) -> list[tuple[int, int]]:
        """Frames allocated and not freed since, as runs (start, count)."""
        return self._runs(ALLOCATED)
