# SPDX-License-Identifier: GPL-2.0-or-later
"""Hash tables of a starting 2.6.24, and its per-CPU areas: the last large users of bootmem.

Linux: pidhash_init(), kernel/pid.c; vfs_caches_init_early(), vfs_caches_init(), fs/dcache.c;
alloc_large_system_hash(), mm/page_alloc.c; setup_per_cpu_areas(), init/main.c,
arch/x86/kernel/setup64.c (2.6.24)
"""

from dataclasses import replace

from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.hash_tables import (
    DENTRY,
    INODE,
    HashRequest,
    HashTable,
    pid_hash_line,
    pid_hash_table,
    size_hash_table,
    with_pointer,
)

_LIST_HEAD_WORDS = 2


def setup_per_cpu_areas(boot: BootBootmem) -> None:
    """Copy the per-CPU variables: on each CPU's node, or in one block without NUMA."""
    bootmem, size = boot.bootmem, boot.config.percpu_bytes
    cpus = boot.setup.cpu_node
    if not boot.config.numa:
        page = boot.geometry.page_size
        bootmem.alloc_pages(-(-size // page) * page * len(cpus))
        return
    boot.say(
        f"SMP: Allowing {len(cpus)} CPUs, 0 hotplug CPUs",
        f"PERCPU: Allocating {size} bytes of per cpu data",
    )
    for nid in cpus:
        bootmem.alloc_pages_node(nid, size)


def pidhash_init(boot: BootBootmem) -> None:
    """The table of processes by number."""
    table = pid_hash_table(boot.made_zones.nr_kernel_pages, boot.geometry)
    boot.say(pid_hash_line(table))
    boot.hash_tables.append(table)
    boot.bootmem.alloc(table.bytes)


def hashes_come_late(boot: BootBootmem) -> bool:
    """Whether tables are spread over the nodes by vmalloc(): on 64-bit NUMA unless switched off.

    Linux: hashdist, HASHDIST_DEFAULT, include/linux/bootmem.h (2.6.24)
    """
    if not boot.config.numa:
        return False
    asked = boot.cmdline.hashdist
    return boot.arch.bits_per_long == 64 if asked is None else asked


def _tables(boot: BootBootmem) -> list[HashTable]:
    line = boot.cmdline
    asked = ((DENTRY, line.dhash_entries), (INODE, line.ihash_entries))
    return [_size(boot, request, entries) for request, entries in asked]


def _size(boot: BootBootmem, request: HashRequest, entries: int | None) -> HashTable:
    zones = boot.made_zones
    request = with_pointer(request, boot.geometry)
    if entries:
        request = replace(request, entries=entries)
    return size_hash_table(
        request, zones.nr_kernel_pages, zones.nr_all_pages, boot.geometry, boot.features
    )


def vfs_caches_init_early(boot: BootBootmem) -> None:
    """Tables of names and inodes, from bootmem."""
    if hashes_come_late(boot):
        return
    for table in _tables(boot):
        boot.bootmem.alloc(table.bytes)
        _tell(boot, table)


def vfs_caches_init(boot: BootBootmem) -> None:
    """The same tables where they are spread over the nodes; the table of mounts is one page."""
    if hashes_come_late(boot):
        for table in _tables(boot):
            _tell(boot, table)
    entries = boot.geometry.page_size // (_LIST_HEAD_WORDS * boot.geometry.bits_per_long // 8)
    boot.say(f"Mount-cache hash table entries: {entries}")


def _tell(boot: BootBootmem, table: HashTable) -> None:
    boot.hash_tables.append(table)
    boot.say(table.line(boot.geometry, boot.features))
