# SPDX-License-Identifier: GPL-2.0-or-later
"""One variant: a machine booted with its settings, and the workload carried out on it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from physmem.boot.booted import BootedMemory
from physmem.boot.start import handover_of
from physmem.lab.described import Described
from physmem.lab.early import GAP
from physmem.lab.op import GIVE_DEFERRED
from physmem.lab.place import NR_ORDERS, NR_TYPES, EarlyOp, Placing, place, place_early
from physmem.lab.settings import Settings, parse_knobs
from physmem.lab.sysctl import apply_sysctls
from physmem.lab.workload import Workload
from physmem.lib.errors import CorruptStateError
from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.machine.machine import Machine
from physmem.mm.free_core import do_free_core, do_free_reserved

TRACE_ROOM = 1 << 12
"""Tracepoints of one request; what a drain of everything emits beyond that is not looked at."""

Watch = Callable[["Run", int], None]


@dataclass(eq=False)
class Run:
    """A workload on a machine.

    Attributes
    ----------
    machine : in the state that it is in now
    memory : what its boot found out
    settings : what distinguishes it from the recorded machine
    assumptions : in words
    deferred_later : memory whose records are initialised late comes when the recording says
    """

    machine: Machine
    memory: BootedMemory
    settings: Settings
    workload: Workload
    assumptions: tuple[str, ...] = ()
    record: NDArray[Any] = field(default_factory=lambda: np.zeros(1, dtype_of(Placing)))
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    deferred_later: bool = False

    def count(self, name: str) -> int:
        """A counter of `physmem.lab.place.Placing`."""
        return int(self.record[0][name])

    @property
    def place_pfn(self) -> NDArray[np.int64]:
        """(slots,) int64, first frame of each allocation here; -1: none."""
        return self.arrays["place_pfn"]

    @property
    def live(self) -> NDArray[np.bool_]:
        """(slots,) bool, allocations that are held now."""
        held: NDArray[np.bool_] = (self.arrays["frames_left"] > 0) & (self.place_pfn >= 0)
        return held

    def failed_of(self) -> NDArray[np.int64]:
        """(orders, 4) int64, failed allocations by order and migratetype of their flags."""
        table: NDArray[np.int64] = self.arrays["failed_of"].reshape(NR_ORDERS, NR_TYPES)
        return table

    def carry_out(self, sample_every: int = 0, watch: Watch | None = None) -> "Run":
        """Carry the whole workload out.

        Parameters
        ----------
        sample_every : operations between two calls of `watch`; 0: no call
        watch : gets this run and the number of operations done
        """
        total = len(self.workload.ops)
        step = sample_every or max(total, 1)
        h, kernel = address(self.record), ready(place)
        at = 0
        if watch is not None and sample_every:
            watch(self, 0)
        while at < total:
            end = min(at + step, total)
            while at < end:
                at = kernel(h, end)
                if at < end or self._is_deferred(at - 1):
                    self._hand_over_deferred()
            if watch is not None and sample_every:
                watch(self, at)
        if self.count("gives_refused"):
            raise CorruptStateError(
                "in_use", f"{self.count('gives_refused')} frees of frames that are not in use"
            )
        return self

    def _is_deferred(self, at: int) -> bool:
        return int(self.workload.ops["kind"][at]) == GIVE_DEFERRED

    def _hand_over_deferred(self) -> None:
        """Give the frames whose records are initialised late to the page allocator."""
        tables = self.machine.tables
        if not self.deferred_later:
            return
        for part in self.memory.deferred.values():
            if not len(part.pfn):
                continue
            low = int(part.pfn.min())
            high = int((part.pfn + (1 << part.order.astype(np.int64))).max())
            mine = np.zeros(high - low, np.bool_)
            for pfn, order in zip(part.pfn.tolist(), part.order.tolist(), strict=True):
                mine[pfn - low : pfn - low + (1 << order)] = True
            frames = np.flatnonzero(mine) + low
            tables.mem_map["flags"][frames] = 0
            tables.mem_map["order"][frames] = 0
            pfns, orders = cast("Any", part.pfn), cast("Any", part.order)
            ready(do_free_core)(address(tables.memory), pfns, orders)


def prepare(described: Described, settings: Settings, workload: Workload) -> Run:
    """Boot a variant and put it into the state in which the trace begins.

    Raises
    ------
    BadMachineError, BadInputError
        Settings that no kernel could start with.
    """
    memory, assumptions = described.boot(settings)
    plan = handover_of(memory)
    late = [] if workload.whole else list(plan.late)
    early = [] if workload.whole else list(plan.early)
    deferred = [part for part in memory.deferred.values() if len(part.pfn)]
    nr_blocks = len(plan.blocks)
    # a tuned machine gets all of its memory first: its rules are set up on what is free
    if workload.whole and workload.has_deferred and deferred and not settings.knobs:
        own = {id(part.pfn) for part in deferred}
        plan = replace(plan, blocks=[part for part in plan.blocks if id(part[0]) not in own])
    machine = Machine.from_boot(replace(plan, late=late, early=early))
    if settings.sysctl:
        apply_sysctls(machine, memory, settings.sysctl)
    if settings.knobs:
        from importlib import import_module

        machine = import_module("physmem.machine.tuning").tune(machine, parse_knobs(settings.knobs))
    run = Run(machine, memory, settings, workload, assumptions)
    run.deferred_later = len(plan.blocks) != nr_blocks
    _attach(run)
    _place_early(run)
    if workload.whole:
        _late(run)
    return run


def _attach(run: Run) -> None:
    workload, machine = run.workload, run.machine
    slots = workload.nr_slots
    more = max(machine.layout.page_shift - 12, 0)
    run.record[0]["page_shift_more"] = more
    arrays: dict[str, NDArray[Any]] = {
        "place_ops": workload.ops,
        "place_pfn": np.full(slots, -1, np.int64),
        "frames_left": np.zeros(slots, np.uint32),
        "order_of_slot": workload.slot_order,
        "boot_to": np.full(len(workload.boot_frames), -1, np.int64),
        "zone_map": _zone_map(workload, machine),
        "early_ops": _early_ops(workload, more),
        "failed_of": np.zeros(NR_ORDERS * NR_TYPES, np.int64),
    }
    for name, array in arrays.items():
        attach(run.record[0], name, array)
    run.arrays = arrays
    machine.tables = replace(machine.tables, trace=np.zeros(TRACE_ROOM, np.int64))
    machine.tables.attach()
    run.record[0]["memory_addr"] = address(machine.tables.memory)


def _early_ops(workload: Workload, more: int) -> NDArray[Any]:
    early = workload.early
    ops = np.zeros(len(early), dtype_of(EarlyOp))
    ops["early_slot"], ops["early_gfp"] = early.slot, early.gfp
    ops["early_order"], ops["early_node"] = early.order, early.node
    ops["early_movable"] = early.movable
    if more and len(ops):
        # what lay in one of the larger pages shares one
        group = early.pfn >> more
        first = np.ones(len(ops), np.bool_)
        first[1:] = group[1:] != group[:-1]
        ops = ops[first & (early.slot != GAP)]
    return ops


def _zone_map(workload: Workload, machine: Machine) -> NDArray[np.int64]:
    """Recorded zone whose drains each zone follows."""
    numbers = {zone: number for number, zone in enumerate(workload.zones)}
    found = []
    for zone in machine.tables.zones:
        node = int(zone["node"])
        name = machine.layout.zone_names[int(zone["zone_idx"])]
        highest = [number for (nid, _), number in numbers.items() if nid == node]
        found.append(numbers.get((node, name), max(highest, default=-1)))
    return np.array(found, np.int64)


def _place_early(run: Run) -> None:
    """Make the requests before the trace; watermarks come only with the first initcalls."""
    zones = run.machine.tables.zones
    kept = zones["watermark"].copy(), zones["lowmem_reserve"].copy()
    zones["watermark"], zones["lowmem_reserve"] = 0, 0
    gaps: Any = np.empty(len(run.workload.early) + 1, np.int64)
    ready(place_early)(address(run.record), gaps)
    zones["watermark"], zones["lowmem_reserve"] = kept
    zones["nr_steals"], zones["nr_claims"], zones["watermark_boost"] = 0, 0, 0
    memory = run.machine.tables.memory[0]
    memory["nr_failed"], memory["nr_slowpath"] = 0, 0


def _late(run: Run) -> None:
    """Find the frames that the boot gives back during the trace; the others come back now."""
    workload, machine = run.workload, run.machine
    h = address(machine.tables.memory)
    recorded, target = workload.boot_frames, run.arrays["boot_to"]
    same_pages = int(run.record[0]["page_shift_more"]) == 0
    bases = {late.what: late for late in workload.late} if same_pages else {}
    for item in run.memory.late:
        kept = np.ones(max(item.nr_pages, 0), np.bool_)
        if base := bases.get(item.what):
            inside = (recorded >= base.start_pfn) & (recorded < base.end_pfn)
            moved = recorded[inside] - base.start_pfn + item.start_pfn
            target[inside] = np.where(moved < item.end_pfn, moved, -1)
            kept[moved[moved < item.end_pfn] - item.start_pfn] = False
        for pfn in (np.flatnonzero(kept) + item.start_pfn).tolist():
            ready(do_free_reserved)(h, pfn, pfn + 1, 0)
