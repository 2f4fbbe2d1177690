# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of arm64: what fits into the linear map is memory; all of it is mapped.

Linux: arch/arm64/kernel/setup.c, arch/arm64/mm/init.c, arch/arm64/mm/mmu.c (6.1)
"""

from collections.abc import Iterator
from itertools import pairwise

from physmem.arch.descriptor import Limits, Stage
from physmem.arch.direct_map import EMPTY, KERNEL, DirectMap, MapPiece, TableTree, Target
from physmem.arch.dt_numa import arch_numa_init
from physmem.arch.pages import image_table, take_pages
from physmem.arch.setup import Setup
from physmem.bootalloc.memblock_core import MEMBLOCK_ALLOC_NOLEAKTRACE
from physmem.firmware.devicetree import scan_memory, scan_reserved_mem
from physmem.lib.errors import BadMachineError

_GIB = 1 << 30
_EVERYTHING = (1 << 64) - 1
_PXN_TABLE, _UXN_TABLE = 1 << 59, 1 << 60
IDMAP = "idmap"
"""The address space in which the MMU is switched on: memory at its own addresses."""


def setup_machine_fdt(setup: Setup) -> None:
    """Linux: setup_machine_fdt(), parse_early_param(), arch/arm64/kernel/setup.c (6.1)"""
    if setup.hardware.dtb is not None:
        start, end = setup.hardware.dtb
        setup.boot.reserve(start, end - start, caller="setup_machine_fdt")
    scan_memory(setup.boot, setup.hardware, setup.log, setup.arch.page_size)
    setup.on_early_param()


def memstart_align(setup: Setup) -> int:
    """What the start of the linear map is a multiple of.

    Linux: ARM64_MEMSTART_ALIGN, arch/arm64/include/asm/kernel-pgtable.h (6.1)
    """
    arch = setup.arch
    pmd = arch.level("pmd")
    best = {12: _GIB, 14: pmd.size * pmd.group}.get(arch.page_shift, pmd.size)
    return max(best, 1 << arch.section_size_bits)


def arm64_memblock_init(setup: Setup) -> None:
    """Memory that cannot be mapped is removed; kernel and RAM disk are kept.

    Linux: arm64_memblock_init(), arch/arm64/mm/init.c (6.1)

    Raises
    ------
    BadMachineError
        There is no memory.
    """
    memblock, arch, image = setup.boot, setup.arch, setup.image
    caller = "arm64_memblock_init"
    linear = arch.layout.direct_map_bytes
    align = memstart_align(setup)
    width = min(setup.hardware.pa_bits or arch.pa_bits, arch.pa_bits)
    memblock.remove(1 << width, _EVERYTHING, caller=caller)
    if memblock.memory.empty:
        raise BadMachineError(f"no memory below 2^{width}: give the machine some there")
    start = memblock.start_of_dram() // align * align
    if memblock.end_of_dram() - start > linear:
        setup.log.append("Memory doesn't fit in the linear mapping, VA_BITS too small")
    memblock.remove(max(start + linear, image.end), _EVERYTHING, caller=caller)
    if start + linear < memblock.end_of_dram():
        # the kernel lies high: what is lost is at the bottom
        start = -(-(memblock.end_of_dram() - linear) // align) * align
        memblock.remove(0, start, caller=caller)
    setup.min_alloc_addr = start
    limit = (setup.cmdline.mem or 0) & -arch.page_size
    if limit:
        setup.log.append(f"Memory limited to {limit >> 20}MB")
        memblock.mem_limit_remove_map(limit)
        memblock.add(image.start, image.size, caller=caller)
    _keep_initrd(setup, start, linear)
    memblock.reserve(image.start, image.size, caller=caller)
    scan_reserved_mem(memblock, setup.hardware, setup.log)


def _keep_initrd(setup: Setup, start: int, linear: int) -> None:
    if setup.initrd is None:
        return
    memblock, page = setup.boot, setup.arch.page_size
    base = setup.initrd[0] & -page
    size = -(-setup.initrd[1] // page) * page - base
    if base < memblock.start_of_dram() or base + size > start + linear:
        setup.log.append("initrd not fully accessible via the linear mapping -- please check your ")
        setup.initrd = None
        return
    # mem= may have taken it away
    memblock.add(base, size, caller="arm64_memblock_init")
    memblock.clear_nomap(base, size)
    memblock.reserve(base, size, caller="arm64_memblock_init")


def blocks(start: int, end: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Cut a range so that each part has the largest leaves that its alignment allows.

    Parameters
    ----------
    sizes : bytes of leaves, smallest first

    Examples
    --------
    >>> [(hex(a), hex(b), hex(size)) for a, b, size in blocks(0x1FF000, 0x401000, (4096, 1 << 21))]
    [('0x1ff000', '0x200000', '0x1000'), ('0x200000', '0x400000', '0x200000'), \
('0x400000', '0x401000', '0x1000')]
    """
    size = sizes[-1]
    low, high = -(-start // size) * size, end // size * size
    if len(sizes) == 1 or low >= high:
        if len(sizes) == 1:
            yield start, end, size
        else:
            yield from blocks(start, end, sizes[:-1])
        return
    if start < low:
        yield from blocks(start, low, sizes[:-1])
    yield low, high, size
    if high < end:
        yield from blocks(high, end, sizes[:-1])


def map_pieces(start: int, end: int, sizes: tuple[int, ...]) -> list[MapPiece]:
    """Pages only: attributes may change later (rodata=full).

    Linux: can_set_direct_map(), arch/arm64/mm/pageattr.c (6.1)
    """
    return [MapPiece(low, high, size) for low, high, size in blocks(start, end, sizes[:1])]


class PagingInit:
    """paging_init(): the kernel's own mapping, then the linear map, then the identity map.

    Linux: paging_init(), arch/arm64/mm/mmu.c (6.1)
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.memblock = setup.boot
        self.made: DirectMap = setup.direct_map
        self.arch = setup.arch
        self.tree = TableTree(self.arch.levels, self._take, self.made)
        page, pmd = self.arch.page_size, self.arch.level("pmd").size
        self.sizes = (page, pmd, _GIB) if self.arch.page_shift == 12 else (page, pmd)

    def run(self) -> None:
        """Do all of it, and give up the tables within the image."""
        image = self.setup.image
        self.made.roots[KERNEL] = image_table(image, 0, self.arch.page_size)
        # no code of user programs runs behind any of these tables
        self.tree.table_bits = _UXN_TABLE
        self._map_kernel()
        self.tree.table_bits = _UXN_TABLE | _PXN_TABLE
        self._map_mem()
        start, end = image.boot_tables
        if end:
            self.memblock.phys_free(start, end - start, caller="paging_init")
        self._create_idmap()

    def _take(self, level: str, va: int, count: int) -> list[tuple[int, int, int, str]]:
        del level, va
        caller, limit = "early_pgtable_alloc", MEMBLOCK_ALLOC_NOLEAKTRACE
        return take_pages(self.memblock, self.arch.page_size, count, caller, limit)

    def _map_kernel(self) -> None:
        """Five segments of the image, with blocks where they are aligned.

        Linux: map_kernel(), arch/arm64/mm/mmu.c (6.1)
        """
        image = self.setup.image
        offset = self.arch.layout.image_base - image.start // (2 << 20) * (2 << 20)
        rodata = self.setup.cmdline.value("rodata") or "full"
        code = "PAGE_KERNEL_EXEC" if rodata == "off" else "PAGE_KERNEL_ROX"
        align = 64 << 10
        text = image.start + -(-(image.code_kib << 10) // align) * align
        init = image.init_start or text
        # how much of the init section is code is not known: a quarter
        init_text = init + (image.init_end - init) // 4 // align * align if init > text else init
        borders = sorted({image.start, text, init, init_text, image.init_end or init, image.end})
        for start, end in pairwise(borders):
            # read-only data stays writable until the start-up is over, and has no groups
            runs = start == image.start or (start == init and init < init_text)
            prot = code if runs else "PAGE_KERNEL"
            groups = not text <= start < init
            for low, high, size in blocks(start, end, self.sizes[:2]):
                self.tree.map(low + offset, high + offset, {size}, Target(low, prot, groups))

    def _map_mem(self) -> None:
        """The linear map. Pages only when their attributes may change later, which is normal.

        Linux: map_mem(), can_set_direct_map(), arch/arm64/mm/mmu.c (6.1)
        """
        setup, memblock, image = self.setup, self.memblock, self.setup.image
        rodata = setup.cmdline.value("rodata") or "full"
        may_change = rodata == "full" or bool(setup.cmdline.debug_pagealloc)
        sizes = self.sizes[:1] if may_change else self.sizes
        # the alias of the kernel's text and read-only data is mapped apart
        end = image.init_start or image.end
        memblock.mark_nomap(image.start, end - image.start)
        for low, high, _ in list(memblock.mem_ranges()):
            self._map_range(low, high, sizes)
        self._map_range(image.start, end, self.sizes)
        memblock.clear_nomap(image.start, end - image.start)

    def _map_range(self, start: int, end: int, sizes: tuple[int, ...]) -> None:
        offset = self.arch.layout.page_offset - self.setup.min_alloc_addr
        for low, high, size in blocks(start, end, sizes):
            self.tree.map(low + offset, high + offset, {size}, Target(low))
            self.made.add_piece(MapPiece(low, high, size))

    def _create_idmap(self) -> None:
        """Linux: create_idmap(), arch/arm64/mm/mmu.c (6.1)"""
        image, page = self.setup.image, self.arch.page_size
        self.made.roots[IDMAP] = image_table(image, 1, page)
        self.made.roots[EMPTY] = image_table(image, 2, page)
        tree = TableTree(self.arch.levels, self._take, self.made, space=IDMAP)
        # the code that switches the MMU on, and a flag beside the kernel's data
        text = (image.start + (image.code_kib << 10)) & -page
        flag = image.init_end or image.start
        tree.table_bits = _UXN_TABLE
        for start, prot in ((text, "PAGE_KERNEL_ROX"), (flag & -page, "PAGE_KERNEL")):
            tree.map(start, start + page, {page}, Target(start, prot))


def paging_init(setup: Setup) -> None:
    """Linux: paging_init(), arch/arm64/mm/mmu.c (6.1)"""
    PagingInit(setup).run()
    setup.boot.allow_resize()


def bootmem_init(setup: Setup) -> None:
    """Linux: bootmem_init(), arch/arm64/mm/init.c (6.1)"""
    memblock, shift = setup.boot, setup.arch.page_shift
    start, end = memblock.start_of_dram(), memblock.end_of_dram()
    setup.limits = Limits(
        min_low_pfn=memblock.pfn_up(start),
        max_low_pfn=end >> shift,
        max_pfn=end >> shift,
        highstart_pfn=end >> shift,
        highend_pfn=end >> shift,
        dram_start=start,
        dram_end=end,
        dma_bits=setup.hardware.dma_bits,
    )


STAGES = (
    Stage("setup_machine_fdt", "Reads the memory nodes of the device tree.", setup_machine_fdt),
    Stage(
        "arm64_memblock_init",
        "Removes what cannot be mapped; keeps the kernel, RAM disk and reserved memory.",
        arm64_memblock_init,
    ),
    Stage("paging_init", "Maps the kernel and all memory.", paging_init),
    Stage("bootmem_init", "Notes where memory starts and ends.", bootmem_init),
    Stage("arch_numa_init", "Finds the nodes; each gets its descriptor.", arch_numa_init),
)
