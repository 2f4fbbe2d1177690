# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of riscv64: memory from the device tree, a linear map of large or small pages.

Linux: arch/riscv/kernel/setup.c, arch/riscv/mm/init.c (6.1)
"""

from physmem.arch.descriptor import Limits, Stage
from physmem.arch.direct_map import DirectMap, MapPiece, TableTree
from physmem.arch.dt_numa import arch_numa_init
from physmem.arch.pages import take_pages
from physmem.arch.setup import Setup
from physmem.firmware.devicetree import scan_memory, scan_reserved_mem
from physmem.lib.errors import BadMachineError

_PMD = 2 << 20
_PAGE = 4096
_EVERYTHING = (1 << 64) - 1


def parse_dtb(setup: Setup) -> None:
    """Linux: parse_dtb(), parse_early_param(), arch/riscv/kernel/setup.c (6.1)"""
    scan_memory(setup.boot, setup.hardware, setup.log, _PAGE)
    setup.on_early_param()


def setup_bootmem(setup: Setup) -> None:
    """Keep the kernel up to a large page's border, RAM disk, device tree; find the limits.

    Linux: setup_bootmem(), arch/riscv/mm/init.c (6.1)

    Raises
    ------
    BadMachineError
        There is no memory.
    """
    memblock, image, caller = setup.boot, setup.image, "setup_bootmem"
    if memblock.memory.empty:
        raise BadMachineError("the device tree has no memory: give the machine some")
    limit = (setup.cmdline.mem or 0) & -_PAGE
    if limit:
        setup.log.append(f"Memory limited to {limit >> 20}MB")
        memblock.enforce_memory_limit(limit)
    # mapped read-only with large pages: nothing else may lie in the last one
    end = -(-image.end // _PMD) * _PMD
    memblock.reserve(image.start, end - image.start, caller=caller)
    base = memblock.start_of_dram()
    # what lies beyond the linear map is lost
    memblock.remove(base + setup.arch.layout.direct_map_bytes, _EVERYTHING, caller=caller)
    ram_end = memblock.end_of_dram()
    setup.min_alloc_addr = base
    setup.limits = Limits(
        min_low_pfn=-(-base // _PAGE),
        max_low_pfn=ram_end // _PAGE,
        max_pfn=ram_end // _PAGE,
        highstart_pfn=ram_end // _PAGE,
        highend_pfn=ram_end // _PAGE,
        dram_start=base,
        dram_end=ram_end,
        dma_bits=setup.hardware.dma_bits,
    )
    if setup.initrd is not None:
        start, behind = setup.initrd
        low, high = start & -_PAGE, -(-behind // _PAGE) * _PAGE
        if not memblock.is_region_memory(low, high - low):
            told = f"{start:#018x}+{behind - start:#010x}"
            setup.log.append(f"INITRD: {told} is not a memory region - disabling initrd")
            setup.initrd = None
        elif memblock.is_region_reserved(low, high - low):
            told = f"{start:#018x}+{behind - start:#010x}"
            setup.log.append(f"INITRD: {told} overlaps in-use memory region - disabling initrd")
            setup.initrd = None
        else:
            memblock.reserve(low, high - low, caller="reserve_initrd_mem")
    scan_reserved_mem(memblock, setup.hardware, setup.log)
    if setup.hardware.dtb is not None:
        start, behind = setup.hardware.dtb
        memblock.reserve(start, behind - start, caller=caller)


def best_map_size(base: int, size: int) -> int:
    """One page size for a whole range of memory.

    Linux: best_map_size(), arch/riscv/mm/init.c (6.1)

    Examples
    --------
    >>> best_map_size(0x80000000, 0x20000000), best_map_size(0x80000000, 0x1FFFF000)
    (2097152, 4096)
    """
    return _PAGE if base % _PMD or size % _PMD else _PMD


def map_pieces(start: int, end: int, sizes: tuple[int, ...]) -> list[MapPiece]:
    """One size for the whole range."""
    del sizes
    return [MapPiece(start, end, best_map_size(start, end - start))]


def setup_vm_final(setup: Setup) -> None:
    """Map all memory, then the kernel.

    Linux: setup_vm_final(), arch/riscv/mm/init.c (6.1)
    """
    memblock, arch, image = setup.boot, setup.arch, setup.image
    made: DirectMap = setup.direct_map

    def take(level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
        del level, va
        return take_pages(memblock, _PAGE, count, "alloc_pte_fixmap")

    tree = TableTree(arch.levels, take, made)
    base = setup.min_alloc_addr
    offset = made.offset = arch.layout.page_offset - base
    limit = base + arch.layout.direct_map_bytes
    for start, region_end, _ in list(memblock.mem_ranges()):
        end = min(region_end, limit)
        size = best_map_size(start, end - start)
        tree.map(start + offset, end + offset, {size})
        made.add_piece(MapPiece(start, end, size))
    low = arch.layout.image_base
    tree.map(low, low + image.size, {_PMD})
    code_end = min(-(-(image.start + (image.code_kib << 10)) // _PMD) * _PMD, image.end)
    for start, end, prot in (
        (image.start, code_end, "PAGE_KERNEL_ROX"),
        (code_end, image.end, "PAGE_KERNEL"),
    ):
        if start < end:
            made.add_other(MapPiece(start, end, _PMD, low + start - image.start, prot))
    memblock.allow_resize()


STAGES = (
    Stage("parse_dtb", "Reads the memory nodes of the device tree.", parse_dtb),
    Stage("setup_bootmem", "Keeps the kernel, RAM disk and reserved memory.", setup_bootmem),
    Stage("setup_vm_final", "Maps all memory and the kernel.", setup_vm_final),
    Stage("arch_numa_init", "Finds the nodes; each gets its descriptor.", arch_numa_init),
)
