# SPDX-License-Identifier: GPL-2.0-or-later
"""The hash tables of a starting kernel: early from memblock, or later where nodes share them.

Linux: vfs_caches_init_early(), vfs_caches_init(), fs/dcache.c, fs/inode.c (6.1)
"""

from dataclasses import replace

from physmem.boot.boot import Boot
from physmem.boot.hash_tables import (
    DENTRY,
    INODE,
    MOUNT,
    MOUNTPOINT,
    HashRequest,
    HashTable,
    hashes_are_distributed,
    size_hash_table,
    with_pointer,
)


def hashes_come_late(boot: Boot) -> bool:
    """Whether tables are spread over the nodes by vmalloc().

    Linux: hashdist, fixup_hashdist(), mm/page_alloc.c (6.1)
    """
    if boot.zones is None:
        raise RuntimeError("zones come before hash tables")
    memory_nodes = sum(1 for node in boot.zones.nodes if node.present)
    if boot.cmdline.hashdist is not None and memory_nodes > 1:
        return boot.cmdline.hashdist
    return hashes_are_distributed(memory_nodes, boot.geometry, numa=boot.config.numa)


def _size(boot: Boot, request: HashRequest, entries: int | None) -> HashTable:
    zones = boot.zones
    if zones is None:
        raise RuntimeError("zones come before hash tables")
    request = with_pointer(request, boot.geometry)
    if entries:
        request = replace(request, entries=entries)
    return size_hash_table(
        request, zones.nr_kernel_pages, zones.nr_all_pages, boot.geometry, boot.features
    )


def early_tables(boot: Boot) -> list[HashTable]:
    """Tables of names and inodes."""
    line = boot.cmdline
    return [_size(boot, DENTRY, line.dhash_entries), _size(boot, INODE, line.ihash_entries)]


def late_tables(boot: Boot) -> list[HashTable]:
    """Tables of mounts, which come after the page allocator."""
    line = boot.cmdline
    return [_size(boot, MOUNT, line.mhash_entries), _size(boot, MOUNTPOINT, line.mphash_entries)]


def say_tables(boot: Boot, tables: list[HashTable], *, early: bool) -> None:
    """Print the lines of tables."""
    for table in tables:
        boot.hash_tables.append(table)
        where = "linear" if early else _where(boot, table)
        boot.say(table.line(boot.geometry, boot.features, where))


def _where(boot: Boot, table: HashTable) -> str:
    """Where a table that is not early lies; large ones get large pages if a node's part does.

    Linux: alloc_large_system_hash(), mm/page_alloc.c; __vmalloc_node_range(), mm/vmalloc.c (6.1)
    """
    order = (-(-table.bytes // boot.geometry.page_size) - 1).bit_length()
    if order < boot.geometry.nr_orders and not hashes_come_late(boot):
        return "linear"
    part = table.bytes // max(len(boot.fallback), 1)
    if boot.config.huge_vmalloc and boot.hardware.pse and part >= boot.arch.level("pmd").size:
        return "vmalloc hugepage"
    return "vmalloc"
