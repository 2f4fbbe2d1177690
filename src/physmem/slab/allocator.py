# SPDX-License-Identifier: GPL-2.0-or-later
"""What SLAB and SLUB have in common for callers: the kmalloc family, caches by name, objects.

Linux: include/linux/slab.h, mm/slab_common.c, mm/util.c (6.1)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadRequestError, OutOfMemoryError
from physmem.lib.ram import Ram
from physmem.mm.gfp import __GFP_ZERO, parse_gfp
from physmem.mm.mmzone import NONE
from physmem.slab.cache import Cache
from physmem.slab.rows import CacheRow

ZERO_SIZE_PTR = 16
MASK = (1 << 64) - 1
ZERO = __GFP_ZERO

Reserve = Callable[[int, Any], NDArray[Any]]
"""Function that makes an array of zeros that costs nothing until written: (count, dtype)."""

Duplicate = Callable[[NDArray[Any]], NDArray[Any]]
"""Function that copies a buffer and keeps untouched parts of it untouched."""


def signed(address: int) -> int:
    """An address as a kernel holds it: 64 bits, signed."""
    return address - (1 << 64) if address >> 63 else address


class ObjectAllocator(ABC):
    """Small memory out of whole frames; made by a machine.

    Addresses are those of the kernel's direct map: `page_offset` plus the physical address.
    """

    kind = ""
    """slab or slub."""

    def __init__(self, memory: NDArray[Any], ram: Ram, page_offset: int, page_shift: int) -> None:
        self.memory = memory
        self.ram = ram
        self.page_offset = page_offset
        self.page_shift = page_shift
        self.keep: object = None
        """What owns the memory; a cache in someone's hands must not outlive it."""
        self.caches: list[Cache] = []
        self.users: list[str] = [""]
        self.nr_cpus = int(memory[0]["nr_cpus"])
        self.nr_nodes = int(memory[0]["zonelist_len"]) // int(memory[0]["nr_zones"])
        self.fast_cpus = self.nr_cpus
        """CPUs below this number need no further check; 0 while some are offline."""
        self.online = list(range(self.nr_cpus))
        self.gfp_known: dict[Hashable, int] = {}
        self._h = 0
        self.by_name: dict[str, Cache] = {}

    # -- what each allocator does in its own way --------------------------------------------------

    @abstractmethod
    def kmem_cache_create(
        self,
        name: str,
        size: int,
        align: int = 0,
        flags: str | int = 0,
        ctor: Callable[[memoryview], None] | None = None,
    ) -> Cache:
        """Make a cache; see `Machine.kmem_cache_create`."""

    @abstractmethod
    def alloc(self, cache: Cache, gfp: int, nid: int, cpu: int) -> int:
        """Address of an object of a cache; 0: no memory."""

    @abstractmethod
    def free(self, cache: Cache, address: int, cpu: int) -> None:
        """Free an object of a cache."""

    @abstractmethod
    def alloc_bulk(self, cache: Cache, nr: int, gfp: int, cpu: int) -> list[int]:
        """Objects of a cache; empty when memory is short."""

    @abstractmethod
    def free_bulk(self, cache: Cache | None, addresses: Iterable[int], cpu: int) -> None:
        """Free objects of a cache (None: of any)."""

    @abstractmethod
    def shrink(self, cache: Cache) -> bool:
        """Give back what a cache does not need; True: slabs remain."""

    @abstractmethod
    def destroy(self, cache: Cache) -> None:
        """End a cache."""

    @abstractmethod
    def kmalloc(
        self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None
    ) -> int:
        """Address of at least `size` bytes."""

    @abstractmethod
    def kfree(self, address: int, *, cpu: int = 0) -> None:
        """Free what kmalloc or a cache gave."""

    @abstractmethod
    def ksize(self, address: int) -> int:
        """Bytes that may be used at an address."""

    @abstractmethod
    def kmalloc_size_roundup(self, size: int) -> int:
        """Bytes that a request of a size gets."""

    @abstractmethod
    def rows(self) -> list[CacheRow]:
        """Counts of every cache, in the order of /proc/slabinfo."""

    @abstractmethod
    def owner(self, address: int) -> str:
        """What an address belongs to, in words."""

    @abstractmethod
    def cache_frames(self, cache: Cache) -> NDArray[np.int64]:
        """First frame of every slab of a cache, ascending."""

    @abstractmethod
    def live_addresses(self, cache: Cache) -> list[int]:
        """Objects of a cache that are allocated, ascending."""

    @abstractmethod
    def attributes(self, cache: Cache) -> dict[str, str]:
        """Attributes of a cache as /sys/kernel/slab shows them."""

    @abstractmethod
    def set_attribute(self, cache: Cache, name: str, value: int) -> None:
        """Write an attribute of a cache."""

    @abstractmethod
    def validate(self) -> None:
        """Check every invariant."""

    @abstractmethod
    def copy(self, memory: NDArray[Any], ram: Ram, duplicate: Duplicate) -> "ObjectAllocator":
        """The same state on a copy of the machine: its record and its bytes."""

    def _copy_caches(self, made: "ObjectAllocator", memory: NDArray[Any], ram: Ram) -> None:
        """Give a copy that shares everything its own caches, record and bytes."""
        made.memory, made.ram = memory, ram
        made.caches = []
        made.users = list(self.users)
        made.online = list(self.online)
        for cache in self.caches:
            twin = copy(cache)
            twin.allocator = made
            twin.names = list(cache.names)
            twin.parts = {name: list(part) for name, part in cache.parts.items()}
            made.caches.append(twin)
        made.by_name = {name: cache for cache in made.caches for name in cache.names}

    # -- the family -------------------------------------------------------------------------------

    def kzalloc(
        self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None
    ) -> int:
        """Address of at least `size` bytes, all zero."""
        return self.kmalloc(size, self.bits(gfp) | ZERO, cpu=cpu, node=node)

    def krealloc(
        self, address: int, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0
    ) -> int:
        """Make the memory at an address larger; it may move, its bytes come along.

        Linux: krealloc(), mm/slab_common.c (6.1): never gives memory back unless size is 0
        """
        if size == 0:
            self.kfree(address, cpu=cpu)
            return ZERO_SIZE_PTR
        old = self.ksize(address) if address > ZERO_SIZE_PTR else 0
        if old >= size:
            return address
        made = self.kmalloc(size, gfp, cpu=cpu)
        if old:
            self.ram.write(self.paddr(made), self.ram.read(self.paddr(address), old))
            self.kfree(address, cpu=cpu)
        return made

    def object(self, address: int, size: int | None = None) -> memoryview:
        """Bytes at an address, to read and write.

        Raises
        ------
        BadPointerError
            Nothing was allocated there.
        """
        if size is None:
            size = self.ksize(address)
        return self.ram.view(self.paddr(address), size).data

    def cache(self, name: str) -> Cache:
        """Cache by one of its names.

        Raises
        ------
        BadRequestError
            There is none of this name.
        """
        try:
            return self.by_name[name]
        except KeyError:
            raise BadRequestError(f"cache {name!r}: there is none of this name") from None

    @contextmanager
    def user(self, name: str) -> Iterator[None]:
        """Name who allocates and frees in a block: notes about users tell it (debug caches)."""
        if name not in self.users:
            self.users.append(name)
        before = self._set_user(self.users.index(name))
        try:
            yield
        finally:
            self._set_user(before)

    @abstractmethod
    def _set_user(self, number: int) -> int:
        """Set the number of the user; the one before."""

    # -- CPUs -------------------------------------------------------------------------------------

    def cpu_down(self, cpu: int) -> None:
        """A CPU goes offline: what it held goes back to the nodes.

        Raises
        ------
        BadRequestError
            No such CPU, offline already, or the first, which always stays.

        Examples
        --------
        >>> from physmem import Machine
        >>> slab = Machine.build("64MiB", cpus=2).slab
        >>> slab.cpu_down(1)
        >>> slab.online
        [0]
        >>> slab.cpu_up(1)

        Linux: slub_cpu_dead(), mm/slub.c (6.1); cpuup_callback(), mm/slab.c (2.6.24)
        """
        number = self.check_cpu(cpu)
        if number == 0:
            raise BadRequestError("cpu 0: the first CPU stays online")
        self._cpu_dead(number)
        self.online = [each for each in self.online if each != number]
        self.fast_cpus = 0

    def cpu_up(self, cpu: int) -> None:
        """A CPU comes back.

        Raises
        ------
        BadRequestError
            No such CPU, or online already.
        """
        number = self._whole("cpu", cpu)
        if not 0 <= number < self.nr_cpus or number in self.online:
            raise BadRequestError(f"cpu {number}: not an offline cpu of this machine")
        self._cpu_up(number)
        self.online = sorted({*self.online, number})
        self.fast_cpus = self.nr_cpus if len(self.online) == self.nr_cpus else 0

    @abstractmethod
    def _cpu_up(self, cpu: int) -> None:
        """Prepare what a CPU needs."""

    @abstractmethod
    def _cpu_dead(self, cpu: int) -> None:
        """Take back what a CPU held."""

    # -- arguments --------------------------------------------------------------------------------

    def paddr(self, address: int) -> int:
        """Physical address."""
        return (address - self.page_offset) & MASK

    def bits(self, gfp: str | int) -> int:
        """Bits of request flags."""
        found = self.gfp_known.get(gfp)
        if found is None:
            found = self.gfp_known[gfp] = parse_gfp(gfp)
        return found

    def nid(self, node: int | None) -> int:
        """Number of a requested node, or NONE."""
        if node is None:
            return NONE
        number = self._whole("node", node)
        if not 0 <= number < self.nr_nodes:
            raise BadRequestError(f"node {number}: this machine has nodes 0 .. {self.nr_nodes - 1}")
        return number

    def check_cpu(self, cpu: Any) -> int:
        """CPU number, checked."""
        number = self._whole("cpu", cpu)
        if not 0 <= number < self.nr_cpus:
            raise BadRequestError(f"cpu {number}: this machine has cpus 0 .. {self.nr_cpus - 1}")
        if number not in self.online:
            raise BadRequestError(f"cpu {number}: it is offline; call slab.cpu_up({number})")
        return number

    def _whole(self, what: str, value: Any) -> int:
        try:
            return index(value)
        except TypeError:
            raise BadRequestError(f"{what} {value!r}: a whole number is needed") from None

    def refused(self, what: str, cpu: Any) -> OutOfMemoryError:
        """Error for a request that got nothing."""
        self.check_cpu(cpu)
        return OutOfMemoryError(f"{what}: no frames for a new slab")
