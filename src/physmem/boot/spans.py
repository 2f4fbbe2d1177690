# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames each zone of a node spans, and how many of them are holes.

Linux: zone_spanned_pages_in_node(), zone_absent_pages_in_node(), mm/page_alloc.c (2.6.24, 6.1)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from physmem.boot.features import BootFeature
from physmem.boot.limits import ZoneLimits
from physmem.boot.movable import MovablePlacement
from physmem.boot.ranges import MIRROR, MemoryRange, NodeRanges
from physmem.lib.errors import BadMachineError


@dataclass(frozen=True, slots=True)
class ZoneSpan:
    """Frames of one zone of one node.

    Attributes
    ----------
    start_pfn : first frame; 0 for an empty zone
    spanned : frames from the first to the last one
    absent : frames of them that are holes
    """

    start_pfn: int
    spanned: int
    absent: int

    @property
    def end_pfn(self) -> int:
        """Frame after the last one."""
        return self.start_pfn + self.spanned

    @property
    def present(self) -> int:
        """Frames that are memory."""
        return self.spanned - self.absent


EMPTY = ZoneSpan(0, 0, 0)


def _adjust(
    index: int,
    span: tuple[int, int],
    node: NodeRanges,
    limits: ZoneLimits,
    placement: MovablePlacement,
) -> tuple[int, int]:
    """Take out of a zone what ZONE_MOVABLE takes; or give ZONE_MOVABLE its frames.

    Linux: adjust_zone_range_for_zone_movable(), mm/page_alloc.c (6.1)
    """
    start, end = span
    movable = placement.pfn.get(node.nid, 0)
    if not movable:
        return start, end
    if index == limits.movable:
        return movable, min(node.end_pfn, limits.high[limits.movable_zone])
    if start < movable < end and not placement.mirror:
        return start, movable
    if start >= movable:
        return end, end
    return start, end


def node_spans(
    node: NodeRanges,
    limits: ZoneLimits,
    placement: MovablePlacement,
    ranges: Sequence[MemoryRange],
    features: BootFeature,
) -> tuple[ZoneSpan, ...]:
    """Span of each zone type on a node; position = zone index.

    Parameters
    ----------
    node : the node's memory
    ranges : all memory; read only where mirrored memory decides

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> from physmem.boot.limits import zone_limits
    >>> features = boot_features("6.1")
    >>> ranges = [MemoryRange(1, 159), MemoryRange(256, 131034)]
    >>> limits = zone_limits(("DMA", "DMA32", "Normal", "Movable"),
    ...     {"DMA": 4096, "DMA32": 131034, "Normal": 131034}, 1, features)
    >>> spans = node_spans(NodeRanges(0, ranges), limits, MovablePlacement(), ranges, features)
    >>> [(span.start_pfn, span.spanned, span.present) for span in spans]
    [(1, 4095, 3998), (4096, 126938, 126938), (0, 0, 0), (0, 0, 0)]

    Raises
    ------
    BadMachineError
        Mirrored memory of nodes that lie inside each other (the kernel's count would wrap).

    Linux: calculate_node_totalpages(), mm/page_alloc.c (2.6.24, 6.1)
    """
    if not node.ranges:
        return (EMPTY,) * len(limits.names)
    if BootFeature.EARLY_NODE_MAP in features:
        return _spans_by_limits(node, limits, placement)
    return _spans_by_node(node, limits, placement, ranges)


def _clip(start: int, end: int, node: NodeRanges) -> tuple[int, int]:
    """Part of [start, end) inside the node; empty when they do not meet."""
    if end < node.start_pfn or start > node.end_pfn:
        return 0, 0
    start, end = max(start, node.start_pfn), min(end, node.end_pfn)
    # A ZONE_MOVABLE that begins above its own end: the kernel's figure would wrap around.
    return start, max(start, end)


def _spans_by_limits(
    node: NodeRanges, limits: ZoneLimits, placement: MovablePlacement
) -> tuple[ZoneSpan, ...]:
    """Spans as 2.6.24 works them out: zones of a node follow each other without a gap.

    Linux: zone_spanned_pages_in_node(), free_area_init_core(), mm/page_alloc.c (2.6.24)
    """
    spans = []
    next_pfn = node.start_pfn
    for index, (low, high) in enumerate(zip(limits.low, limits.high, strict=True)):
        start, end = _clip(*_adjust(index, (low, high), node, limits, placement), node)
        spanned = end - start
        inside = (max(low, node.start_pfn), min(high, node.end_pfn))
        absent = node.absent(*_adjust(index, inside, node, limits, placement))
        spans.append(ZoneSpan(next_pfn, spanned, absent) if spanned else EMPTY)
        next_pfn += spanned
    return tuple(spans)


def _spans_by_node(
    node: NodeRanges,
    limits: ZoneLimits,
    placement: MovablePlacement,
    ranges: Sequence[MemoryRange],
) -> tuple[ZoneSpan, ...]:
    """Spans as 6.1 works them out: the node's span, cut to each zone's limits.

    Linux: zone_spanned_pages_in_node(), mm/page_alloc.c (6.1)
    """
    spans = []
    overlap = placement.mirror and node.nid in placement.pfn
    for index, (low, high) in enumerate(zip(limits.low, limits.high, strict=True)):
        start = min(max(node.start_pfn, low), high)
        end = min(max(node.end_pfn, low), high)
        start, end = _clip(*_adjust(index, (start, end), node, limits, placement), node)
        if start >= end:
            spans.append(EMPTY)
            continue
        absent = node.absent(start, end)
        if overlap and index in {limits.movable, limits.normal}:
            absent += _other_half(ranges, start, end, mirrored=index == limits.movable)
            if absent > end - start:
                msg = f"mirrored memory of nodes inside node {node.nid}: its frames count twice"
                raise BadMachineError(msg)
        spans.append(ZoneSpan(start, end - start, absent))
    return tuple(spans)


def _other_half(ranges: Sequence[MemoryRange], start: int, end: int, *, mirrored: bool) -> int:
    """Frames inside [start, end) that belong to the overlapping zone.

    Movable has what is not mirrored, Normal what is.

    Linux: zone_absent_pages_in_node(), mirrored_kernelcore, mm/page_alloc.c (6.1)
    """
    return sum(
        max(min(memory.end_pfn, end) - max(memory.start_pfn, start), 0)
        for memory in ranges
        if bool(memory.flags & MIRROR) == mirrored
    )
