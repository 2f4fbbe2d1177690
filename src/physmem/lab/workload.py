# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload: what was asked of a recorded machine, by allocation and not by frame number.

Made from the requests of a capture (`physmem.replay.requests`): each allocation becomes a slot, and
a free names the slot and the piece of it. So the same requests can be made of a machine that gives
other frames. What lies before the first event is worked out by `physmem.lab.early`.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from physmem.boot.booted import BootedMemory, LateFree
from physmem.lab.early import Early, early_part, frames_in_use
from physmem.lab.op import DECAY, GIVE, NO_NODE, SILENT, TAKE, TAKE_BULK, TICK, TRY, Op
from physmem.lab.slots import (
    BOOT_DEFERRED,
    BOOT_LATE,
    LISTED,
    UNSEEN,
    Slotting,
    assign_slots,
    settle,
)
from physmem.lib.errors import BadCaptureError
from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.machine.profiles import feature_bits
from physmem.mm.features import PCP_AUTO_TUNING
from physmem.mm.state import State
from physmem.replay.columns import profile_for
from physmem.replay.request import BULK
from physmem.replay.requests import Requests, lower_events
from physmem.replay.zone_address import number_zones
from physmem.trace.capture import Capture
from physmem.trace.events import Events
from physmem.trace.info import CaptureInfo
from physmem.trace.window import window

COLUMNS = (
    *("line", "ts", "cpu", "pid", "comm", "context", "preempt", "kind", "pfn", "order"),
    *("migratetype", "gfp", "arg0", "arg1", "site"),
)
_SECOND = 1_000_000_000


def workload_columns(info: CaptureInfo) -> tuple[str, ...]:
    """Columns of a capture that a workload is made from: those of `COLUMNS` that it has."""
    optional = {"ts", "comm", "site"}
    return tuple(name for name in COLUMNS if name in info.columns or name not in optional)


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests by allocation.

    Attributes
    ----------
    ops : (n,) Op records in the order in which they are carried out
    slot_pfn : (slots,) int64, recorded first frame; -1: not known
    slot_order : (slots,) uint8, recorded order
    slot_row : (slots,) uint32, row of the event that took (or, for early ones, gave) it
    early : what was taken before the first event
    boot_frames : (k,) int64, frames that the boot had reserved and GIVE_BOOT gives back, in order
    late : what these frames held
    events : the recorded events, for tasks, times and call sites
    has_deferred : the recorded kernel handed memory over late, and a GIVE_DEFERRED says when
    whole : the events begin where the trace begins, before state0
    state : recorded state behind the last operation; None: the workload ends elsewhere
    counts : what had to be worked out, by name
    zones : (node, name) of each recorded zone, by the number that drains name
    """

    ops: NDArray[Any]
    slot_pfn: NDArray[np.int64]
    slot_order: NDArray[np.uint8]
    slot_row: NDArray[np.uint32]
    early: Early
    boot_frames: NDArray[np.int64]
    late: tuple[LateFree, ...]
    events: Events
    has_deferred: bool
    whole: bool
    state: State | None
    counts: dict[str, int] = field(default_factory=dict)
    zones: tuple[tuple[int, str], ...] = ()

    @property
    def nr_slots(self) -> int:
        """Number of allocations, those before the trace included."""
        return len(self.slot_order)

    @cached_property
    def slot_gfp(self) -> NDArray[np.uint32]:
        """(slots,) uint32, flags with which each was asked for."""
        gfp = np.zeros(self.nr_slots, np.uint32)
        takes = np.isin(self.ops["kind"], (TAKE, TAKE_BULK))
        gfp[self.ops["slot"][takes]] = self.ops["gfp"][takes]
        gfp[self.early.slot[self.early.slot >= 0]] = self.early.gfp[self.early.slot >= 0]
        return gfp

    @cached_property
    def is_early(self) -> NDArray[np.bool_]:
        """(slots,) bool, taken before the first event."""
        early = np.zeros(self.nr_slots, np.bool_)
        early[self.early.slot[self.early.slot >= 0]] = True
        return early

    def until(self, row: int) -> "Workload":
        """The part before a row of the events."""
        kept = self.ops[self.ops["row"] < row]
        state = self.state if len(kept) == len(self.ops) else None
        return Workload(
            **{
                **{name: getattr(self, name) for name in self.__dataclass_fields__},
                "ops": kept,
                "state": state,
            }
        )


def workload_of(capture: Capture, boot: BootedMemory, reserved: NDArray[np.uint8]) -> Workload:
    """Make a workload of everything that a capture holds up to its last state.

    Parameters
    ----------
    boot : the recorded machine, booted again
    reserved : (max_pfn,) uint8, 1 for frames in use when that boot is complete

    Raises
    ------
    BadCaptureError
        The capture has no state at all, so that nobody knows what was in use, or events of CPUs
        that the machine does not have.
    """
    info = capture.info
    reference = capture.state1 or capture.state0
    if reference is None:
        raise BadCaptureError(
            "the capture holds no memory state, so nobody can tell what was in use: import a"
            " recording with state0.json or state1.json"
        )
    begin, end = window(capture)
    whole = begin > 0 or capture.state0 is None
    events = capture.events[:end].of_pages()
    nr_cpus = info.machine.nr_cpus
    if len(events) and int(events.cpu.max()) >= nr_cpus:
        raise BadCaptureError(
            f"an event of cpu {int(events.cpu.max())}, but the recorded machine has {nr_cpus} cpus;"
            " import the recording again"
        )
    max_pfn = max(*(zone.end for zone in reference.zones), len(reserved))
    tuned = bool(feature_bits(profile_for(info)) & PCP_AUTO_TUNING)
    requests = lower_events(
        number_zones(events, capture, strict=False),
        max_pfn=max_pfn,
        cpu_node=tuple(info.machine.cpu_node),
        strict=False,
        zone_starts=[zone.start for zone in reference.zones],
        decays=tuned,
    )
    cpu_node = tuple(info.machine.cpu_node)
    work = _Slots(requests, reference, max_pfn, cpu_node)
    if whole:
        _mark_boot(work.boot_frame, boot)
    elif capture.state0 is not None:
        work.owner[frames_in_use(capture.state0, max_pfn) == 0] = LISTED
    nr_ops = work.assign()
    marks = work.boot_frame.copy()
    if whole and _unmark_before(work, marks, boot):
        work = _Slots(requests, reference, max_pfn, cpu_node)
        work.boot_frame[:] = marks
        nr_ops = work.assign()
    in_use = None
    if capture.state1 is not None:
        in_use = frames_in_use(capture.state1, max_pfn)
        nr_ops = work.settle(in_use)
    held = _held_for_ever(work, capture, in_use, reserved)
    early = early_part(
        capture,
        (work.slot_pfn, work.slot_order),
        work.early_slots[: work.count("nr_early")],
        held,
        (reserved, work.boot_frame),
        first_slot=work.count("nr_slots"),
    )
    ops = work.ops[:nr_ops]
    if not tuned:
        ops = np.concatenate([ops, _ticks(requests, events, nr_cpus)])
    ops = ops[np.argsort(ops["key"], kind="stable")]
    more = len(early.held)
    boot_frames = work.boot_pfns[: work.count("nr_boot")]
    nr_slots = work.count("nr_slots")
    return Workload(
        ops=ops,
        slot_pfn=np.concatenate([work.slot_pfn[:nr_slots], early.held]),
        slot_order=np.concatenate([work.slot_order[:nr_slots], np.zeros(more, np.uint8)]),
        slot_row=np.concatenate([work.slot_row[:nr_slots], np.zeros(more, np.uint32)]),
        early=early,
        boot_frames=boot_frames,
        late=tuple(
            late
            for late in boot.late
            if ((boot_frames >= late.start_pfn) & (boot_frames < late.end_pfn)).any()
        ),
        events=events,
        has_deferred=bool(work.count("deferred_done")),
        whole=whole,
        state=capture.state1,
        counts={
            "bulk_frames": work.count("nr_bulk"),
            "silent_frames": work.count("nr_silent"),
            "unseen_frees": work.count("nr_unseen_gives"),
            "failed_when_recorded": int((ops["kind"] == TRY).sum()),
        },
        zones=tuple((zone.node, zone.name) for zone in reference.zones),
    )


def _mark_boot(frames: NDArray[np.uint8], boot: BootedMemory) -> None:
    """Mark what the boot gives to the page allocator only after the trace has begun."""
    for part in boot.deferred.values():
        for pfn, order in zip(part.pfn.tolist(), part.order.tolist(), strict=True):
            frames[pfn : pfn + (1 << order)] = BOOT_DEFERRED
    for late in boot.late:
        frames[late.start_pfn : late.end_pfn] = BOOT_LATE


def _unmark_before(work: "_Slots", marks: NDArray[np.uint8], boot: BootedMemory) -> bool:
    """Take marks off what the boot gave back before the trace began: its frees are not there."""
    changed = False
    deferred = marks == BOOT_DEFERRED
    if work.count("nr_deferred") < int(deferred.sum()) // 2:
        marks[deferred] = 0
        changed = True
    given = np.zeros(len(marks), np.bool_)
    given[work.boot_pfns[: work.count("nr_boot")]] = True
    for late in boot.late:
        place = slice(late.start_pfn, late.end_pfn)
        if given[place].sum() < (marks[place] == BOOT_LATE).sum() / 2:
            marks[place] = 0
            changed = True
    return changed


def _held_for_ever(
    work: "_Slots",
    capture: Capture,
    in_use: NDArray[np.uint8] | None,
    reserved: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Frames in use from before the first event until behind the last one, the boot's left out."""
    if in_use is None and capture.state0 is not None:
        in_use = frames_in_use(capture.state0, len(work.owner))
    if in_use is None:
        return np.empty(0, np.int64)
    mask = (work.owner == UNSEEN) & (in_use != 0) & (work.boot_frame == 0)
    mask[: len(reserved)] &= reserved == 0
    return np.flatnonzero(mask)


def _ticks(requests: Requests, events: Events, nr_cpus: int) -> NDArray[Any]:
    """A tick per second and CPU, for variants whose per-CPU lists decay."""
    if "ts" not in events.columns or not len(events) or not len(requests):
        return np.zeros(0, dtype_of(Op))
    first, last = int(events.ts[0]) // _SECOND + 1, int(events.ts[-1]) // _SECOND
    seconds = np.arange(first, last + 1) * _SECOND
    rows = np.searchsorted(events.ts, seconds)
    keys = np.searchsorted(requests.requests["row"], rows)
    ticks = np.zeros(len(seconds) * nr_cpus, dtype_of(Op))
    ticks["kind"] = TICK
    ticks["node"] = NO_NODE
    ticks["key"] = np.repeat(keys, nr_cpus)
    ticks["row"] = np.repeat(np.minimum(rows, len(events) - 1), nr_cpus)
    ticks["cpu"] = np.tile(np.arange(nr_cpus), len(seconds))
    return ticks


class _Slots:
    """The pass over the requests, and its arrays."""

    def __init__(
        self, requests: Requests, state: State, max_pfn: int, cpu_node: tuple[int, ...]
    ) -> None:
        bulk = int(requests.requests["pfn"][requests.requests["kind"] == BULK].sum())
        most = len(requests) + bulk + max_pfn
        frame_node = np.full(max_pfn, NO_NODE, np.uint8)
        for zone in state.zones:
            frame_node[zone.start : zone.end] = zone.node
        self.owner = np.full(max_pfn, UNSEEN, np.int32)
        self.boot_frame = np.zeros(max_pfn, np.uint8)
        self.slot_pfn = np.empty(most, np.int64)
        self.slot_order = np.empty(most, np.uint8)
        self.slot_row = np.empty(most, np.uint32)
        self.early_slots = np.empty(most, np.int64)
        self.boot_pfns = np.empty(max_pfn, np.int64)
        self.ops = np.empty(most + max_pfn, dtype_of(Op))
        self.record = np.zeros(1, dtype_of(Slotting))
        self.kept: dict[str, NDArray[Any]] = {
            "slot_requests": requests.requests,
            "slot_expected": requests.expected,
            "slot_outcome": requests.outcome,
            "owner": self.owner,
            "boot_frame": self.boot_frame,
            "listed_at": np.zeros(max_pfn, np.uint32),
            "listed_type": np.zeros(max_pfn, np.uint8),
            "frame_node": frame_node,
            "node_of_cpu": np.array(cpu_node, np.int64),
            "slot_pfn": self.slot_pfn,
            "slot_order": self.slot_order,
            "slot_row": self.slot_row,
            "early_slots": self.early_slots,
            "boot_pfns": self.boot_pfns,
            "bulk_slots": np.empty(bulk, np.int64),
            "bulk_keys": np.empty(bulk, np.int64),
            "ops": self.ops,
        }
        for name, array in self.kept.items():
            attach(self.record[0], name, array)

    def count(self, name: str) -> int:
        """A counter of the pass."""
        return int(self.record[0][name])

    def assign(self) -> int:
        """Run over all requests."""
        return self._checked(ready(assign_slots)(address(self.record)))

    def settle(self, in_use: NDArray[np.uint8]) -> int:
        """Agree with a state behind the last request."""
        ready(settle)(address(self.record), cast("Any", in_use))
        return self._checked(self.count("nr_ops"))

    def _checked(self, nr_ops: int) -> int:
        if self.count("full"):
            raise BadCaptureError("the trace names more frames than its machine has; import again")
        return nr_ops


__all__ = ["DECAY", "GIVE", "SILENT", "Workload", "workload_columns", "workload_of"]
