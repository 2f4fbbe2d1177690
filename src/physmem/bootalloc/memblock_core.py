# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock's two arrays: adding, reserving, freeing, attributes, and how an array grows.

Linux: mm/memblock.c (6.1)
"""

from dataclasses import dataclass
from operator import index as as_int

from physmem.bootalloc.call import MemblockCall, Observer, address
from physmem.bootalloc.ram import Ram, Slab
from physmem.bootalloc.ranges import Wanted, free_downwards, free_upwards
from physmem.bootalloc.region import (
    MAX_NUMNODES,
    MEMBLOCK_HOTPLUG,
    MEMBLOCK_MIRROR,
    MEMBLOCK_NOMAP,
    MEMBLOCK_NONE,
    MEMBLOCK_RSRV_NOINIT,
    NUMA_NO_NODE,
    RegionArray,
)
from physmem.lib.errors import BadRequestError, BootAllocError

MEMBLOCK_ALLOC_ACCESSIBLE = 0
"""As a highest address: the current limit."""
MEMBLOCK_ALLOC_NOLEAKTRACE = 1
"""The same (the kernel's leak detector does not follow the memory)."""


@dataclass(frozen=True, kw_only=True)
class MemblockConfig:
    """What differs between builds and command lines.

    `memory_regions` and `reserved_regions` are the static capacities (arm64: 1024 with EFI, and
    128 + NR_CPUS + 1). `region_size` is the size in bytes of a region in the kernel's memory.
    With `numa` off, all regions belong to node 0. `movable_node` and `mirrored_kernelcore` are
    the options `movable_node` and `kernelcore=mirror`. `rsrv_noinit` is
    MEMBLOCK_RSRV_NOINIT of 6.12.
    """

    page_shift: int = 12
    smp_cache_bytes: int = 64
    phys_addr_bits: int = 64
    region_size: int = 24
    memory_regions: int = 128
    reserved_regions: int = 128
    numa: bool = True
    movable_node: bool = False
    mirrored_kernelcore: bool = False
    rsrv_noinit: bool = False


class MemblockCore:
    """State of memblock and everything that changes its arrays; see `Memblock`."""

    def __init__(
        self,
        config: MemblockConfig | None = None,
        *,
        ram: Ram | None = None,
        on_call: Observer | None = None,
    ) -> None:
        config = config or MemblockConfig()
        if min(config.memory_regions, config.reserved_regions) < 2:
            raise BadRequestError("an array of memblock needs room for at least 2 regions")
        self.config = config
        self.ram = ram
        self.on_call = on_call
        self.page_size = 1 << config.page_shift
        self.phys_addr_max = (1 << config.phys_addr_bits) - 1
        self.memory = RegionArray("memory", config.memory_regions)
        self.reserved = RegionArray("reserved", config.reserved_regions)
        self.bottom_up = False
        self.current_limit = self.phys_addr_max
        self.can_resize = False
        self.has_mirror = False
        self.slab: Slab | None = None
        self.shut_down = False
        self.discarded = False

    # -- adding, removing, reserving, freeing --------------------------------------------------

    def add(self, base: int, size: int, *, caller: str = "") -> None:
        """Add [base, base + size) to memory, on a node that is not known yet.

        Parts that are memory already keep their node and flags.

        Linux: memblock_add(), mm/memblock.c (6.1)

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.add(0x100000, 0x3FF00000)
        >>> memblock.phys_mem_size() >> 20
        1023
        """
        base, size = self._checked(base, size)
        self._tell(MemblockCall(kind="memblock_add", base=base, size=size, caller=caller))
        self._must(self._add_range(self.memory, base, size), "add", base, size)

    def add_node(
        self, base: int, size: int, nid: int, flags: int = MEMBLOCK_NONE, *, caller: str = ""
    ) -> None:
        """Add [base, base + size) to memory, on node `nid` with `flags`.

        Linux: memblock_add_node(), mm/memblock.c (6.1)
        """
        base, size = self._checked(base, size)
        call = MemblockCall(
            kind="memblock_add_node", base=base, size=size, nid=nid, flags=flags, caller=caller
        )
        self._tell(call)
        self._must(self._add_range(self.memory, base, size, nid, flags), "add_node", base, size)

    def remove(self, base: int, size: int, *, caller: str = "") -> None:
        """Take [base, base + size) out of memory; what is not memory is ignored.

        Linux: memblock_remove(), mm/memblock.c (6.1)
        """
        base, size = self._checked(base, size)
        self._tell(MemblockCall(kind="memblock_remove", base=base, size=size, caller=caller))
        self._must(self._remove_range(self.memory, base, size), "remove", base, size)

    def reserve(self, base: int, size: int, *, caller: str = "") -> None:
        """Mark [base, base + size) as taken: never fails for being memory or reserved or not.

        Linux: memblock_reserve(), mm/memblock.c (6.1)

        Raises
        ------
        BootAllocError
            When the array is full and cannot grow, or the page allocator has taken over.

        Examples
        --------
        >>> from physmem.bootalloc.memblock import Memblock
        >>> memblock = Memblock()
        >>> memblock.reserve(0x9F000, 0x61000)
        >>> memblock.reserve(0x0, 0x100000)
        >>> [(hex(region.base), hex(region.end)) for region in memblock.reserved]
        [('0x0', '0x100000')]
        """
        self._must_be_up("reserve")
        base, size = self._checked(base, size)
        self._must(self._reserve(base, size, caller), "reserve", base, size)

    def phys_free(self, base: int, size: int, *, caller: str = "") -> None:
        """Undo a reservation of exactly [base, base + size), in bytes.

        Linux: memblock_phys_free(), mm/memblock.c (6.1)
        """
        self._must_be_up("phys_free")
        base, size = self._checked(base, size)
        self._must(self._phys_free(base, size, caller), "phys_free", base, size)

    # -- attributes ----------------------------------------------------------------------------

    def set_node(self, base: int, size: int, nid: int, *, array: RegionArray | None = None) -> None:
        """Set the node of [base, base + size) in `array` (memory unless told).

        Linux: memblock_set_node(), mm/memblock.c (6.1)
        """
        if not self.config.numa:
            return
        array = self.memory if array is None else array
        base, size = self._checked(base, size)
        span = self._isolate(array, base, size)
        self._must(span is not None, "set_node", base, size)
        for region in array.regions[slice(*(span or (0, 0)))]:
            region.nid = nid
        array.merge()

    def mark_hotplug(self, base: int, size: int) -> None:
        """Mark memory as hot-pluggable. Linux: memblock_mark_hotplug(), mm/memblock.c (6.1)."""
        self._setclr_flag(self.memory, base, size, set_=MEMBLOCK_HOTPLUG)

    def clear_hotplug(self, base: int, size: int) -> None:
        """Undo `mark_hotplug`. Linux: memblock_clear_hotplug(), mm/memblock.c (6.1)."""
        self._setclr_flag(self.memory, base, size, clear=MEMBLOCK_HOTPLUG)

    def mark_mirror(self, base: int, size: int) -> None:
        """Mark memory as mirrored; nothing happens without `kernelcore=mirror`.

        Linux: memblock_mark_mirror(), mm/memblock.c (6.1)
        """
        if self.config.mirrored_kernelcore:
            self.has_mirror = True
            self._setclr_flag(self.memory, base, size, set_=MEMBLOCK_MIRROR)

    def mark_nomap(self, base: int, size: int) -> None:
        """Keep memory out of the direct map. Linux: memblock_mark_nomap(), mm/memblock.c (6.1)."""
        self._setclr_flag(self.memory, base, size, set_=MEMBLOCK_NOMAP)

    def clear_nomap(self, base: int, size: int) -> None:
        """Undo `mark_nomap`. Linux: memblock_clear_nomap(), mm/memblock.c (6.1)."""
        self._setclr_flag(self.memory, base, size, clear=MEMBLOCK_NOMAP)

    def reserved_mark_noinit(self, base: int, size: int) -> None:
        """Leave the struct pages of a reservation to its owner.

        Linux: memblock_reserved_mark_noinit(), mm/memblock.c (6.12)

        Raises
        ------
        BadRequestError
            When the kernel does not know it (`MemblockConfig.rsrv_noinit`).
        """
        if not self.config.rsrv_noinit:
            raise BadRequestError("MEMBLOCK_RSRV_NOINIT: this kernel has no such flag (6.12 has)")
        self._setclr_flag(self.reserved, base, size, set_=MEMBLOCK_RSRV_NOINIT)

    # -- switches ------------------------------------------------------------------------------

    def set_current_limit(self, limit: int) -> None:
        """Set the address that no allocation passes.

        Linux: memblock_set_current_limit(), mm/memblock.c (6.1)
        """
        self.current_limit = limit

    def allow_resize(self) -> None:
        """Let the arrays grow. Linux: memblock_allow_resize(), mm/memblock.c (6.1)."""
        self.can_resize = True

    def set_bottom_up(self, *, enable: bool) -> None:
        """Choose the direction of searches.

        Linux: memblock_set_bottom_up(), include/linux/memblock.h (6.1)
        """
        self.bottom_up = enable

    def slab_is_available(self, slab: Slab) -> None:
        """From now on arrays grow into memory of the slab allocator.

        Linux: slab_is_available(), mm/slab_common.c (6.1)
        """
        self.slab = slab

    # -- searching -----------------------------------------------------------------------------

    def find_in_range(self, start: int, end: int, size: int, align: int) -> int:
        """Address of a free, aligned range of `size` bytes in [start, end), or 0. Reserves nothing.

        Linux: memblock_find_in_range(), mm/memblock.c (6.1)
        """
        self._must_be_up("find_in_range")
        return self._find_in_range(start, end, size, align)

    def find_in_range_node(
        self, size: int, align: int, start: int, end: int, nid: int, flags: int = MEMBLOCK_NONE
    ) -> int:
        """Find as `find_in_range`, on node `nid` and in memory with `flags`.

        The first page of memory is never found.

        Linux: memblock_find_in_range_node(), mm/memblock.c (6.1)
        """
        self._must_be_up("find_in_range_node")
        return self._find(size, align, start, end, Wanted(nid, flags, self.config.movable_node))

    # -- below: what the calls above are made of ------------------------------------------------

    def _find_in_range(self, start: int, end: int, size: int, align: int) -> int:
        mirror = MEMBLOCK_MIRROR if self.has_mirror else MEMBLOCK_NONE
        wanted = Wanted(NUMA_NO_NODE, mirror, self.config.movable_node)
        found = self._find(size, align, start, end, wanted)
        if not found and mirror:
            self._warn_mirror(size)
            found = self._find(size, align, start, end, wanted._replace(flags=MEMBLOCK_NONE))
        return found

    def _find(self, size: int, align: int, start: int, end: int, wanted: Wanted) -> int:
        if align < 1 or align & (align - 1):
            raise BadRequestError(f"an alignment is a power of two, not {align}")
        if end in (MEMBLOCK_ALLOC_ACCESSIBLE, MEMBLOCK_ALLOC_NOLEAKTRACE):
            end = self.current_limit
        start = max(start, self.page_size)
        end = max(start, end)
        walk = free_upwards if self.bottom_up else free_downwards
        for free_start, free_end in walk(self.memory, self.reserved, wanted, size):
            bottom = min(max(free_start, start), end)
            top = min(max(free_end, start), end)
            if self.bottom_up:
                candidate = (bottom + align - 1) & -align
                if candidate < top and top - candidate >= size:
                    return candidate
            elif top >= size:
                candidate = (top - size) & -align
                if candidate >= bottom:
                    return candidate
        return 0

    def _reserve(self, base: int, size: int, caller: str) -> bool:
        self._tell(MemblockCall(kind="memblock_reserve", base=base, size=size, caller=caller))
        return self._add_range(self.reserved, base, size)

    def _phys_free(self, base: int, size: int, caller: str) -> bool:
        self._tell(MemblockCall(kind="memblock_phys_free", base=base, size=size, caller=caller))
        return self._remove_range(self.reserved, base, size)

    def _add_range(
        self,
        array: RegionArray,
        base: int,
        size: int,
        nid: int = MAX_NUMNODES,
        flags: int = MEMBLOCK_NONE,
    ) -> bool:
        """Add to an array; False when it is full and cannot grow: nothing changed then.

        Linux: memblock_add_range(), mm/memblock.c (6.1)
        """
        end = base + self._capped(base, size)
        nid = nid if self.config.numa else 0
        if base == end:
            return True
        # At worst every region leaves a gap before it: below that bound no count is needed.
        if not array.empty and array.cnt * 2 + 1 >= array.max:
            parts = len(array.uncovered(base, end))
            while parts and array.cnt + parts > array.max:
                if not self._double(array, base, end - base):
                    return False
        array.insert_uncovered(base, end, nid, flags)
        return True

    def _isolate(self, array: RegionArray, base: int, size: int) -> tuple[int, int] | None:
        """Indices of the regions that make up the range, split if needed; None: array full."""
        end = base + self._capped(base, size)
        if base == end:
            return 0, 0
        while array.cnt + 2 > array.max:
            if not self._double(array, base, end - base):
                return None
        return array.isolate(base, end)

    def _remove_range(self, array: RegionArray, base: int, size: int) -> bool:
        span = self._isolate(array, base, size)
        if span is None:
            return False
        for index in reversed(range(*span)):
            array.remove_at(index)
        return True

    def _setclr_flag(
        self, array: RegionArray, base: int, size: int, *, set_: int = 0, clear: int = 0
    ) -> None:
        """Linux: memblock_setclr_flag(), mm/memblock.c (6.1)."""
        base, size = self._checked(base, size)
        span = self._isolate(array, base, size)
        self._must(span is not None, "setclr_flag", base, size)
        for region in array.regions[slice(*(span or (0, 0)))]:
            region.flags = region.flags & ~clear | set_
        array.merge()

    def _double(self, array: RegionArray, start: int, size: int) -> bool:
        """Double the capacity of an array, into memory that memblock itself gives.

        [start, start + size) is about to be reserved when `array` is `reserved`: the new array
        must not lie there.

        Linux: memblock_double_array(), mm/memblock.c (6.1)
        """
        if not self.can_resize or (self.shut_down and self.slab is None):
            return False
        old_size = array.max * self.config.region_size
        old_area, was_in_slab, slab = array.area, array.in_slab, self.slab
        bytes_needed = self.page_align(2 * old_size)
        if slab is not None:
            found = slab.kmalloc(2 * old_size)
        else:
            if array is not self.reserved:
                start = size = 0
            limit = self.current_limit
            found = self._find_in_range(start + size, limit, bytes_needed, self.page_size)
            if not found and size:
                found = self._find_in_range(0, min(start, limit), bytes_needed, self.page_size)
        if not found:
            self._note(
                f"memblock: Failed to double {array.name} array from {array.max} to "
                f"{array.max * 2} entries !"
            )
            return False
        digits = self.config.phys_addr_bits // 4
        self._note(
            f"memblock: {array.name} is doubled to {array.max * 2} at "
            f"[{address(found, digits)}-{address(found + 2 * old_size - 1, digits)}]"
        )
        if self.ram is not None:
            self.ram.zero(found, 2 * old_size)
        array.area, array.in_slab, array.max = found, slab is not None, array.max * 2
        # Both calls may need room in an array themselves and come back here.
        if old_area is not None:
            if slab is not None and was_in_slab:
                slab.kfree(old_area)
            else:
                self._phys_free(old_area, self.page_align(old_size), "memblock_double_array")
        if slab is None and not self._reserve(found, bytes_needed, "memblock_double_array"):
            raise BootAllocError(f"kernel BUG: no room to reserve the new {array.name} array")
        return True

    def page_align(self, size: int) -> int:
        """Bytes of the pages that hold `size` bytes."""
        return -(-size // self.page_size) * self.page_size

    def _capped(self, base: int, size: int) -> int:
        return min(size, self.phys_addr_max - base)

    def _checked(self, base: int, size: int) -> tuple[int, int]:
        self._must_exist()
        base, size = as_int(base), as_int(size)
        if not 0 <= base <= self.phys_addr_max or size < 0:
            raise BadRequestError(
                f"no physical range: base {base:#x}, size {size:#x} "
                f"({self.config.phys_addr_bits}-bit addresses)"
            )
        return base, size

    def _must(self, done: bool, what: str, base: int, size: int) -> None:  # noqa: FBT001 - a result
        if not done:
            raise BootAllocError(
                f"memblock {what} [{base:#x}, +{size:#x}): -ENOMEM, an array is full "
                f"(memory {self.memory.cnt}/{self.memory.max}, reserved {self.reserved.cnt}/"
                f"{self.reserved.max}) and "
                + (
                    "no memory for a larger one was found"
                    if self.can_resize
                    else "may not grow yet"
                )
            )

    def _must_be_up(self, what: str) -> None:
        self._must_exist()
        if self.shut_down:
            raise BootAllocError(
                f"memblock {what}: memblock is shut down; its free memory went to the buddy "
                "system: use the page allocator"
            )

    def _must_exist(self) -> None:
        if self.discarded:
            raise BootAllocError("memblock was discarded: its arrays no longer exist")

    def _tell(self, call: MemblockCall) -> None:
        if self.on_call is not None:
            self.on_call(call)

    def _note(self, text: str) -> None:
        self._tell(MemblockCall(kind="note", note=text))

    def _warn_mirror(self, size: int) -> None:
        shown = address(size, self.config.phys_addr_bits // 4)
        self._note(f"Could not allocate {shown} bytes of mirrored memory")
