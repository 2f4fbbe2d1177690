# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of x86 in kernels with memblock: the order, one line a stage.

Linux: setup_arch(), arch/x86/kernel/setup.c (6.1)
"""

from physmem.arch import x86_early
from physmem.arch.descriptor import Limits, Stage
from physmem.arch.direct_map import KERNEL
from physmem.arch.pages import image_table
from physmem.arch.setup import Setup
from physmem.arch.x86_direct_map import InitMemMapping, map_image
from physmem.arch.x86_lowmem import find_low_pfn_range, highmem_lines
from physmem.firmware.e820_table import E820Table
from physmem.firmware.numa_memblock import NumaConfig, NumaInit
from physmem.firmware.srat import default_distance
from physmem.lib.errors import BadMachineError

_MAX_DMA32_PFN = 1 << 20


def _table(setup: Setup) -> E820Table:
    if setup.e820 is None:
        raise BadMachineError("the firmware's map was not read yet; run the stages in order")
    return setup.e820


def early_reserve_memory(setup: Setup) -> None:
    """Linux: early_reserve_memory(), arch/x86/kernel/setup.c (6.1)"""
    x86_early.early_reserve_memory(setup.boot, setup.hardware, setup.image)


def memory_setup(setup: Setup) -> None:
    """Linux: e820__memory_setup(), arch/x86/kernel/e820.c (6.1)"""
    setup.e820 = E820Table(log=setup.log)
    setup.e820.memory_setup(setup.hardware.e820, setup.hardware.alt_mem_kib)


def parse_early_param(setup: Setup) -> None:
    """Linux: parse_early_param(), e820__finish_early_params() (6.1)"""
    setup.on_early_param()
    if setup.hardware.nx and setup.arch.entry_bytes == 8:
        setup.log.append("NX (Execute Disable) protection: active")
    else:
        setup.log.append("Notice: NX (Execute Disable) protection missing in CPU!")
    if setup.cmdline.movable_node:
        # until the nodes are known, stay near the kernel: its node cannot be unplugged anyway
        setup.boot.set_bottom_up(enable=True)
    _table(setup).reserve_setup_data((data.base, data.size) for data in setup.hardware.setup_data)
    _table(setup).apply(setup.cmdline)


def trim_bios_range(setup: Setup) -> None:
    """Linux: e820_add_kernel_range(), trim_bios_range(), arch/x86/kernel/setup.c (6.1)"""
    table = _table(setup)
    table.add_kernel_range(setup.image.start, setup.image.end)
    table.trim_bios_range()


def end_of_ram(setup: Setup) -> None:
    """Linux: e820__end_of_ram_pfn(), find_low_pfn_range() (6.1)"""
    limit = setup.arch.dram_pfn_limit
    table = _table(setup)
    max_pfn = table.end_pfn(limit, limit)
    if setup.arch.highmem:
        setup.limits = find_low_pfn_range(setup.arch, max_pfn, setup.cmdline, setup.log)
        return
    if max_pfn > _MAX_DMA32_PFN:
        # only logged: the low part does not matter once all is mapped
        table.end_pfn(_MAX_DMA32_PFN, limit)
    setup.limits = Limits(
        max_low_pfn=max_pfn,
        max_pfn=max_pfn,
        highstart_pfn=max_pfn,
        highend_pfn=max_pfn,
        dram_end=max_pfn << 12,
    )


def find_smp_config(setup: Setup) -> None:
    """Linux: smp_scan_config(), arch/x86/kernel/mpparse.c (6.1)"""
    for number, table in enumerate(setup.hardware.mp_table):
        if not number:
            told = f"[mem {table.base:#010x}-{table.end - 1:#010x}]"
            setup.log.append(f"found SMP MP-table at {told}")
        setup.boot.reserve(table.base, table.size, caller="smp_scan_config")


def memblock_setup(setup: Setup) -> None:
    """Linux: reserve_brk(), e820__memblock_setup(), efi_find_mirror() (6.1)"""
    x86_early.reserve_brk(setup)
    wide = setup.arch.pa_bits > 32
    x86_early.memblock_setup(setup.boot, _table(setup), 64 if wide else 32)
    setup.dump_memblock()
    for base, size in setup.hardware.mirror:
        setup.boot.mark_mirror(base, size)
    setup.limits = _with_dram(setup)
    if setup.arch.bits_per_long == 32:
        end = setup.scratch["initial_mapped"] = x86_early.initial_mapped(setup)
        setup.log.append(f"initial memory mapped: [mem 0x00000000-{end - 1:#010x}]")


def _with_dram(setup: Setup) -> Limits:
    limits = setup.limits
    return Limits(
        max_low_pfn=limits.max_low_pfn,
        max_pfn=limits.max_pfn,
        highstart_pfn=limits.highstart_pfn,
        highend_pfn=limits.highend_pfn,
        dram_start=setup.boot.start_of_dram(),
        dram_end=setup.boot.end_of_dram(),
    )


def reserve_real_mode(setup: Setup) -> None:
    """Linux: reserve_real_mode(), arch/x86/realmode/init.c (6.1)"""
    x86_early.reserve_real_mode(setup.boot, setup.hardware, setup.log)


def init_mem_mapping(setup: Setup) -> None:
    """Linux: init_mem_mapping(), arch/x86/mm/init.c (6.1)"""
    setup.direct_map.roots[KERNEL] = image_table(setup.image, 0)
    if setup.arch.bits_per_long == 64:
        kernel_end = x86_early.brk_range(setup)[1]
        map_image(setup, (setup.image.start, kernel_end), range(506, 508))
    InitMemMapping(setup, x86_early.pgt_buf(setup)).run()
    setup.boot.set_current_limit(setup.direct_map.max_mapped)


def reserve_initrd(setup: Setup) -> None:
    """Linux: reserve_initrd(), arch/x86/kernel/setup.c (6.1)"""
    x86_early.reserve_initrd(setup)


def reserve_acpi_tables(setup: Setup) -> None:
    """Linux: acpi_reserve_initial_tables(), drivers/acpi/tables.c (6.1)"""
    for table in setup.hardware.acpi_tables:
        told = f"[mem {table.base:#x}-{table.end - 1:#x}]"
        setup.log.append(f"ACPI: Reserving {table.name} table memory at {told}")
        setup.boot.reserve(table.base, table.size, caller="acpi_reserve_initial_tables")


def initmem_init(setup: Setup) -> None:
    """Linux: initmem_init(), arch/x86/mm/numa_64.c, arch/x86/mm/init_32.c (6.1)

    Raises
    ------
    BadMachineError
        numa=fake= of kernels with memblock is not modelled.
    """
    limits = setup.limits
    if setup.arch.max_numnodes == 1:
        every = (1 << 64) - 1
        setup.boot.set_node(0, every, 0, array=setup.boot.memory)
        if setup.arch.highmem:
            low = f"0 - {limits.max_low_pfn << 12:08x}"
            setup.log += [*highmem_lines(limits), f"  mapped low ram: {low}", f"  low ram: {low}"]
        setup.node_data[0] = (0, 0)
        setup.distance = default_distance(1)
        return
    if setup.cmdline.numa_fake:
        raise BadMachineError(
            f"numa=fake={setup.cmdline.numa_fake}: not modelled for this kernel; "
            "describe a machine that has these nodes"
        )
    step = setup.arch.page_size if setup.whole_page_node_data else setup.arch.smp_cache_bytes
    config = NumaConfig(
        max_pfn=limits.max_pfn,
        max_mapped=setup.direct_map.max_mapped,
        sizeof_pgdat=-(-setup.arch.sizeof_pgdat // step) * step,
        align=setup.arch.smp_cache_bytes,
        off=setup.cmdline.numa in {"off", "noacpi"},
        max_numnodes=setup.arch.max_numnodes,
    )
    numa = NumaInit(setup.hardware, setup.boot, config, setup.log).run()
    setup.node_data, setup.distance = numa.node_data, numa.distance
    setup.possible, setup.cpu_node = numa.possible, numa.cpu_node
    setup.dump_memblock()


STAGES = (
    Stage(
        "early_reserve_memory",
        "Keeps the kernel, the lowest 64 KiB, the RAM disk and the BIOS.",
        early_reserve_memory,
    ),
    Stage("e820__memory_setup", "Reads the firmware's memory map.", memory_setup),
    Stage("parse_early_param", "Follows mem= and memmap=.", parse_early_param),
    Stage("trim_bios_range", "Takes the BIOS's area out of the memory.", trim_bios_range),
    Stage("e820__end_of_ram_pfn", "Finds the end of memory.", end_of_ram),
    Stage("find_smp_config", "Keeps the MultiProcessor table.", find_smp_config),
    Stage("e820__memblock_setup", "Tells memblock what is memory.", memblock_setup),
    Stage("reserve_real_mode", "Gives up the first MiB but for start-up code.", reserve_real_mode),
    Stage(
        "init_mem_mapping",
        "Maps all memory, from the top down in growing steps.",
        init_mem_mapping,
    ),
    Stage("reserve_initrd", "Moves the RAM disk if it is not mapped.", reserve_initrd),
    Stage("acpi_reserve_initial_tables", "Keeps the ACPI tables.", reserve_acpi_tables),
    Stage("initmem_init", "Finds the nodes; each gets its descriptor.", initmem_init),
)
