# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's page tables, from the plan of the start-up into the machine's memory.

Linux: swapper_pg_dir, arch/*/kernel/head*.S; preallocate_vmalloc_pages(), arch/x86/mm/init_64.c
(6.1)
"""

from physmem.arch.descriptor import Arch, Generation
from physmem.arch.direct_map import EMPTY, KERNEL
from physmem.arch.registry import arch_for
from physmem.boot.booted import BootedMemory
from physmem.boot.features import BootFeature, boot_features
from physmem.lib.ram import Ram
from physmem.machine.origin import KernelTables
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.kernel_map import write_kernel_map

_EAGER = 1 << 11
"""Tables up to which they are written at once: 8 MiB of them."""


def arch_of(booted: BootedMemory) -> Arch:
    """The architecture, as the kernel that was booted sees it."""
    memblock = BootFeature.MEMBLOCK in boot_features(booted.kernel)
    return arch_for(booted.arch, Generation.MEMBLOCK if memblock else Generation.BOOTMEM)


def enter_kernel_map(booted: BootedMemory, ram: Ram) -> KernelTables | None:
    """Write the page tables that the start-up made; None: it made none (a log tells no entries).

    The tables of a terabyte of small pages (arm64) take 2 GiB: so many are written when somebody
    looks at the memory for the first time.
    """
    made = booted.kernel_map
    if made is None:
        return None
    arch = arch_of(booted)
    old = arch.generation is Generation.BOOTMEM
    form = page_table_format(arch.page_table, old_bits=old)
    fixed = sum(tables.count for tables in made.fixed if tables.space == KERNEL)
    count = 1 + fixed + sum(tables.count for tables in made.tables if tables.space == KERNEL)
    if count <= _EAGER:
        count = write_kernel_map(form, ram, made)
    else:
        ram.write_later(lambda memory: write_kernel_map(form, memory, made))
    root = made.roots[KERNEL]
    return KernelTables(
        format=form.name,
        root=made.roots.get(EMPTY, root),
        root_high=root,
        nr_tables=count + form.two_roots,
        old_bits=old,
    )


def vmalloc_tables(booted: BootedMemory) -> tuple[tuple[str, int], ...]:
    """Tables below the top one that the vmalloc area gets before anybody uses it.

    Random addresses (KASLR) move the area off a boundary, so that it touches one entry more; here
    it stays in its place, and the entry behind it gets the table.
    """
    if not booted.early_taken or booted.kernel_map is None:
        return ()
    arch = arch_of(booted)
    top, below = [level for level in arch.levels if not level.folded][:2]
    start = arch.layout.vmalloc_start
    return tuple((below.name, start + (n << top.shift)) for n in range(booted.early_taken))
