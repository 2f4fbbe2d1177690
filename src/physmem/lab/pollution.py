# SPDX-License-Identifier: GPL-2.0-or-later
"""Who pollutes: whose unmovable allocations keep blocks of 2 MiB from being huge pages.

An allocation counts for the task that the event names, with its flags and order. The call site is
known where the recording has slab events: the first object that the same task gets after its slab
came is the one that asked for it.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.lab.early import GAP
from physmem.lab.metrics import HUGE_SHIFT
from physmem.lab.variant import Run
from physmem.mm.gfp import TABLES, format_gfp
from physmem.mm.gfp_bits import GFP_MOVABLE_BIT
from physmem.trace.events import Events, Kind

BEFORE = "(before the trace)"
_SITE_LINES = 64
"""Lines after an allocation in which the object that it was for is sought."""
_SITE_SLOTS = 200
"""Allocations of one group whose call sites are looked at."""


class Polluter(msgspec.Struct, frozen=True):
    """Allocations of one task that are alike.

    Attributes
    ----------
    comm, pid : task; pid -1: taken before the trace
    gfp, order : flags as text, and order
    pages : frames that are held at the end
    allocations : how many allocations hold them
    blocks : blocks of 2 MiB in which they lie
    alone : of these: no other group's unmovable allocation is in them
    site : caller that asked, "" when not recorded
    """

    comm: str
    pid: int
    gfp: str
    order: int
    pages: int
    allocations: int
    blocks: int
    alone: int
    site: str = ""


def polluters(run: Run, kernel: str, full: Events | None = None, top: int = 10) -> list[Polluter]:
    """Groups of unmovable allocations that are held now, those in most blocks first.

    Parameters
    ----------
    kernel : profile of the recording, for the names of flags
    full : all recorded events, slab events too, for call sites; None: without
    top : how many groups
    """
    workload = run.workload
    early = workload.early
    movable = (workload.slot_gfp & GFP_MOVABLE_BIT) != 0
    real = early.slot != GAP
    movable[early.slot[real]] = early.movable[real]
    slots = np.flatnonzero(run.live & ~movable)
    if not len(slots):
        return []
    shift = max(HUGE_SHIFT - run.machine.layout.page_shift, 0)
    block = run.place_pfn[slots] >> shift
    group, keys = _groups(run, slots)
    behind = int(block.max()) + 1
    pairs = np.unique(group * behind + block)
    sharers = np.bincount(pairs % behind)[pairs % behind]
    nr = len(keys)
    blocks = np.bincount(pairs // behind, minlength=nr)
    alone = np.bincount(pairs // behind, weights=sharers == 1, minlength=nr).astype(np.int64)
    frames = run.arrays["frames_left"][slots].astype(np.int64)
    pages = np.bincount(group, weights=frames, minlength=nr).astype(np.int64)
    count = np.bincount(group, minlength=nr)
    order = np.lexsort((np.arange(nr), -pages, -blocks))[:top]
    names = TABLES[kernel]
    found = []
    for at in order.tolist():
        early_one, pid, comm, gfp, block_order = (int(each) for each in keys[at])
        site = ""
        if full is not None and not early_one:
            site = _site(run, full, slots[group == at])
        found.append(
            Polluter(
                comm=BEFORE if early_one else _comm(workload.events, comm),
                pid=-1 if early_one else pid,
                gfp=format_gfp(gfp, names),
                order=block_order,
                pages=int(pages[at]),
                allocations=int(count[at]),
                blocks=int(blocks[at]),
                alone=int(alone[at]),
                site=site,
            )
        )
    return found


def _groups(run: Run, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each slot, and (early, pid, comm, gfp, order) of each group."""
    workload = run.workload
    events = workload.events
    early = workload.is_early[slots]
    rows = np.minimum(workload.slot_row[slots].astype(np.int64), max(len(events) - 1, 0))
    columns = np.zeros((len(slots), 5), np.int64)
    columns[:, 0] = early
    if len(events):
        columns[:, 1] = np.where(early, -1, events.pid[rows])
        if "comm" in events.columns:
            columns[:, 2] = np.where(early, 0, events.comm[rows])
    columns[:, 3] = workload.slot_gfp[slots]
    columns[:, 4] = np.where(early, 0, workload.slot_order[slots])
    # one number for each row: sorting rows takes ten times as long
    packed = np.zeros(len(slots), np.int64)
    for column in columns.T:
        values, number = np.unique(column, return_inverse=True)
        packed = packed * len(values) + number
        packed = np.unique(packed, return_inverse=True)[1]
    _, first, group = np.unique(packed, return_index=True, return_inverse=True)
    return group.astype(np.int64), columns[first]


def _comm(events: Events, number: int) -> str:
    return events.comms[number] if number < len(events.comms) else ""


def _site(run: Run, full: Events, slots: NDArray[np.int64]) -> str:
    """Call site that most of these allocations were made for."""
    if "site" not in full.columns:
        return ""
    found: dict[str, int] = {}
    events = run.workload.events
    for slot in slots[:_SITE_SLOTS].tolist():
        row = int(run.workload.slot_row[slot])
        pid, line = int(events.pid[row]), int(events.line[row])
        at = int(np.searchsorted(full.line, line)) + 1
        for other in range(at, min(at + _SITE_LINES, len(full))):
            if int(full.pid[other]) != pid:
                continue
            if full.kind[other] in (Kind.KMALLOC, Kind.CACHE_ALLOC):
                site = full.sites[int(full.site[other])]
                found[site] = found.get(site, 0) + 1
                break
            if full.kind[other] == Kind.ALLOC:
                break
    return max(sorted(found), key=lambda each: found[each]) if found else ""
