# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's build decides about frames and pageblocks."""

from dataclasses import dataclass

from physmem.lib.errors import BadMachineError


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Constants of a build that sizes and borders depend on.

    Attributes
    ----------
    page_shift : log2 of the page size in bytes
    nr_orders : number of buddy orders; the largest block has 1 << (nr_orders - 1) frames
    pageblock_order : log2 of the frames of a pageblock
    struct_page : bytes of a `struct page`
    section_size_bits : log2 of the bytes of a SPARSEMEM section; None: FLATMEM
    bits_per_long : word size
    cache_bytes : SMP_CACHE_BYTES, alignment of boot allocations
    migrate_types : kinds of pageblocks (MIGRATE_TYPES): decides when grouping is switched off
    sparse_always_valid : all sections below the end of memory exist, holes too

    Raises
    ------
    BadMachineError
        Sizes that no kernel was ever built with.

    Examples
    --------
    >>> geometry = Geometry()
    >>> geometry.page_size, geometry.max_order_pages, geometry.pages_per_section
    (4096, 1024, 32768)
    >>> Geometry(page_shift=16, nr_orders=14, pageblock_order=13, section_size_bits=29).page_size
    65536
    """

    page_shift: int = 12
    nr_orders: int = 11
    pageblock_order: int = 9
    struct_page: int = 64
    section_size_bits: int | None = 27
    bits_per_long: int = 64
    cache_bytes: int = 64
    migrate_types: int = 5
    sparse_always_valid: bool = False

    def __post_init__(self) -> None:
        """Refuse what later computations would stumble over."""
        if not 10 <= self.page_shift <= 20:
            raise BadMachineError(f"page_shift {self.page_shift}: pages are 1 KiB to 1 MiB")
        if not 1 <= self.nr_orders <= 20:
            raise BadMachineError(f"nr_orders {self.nr_orders}: a kernel has 1 to 20 orders")
        if not 0 <= self.pageblock_order < self.nr_orders:
            msg = f"pageblock_order {self.pageblock_order}: below nr_orders {self.nr_orders}"
            raise BadMachineError(msg)
        if self.bits_per_long not in {32, 64}:
            raise BadMachineError(f"bits_per_long {self.bits_per_long}: 32 or 64")
        if not 1 <= self.struct_page <= 4096:
            raise BadMachineError(f"struct_page {self.struct_page} bytes: 1 to 4096")
        bits = self.section_size_bits
        if bits is not None and bits < self.page_shift + self.nr_orders - 1:
            msg = f"section_size_bits {bits}: a section is not smaller than the largest block"
            raise BadMachineError(msg)

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return 1 << self.page_shift

    @property
    def max_order_pages(self) -> int:
        """Frames of the largest block. Linux: MAX_ORDER_NR_PAGES"""
        return 1 << (self.nr_orders - 1)

    @property
    def pageblock_pages(self) -> int:
        """Frames of a pageblock. Linux: pageblock_nr_pages"""
        return 1 << self.pageblock_order

    @property
    def sparse(self) -> bool:
        """Whether `struct page` arrays exist per section (SPARSEMEM)."""
        return self.section_size_bits is not None

    @property
    def pages_per_section(self) -> int:
        """Frames of a section; with FLATMEM those of the largest block.

        Linux: PAGES_PER_SECTION
        """
        if self.section_size_bits is None:
            return self.max_order_pages
        return 1 << (self.section_size_bits - self.page_shift)


def round_up(value: int, step: int) -> int:
    """Smallest multiple of `step` that is not below `value`.

    Examples
    --------
    >>> round_up(5, 4), round_up(8, 4)
    (8, 8)
    """
    return -(-value // step) * step


def round_down(value: int, step: int) -> int:
    """Largest multiple of `step` that is not above `value`.

    Examples
    --------
    >>> round_down(5, 4), round_down(8, 4)
    (4, 8)
    """
    return value // step * step
