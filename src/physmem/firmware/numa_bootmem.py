# SPDX-License-Identifier: GPL-2.0-or-later
"""NUMA nodes of a PC in 2.6.24: one span per node, and a hash from address to node.

What that kernel gets wrong is kept: its bugs are its behaviour.

Linux: arch/x86/mm/srat_64.c, arch/x86/mm/numa_64.c (2.6.24)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.hardware import Hardware
from physmem.firmware.srat import default_distance, nodes_of, slit_valid

NODE_MIN_SIZE = 4 << 20
_COVER_SLACK_PAGES = 1 << 20
_STATIC_MAP_BYTES = 48
_FIRST_SAFE = 0x8000
FAKE_NODE_MIN_SIZE = 64 << 20


@dataclass
class NumaBootmem:
    """What the kernel made of ACPI's description.

    Attributes
    ----------
    nodes : (start, end) in bytes of each node, cut to memory
    cpu_node : node of each CPU; those of dropped nodes are on node 0
    active : frames [start, end) and node, as registered ("early_node_map")
    distance : matrix by node number
    shift : hash from address to node: bytes are divided by 1 << shift
    node_map : range of the hash in bytes when it is not in the image; (0, 0): it is
    """

    nodes: dict[int, tuple[int, int]] = field(default_factory=dict)
    cpu_node: tuple[int, ...] = ()
    active: list[tuple[int, int, int]] = field(default_factory=list)
    distance: list[list[int]] = field(default_factory=list)
    shift: int = 0
    node_map: tuple[int, int] = (0, 0)


def acpi_scan_nodes(
    hardware: Hardware,
    table: E820Bootmem,
    end_pfn: int,
    log: list[str],
    taken: Sequence[tuple[int, int]] = (),
) -> NumaBootmem | None:
    """Nodes from the SRAT; None: there is none, or it is refused.

    Parameters
    ----------
    end_pfn : first frame number behind all memory
    taken : ranges that are in use, as `E820Bootmem.find_area` wants them

    Examples
    --------
    >>> machine = Hardware.of(memory="1GiB", nodes=2, cpus=2)
    >>> table = E820Bootmem(wide=True)
    >>> table.memory_setup(machine.e820)
    >>> found = acpi_scan_nodes(machine, table, 0x3FFDA, [])
    >>> [(hex(start), hex(end)) for start, end in found.nodes.values()], found.shift
    ([('0x0', '0x20000000'), ('0x20000000', '0x3ffda000')], 29)
    """
    if not hardware.srat:
        return None
    numbers = nodes_of(hardware)
    numa = NumaBootmem()
    if not _memory_affinity(hardware, numbers, table, numa, log):
        return None
    spans = {}
    for nid, (start, end) in sorted(numa.nodes.items()):
        low, high = min(start, end_pfn << 12), min(end, end_pfn << 12)
        if high - low >= NODE_MIN_SIZE:
            spans[nid] = (low, high)
    numa.nodes = spans
    if not _covers_memory(spans, table, end_pfn, log):
        return None
    shift, map_bytes = hash_shift(spans)
    if map_bytes > _STATIC_MAP_BYTES:
        pad = 127
        found = table.find_area(_FIRST_SAFE, end_pfn << 12, map_bytes + pad, taken)
        if found is None:
            log.append("NUMA: Unable to allocate Memory to Node hash map")
            return None
        numa.node_map = (found, found + map_bytes + pad)
        log.append(f"NUMA: Allocated memnodemap from {found:x} - {found + map_bytes + pad:x}")
    if not _hash_fits(spans, shift):
        log.append(
            "Your memory is not aligned you need to rebuild your kernel "
            f"with a bigger NODEMAPSIZE shift={shift}"
        )
        log.append("SRAT: No NUMA node hash function found. Contact maintainer")
        return None
    log.append(f"NUMA: Using {shift} for the hash shift.")
    numa.shift = shift
    first = min(spans, default=0)
    numa.cpu_node = tuple(
        nid if (nid := numbers[domain]) in spans else first for domain in hardware.cpu_domain
    )
    numa.distance = _distance(hardware, numbers, log)
    return numa


def _memory_affinity(
    hardware: Hardware,
    numbers: Mapping[int, int],
    table: E820Bootmem,
    numa: NumaBootmem,
    log: list[str],
) -> bool:
    """Linux: acpi_numa_memory_affinity_init(), arch/x86/mm/srat_64.c (2.6.24)"""
    for entry in hardware.srat:
        # memory that may be plugged in later needs a reservation that no distribution builds in
        if not entry.enabled or entry.hotpluggable:
            continue
        nid, start, end = numbers[entry.domain], entry.base, entry.end
        other = _conflicting(numa.nodes, start, end)
        if other is not None:
            low, high = numa.nodes[other]
            span = f"PXM {entry.domain} ({start:x}-{end:x})"
            if other != nid:
                pxm = next(domain for domain, number in numbers.items() if number == other)
                log.append(f"SRAT: {span} overlaps with PXM {pxm} ({low:x}-{high:x})")
                log.append("SRAT: SRAT not used.")
                return False
            log.append(f"SRAT: Warning: {span} overlaps with itself ({low:x}-{high:x})")
        old = numa.nodes.get(nid, (start, end))
        span_start, span_end = min(start, old[0]), max(end, old[1])
        numa.nodes[nid] = (span_start, span_end)
        log.append(f"SRAT: Node {nid} PXM {entry.domain} {span_start:x}-{span_end:x}")
        for first, behind in table.active_regions(span_start >> 12, span_end >> 12):
            add_active_range(numa.active, nid, first, behind)
    return True


def grow_range(old: tuple[int, int], start: int, end: int) -> tuple[int, int] | None:
    """An entry of early_node_map[] that takes frames [start, end) in; None: they are apart.

    What lies on both sides of the entry only makes its end grow, as in the kernel.

    Linux: add_active_range(), mm/page_alloc.c (2.6.24)

    Examples
    --------
    >>> grow_range((4, 8), 5, 6), grow_range((4, 8), 8, 9), grow_range((4, 8), 2, 4)
    ((4, 8), (4, 9), (2, 8))
    >>> grow_range((4, 8), 9, 12) is None, grow_range((4, 8), 2, 12)
    (True, (4, 12))
    """
    low, high = old
    if start >= low and end <= high:
        return old
    if start <= high < end:
        return low, end
    if start < high and end >= low:
        return start, high
    return None


def add_active_range(active: list[tuple[int, int, int]], nid: int, start: int, end: int) -> None:
    """Note frames of a node, unless they are noted already; the first old entry that fits grows.

    Linux: add_active_range(), mm/page_alloc.c (2.6.24)

    Examples
    --------
    >>> active = [(0, 159, 0), (256, 1000, 0)]
    >>> add_active_range(active, 0, 900, 2000)
    >>> active
    [(0, 159, 0), (256, 2000, 0)]
    """
    for at, (low, high, node) in enumerate(active):
        grown = grow_range((low, high), start, end) if node == nid else None
        if grown is not None:
            active[at] = (*grown, nid)
            return
    active.append((start, end, nid))


def _conflicting(nodes: Mapping[int, tuple[int, int]], start: int, end: int) -> int | None:
    """Linux: conflicting_nodes(), arch/x86/mm/srat_64.c (2.6.24)"""
    for nid, (low, high) in sorted(nodes.items()):
        if low != high and ((high > start and low < end) or (high == end and low == start)):
            return nid
    return None


def _covers_memory(
    spans: Mapping[int, tuple[int, int]], table: E820Bootmem, end_pfn: int, log: list[str]
) -> bool:
    """The slack was meant to be 1 MiB, but counts frames.

    Linux: nodes_cover_memory(), arch/x86/mm/srat_64.c (2.6.24)
    """
    covered = 0
    for start, end in spans.values():
        low, high = start >> 12, end >> 12
        covered += high - low - table.hole_pages(low, high)
    total = end_pfn - table.hole_pages(0, end_pfn)
    if total - covered >= _COVER_SLACK_PAGES:
        log.append(
            f"SRAT: PXMs only cover {covered >> 8}MB of your {total >> 8}MB e820 RAM. Not used."
        )
        return False
    return True


def hash_shift(spans: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """Shift of the hash from address to node, and its size in bytes.

    Linux: extract_lsb_from_nodes(), arch/x86/mm/numa_64.c (2.6.24)

    Examples
    --------
    >>> hash_shift({0: (0, 1 << 30), 1: (1 << 30, 3 << 30)})
    (30, 4)
    >>> hash_shift({0: (0, 1 << 30)})
    (63, 1)
    """
    used = [(start, end) for start, end in spans.values() if start < end]
    bits = 0
    for start, _ in used:
        bits |= start
    lowest = (bits & -bits).bit_length() - 1
    shift = 63 if len(used) <= 1 or not bits else lowest
    return shift, (max((end for _, end in used), default=0) >> shift) + 1


def _hash_fits(spans: Mapping[int, tuple[int, int]], shift: int) -> bool:
    """No slot is wanted by two nodes.

    Linux: populate_memnodemap(), arch/x86/mm/numa_64.c (2.6.24)
    """
    last = -1
    for start, end in sorted(span for span in spans.values() if span[0] < span[1]):
        if start >> shift <= last:
            return False
        # slots are filled in steps from the start
        last = start + ((end - start - 1) >> shift << shift) >> shift
    return True


def _distance(hardware: Hardware, numbers: Mapping[int, int], log: list[str]) -> list[list[int]]:
    """Linux: acpi_numa_slit_init(), __node_distance(), arch/x86/mm/srat_64.c (2.6.24)"""
    matrix = default_distance(max(numbers.values(), default=0) + 1)
    if not hardware.distance:
        return matrix
    if not slit_valid(hardware.distance):
        log.append("ACPI: SLIT table looks invalid. Not used.")
        return matrix
    for a, row in zip(hardware.domains, hardware.distance, strict=True):
        for b, value in zip(hardware.domains, row, strict=True):
            if a in numbers and b in numbers:
                matrix[numbers[a]][numbers[b]] = value
    return matrix


def split_nodes_equally(
    table: E820Bootmem, end_pfn: int, nr_nodes: int
) -> list[tuple[int, int]] | None:
    """numa=fake=N: parts of equal size, in multiples of 64 MiB; None: too small for that.

    Linux: split_nodes_equally(), arch/x86/mm/numa_64.c (2.6.24)

    Examples
    --------
    >>> table = E820Bootmem(wide=True)
    >>> table.memory_setup(Hardware.of(memory="1GiB").e820)
    >>> [(start >> 20, end >> 20) for start, end in split_nodes_equally(table, 0x3FFDA, 3)]
    [(0, 384), (384, 704), (704, 1023)]
    """
    end = end_pfn << 12
    memory = end - (table.hole_pages(0, end_pfn) << 12)
    size = memory // nr_nodes
    big = size % FAKE_NODE_MIN_SIZE * nr_nodes // FAKE_NODE_MIN_SIZE
    size -= size % FAKE_NODE_MIN_SIZE
    if not size:
        return None
    nodes = []
    addr = 0
    for nid in range(nr_nodes):
        behind = addr + size + (FAKE_NODE_MIN_SIZE if nid < big else 0)
        if nid == nr_nodes - 1:
            behind = end
        while behind < end and (
            behind - addr - (table.hole_pages(addr >> 12, behind >> 12) << 12) < size
        ):
            behind += FAKE_NODE_MIN_SIZE
        behind = min(behind, end)
        nodes.append((addr, behind))
        addr = behind
        if addr == end:
            break
    return nodes
