# SPDX-License-Identifier: GPL-2.0-or-later
"""How a kernel with bootmem (2.6.24) starts, as far as memory is concerned.

Read `start_kernel_bootmem` as a table of contents: every line is a stage, in the kernel's order.

Linux: start_kernel(), kernel_init(), init/main.c (2.6.24)
"""

from physmem.boot import hashes_bootmem, initcalls_bootmem, mem_map_bootmem, zones_bootmem
from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.booted import BootedMemory
from physmem.boot.mem_init_bootmem import (
    free_all_bootmem,
    free_highmem,
    mem_init_print_info,
    virtual_layout_lines,
)
from physmem.boot.result_bootmem import booted_memory
from physmem.boot.setup_arch_bootmem import reserve_resources as reserve
from physmem.boot.setup_arch_bootmem import run_arch_stages


def start_kernel_bootmem(boot: BootBootmem) -> BootedMemory:
    """Start a kernel; what it leaves is all that a machine is made from.

    Raises
    ------
    BadMachineError
        A machine that no kernel could start on.
    BootAllocError
        The boot allocator gave up, as the kernel would.

    Examples
    --------
    >>> from physmem.boot.self_made_bootmem import boot_of_hardware_bootmem
    >>> from physmem.firmware.hardware import Hardware
    >>> booted = start_kernel_bootmem(boot_of_hardware_bootmem(Hardware.of(arch="i386")))
    >>> [(zone.name, zone.present_pages) for zone in booted.zones]
    [('DMA', 4064), ('Normal', 223520), ('HighMem', 32475), ('Movable', 0)]

    Linux: start_kernel(), init/main.c (2.6.24)
    """
    setup_arch(boot)  # firmware's map, end of memory, direct map, nodes, bootmem, reservations
    sparse_init(boot)  # a struct page for every frame, section by section
    free_area_init_nodes(boot)  # nodes and zones, their maps and tables of waiters
    reserve_resources(boot)  # records of the firmware's map, a place for devices
    setup_command_line(boot)  # copies of the command line
    setup_per_cpu_areas(boot)  # variables of each CPU, on its node
    build_all_zonelists(boot)  # where a request looks, in which order
    parse_parameters(boot)  # options
    pidhash_init(boot)  # hash table of processes
    vfs_caches_init_early(boot)  # hash tables of names and files
    mem_init(boot)  # everything free goes to the page allocator, bootmem ends
    setup_per_cpu_pageset(boot)  # per-CPU lists of the right size
    vfs_caches_init(boot)  # hash tables that the page allocator serves
    populate_rootfs(boot)  # the initial RAM disk is unpacked and comes back
    init_per_zone_pages_min(boot)  # watermarks, reserves, reserved pageblocks
    free_initmem(boot)  # the start-up's own code and data come back
    return booted_memory(boot)


def setup_arch(boot: BootBootmem) -> None:
    """Linux: setup_arch(), arch/x86/kernel/setup_32.c, setup_64.c (2.6.24)."""
    run_arch_stages(boot)


def sparse_init(boot: BootBootmem) -> None:
    """Linux: sparse_init(), mm/sparse.c (2.6.24)."""
    if boot.geometry.sparse:
        with boot.stage("sparse_init", "Makes the memory map: a struct page for each frame."):
            mem_map_bootmem.sparse_init(boot)


def free_area_init_nodes(boot: BootBootmem) -> None:
    """Linux: free_area_init_nodes(), mm/page_alloc.c (2.6.24)."""
    with boot.stage("free_area_init_nodes", "Divides memory into nodes and zones."):
        zones_bootmem.free_area_init_nodes(boot)


def reserve_resources(boot: BootBootmem) -> None:
    """Linux: e820_reserve_resources(), arch/x86/kernel/e820_64.c (2.6.24)."""
    with boot.stage("e820_reserve_resources", "Writes down what the firmware told.", "resources"):
        reserve(boot)


def setup_command_line(boot: BootBootmem) -> None:
    """Linux: setup_command_line(), init/main.c (2.6.24)."""
    with boot.stage("setup_command_line", "Copies the command line.", "command lines"):
        for _ in range(2):
            boot.bootmem.alloc(len(boot.cmdline.text) + 1)


def setup_per_cpu_areas(boot: BootBootmem) -> None:
    """Linux: setup_per_cpu_areas(), init/main.c, arch/x86/kernel/setup64.c (2.6.24)."""
    sentence = "Gives each CPU its own variables, on its node."
    with boot.stage("setup_per_cpu_areas", sentence, "per-CPU areas"):
        hashes_bootmem.setup_per_cpu_areas(boot)


def build_all_zonelists(boot: BootBootmem) -> None:
    """Linux: build_all_zonelists(), mm/page_alloc.c (2.6.24)."""
    with boot.stage("build_all_zonelists", "Sorts nodes and zones by preference."):
        zones_bootmem.build_all_zonelists(boot)


def parse_parameters(boot: BootBootmem) -> None:
    """Linux: parse_args(), kernel/params.c (2.6.24)."""
    boot.say(f"Kernel command line: {boot.cmdline.text}")


def pidhash_init(boot: BootBootmem) -> None:
    """Linux: pidhash_init(), kernel/pid.c (2.6.24)."""
    with boot.stage("pidhash_init", "Makes the table of processes.", "hash tables"):
        hashes_bootmem.pidhash_init(boot)


def vfs_caches_init_early(boot: BootBootmem) -> None:
    """Linux: vfs_caches_init_early(), fs/dcache.c (2.6.24)."""
    sentence = "Makes hash tables, sized by memory."
    with boot.stage("vfs_caches_init_early", sentence, "hash tables"):
        hashes_bootmem.vfs_caches_init_early(boot)


def mem_init(boot: BootBootmem) -> None:
    """Linux: mem_init(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)."""
    with boot.stage("mem_init", "Gives all free memory to the page allocator; bootmem ends."):
        free_all_bootmem(boot)
        free_highmem(boot)
        mem_init_print_info(boot)
        if boot.arch.highmem:
            boot.say(*virtual_layout_lines(boot))


def setup_per_cpu_pageset(boot: BootBootmem) -> None:
    """Linux: setup_per_cpu_pageset(), mm/page_alloc.c (2.6.24)."""
    with boot.stage("setup_per_cpu_pageset", "Lets each CPU keep a few frames to itself."):
        zones_bootmem.setup_per_cpu_pageset(boot)


def vfs_caches_init(boot: BootBootmem) -> None:
    """Linux: vfs_caches_init(), fs/dcache.c (2.6.24)."""
    hashes_bootmem.vfs_caches_init(boot)


def populate_rootfs(boot: BootBootmem) -> None:
    """Linux: populate_rootfs(), init/initramfs.c (2.6.24), a rootfs_initcall."""
    with boot.stage("populate_rootfs", "Unpacks the initial RAM disk and gives its memory back."):
        initcalls_bootmem.free_initrd(boot)


def init_per_zone_pages_min(boot: BootBootmem) -> None:
    """Linux: init_per_zone_pages_min(), mm/page_alloc.c (2.6.24), a device_initcall."""
    sentence = "Sets watermarks and reserves; sets the first pageblocks aside."
    with boot.stage("init_per_zone_pages_min", sentence):
        initcalls_bootmem.init_per_zone_pages_min(boot)


def free_initmem(boot: BootBootmem) -> None:
    """Linux: free_initmem(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)."""
    with boot.stage("free_initmem", "Gives the memory of the start-up itself back."):
        initcalls_bootmem.free_initmem(boot)
