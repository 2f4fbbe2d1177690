# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of a boot log with figures that a start-up can be compared with.

Linux: mem_init_print_info(), free_area_init(), build_all_zonelists(),
alloc_large_system_hash(), mm/page_alloc.c (6.1)
"""

import re
from dataclasses import dataclass, field, fields

from physmem.firmware.bootlog_lines import LogLine


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """A line "Memory: 219836K/523744K available (...)" in KiB; `highmem` 0: not printed."""

    available: int
    physical: int
    code: int
    rwdata: int
    rodata: int
    init: int
    bss: int
    reserved: int
    cma: int
    highmem: int
    line: int


@dataclass(frozen=True, slots=True)
class HashLine:
    """A line "Dentry cache hash table entries: 65536 (order: 7, 524288 bytes, linear)"."""

    name: str
    entries: int
    order: int
    size: int
    how: str
    line: int


@dataclass(frozen=True, slots=True)
class PerCpuLine:
    """A line "percpu: Embedded 61 pages/cpu s212992 r8192 d28672 u2097152"; bytes."""

    nr_pages: int
    static: int
    reserved: int
    dynamic: int
    unit: int


@dataclass
class Figures:
    """Everything that lines of these kinds told; empty where a kind was not seen.

    Attributes
    ----------
    zone_ranges : (zone, first byte, end) in the log's order; 0, 0 for an empty zone
    movable_start : byte where ZONE_MOVABLE starts, by node
    node_ranges, initmem : (node, first byte, end)
    unavailable : (node, zone, pages)
    fallback : order of nodes, by node
    nr_zonelists, grouping, total_pages : of the line "Built n zonelists"
    cpu_node : (CPU's number in the order of the log, node)
    cpu_groups : CPUs by group, as the per-CPU allocator packs them: CPUs of one node
    max_pfn, max_arch_pfn, max_low_pfn : of "last_pfn" lines; 0: not told
    """

    zone_ranges: list[tuple[str, int, int]] = field(default_factory=list)
    movable_start: dict[int, int] = field(default_factory=dict)
    node_ranges: list[tuple[int, int, int]] = field(default_factory=list)
    initmem: list[tuple[int, int, int]] = field(default_factory=list)
    unavailable: list[tuple[int, str, int]] = field(default_factory=list)
    fallback: dict[int, tuple[int, ...]] = field(default_factory=dict)
    nr_zonelists: int = 0
    grouping: bool = True
    total_pages: int = 0
    policy_zone: str = ""
    hash_tables: list[HashLine] = field(default_factory=list)
    memory: MemoryLine | None = None
    per_cpu: PerCpuLine | None = None
    cpu_node: list[tuple[int, int]] = field(default_factory=list)
    cpu_groups: list[tuple[int, ...]] = field(default_factory=list)
    nr_cpus: int = 0
    possible_cpus: int = 0
    deferred: list[int] = field(default_factory=list)
    max_pfn: int = 0
    max_arch_pfn: int = 0
    max_low_pfn: int = 0

    def feed(self, line: LogLine) -> bool:
        """Take one line; False when it is of no kind known here."""
        for pattern, method in _PATTERNS:
            match = pattern.match(line.text)
            if match:
                getattr(self, method)(match, line.number)
                return True
        return False

    def _zone(self, match: re.Match[str], _line: int) -> None:
        if match["first"] is None:
            self.zone_ranges.append((match["zone"], 0, 0))
        else:
            self.zone_ranges.append((match["zone"], *_range(match)))

    def _movable(self, match: re.Match[str], _line: int) -> None:
        self.movable_start[int(match[1])] = int(match[2], 16)

    def _node(self, match: re.Match[str], _line: int) -> None:
        self.node_ranges.append((int(match["nid"]), *_range(match)))

    def _initmem(self, match: re.Match[str], _line: int) -> None:
        self.initmem.append((int(match["nid"]), *_range(match)))

    def _unavailable(self, match: re.Match[str], _line: int) -> None:
        self.unavailable.append((int(match[1]), match[2], int(match[3])))

    def _fallback(self, match: re.Match[str], _line: int) -> None:
        self.fallback[int(match[1])] = tuple(int(nid) for nid in match[2].split())

    def _zonelists(self, match: re.Match[str], _line: int) -> None:
        self.nr_zonelists = int(match[1])
        self.grouping = match[2] == "on"
        self.total_pages = int(match[3])

    def _policy(self, match: re.Match[str], _line: int) -> None:
        self.policy_zone = match[1]

    def _hash(self, match: re.Match[str], line: int) -> None:
        self.hash_tables.append(
            HashLine(match[1], int(match[2]), int(match[3]), int(match[4]), match[5], line)
        )

    def _memory(self, match: re.Match[str], line: int) -> None:
        numbers = [int(number or 0) for number in match.groups()]
        if self.memory is None:
            names = [part.name for part in fields(MemoryLine)][:-1]
            self.memory = MemoryLine(**dict(zip(names, numbers, strict=True)), line=line)

    def _per_cpu(self, match: re.Match[str], _line: int) -> None:
        self.per_cpu = PerCpuLine(*(int(number) for number in match.groups()))

    def _cpu_node(self, match: re.Match[str], _line: int) -> None:
        self.cpu_node.append((int(match[1], 16), int(match[2])))

    def _groups(self, match: re.Match[str], _line: int) -> None:
        for group in re.finditer(r"\[(\d+)\]((?: +[\d-]+)*)", match[1]):
            cpus = tuple(int(cpu) for cpu in group[2].split() if cpu.isdigit())
            index = int(group[1])
            while len(self.cpu_groups) <= index:
                self.cpu_groups.append(())
            self.cpu_groups[index] += cpus

    def _cpus(self, match: re.Match[str], _line: int) -> None:
        self.nr_cpus = int(match[1])

    def _possible(self, match: re.Match[str], _line: int) -> None:
        self.possible_cpus = self.possible_cpus or int(match[1])

    def _deferred(self, match: re.Match[str], _line: int) -> None:
        self.deferred.append(int(match[1]))

    def _pfn(self, match: re.Match[str], _line: int) -> None:
        # printed first for all memory, then, when there is more than 4 GiB, for what lies below
        if not self.max_pfn:
            self.max_pfn = int(match[1], 16)
            self.max_arch_pfn = int(match[2], 16)


def _range(match: re.Match[str]) -> tuple[int, int]:
    return int(match["first"], 16), int(match["last"], 16) + 1


_MEM = r"\[mem 0x(?P<first>[0-9a-f]+)-0x(?P<last>[0-9a-f]+)\]"
_PATTERNS = tuple(
    (re.compile(pattern), method)
    for pattern, method in (
        (r"  (?P<zone>DMA|DMA32|Normal|HighMem|Device) +(?:empty$|" + _MEM + ")", "_zone"),
        (r"  Node (\d+): 0x([0-9a-f]+)", "_movable"),
        (r"  node +(?P<nid>\d+): " + _MEM, "_node"),
        (r"Initmem setup node (?P<nid>\d+) " + _MEM, "_initmem"),
        (r"On node (\d+), zone (\w+): (\d+) pages in unavailable ranges", "_unavailable"),
        (r"Fallback order for Node (\d+): ([\d ]*)", "_fallback"),
        (
            r"Built (\d+) zonelists, mobility grouping (on|off)\.  Total pages: (\d+)",
            "_zonelists",
        ),
        (r"Policy zone: (\w+)", "_policy"),
        (
            r"(\S.*) hash table entries: (\d+) \(order: (-?\d+), (\d+) bytes, ([\w ]+)\)",
            "_hash",
        ),
        (
            (
                r"Memory: (\d+)K/(\d+)K available \((\d+)K kernel code, (\d+)K rwdata,"
                r" (\d+)K rodata, (\d+)K init, (\d+)K bss, (\d+)K reserved, (\d+)K cma-reserved"
                r"(?:, (\d+)K highmem)?\)"
            ),
            "_memory",
        ),
        (
            r"percpu: Embedded (\d+) pages/cpu (?:@\S+ )?s(\d+) r(\d+) d(\d+) u(\d+)",
            "_per_cpu",
        ),
        (r"(?:ACPI: )?SRAT: PXM \d+ -> APIC 0x([0-9a-f]+) -> Node (\d+)", "_cpu_node"),
        (r"pcpu-alloc: (\[\d.*)", "_groups"),
        (r"smp: Brought up \d+ nodes?, (\d+) CPUs?", "_cpus"),
        (r".*\bnr_cpu_ids[:=](\d+)", "_possible"),
        (r"node (\d+) deferred pages initialised", "_deferred"),
        (r"last_pfn = (0x[0-9a-f]+) max_arch_pfn = (0x[0-9a-f]+)", "_pfn"),
    )
)
