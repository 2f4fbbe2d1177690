# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem: the boot allocator of 2.6.24, a bitmap for every node.

Linux: mm/bootmem.c, include/linux/bootmem.h (2.6.24)
"""

from dataclasses import dataclass

from physmem.bootalloc.bootmem_free import BootmemFree, free_runs
from physmem.bootalloc.bootmem_node import BootmemNode
from physmem.bootalloc.ram import ViewRam
from physmem.lib.errors import BadRequestError, BootAllocError, CorruptStateError


@dataclass(frozen=True, kw_only=True)
class BootmemConfig:
    """What differs between architectures and versions.

    `max_dma_address` is the goal of ordinary allocations, `low_limit` the limit of low ones, in
    bytes. `exclusive` is BOOTMEM_EXCLUSIVE of 2.6.25.
    """

    page_shift: int = 12
    bits_per_long: int = 64
    smp_cache_bytes: int = 64
    max_dma_address: int = 16 << 20
    low_limit: int = 0xFFFF_FFFF
    exclusive: bool = False


class Bootmem:
    """Boot memory of all nodes, in list order: ascending start.

    Everything starts as taken; `free` tells what is memory, `reserve` takes parts back. All
    addresses are physical, in bytes.

    Parameters
    ----------
    config : BootmemConfig, optional
        x86-64 unless told.
    ram : ViewRam, optional
        Holds the bitmaps, at the pages given for them, and is cleared where memory is allocated.

    Examples
    --------
    >>> bootmem = Bootmem(BootmemConfig(bits_per_long=32, smp_cache_bytes=32))
    >>> bootmem.init_bootmem(map_pfn=300, pages=1000)
    128
    >>> bootmem.free(0, 0x9FC00)
    >>> bootmem.reserve(0, 4096)
    >>> hex(bootmem.alloc_low(100)), hex(bootmem.alloc_low(100))
    ('0x1000', '0x1080')
    >>> bootmem.free_all().total
    158
    >>> bootmem.alloc_low(100)
    Traceback (most recent call last):
    ...
    physmem.lib.errors.BootAllocError: bootmem is shut down; its free memory went to the buddy \
system: use the page allocator
    """

    def __init__(self, config: BootmemConfig | None = None, *, ram: ViewRam | None = None) -> None:
        self.config = config or BootmemConfig()
        if self.config.bits_per_long not in (32, 64):
            raise BadRequestError(f"a long has 32 or 64 bits, not {self.config.bits_per_long}")
        self.page_size = 1 << self.config.page_shift
        self.ram = ram
        self.nodes: list[BootmemNode] = []
        self.min_low_pfn = 0
        self.max_low_pfn = 0

    # -- setting up ----------------------------------------------------------------------------

    def bootmap_pages(self, pages: int) -> int:
        """Pages to find for the bitmap of `pages` pages.

        Linux: bootmem_bootmap_pages(), mm/bootmem.c (2.6.24)

        Examples
        --------
        >>> Bootmem().bootmap_pages(1 << 28)
        8192
        """
        return -(-((pages + 7) // 8) // self.page_size)

    def init_bootmem(self, map_pfn: int, pages: int) -> int:
        """Set up node 0 from page 0 on; return the bytes of its bitmap.

        Linux: init_bootmem(), mm/bootmem.c (2.6.24)
        """
        self.min_low_pfn, self.max_low_pfn = map_pfn, pages
        return self.init_bootmem_node(0, map_pfn, 0, pages)

    def init_bootmem_node(self, nid: int, map_pfn: int, start_pfn: int, end_pfn: int) -> int:
        """Set up a node of the pages [start_pfn, end_pfn), all taken; return the bitmap's bytes.

        Linux: init_bootmem_node(), mm/bootmem.c (2.6.24)
        """
        if any(node.nid == nid for node in self.nodes):
            raise BadRequestError(f"bootmem of node {nid} was set up before")
        if not 0 <= start_pfn <= end_pfn or map_pfn < 0:
            raise BadRequestError(
                f"bootmem of node {nid}: no pages [{start_pfn:#x}, {end_pfn:#x}) "
                f"with a bitmap at page {map_pfn:#x}"
            )
        long = self.config.bits_per_long // 8
        size = -(-((end_pfn - start_pfn + 7) // 8) // long) * long
        shift = self.config.page_shift
        node = BootmemNode(nid, start_pfn << shift, end_pfn, map_pfn, size, shift)
        node.reset(self.ram)
        behind = [i for i, other in enumerate(self.nodes) if node.start < other.start]
        self.nodes.insert(behind[0] if behind else len(self.nodes), node)
        return size

    def node(self, nid: int) -> BootmemNode:
        """The state of node `nid`."""
        for node in self.nodes:
            if node.nid == nid:
                return node
        raise BadRequestError(f"bootmem knows no node {nid}")

    def reserve(self, addr: int, size: int, nid: int = 0, *, exclusive: bool = False) -> None:
        """Take all pages that [addr, addr + size) touches, on one node.

        Linux: reserve_bootmem(), reserve_bootmem_node(), mm/bootmem.c (2.6.24)

        Raises
        ------
        BootAllocError
            When the kernel would BUG; with `exclusive` when a page is taken already.
        BadRequestError
            When the kernel has no such flag (`BootmemConfig.exclusive`).
        """
        if exclusive and not self.config.exclusive:
            raise BadRequestError("BOOTMEM_EXCLUSIVE: this kernel has no such flag (2.6.25 has)")
        self.node(nid).reserve(addr, size, exclusive=exclusive)

    def free(self, addr: int, size: int, nid: int = 0) -> None:
        """Give back the whole pages of [addr, addr + size), on one node.

        Linux: free_bootmem(), free_bootmem_node(), mm/bootmem.c (2.6.24)
        """
        self.node(nid).free(addr, size)

    # -- allocating ----------------------------------------------------------------------------

    def alloc_core(self, nid: int, size: int, align: int, goal: int, limit: int) -> int | None:
        """Allocate on one node, or None. See `BootmemNode.alloc`.

        Linux: __alloc_bootmem_core(), mm/bootmem.c (2.6.24)
        """
        self._must_be_up()
        return self._on(self.node(nid), size, align, goal, limit)

    def alloc_nopanic(self, size: int, align: int, goal: int, limit: int = 0) -> int | None:
        """Allocate on the first node that can, or None.

        Linux: __alloc_bootmem_nopanic(), mm/bootmem.c (2.6.24)
        """
        self._must_be_up()
        for node in self.nodes:
            found = self._on(node, size, align, goal, limit)
            if found is not None:
                return found
        return None

    def alloc(self, size: int, align: int | None = None, goal: int | None = None) -> int:
        """Allocate on any node, above the DMA zone if possible. A cache line is the alignment.

        Linux: alloc_bootmem(), __alloc_bootmem(), mm/bootmem.c (2.6.24)

        Raises
        ------
        BootAllocError
            When no node has the memory: the kernel panics.
        """
        align = self.config.smp_cache_bytes if align is None else align
        goal = self.config.max_dma_address if goal is None else goal
        found = self.alloc_nopanic(size, align, goal)
        if found is None:
            raise BootAllocError(f"bootmem alloc of {size} bytes failed! Out of memory")
        return found

    def alloc_pages(self, size: int) -> int:
        """Allocate whole pages. Linux: alloc_bootmem_pages() (2.6.24)."""
        return self.alloc(size, self.page_size)

    def alloc_low(self, size: int, align: int | None = None, goal: int = 0) -> int:
        """Allocate below 4 GiB, from the bottom.

        Linux: alloc_bootmem_low(), __alloc_bootmem_low(), mm/bootmem.c (2.6.24)
        """
        align = self.config.smp_cache_bytes if align is None else align
        found = self.alloc_nopanic(size, align, goal, self.config.low_limit)
        if found is None:
            raise BootAllocError(f"low bootmem alloc of {size} bytes failed! Out of low memory")
        return found

    def alloc_low_pages(self, size: int) -> int:
        """Allocate whole pages below 4 GiB. Linux: alloc_bootmem_low_pages() (2.6.24)."""
        return self.alloc_low(size, self.page_size)

    def alloc_node(
        self, nid: int, size: int, align: int | None = None, goal: int | None = None
    ) -> int:
        """Allocate on `nid`, else on any node.

        Linux: alloc_bootmem_node(), __alloc_bootmem_node(), mm/bootmem.c (2.6.24)
        """
        self._must_be_up()
        align = self.config.smp_cache_bytes if align is None else align
        goal = self.config.max_dma_address if goal is None else goal
        found = self._on(self.node(nid), size, align, goal, 0)
        return self.alloc(size, align, goal) if found is None else found

    def alloc_pages_node(self, nid: int, size: int) -> int:
        """Allocate whole pages on `nid`, else anywhere. Linux: alloc_bootmem_pages_node()."""
        return self.alloc_node(nid, size, self.page_size)

    def alloc_low_pages_node(self, nid: int, size: int) -> int | None:
        """Allocate whole pages of `nid` below 4 GiB, or None.

        Linux: alloc_bootmem_low_pages_node(), __alloc_bootmem_low_node() (2.6.24)
        """
        self._must_be_up()
        return self._on(self.node(nid), size, self.page_size, 0, self.config.low_limit)

    # -- the end -------------------------------------------------------------------------------

    def free_all(self, nid: int = 0) -> BootmemFree:
        """Shut one node down and return what the buddy system gets, the bitmap's pages last.

        Linux: free_all_bootmem(), free_all_bootmem_node(), mm/bootmem.c (2.6.24)

        Raises
        ------
        BootAllocError
            When it was done before: the kernel would BUG.
        """
        node = self.node(nid)
        if node.bits is None:
            raise BootAllocError(f"kernel BUG: bootmem of node {nid} was given away before")
        return free_runs(node, self.config.bits_per_long)

    def validate(self) -> None:
        """Check every node, and that the nodes are in ascending order.

        Raises
        ------
        CorruptStateError
            With `invariant` one of `bootmem-order`, `bootmem-count`, `bootmem-surplus`,
            `bootmem-offset`.
        """
        starts = [node.start for node in self.nodes]
        if starts != sorted(starts):
            raise CorruptStateError("bootmem-order", f"nodes start at {starts}")
        for node in self.nodes:
            node.validate()

    def _must_be_up(self) -> None:
        if self.nodes and all(node.bits is None for node in self.nodes):
            raise BootAllocError(
                "bootmem is shut down; its free memory went to the buddy system: use the page "
                "allocator"
            )

    def _on(self, node: BootmemNode, size: int, align: int, goal: int, limit: int) -> int | None:
        found = node.alloc(size, align, goal, limit)
        if found is not None and self.ram is not None:
            self.ram.zero(found, size)
        return found
