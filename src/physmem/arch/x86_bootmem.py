# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of 2.6.24 on x86, 32 and 64 bits, up to where the zones are made.

Linux: arch/x86/kernel/setup_32.c, arch/x86/kernel/setup_64.c (2.6.24)
"""

from dataclasses import replace

from physmem.arch.descriptor import Limits, Stage
from physmem.arch.direct_map import KERNEL
from physmem.arch.pages import image_table
from physmem.arch.setup import Setup
from physmem.arch.x86_direct_map import map_image
from physmem.arch.x86_direct_map_bootmem import (
    init_memory_mapping,
    init_pg_tables_end,
    pagetable_init,
)
from physmem.arch.x86_lowmem import find_low_pfn_range, highmem_lines
from physmem.bootalloc.bootmem import Bootmem
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.numa_bootmem import NumaBootmem, acpi_scan_nodes, split_nodes_equally
from physmem.firmware.srat import default_distance
from physmem.lib.errors import BadMachineError, BootAllocError

_PAGE = 4096
_TRAMPOLINE = 0x6000
_DMA_END = 16 << 20
_EBDA_MAX = 64 << 10
_IMAGE_MAPPED = 40 << 20
"""KERNEL_TEXT_SIZE"""


def _table(setup: Setup) -> E820Bootmem:
    if setup.e820_bootmem is None:
        raise BadMachineError("the firmware's map was not read yet; run the stages in order")
    return setup.e820_bootmem


def setup_memory_region(setup: Setup) -> None:
    """Linux: setup_memory_region(), arch/x86/kernel/e820_32.c, e820_64.c (2.6.24)"""
    table = E820Bootmem(wide=setup.arch.bits_per_long == 64, log=setup.log)
    table.memory_setup(setup.hardware.e820, setup.hardware.alt_mem_kib)
    setup.e820_bootmem = table


def parse_early_param(setup: Setup) -> None:
    """Linux: parse_early_param(), init/main.c (2.6.24)"""
    _table(setup).apply(setup.cmdline)


# -- 32 bits --


def setup_memory(setup: Setup) -> None:
    """Linux: setup_memory(), arch/x86/kernel/setup_32.c (2.6.24)"""
    pae = setup.arch.entry_bytes == 8
    tables_end, mapped = init_pg_tables_end(setup.image.end, pae=pae)
    setup.scratch["initial_mapped"] = mapped
    found = find_low_pfn_range(setup.arch, _table(setup).max_pfn(), setup.cmdline, setup.log)
    setup.limits = replace(found, min_low_pfn=-(-tables_end // _PAGE))
    setup.log += highmem_lines(setup.limits)


def setup_bootmem_allocator(setup: Setup) -> None:
    """Bootmem over low memory, and all that must not be used.

    Linux: setup_bootmem_allocator(), arch/x86/kernel/setup_32.c (2.6.24)
    """
    bootmem, hardware, limits = setup.old_boot, setup.hardware, setup.limits
    map_bytes = bootmem.init_bootmem(limits.min_low_pfn, limits.max_low_pfn)
    for start, end in _table(setup).ram_pfns():
        behind = min(end, limits.max_low_pfn)
        if start < behind:
            bootmem.free(start * _PAGE, (behind - start) * _PAGE)
    # kernel, its first page tables, the bitmap
    image_end = limits.min_low_pfn * _PAGE + map_bytes + _PAGE - 1
    bootmem.reserve(setup.image.start, image_end - setup.image.start)
    bootmem.reserve(0, _PAGE)
    if hardware.ebda:
        bootmem.reserve(hardware.ebda, _PAGE)
    if hardware.athlon:
        bootmem.reserve(0xA0000 - _PAGE, _PAGE)
    bootmem.reserve(_PAGE, _PAGE)
    # code that runs after a sleep
    bootmem.alloc_low(_PAGE)
    for table in hardware.mp_table:
        bootmem.reserve(table.base, _PAGE)
    _reserve_initrd(setup, limits.max_low_pfn << 12)


def smp_alloc_memory(setup: Setup) -> None:
    """A page for the code that starts other CPUs.

    Linux: smp_alloc_memory(), arch/x86/kernel/smpboot_32.c (2.6.24)
    """
    if setup.old_boot.alloc_low_pages(_PAGE) >= 0x9F000:
        raise BootAllocError("the trampoline of other CPUs lies above 0x9F000: the kernel BUGs")


# -- 64 bits --


def end_of_ram(setup: Setup) -> None:
    """Linux: e820_end_of_ram(), arch/x86/kernel/e820_64.c (2.6.24)"""
    table = _table(setup)
    end = table.end_of_ram(setup.arch.layout.direct_map_bytes >> 12)
    setup.limits = Limits(
        max_low_pfn=end, max_pfn=end, highstart_pfn=end, highend_pfn=end, dram_end=end << 12
    )


def ebda_range(setup: Setup) -> tuple[int, int]:
    """The extended BIOS data area in whole pages; (0, 0): there is none.

    Linux: discover_ebda(), arch/x86/kernel/setup_64.c (2.6.24)
    """
    addr = setup.hardware.ebda
    if not addr:
        return 0, 0
    size = max(setup.hardware.ebda_kib, 1) << 10
    size = -(-(size + addr % _PAGE) // _PAGE) * _PAGE
    return addr, addr + min(size, _EBDA_MAX)


def _taken(setup: Setup) -> list[tuple[int, int]]:
    """What a first fit must leave alone, in the order of the kernel's tests.

    Linux: bad_addr(), arch/x86/kernel/e820_64.c (2.6.24)
    """
    tables = setup.scratch.get("table_start", 0), setup.scratch.get("table_end", 0)
    image = setup.image
    return [tables, setup.initrd or (0, 0), (image.start, image.end), ebda_range(setup)]


def direct_map(setup: Setup) -> None:
    """Linux: init_memory_mapping(), arch/x86/mm/init_64.c (2.6.24)"""
    table = _table(setup)
    setup.direct_map.roots[KERNEL] = image_table(setup.image, 0)
    map_image(setup, (0, _IMAGE_MAPPED), range(506, 507))
    _, used = init_memory_mapping(
        table,
        table.end_pfn_map << 12,
        setup.arch.layout.page_offset,
        _taken(setup),
        setup.direct_map,
    )
    setup.scratch["table_start"], setup.scratch["table_end"] = used


def initmem_init(setup: Setup) -> None:
    """Bootmem for each node that there is.

    Linux: numa_initmem_init(), arch/x86/mm/numa_64.c; contig_initmem_init(),
    arch/x86/kernel/setup_64.c (2.6.24)
    """
    table, end_pfn = _table(setup), setup.limits.max_pfn
    if setup.arch.max_numnodes == 1:
        _contig_initmem_init(setup)
        return
    numa = _find_nodes(setup)
    if numa is None:
        off = setup.cmdline.numa == "off"
        setup.log.append("NUMA turned off" if off else "No NUMA configuration found")
        setup.log.append(f"Faking a node at {0:016x}-{end_pfn << 12:016x}")
        numa = NumaBootmem(
            nodes={0: (0, end_pfn << 12)},
            cpu_node=(0,) * setup.hardware.nr_cpus,
            active=[(start, end, 0) for start, end in table.active_regions(0, end_pfn)],
            distance=default_distance(1),
            shift=63,
        )
    setup.active_regions = numa.active
    setup.cpu_node, setup.distance = numa.cpu_node, numa.distance
    setup.scratch["node_map_start"], setup.scratch["node_map_end"] = numa.node_map
    for nid, (start, end) in sorted(numa.nodes.items()):
        _setup_node_bootmem(setup, nid, start, end)


def _find_nodes(setup: Setup) -> NumaBootmem | None:
    table, end_pfn = _table(setup), setup.limits.max_pfn
    fake = setup.cmdline.numa_fake
    if fake:
        if not fake.isdecimal() or int(fake) < 1:
            raise BadMachineError(f"numa=fake={fake}: write a number of equal nodes, such as 4")
        parts = split_nodes_equally(table, end_pfn, min(int(fake), setup.arch.max_numnodes))
        if parts is None:
            setup.log.append("Not enough memory for each node.  NUMA emulation disabled.")
        else:
            return _emulated(setup, parts)
    if setup.cmdline.numa in {"off", "noacpi"}:
        return None
    return acpi_scan_nodes(setup.hardware, table, end_pfn, setup.log, _taken(setup))


def _emulated(setup: Setup, parts: list[tuple[int, int]]) -> NumaBootmem:
    """Linux: numa_emulation(), arch/x86/mm/numa_64.c (2.6.24)"""
    table = _table(setup)
    numa = NumaBootmem(distance=default_distance(len(parts)))
    for nid, (start, end) in enumerate(parts):
        told = f"{start:016x}-{end:016x} ({end - start >> 20}MB)"
        setup.log.append(f"Faking node {nid} at {told}")
        numa.nodes[nid] = (start, end)
        found = table.active_regions(start >> 12, end >> 12)
        numa.active += [(first, behind, nid) for first, behind in found]
    numa.cpu_node = tuple(cpu % len(parts) for cpu in range(setup.hardware.nr_cpus))
    return numa


def _contig_initmem_init(setup: Setup) -> None:
    bootmem, table, end_pfn = setup.old_boot, _table(setup), setup.limits.max_pfn
    size = bootmem.bootmap_pages(end_pfn) << 12
    found = table.find_area(0, end_pfn << 12, size, _taken(setup))
    if found is None:
        raise BootAllocError(
            f"Cannot find bootmem map of size {size} (the kernel panics); give more low memory"
        )
    map_bytes = bootmem.init_bootmem(found >> 12, end_pfn)
    setup.active_regions = [(start, end, 0) for start, end in table.active_regions(0, end_pfn)]
    for start, end, _ in setup.active_regions:
        bootmem.free(start << 12, end - start << 12)
    bootmem.reserve(found, map_bytes)
    setup.node_data[0] = (0, 0)
    setup.distance = default_distance(1)


def _setup_node_bootmem(setup: Setup, nid: int, start: int, end: int) -> None:
    """Linux: setup_node_bootmem(), arch/x86/mm/numa_64.c (2.6.24)"""
    bootmem = setup.old_boot
    zone_align = 1 << setup.arch.max_order + 12
    start = -(-start // zone_align) * zone_align
    setup.log.append(f"Bootmem setup node {nid} {start:016x}-{end:016x}")
    pgdat_size = -(-setup.arch.sizeof_pgdat // _PAGE) * _PAGE
    pgdat = _early_node_mem(setup, nid, (start, end), pgdat_size)
    if pgdat is None:
        return
    pages = bootmem.bootmap_pages((end >> 12) - (start >> 12))
    behind = -(-(pgdat + pgdat_size) // _PAGE) * _PAGE
    bitmap = _early_node_mem(setup, nid, (behind, end), pages << 12)
    if bitmap is None:
        return
    bootmem.init_bootmem_node(nid, bitmap >> 12, start >> 12, end >> 12)
    for first, last, node in setup.active_regions:
        # DEVIATION: below a rounded start the kernel would clear bits before its bitmap
        low, high = max(first, start >> 12), min(last, end >> 12)
        if node == nid and low < high:
            bootmem.free(low << 12, high - low << 12, nid)
    bootmem.reserve(pgdat, pgdat_size, nid)
    bootmem.reserve(bitmap, pages << 12, nid)
    setup.node_data[nid] = (pgdat, pgdat + pgdat_size)


def _early_node_mem(setup: Setup, nid: int, span: tuple[int, int], size: int) -> int | None:
    """Linux: early_node_mem(), arch/x86/mm/numa_64.c (2.6.24)"""
    scratch = setup.scratch
    node_map = scratch.get("node_map_start", 0), scratch.get("node_map_end", 0)
    found = _table(setup).find_area(*span, size, _taken(setup), node_map)
    if found is None:
        bootmem: Bootmem = setup.old_boot
        goal = setup.arch.max_dma_address
        if bootmem.nodes:
            found = bootmem.alloc_nopanic(size, setup.arch.smp_cache_bytes, goal)
    if found is None:
        setup.log.append(f"Cannot find {size} bytes in node {nid}")
    return found


def reserve_64(setup: Setup) -> None:
    """All that must not be used, through a wrapper that counts what lies in ZONE_DMA.

    Linux: setup_arch(), arch/x86/kernel/setup_64.c (2.6.24)
    """
    hardware, scratch, image = setup.hardware, setup.scratch, setup.image
    _reserve_generic(setup, scratch["table_start"], scratch["table_end"] - scratch["table_start"])
    _reserve_generic(setup, image.start, image.size)
    _reserve_generic(setup, 0, _PAGE)
    ebda, behind = ebda_range(setup)
    if ebda:
        _reserve_generic(setup, ebda, behind - ebda)
    node_map = scratch.get("node_map_start", 0), scratch.get("node_map_end", 0)
    if node_map[1]:
        _reserve_generic(setup, node_map[0], node_map[1] - node_map[0])
    _reserve_generic(setup, _TRAMPOLINE, 2 * _PAGE)
    setup.old_boot.alloc_low(2 * _PAGE)
    for table in hardware.mp_table:
        _reserve_generic(setup, table.base, _PAGE)
    _reserve_initrd(setup, setup.limits.max_pfn << 12)


def _reserve_generic(setup: Setup, addr: int, size: int) -> None:
    """Linux: reserve_bootmem_generic(), arch/x86/mm/init_64.c (2.6.24)"""
    pfn = addr >> 12
    if pfn >= setup.limits.max_pfn:
        if pfn >= _table(setup).end_pfn_map:
            setup.log.append(f"reserve_bootmem: illegal reserve {addr:x} {size}")
        return
    nodes = setup.old_boot.nodes
    home = next((node.nid for node in nodes if node.start_pfn <= pfn < node.low_pfn), 0)
    setup.old_boot.reserve(addr, size, home)
    if addr + size <= _DMA_END:
        setup.dma_reserve += size // _PAGE


def _reserve_initrd(setup: Setup, end_of_memory: int) -> None:
    if setup.initrd is None:
        return
    start, end = setup.initrd
    if end <= end_of_memory:
        if setup.arch.bits_per_long == 64:
            _reserve_generic(setup, start, end - start)
        else:
            setup.old_boot.reserve(start, end - start)
        return
    setup.log.append(f"initrd extends beyond end of memory ({end:#010x} > {end_of_memory:#010x})")
    setup.log.append("disabling initrd")
    setup.initrd = None


_FIRMWARE = (
    Stage("setup_memory_region", "Reads the firmware's memory map.", setup_memory_region),
    Stage("parse_early_param", "Follows mem= and memmap=.", parse_early_param),
)
STAGES_32 = (
    *_FIRMWARE,
    Stage("setup_memory", "Finds the end of memory, splits it into low and high.", setup_memory),
    Stage(
        "setup_bootmem_allocator",
        "Starts bootmem over low memory; keeps kernel, BIOS and RAM disk.",
        setup_bootmem_allocator,
    ),
    Stage("smp_alloc_memory", "Takes a page to start other CPUs with.", smp_alloc_memory),
    Stage("pagetable_init", "Maps low memory; makes tables for fixmap and kmap.", pagetable_init),
)
STAGES_64 = (
    *_FIRMWARE,
    Stage("e820_end_of_ram", "Finds the end of memory.", end_of_ram),
    Stage(
        "init_memory_mapping",
        "Maps all memory with 2 MiB pages; the tables are a block of the firmware's map.",
        direct_map,
    ),
    Stage("initmem_init", "Finds the nodes and starts bootmem on each.", initmem_init),
    Stage("reserve_bootmem", "Keeps tables, kernel, BIOS, RAM disk.", reserve_64),
)
