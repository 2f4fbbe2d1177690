# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocating from memblock: find a free range, reserve exactly the bytes asked for.

Every allocator returns a physical address, or 0 where the kernel returns none: the callers in
the kernel decide whether that is a panic.

Linux: mm/memblock.c, include/linux/memblock.h (6.1)
"""

from physmem.bootalloc.call import MemblockCall
from physmem.bootalloc.memblock_core import MEMBLOCK_ALLOC_ACCESSIBLE, MemblockCore
from physmem.bootalloc.ranges import Wanted
from physmem.bootalloc.region import MAX_NUMNODES, MEMBLOCK_MIRROR, MEMBLOCK_NONE, NUMA_NO_NODE

ARCH_LOW_ADDRESS_LIMIT = 0xFFFF_FFFF
_ITSELF = "memblock_alloc_range_nid"
"""Who reserves, in the log, what an allocator found."""


class MemblockAlloc(MemblockCore):
    """The allocating calls; see `Memblock`."""

    def alloc_range_nid(
        self, size: int, align: int, start: int, end: int, nid: int, *, exact_nid: bool = False
    ) -> int:
        """Reserve `size` bytes in [start, end), on node `nid` if it can be.

        First on the node, then (unless `exact_nid`) on any; if mirrored memory was wanted and
        there is none, once more without. `align` 0 means a cache line.

        Linux: memblock_alloc_range_nid(), mm/memblock.c (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.add(0x100000, 0x100000)
        >>> hex(memblock.alloc_range_nid(100, 64, 0, 0, NUMA_NO_NODE))
        '0x1fff80'
        """
        self._must_be_up("alloc")
        nid = NUMA_NO_NODE if nid == MAX_NUMNODES else nid
        align = align or self.config.smp_cache_bytes
        nodes = (nid,) if nid == NUMA_NO_NODE or exact_nid else (nid, NUMA_NO_NODE)
        kinds = (MEMBLOCK_MIRROR, MEMBLOCK_NONE) if self.has_mirror else (MEMBLOCK_NONE,)
        for kind in kinds:
            for node in nodes:
                wanted = Wanted(node, kind, self.config.movable_node)
                found = self._find(size, align, start, end, wanted)
                if found and self._reserve(found, size, _ITSELF):
                    return found
            if kind:
                self._warn_mirror(size)
        return 0

    def phys_alloc_range(
        self, size: int, align: int, start: int, end: int, *, caller: str = ""
    ) -> int:
        """Reserve in [start, end) on any node; the memory is not cleared.

        Linux: memblock_phys_alloc_range(), mm/memblock.c (6.1)
        """
        self._must_be_up("phys_alloc_range")
        call = MemblockCall(
            kind="memblock_phys_alloc_range",
            size=size,
            align=align,
            min_addr=start,
            max_addr=end,
            caller=caller,
        )
        self._tell(call)
        return self.alloc_range_nid(size, align, start, end, NUMA_NO_NODE)

    def phys_alloc(self, size: int, align: int, *, caller: str = "") -> int:
        """Reserve anywhere below the current limit; the memory is not cleared.

        Linux: memblock_phys_alloc(), include/linux/memblock.h (6.1)
        """
        return self.phys_alloc_range(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, caller=caller)

    def phys_alloc_try_nid(self, size: int, align: int, nid: int) -> int:
        """Reserve on node `nid`, else anywhere; the memory is not cleared and nothing is logged.

        Linux: memblock_phys_alloc_try_nid(), mm/memblock.c (6.1)
        """
        return self.alloc_range_nid(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid)

    def alloc_try_nid(
        self, size: int, align: int, min_addr: int, max_addr: int, nid: int, *, caller: str = ""
    ) -> int:
        """Allocate cleared memory in [min_addr, max_addr), on `nid` if it can be.

        Below `min_addr` if there is none above.

        Linux: memblock_alloc_try_nid(), mm/memblock.c (6.1)
        """
        call = MemblockCall(
            kind="memblock_alloc_try_nid",
            size=size,
            align=align,
            nid=nid,
            min_addr=min_addr,
            max_addr=max_addr,
            caller=caller,
        )
        return self._alloc_internal(call, clear=True)

    def alloc_try_nid_raw(
        self, size: int, align: int, min_addr: int, max_addr: int, nid: int, *, caller: str = ""
    ) -> int:
        """Allocate as `alloc_try_nid` and leave the contents as they are.

        Linux: memblock_alloc_try_nid_raw(), mm/memblock.c (6.1)
        """
        call = MemblockCall(
            kind="memblock_alloc_try_nid_raw",
            size=size,
            align=align,
            nid=nid,
            min_addr=min_addr,
            max_addr=max_addr,
            caller=caller,
        )
        return self._alloc_internal(call)

    def alloc_exact_nid_raw(
        self, size: int, align: int, min_addr: int, max_addr: int, nid: int, *, caller: str = ""
    ) -> int:
        """Allocate as `alloc_try_nid_raw`, but on no other node.

        Linux: memblock_alloc_exact_nid_raw(), mm/memblock.c (6.1)
        """
        call = MemblockCall(
            kind="memblock_alloc_exact_nid_raw",
            size=size,
            align=align,
            nid=nid,
            min_addr=min_addr,
            max_addr=max_addr,
            caller=caller,
        )
        return self._alloc_internal(call, exact_nid=True)

    def alloc(self, size: int, align: int, *, caller: str = "") -> int:
        """Allocate cleared memory anywhere. Linux: memblock_alloc(), include/linux/memblock.h."""
        return self.alloc_try_nid(
            size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE, caller=caller
        )

    def alloc_raw(self, size: int, align: int, *, caller: str = "") -> int:
        """Allocate anywhere. Linux: memblock_alloc_raw(), include/linux/memblock.h (6.1)."""
        return self.alloc_try_nid_raw(
            size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE, caller=caller
        )

    def alloc_from(self, size: int, align: int, min_addr: int, *, caller: str = "") -> int:
        """Allocate cleared memory from `min_addr` on, else below it.

        Linux: memblock_alloc_from(), include/linux/memblock.h (6.1)
        """
        return self.alloc_try_nid(
            size, align, min_addr, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE, caller=caller
        )

    def alloc_low(self, size: int, align: int, *, caller: str = "") -> int:
        """Allocate cleared memory below 4 GiB.

        Linux: memblock_alloc_low(), include/linux/memblock.h (6.1)
        """
        return self.alloc_try_nid(
            size, align, 0, ARCH_LOW_ADDRESS_LIMIT, NUMA_NO_NODE, caller=caller
        )

    def alloc_node(self, size: int, align: int, nid: int, *, caller: str = "") -> int:
        """Allocate cleared memory on `nid`, else anywhere.

        Linux: memblock_alloc_node(), include/linux/memblock.h (6.1)
        """
        return self.alloc_try_nid(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid, caller=caller)

    def _alloc_internal(
        self, call: MemblockCall, *, clear: bool = False, exact_nid: bool = False
    ) -> int:
        """Linux: memblock_alloc_internal(), mm/memblock.c (6.1)."""
        self._must_be_up(call.kind.removeprefix("memblock_"))
        self._tell(call)
        max_addr = min(call.max_addr, self.current_limit)
        for min_addr in (call.min_addr, 0) if call.min_addr else (0,):
            found = self.alloc_range_nid(
                call.size, call.align, min_addr, max_addr, call.nid, exact_nid=exact_nid
            )
            if found:
                if clear and self.ram is not None and call.size:
                    self.ram.zero(found, call.size)
                return found
        return 0
