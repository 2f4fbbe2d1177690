# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/zoneinfo: marks, sizes, reserves and per-CPU lists of every zone, populated or not.

Counters that the model does not keep (pages on LRU lists, dirty pages, ...) are printed as 0, as in
a kernel that has just handed its memory over.

Linux: zoneinfo_show_print(), vmstat_text[], mm/vmstat.c (2.6.24, 6.1, 6.12)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from physmem.mm.state import PcpState, State, ZoneState

_NODE_6_1 = [
    "nr_inactive_anon",
    "nr_active_anon",
    "nr_inactive_file",
    "nr_active_file",
    "nr_unevictable",
    "nr_slab_reclaimable",
    "nr_slab_unreclaimable",
    "nr_isolated_anon",
    "nr_isolated_file",
    "workingset_nodes",
    "workingset_refault_anon",
    "workingset_refault_file",
    "workingset_activate_anon",
    "workingset_activate_file",
    "workingset_restore_anon",
    "workingset_restore_file",
    "workingset_nodereclaim",
    "nr_anon_pages",
    "nr_mapped",
    "nr_file_pages",
    "nr_dirty",
    "nr_writeback",
    "nr_writeback_temp",
    "nr_shmem",
    "nr_shmem_hugepages",
    "nr_shmem_pmdmapped",
    "nr_file_hugepages",
    "nr_file_pmdmapped",
    "nr_anon_transparent_hugepages",
    "nr_vmscan_write",
    "nr_vmscan_immediate_reclaim",
    "nr_dirtied",
    "nr_written",
    "nr_throttled_written",
    "nr_kernel_misc_reclaimable",
    "nr_foll_pin_acquired",
    "nr_foll_pin_released",
    "nr_kernel_stack",
    "nr_page_table_pages",
    "nr_sec_page_table_pages",
]
_ZONE_6_1 = [
    "nr_free_pages",
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_bounce",
    "nr_zspages",
    "nr_free_cma",
]
_ZONE_2_6_24 = [
    "nr_free_pages",
    "nr_inactive",
    "nr_active",
    "nr_anon_pages",
    "nr_mapped",
    "nr_file_pages",
    "nr_dirty",
    "nr_writeback",
    "nr_slab_reclaimable",
    "nr_slab_unreclaimable",
    "nr_page_table_pages",
    "nr_unstable",
    "nr_bounce",
    "nr_vmscan_write",
]
_NUMA = ["numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other"]
_PROMOTE = ["pgpromote_success", "pgpromote_candidate"]
_CMA_TYPE = 4
_DEMOTE = ["pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged"]


@dataclass(frozen=True)
class ZoneinfoForm:
    """What a kernel prints.

    Attributes
    ----------
    node, zone : counters of a node and of a zone, in order; numa_* are added on NUMA kernels
    node_numa : further counters of a node on NUMA kernels
    promo : the promo watermark has a line
    movable_clamp : marks of Movable are at least 32 frames, even of an empty one; other kernels do
        so only where Movable is carved out of HighMem, that is, where there is high memory
    """

    node: Sequence[str]
    zone: Sequence[str]
    node_numa: Sequence[str] = ()
    promo: bool = False
    movable_clamp: bool = False


FORMS = {
    "2.6.24": ZoneinfoForm((), _ZONE_2_6_24),
    "6.1": ZoneinfoForm([*_NODE_6_1, "nr_swapcached"], _ZONE_6_1, _PROMOTE),
    "6.12": ZoneinfoForm(
        [*_NODE_6_1, "nr_iommu_pages", "nr_swapcached"],
        [*_ZONE_6_1, "nr_unaccepted"],
        [*_PROMOTE, *_DEMOTE],
        promo=True,
        movable_clamp=True,
    ),
}
"""By profile, as Debian builds these kernels."""


def stat_threshold(nr_cpus: int, managed: int, page_shift: int = 12) -> int:
    """Pages by which a CPU's share of a counter may differ before it is folded into the zone's.

    Examples
    --------
    >>> stat_threshold(1, 3840), stat_threshold(2, 148974), stat_threshold(256, 1 << 30)
    (2, 16, 125)

    Linux: calculate_normal_threshold(), mm/vmstat.c (2.6.24, 6.1)
    """
    share = managed >> (27 - page_shift)
    return min(2 * nr_cpus.bit_length() * (1 + share.bit_length()), 125)


@dataclass(frozen=True)
class _Context:
    form: ZoneinfoForm
    zone_names: Sequence[str]
    counters: Sequence[str]
    page_shift: int
    pageblock_order: int
    has_highmem: bool


def zoneinfo(
    state: State,
    zone_names: Sequence[str],
    *,
    kernel: str = "6.1",
    numa: bool = True,
    page_shift: int = 12,
    nodes: Iterable[int] = (),
) -> str:
    """Text of /proc/zoneinfo.

    Parameters
    ----------
    zone_names : zones of the architecture, lowest first; those without memory are printed, too
        (2.6.24 leaves them out)
    kernel : profile whose format it is: a key of `FORMS`
    numa : the kernel is built for NUMA
    nodes : nodes that are online, also without memory (2.6.24 leaves those out)

    Examples
    --------
    >>> from physmem.views.sample import small_state
    >>> text = zoneinfo(small_state(), ("DMA", "DMA32", "Normal", "Movable", "Device"))
    >>> text.splitlines()[1:3], "  pages free     1568" in text
    (['  per-node stats', '      nr_inactive_anon 0'], True)
    """
    form = FORMS[kernel]
    counters = [*form.zone, *_NUMA] if numa else form.zone
    has_highmem = any(zone.name == "HighMem" for zone in state.zones)
    context = _Context(form, zone_names, counters, page_shift, state.pageblock_order, has_highmem)
    lines: list[str] = []
    for node in sorted({*(zone.node for zone in state.zones), *nodes}):
        own = {zone.name: zone for zone in state.zones if zone.node == node}
        if not form.node:
            for zone in own.values():
                lines += _old_zone(zone, context)
            continue
        of_node = [*form.node, *form.node_numa] if numa else form.node
        for name in zone_names:
            lines.append(f"Node {node}, zone {name:>8}")
            present = own.get(name)
            if present is not None and of_node:
                lines += ["  per-node stats", *_counters(of_node, {})]
                of_node = []
            lines += _zone(present, context, _empty_mark(name, context))
    return "\n".join(lines) + "\n"


def _free_pages(zone: ZoneState) -> int:
    return sum(len(members) << order for order, row in enumerate(zone.free) for members in row)


def _free_cma(zone: ZoneState) -> int:
    if len(zone.free[0]) <= _CMA_TYPE + 1:
        return 0
    return sum(len(row[_CMA_TYPE]) << order for order, row in enumerate(zone.free))


def _counters(names: Iterable[str], known: dict[str, int], indent: int = 6) -> list[str]:
    return [f"{' ' * indent}{name:<12} {known.get(name, 0)}" for name in names]


def _protection(zone: ZoneState | None, context: _Context) -> str:
    nr = len(context.zone_names)
    row = [*(zone.lowmem_reserve if zone else []), *[0] * nr][:nr]
    return f"        protection: ({', '.join(map(str, row))})"


def _empty_mark(name: str, context: _Context) -> int:
    """Watermarks of a zone without memory.

    Linux: __setup_per_zone_wmarks(), zone_movable_is_highmem() (6.1, 6.12)
    """
    clamped = context.form.movable_clamp or context.has_highmem
    return 32 if name == "HighMem" or (name == "Movable" and clamped) else 0


def _zone(zone: ZoneState | None, context: _Context, empty_mark: int) -> list[str]:
    marks = [mark + zone.boost for mark in zone.wmark] if zone else [empty_mark] * 4
    sizes = {"boost": zone.boost if zone else 0, "min": marks[0], "low": marks[1], "high": marks[2]}
    if context.form.promo:
        sizes["promo"] = marks[3]
    cma = zone.pageblocks.count("C") << context.pageblock_order if zone else 0
    sizes |= {
        "spanned": zone.spanned if zone else 0,
        "present": zone.present if zone else 0,
        "managed": zone.managed if zone else 0,
        "cma": cma,
    }
    free = _free_pages(zone) if zone else 0
    lines = [f"  pages free     {free}"]
    lines += [f"        {name:<8} {value}" for name, value in sizes.items()]
    lines.append(_protection(zone, context))
    if zone is None:
        return lines
    known = {"nr_free_pages": free, "nr_free_cma": _free_cma(zone)}
    lines += [*_counters(context.counters, known), "  pagesets"]
    threshold = stat_threshold(len(zone.pcp), zone.managed, context.page_shift)
    for pcp in zone.pcp:
        lines += [f"    cpu: {pcp.cpu}", *_pageset(pcp.count, pcp.high, pcp.batch)]
        lines.append(f"  vm stats threshold: {threshold}")
    return [*lines, "  node_unreclaimable:  0", f"  start_pfn:           {zone.start}"]


def _pageset(count: int, high: int, batch: int) -> list[str]:
    row = {"count": count, "high": high, "batch": batch}
    return [f"              {name + ':':<6} {value}" for name, value in row.items()]


def _old_zone(zone: ZoneState, context: _Context) -> list[str]:
    """A zone as 2.6.24 prints it: hot and cold lists of each CPU one after the other."""
    free = _free_pages(zone)
    marks = dict(zip(("min", "low", "high"), zone.wmark, strict=False))
    lines = [f"Node {zone.node}, zone {zone.name:>8}", f"  pages free     {free}"]
    lines += [f"        {name:<8} {value}" for name, value in marks.items()]
    lines += ["        scanned  0 (a: 0 i: 0)", f"        spanned  {zone.spanned}"]
    lines += [f"        present  {zone.present}"]
    lines += _counters(context.counters, {"nr_free_pages": free}, 4)
    lines += [_protection(zone, context), "  pagesets"]
    threshold = stat_threshold(len(zone.pcp), zone.present, context.page_shift)
    for pcp in zone.pcp:
        for number, (count, high, batch) in enumerate(_hot_and_cold(pcp)):
            lines.append(f"    cpu: {pcp.cpu} pcp: {number}")
            lines += _pageset(count, high, batch)
        lines.append(f"  vm stats threshold: {threshold}")
    lines += ["  all_unreclaimable: 0", "  prev_priority:     12"]
    return [*lines, f"  start_pfn:         {zone.start}"]


def _hot_and_cold(pcp: PcpState) -> list[tuple[int, int, int]]:
    """Count, high and batch of the hot list and of the cold one."""
    hot, cold = pcp.lists
    return [
        (len(hot), pcp.high, pcp.batch),
        (len(cold), pcp.cold_high or 0, pcp.cold_batch or 1),
    ]
