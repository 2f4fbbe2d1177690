# SPDX-License-Identifier: GPL-2.0-or-later
"""Where ZONE_MOVABLE begins on each node.

Linux: find_zone_movable_pfns_for_nodes(), mm/page_alloc.c (2.6.24, 6.1)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry, round_up
from physmem.boot.limits import ZoneLimits
from physmem.boot.ranges import HOTPLUG, MIRROR, MemoryRange, NodeRanges
from physmem.firmware.size import memparse
from physmem.lib.errors import BadInputError, BadMachineError


@dataclass(frozen=True, kw_only=True)
class MovableRequest:
    """What the command line asks for.

    Attributes
    ----------
    kernelcore, movablecore : frames
    kernelcore_percent, movablecore_percent : of all memory; 0: not asked; replaces the frames
    mirror : kernelcore=mirror
    movable_node : the option of that name
    """

    kernelcore: int = 0
    movablecore: int = 0
    kernelcore_percent: int = 0
    movablecore_percent: int = 0
    mirror: bool = False
    movable_node: bool = False


@dataclass(frozen=True, kw_only=True)
class MovablePlacement:
    """Where ZONE_MOVABLE begins.

    Attributes
    ----------
    pfn : first frame on each node that has one
    zone : index of the zone that it takes frames from; None: the kernel did not look
    mirror : the placement follows mirrored memory, so that Normal and Movable overlap
    warnings : lines of the log
    """

    pfn: Mapping[int, int] = field(default_factory=dict)
    zone: int | None = None
    mirror: bool = False
    warnings: tuple[str, ...] = ()


def _core(option: str, text: str, features: BootFeature, page_shift: int) -> tuple[int, int]:
    """Frames and percent of one option.

    Linux: cmdline_parse_core(), mm/page_alloc.c (6.1)
    """
    if BootFeature.KERNELCORE_PERCENT in features:
        percent = re.match(r"(0[xX][0-9a-fA-F]+|\d+)%", text)
        if percent:
            return 0, memparse(percent[1])[0]
    try:
        return memparse(text)[0] >> page_shift, 0
    except BadInputError as error:
        raise BadMachineError(f"{option}={text}: {error}") from None


def parse_movable(
    kernelcore: str | None,
    movablecore: str | None,
    features: BootFeature,
    *,
    movable_node: bool = False,
    page_shift: int = 12,
) -> MovableRequest:
    """Request of the options kernelcore=, movablecore= and movable_node; None: not given.

    Raises
    ------
    BadMachineError
        No size (the kernel would take it as 0).

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> parse_movable(None, "128M", boot_features("6.1")).movablecore
    32768
    >>> parse_movable("30%", None, boot_features("6.1")).kernelcore_percent
    30

    Linux: cmdline_parse_kernelcore(), cmdline_parse_movablecore(), mm/page_alloc.c (6.1)
    """
    mirror = False
    core, core_percent, movable, movable_percent = 0, 0, 0, 0
    if kernelcore is not None:
        if BootFeature.KERNELCORE_MIRROR in features and "mirror" in kernelcore.split(","):
            mirror = True
        else:
            core, core_percent = _core("kernelcore", kernelcore, features, page_shift)
    if movablecore is not None:
        movable, movable_percent = _core("movablecore", movablecore, features, page_shift)
    return MovableRequest(
        kernelcore=core,
        movablecore=movable,
        kernelcore_percent=core_percent,
        movablecore_percent=movable_percent,
        mirror=mirror,
        movable_node=movable_node and BootFeature.MOVABLE_NODE in features,
    )


def find_zone_movable_pfns(
    ranges: Sequence[MemoryRange],
    nodes: Mapping[int, NodeRanges],
    limits: ZoneLimits,
    request: MovableRequest,
    build: tuple[Geometry, BootFeature],
) -> MovablePlacement:
    """Place ZONE_MOVABLE: kernel memory is spread evenly over the nodes, the rest is movable.

    Parameters
    ----------
    ranges, nodes : all memory, ascending, and the same by node
    build : geometry and features of the kernel

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> from physmem.boot.limits import zone_limits
    >>> from physmem.boot.ranges import by_node
    >>> features = boot_features("6.1")
    >>> ranges = [MemoryRange(1, 159), MemoryRange(256, 131034)]
    >>> limits = zone_limits(("DMA", "DMA32", "Normal", "Movable"),
    ...     {"DMA": 4096, "DMA32": 131034, "Normal": 131034}, 1, features)
    >>> request = parse_movable(None, "128M", features)
    >>> find_zone_movable_pfns(ranges, by_node(ranges), limits, request, (Geometry(), features)).pfn
    {0: 98304}

    Linux: find_zone_movable_pfns_for_nodes(), mm/page_alloc.c (2.6.24, 6.1)
    """
    geometry, features = build
    known = limits.movable_zone if BootFeature.MOVABLE_ZONE_ALWAYS_KNOWN in features else None
    warnings: list[str] = []
    if request.movable_node:
        starts = _from_hotplug(ranges)
    elif request.mirror:
        starts = _from_mirror(ranges, geometry, warnings)
    else:
        total = sum(node.pages for node in nodes.values())
        kernelcore = _required_kernelcore(request, total, geometry, features, warnings)
        nothing = kernelcore == 0
        if BootFeature.KERNELCORE_ALL_IS_NONE in features:
            nothing = nothing or kernelcore >= total
        if nothing:
            return MovablePlacement(zone=known, warnings=tuple(warnings))
        starts = _spread(nodes, limits.low[limits.movable_zone], kernelcore)
    placed = {}
    for nid in nodes:
        pfn = round_up(starts.get(nid, 0), geometry.max_order_pages)
        inside = pfn < nodes[nid].end_pfn
        if pfn and (inside or BootFeature.MOVABLE_INSIDE_NODE not in features):
            placed[nid] = pfn
    return MovablePlacement(
        pfn=placed,
        zone=limits.movable_zone,
        mirror=request.mirror and not request.movable_node,
        warnings=tuple(warnings),
    )


def _from_hotplug(ranges: Sequence[MemoryRange]) -> dict[int, int]:
    """Return the lowest hotpluggable frame of each node.

    Linux: find_zone_movable_pfns_for_nodes(), movable_node, mm/page_alloc.c (6.1)
    """
    starts: dict[int, int] = {}
    for memory in ranges:
        if memory.flags & HOTPLUG:
            # A start at frame 0 counts as "none yet".
            seen = starts.get(memory.nid, 0)
            starts[memory.nid] = min(memory.start_pfn, seen) if seen else memory.start_pfn
    return starts


def _from_mirror(
    ranges: Sequence[MemoryRange], geometry: Geometry, warnings: list[str]
) -> dict[int, int]:
    """Return the lowest frame of each node from 4 GiB up that is not mirrored.

    Linux: find_zone_movable_pfns_for_nodes(), mirrored_kernelcore, mm/page_alloc.c (6.1)
    """
    starts: dict[int, int] = {}
    below = False
    for memory in ranges:
        if memory.flags & MIRROR:
            continue
        if memory.start_pfn < (4 << 30) >> geometry.page_shift:
            below = True
            continue
        seen = starts.get(memory.nid, 0)
        starts[memory.nid] = min(memory.start_pfn, seen) if seen else memory.start_pfn
    if below:
        warnings.append("This configuration results in unmirrored kernel memory.")
    return starts


def _required_kernelcore(
    request: MovableRequest,
    total: int,
    geometry: Geometry,
    features: BootFeature,
    warnings: list[str],
) -> int:
    """Frames that the kernel must be able to use; 0: all of them.

    Linux: find_zone_movable_pfns_for_nodes(), mm/page_alloc.c (6.1)
    """
    kernelcore, movablecore = request.kernelcore, request.movablecore
    for percent in (request.kernelcore_percent, request.movablecore_percent):
        if percent > 100:  # the kernel prints a warning with its call trace, and goes on
            warnings += [f"WARNING: {percent}% of memory asked for"]
    if request.kernelcore_percent:
        kernelcore = total * 100 * request.kernelcore_percent // 10000
    if request.movablecore_percent:
        movablecore = total * 100 * request.movablecore_percent // 10000
    if movablecore:
        movablecore = round_up(movablecore, geometry.max_order_pages)
        if BootFeature.MOVABLECORE_CAPPED in features:
            movablecore = min(movablecore, total)
        # Without the cap the difference wraps around: then the kernel gets everything.
        rest = (total - movablecore) % (1 << geometry.bits_per_long)
        kernelcore = max(kernelcore, rest)
    return kernelcore


def _spread(nodes: Mapping[int, NodeRanges], usable: int, kernelcore: int) -> dict[int, int]:
    """Give `kernelcore` frames to the kernel, equal shares first; `usable`: lowest movable frame.

    Each round gives every node a share; a node that has less leaves its part to the next round.
    A round goes on where the last one stopped, so that each range is looked at about once.
    """
    starts = dict.fromkeys(nodes, 0)
    first = dict.fromkeys(nodes, 0)
    for sharers in range(len(nodes), 0, -1):
        share = kernelcore // sharers
        for nid, node in nodes.items():
            if kernelcore < share:
                share = kernelcore // sharers
            rest = share
            index = first[nid]
            while index < len(node.ranges):
                memory = node.ranges[index]
                start = max(memory.start_pfn, starts[nid])
                if start >= memory.end_pfn:
                    index += 1
                    continue
                if start < usable:
                    fixed = min(memory.end_pfn, usable) - start
                    rest -= min(fixed, rest)
                    kernelcore -= min(fixed, kernelcore)
                    if memory.end_pfn <= usable:
                        starts[nid] = memory.end_pfn
                        index += 1
                        continue
                    start = usable
                size = min(memory.end_pfn - start, rest)
                starts[nid] = start + size
                kernelcore -= min(size, kernelcore)
                rest -= size
                if rest == 0:
                    break
                index += 1
            first[nid] = index
        if sharers == 1 or kernelcore <= sharers - 1:
            break
    return starts


def movable_lines(placement: MovablePlacement, page_shift: int = 12) -> list[str]:
    r"""Lines that tell where ZONE_MOVABLE begins.

    Examples
    --------
    >>> print("\n".join(movable_lines(MovablePlacement(pfn={0: 98304}))))
    Movable zone start for each node
      Node 0: 0x0000000018000000

    Linux: free_area_init(), mm/page_alloc.c (6.1)
    """
    lines = ["Movable zone start for each node"]
    lines += [
        f"  Node {nid}: {pfn << page_shift:#018x}" for nid, pfn in sorted(placement.pfn.items())
    ]
    return lines


def movable_pfn_lines(placement: MovablePlacement) -> list[str]:
    r"""Lines of 2.6.24 that tell where ZONE_MOVABLE begins.

    Examples
    --------
    >>> print("\n".join(movable_pfn_lines(MovablePlacement(pfn={0: 98304}))))
    Movable zone start PFN for each node
      Node 0: 98304

    Linux: free_area_init_nodes(), mm/page_alloc.c (2.6.24)
    """
    lines = ["Movable zone start PFN for each node"]
    return lines + [f"  Node {nid}: {pfn}" for nid, pfn in sorted(placement.pfn.items())]
