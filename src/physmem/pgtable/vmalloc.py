# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that lies together only virtually: vmalloc, vmap, ioremap.

Linux: __vmalloc(), vfree(), vmap(), vunmap(), mm/vmalloc.c; ioremap(), lib/ioremap.c
"""

from collections.abc import Sequence
from dataclasses import dataclass

from physmem.lib.errors import BadFreeError, PhysmemError
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs
from physmem.pgtable.vmap_area import AreaAllocator, VmArea, VmTrees

_HUGE_VMALLOC = ("x86_64", "arm64")
"""Formats whose kernels have HAVE_ARCH_HUGE_VMALLOC (6.1)."""
GFP_VMALLOC = 0xCC2
"""GFP_KERNEL | __GFP_HIGHMEM"""


@dataclass
class Vmapped:
    """What lies behind an area: frames that belong to it, or none of its own."""

    area: VmArea
    frames: list[int]
    owned: bool


class Vmalloc:
    """The vmalloc area of a kernel.

    Parameters
    ----------
    table : PageTable
        The kernel's own; its source must be the page allocator.
    areas : VmList or VmTrees
        Rules for addresses.
    tlbs : Tlbs, optional
        Translation buffers to keep right.

    Examples
    --------
    >>> from physmem.machine.machine import Machine
    >>> from physmem.pgtable.formats import page_table_format
    >>> from physmem.pgtable.source import Buddy
    >>> machine = Machine.build("64MiB")
    >>> table = PageTable(page_table_format("x86_64"), machine.ram, Buddy(machine._h))
    >>> vm = Vmalloc(table, VmTrees(0xFFFFC90000000000, 0xFFFFE90000000000))
    >>> va = vm.vmalloc(10000)
    >>> hex(va), table.translate(va + 8192).ok, table.translate(va + 12288).reason
    ('0xffffc90000000000', True, 'not_present')
    >>> vm.vfree(va)
    """

    def __init__(self, table: PageTable, areas: AreaAllocator, tlbs: Tlbs | None = None) -> None:
        self.table = table
        self.areas = areas
        self.tlbs = tlbs
        self._mapped: dict[int, Vmapped] = {}
        self._page = table.format.page_size
        self._order = 0
        shift = int(table.record[0]["frame_shift"])
        self._order = table.format.page_shift - shift

    def vmalloc(self, size: int, *, prot: str = "PAGE_KERNEL", gfp: int = GFP_VMALLOC) -> int:
        """Single frames at consecutive virtual addresses; the first address.

        Raises
        ------
        OutOfMemoryError
            No addresses, no frames, or no tables: nothing is held then.
        """
        area = self.areas.get(size)
        frames: list[int] = []
        try:
            for _ in range((area.size - 1) // self._page):
                frames.append(self.table.alloc_frames(self._order, gfp))  # noqa: PERF401 - see below
            self._enter(area, frames, prot)
        except PhysmemError:
            for paddr in frames:  # those that there were before it failed
                self.table.free_frames(paddr, self._order)
            self.areas.put(area)
            raise
        self._mapped[area.addr] = Vmapped(area, frames, owned=True)
        return area.addr

    def vmalloc_huge(
        self, size: int, *, prot: str = "PAGE_KERNEL", gfp: int = GFP_VMALLOC, nr_nodes: int = 1
    ) -> int:
        """`vmalloc` with huge pages where kernel and format have them, else with small ones.

        They come with `VmTrees` (6.1) on x86-64 and arm64, for a huge page or more per node. The
        size is rounded up to huge pages. Without enough of them all pages are small.

        Linux: vmalloc_huge(), __vmalloc_node_range(), mm/vmalloc.c (6.1)
        """
        fmt = self.table.format
        shift = fmt.levels[-2].shift
        large = 1 << shift
        known = fmt.name.startswith(_HUGE_VMALLOC) and isinstance(self.areas, VmTrees)
        if not known or size // nr_nodes < large:
            return self.vmalloc(size, prot=prot, gfp=gfp)
        area = self.areas.get(size + large - 1 & -large, align=large)
        order = self._order + shift - fmt.page_shift
        frames: list[int] = []
        try:
            for at in range(area.addr, area.end - self._page, large):
                frames.append(self.table.alloc_frames(order, gfp))
                self.table.map(at, frames[-1], large, prot, page=large)
        except PhysmemError:
            self.table.unmap(area.addr, area.size - self._page, keep_tables=True)
            for paddr in frames:
                self.table.free_frames(paddr, order)
            self.areas.put(area)
            return self.vmalloc(size, prot=prot, gfp=gfp)
        for paddr in frames:
            self.table.split_frames(paddr, order, self._order)
        small = [at for paddr in frames for at in range(paddr, paddr + large, self._page)]
        self._call("flush_cache_vmap")
        self._mapped[area.addr] = Vmapped(area, small, owned=True)
        return area.addr

    def vmap(self, frames: Sequence[int], *, prot: str = "PAGE_KERNEL") -> int:
        """Frames of the caller's (physical addresses) at consecutive virtual addresses."""
        area = self.areas.get(len(frames) * self._page)
        try:
            self._enter(area, frames, prot)
        except PhysmemError:
            self.areas.put(area)
            raise
        self._mapped[area.addr] = Vmapped(area, list(frames), owned=False)
        return area.addr

    def ioremap(self, paddr: int, size: int, *, prot: str = "PAGE_KERNEL_NOCACHE") -> int:
        """A device's registers at virtual addresses; that of `paddr` itself."""
        offset = paddr % self._page
        first = paddr - offset
        size = -(-(size + offset) // self._page) * self._page
        area = self.areas.get(size, ioremap=True)
        try:
            self.table.map(area.addr, first, size, prot, largest=self._page)
        except PhysmemError:
            self.areas.put(area)
            raise
        self._call("flush_cache_vmap")
        self._mapped[area.addr] = Vmapped(area, [], owned=False)
        return area.addr + offset

    def _enter(self, area: VmArea, frames: Sequence[int], prot: str) -> None:
        """Map frames one after the other; runs that lie together at once.

        Linux: map_vm_area() (2.6.24), vmap_pages_range() (6.1)
        """
        at = 0
        try:
            while at < len(frames):
                count = 1
                while (
                    at + count < len(frames)
                    and frames[at + count] == frames[at] + count * self._page
                ):
                    count += 1
                va = area.addr + at * self._page
                self.table.map(va, frames[at], count * self._page, prot, largest=self._page)
                at += count
        except PhysmemError:
            if at:
                self.table.unmap(area.addr, at * self._page, keep_tables=True)
            raise
        self._call("flush_cache_vmap")

    def vfree(self, va: int, *, flush: bool = True) -> None:
        """Give memory of `vmalloc` back. `flush=False` forgets the translation buffers.

        Raises
        ------
        BadFreeError
            Nothing of vmalloc begins there.
        """
        if va not in self._mapped or not self._mapped[va].owned:
            raise BadFreeError(f"{va:#x}: nothing that vmalloc gave begins there")
        self._remove(va, flush=flush)

    def vunmap(self, va: int, *, flush: bool = True) -> None:
        """Undo `vmap` or `ioremap`.

        Raises
        ------
        BadFreeError
            Nothing of vmap or ioremap begins on that page.
        """
        va &= -self._page
        if va not in self._mapped or self._mapped[va].owned:
            raise BadFreeError(f"{va:#x}: nothing that vmap or ioremap gave begins there")
        self._remove(va, flush=flush)

    iounmap = vunmap

    def _remove(self, va: int, *, flush: bool) -> None:
        mapped = self._mapped.pop(va)
        area = mapped.area
        self._call("flush_cache_vunmap")
        # tables of the kernel's half stay: other address spaces point to them
        self.table.unmap(area.addr, area.size - self._page, keep_tables=True)
        self.areas.put(area)
        lazy = isinstance(self.areas, VmTrees)
        if flush and not lazy and self.tlbs is not None:
            self.tlbs.flush_tlb_kernel_range(area.addr, area.end)
        if flush and isinstance(self.areas, VmTrees) and self.areas.wants_purge:
            self.purge()
        if mapped.owned:
            for paddr in mapped.frames:
                self.table.free_frames(paddr, self._order)

    def purge(self) -> int:
        """Flush what was given back and let its addresses be used again; how many areas.

        Linux: __purge_vmap_area_lazy(), mm/vmalloc.c (6.1)
        """
        gone = self.areas.purge()
        if gone and self.tlbs is not None:
            start, end = min(area.addr for area in gone), max(area.end for area in gone)
            self.tlbs.flush_tlb_kernel_range(start, end)
        return len(gone)

    def _call(self, name: str) -> None:
        if self.tlbs is not None:
            self.tlbs.cache_call(name)
