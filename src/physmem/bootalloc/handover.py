# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of memblock: its free memory cut into blocks for the buddy system.

Linux: memblock_free_all(), mm/memblock.c (6.1, 6.12)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from physmem.bootalloc.call import MemblockCall
from physmem.bootalloc.memblock_walk import MemblockWalk, PfnRange
from physmem.bootalloc.region import (
    MEMBLOCK_NOMAP,
    MEMBLOCK_RSRV_NOINIT,
    NUMA_NO_NODE,
    RegionArray,
)
from physmem.lib.errors import CorruptStateError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Blocks = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]


def decompose(start: int, end: int, max_order: int = 11) -> "Blocks":
    """Cut the pages [start, end) into the largest aligned blocks, ascending.

    Parameters
    ----------
    start, end : int
        Page frame numbers.
    max_order : int
        Number of orders: blocks have at most 2**(max_order - 1) pages.

    Returns
    -------
    pfn : ndarray of int64, shape (n,)
        First page of each block.
    order : ndarray of uint8, shape (n,)
        Its order. Page 0 counts as aligned to every order.

    Notes
    -----
    Linux: __free_pages_memory(), mm/memblock.c (6.1)

    Examples
    --------
    >>> pfn, order = decompose(5, 22)
    >>> pfn.tolist(), order.tolist()
    ([5, 6, 8, 16, 20], [0, 1, 3, 2, 1])
    """
    import numpy as np

    top = max_order - 1
    head: list[tuple[int, int]] = []
    tail: list[tuple[int, int]] = []
    pfn, whole = start, 0
    while pfn < end:
        order = min(top, (pfn & -pfn).bit_length() - 1) if pfn else top
        while pfn + (1 << order) > end:
            order -= 1
        if order == top:
            whole = (end - pfn) >> top
            first = pfn
            pfn += whole << top
        else:
            (tail if whole else head).append((pfn, order))
            pfn += 1 << order
    middle = first + (np.arange(whole, dtype=np.int64) << top) if whole else ()
    before, after = [block for block, _ in head], [block for block, _ in tail]
    pfns = np.concatenate([np.asarray(part, np.int64) for part in (before, middle, after)])
    orders = np.full(pfns.size, top, np.uint8)
    orders[: len(head)] = [order for _, order in head]
    orders[len(head) + whole :] = [order for _, order in tail]
    return pfns, orders


@dataclass(frozen=True, slots=True)
class HandOver:
    """What `free_all` gives away, in the kernel's order.

    Attributes
    ----------
    reserved : tuple of PfnRange
        Pages to mark PageReserved: all that a reservation or a NOMAP region touches, first the
        reservations. A page can be in two of them.
    free : tuple of PfnRange
        Free pages, ascending, cut at the borders of memory regions.
    pages : int
        Free pages that the kernel adds to totalram_pages; the deferred ones are among them.
    max_order : int
        Number of orders.
    first_deferred : mapping of node to page frame number
        From there on the node's blocks are counted but left for later.
    """

    reserved: tuple[PfnRange, ...]
    free: tuple[PfnRange, ...]
    pages: int
    max_order: int
    first_deferred: Mapping[int, int] = field(default_factory=dict)

    def blocks(self) -> Iterator["tuple[int, Blocks]"]:
        """For each free range its node and its blocks (see `decompose`), to be freed in order.

        A block that starts at or after the node's first deferred page is left out.
        """
        for start, end, nid in self.free:
            pfn, order = decompose(start, end, self.max_order)
            if nid in self.first_deferred:
                kept = int(pfn.searchsorted(self.first_deferred[nid]))
                pfn, order = pfn[:kept], order[:kept]
            if pfn.size:
                yield nid, (pfn, order)


class MemblockHandOver(MemblockWalk):
    """Giving everything to the page allocator; see `Memblock`."""

    def free_all(
        self,
        max_low_pfn: int,
        max_order: int = 11,
        first_deferred_pfn: int | Mapping[int, int] | None = None,
    ) -> HandOver:
        """Shut memblock down and return what the buddy system gets.

        Parameters
        ----------
        max_low_pfn : int
            End of the direct map: pages from there on (high memory) are not handed over; see
            `free_pfn_ranges`.
        max_order : int
            Number of orders.
        first_deferred_pfn : int or mapping of node to int, optional
            Where each node's deferred pages start (one number: the same for all nodes).

        Raises
        ------
        BootAllocError
            When memblock is shut down already.

        Notes
        -----
        Linux: memblock_free_all(), mm/memblock.c (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.add_node(0x1000, 0x9E000, 0)
        >>> memblock.reserve(0x8000, 100)
        >>> given = memblock.free_all(max_low_pfn=1 << 20)
        >>> given.free, given.pages
        ((PfnRange(start=1, end=8, nid=0), PfnRange(start=9, end=159, nid=0)), 157)
        >>> memblock.alloc(64, 64)
        Traceback (most recent call last):
        ...
        physmem.lib.errors.BootAllocError: memblock alloc_try_nid: memblock is shut down; its \
free memory went to the buddy system: use the page allocator
        """
        self._must_be_up("free_all")
        self.clear_hotplug(0, self.phys_addr_max)
        taken = [region for region in self.reserved if not region.flags & MEMBLOCK_RSRV_NOINIT]
        taken += [region for region in self.memory if region.flags & MEMBLOCK_NOMAP]
        reserved = tuple(
            PfnRange(self.pfn_down(region.base), self.pfn_up(region.end), region.nid)
            for region in taken
        )
        free = tuple(self.free_pfn_ranges(0, max_low_pfn))
        nodes = {nid for _, _, nid in free}
        if isinstance(first_deferred_pfn, int):
            first_deferred_pfn = dict.fromkeys(nodes, first_deferred_pfn)
        pages = sum(end - start for start, end, _ in free)
        self.shut_down = True
        return HandOver(reserved, free, pages, max_order, dict(first_deferred_pfn or {}))

    def free_late(self, base: int, size: int, *, caller: str = "") -> PfnRange:
        """Pages of a reservation to free after the hand-over, one by one, each counted.

        Linux: memblock_free_late(), mm/memblock.c (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> Memblock().free_late(0x1001, 0x3000)
        PfnRange(start=2, end=4, nid=-1)
        """
        base, size = self._checked(base, size)
        self._tell(MemblockCall(kind="memblock_free_late", base=base, size=size, caller=caller))
        start = self.pfn_up(base)
        return PfnRange(start, max(start, self.pfn_down(base + size)), NUMA_NO_NODE)

    def discard(self) -> tuple[PfnRange, ...]:
        """Give up the arrays themselves: pages of grown arrays to free, one by one.

        Not called on architectures that keep memblock (arm64, riscv).

        Linux: memblock_discard(), mm/memblock.c (6.1)
        """
        self._must_exist()
        freed = []
        for array in (self.reserved, self.memory):
            if array.area is not None and array.in_slab and self.slab is not None:
                self.slab.kfree(array.area)
            elif array.area is not None:
                size = self._array_bytes(array)
                freed.append(self.free_late(array.area, size, caller="memblock_discard"))
        self.shut_down = self.discarded = True
        return tuple(freed)

    def validate(self) -> None:
        """Check both arrays, and that the memory of a grown array is reserved.

        Raises
        ------
        CorruptStateError
            With `invariant` one of `regions-not-empty`, `regions-sorted`, `regions-merged`,
            `regions-total`, `regions-capacity`, `regions-addresses`, `array-reserved`.
        """
        for array in (self.memory, self.reserved):
            array.validate()
            if array.regions[0].base < 0 or array.regions[-1].end > self.phys_addr_max:
                raise CorruptStateError("regions-addresses", f"{array.name}: beyond the last byte")
            if array.area is not None and not array.in_slab:
                end = array.area + self._array_bytes(array)
                if self.reserved.uncovered(array.area, end):
                    raise CorruptStateError(
                        "array-reserved",
                        f"the {array.name} array at [{array.area:#x}, {end:#x}) is not reserved",
                    )

    def _array_bytes(self, array: RegionArray) -> int:
        return self.page_align(array.max * self.config.region_size)
