# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot allocations of the memory map, in the kernel's order.

Linux: sparse_init(), memory_present(), sparse_init_nid(), mm/sparse.c; vmemmap_populate(),
mm/sparse-vmemmap.c, arch/x86/mm/init_64.c; alloc_node_mem_map(), mm/page_alloc.c (6.1)
"""

from collections.abc import Iterator
from dataclasses import dataclass

from physmem.arch.direct_map import Leaves, TablePages
from physmem.boot.boot import Boot
from physmem.boot.map_sizes import (
    node_mem_map,
    section_map_bytes,
    section_root_bytes,
    section_usage_bytes,
    usemap_bytes,
)
from physmem.boot.zone_setup import memory_ranges
from physmem.lib.errors import BadMachineError

Sections = list[tuple[int, int, int]]
"""Runs of present sections: first, one after the last, node."""


def present_sections(boot: Boot) -> Sections:
    """Sections that memory touches, ascending; a section belongs to the last node in it."""
    shift = boot.geometry.pages_per_section.bit_length() - 1
    runs: Sections = []
    for memory in memory_ranges(boot):
        first, last = memory.start_pfn >> shift, (memory.end_pfn - 1 >> shift) + 1
        if runs and first < runs[-1][1]:
            # the section was marked before: its node changes, if this memory is another's
            start, end, nid = runs.pop()
            if nid == memory.nid:
                runs.append((start, max(end, last), nid))
                continue
            if start < first:
                runs.append((start, first, nid))
        if runs and runs[-1][1] == first and runs[-1][2] == memory.nid:
            runs[-1] = (runs[-1][0], last, memory.nid)
        else:
            runs.append((first, last, memory.nid))
    return runs


def sparse_init(boot: Boot) -> None:
    """Allocate section tables, usage maps and the memory map, node by node."""
    if not boot.geometry.sparse:
        return
    sections = present_sections(boot)
    _section_tables(boot, sections)
    tables = _VmemmapTables(boot)
    for nid, runs in _by_node(sections):
        _one_node(boot, tables, nid, runs)


def _by_node(sections: Sections) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Runs of sections of one node that no other node interrupts."""
    current: list[tuple[int, int]] = []
    owner = -1
    for first, last, nid in sections:
        if nid != owner and current:
            yield owner, current
            current = []
        owner = nid
        current.append((first, last))
    if current:
        yield owner, current


def _section_tables(boot: Boot, sections: Sections) -> None:
    memblock, geometry = boot.memblock, boot.geometry
    size, per_root = section_root_bytes(
        geometry, boot.arch.max_physmem_bits, boot.config.mem_section_bytes
    )
    cache = geometry.cache_bytes
    _must(memblock.alloc(size, cache, caller="sparse_init"), "section tables", size)
    done: set[int] = set()
    for first, last, nid in sections:
        for root in range(first // per_root, (last - 1) // per_root + 1):
            if root not in done:
                done.add(root)
                page = geometry.page_size
                memblock.alloc_node(page, cache, nid, caller="sparse_index_alloc")


def _one_node(boot: Boot, tables: "_VmemmapTables", nid: int, runs: list[tuple[int, int]]) -> None:
    memblock, geometry = boot.memblock, boot.geometry
    count = sum(last - first for first, last in runs)
    usage = section_usage_bytes(geometry, boot.features) * count
    section = 1 << (geometry.section_size_bits or 0)
    goal = boot.node_data.get(nid, 0) & -section
    limit = goal + section if goal else 0
    cache, caller = geometry.cache_bytes, "sparse_init_nid"
    found = memblock.alloc_try_nid(usage, cache, goal, limit, nid, caller=caller)
    if not found and limit:
        found = memblock.alloc_try_nid(usage, cache, goal, 0, nid, caller=caller)
    _must(found, f"usage maps of node {nid}", usage)
    one = section_map_bytes(geometry, boot.arch.level("pmd").size)
    start = memblock.alloc_exact_nid_raw(
        one * count, one, _dma_goal(boot), 0, nid, caller="sparse_buffer_init"
    )
    buffer = _Buffer(start, start + one * count if start else 0)
    for first, last in runs:
        tables.fill(first, last, nid)
        for number in range(first, last):
            tables.map(number, _section_map(boot, buffer, nid))
    if buffer.at < buffer.end:
        memblock.phys_free(buffer.at, buffer.end - buffer.at, caller="sparse_buffer_fini")


@dataclass
class _Buffer:
    """Memory for the maps of a node's sections, taken from the start on; 0: there is none."""

    at: int
    end: int


def _section_map(boot: Boot, buffer: _Buffer, nid: int) -> int:
    """Give a section its part of the memory map: from the buffer, else a block of its own.

    Returns its physical address.

    With 4 KiB pages the map is of 2 MiB blocks; else of single pages, taken as one block here.

    Linux: sparse_buffer_alloc(), mm/sparse.c; vmemmap_populate(), arch/arm64/mm/mmu.c (6.1)
    """
    geometry = boot.geometry
    size = section_map_bytes(geometry)
    huge = boot.arch.level("pmd").size
    align = huge if geometry.page_shift == 12 else geometry.page_size
    if geometry.page_shift == 12:
        size = section_map_bytes(geometry, huge)
    size = -(-size // align) * align
    start = -(-buffer.at // align) * align
    if buffer.at and start + size <= buffer.end:
        if start > buffer.at:
            skipped = start - buffer.at
            boot.memblock.phys_free(buffer.at, skipped, caller="sparse_buffer_alloc")
        buffer.at = start + size
        return start
    taken = boot.memblock.alloc_try_nid_raw(
        size, align, _dma_goal(boot), 0, nid, caller="memmap_alloc"
    )
    _must(taken, f"the memory map of node {nid}", size)
    return taken


def _dma_goal(boot: Boot) -> int:
    """Lowest address of ordinary allocations: on a PC 16 MiB, else the start of memory."""
    return boot.arch.max_dma_address or boot.memblock.start_of_dram()


def _must(address: int, what: str, size: int) -> None:
    if not address:
        raise BadMachineError(
            f"no memory for {what} ({size >> 10} KiB): the machine is too small to start a kernel"
        )


class _VmemmapTables:
    """Page tables of the virtual memory map: each is taken when it is first needed."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        # the map has leaves of a pmd entry, so that tables down to those of pmd are needed
        levels = [level for level in boot.arch.levels if not level.folded]
        depth = len(levels) - (2 if boot.arch.page_shift == 12 else 1)
        self.shifts = [level.shift for level in levels[:depth]]
        self.below = [level.name for level in levels[1 : depth + 1]]
        self.leaf = levels[depth]
        self.section_bytes = boot.geometry.pages_per_section * boot.geometry.struct_page
        self.seen: set[tuple[int, int]] = set()

    def fill(self, first: int, last: int, nid: int) -> None:
        """Make the tables for the maps of sections [first, last)."""
        boot = self.boot
        size = self.section_bytes
        base = boot.arch.layout.vmemmap_start
        start, end = base + first * size, base + last * size
        step = 1 << self.shifts[-1]
        page = boot.geometry.page_size
        for address in range(start & -step, end, step):
            for shift, level in zip(self.shifts, self.below, strict=True):
                slot = (shift, max(address, start) >> shift)
                if slot not in self.seen:
                    self.seen.add(slot)
                    taken = boot.memblock.alloc_try_nid_raw(
                        page, page, _dma_goal(boot), 0, nid, caller="vmemmap_alloc_block_zero"
                    )
                    _must(taken, "page tables of the memory map", page)
                    va = slot[1] << shift
                    boot.kernel_map.add_tables(TablePages(level, va, taken, 1, 0, "memblock"))

    def map(self, number: int, paddr: int) -> None:
        """Enter the map of a section: whole entries, the size of which it is padded to.

        Linux: vmemmap_set_pmd(), mm/sparse-vmemmap.c, arch/x86/mm/init_64.c (6.1)
        """
        size = self.leaf.size
        va = self.boot.arch.layout.vmemmap_start + number * self.section_bytes & -size
        end = va + -(-self.section_bytes // size) * size
        prot = self.boot.arch.vmemmap_prot
        self.boot.kernel_map.add_leaves(Leaves(self.leaf.name, va, end, paddr, size, prot))


def flat_mem_map(boot: Boot) -> None:
    """Allocate the memory map of FLATMEM, and the pageblock flags of each zone."""
    zones, memblock = boot.zones, boot.memblock
    if zones is None or boot.geometry.sparse:
        return
    cache = boot.geometry.cache_bytes
    for node in zones.nodes:
        _, size = node_mem_map(node, boot.geometry)
        if size:
            taken = memblock.alloc_try_nid_raw(size, cache, 0, 0, node.nid, caller="memmap_alloc")
            _must(taken, "the memory map", size)
        for zone in node.zones:
            if zone.spanned:
                flags = usemap_bytes(zone, boot.geometry, boot.features)
                memblock.alloc_node(flags, cache, node.nid, caller="setup_usemap")
