# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a machine that hands out small memory: kmalloc and caches of objects."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from physmem.lib.errors import BadRequestError

if TYPE_CHECKING:
    from physmem.lib.ram import Ram
    from physmem.machine.layout import Layout
    from physmem.machine.tables import Tables
    from physmem.slab.allocator import ObjectAllocator
    from physmem.slab.cache import Cache
    from physmem.slab.mempool import Mempool
    from physmem.slab.vmalloc import Vmalloc

SLAB_KERNELS = frozenset({"2.6.24"})
"""Profiles whose machines have SLAB; all others have SLUB."""


class Objects(ABC):
    """Small memory of a machine; `Machine` inherits it."""

    tables: "Tables"
    layout: "Layout"
    _slab: "ObjectAllocator | None" = None
    _vmalloc: "Vmalloc | None" = None

    @property
    @abstractmethod
    def ram(self) -> "Ram":
        """The machine's memory as bytes."""

    @property
    def has_slab(self) -> bool:
        """Whether the slab allocator runs."""
        return self._slab is not None

    def slab_start(self, allocator: str | None = None, **options: Any) -> "ObjectAllocator":
        """Start the slab allocator, which takes its first frames; once, before its first use.

        Without this call the first request starts the one of the machine's kernel.

        Parameters
        ----------
        allocator : "slub" or "slab", optional
            By default that of the machine's kernel.
        options
            Fields of `physmem.slab.slub_config.SlubConfig` or
            `physmem.slab.slab_config.SlabConfig`; `page_offset`: address of physical address 0.

        Raises
        ------
        BadRequestError
            It was started already, or no such allocator or option.
        OutOfMemoryError
            Too little memory.

        Examples
        --------
        >>> from physmem import Machine
        >>> machine = Machine.build("64MiB", cpus=2)
        >>> machine.slab_start("slub", freelist_random=True, seed=7).kind
        'slub'
        """
        from physmem.machine.buffers import reserve
        from physmem.slab.start import start

        if self._slab is not None:
            raise BadRequestError("the slab allocator runs already: start it before its first use")
        kernel = self.layout.kernel
        if allocator is None:
            allocator = "slab" if kernel in SLAB_KERNELS else "slub"
        if allocator == "slub" and kernel not in SLAB_KERNELS:
            options.setdefault("kernel", kernel)
        shape = (self.layout.zone_names, self.layout.cpu_node)
        self._slab = start(allocator, self.tables.memory, self.ram, shape, reserve, options)
        self._slab_bind()
        return self._slab

    def _slab_bind(self) -> None:
        """Call the allocator's own methods from now on, which is faster."""
        slab = self.slab
        slab.keep = self
        self.__dict__.update(kmalloc=slab.kmalloc, kfree=slab.kfree)

    def _slab_adopt(self, slab: "ObjectAllocator") -> None:
        """Take over a copy of another machine's allocator; memory and bytes are copied already."""
        from physmem.machine.buffers import copy_sparse, reserve

        def duplicate(array: Any) -> Any:
            made = reserve(len(array), array.dtype)
            copy_sparse(array, made)
            return made

        self._slab = slab.copy(self.tables.memory, self.ram, duplicate)
        self._slab_bind()

    @property
    def slab(self) -> "ObjectAllocator":
        """The slab allocator: SLUB, or SLAB on a machine of 2.6.24."""
        return self.slab_start() if self._slab is None else self._slab

    def kmem_cache_create(
        self,
        name: str,
        size: int,
        align: int = 0,
        flags: str | int = 0,
        ctor: Callable[[memoryview], None] | None = None,
    ) -> "Cache":
        """Make a cache of objects.

        Parameters
        ----------
        name : str
            Unique.
        size, align : int
            Bytes of an object; alignment, a power of two, 0: the allocator's own.
        flags : str or int
            Names joined by "|", such as "SLAB_HWCACHE_ALIGN|SLAB_RECLAIM_ACCOUNT", or bits.
        ctor : callable, optional
            Called with the bytes of every object of a new slab.

        Raises
        ------
        CacheNameError
            A cache of this name exists.
        BadRequestError
            No such flag, size or alignment.

        Examples
        --------
        >>> from physmem import Machine
        >>> machine = Machine.build("64MiB")
        >>> cache = machine.kmem_cache_create("inode_cache", 600, flags="RECLAIM_ACCOUNT")
        >>> inode = cache.alloc()
        >>> machine.object(inode)[:4] = b"abcd"
        >>> cache.free(inode)

        Linux: kmem_cache_create(), mm/slab_common.c (6.1), mm/slab.c (2.6.24)
        """
        return self.slab.kmem_cache_create(name, size, align, flags, ctor)

    def kmalloc(
        self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None
    ) -> int:
        """Address of at least `size` bytes in the kernel's direct map.

        Raises
        ------
        OutOfMemoryError
            No frames for a new slab.
        BadRequestError
            No such size, flag, CPU or node.

        Examples
        --------
        >>> from physmem import Machine
        >>> machine = Machine.build("64MiB")
        >>> address = machine.kmalloc(100)
        >>> machine.ksize(address)
        128
        >>> machine.kfree(address)
        """
        return self.slab.kmalloc(size, gfp, cpu=cpu, node=node)

    def kzalloc(
        self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None
    ) -> int:
        """Address of at least `size` bytes, all zero."""
        return self.slab.kzalloc(size, gfp, cpu=cpu, node=node)

    def krealloc(
        self, address: int, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0
    ) -> int:
        """Make memory larger; it may move, its bytes come along."""
        return self.slab.krealloc(address, size, gfp, cpu=cpu)

    def kfree(self, address: int, *, cpu: int = 0) -> None:
        """Free what kmalloc or a cache gave.

        Raises
        ------
        DoubleFreeError
            It is free already.
        BadPointerError
            No object begins there.
        """
        self.slab.kfree(address, cpu=cpu)

    def kfree_bulk(self, addresses: Iterable[int], *, cpu: int = 0) -> None:
        """Free many objects, of any caches."""
        self.slab.free_bulk(None, addresses, self.slab.check_cpu(cpu))

    def ksize(self, address: int) -> int:
        """Bytes that may be used at an address."""
        return self.slab.ksize(address)

    def kmalloc_size_roundup(self, size: int) -> int:
        """Bytes that a request of a size gets."""
        return self.slab.kmalloc_size_roundup(size)

    def object(self, address: int, size: int | None = None) -> memoryview:
        """Bytes at an address (by default of the whole object), to read and write."""
        return self.slab.object(address, size)

    @property
    def vmalloc_area(self) -> "Vmalloc":
        """Memory that is contiguous by address only."""
        from physmem.slab.vmalloc import Vmalloc

        if self._vmalloc is None:
            self._vmalloc = Vmalloc(self.slab)
        return self._vmalloc

    def kvmalloc(self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0) -> int:
        """kmalloc, or vmalloc where that finds no room.

        Linux: kvmalloc_node(), mm/util.c (6.1)
        """
        return self.vmalloc_area.kvmalloc(size, gfp, cpu=cpu)

    def kvfree(self, address: int, *, cpu: int = 0) -> None:
        """Free what kvmalloc gave."""
        self.vmalloc_area.kvfree(address, cpu=cpu)

    def mempool_create(self, min_nr: int, cache: "Cache | int") -> "Mempool":
        """A reserve of objects of a cache, or of `cache` bytes each.

        Linux: mempool_create(), mm/mempool.c (6.1)
        """
        from physmem.slab.mempool import Mempool

        return Mempool(self.slab, min_nr, cache)

    def slabinfo(self) -> str:
        """Text of /proc/slabinfo, byte for byte as the machine's kernel prints it."""
        from physmem.views.slabinfo import slabinfo

        debug = self.slab.kind == "slab" and bool(getattr(self.slab, "statistics", False))
        return slabinfo(self.slab.rows(), statistics=debug)
