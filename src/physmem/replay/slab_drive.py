# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded objects given to a machine of one's own: the same requests, other rules.

What would another kernel, another number of CPUs or another order have made of it? Addresses are
the machine's own; a recorded pointer only names the object.
"""

from collections.abc import Callable
from dataclasses import dataclass

from physmem.lib.errors import BadCaptureError, ObjectError, OutOfMemoryError
from physmem.machine.machine import Machine
from physmem.replay.slab_objects import FAILED, UNKNOWN, find_slabs
from physmem.slab.cache import Cache
from physmem.trace.capture import Capture
from physmem.trace.events import Kind

GFP_KERNEL = 0xCC0


@dataclass
class Driven:
    """What came of it.

    Attributes
    ----------
    allocations, frees : carried out
    unknown_frees : of pointers that were not seen allocated
    repeated : allocations of a pointer that was not seen freed; the older object was freed first
    failed : requests that got nothing
    requested : bytes asked for by objects that live at the end
    """

    allocations: int = 0
    frees: int = 0
    unknown_frees: int = 0
    repeated: int = 0
    failed: int = 0
    requested: int = 0


class Driver:
    """Gives the events of a capture to a machine."""

    def __init__(self, capture: Capture, machine: Machine) -> None:
        if not (capture.events.kind >= Kind.KMALLOC).any():
            raise BadCaptureError("the capture has no events of objects")
        self.capture = capture
        self.machine = machine
        self.found = find_slabs(capture)
        self.objects: dict[int, tuple[int, int]] = {}  # pointer -> address, bytes asked for
        self.caches: dict[str, Cache] = {}
        self.result = Driven()

    def _cache(self, name: str, size: int) -> Cache:
        if name not in self.caches:
            slab = self.machine.slab
            cache = slab.by_name.get(name)
            self.caches[name] = cache or slab.kmem_cache_create(name, size)
        return self.caches[name]

    def _alloc(self, row: int, pointer: int, gfp: int, size: int) -> None:
        events, result = self.capture.events, self.result
        if pointer in self.objects:
            result.repeated += 1
            self._free(pointer)
        slab = self.found.slab[row]
        try:
            if int(events.kind[row]) == Kind.KMALLOC or slab is None or slab < 0:
                address = self.machine.kmalloc(size, gfp)
            else:
                name = self.found.lives[slab].cache
                address = self._cache(name, size).alloc(gfp & ~1)
        except OutOfMemoryError:
            result.failed += 1
            return
        result.allocations += 1
        result.requested += size
        self.objects[pointer] = (address, size)

    def _free(self, pointer: int) -> None:
        address, size = self.objects.pop(pointer)
        self.result.requested -= size
        try:
            self.machine.kfree(address)
        except ObjectError:
            self.result.unknown_frees += 1
            return
        self.result.frees += 1

    def run(self, watch: Callable[[int], None] | None = None, times: int = 1) -> Driven:
        """Give all events; `watch` is called `times` times on the way, with the row."""
        events = self.capture.events
        step = max(len(events) // max(times, 1), 1)
        columns = zip(
            events.kind.tolist(),
            events.pfn.tolist(),
            events.gfp.tolist(),
            events.arg0.tolist(),
            strict=True,
        )
        for row, (kind, pointer, gfp, size) in enumerate(columns):
            if kind in {Kind.KMALLOC, Kind.CACHE_ALLOC}:
                if self.found.slab[row] not in {FAILED, UNKNOWN} or pointer not in {0, -1}:
                    self._alloc(row, pointer, gfp, size)
            elif kind in {Kind.KFREE, Kind.CACHE_FREE}:
                if pointer in self.objects:
                    self._free(pointer)
                elif pointer:
                    self.result.unknown_frees += 1
            if watch is not None and row % step == step - 1:
                watch(row)
        return self.result
