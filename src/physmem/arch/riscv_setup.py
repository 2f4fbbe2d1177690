# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of riscv64: memory from the device tree, a linear map of large or small pages.

Linux: arch/riscv/kernel/setup.c, arch/riscv/mm/init.c (6.1)
"""

from physmem.arch.descriptor import Limits, Stage
from physmem.arch.direct_map import KERNEL, DirectMap, MapPiece, TableTree, Target
from physmem.arch.dt_numa import arch_numa_init
from physmem.arch.pages import image_table, take_pages
from physmem.arch.setup import Setup
from physmem.firmware.devicetree import scan_memory, scan_reserved_mem
from physmem.firmware.platform import KernelImage
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

    made.roots[KERNEL] = image_table(image, 0)
    tree = TableTree(arch.levels, take, made)
    text_end = code_end(image)
    base = setup.min_alloc_addr
    offset = arch.layout.page_offset - base
    limit = base + arch.layout.direct_map_bytes
    for start, region_end, _ in list(memblock.mem_ranges()):
        end = min(region_end, limit)
        size = best_map_size(start, end - start)
        # code cannot be changed by way of the direct map either
        for first, last, prot in _parts((start, end), (image.start, text_end), "PAGE_KERNEL_RO"):
            tree.map(first + offset, last + offset, {size}, Target(first, prot))
        made.add_piece(MapPiece(start, end, size))
    low = arch.layout.image_base - image.start
    last = image.start + -(-image.size // _PMD) * _PMD
    for start, end, prot in _parts((image.start, last), (image.start, text_end), "PAGE_KERNEL_ROX"):
        tree.map(start + low, end + low, {_PMD}, Target(start, prot))
    memblock.allow_resize()


def code_end(image: KernelImage) -> int:
    """End of the code, that of the start-up included; data of the start-up follows.

    How much of the init section is code is not known: a quarter is assumed.

    Linux: __init_data_begin, arch/riscv/kernel/vmlinux.lds.S (6.1)
    """
    init = -(-(image.start + (image.code_kib << 10)) // _PMD) * _PMD
    end = -(-(init + (image.init_kib << 8)) // _PMD) * _PMD
    return min(end, image.end & -_PMD)


def _parts(span: tuple[int, int], code: tuple[int, int], prot: str) -> list[tuple[int, int, str]]:
    """Parts of a range by protection."""
    low, high = span
    first = min(max(code[0], low), high)
    behind = min(max(code[1], first), high)
    parts = [(low, first, "PAGE_KERNEL"), (first, behind, prot), (behind, high, "PAGE_KERNEL")]
    return [part for part in parts if part[0] < part[1]]


STAGES = (
    Stage("parse_dtb", "Reads the memory nodes of the device tree.", parse_dtb),
    Stage("setup_bootmem", "Keeps the kernel, RAM disk and reserved memory.", setup_bootmem),
    Stage("setup_vm_final", "Maps all memory and the kernel.", setup_vm_final),
    Stage("arch_numa_init", "Finds the nodes; each gets its descriptor.", arch_numa_init),
)
