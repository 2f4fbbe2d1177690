# SPDX-License-Identifier: GPL-2.0-or-later
"""How a kernel with memblock (6.1, 6.12) starts, as far as memory is concerned.

Read `start_kernel` as a table of contents: every line is a stage, in the kernel's order.

Linux: start_kernel(), kernel_init_freeable(), init/main.c (6.1, 6.12)
"""

from physmem.boot.boot import Boot
from physmem.boot.boot_hashes import early_tables, hashes_come_late, late_tables, say_tables
from physmem.boot.booted import BootedMemory
from physmem.boot.build_zonelists import build_all_zonelists as build_lists
from physmem.boot.deferred_init import page_alloc_init_late as init_late
from physmem.boot.features import BootFeature
from physmem.boot.initcalls import cma_init_reserved_areas as init_cma
from physmem.boot.initcalls import hugepage_init as init_huge
from physmem.boot.initcalls import init_per_zone_wmark_min as init_marks
from physmem.boot.mem_init import map_vmalloc_early, mem_init_print_info, memblock_free_all
from physmem.boot.result import booted_memory, free_late
from physmem.boot.zone_setup import (
    count_kernel_pages,
    name_owners,
    set_dma_reserve,
    zone_sizes_init,
)


def start_kernel(boot: Boot) -> BootedMemory:
    """Start a kernel; what it leaves is all that a machine is made from.

    Raises
    ------
    BadMachineError
        A machine that no kernel could start on.
    BootAllocError
        The boot allocator gave up, as the kernel would.

    Linux: start_kernel(), init/main.c (6.1)
    """
    setup_arch(boot)  # what memory there is, who has it, how it is mapped, and its nodes
    sparse_init(boot)  # a struct page for every frame
    free_area_init(boot)  # nodes and zones
    reserve_resources(boot)  # records of the firmware's map
    setup_command_line(boot)  # copies of the command line
    setup_per_cpu_areas(boot)  # an area for each CPU, on its node
    setup_cpumasks(boot)  # sets of CPUs
    build_all_zonelists(boot)  # where a request looks, in which order
    parse_parameters(boot)  # options that nobody took go to init
    vfs_caches_init_early(boot)  # hash tables by the size of memory
    trap_init(boot)  # page tables of the CPU entry areas
    mm_core_init(boot)  # what else must come from the boot allocator
    mem_init(boot)  # everything free goes to the page allocator
    vfs_caches_init(boot)  # hash tables that the page allocator serves
    free_early(boot)  # what was for several CPUs only, or for none
    page_alloc_init_late(boot)  # struct pages that were left for later
    cma_init_reserved_areas(boot)  # areas for contiguous memory become movable memory
    init_per_zone_wmark_min(boot)  # watermarks, reserves, sizes of per-CPU lists
    hugepage_init(boot)  # huge pages keep more memory free
    free_initmem(boot)  # the initial RAM disk and the start-up's own code
    return booted_memory(boot)


def setup_arch(boot: Boot) -> None:
    """Linux: setup_arch(), arch/x86/kernel/setup.c, arch/arm64/kernel/setup.c (6.1)."""
    with boot.stage("setup_arch", "Reads the map of memory, reserves what is taken, maps it."):
        boot.calls.run(boot, "setup_arch")
        name_owners(boot)
        set_dma_reserve(boot)


def sparse_init(boot: Boot) -> None:
    """Linux: sparse_init(), mm/sparse.c (6.1)."""
    with boot.stage("sparse_init", "Makes the memory map: a struct page for each frame."):
        boot.calls.run(boot, "sparse_init")


def free_area_init(boot: Boot) -> None:
    """Linux: free_area_init(), mm/page_alloc.c (6.1)."""
    with boot.stage("free_area_init", "Divides memory into nodes and zones."):
        zone_sizes_init(boot)
        boot.calls.run(boot, "free_area_init")
        count_kernel_pages(boot)


def reserve_resources(boot: Boot) -> None:
    """Linux: e820__reserve_resources(), arch/x86/kernel/e820.c (6.1)."""
    with boot.stage("resources", "Writes down what else the firmware told."):
        boot.calls.run(boot, "resources")


def setup_command_line(boot: Boot) -> None:
    """Linux: setup_command_line(), init/main.c (6.1)."""
    with boot.stage("setup_command_line", "Copies the command line."):
        boot.calls.run(boot, "setup_command_line")


def setup_per_cpu_areas(boot: Boot) -> None:
    """Linux: setup_per_cpu_areas(), arch/x86/kernel/setup_percpu.c (6.1)."""
    with boot.stage("setup_per_cpu_areas", "Gives each CPU its own variables, on its node."):
        boot.calls.run(boot, "setup_per_cpu_areas")


def setup_cpumasks(boot: Boot) -> None:
    """Linux: alloc_bootmem_cpumask_var(), lib/cpumask.c (6.1)."""
    with boot.stage("cpumasks", "Makes sets of CPUs."):
        boot.calls.run(boot, "cpumasks")


def build_all_zonelists(boot: Boot) -> None:
    """Linux: build_all_zonelists(), mm/page_alloc.c (6.1)."""
    if BootFeature.ZONELISTS_LATE not in boot.features:
        _build(boot)


def _build(boot: Boot) -> None:
    with boot.stage("build_all_zonelists", "Sorts nodes and zones by preference."):
        build_lists(boot)


def parse_parameters(boot: Boot) -> None:
    """Linux: parse_args(), kernel/params.c (6.1)."""
    with boot.stage("parameters", "Hands options that the kernel does not know to init."):
        boot.say(f"Kernel command line: {boot.cmdline.text}")
        boot.calls.run(boot, "parameters")


def vfs_caches_init_early(boot: Boot) -> None:
    """Linux: vfs_caches_init_early(), fs/dcache.c (6.1)."""
    with boot.stage("vfs_caches_init_early", "Makes hash tables, sized by memory."):
        boot.calls.run(boot, "vfs_caches_init_early")
        if not hashes_come_late(boot):
            say_tables(boot, early_tables(boot), early=True)


def trap_init(boot: Boot) -> None:
    """Linux: trap_init(), arch/x86/kernel/traps.c (6.1)."""
    with boot.stage("trap_init", "Maps the CPU entry areas."):
        boot.calls.run(boot, "trap_init")


def mm_core_init(boot: Boot) -> None:
    """Linux: mm_init(), init/main.c (6.1); mm_core_init(), mm/mm_init.c (6.12)."""
    if BootFeature.ZONELISTS_LATE in boot.features:
        _build(boot)
    with boot.stage("mm_init", "Makes the last calls of the boot allocator."):
        boot.calls.run(boot, "mm_init")


def mem_init(boot: Boot) -> None:
    """Linux: mem_init(), arch/x86/mm/init_64.c (6.1)."""
    with boot.stage("mem_init", "Gives all free memory to the page allocator; memblock ends."):
        memblock_free_all(boot)
        map_vmalloc_early(boot)
        if BootFeature.MEMORY_LINE_LATE not in boot.features:
            mem_init_print_info(boot)


def vfs_caches_init(boot: Boot) -> None:
    """Linux: vfs_caches_init(), fs/dcache.c (6.1)."""
    late = hashes_come_late(boot)
    tables = [*(early_tables(boot) if late else []), *late_tables(boot)]
    say_tables(boot, tables, early=False)


def free_early(boot: Boot) -> None:
    """Linux: alternative_instructions(), arch/x86/kernel/alternative.c (6.1)."""
    boot.late = boot.calls.late_frees(boot)
    with boot.stage("free_early", "Gives back code for machines of another kind."):
        free_late(boot, after_marks=False)


def page_alloc_init_late(boot: Boot) -> None:
    """Linux: page_alloc_init_late(), mm/page_alloc.c (6.1)."""
    with boot.stage("page_alloc_init_late", "Frees the memory whose struct pages had to wait."):
        init_late(boot)
        if BootFeature.MEMORY_LINE_LATE in boot.features:
            mem_init_print_info(boot)


def cma_init_reserved_areas(boot: Boot) -> None:
    """Linux: cma_init_reserved_areas(), mm/cma.c (6.1), a core_initcall."""
    with boot.stage("cma_init_reserved_areas", "Lends CMA areas to movable pages."):
        init_cma(boot)


def init_per_zone_wmark_min(boot: Boot) -> None:
    """Linux: init_per_zone_wmark_min(), mm/page_alloc.c (6.1), a postcore_initcall."""
    with boot.stage("init_per_zone_wmark_min", "Sets watermarks, reserves and per-CPU sizes."):
        init_marks(boot)


def hugepage_init(boot: Boot) -> None:
    """Linux: hugepage_init(), mm/huge_memory.c (6.1), a subsys_initcall."""
    with boot.stage("hugepage_init", "Raises what is kept free, for huge pages."):
        init_huge(boot)


def free_initmem(boot: Boot) -> None:
    """Linux: free_initmem(), mm/page_alloc.c; free_initrd_mem(), init/initramfs.c (6.1)."""
    with boot.stage("free_initmem", "Gives back the memory of the start-up itself."):
        free_late(boot, after_marks=True)
