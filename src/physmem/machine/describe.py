# SPDX-License-Identifier: GPL-2.0-or-later
"""Words for what is known about frames and zones: for messages and for `Machine.zones`."""

from dataclasses import dataclass
from typing import Any

from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.tables import Tables
from physmem.mm import mmzone
from physmem.mm import page_check as check
from physmem.mm.entry import do_find_block, do_find_zone
from physmem.mm.lists import find_run
from physmem.mm.mmzone import HEAD_IN_USE, HEAD_ON_PCP, PG_IN_USE, PG_MOVABLE, PG_PREPARED
from physmem.mm.state import NAME_OF_LETTER, block_letters, table_types


@dataclass(frozen=True)
class ZoneInfo:
    """One zone at one moment; all sizes in frames.

    Attributes
    ----------
    number : position in `Machine.zones`
    start_pfn, spanned_pages, present_pages, managed_pages, free_pages : as in /proc/zoneinfo
    watermark : min, low, high, promo without the boost
    lowmem_reserve : per zone of the architecture, what is kept from requests for it
    pcp_high, pcp_batch, pcp_count : per-CPU lists; count over all CPUs
    nr_steals, nr_claims : fallbacks so far, and those of them that took the pageblock over
    """

    number: int
    node: int
    name: str
    start_pfn: int
    spanned_pages: int
    present_pages: int
    managed_pages: int
    free_pages: int
    watermark: tuple[int, ...]
    watermark_boost: int
    lowmem_reserve: tuple[int, ...]
    nr_reserved_highatomic: int
    pcp_high: int
    pcp_batch: int
    pcp_count: int
    nr_steals: int
    nr_claims: int

    @property
    def end_pfn(self) -> int:
        """First frame behind the span."""
        return self.start_pfn + self.spanned_pages


def zone_info(tables: Tables, number: int, names: tuple[str, ...]) -> ZoneInfo:
    """What is known about a zone."""
    zone = tables.zones[number]
    nr_cpus = int(tables.memory[0]["nr_cpus"])
    pagesets = tables.pageset[number * nr_cpus : (number + 1) * nr_cpus]
    return ZoneInfo(
        number=number,
        node=int(zone["node"]),
        name=names[int(zone["zone_idx"])],
        start_pfn=int(zone["start_pfn"]),
        spanned_pages=int(zone["spanned_pages"]),
        present_pages=int(zone["present_pages"]),
        managed_pages=int(zone["managed_pages"]),
        free_pages=int(zone["nr_free_pages"]),
        watermark=tuple(zone["watermark"].tolist()),
        watermark_boost=int(zone["watermark_boost"]),
        lowmem_reserve=tuple(zone["lowmem_reserve"][: len(names)].tolist()),
        nr_reserved_highatomic=int(zone["nr_reserved_highatomic"]),
        pcp_high=int(pagesets[0]["high"]),
        pcp_batch=int(pagesets[0]["batch"]),
        pcp_count=int(pagesets["count"].sum()),
        nr_steals=int(zone["nr_steals"]),
        nr_claims=int(zone["nr_claims"]),
    )


def free_counts(zones: tuple[ZoneInfo, ...]) -> str:
    """Free frames and low mark of each zone, for a message about a lack of memory."""
    return ", ".join(
        f"node {zone.node} {zone.name} {zone.free_pages} free"
        f" (+{zone.pcp_count} on per-CPU lists, min {zone.watermark[0] + zone.watermark_boost})"
        for zone in zones
    )


def frame_state(tables: Tables, names: tuple[str, ...], pfn: int) -> str:
    """What a frame is now, in one clause.

    Examples: "free, in the block of order 4 at 0x1230 on the Movable list of node 0, zone DMA32";
    "on a per-CPU list (cpu 0, list 1) of node 0, zone DMA"; "in use"; "outside all zones".
    """
    number = _zone_of(tables, pfn)
    if number == mmzone.NONE:
        return "outside all zones"
    zone = tables.zones[number]
    where = f"node {int(zone['node'])}, zone {names[int(zone['zone_idx'])]}"
    page = tables.mem_map[pfn]
    mark, flags = int(page["order"]), int(page["flags"])
    if flags & PG_IN_USE:
        head = ready(do_find_block)(address(tables.memory), pfn)
        block = int(tables.mem_map[head]["order"])
        movable = ", movable" if flags & PG_MOVABLE else ""
        if block & HEAD_IN_USE:
            order = block & ~HEAD_IN_USE
            return f"in use, in the block of order {order} at {head:#x}{movable}, of {where}"
        return f"in use since the state was loaded{movable}, of {where}"
    if flags & PG_PREPARED and not mark:
        return f"being freed in a batch, of {where}"
    max_order = int(zone["max_order"])
    run = ready(find_run)(address(tables.memory), number, pfn)
    for order in range(max_order + 1):
        head = pfn >> order << order
        mark = int(tables.mem_map[head]["order"])
        if order == max_order and run != mmzone.NONE:
            mark = order + 1
        if mark == order + 1:
            first = run if order == max_order else head
            name = _type_name(zone, int(tables.mem_map[first]["mt"]))
            return f"free, in the block of order {order} at {head:#x} on the {name} list of {where}"
        if mark == HEAD_ON_PCP | order:
            at = f"the block of order {order} at {head:#x}"
            return f"on a per-CPU list ({_pcp_list(tables, head)}) in {at}, of {where}"
    return f"neither in use nor on a list, of {where}"


def _type_name(zone: Any, mt: int) -> str:
    """Name of a migratetype as the tables number it."""
    letters = block_letters(int(zone["features"]), int(zone["isolate_type"]) + 1)
    return NAME_OF_LETTER[letters[table_types(letters).index(mt)]]


def _zone_of(tables: Tables, pfn: int) -> int:
    if not 0 <= pfn < int(tables.memory[0]["max_pfn"]):
        return mmzone.NONE
    return ready(do_find_zone)(address(tables.memory), pfn)


def _pcp_list(tables: Tables, pfn: int) -> str:
    """Which CPU's list a block is on: the ring leads to its head."""
    frames, nr_cpus = int(tables.memory[0]["max_pfn"]), int(tables.memory[0]["nr_cpus"])
    at = pfn
    for _ in range(frames):
        at = int(tables.mem_map[at]["next"])
        if at >= frames:
            break
    per_free = mmzone.NR_PAGE_ORDERS * mmzone.MIGRATE_TYPES
    within = (at - frames) % (per_free + nr_cpus * mmzone.NR_PCP_LISTS) - per_free
    cpu, pindex = divmod(within, mmzone.NR_PCP_LISTS)
    return f"cpu {cpu}, list {pindex}"


def why_not_free(tables: Tables, names: tuple[str, ...], block: tuple[int, int], code: int) -> str:
    """Message for a free that was refused; `block` is pfn and order, `code` a reason of page_check.

    It names the first frame of the block that is not as it should be, and what it is now.
    """
    pfn, order = block
    what = f"free_pages({pfn:#x}, order={order})"
    if code == check.MISALIGNED:
        right = pfn >> order << order
        return (
            f"{what}: misaligned, a block of order {order} starts at a multiple of {1 << order}"
            f" such as {right:#x}; the frame is {frame_state(tables, names, pfn)}"
        )
    for frame in range(pfn, pfn + (1 << order)):
        number = _zone_of(tables, frame)
        outside = number == mmzone.NONE
        if outside or not int(tables.mem_map[frame]["flags"]) & PG_IN_USE:
            return f"{what}: {_refusal(tables, names, frame, outside=outside)}"
    mark = int(tables.mem_map[pfn]["order"])
    if code == check.WRONG_ORDER:
        return f"{what}: wrong order, it was allocated with order {mark & ~HEAD_IN_USE}"
    if code == check.SEVERAL:
        return f"{what}: wrong order, several allocated blocks lie there; free each one"
    state = frame_state(tables, names, pfn)
    if code == check.INSIDE:
        return f"{what}: not the first frame of its block; it is {state}"
    return f"{what}: not all of the block is memory of one zone; its first frame is {state}"


def _refusal(tables: Tables, names: tuple[str, ...], frame: int, *, outside: bool) -> str:
    state = frame_state(tables, names, frame)
    if outside:
        return f"outside memory, no zone has the frame {frame:#x}"
    kind = "double free or never allocated"
    page = tables.mem_map[frame]
    if int(page["order"]) & HEAD_ON_PCP and not int(page["order"]) & HEAD_IN_USE:
        kind = "double free"  # blocks get to per-CPU lists by a free or a refill
    return f"{kind}, frame {frame:#x} is {state}"
