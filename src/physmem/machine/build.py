# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine from a few words: its zones, all memory free, and the sizes a kernel would choose.

This is a machine before the kernel moves in: no image, no memory map, no holes, every pageblock
MOVABLE. Booting as a real machine does comes with a later version.
"""

import os
from typing import Any

from physmem.arch.descriptor import Arch, Generation, Limits
from physmem.arch.registry import arch_for
from physmem.firmware.platform import platform
from physmem.firmware.size import parse_size
from physmem.lib.errors import BadMachineError
from physmem.machine.layout import Layout
from physmem.machine.present_sizes import setup_present_sizes
from physmem.machine.profiles import feature_bits
from physmem.machine.sizing import (
    PAGE_SHIFT,
    lowmem_reserve,
    min_free_kbytes,
    pcp_batch,
    pcp_high,
    thp_min_free_kbytes,
    watermarks,
)
from physmem.machine.tables import MAX_PFN
from physmem.mm.features import HOT_COLD, MANAGED_PAGES, MERGE_TO_TAIL, PCP_AUTO_TUNING
from physmem.mm.mmzone import NR_PCP_LISTS, WMARK_HIGH, WMARK_LOW
from physmem.mm.state import BLOCK_LETTERS, PcpState, State, ZoneState, block_letters

MAX_CPUS = 8192
MAX_NODES = 64
_NO_LIMIT = 1 << 62


def plan(
    memory: str | int, arch: str, nodes: int, cpus: int, kernel: str = "6.1"
) -> tuple[State, Layout]:
    """Zones of a machine, all free, still without watermarks and per-CPU sizes.

    Raises
    ------
    BadMachineError
        Not a size, too little or too much of it, an unknown architecture or kernel, an
        architecture that this kernel does not know, no CPU, no node.
    """
    features = feature_bits(kernel)
    managed = features & MANAGED_PAGES
    shape = arch_for(arch, Generation.MEMBLOCK if managed else Generation.BOOTMEM)
    if shape.page_shift != PAGE_SHIFT:
        raise BadMachineError(f"{arch}: frames of 4 KiB only; boot such a machine (physmem.boot)")
    base = platform(arch).ram_base >> PAGE_SHIFT
    frames = parse_size(memory) >> PAGE_SHIFT
    for what, number, most in (("nodes", nodes, MAX_NODES), ("cpus", cpus, MAX_CPUS)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise BadMachineError(f"{what} {number!r}: a machine has 1 to {most}")
    layout = Layout(
        zone_names=shape.zones,
        cpu_node=tuple(cpu * nodes // cpus for cpu in range(cpus)),
        thp=shape.thp and not features & HOT_COLD,
        kernel=kernel,
    )
    block = 1 << max(layout.max_order, shape.pageblock_order)
    if frames < (1 if nodes == 1 else nodes * block):
        least = "one page of 4 KiB" if nodes == 1 else f"{nodes * 4} MiB for {nodes} nodes"
        raise BadMachineError(f"memory {memory!r}: a machine has at least {least}")
    most = min(shape.dram_pfn_limit, MAX_PFN) - base
    if frames > most:
        raise BadMachineError(f"memory {memory!r}: {arch} takes at most {most >> 18} GiB here")
    _check_host(frames, block, memory)
    per_node = frames // nodes // block * block if nodes > 1 else frames
    zones = []
    limits = _zone_limits(shape, base, base + frames)
    for node in range(nodes):
        start = base + node * per_node
        end = base + frames if node == nodes - 1 else start + per_node
        low = 0
        for name, limit in limits.items():
            first, behind = max(start, low), min(end, limit)
            low = limit
            if first < behind:
                zones.append(_free_zone(node, name, (first, behind), layout, shape))
    letters = block_letters(features, len(BLOCK_LETTERS))
    state = State(zones=zones, pageblock_order=shape.pageblock_order)
    state.migratetypes = "" if letters == BLOCK_LETTERS else letters
    return state, layout


def _zone_limits(shape: Arch, base: int, end: int) -> dict[str, int]:
    """Last frame of each zone, exclusive, for memory [base, end) without holes."""
    low = min(end, shape.layout.direct_map_bytes >> PAGE_SHIFT)
    return shape.max_zone_pfns(
        Limits(
            max_low_pfn=low,
            max_pfn=end,
            highstart_pfn=low,
            highend_pfn=end,
            dram_start=base << PAGE_SHIFT,
            dram_end=end << PAGE_SHIFT,
        )
    )


def _check_host(frames: int, block: int, memory: str | int) -> None:
    """Each free block of the largest order writes one page of the host's memory."""
    needed = frames // block << 12
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    if needed > there * 3 // 4:
        raise BadMachineError(
            f"memory {memory!r}: its tables need {needed / (1 << 30):.1f} GiB, "
            f"this computer has {there / (1 << 30):.1f} GiB; make it smaller"
        )


def _free_zone(
    node: int, name: str, span: tuple[int, int], layout: Layout, shape: Arch
) -> ZoneState:
    start, end = span
    features = feature_bits(layout.kernel)
    letters = block_letters(features, len(BLOCK_LETTERS))
    free: list[list[list[int]]] = [[[] for _ in letters] for _ in range(layout.max_order + 1)]
    movable = letters.index("M")
    top = layout.max_order
    pfn = start
    while pfn < end:
        order = min(top, (pfn & -pfn).bit_length() - 1 if pfn else top)
        while pfn + (1 << order) > end:
            order -= 1
        if order == top:
            whole = range(pfn, end - (1 << top) + 1, 1 << top)
            free[top][movable].extend(whole)
            pfn = whole[-1] + (1 << top)
        else:
            free[order][movable].append(pfn)
            pfn += 1 << order
    if not features & MERGE_TO_TAIL:  # a boot frees to HEAD: what comes last is given out first
        for row in free:
            row[movable].reverse()
    blocks = -(-end >> shape.pageblock_order) - (start >> shape.pageblock_order)
    return ZoneState(
        node=node,
        name=name,
        start=start,
        spanned=end - start,
        present=end - start,
        managed=end - start,
        wmark=[0, 0, 0, 0],
        free=free,
        pcp=[],
        pageblocks="M" * blocks,
        nr_free=[len(row[movable]) for row in free],
    )


def setup_sizes(state: State, layout: Layout, kbytes: int | None = None) -> None:
    """Fill in watermarks, reserves and per-CPU sizes as a kernel does at boot.

    Parameters
    ----------
    kbytes : int, optional
        min_free_kbytes as an administrator sets it; otherwise computed, with what khugepaged asks
        for when the layout has huge pages.

    Raises
    ------
    BadMachineError
        `kbytes` is negative or more than the machine has.
    """
    if not feature_bits(layout.kernel) & MANAGED_PAGES:
        setup_present_sizes(state, layout, kbytes)
        return
    normal = layout.zone_idx("Normal")
    lowmem = [zone for zone in state.zones if layout.zone_idx(zone.name) <= normal]
    total = sum(zone.managed for zone in lowmem)
    if kbytes is not None and not 0 <= kbytes <= total << 2:
        raise BadMachineError(f"min_free_kbytes {kbytes}: the machine has {total << 2} kB")
    tuned = feature_bits(layout.kernel) & PCP_AUTO_TUNING
    _set_watermarks(state, min_free_kbytes(total) if kbytes is None else kbytes)
    if kbytes is None and layout.thp:
        free = sum(max(0, zone.managed - zone.wmark[WMARK_HIGH]) for zone in lowmem)
        wanted = thp_min_free_kbytes(state.pageblock_order, len(lowmem), free, total)
        if wanted > min_free_kbytes(total):
            _set_watermarks(state, wanted)
    for node in {zone.node for zone in state.zones}:
        own = {zone.name: zone for zone in state.zones if zone.node == node}
        managed = [own[name].managed if name in own else 0 for name in layout.zone_names]
        table = lowmem_reserve(managed, layout.zone_names)
        for name, zone in own.items():
            zone.lowmem_reserve = table[layout.zone_idx(name)]
    for zone in state.zones:
        local = layout.cpu_node.count(zone.node) or layout.nr_cpus
        zone.pageset_batch = pcp_batch(zone.managed)
        zone.pageset_high = pcp_high(zone.wmark[WMARK_LOW], zone.pageset_batch, local)
        tuning: dict[str, Any] = {}
        if tuned:
            zone.pageset_high_max = pcp_high(zone.managed // 8, zone.pageset_batch, local)
            tuning = {"high_min": zone.pageset_high, "high_max": zone.pageset_high_max}
        zone.pcp = [
            PcpState(
                cpu=cpu,
                count=0,
                high=0 if tuned else zone.pageset_high,
                batch=zone.pageset_batch,
                lists=[[] for _ in range(NR_PCP_LISTS)],
                **tuning,
            )
            for cpu in range(layout.nr_cpus)
        ]


def _set_watermarks(state: State, kbytes: int) -> None:
    """Linux: __setup_per_zone_wmarks(), mm/page_alloc.c (6.1)."""
    lowmem = sum(zone.managed for zone in state.zones if zone.name != "HighMem")
    for zone in state.zones:
        high = zone.name == "HighMem"
        zone.wmark = watermarks(kbytes, zone.managed, lowmem, highmem=high)


def grouping_disabled(state: State) -> bool:
    """Tell whether there is too little memory to group pages by mobility.

    Linux: build_all_zonelists(), mm/page_alloc.c (6.1)
    """
    frames = sum(max(0, zone.managed - zone.wmark[WMARK_HIGH]) for zone in state.zones)
    return frames < state.nr_migratetypes << state.pageblock_order
