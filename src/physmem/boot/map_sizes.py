# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes of the tables that describe frames: the boot allocator must find room for them.

Linux: usemap_size(), alloc_node_mem_map(), mm/page_alloc.c, mm/sparse.c (2.6.24, 6.1)
"""

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry, round_down, round_up
from physmem.boot.zones import BootNode, BootZone
from physmem.lib.errors import BadMachineError

PAGES_PER_WAITQUEUE = 256
_SUBSECTION = 2 << 20
_RCU_HEAD = 16


def usemap_bytes(zone: BootZone, geometry: Geometry, features: BootFeature) -> int:
    """Bytes of a zone's pageblock bitmap (FLATMEM; with SPARSEMEM it belongs to the section).

    Linux: usemap_size(), mm/page_alloc.c (2.6.24, 6.1)
    """
    pages = zone.spanned
    skip_bit = BootFeature.PAGEBLOCK_SKIP_BIT in features
    if skip_bit:
        pages += zone.start_pfn % geometry.pageblock_pages
    bits = -(-pages // geometry.pageblock_pages) * (4 if skip_bit else 3)
    return round_up(bits, geometry.bits_per_long) // 8


def node_mem_map(node: BootNode, geometry: Geometry) -> tuple[int, int]:
    """First frame and bytes of a node's `struct page` array (FLATMEM); 0 bytes: none.

    Examples
    --------
    >>> node_mem_map(BootNode(nid=0, start_pfn=1, end_pfn=0x4AFDA, spanned=0x4AFD9, present=0,
    ...     zones=()), Geometry(struct_page=40, section_size_bits=None, pageblock_order=10))
    (0, 12288000)

    Linux: alloc_node_mem_map(), mm/page_alloc.c (2.6.24, 6.1)
    """
    if not node.spanned:
        return 0, 0
    start = round_down(node.start_pfn, geometry.max_order_pages)
    end = round_up(node.start_pfn + node.spanned, geometry.max_order_pages)
    return start, (end - start) * geometry.struct_page


def wait_table_entries(spanned: int, *, hotplug: bool = False) -> int:
    """Entries of a zone's hash table of waiters (2.6.24); the most there are with hotplug.

    Examples
    --------
    >>> [wait_table_entries(frames) for frames in (1, 4096, 520069, 1 << 24)]
    [4, 16, 2048, 4096]

    Linux: wait_table_hash_nr_entries(), mm/page_alloc.c (2.6.24)
    """
    if hotplug:
        return 4096
    wanted = spanned // PAGES_PER_WAITQUEUE
    return min(max(1 << max(wanted - 1, 0).bit_length(), 4), 4096)


def _sectioned(geometry: Geometry) -> int:
    """Log2 of the bytes of a section.

    Raises
    ------
    BadMachineError
        FLATMEM has no sections.
    """
    if geometry.section_size_bits is None:
        raise BadMachineError("FLATMEM has no sections: ask for the map of a node or zone")
    return geometry.section_size_bits


def section_map_bytes(geometry: Geometry, pmd_size: int = 0) -> int:
    """Bytes of a section's `struct page` array; in a virtual map, whole entries of `pmd_size`.

    Examples
    --------
    >>> section_map_bytes(Geometry(), 2 << 20), section_map_bytes(Geometry(struct_page=56))
    (2097152, 1835008)

    Linux: sparse_init_nid(), section_map_size(), mm/sparse.c (6.1)
    """
    _sectioned(geometry)
    size = geometry.pages_per_section * geometry.struct_page
    return round_up(size, pmd_size) if pmd_size else size


def section_usage_bytes(
    geometry: Geometry, features: BootFeature, *, rcu_head: bool = True, vmemmap: bool = True
) -> int:
    """Bytes of a section's pageblock types, with what stands before them.

    Parameters
    ----------
    rcu_head : stable 6.1 (and later) can free it late
    vmemmap : parts of a section may be missing: a bit for each 2 MiB

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> section_usage_bytes(Geometry(), boot_features("6.1"))
    56
    >>> section_usage_bytes(Geometry(struct_page=56), boot_features("2.6.24"))
    24

    Linux: usemap_size(), mm/sparse.c (2.6.24); mem_section_usage_size(), mm/sparse.c (6.1)
    """
    word = geometry.bits_per_long
    bits = _sectioned(geometry)
    blocks = geometry.pages_per_section // geometry.pageblock_pages
    if BootFeature.PAGEBLOCK_SKIP_BIT not in features:
        return round_up(round_up(blocks * 3, 8) // 8, word // 8)
    size = round_up(blocks * 4, word) // 8
    if rcu_head:
        size += _RCU_HEAD
    if vmemmap:
        size += round_up(max((1 << bits) // _SUBSECTION, 1), word) // 8
    return size


def section_root_bytes(
    geometry: Geometry, max_physmem_bits: int, descriptor: int = 16
) -> tuple[int, int]:
    """Bytes of the table of section roots, and sections that one page of descriptors serves.

    Examples
    --------
    >>> section_root_bytes(Geometry(), 46)
    (16384, 256)

    Linux: memory_present(), sparse_index_alloc(), mm/sparse.c (6.1)
    """
    per_root = geometry.page_size // descriptor
    sections = 1 << max(max_physmem_bits - _sectioned(geometry), 0)
    return geometry.bits_per_long // 8 * -(-sections // per_root), per_root
