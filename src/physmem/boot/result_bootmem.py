# SPDX-License-Identifier: GPL-2.0-or-later
"""From the state of a finished start-up with bootmem to plain data."""

from physmem.boot.boot_bootmem import BootBootmem, without_spans
from physmem.boot.booted import HEAD, BlockTypes, BootedMemory, BootedZone
from physmem.boot.mem_init import no_blocks
from physmem.boot.owners import OwnerBook, ReservedRange
from physmem.boot.sizes import Watermarks
from physmem.boot.zones import BootZone

_NO_MARKS = Watermarks(0, 0, 0, 0)


def _pageblocks(boot: BootBootmem, zone: BootZone) -> tuple[BlockTypes, ...]:
    """Types of a zone's pageblocks, counted from the block that holds its first frame.

    Without sections the kernel counts from the first frame itself: where that is not aligned, its
    last block holds less than ours, and ours has one block more, of the same type.
    """
    if boot.memmap is None or not zone.spanned:
        return ()
    runs = boot.memmap.pageblocks[zone.nid, zone.index]
    blocks = [BlockTypes(run.start_block, run.count, run.type) for run in runs]
    order = boot.geometry.pageblock_order
    count = -(-zone.end_pfn >> order) - (zone.start_pfn >> order)
    last = blocks[-1]
    blocks[-1] = BlockTypes(last.first, count - last.first, last.type)
    return tuple(blocks)


def _zone(boot: BootBootmem, zone: BootZone) -> BootedZone:
    ref = zone.nid, zone.index
    marks, pcp = boot.marks.get(ref, _NO_MARKS), boot.pcp[ref]
    return BootedZone(
        node=zone.nid,
        index=zone.index,
        name=zone.name,
        start_pfn=zone.start_pfn if zone.spanned else 0,
        spanned_pages=zone.spanned,
        present_pages=zone.present,
        managed_pages=boot.managed.get(ref, 0),
        watermark=(marks.min, marks.low, marks.high, 0),
        lowmem_reserve=boot.reserve.get(ref, ()),
        pcp_batch=pcp.hot_batch,
        pcp_high=pcp.hot_high,
        local_cpus=tuple(cpu for cpu, nid in enumerate(boot.setup.cpu_node) if nid == zone.nid),
        pageblocks=_pageblocks(boot, zone),
    )


def reserved_ranges(boot: BootBootmem) -> tuple[ReservedRange, ...]:
    """Who holds what never came to the page allocator, nor came back to it.

    Bootmem takes whole pages: what is left of the last one is its owner's, too.
    """
    book, page = OwnerBook(), 1 << boot.page_shift
    for start, end, owner in boot.bootmem.notes:
        book.take(start & -page, -(-end // page) * page, owner)
    for start, end, owner in boot.bootmem.notes:
        book.take(start, end, owner)
    shift = boot.page_shift
    back = [(late.start_pfn << shift, late.end_pfn << shift) for late in boot.late]
    return book.ranges(without_spans(boot.reserved_spans, back))


def booted_memory(boot: BootBootmem) -> BootedMemory:
    """Plain data of a finished start-up.

    Raises
    ------
    RuntimeError
        A stage is missing.
    """
    zones, memory = boot.made_zones, boot.memory
    if memory is None or boot.hand_over is None:
        raise RuntimeError("the start-up is not finished")
    return BootedMemory(
        arch=boot.arch.name,
        kernel=boot.kernel,
        cmdline=boot.cmdline.text,
        page_shift=boot.page_shift,
        nr_orders=boot.geometry.nr_orders,
        pageblock_order=boot.geometry.pageblock_order,
        zones=tuple(_zone(boot, zone) for node in zones.nodes for zone in node.zones),
        zonelists={nid: lists.fallback for nid, lists in boot.zonelists.items()},
        fallback=dict(boot.fallback),
        zonelist_order=boot.zonelist_order,
        grouping=boot.grouping,
        total_pages=boot.total_pages,
        policy_zone=boot.policy_zone,
        cpu_node=boot.setup.cpu_node,
        distance=boot.distance,
        pcp_thp=False,
        hand_over=boot.hand_over,
        hand_over_path=HEAD,
        boot_pagesets=boot.boot_pagesets,
        deferred={},
        highmem=boot.highmem or no_blocks(),
        cma=no_blocks(),
        late=tuple(boot.late),
        early_taken=0,
        reserved=reserved_ranges(boot),
        memory=memory,
        totalram_pages=boot.totalram,
        min_free_kbytes=boot.min_free_kbytes,
        thp=False,
        boot_zones=zones,
        memblock=None,
        bootmem=boot.bootmem,
        kernel_map=boot.setup.direct_map,
        prediction=None,
        assumptions=tuple(boot.assumptions),
        stages=tuple(boot.stages),
        log=tuple(boot.setup.log),
    )
