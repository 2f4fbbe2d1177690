# SPDX-License-Identifier: GPL-2.0-or-later
"""From the state of a finished start-up to plain data."""

from collections.abc import Sequence

from physmem.boot.boot import Boot
from physmem.boot.booted import BlockTypes, BootedMemory, BootedZone
from physmem.boot.mem_init import no_blocks, pages_by_zone
from physmem.boot.memmap_init import NO_MEMORY, deferred_pageblocks
from physmem.boot.ranges import MIRROR
from physmem.boot.sizes import Watermarks
from physmem.boot.zones import BootZone, BootZones

CMA = "C"
_NO_MARKS = Watermarks(0, 0, 0, 0)


def free_late(boot: Boot, *, after_marks: bool) -> None:
    """Give back memory of the start-up, before or after the watermarks were set."""
    if boot.zones is None:
        raise RuntimeError("zones come before late frees")
    for late in boot.late:
        if late.after_marks == after_marks:
            spans = [(late.start_pfn, late.end_pfn, -1)]
            for ref, pages in pages_by_zone(boot.zones, spans).items():
                boot.managed[ref] += pages
                boot.totalram += pages
            boot.say(f"Freeing {late.what} memory: {late.nr_pages << _kib(boot)}K")


def _kib(boot: Boot) -> int:
    return boot.geometry.page_shift - 10


def _pageblocks(boot: Boot, zones: BootZones) -> dict[tuple[int, int], tuple[BlockTypes, ...]]:
    """Types of pageblocks when all struct pages exist and CMA areas are marked."""
    if boot.memmap is None:
        raise RuntimeError("the start-up is not finished")
    runs = boot.memmap.pageblocks
    later = sorted(boot.deferred_spans)
    shift, order = boot.geometry.page_shift, boot.geometry.pageblock_order
    areas = [(start >> shift >> order, end >> shift >> order) for start, end in boot.cma_areas]
    found = {}
    for zone in zones.zones():
        first = zone.start_pfn >> order
        blocks = [
            BlockTypes(run.start_block, run.count, run.type)
            for run in deferred_pageblocks(zone, zones, 0, later, runs[zone.nid, zone.index])
        ]
        count = (zone.end_pfn - 1 >> order) - first + 1
        for start, end in areas:
            low, high = max(start - first, 0), min(end - first, count)
            if low < high:
                blocks = _marked(blocks, low, high, CMA)
        for start, end in (
            *_of_other_nodes(zone, zones, order),
            *_of_the_other_half(zone, zones, order),
        ):
            low, high = max(start - first, 0), min(end - first, count)
            if low < high:
                blocks = _marked(blocks, low, high, NO_MEMORY)
        found[zone.nid, zone.index] = tuple(blocks)
    return found


def _of_other_nodes(zone: BootZone, zones: BootZones, order: int) -> list[tuple[int, int]]:
    """Pageblocks within a zone's span that are other nodes' memory: nodes may be interleaved."""
    found = []
    for memory in zones.ranges_meeting(zone.start_pfn, zone.end_pfn):
        start, end = -(-memory.start_pfn >> order), memory.end_pfn >> order
        if memory.nid != zone.nid and start < end:
            found.append((start, end))
    return found


def _of_the_other_half(zone: BootZone, zones: BootZones, order: int) -> list[tuple[int, int]]:
    """Pageblocks that Normal and Movable both span (kernelcore=mirror), but are the other one's.

    Normal has what is mirrored. A block with some of both is taken for Normal's.
    """
    if not zones.placement.mirror:
        return []
    halves = {
        other.index: other
        for other in zones.zones()
        if other.nid == zone.nid and other.index in {zones.limits.normal, zones.limits.movable}
    }
    if len(halves) != 2 or zone.index not in halves:
        return []
    low = max(half.start_pfn for half in halves.values()) >> order
    high = -(-min(half.end_pfn for half in halves.values()) >> order)
    mirrored = sorted(
        (max(memory.start_pfn >> order, low), min(-(-memory.end_pfn >> order), high))
        for memory in zones.ranges
        if memory.nid == zone.nid and memory.flags & MIRROR
    )
    mirrored = [(start, end) for start, end in mirrored if start < end]
    if zone.index == zones.limits.movable:
        return mirrored
    at, rest = low, []
    for start, end in mirrored:
        rest.append((at, start))
        at = max(at, end)
    return [(start, end) for start, end in [*rest, (at, high)] if start < end]


def _marked(blocks: Sequence[BlockTypes], low: int, high: int, kind: str) -> list[BlockTypes]:
    """Blocks [low, high) as of a type, the others as they are."""
    result = []
    for run in blocks:
        end = run.first + run.count
        for start, stop in ((run.first, min(end, low)), (max(run.first, high), end)):
            if start < stop:
                result.append(BlockTypes(start, stop - start, run.type))
    result.append(BlockTypes(low, high - low, kind))
    return sorted(result, key=lambda run: run.first)


def _zone(boot: Boot, zone: BootZone, blocks: tuple[BlockTypes, ...]) -> BootedZone:
    ref = zone.nid, zone.index
    marks, pcp = boot.marks.get(ref, _NO_MARKS), boot.pcp[ref]
    tunes = pcp.high_max != pcp.high_min
    return BootedZone(
        node=zone.nid,
        index=zone.index,
        name=zone.name,
        start_pfn=zone.start_pfn if zone.spanned else 0,
        spanned_pages=zone.spanned,
        present_pages=zone.present,
        managed_pages=boot.managed.get(ref, 0),
        cma_pages=boot.cma_pages.get(ref, 0),
        watermark=(marks.min, marks.low, marks.high, marks.promo),
        lowmem_reserve=boot.reserve.get(ref, ()),
        pcp_batch=pcp.batch,
        pcp_high=pcp.high_min,
        pcp_high_max=pcp.high_max if tunes else None,
        local_cpus=tuple(cpu for cpu, nid in enumerate(boot.cpu_node) if nid == zone.nid),
        pageblocks=blocks,
    )


def booted_memory(boot: Boot) -> BootedMemory:
    """Plain data of a finished start-up.

    Raises
    ------
    RuntimeError
        A stage is missing.
    """
    zones, memory = boot.zones, boot.memory
    if zones is None or memory is None or boot.hand_over is None:
        raise RuntimeError("the start-up is not finished")
    blocks = _pageblocks(boot, zones)
    return BootedMemory(
        arch=boot.arch.name,
        kernel=boot.kernel,
        cmdline=boot.cmdline.text,
        page_shift=boot.geometry.page_shift,
        nr_orders=boot.geometry.nr_orders,
        pageblock_order=boot.geometry.pageblock_order,
        zones=tuple(
            _zone(boot, zone, blocks.get((zone.nid, zone.index), ()))
            for node in zones.nodes
            for zone in node.zones
        ),
        zonelists={nid: lists.fallback for nid, lists in boot.zonelists.items()},
        fallback=dict(boot.fallback),
        online=boot.online,
        grouping=boot.grouping,
        total_pages=boot.total_pages,
        policy_zone=boot.policy_zone,
        cpu_node=boot.cpu_node,
        distance=boot.distance,
        pcp_thp=boot.config.thp,
        hand_over=boot.hand_over,
        deferred=dict(boot.deferred),
        highmem=boot.highmem or no_blocks(),
        cma=boot.cma or no_blocks(),
        late=boot.late,
        early_taken=boot.early_taken,
        reserved=boot.owners.ranges(boot.reserved_spans),
        memory=memory,
        totalram_pages=boot.totalram,
        min_free_kbytes=boot.min_free_kbytes,
        thp=boot.thp,
        boot_zones=zones,
        memblock=boot.memblock,
        kernel_map=boot.kernel_map if boot.kernel_map.roots else None,
        prediction=boot.calls.prediction(),
        assumptions=tuple(boot.assumptions),
        stages=tuple(boot.stages),
        log=tuple(boot.log),
    )
