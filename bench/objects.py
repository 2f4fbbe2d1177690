# SPDX-License-Identifier: GPL-2.0-or-later
"""What one small object costs: in kernels and from Python, for both slab allocators."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from physmem.lib.jit import kernel, ready
from physmem.lib.struct import Array, i64
from physmem.machine.machine import Machine
from physmem.slab.slub_kmalloc import kfree, kmalloc
from physmem.slab.slub_object import slub_at

GFP_KERNEL = 0xCC0


@kernel
def slub_pairs(h: int, count: int, size: int) -> int:
    """Allocate and free again; how many allocations failed."""
    m = slub_at(h)
    failed = 0
    for _ in range(count):
        address = kmalloc(m, size, GFP_KERNEL, -1, 0)
        if address == 0:
            failed += 1
        else:
            kfree(m, address, 0)
    return failed


@kernel
def slub_random(h: int, count: int, slots: Array[i64], seed: int) -> int:
    """Random work over slots: an empty one gets 8 to 1024 bytes, a full one is freed."""
    m = slub_at(h)
    failed = 0
    mask = len(slots) - 1
    for _ in range(count):
        seed = (seed * 25214903917 + 11) & 0xFFFFFFFFFFFF
        slot = (seed >> 16) & mask
        if slots[slot]:
            kfree(m, slots[slot], 0)
            slots[slot] = 0
        else:
            size = 8 << ((seed >> 40) & 7)
            slots[slot] = kmalloc(m, size, GFP_KERNEL, -1, 0)
            if slots[slot] == 0:
                failed += 1
    return failed


def best(repeat: int, function: Callable[[], Any]) -> float:
    """Least number of seconds of several calls."""
    least = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - start)
    return least


def measure_slub(repeat: int, count: int) -> dict[str, float]:
    """Nanoseconds per pair and per operation."""
    machine = Machine.build("1GiB")
    h = machine.slab_start("slub")._h
    found = {}
    run = ready(slub_pairs)
    found["slub_pair_kernel_ns"] = best(repeat, lambda: run(h, count, 64)) / count * 1e9
    slots: Any = np.zeros(1 << 14, np.int64)
    work = ready(slub_random)
    found["slub_random_ns"] = best(repeat, lambda: work(h, count, slots, 1)) / count * 1e9
    small = max(count // 50, 1)

    def from_python() -> None:
        for _ in range(small):
            machine.kfree(machine.kmalloc(64))

    found["slub_pair_python_ns"] = best(repeat, from_python) / small * 1e9
    cache = machine.kmem_cache_create("bench", 64)

    def from_cache() -> None:
        for _ in range(small):
            cache.free(cache.alloc())

    found["slub_cache_python_ns"] = best(repeat, from_cache) / small * 1e9
    return found


if __name__ == "__main__":
    print(measure_slub(3, 10_000_000))
