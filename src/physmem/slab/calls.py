# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls into the kernels of an allocator: arguments checked, codes made errors.

Both allocators have kernels of the same shapes; what differs is named in `KernelCalls`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from physmem.lib.errors import BadRequestError, ObjectError
from physmem.mm.mmzone import NONE
from physmem.slab.allocator import MASK, ObjectAllocator
from physmem.slab.cache import Cache
from physmem.slab.codes import CHECK_FAILED

_LARGEST_SIGNED = (1 << 63) - 1


class KernelCalls(ObjectAllocator):
    """One object at a time, through compiled kernels.

    Kernels get the address of the record, then (cache, gfp, node, cpu), (cache, address, cpu),
    (size, gfp, node, cpu) or (address, cpu).
    """

    _cache_alloc: Callable[[int, int, int, int, int], int]
    _cache_free: Callable[[int, int, int, int], int]
    _kmalloc: Callable[[int, int, int, int, int], int]
    _kfree: Callable[[int, int, int], int]

    @property
    @abstractmethod
    def _record(self) -> Any:
        """The allocator's record."""

    @property
    @abstractmethod
    def kmalloc_max(self) -> int:
        """Bytes of the largest request."""

    @abstractmethod
    def _report(self, what: str, address: int, code: int) -> ObjectError:
        """Error for a code."""

    @abstractmethod
    def _construct(self) -> None:
        """Run the constructors of objects of new slabs."""

    def alloc(self, cache: Cache, gfp: int, nid: int, cpu: int) -> int:
        """Address of an object of a cache; 0: no memory."""
        address = self._cache_alloc(self._h, cache.number, gfp, nid, cpu)
        if cache.ctor is not None:
            self._construct()
        if not address:
            self._raise_check("kmem_cache_alloc")
        return address & MASK

    def free(self, cache: Cache, address: int, cpu: int) -> None:
        """Free an object of a cache."""
        at = address - (1 << 64) if address > _LARGEST_SIGNED else address
        if not -_LARGEST_SIGNED <= at <= _LARGEST_SIGNED:
            raise BadRequestError(f"kmem_cache_free({address:#x}): no address of 64 bits")
        code = self._cache_free(self._h, cache.number, at, cpu)
        if code:
            self._raise_free(f"kmem_cache_free({cache.name})", address, code)

    def kmalloc(
        self, size: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None
    ) -> int:
        """Address of at least `size` bytes."""
        bits = self.gfp_known.get(gfp)
        if bits is None:
            bits = self.bits(gfp)
        nid = NONE if node is None else self.nid(node)
        if not size.__class__ is cpu.__class__ is int or not 0 <= cpu < self.fast_cpus:
            size, cpu = self._whole("size", size), self.check_cpu(cpu)
        if size >> 40:
            size = -1 if size < 0 else self.kmalloc_max + 1
        address = self._kmalloc(self._h, size, bits, nid, cpu)
        if not address:
            self._raise_check("kmalloc")
            if not 0 <= size <= self.kmalloc_max:
                raise BadRequestError(f"kmalloc: 0 .. {self.kmalloc_max} bytes, not {size}")
            raise self.refused(f"kmalloc({size})", cpu)
        return address & MASK

    def kfree(self, address: int, *, cpu: int = 0) -> None:
        """Free what kmalloc or a cache gave."""
        if not address.__class__ is cpu.__class__ is int or not 0 <= cpu < self.fast_cpus:
            address, cpu = self._whole("address", address), self.check_cpu(cpu)
        at = address - (1 << 64) if address > _LARGEST_SIGNED else address
        if not -_LARGEST_SIGNED <= at <= _LARGEST_SIGNED:
            raise BadRequestError(f"kfree({address:#x}): no address of 64 bits")
        code = self._kfree(self._h, at, cpu)
        if code:
            self._raise_free("kfree", address, code)

    def _raise_check(self, what: str) -> None:
        """Raise what a check found, if it found something."""
        record = self._record
        code = int(record["error"])
        if code:
            error = self._report(what, int(record["error_object"]) & MASK, code)
            record["error"] = 0
            raise error

    def _raise_free(self, what: str, address: int, code: int) -> None:
        if code == CHECK_FAILED:
            self._raise_check(what)
        raise self._report(what, address, code)

    def _set_user(self, number: int) -> int:
        record = self._record
        before = int(record["call_site"])
        record["call_site"] = number
        return before
