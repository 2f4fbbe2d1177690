# SPDX-License-Identifier: GPL-2.0-or-later
"""What a device tree says about memory, told to memblock: banks, reservations, nodes.

Linux: drivers/of/fdt.c, drivers/of/of_reserved_mem.c, drivers/of/of_numa.c,
drivers/base/arch_numa.c (6.1)
"""

from physmem.bootalloc.memblock import Memblock
from physmem.firmware.hardware import DtMemory, DynamicReservation, Hardware, Reservation
from physmem.firmware.srat import Numa, default_distance
from physmem.lib.errors import BootAllocError

_ANYWHERE = (1 << 64) - 1


def scan_memory(
    memblock: Memblock, hardware: Hardware, log: list[str], page_size: int = 4096
) -> None:
    """Add the memory nodes, and cap them to what is usable.

    Linux: early_init_dt_scan_memory(), early_init_dt_check_for_usable_mem_range() (6.1)

    Examples
    --------
    >>> memblock, log = Memblock(), []
    >>> bank = DtMemory(base=0x40000800, size=0x20000000)
    >>> scan_memory(memblock, Hardware(arch="arm64", memory=(bank,)), log)
    >>> [(hex(start), hex(end)) for start, end, _ in memblock.mem_ranges()]
    [('0x40001000', '0x60000000')]
    """
    for bank in hardware.memory:
        if bank.size:
            _add_memory(memblock, bank, log, page_size)
        if bank.hotpluggable:
            memblock.mark_hotplug(bank.base, bank.size)
    if hardware.usable_range is not None:
        memblock.cap_memory_range(*hardware.usable_range)


def _add_memory(memblock: Memblock, bank: DtMemory, log: list[str], page_size: int) -> None:
    """Whole pages only.

    Linux: early_init_dt_add_memory_arch(), drivers/of/fdt.c (6.1)
    """
    base, size = bank.base, bank.size
    gap = -base % page_size
    if size < gap or size < page_size:
        log.append(f"OF: fdt: Ignoring memory block {base:#x} - {base + size:#x}")
        return
    base, size = base + gap, size - gap
    size -= size % page_size
    if size:
        memblock.add(base, size, caller="early_init_dt_add_memory_arch")


def scan_reserved_mem(memblock: Memblock, hardware: Hardware, log: list[str]) -> None:
    """Keep what has a fixed place, then find places for the rest.

    Linux: early_init_fdt_scan_reserved_mem(), drivers/of/fdt.c (6.1)
    """
    for area in hardware.reserved:
        _reserve(memblock, area, log)
    for wanted in hardware.dynamic:
        _alloc(memblock, wanted, log)


def _reserve(memblock: Memblock, area: Reservation, log: list[str]) -> None:
    """Linux: early_init_dt_reserve_memory_arch(), drivers/of/fdt.c (6.1)"""
    if not area.size:
        return
    if not area.nomap:
        memblock.reserve(area.base, area.size, caller="early_init_fdt_scan_reserved_mem")
        return
    # what someone else keeps must stay mapped; what is no memory is not mapped anyway
    if memblock.memory.overlaps(area.base, area.end) and memblock.is_region_reserved(
        area.base, area.size
    ):
        log.append(
            f"OF: fdt: Reserved memory: failed to reserve memory for node '{area.name}': "
            f"base {area.base:#018x}, size {area.size >> 20} MiB"
        )
        return
    memblock.mark_nomap(area.base, area.size)


def _alloc(memblock: Memblock, wanted: DynamicReservation, log: list[str]) -> None:
    """Linux: __reserved_mem_alloc_size(), drivers/of/of_reserved_mem.c (6.1)"""
    align = wanted.alignment or memblock.config.smp_cache_bytes
    spans = [(base, base + size) for base, size in wanted.ranges] or [(0, _ANYWHERE)]
    for start, end in spans:
        found = memblock.phys_alloc_range(
            wanted.size, align, start, end, caller="early_init_fdt_scan_reserved_mem"
        )
        if found:
            if wanted.nomap:
                memblock.mark_nomap(found, wanted.size)
            log.append(
                f"OF: reserved mem: allocated memory for '{wanted.name}' node: "
                f"base {found:#018x}, size {wanted.size >> 20} MiB"
            )
            return
    log.append(f"OF: reserved mem: failed to allocate memory for node '{wanted.name}'")


class ArchNuma:
    """Nodes from the banks' numbers, or one node of everything.

    Parameters
    ----------
    memblock : its memory is known; gets the nodes of its regions
    log : lines go there
    sizeof_pgdat : bytes of a node's descriptor
    max_numnodes : nodes that the kernel is built for

    Linux: arch_numa_init(), drivers/base/arch_numa.c (6.1)

    Examples
    --------
    >>> memblock, log = Memblock(), []
    >>> machine = Hardware.of(memory="1GiB", nodes=2, arch="arm64")
    >>> scan_memory(memblock, machine, log)
    >>> numa = ArchNuma(memblock, machine, log, sizeof_pgdat=0x2C80, max_numnodes=16).run()
    >>> numa.possible, [hex(start) for start, _ in numa.node_data.values()]
    ((0, 1), ['0x5fffd380', '0x7fffc380'])
    """

    def __init__(
        self,
        memblock: Memblock,
        hardware: Hardware,
        log: list[str],
        *,
        sizeof_pgdat: int,
        max_numnodes: int,
    ) -> None:
        self.memblock = memblock
        self.hardware = hardware
        self.log = log
        self.sizeof_pgdat = sizeof_pgdat
        self.max_numnodes = max_numnodes

    def run(self, *, off: bool = False) -> Numa:
        """Make the nodes; `off` is numa=off.

        Raises
        ------
        BootAllocError
            There is no memory for a node's descriptor: the kernel panics.
        """
        memblock, log = self.memblock, self.log
        if off:
            log.append("NUMA: NUMA disabled")
        else:
            at = self._alloc_distance()
            known = self._of_numa()
            if known is not None:
                return self._register(known, faked=False)
            size = self.max_numnodes * self.max_numnodes
            memblock.phys_free(at, size, caller="numa_free_distance")
        self._alloc_distance()
        start, end = memblock.start_of_dram(), memblock.end_of_dram()
        log.append(f"NUMA: Faking a node at [mem {start:#018x}-{end - 1:#018x}]")
        memblock.set_node(start, end - start, 0)
        return self._register([0], faked=True)

    def _alloc_distance(self) -> int:
        """Before the nodes are known, room for the distances of all that there may be.

        Linux: numa_alloc_distance(), drivers/base/arch_numa.c (6.1)
        """
        size = self.max_numnodes * self.max_numnodes
        return self.memblock.alloc(size, self.memblock.page_size, caller="numa_init")

    def _of_numa(self) -> list[int] | None:
        """Linux: of_numa_init(), drivers/of/of_numa.c; numa_register_nodes() (6.1)"""
        memblock, hardware = self.memblock, self.hardware
        parsed: set[int] = set()
        if any(bank.nid is not None for bank in hardware.memory):
            parsed |= set(hardware.cpu_domain)
        for bank in hardware.memory:
            if bank.nid is None:
                continue
            if bank.nid >= self.max_numnodes:
                self.log.append(f"OF: NUMA: Node id {bank.nid} exceeds maximum value")
                return None
            memblock.set_node(bank.base, bank.size, bank.nid)
            parsed.add(bank.nid)
        if not parsed:
            self.log.append("NUMA: No NUMA configuration found")
            return None
        for region in memblock.memory.regions:
            if region.nid >= self.max_numnodes:
                told = f"[mem {region.base:#010x}-{region.end - 1:#010x}]"
                self.log.append(f"NUMA: Warning: invalid memblk node {region.nid} {told}")
                return None
        return sorted(parsed)

    def _register(self, nodes: list[int], *, faked: bool) -> Numa:
        """Linux: setup_node_data(), drivers/base/arch_numa.c (6.1)"""
        memblock, hardware = self.memblock, self.hardware
        numa = Numa(
            possible=tuple(nodes),
            cpu_node=(0,) * hardware.nr_cpus if faked else hardware.cpu_domain,
            distance=default_distance(nodes[-1] + 1),
            faked=faked,
        )
        if hardware.distance and not faked:
            for a, row in zip(hardware.domains, hardware.distance, strict=True):
                for b, value in zip(hardware.domains, row, strict=True):
                    numa.distance[a][b] = value
        cache = memblock.config.smp_cache_bytes
        size = -(-self.sizeof_pgdat // cache) * cache
        for nid in nodes:
            own = [region for region in memblock.memory.regions if region.nid == nid]
            if own:
                numa.nodes[nid] = own[0].base, own[-1].end
            else:
                self.log.append(f"NUMA: Initmem setup node {nid} [<memory-less node>]")
            found = memblock.phys_alloc_try_nid(size, cache, nid)
            if not found:
                raise BootAllocError(
                    f"Cannot allocate {size} bytes for node {nid} data (the kernel panics); "
                    "give the machine more memory"
                )
            self.log.append(f"NUMA: NODE_DATA [mem {found:#010x}-{found + size - 1:#010x}]")
            numa.node_data[nid] = found, found + size
            really = memblock.search_pfn_nid(found // memblock.page_size)
            if really != nid:
                self.log.append(f"NUMA: NODE_DATA({nid}) on node {really}")
        return numa
