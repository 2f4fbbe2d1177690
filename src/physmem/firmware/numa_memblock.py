# SPDX-License-Identifier: GPL-2.0-or-later
"""NUMA nodes of a PC in kernels with memblock: memory blocks cleaned up, then registered.

Linux: arch/x86/mm/numa.c (6.1)
"""

from dataclasses import dataclass, field, replace

from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.region import MAX_NUMNODES
from physmem.firmware.hardware import LOCAL_DISTANCE, Hardware
from physmem.firmware.srat import Numa, default_distance, nodes_of, slit_valid
from physmem.lib.errors import BadMachineError, BootAllocError

_PAGE = 4096
_SLACK_PAGES = 256
_EVERYTHING = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [start, end) that belong to a node."""

    nid: int
    start: int
    end: int

    def overlaps(self, start: int, end: int) -> bool:
        """Some byte is common."""
        return self.start < end and start < self.end

    def __str__(self) -> str:
        return f"[mem {self.start:#010x}-{self.end - 1:#010x}]"


@dataclass(frozen=True, kw_only=True)
class NumaConfig:
    """What the kernel knows and how it was built.

    Attributes
    ----------
    max_pfn : first frame number behind all memory
    max_mapped : first byte behind what is mapped
    sizeof_pgdat : bytes of a node's descriptor, as allocated
    align : its alignment
    off : numa=off
    max_numnodes : nodes that the kernel is built for
    """

    max_pfn: int
    max_mapped: int
    sizeof_pgdat: int = 0x2B000
    align: int = 64
    off: bool = False
    max_numnodes: int = MAX_NUMNODES


@dataclass
class _Attempt:
    """One source of information, tried."""

    blocks: list[Block] = field(default_factory=list)
    reserved: list[Block] = field(default_factory=list)
    parsed: set[int] = field(default_factory=set)
    distance: list[list[int]] | None = None


class NumaInit:
    """x86_numa_init(): ACPI's description, or one node of everything.

    Parameters
    ----------
    memblock : its memory is known; gets the nodes of its regions
    log : lines go there

    Examples
    --------
    >>> machine = Hardware.of(memory="1GiB", nodes=2, cpus=2)
    >>> memblock = Memblock()
    >>> memblock.add(0x1000, 0x9E000); memblock.add(0x100000, 0x3FEDA000)
    >>> config = NumaConfig(max_pfn=0x3FFDA, max_mapped=0x3FFDA000)
    >>> log = []
    >>> numa = NumaInit(machine, memblock, config, log).run()
    >>> numa.possible, [hex(start) for start, _ in numa.node_data.values()]
    ((0, 1), ['0x1ffd5000', '0x3ffae000'])
    """

    def __init__(
        self, hardware: Hardware, memblock: Memblock, config: NumaConfig, log: list[str]
    ) -> None:
        self.hardware = hardware
        self.memblock = memblock
        self.config = config
        self.log = log
        self.numbers = nodes_of(hardware)

    def run(self) -> Numa:
        """Make the nodes.

        Raises
        ------
        BootAllocError
            There is no memory for a node's descriptor: the kernel panics.
        """
        if not self.config.off:
            found = self._numa_init(faked=False)
            if found is not None:
                return found
        made = self._numa_init(faked=True)
        if made is None:
            raise BadMachineError("no memory for a single node: give the machine some")
        return made

    def _numa_init(self, *, faked: bool) -> Numa | None:
        """Linux: numa_init(), arch/x86/mm/numa.c (6.1)"""
        memblock = self.memblock
        memblock.set_node(0, _EVERYTHING, MAX_NUMNODES, array=memblock.memory)
        memblock.set_node(0, _EVERYTHING, MAX_NUMNODES, array=memblock.reserved)
        memblock.clear_hotplug(0, _EVERYTHING)
        attempt = _Attempt()
        known = self._dummy(attempt) if faked else self._acpi(attempt)
        if not known:
            return None
        memblock.set_bottom_up(enable=False)
        if not cleanup_meminfo(attempt, memblock, self.config.max_pfn, self.log):
            return None
        return self._register(attempt, faked=faked)

    # -- sources --

    def _dummy(self, attempt: _Attempt) -> bool:
        """Linux: dummy_numa_init()"""
        end = self.config.max_pfn << 12
        why = "NUMA turned off" if self.config.off else "No NUMA configuration found"
        self.log += [why, f"Faking a node at [mem {0:#018x}-{end - 1:#018x}]"]
        attempt.parsed.add(0)
        attempt.blocks.append(Block(0, 0, end))
        return True

    def _acpi(self, attempt: _Attempt) -> bool:
        """Linux: acpi_numa_init(), drivers/acpi/numa/srat.c (6.1)"""
        hardware = self.hardware
        if not hardware.srat:
            return False
        if len(self.numbers) > self.config.max_numnodes:
            self.log.append("ACPI: SRAT: Too many proximity domains.")
            return False
        for cpu, domain in enumerate(hardware.cpu_domain):
            node = self.numbers[domain]
            attempt.parsed.add(node)
            self.log.append(f"SRAT: PXM {domain} -> APIC {cpu:#04x} -> Node {node}")
        for entry in hardware.srat:
            if not entry.enabled:
                continue
            node = self.numbers[entry.domain]
            block = Block(node, entry.base, entry.end)
            if block.start < block.end:
                attempt.blocks.append(block)
            attempt.parsed.add(node)
            hot = " hotplug" if entry.hotpluggable else ""
            kept = " non-volatile" if entry.nonvolatile else ""
            self.log.append(f"ACPI: SRAT: Node {node} PXM {entry.domain} {block}{hot}{kept}")
            if entry.hotpluggable:
                self.memblock.mark_hotplug(entry.base, entry.length)
        if hardware.distance:
            if slit_valid(hardware.distance):
                self._slit(attempt)
            else:
                self.log.append("ACPI: SLIT table looks invalid. Not used.")
        return True

    def _slit(self, attempt: _Attempt) -> None:
        """Linux: acpi_numa_slit_init(); numa_set_distance(), arch/x86/mm/numa.c (6.1)"""
        domains = self.hardware.domains
        nodes = [self.numbers.get(domain) for domain in domains]
        for a, row in zip(nodes, self.hardware.distance, strict=True):
            for b, value in zip(nodes, row, strict=True):
                if a is None or b is None:
                    continue
                if attempt.distance is None:
                    attempt.distance = self._alloc_distance(attempt)
                if value > 255 or (a == b and value != LOCAL_DISTANCE):
                    told = f"from={a} to={b} distance={value}"
                    self.log.append(f"NUMA: Warning: invalid distance parameter, {told}")
                elif max(a, b) < len(attempt.distance):
                    attempt.distance[a][b] = value

    def _alloc_distance(self, attempt: _Attempt) -> list[list[int]]:
        """A byte for each pair of nodes; one page-aligned piece of memory.

        Linux: numa_alloc_distance(), arch/x86/mm/numa.c (6.1)
        """
        count = max(attempt.parsed | {block.nid for block in attempt.blocks}) + 1
        limit = self.config.max_mapped
        if not self.memblock.phys_alloc_range(
            count * count, _PAGE, 0, limit, caller="numa_set_distance"
        ):
            self.log.append("NUMA: Warning: can't allocate distance table!")
            return []
        self.log.append(f"NUMA: Initialized distance table, cnt={count}")
        return default_distance(count)

    # -- registering --

    def _register(self, attempt: _Attempt, *, faked: bool) -> Numa | None:
        """Linux: numa_register_memblks(), arch/x86/mm/numa.c (6.1)"""
        memblock = self.memblock
        possible = sorted(attempt.parsed | {block.nid for block in attempt.blocks})
        for block in attempt.blocks:
            size = block.end - block.start
            memblock.set_node(block.start, size, block.nid, array=memblock.memory)
        self._clear_kernel_node_hotplug(attempt)
        if not self._covers_memory(attempt.blocks):
            return None
        numa = Numa(
            possible=tuple(possible),
            distance=attempt.distance or default_distance(max(possible) + 1),
            faked=faked,
        )
        for nid in possible:
            own = [block for block in attempt.blocks if block.nid == nid]
            if not own:
                continue
            span = min(b.start for b in own), max(b.end for b in own)
            numa.nodes[nid] = span
            numa.node_data[nid] = self._alloc_node_data(nid)
        domain_of = self.hardware.cpu_domain
        numa.cpu_node = tuple(0 if faked else self.numbers[domain] for domain in domain_of)
        return numa

    def _clear_kernel_node_hotplug(self, attempt: _Attempt) -> None:
        """A node that holds the kernel itself cannot be unplugged.

        Linux: numa_clear_kernel_node_hotplug(), arch/x86/mm/numa.c (6.1)
        """
        memblock = self.memblock
        for block in attempt.blocks:
            size = block.end - block.start
            memblock.set_node(block.start, size, block.nid, array=memblock.reserved)
        used = {nid for _, _, nid in memblock.reserved_ranges() if nid != MAX_NUMNODES}
        for block in attempt.blocks:
            if block.nid in used:
                memblock.clear_hotplug(block.start, block.end - block.start)

    def _covers_memory(self, blocks: list[Block]) -> bool:
        """Linux: numa_meminfo_cover_memory(), arch/x86/mm/numa.c (6.1)"""
        ranges = list(self.memblock.mem_pfn_ranges())
        covered = 0
        for block in blocks:
            low, high = block.start >> 12, block.end >> 12
            covered += sum(
                max(min(end, high) - max(start, low), 0)
                for start, end, nid in ranges
                if nid == block.nid
            )
        limit = self.config.max_pfn
        total = sum(max(min(end, limit) - start, 0) for start, end, _ in ranges)
        if total - covered >= _SLACK_PAGES:
            self.log.append(
                f"NUMA: nodes only cover {covered >> 8}MB of your {total >> 8}MB "
                "e820 RAM. Not used."
            )
            return False
        return True

    def _alloc_node_data(self, nid: int) -> tuple[int, int]:
        """Linux: alloc_node_data(), arch/x86/mm/numa.c (6.1)"""
        size = self.config.sizeof_pgdat
        found = self.memblock.phys_alloc_try_nid(size, self.config.align, nid)
        if not found:
            raise BootAllocError(
                f"Cannot find {size} bytes in any node (initial node: {nid}) (the kernel panics); "
                "give the machine more memory"
            )
        end = found + size
        self.log.append(f"NODE_DATA({nid}) allocated [mem {found:#010x}-{end - 1:#010x}]")
        really = self.memblock.search_pfn_nid(found >> 12)
        if really != nid:
            self.log.append(f"    NODE_DATA({nid}) on node {really}")
        return found, end


def cleanup_meminfo(attempt: _Attempt, memblock: Memblock, max_pfn: int, log: list[str]) -> bool:
    """Cut the blocks to where memory is, refuse contradictions, join what may be joined.

    Returns
    -------
    bool
        False: blocks of different nodes overlap, nothing of it is used

    Linux: numa_cleanup_meminfo(), arch/x86/mm/numa.c (6.1)
    """
    high = max_pfn << 12
    kept: list[Block] = []
    for block in attempt.blocks:
        if not memblock.memory.overlaps(block.start, block.end):
            attempt.reserved.append(block)
            continue
        if block.end > high:
            attempt.reserved.append(replace(block, start=high))
        inside = replace(block, end=min(block.end, high))
        if inside.start < inside.end:
            kept.append(inside)
    first = 0
    while first < len(kept):
        second = first + 1
        while second < len(kept):
            a, b = kept[first], kept[second]
            if a.overlaps(b.start, b.end):
                if a.nid != b.nid:
                    log.append(f"NUMA: node {a.nid} {a} overlaps with node {b.nid} {b}")
                    return False
                log.append(f"NUMA: Warning: node {a.nid} {a} overlaps with itself {b}")
            joined = Block(a.nid, min(a.start, b.start), max(a.end, b.end))
            if a.nid != b.nid or any(
                other.nid != a.nid and other.overlaps(joined.start, joined.end) for other in kept
            ):
                second += 1
                continue
            log.append(f"NUMA: Node {a.nid} {a} + {b} -> {joined}")
            kept[first] = joined
            del kept[second]
        first += 1
    attempt.blocks = kept
    return True
