# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory and reservations that memblock has before a log tells of its calls.

A kernel reads `memblock=debug` only after its first reservations, and a log may have lost its
beginning. The first dump of memblock, less what the calls before it explain, tells what was there.

Linux: memblock_dump_all(), mm/memblock.c (6.1)
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from physmem.bootalloc.region import RegionArray
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import (
    AllocCall,
    DumpRegion,
    Event,
    MemblockCall,
    MemblockDump,
    MemblockOp,
    Moment,
    Step,
)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SilentRanges:
    """What no line of the log adds or reserves: ranges in bytes, and what was assumed."""

    memory: tuple[DumpRegion, ...]
    reserved: tuple[Span, ...]
    assumptions: tuple[str, ...]


def silent_ranges(log: BootLog) -> SilentRanges:
    """Memory and reservations at the log's first call.

    Without a dump: memory is what the nodes have, and nothing is reserved.
    """
    assumptions = []
    if log.headless:
        assumptions.append(
            "the log's first lines are lost: what memblock held before is taken from its first dump"
        )
    before = _until_dump(log.events)
    dump = before.pop() if before and isinstance(before[-1], MemblockDump) else None
    if not isinstance(dump, MemblockDump):
        memory = tuple(DumpRegion(start, end, 0, None) for _, start, end in log.figures.node_ranges)
        if any(isinstance(e, MemblockCall) and e.op is MemblockOp.ADD for e in log.events):
            memory = ()
        assumptions.append("the log has no dump of memblock: nothing is reserved before its calls")
        return SilentRanges(memory, (), tuple(assumptions))
    added = RegionArray("added", 1 << 20)
    explained = RegionArray("explained", 1 << 20)
    needed = RegionArray("needed", 1 << 20)
    for event in before:
        if isinstance(event, AllocCall) and event.start is not None and event.end is not None:
            explained.insert_uncovered(event.start, event.end)
        elif isinstance(event, MemblockCall):
            if event.op is MemblockOp.ADD:
                added.insert_uncovered(event.start, event.end)
            elif event.op is MemblockOp.RESERVE:
                explained.insert_uncovered(event.start, event.end)
            elif event.op is MemblockOp.FREE and event.start < event.end:
                # what is given back and was never seen taken was taken before
                for start, end in explained.uncovered(event.start, event.end):
                    needed.insert_uncovered(start, end)
    memory = tuple(
        replace(region, start=start, end=end)
        for region in dump.memory
        for start, end in added.uncovered(region.start, region.end)
    )
    reserved = [*_spans(needed)]
    for region in dump.reserved:
        reserved += explained.uncovered(region.start, region.end)
    return SilentRanges(memory, tuple(sorted(reserved)), tuple(assumptions))


def _until_dump(events: Iterable[Event]) -> list[Event]:
    found: list[Event] = []
    for event in events:
        if isinstance(event, Moment) and event.step is Step.HANDOVER:
            break
        found.append(event)
        if isinstance(event, MemblockDump):
            break
    return found


def _spans(array: RegionArray) -> list[Span]:
    return [(region.base, region.end) for region in array]
