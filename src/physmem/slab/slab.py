# SPDX-License-Identifier: GPL-2.0-or-later
"""SLAB: caches of objects on top of the page allocator, as Linux 2.6.24 has them.

Linux: mm/slab.c (2.6.24)
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
from physmem.slab.allocator import (
    MASK,
    ZERO_SIZE_PTR,
    Duplicate,
    Reserve,
    signed,
)
from physmem.slab.cache import DESTROYED, Cache
from physmem.slab.calls import KernelCalls
from physmem.slab.flags import SLAB_CACHE_DMA, parse_flags
from physmem.slab.nodes import cpu_nodes, node_of, nodes_with_memory
from physmem.slab.rows import CacheRow
from physmem.slab.slab_boot import start_slab
from physmem.slab.slab_config import SlabConfig
from physmem.slab.slab_entry import (
    do_alloc_many,
    do_cache_alloc,
    do_cache_free,
    do_free_block,
    do_free_many,
    do_kfree,
    do_kmalloc,
    do_reap,
    do_shrink,
    do_why_not,
)
from physmem.slab.slab_hotplug import cpu_dead, cpu_up
from physmem.slab.slab_sizes import SlabGeometry, slab_geometry
from physmem.slab.slab_state import MAX_CACHES, fill_cache, make_tables
from physmem.slab.slab_tune import enable_cpucache, tune
from physmem.slab.slab_view import (
    attributes,
    cache_frames,
    live_addresses,
    locate,
    owner_text,
    report,
    slabinfo_rows,
    users,
)

ZERO = 0x100


class SlabAllocator(KernelCalls):
    """SLAB of one machine, started up; see `SlubAllocator` for the parameters.

    Attributes
    ----------
    online : CPUs that are online, ascending
    nodes : nodes with memory
    statistics : a debug build: /proc/slabinfo has more columns
    """

    kind = "slab"
    cache_cache: Cache

    def __init__(
        self,
        memory: NDArray[Any],
        ram: Ram,
        config: SlabConfig,
        page_offset: int,
        reserve: Reserve,
    ) -> None:
        super().__init__(memory, ram, page_offset, config.page_shift)
        self.config = config
        self.tables = make_tables(memory, ram, config, page_offset, reserve)
        self._find_shape()
        self.free_numbers: list[int] = []
        self.next_number = 0
        self.started = False
        self.bind()
        start_slab(self)
        self.started = True
        for cpu in range(1, config.cpus):
            cpu_up(self, cpu)
        self._find_shape()

    def bind(self) -> None:
        """Find the compiled kernels, and where the record lies."""
        self.handle = self._h = address_of(self.tables.slab)
        self._kmalloc = ready(do_kmalloc)
        self._kfree = ready(do_kfree)
        self._cache_alloc = ready(do_cache_alloc)
        self._cache_free = ready(do_cache_free)

    def copy(self, memory: NDArray[Any], ram: Ram, duplicate: Duplicate) -> "SlabAllocator":
        """The same state on a copy of the machine."""
        made = copy(self)
        self._copy_caches(made, memory, ram)
        made.free_numbers = list(self.free_numbers)
        made.cache_cache = made.cache("kmem_cache")
        made.tables = self.tables.copy(duplicate)
        made.tables.attach(memory, ram)
        made.bind()
        return made

    def resume(self) -> None:
        """Go on after `physmem.slab.saved.load` has put everything in place."""
        self.cache_cache = self.cache("kmem_cache")
        self._find_shape()
        self.started = True
        self.bind()

    def _find_shape(self) -> None:
        """Which nodes and CPUs there are."""
        config = self.config
        self.nr_nodes = self.tables.shape[1]
        self.online = np.flatnonzero(self.tables.cpu_online).tolist()
        self.fast_cpus = self.nr_cpus if len(self.online) == self.nr_cpus else 0
        self.nodes = nodes_with_memory(self.memory) if config.numa else [0]
        self.use_alien = config.numa and config.use_alien_caches and config.nr_node_ids > 1
        self.statistics = config.debug

    # -- what SLAB needs for itself ---------------------------------------------------------------

    @property
    def jiffies(self) -> int:
        """Time, in timer interrupts."""
        return int(self.tables.slab[0]["jiffies"])

    def cpu_node(self, cpu: int) -> int:
        """Node of a CPU as SLAB counts nodes."""
        if not self.config.numa:
            return 0
        return int(cpu_nodes(self.memory)[cpu])

    def online_of(self, nid: int) -> int:
        """CPUs of a node that are online."""
        return sum(1 for cpu in self.online if self.cpu_node(cpu) == nid)

    def internal_kmalloc(self, size: int, *, nid: int = NONE, zero: bool = False) -> int:
        """Memory for SLAB itself."""
        where = nid if self.config.numa else NONE
        gfp = GFP_KERNEL | ZERO if zero else GFP_KERNEL
        address = self._kmalloc(self._h, size, gfp, where, 0)
        if not address:
            raise OutOfMemoryError(f"SLAB itself: no memory for {size} bytes")
        return address

    def internal_kfree(self, address: int) -> None:
        """Free memory of SLAB itself."""
        self._kfree(self._h, address, 0)

    def internal_alloc(self, cache: Cache) -> int:
        """An object for SLAB itself."""
        address = self._cache_alloc(self._h, cache.number, GFP_KERNEL | ZERO, NONE, 0)
        if not address:
            raise OutOfMemoryError(f"SLAB itself: no memory for an object of {cache.name}")
        return address

    def free_to_slabs(self, cache: Cache, addresses: NDArray[np.int64], nid: int) -> None:
        """Give objects that are in no array back to their slabs."""
        ready(do_free_block)(self._h, cache.number, addresses, nid)  # type: ignore[arg-type]

    def new_cache(self, name: str, geometry: SlabGeometry, *, ctor: bool = False) -> Cache:
        """A cache record with its geometry, not yet to be found."""
        if self.free_numbers:
            number = self.free_numbers.pop()
        elif self.next_number < MAX_CACHES:
            number = self.next_number
            self.next_number += 1
        else:
            raise BadRequestError(f"cache {name}: {MAX_CACHES} caches are the most there can be")
        slabp = NONE
        if geometry.off_slab:
            place = self.config.general_sizes.index(self.config.general_size(geometry.slab_size))
            slabp = int(self.tables.general[len(self.config.general_sizes) + place])
        fill_cache(self.tables, number, geometry, slabp, ctor=ctor)
        return Cache(self, number, name, geometry, geometry.flags)

    def push(self, cache: Cache) -> None:
        """Put a cache at the head of the chain."""
        self.caches.insert(0, cache)
        self.by_name[cache.name] = cache

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
        if align < 0 or align & (align - 1):
            raise BadRequestError(f"cache {name!r}: align {align}: a power of two is needed")
        geometry = slab_geometry(self.config, self._whole("size", size), align, bits)
        address = self.internal_alloc(self.cache_cache)
        cache = self.new_cache(name, geometry, ctor=ctor is not None)
        cache.ctor = ctor
        cache.parts["cache"] = [address]
        enable_cpucache(self, cache)
        self.push(cache)
        return cache

    def destroy(self, cache: Cache) -> None:
        """End a cache. Linux: kmem_cache_destroy(), mm/slab.c (2.6.24)"""
        if cache is self.cache_cache or cache.number in self.tables.general.tolist():
            raise BadRequestError(f"cache {cache.name}: SLAB needs it")
        self.caches.remove(cache)
        if self.shrink(cache):
            self.caches.insert(0, cache)
            left = self.live_addresses(cache)
            shown = ", ".join(f"{each:#x}" for each in left[:4])
            raise ObjectsRemainError(
                f"kmem_cache_destroy({cache.name}): {len(left)} objects in use: {shown}; free them",
                address=left[0],
                cache=cache.name,
                slab=self.paddr(left[0]) >> self.page_shift,
                last_users=tuple(
                    f"{each:#x}: {text}"
                    for each in left[:4]
                    for text in users(self, cache, each - cache.geometry.obj_offset)
                ),
            )
        parts = cache.parts
        for address in parts["cpu"]:
            if address:
                self.internal_kfree(address)
        for nid in self.nodes:
            for address in (parts.get("shared") or [0] * self.nr_nodes)[nid : nid + 1]:
                if address:
                    self.internal_kfree(address)
            aliens = parts.get(f"alien{nid}", [])
            for address in [*aliens[1:], *aliens[:1]]:
                self.internal_kfree(address)
            self.internal_kfree(parts["list3"][nid])
        self._cache_free(self._h, self.cache_cache.number, parts["cache"][0], 0)
        self.tables.slab_caches[cache.number]["live"] = 0
        self.free_numbers.append(cache.number)
        del self.by_name[cache.name]
        cache.barred = DESTROYED

    def shrink(self, cache: Cache) -> bool:
        """Give back what a cache does not need."""
        return bool(ready(do_shrink)(self._h, cache.number))

    def set_attribute(self, cache: Cache, name: str, value: int) -> None:
        """Write an attribute of a cache: SLAB has none."""
        raise BadRequestError(
            f"cache {cache.name}, {name}: {value}: SLAB has no such attribute; see tune()"
        )

    def _cpu_up(self, cpu: int) -> None:
        cpu_up(self, cpu)

    def _cpu_dead(self, cpu: int) -> None:
        cpu_dead(self, cpu)

    def tune(self, cache: Cache, limit: int, batchcount: int, sharedfactor: int) -> None:
        """Change the arrays of a cache, as a write to /proc/slabinfo does.

        Raises
        ------
        BadRequestError
            Not 1 <= batchcount <= limit, or a negative factor.
        """
        if not 1 <= batchcount <= limit or sharedfactor < 0:
            raise BadRequestError(
                f"tune({limit}, {batchcount}, {sharedfactor}): 1 <= batchcount <= limit and a"
                " factor of at least 0 are needed"
            )
        tune(self, cache, limit, batchcount, sharedfactor)

    def reap(self, cpu: int = 0, jiffies: int | None = None) -> None:
        """A CPU's periodic work on all caches. Linux: cache_reap(), mm/slab.c (2.6.24)

        Parameters
        ----------
        jiffies : int, optional
            The time now; by default 2 seconds after the last call.
        """
        cpu = self.check_cpu(cpu)
        slab = self.tables.slab[0]
        slab["jiffies"] = self.jiffies + 2 * self.config.hz if jiffies is None else jiffies
        run = ready(do_reap)
        for cache in list(self.caches):
            run(self._h, cache.number, cpu)
        here = int(self.tables.reap_node[cpu])
        later = [nid for nid in self.nodes if nid > here]
        self.tables.reap_node[cpu] = later[0] if later else self.nodes[0]

    # -- objects ----------------------------------------------------------------------------------

    def alloc(self, cache: Cache, gfp: int, nid: int, cpu: int) -> int:
        """Address of an object of a cache; 0: no memory."""
        if (gfp ^ cache.flags // SLAB_CACHE_DMA) & 1:
            raise BadRequestError(f"cache {cache.name}: GFP_DMA is asked of caches for DMA, only")
        return super().alloc(cache, gfp, nid, cpu)

    def alloc_bulk(self, cache: Cache, nr: int, gfp: int, cpu: int) -> list[int]:
        """Objects of a cache; empty when memory is short (2.6.24 has no such call: one by one)."""
        if nr < 0:
            raise BadRequestError(f"nr {nr}: not negative")
        out: Any = np.empty(nr, np.int64)
        got = ready(do_alloc_many)(self._h, cache.number, gfp, cpu, out) if nr else 0
        if cache.ctor is not None:
            self._construct()
        found: list[int] = out[:got].view(np.uint64).tolist()
        if got < nr:
            self.free_bulk(cache, found, cpu)
            self._raise_check("kmem_cache_alloc")
            return []
        return found

    def free_bulk(self, cache: Cache | None, addresses: Iterable[int], cpu: int) -> None:
        """Free objects of a cache (None: of any)."""
        wanted = [int(each) for each in addresses]
        if not wanted:
            return
        array: Any = np.array([signed(each & MASK) for each in wanted], np.int64)
        number = NONE if cache is None else cache.number
        bad = ready(do_free_many)(self._h, number, array, cpu)
        if bad == len(wanted):
            self._raise_check("kmem_cache_free")
        if bad >= 0:
            code = int(self.tables.slab[0]["error"])
            self.tables.slab[0]["error"] = 0
            raise report(self, "kmem_cache_free", wanted[bad], code)

    def ksize(self, address: int) -> int:
        """Bytes that may be used at an address. Linux: ksize(), mm/slab.c (2.6.24)"""
        if 0 <= address <= ZERO_SIZE_PTR:
            return 0
        code = ready(do_why_not)(self._h, signed(address & MASK))
        found = locate(self, address)
        if code or found is None:
            raise report(self, "ksize", address, code)
        g = found[0].geometry
        return int(g.obj_size) if self.config.debug else int(g.buffer_size)

    def kmalloc_size_roundup(self, size: int) -> int:
        """Bytes that a request of a size gets."""
        if not 0 <= size <= self.config.kmalloc_max_size:
            raise BadRequestError(f"size {size}: 0 .. {self.config.kmalloc_max_size}")
        return self.config.general_size(size) if size else 0

    def _construct(self) -> None:
        """Run the constructors of objects of new slabs."""
        slab = self.tables.slab[0]
        count = int(slab["nr_ctor"])
        slab["nr_ctor"] = 0
        by_number = {cache.number: cache for cache in self.caches}
        for pfn in self.tables.ctor_slabs[:count].tolist():
            frame = self.tables.slab_frames[pfn]
            cache = by_number[int(frame["cache"])]
            g = cache.geometry
            at = self.paddr(int(frame["s_mem"]) & MASK) + g.obj_offset
            for index in range(g.num):
                if cache.ctor is not None:
                    cache.ctor(self.ram.view(at + index * g.buffer_size, g.obj_size).data)

    # -- errors -----------------------------------------------------------------------------------

    @property
    def _record(self) -> Any:
        """The record of all kernels."""
        return self.tables.slab[0]

    @property
    def kmalloc_max(self) -> int:
        """Bytes of the largest request."""
        return self.config.kmalloc_max_size

    def _report(self, what: str, address: int, code: int) -> ObjectError:
        return report(self, what, address, code)

    # -- looking at it ----------------------------------------------------------------------------

    def rows(self) -> list[CacheRow]:
        """Counts of every cache, newest first."""
        return slabinfo_rows(self)

    def owner(self, address: int) -> str:
        """What an address belongs to, in words."""
        return owner_text(self, address)

    def cache_frames(self, cache: Cache) -> NDArray[np.int64]:
        """First frame of every slab of a cache, ascending."""
        return cache_frames(self, cache)

    def live_addresses(self, cache: Cache) -> list[int]:
        """Objects of a cache that are allocated, ascending."""
        return live_addresses(self, cache)

    def attributes(self, cache: Cache) -> dict[str, str]:
        """What is known of a cache."""
        return attributes(self, cache)

    def node_of(self, pfn: int) -> int:
        """Node of a frame as SLAB counts nodes."""
        return node_of(self.memory, pfn) if self.config.numa else 0

    def validate(self) -> None:
        """Check every invariant that `physmem.slab.slab_types` lists."""
        from physmem.slab.slab_validate import validate_slab

        validate_slab(self)
