# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory for struct pages, served by bootmem: sections with a virtual map, or one flat array.

Linux: memory_present(), sparse_init(), mm/sparse.c; vmemmap_populate(), arch/x86/mm/init_64.c;
alloc_node_mem_map(), setup_usemap(), zone_wait_table_init(), mm/page_alloc.c (2.6.24)
"""

from physmem.arch.direct_map import Leaves, TablePages
from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.map_sizes import (
    node_mem_map,
    section_usage_bytes,
    usemap_bytes,
    wait_table_entries,
)
from physmem.boot.mem_map import OWNER
from physmem.boot.zones import BootNode

_SECTION_TABLE = "section table"
_USEMAP = "pageblock flags"


def memory_present(boot: BootBootmem) -> dict[int, int]:
    """Node of each section that has memory; makes pages of descriptors as they are needed.

    Without NUMA all sections below the end of memory count, holes too.

    Linux: memory_present(), sparse_index_init(), mm/sparse.c (2.6.24)
    """
    geometry = boot.geometry
    per = geometry.pages_per_section
    per_root = geometry.page_size // boot.config.mem_section_bytes
    spans = [(memory.start_pfn, memory.end_pfn, memory.nid) for memory in boot.node_map.sorted()]
    if geometry.sparse_always_valid:
        spans = [(0, boot.limits.max_pfn, 0)]
    sections: dict[int, int] = {}
    roots: set[int] = set()
    boot.bootmem.purpose = _SECTION_TABLE
    for start, end, nid in spans:
        for number in range(start // per, (end - 1) // per + 1):
            if number // per_root not in roots:
                roots.add(number // per_root)
                boot.bootmem.alloc_node(nid, per_root * boot.config.mem_section_bytes)
            sections.setdefault(number, nid)
    return sections


def sparse_init(boot: BootBootmem) -> None:
    """A piece of the virtual map and a map of pageblock types for each section.

    Linux: sparse_init(), sparse_early_mem_map_alloc(), sparse_early_usemap_alloc(), mm/sparse.c
    (2.6.24)
    """
    if not boot.geometry.sparse:
        return
    sections = memory_present(boot)
    vmemmap = _Vmemmap(boot)
    usemap = section_usage_bytes(boot.geometry, boot.features)
    for number, nid in sorted(sections.items()):
        vmemmap.populate(number, nid)
        boot.bootmem.purpose = _USEMAP
        boot.bootmem.alloc_node(nid, usemap)


class _Vmemmap:
    """The virtual map of struct pages, in entries of 2 MiB.

    Linux: vmemmap_populate(), arch/x86/mm/init_64.c; vmemmap_alloc_block(), mm/sparse-vmemmap.c
    """

    def __init__(self, boot: BootBootmem) -> None:
        self.boot = boot
        self.upper = [boot.arch.level(name).shift for name in ("pgd", "pud")]
        self.pmd = boot.arch.level("pmd").shift
        self.made: set[tuple[int, int]] = set()

    def populate(self, number: int, nid: int) -> None:
        """Map the struct pages of a section."""
        layout, geometry = self.boot.arch.layout, self.boot.geometry
        size = geometry.pages_per_section * geometry.struct_page
        start = layout.vmemmap_start + number * size
        for slot in range(start >> self.pmd, (start + size - 1 >> self.pmd) + 1):
            self._block(slot << self.pmd, nid)

    def _block(self, va: int, nid: int) -> None:
        page, size = self.boot.geometry.page_size, 1 << self.pmd
        made = self.boot.setup.direct_map
        for shift, level in zip(self.upper, ("pud", "pmd"), strict=True):
            table = self._take((shift, va >> shift), page, nid, "page tables of mem_map")
            if table is not None:
                made.add_tables(TablePages(level, va >> shift << shift, table, 1, 0, "bootmem"))
        block = self._take((self.pmd, va >> self.pmd), size, nid, OWNER)
        if block is not None:
            made.add_leaves(Leaves("pmd", va, va + size, block, size, "PAGE_KERNEL"))
            at = block + self.boot.arch.layout.page_offset
            self.boot.say(f" [{va:x}-{va + size - 1:x}] PMD ->{at:016x} on node {nid}")

    def _take(self, slot: tuple[int, int], size: int, nid: int, owner: str) -> int | None:
        """Memory for a slot of a table, or None if it has some."""
        if slot in self.made:
            return None
        self.made.add(slot)
        self.boot.bootmem.purpose = owner
        return self.boot.bootmem.alloc_node(nid, size, size)


def alloc_node_tables(boot: BootBootmem, node: BootNode) -> None:
    """What a node and its zones need: flat struct pages, pageblock types, tables of waiters.

    Linux: free_area_init_node(), mm/page_alloc.c (2.6.24)
    """
    bootmem, geometry = boot.bootmem, boot.geometry
    if not geometry.sparse:
        _, size = node_mem_map(node, geometry)
        if size:
            bootmem.purpose = OWNER
            bootmem.alloc_node(node.nid, size)
    for zone in node.zones:
        if not zone.spanned:
            continue
        if not geometry.sparse:
            bootmem.purpose = _USEMAP
            bootmem.alloc_node(node.nid, usemap_bytes(zone, geometry, boot.features))
        bootmem.purpose = "wait tables"
        entries = wait_table_entries(zone.spanned)
        bootmem.alloc_node(node.nid, entries * boot.config.wait_queue_head_bytes)
