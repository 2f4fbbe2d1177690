# SPDX-License-Identifier: GPL-2.0-or-later
"""SLUB: caches of objects on top of the page allocator, as Linux 6.1 and 6.12 have them.

Linux: mm/slub.c, mm/slab_common.c (6.1, 6.12)
"""

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import (
    BadRequestError,
    CacheNameError,
    ObjectError,
    ObjectsRemainError,
    OutOfMemoryError,
)
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address as address_of
from physmem.mm.gfp import GFP_KERNEL
from physmem.mm.mmzone import NONE
from physmem.slab.allocator import MASK, ZERO_SIZE_PTR, Duplicate, Reserve, signed
from physmem.slab.cache import DESTROYED, Cache
from physmem.slab.calls import KernelCalls
from physmem.slab.flags import SLAB_HWCACHE_ALIGN, SLAB_KMALLOC, parse_flags
from physmem.slab.kmalloc_classes import (
    KMALLOC_MAX_SIZE,
    NR_CLASSES,
    kmalloc_classes,
    kmalloc_size_roundup,
)
from physmem.slab.nodes import node_of, nodes_with_memory
from physmem.slab.rows import CacheRow
from physmem.slab.slub_boot import (
    do_early_node,
    random_seq,
    sizeof_kmem_cache,
    sizeof_kmem_cache_node,
)
from physmem.slab.slub_config import SlubConfig, SlubFeature
from physmem.slab.slub_entry import (
    do_alloc_bulk,
    do_cache_alloc,
    do_cache_free,
    do_flush,
    do_free_bulk,
    do_kfree,
    do_kmalloc,
    do_shrink,
    do_shutdown,
    do_why_not,
)
from physmem.slab.slub_merge import debug_flags, find_mergeable
from physmem.slab.slub_reports import report
from physmem.slab.slub_sizes import slub_geometry
from physmem.slab.slub_state import (
    MAX_CACHES,
    fill_cache,
    make_tables,
    set_constructed,
)
from physmem.slab.slub_view import (
    attributes,
    ksize,
    live_addresses,
    owner_text,
    set_attribute,
    slab_frames,
    slabinfo_rows,
)

GFP_NOWAIT = 0x800
ZERO = 0x100


class SlubAllocator(KernelCalls):
    """SLUB of one machine, started up.

    Parameters
    ----------
    memory : (1,) Memory
        The page allocator's record; it must stay where it is.
    ram : Ram
        The machine's bytes.
    config : SlubConfig
        Kernel, word size, options.
    page_offset : int
        Address of physical address 0 in the direct map.
    reserve : callable
        Makes the buffers.

    Raises
    ------
    OutOfMemoryError
        The machine has too little memory to start.
    """

    kind = "slub"

    def __init__(
        self,
        memory: NDArray[Any],
        ram: Ram,
        config: SlubConfig,
        page_offset: int,
        reserve: Reserve,
    ) -> None:
        super().__init__(memory, ram, page_offset, config.page_shift)
        self.config = config
        self.tables = make_tables(memory, ram, config, page_offset, reserve)
        self.free_numbers: list[int] = []
        self.next_number = 0
        self.bind()
        self._boot()

    def bind(self) -> None:
        """Find the compiled kernels, and where the record lies."""
        self._h = address_of(self.tables.slub)
        self._kmalloc = ready(do_kmalloc)
        self._kfree = ready(do_kfree)
        self._cache_alloc = ready(do_cache_alloc)
        self._cache_free = ready(do_cache_free)

    # -- start ------------------------------------------------------------------------------------

    def _boot(self) -> None:
        """Linux: kmem_cache_init(), mm/slub.c (6.1)."""
        config = self.config
        align = config.kmalloc_minalign
        node_size = sizeof_kmem_cache_node(config)
        natural = not config.features & SlubFeature.DIVISOR_ALIGN
        pow2 = natural and not node_size & (node_size - 1)
        nodes = nodes_with_memory(self.memory)
        node_cache = self._new(
            "kmem_cache_node", node_size, max(align, node_size) if pow2 else align,
            SLAB_HWCACHE_ALIGN,
        )  # fmt: skip
        early = ready(do_early_node)
        node_cache.parts["node"] = [early(self._h, node_cache.number, n, GFP_NOWAIT) for n in nodes]
        main = self._new("kmem_cache", sizeof_kmem_cache(config), align, SLAB_HWCACHE_ALIGN)
        self.node_cache, self.main_cache = node_cache, main
        main.parts["node"] = self._alloc_nodes()
        for cache in (main, node_cache):
            cache.parts["cache"] = [self._internal(main, GFP_NOWAIT | ZERO)]
            ready(do_flush)(self._h, cache.number, 0)
            cache.refcount = -1
            self._push(cache)
        slub = self.tables.slub[0]
        for each in kmalloc_classes(config):
            cache = self._new(each.name, each.size, each.align, each.flags | SLAB_KMALLOC)
            cache.parts["cache"] = [self._internal(main, GFP_NOWAIT | ZERO)]
            cache.parts["node"] = self._alloc_nodes()
            cache.refcount = 1 if each.mergeable else -1
            slub["kmalloc_caches"][each.type * NR_CLASSES + each.index] = cache.number
            self._push(cache)
        if config.freelist_random:
            for cache in self.caches:
                random_seq(self, cache)
        slub["gfp_allowed"] = 0xFFFFFFFF

    def _new(self, name: str, size: int, align: int, flags: int, *, ctor: bool = False) -> Cache:
        """A cache record with its geometry, not yet to be found."""
        flags = debug_flags(self.config, name, size, flags)
        geometry = slub_geometry(self.config, size, align, flags, ctor=ctor)
        if self.free_numbers:
            number = self.free_numbers.pop()
        elif self.next_number < MAX_CACHES:
            number = self.next_number
            self.next_number += 1
        else:
            raise BadRequestError(f"cache {name}: {MAX_CACHES} caches are the most there can be")
        fill_cache(self.tables, number, self.config, geometry, flags)
        set_constructed(self.tables, number, ctor=ctor)
        if self.config.freelist_hardened:
            rng = np.random.default_rng((self.config.seed, number))
            secret = int(rng.integers(1, 1 << (8 * self.config.word - 1)))
            self.tables.kmem_caches[number]["secret"] = secret
        return Cache(self, number, name, geometry, flags)

    def _push(self, cache: Cache) -> None:
        self.caches.insert(0, cache)
        for name in cache.names:
            self.by_name[name] = cache

    def _internal(self, cache: Cache, gfp: int = GFP_KERNEL, nid: int = NONE) -> int:
        address = self._cache_alloc(self._h, cache.number, gfp, nid, 0)
        if not address:
            raise OutOfMemoryError(f"SLUB itself: no memory for an object of {cache.name}")
        return address

    def _alloc_nodes(self) -> list[int]:
        return [
            self._internal(self.node_cache, GFP_KERNEL, nid)
            for nid in nodes_with_memory(self.memory)
        ]

    def copy(self, memory: NDArray[Any], ram: Ram, duplicate: Duplicate) -> "SlubAllocator":
        """The same state on a copy of the machine."""
        made = copy(self)
        self._copy_caches(made, memory, ram)
        made.free_numbers = list(self.free_numbers)
        made.main_cache = made.cache(self.main_cache.name)
        made.node_cache = made.cache(self.node_cache.name)
        made.tables = self.tables.copy(duplicate)
        made.tables.attach(memory, ram)
        made.bind()
        return made

    def resume(self) -> None:
        """Go on after `physmem.slab.saved.load` has put everything in place."""
        self.main_cache = self.cache("kmem_cache")
        self.node_cache = self.cache("kmem_cache_node")
        self.bind()

    # -- caches -----------------------------------------------------------------------------------

    def kmem_cache_create(
        self,
        name: str,
        size: int,
        align: int = 0,
        flags: str | int = 0,
        ctor: Callable[[memoryview], None] | None = None,
    ) -> Cache:
        """Make a cache; see `Machine.kmem_cache_create`."""
        bits = parse_flags(flags)
        if name in self.by_name:
            raise CacheNameError(f"cache {name!r}: one of this name exists; choose another")
        if not 0 < self._whole("size", size) <= KMALLOC_MAX_SIZE:
            raise BadRequestError(f"cache {name!r}: size {size}: 1 .. {KMALLOC_MAX_SIZE} bytes")
        if align < 0 or align & (align - 1):
            raise BadRequestError(f"cache {name!r}: align {align}: a power of two is needed")
        bits = debug_flags(self.config, name, size, bits)
        merged = find_mergeable(self, size, align, bits, ctor=ctor is not None)
        if merged is not None:
            merged.refcount += 1
            merged.names.append(name)
            self.by_name[name] = merged
            record = self.tables.kmem_caches[merged.number]
            record["object_size"] = max(int(record["object_size"]), size)
            word = self.config.word
            record["inuse"] = max(int(record["inuse"]), -(-size // word) * word)
            return merged
        address = self._internal(self.main_cache, GFP_KERNEL | ZERO)
        cache = self._new(name, size, align, bits, ctor=ctor is not None)
        cache.ctor = ctor
        cache.parts["cache"] = [address]
        if self.config.freelist_random:
            random_seq(self, cache)
        cache.parts["node"] = self._alloc_nodes()
        self._push(cache)
        return cache

    def destroy(self, cache: Cache) -> None:
        """End a cache. Linux: kmem_cache_destroy(), mm/slab_common.c (6.1)"""
        if cache in {self.main_cache, self.node_cache}:
            raise BadRequestError(f"cache {cache.name}: SLUB needs it")
        if cache.refcount > 1:
            cache.refcount -= 1
            del self.by_name[cache.names.pop()]
            return
        if cache.flags & SLAB_KMALLOC:
            raise BadRequestError(f"cache {cache.name}: kmalloc needs it")
        if ready(do_shutdown)(self._h, cache.number):
            left = self.live_addresses(cache)
            shown = ", ".join(f"{each:#x}" for each in left[:4])
            first = left[0] if left else 0
            raise ObjectsRemainError(
                f"kmem_cache_destroy({cache.name}): {len(left)} objects in use: {shown}; free them",
                address=first,
                cache=cache.name,
                slab=self.paddr(first) >> self.page_shift,
                last_users=tuple(
                    f"{each:#x}: {text}" for each in left[:4] for text in self.tracks(cache, each)
                ),
            )
        for address in cache.parts.get("random_seq", ()):
            self._kfree(self._h, address, 0)
        for address in cache.parts["node"]:
            self._cache_free(self._h, self.node_cache.number, address, 0)
        self._cache_free(self._h, self.main_cache.number, cache.parts["cache"][0], 0)
        self.tables.kmem_caches[cache.number]["live"] = 0
        self.tables.random_seq.pop(cache.number, None)
        self.free_numbers.append(cache.number)
        self.caches.remove(cache)
        for name in cache.names:
            del self.by_name[name]
        cache.barred = DESTROYED

    def set_attribute(self, cache: Cache, name: str, value: int) -> None:
        """Write an attribute of a cache. Linux: slab_attr_store(), mm/slub.c (6.1)"""
        set_attribute(self, cache, name, self._whole(name, value))

    def _cpu_up(self, cpu: int) -> None:
        """Nothing: a CPU's part of each cache is there from the start."""

    def _cpu_dead(self, cpu: int) -> None:
        """Linux: slub_cpu_dead(), mm/slub.c (6.1)."""
        for cache in self.caches:
            ready(do_flush)(self._h, cache.number, cpu)

    def shrink(self, cache: Cache) -> bool:
        """Give back what a cache does not need."""
        return bool(ready(do_shrink)(self._h, cache.number))

    # -- objects ----------------------------------------------------------------------------------

    def alloc_bulk(self, cache: Cache, nr: int, gfp: int, cpu: int) -> list[int]:
        """Objects of a cache; empty when memory is short."""
        if nr < 0:
            raise BadRequestError(f"nr {nr}: not negative")
        out: Any = np.empty(nr, np.int64)
        got = ready(do_alloc_bulk)(self._h, cache.number, gfp, cpu, out) if nr else 0
        if cache.ctor is not None:
            self._construct()
        if got < nr:
            self._raise_check("kmem_cache_alloc_bulk")
        found: list[int] = out[:got].view(np.uint64).tolist()
        return found

    def free_bulk(self, cache: Cache | None, addresses: Iterable[int], cpu: int) -> None:
        """Free objects of a cache (None: of any)."""
        wanted = [int(each) for each in addresses]
        if not wanted:
            return
        array: Any = np.array([signed(each & MASK) for each in wanted], np.int64)
        number = NONE if cache is None else cache.number
        bad = ready(do_free_bulk)(self._h, number, array, cpu)
        if bad == len(wanted):
            self._raise_check("kmem_cache_free_bulk")
        if bad >= 0:
            code = int(self.tables.slub[0]["error"])
            self.tables.slub[0]["error"] = 0
            raise report(self, "kmem_cache_free_bulk", wanted[bad], code)

    def ksize(self, address: int) -> int:
        """Bytes that may be used at an address. Linux: ksize(), mm/slab_common.c (6.1)"""
        if 0 <= address <= ZERO_SIZE_PTR:
            return 0
        code = ready(do_why_not)(self._h, signed(address & MASK))
        if code:
            raise report(self, "ksize", address, code)
        return ksize(self, address)

    def kmalloc_size_roundup(self, size: int) -> int:
        """Bytes that a request of a size gets."""
        return kmalloc_size_roundup(self.config, size)

    def _construct(self) -> None:
        """Run the constructors of objects of new slabs."""
        slub = self.tables.slub[0]
        count = int(slub["nr_ctor"])
        slub["nr_ctor"] = 0
        by_number = {cache.number: cache for cache in self.caches}
        for pfn in self.tables.ctor_slabs[:count].tolist():
            frame = self.tables.slab_map[pfn]
            cache = by_number[int(frame["cache"])]
            record = self.tables.kmem_caches[cache.number]
            stride, size = int(record["size"]), int(record["object_size"])
            at = (pfn << self.page_shift) + int(record["red_left_pad"])
            for index in range(int(frame["objects"])):
                if cache.ctor is not None:
                    cache.ctor(self.ram.view(at + index * stride, size).data)

    # -- errors -----------------------------------------------------------------------------------

    @property
    def _record(self) -> Any:
        """The record of all kernels."""
        return self.tables.slub[0]

    @property
    def kmalloc_max(self) -> int:
        """Bytes of the largest request."""
        return KMALLOC_MAX_SIZE

    def _report(self, what: str, address: int, code: int) -> ObjectError:
        return report(self, what, address, code)

    def tracks(self, cache: Cache, address: int) -> tuple[str, ...]:
        """What is noted about the last users of an object."""
        from physmem.slab.slub_reports import tracks

        return tracks(self, self.tables.kmem_caches[cache.number], address)

    # -- looking at it ----------------------------------------------------------------------------

    def rows(self) -> list[CacheRow]:
        """Counts of every cache, newest first."""
        return slabinfo_rows(self)

    def owner(self, address: int) -> str:
        """What an address belongs to, in words."""
        return owner_text(self, address)

    def cache_frames(self, cache: Cache) -> NDArray[np.int64]:
        """First frame of every slab of a cache, ascending."""
        return slab_frames(self, cache)

    def live_addresses(self, cache: Cache) -> list[int]:
        """Objects of a cache that are allocated, ascending."""
        return live_addresses(self, cache)

    def attributes(self, cache: Cache) -> dict[str, str]:
        """Attributes of a cache as /sys/kernel/slab shows them."""
        return attributes(self, cache)

    def node_of(self, pfn: int) -> int:
        """Node of a frame."""
        return node_of(self.memory, pfn)

    def validate(self) -> None:
        """Check every invariant that `physmem.slab.slub_types` lists."""
        from physmem.slab.slub_validate import validate_slub

        validate_slub(self)
