# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory contiguous by address, made of single frames; and the choice between it and kmalloc.

Linux: __vmalloc_node_range(), mm/vmalloc.c; kvmalloc_node(), mm/util.c (6.1)

DEVIATION: no page tables are written here, huge mappings are not tried, and a freed range can be
used again at once.
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from physmem.lib.errors import BadPointerError, BadRequestError, OutOfMemoryError
from physmem.lib.jit import ready
from physmem.lib.struct import address as address_of
from physmem.mm.entry import do_alloc_pages, do_free_pages
from physmem.mm.gfp import (
    __GFP_DIRECT_RECLAIM,
    __GFP_HIGHMEM,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RETRY_MAYFAIL,
    __GFP_ZERO,
)
from physmem.mm.mmzone import NONE

if TYPE_CHECKING:
    from physmem.slab.allocator import ObjectAllocator
    from physmem.slab.cache import Cache

RETRY_MAYFAIL = __GFP_RETRY_MAYFAIL
NORETRY = __GFP_NORETRY
NOWARN = __GFP_NOWARN
NOFAIL = __GFP_NOFAIL
CAN_WAIT = __GFP_DIRECT_RECLAIM
HIGHMEM = __GFP_HIGHMEM
ZERO = __GFP_ZERO
VMALLOC_START = 0xFFFFC90000000000
VMALLOC_END = 0xFFFFE8FFFFFFFFFF
SIZEOF_VM_STRUCT = 64
SIZEOF_VMAP_AREA = 72


@dataclass(frozen=True)
class VmStruct:
    """One area: addresses without the guard page, its frames, what describes it."""

    start: int
    size: int
    pfns: tuple[int, ...]
    descriptor: int
    area: int
    pages: int

    @property
    def end(self) -> int:
        """Address behind the guard page."""
        return self.start + self.size + 4096


class Vmalloc:
    """The vmalloc area of a machine.

    Attributes
    ----------
    areas : by start address

    Examples
    --------
    >>> from physmem import Machine
    >>> machine = Machine.build("64MiB")
    >>> address = machine.kvmalloc(8 << 20)   # more than kmalloc can give
    >>> len(machine.vmalloc_area.areas[address].pfns)
    2048
    >>> machine.kvfree(address)
    """

    def __init__(self, allocator: "ObjectAllocator", areas: Iterable[Any] | None = None) -> None:
        self.allocator = allocator
        self.areas: dict[int, VmStruct] = {}
        self._starts: list[int] = []
        if areas is None:
            self._cache: Cache = allocator.kmem_cache_create("vmap_area", SIZEOF_VMAP_AREA)
            return
        self._cache = allocator.cache("vmap_area")
        frames = int(allocator.memory[0]["max_pfn"])
        for start, size, pfns, descriptor, area, pages in areas:
            if not all(0 <= pfn < frames for pfn in pfns):
                raise ValueError("a vmalloc area outside of memory")
            self.areas[start] = VmStruct(start, size, tuple(pfns), descriptor, area, pages)
            insort(self._starts, start)

    def to_list(self) -> list[list[Any]]:
        """All areas as plain data, for a file."""
        return [
            [a.start, a.size, list(a.pfns), a.descriptor, a.area, a.pages]
            for a in self.areas.values()
        ]

    def copy(self, allocator: "ObjectAllocator") -> "Vmalloc":
        """The same areas on a copy of the machine."""
        return Vmalloc(allocator, self.to_list())

    def _find_room(self, size: int) -> int:
        """Lowest free range."""
        at = VMALLOC_START
        for start in self._starts:
            if start - at >= size:
                break
            at = self.areas[start].end
        if at + size > VMALLOC_END:
            raise OutOfMemoryError(f"vmalloc: no room for {size} bytes of addresses")
        return at

    def vmalloc(self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0) -> int:
        """Address of `size` bytes, made of single frames.

        Raises
        ------
        OutOfMemoryError
            Not enough frames; none is kept.
        """
        owner = self.allocator
        bits = owner.bits(gfp)
        page = 1 << owner.page_shift
        count = -(-size // page)
        if not 0 < count <= int(owner.memory[0]["max_pfn"]):
            raise BadRequestError(f"vmalloc({size}): 1 byte up to the machine's memory")
        start = self._find_room((count + 1) * page)
        descriptor = owner.kzalloc(SIZEOF_VM_STRUCT, "GFP_KERNEL", cpu=cpu)
        area = self._cache.alloc(cpu=cpu)
        table = count * 8
        try:
            if table > page:
                pages = self.vmalloc(table, "GFP_KERNEL|__GFP_ZERO", cpu=cpu)
            else:
                pages = owner.kzalloc(table, cpu=cpu)
            pfns = self._frames(count, bits | HIGHMEM, cpu)
        except OutOfMemoryError:
            owner.kfree(descriptor)
            self._cache.free(area)
            raise
        if pfns is None:
            self.kvfree(pages)
            owner.kfree(descriptor)
            self._cache.free(area)
            raise OutOfMemoryError(f"vmalloc({size}): not {count} frames are free")
        if bits & ZERO:
            for pfn in pfns:
                owner.ram.zero(pfn * page, page)
        # the nested area, if any, was placed meanwhile
        start = self._find_room((count + 1) * page)
        self.areas[start] = VmStruct(start, count * page, tuple(pfns), descriptor, area, pages)
        insort(self._starts, start)
        return start

    def _frames(self, count: int, gfp: int, cpu: int) -> list[int] | None:
        run, h = ready(do_alloc_pages), address_of(self.allocator.memory)
        pfns: list[int] = []
        for _ in range(count):
            pfn = run(h, 0, gfp, NONE, cpu)
            if pfn < 0:
                self._release(pfns, cpu)
                return None
            pfns.append(pfn)
        return pfns

    def _release(self, pfns: "tuple[int, ...] | list[int]", cpu: int) -> None:
        run, h = ready(do_free_pages), address_of(self.allocator.memory)
        for pfn in pfns:
            run(h, pfn, 0, cpu)

    def vfree(self, address: int, *, cpu: int = 0) -> None:
        """Give an area back.

        Raises
        ------
        BadPointerError
            No area begins there.
        """
        area = self.areas.pop(address, None)
        if area is None:
            raise BadPointerError(f"vfree({address:#x}): no area begins there", address=address)
        self._starts.remove(address)
        self._release(area.pfns, cpu)
        self.kvfree(area.pages, cpu=cpu)
        self.allocator.kfree(area.descriptor, cpu=cpu)
        self._cache.free(area.area, cpu=cpu)

    def pfn_of(self, address: int) -> int:
        """Frame behind an address of the area."""
        for start in self._starts:
            area = self.areas[start]
            if start <= address < start + area.size:
                return area.pfns[(address - start) >> self.allocator.page_shift]
        raise BadPointerError(f"{address:#x}: in no vmalloc area", address=address)

    def kvmalloc(self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0) -> int:
        """kmalloc, or vmalloc where that finds no room."""
        owner = self.allocator
        bits = owner.bits(gfp)
        first = bits
        small = size <= 1 << owner.page_shift
        if not small:
            first = (bits | NOWARN) & ~NOFAIL
            if not bits & RETRY_MAYFAIL:
                first |= NORETRY
        try:
            return owner.kmalloc(size, first, cpu=cpu)
        except (OutOfMemoryError, BadRequestError):
            if small or size >= 1 << 31 or not bits & CAN_WAIT:
                raise
        return self.vmalloc(size, bits, cpu=cpu)

    def kvfree(self, address: int, *, cpu: int = 0) -> None:
        """Free what kvmalloc gave."""
        if VMALLOC_START <= address <= VMALLOC_END:
            self.vfree(address, cpu=cpu)
        else:
            self.allocator.kfree(address, cpu=cpu)
