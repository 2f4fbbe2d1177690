# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache in the hands of a caller: objects of one size, one at a time or many at once."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from physmem.lib.errors import BadRequestError, OutOfMemoryError
from physmem.mm.mmzone import NONE

if TYPE_CHECKING:
    from physmem.slab.allocator import ObjectAllocator


DESTROYED = "it was destroyed"


class Cache:
    """One `kmem_cache`; made by `Machine.kmem_cache_create`.

    Attributes
    ----------
    name : oldest name; `names` has all (merged caches share everything)
    size, object_size : stride and usable bytes of an object
    geometry : what follows from size, alignment and flags
    flags : SLAB_* bits
    refcount : creators that share the cache; negative: never merged
    """

    def __init__(
        self, allocator: "ObjectAllocator", number: int, name: str, geometry: Any, flags: int
    ) -> None:
        self.allocator = allocator
        self.number = number
        self.name = name
        self.names = [name]
        self.geometry = geometry
        self.flags = flags
        self.refcount = 1
        self._ctor: Callable[[memoryview], None] | None = None
        self.barred = ""
        """Why there are no objects any more, or not yet; empty: there are."""
        self.parts: dict[str, list[int]] = {}
        """Objects that the allocator itself holds for this cache, by what they are."""

    @property
    def object_size(self) -> int:
        """Bytes of an object that are its user's."""
        return int(self.allocator.attributes(self)["object_size"])

    @property
    def size(self) -> int:
        """Bytes from one object to the next."""
        return int(self.allocator.attributes(self)["slab_size"])

    @property
    def ctor(self) -> Callable[[memoryview], None] | None:
        """Constructor: called with the bytes of every object of a new slab.

        It can be set where a machine was opened from a file, which cannot hold it.
        """
        return self._ctor

    @ctor.setter
    def ctor(self, ctor: Callable[[memoryview], None] | None) -> None:
        if ctor is not None and not self.destroyed:
            self.barred = ""
        self._ctor = ctor

    @property
    def destroyed(self) -> bool:
        """The cache was ended."""
        return self.barred == DESTROYED

    def _check(self) -> None:
        if self.barred:
            raise BadRequestError(f"cache {self.name}: {self.barred}")

    def alloc(self, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0, node: int | None = None) -> int:
        """Address of an object.

        Raises
        ------
        OutOfMemoryError
            No frames for a new slab.
        ObjectError
            A check of a debug cache found something wrong in the object that came next.
        BadRequestError
            No such flag, CPU or node, or the cache was destroyed.
        """
        if self.barred:
            self._check()
        owner = self.allocator
        bits = owner.gfp_known.get(gfp)
        if bits is None:
            bits = owner.bits(gfp)
        nid = NONE if node is None else owner.nid(node)
        if cpu.__class__ is not int or not 0 <= cpu < owner.fast_cpus:
            cpu = owner.check_cpu(cpu)
        address = owner.alloc(self, bits, nid, cpu)
        if not address:
            raise OutOfMemoryError(f"cache {self.name}: no frames for a new slab")
        return address

    def free(self, address: int, *, cpu: int = 0) -> None:
        """Free an object.

        Raises
        ------
        DoubleFreeError, BadPointerError
            The object is free, or no object of this cache begins there.
        OverrunError
            A check of a debug cache found bytes written outside of the object.
        """
        if self.destroyed:
            self._check()
        if cpu.__class__ is not int or not 0 <= cpu < self.allocator.fast_cpus:
            cpu = self.allocator.check_cpu(cpu)
        self.allocator.free(self, address, cpu)

    def alloc_bulk(self, nr: int, gfp: str | int = "GFP_KERNEL", *, cpu: int = 0) -> list[int]:
        """Addresses of `nr` objects.

        Raises
        ------
        OutOfMemoryError
            Not so many: none is kept.
        """
        self._check()
        owner = self.allocator
        made = owner.alloc_bulk(self, nr, owner.bits(gfp), owner.check_cpu(cpu))
        if nr and not made:
            raise OutOfMemoryError(f"cache {self.name}: no frames for {nr} objects")
        return made

    def free_bulk(self, addresses: Iterable[int], *, cpu: int = 0) -> None:
        """Free objects.

        Raises
        ------
        DoubleFreeError, BadPointerError
            One of them cannot be freed: none was.
        """
        self._check()
        self.allocator.free_bulk(self, addresses, self.allocator.check_cpu(cpu))

    def view(self, address: int) -> memoryview:
        """Bytes of an object, to read and write."""
        return self.allocator.object(address, self.object_size)

    def shrink(self) -> bool:
        """Give back what is not needed; True: slabs remain."""
        self._check()
        return self.allocator.shrink(self)

    def destroy(self) -> None:
        """End the cache (of a shared one: this creator's part in it).

        Raises
        ------
        ObjectsRemainError
            Objects are in use; the message names some, and the cache stays.
        """
        self._check()
        self.allocator.destroy(self)

    def live(self) -> list[int]:
        """Addresses of the objects in use, ascending."""
        return self.allocator.live_addresses(self)

    def attributes(self) -> dict[str, str]:
        """Attributes by name, as files in /sys/kernel/slab/NAME."""
        return self.allocator.attributes(self)

    def set_attribute(self, name: str, value: int) -> None:
        """Write an attribute, as into its file in /sys/kernel/slab/NAME.

        SLUB: min_partial, cpu_partial (flushes all CPUs), remote_node_defrag_ratio, shrink. SLAB
        has none: its arrays are tuned (`physmem.slab.slab.SlabAllocator.tune`).

        Raises
        ------
        BadRequestError
            No such attribute, it cannot be written, or no such value.

        Examples
        --------
        >>> from physmem import Machine
        >>> machine = Machine.build("64MiB")
        >>> cache = machine.kmem_cache_create("inode", 600)
        >>> cache.set_attribute("min_partial", 9)
        >>> cache.attributes()["min_partial"]
        '9'
        """
        self._check()
        self.allocator.set_attribute(self, name, value)

    def __repr__(self) -> str:
        return f"Cache({self.name!r}: {self.geometry})"
