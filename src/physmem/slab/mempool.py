# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool that always has some objects left: for code that must not fail.

Linux: mm/mempool.c (2.6.24, 6.1)
"""

from typing import TYPE_CHECKING

from physmem.lib.errors import BadRequestError, ObjectsRemainError, OutOfMemoryError
from physmem.mm.gfp import (
    __GFP_DIRECT_RECLAIM,
    __GFP_IO,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
)

if TYPE_CHECKING:
    from physmem.slab.allocator import ObjectAllocator
    from physmem.slab.cache import Cache

WITHOUT_WAITING = __GFP_DIRECT_RECLAIM | __GFP_IO
ALWAYS = __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN
CAN_WAIT = __GFP_DIRECT_RECLAIM


class Mempool:
    """Reserve of `min_nr` objects; made by `Machine.mempool_create`.

    Attributes
    ----------
    elements : addresses in reserve; the last one goes first
    min_nr : objects that are kept

    Examples
    --------
    >>> from physmem import Machine
    >>> pool = Machine.build("64MiB").mempool_create(4, 256)
    >>> address = pool.alloc()
    >>> pool.free(address)
    >>> len(pool.elements)
    4
    """

    def __init__(self, allocator: "ObjectAllocator", min_nr: int, cache: "Cache | int") -> None:
        if min_nr < 0:
            raise BadRequestError(f"min_nr {min_nr}: not negative")
        self.allocator = allocator
        self.cache = cache
        self.min_nr = min_nr
        self.elements: list[int] = []
        self.fallbacks = 0
        while len(self.elements) < min_nr:
            self.elements.append(self._take(allocator.bits("GFP_KERNEL"), 0))

    def _take(self, gfp: int, cpu: int) -> int:
        if isinstance(self.cache, int):
            return self.allocator.kmalloc(self.cache, gfp, cpu=cpu)
        return self.cache.alloc(gfp, cpu=cpu)

    def _give(self, address: int, cpu: int) -> None:
        if isinstance(self.cache, int):
            self.allocator.kfree(address, cpu=cpu)
        else:
            self.cache.free(address, cpu=cpu)

    def alloc(self, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0) -> int:
        """Address of an object: fresh if there is memory, else from the reserve.

        Raises
        ------
        OutOfMemoryError
            No memory and an empty reserve. A kernel that may sleep would wait for a free here.
        """
        bits = self.allocator.bits(gfp)
        first = bits | ALWAYS
        for attempt in (first & ~WITHOUT_WAITING, first):
            try:
                return self._take(attempt, cpu)
            except OutOfMemoryError:
                if self.elements:
                    self.fallbacks += 1
                    return self.elements.pop()
                if not bits & CAN_WAIT:
                    break
        raise OutOfMemoryError(f"mempool of {self.min_nr}: no memory, and the reserve is empty")

    def free(self, address: int, *, cpu: int = 0) -> None:
        """Give an object back: to the reserve as long as that is not full."""
        if len(self.elements) < self.min_nr:
            self.elements.append(address)
        else:
            self._give(address, cpu)

    def resize(self, min_nr: int) -> None:
        """Keep more or fewer objects."""
        if min_nr < 0:
            raise BadRequestError(f"min_nr {min_nr}: not negative")
        while len(self.elements) > min_nr:
            self._give(self.elements.pop(), 0)
        self.min_nr = min_nr
        while len(self.elements) < min_nr:
            self.elements.append(self._take(self.allocator.bits("GFP_KERNEL"), 0))

    def destroy(self) -> None:
        """Free the reserve.

        Raises
        ------
        ObjectsRemainError
            The reserve is not full: objects are in use.
        """
        if len(self.elements) != self.min_nr:
            out = self.min_nr - len(self.elements)
            raise ObjectsRemainError(f"mempool_destroy: {out} of {self.min_nr} objects in use")
        while self.elements:
            self._give(self.elements.pop(), 0)
