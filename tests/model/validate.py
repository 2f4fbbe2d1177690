# SPDX-License-Identifier: GPL-2.0-or-later
"""Invariants of a machine, each with a name that its AssertionError carries."""

from itertools import pairwise
from typing import TYPE_CHECKING

from .features import FALLBACKS
from .pcp import PerCpuPages
from .zone import Zone

if TYPE_CHECKING:
    from .page_alloc import Machine


def validate(machine: "Machine") -> None:
    for zone, pcps in zip(machine.zones, machine.pcp, strict=True):
        check_lists(zone)
        check_coalescing(zone)
        check_counters(zone)
        check_pcps(zone, pcps)
        check_overlap(machine, zone, pcps)
        check_conservation(zone, pcps)


def check_lists(zone: Zone) -> None:
    listed = 0
    assert len(zone.free_list) == zone.max_order + 1, "order-range: number of orders"
    for order, lists in enumerate(zone.free_list):
        for letter, chunks in lists.items():
            for pfn in chunks:
                at = f"chunk {pfn} on list order {order} type {letter}"
                assert zone.buddy.get(pfn) == (order, letter), f"list-index: {at}"
                check_place(zone, pfn, order, at)
                check_hygiene(zone, pfn, order, letter, at)
            listed += len(chunks)
    assert listed == len(zone.buddy), "list-index: a chunk is on two lists or on none"


def check_place(zone: Zone, pfn: int, order: int, at: str) -> None:
    assert 0 <= order <= zone.max_order, f"order-range: {at}"
    assert pfn % (1 << order) == 0, f"alignment: {at}"
    inside = zone.zone_spans_pfn(pfn) and zone.zone_spans_pfn(pfn + (1 << order) - 1)
    assert inside, f"inside-zone: {at}"


def check_hygiene(zone: Zone, pfn: int, order: int, letter: str, at: str) -> None:
    if zone.features.list_type_is_block_type:
        for frame in range(pfn, pfn + (1 << order), zone.pageblock_nr_pages):
            own = zone.get_pageblock_migratetype(frame)
            assert own == letter, f"hygiene: {at} in a block of type {own}"


def check_coalescing(zone: Zone) -> None:
    """No two buddies are free side by side.

    From pageblock order upwards two of them may: when a block was or is special, they did not
    merge then, and nothing makes up for it later.
    """
    for pfn, (order, letter) in zone.buddy.items():
        buddy = pfn ^ (1 << order)
        if order == zone.max_order or not zone.page_is_buddy(buddy, order):
            continue
        barrier = (
            order >= zone.pageblock_order
            and zone.features.special_blocks_do_not_merge
            and zone.has_had_special_blocks
        )
        assert barrier, f"coalescing: {pfn} ({letter}) and {buddy} of order {order} are both free"


def check_counters(zone: Zone) -> None:
    by_letter = dict.fromkeys(zone.features.letters, 0)
    for order, lists in enumerate(zone.free_list):
        chunks = sum(len(pages) for pages in lists.values())
        assert zone.nr_free[order] == chunks, f"nr-free: order {order} of {zone.name}"
        for letter, pages in lists.items():
            by_letter[letter] += len(pages) << order
    free = sum(by_letter.values())
    if not zone.features.isolated_counts_as_free:
        free -= by_letter["I"]
    assert zone.nr_free_pages == free, f"nr-free-pages: {zone.nr_free_pages} counted, {free} free"
    assert zone.nr_free_cma_pages == by_letter.get("C", 0), "nr-free-cma"
    if zone.features.highatomic:
        blocks = sum(letter == "H" for letter in zone.pageblock.values())
        counted = zone.nr_reserved_highatomic // zone.pageblock_nr_pages
        # 6.1 gives back one block of a larger chunk; whoever takes the chunk forgets the other one
        enough = counted >= blocks if not zone.features.list_type_is_block_type else False
        assert enough or counted == blocks, "highatomic-count"


def check_pcps(zone: Zone, pcps: list[PerCpuPages]) -> None:
    for pcp in pcps:
        chunks = pcp.chunks()
        frames = sum(1 << order for _, order in chunks)
        assert pcp.count == frames, f"pcp-count: {pcp.count} counted, {frames} there"
        for pfn, order in chunks:
            at = f"chunk {pfn} of order {order} on the lists of CPU {pcp.cpu}"
            check_place(zone, pfn, order, at)
            assert zone.pcp_allowed_order(order), f"pcp-order: {at}"
            assert pfn in zone.pcppage_migratetype, f"pcp-type: {at}"
            if pcp.remembered(pfn) in FALLBACKS and not zone.features.frees_read_block_type:
                pindex = pcp.order_to_pindex(pcp.remembered(pfn), order)
                assert pfn in pcp.lists[pindex], f"pcp-type: {at}"


def check_overlap(machine: "Machine", zone: Zone, pcps: list[PerCpuPages]) -> None:
    chunks = [(pfn, order, "free") for pfn, (order, _) in zone.buddy.items()]
    chunks += [(pfn, order, "pcp") for pcp in pcps for pfn, order in pcp.chunks()]
    chunks += [
        (pfn, order, "prepared")
        for pfn, order in machine.prepared.items()
        if zone.zone_spans_pfn(pfn)
    ]
    chunks.sort()
    for (a, order, where), (b, _, where_b) in pairwise(chunks):
        apart = a + (1 << order) <= b
        assert apart, f"overlap: {a} order {order} ({where}) and {b} ({where_b})"
    for pfn, order, where in chunks:
        used = machine.movable.isdisjoint(range(pfn, pfn + (1 << order)))
        assert used, f"movable-in-use: frames at {pfn} ({where}) count as movable and in use"


def check_conservation(zone: Zone, pcps: list[PerCpuPages]) -> None:
    free = sum(n << order for order, n in enumerate(zone.nr_free))
    waiting = sum(pcp.count for pcp in pcps)
    total = free + waiting + zone.nr_in_use
    assert total == zone.managed, f"conservation: {total} frames instead of {zone.managed}"
    assert zone.nr_in_use >= 0, "conservation: more frames freed than there are"
