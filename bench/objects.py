# SPDX-License-Identifier: GPL-2.0-or-later
"""What one small object costs: in kernels and from Python, for both slab allocators, and in C.

`python bench/objects.py` prints the figures and the ratios to the same SLUB in plain C.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from physmem.lib.jit import kernel, ready
from physmem.lib.struct import Array, i64
from physmem.machine.machine import Machine
from physmem.slab import slab_entry
from physmem.slab.slab_object import slab_at
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


@kernel
def slab_pairs(h: int, count: int, size: int) -> int:
    """As `slub_pairs`, with SLAB of 2.6.24."""
    m = slab_at(h)
    failed = 0
    for _ in range(count):
        address = slab_entry.kmalloc(m, size, GFP_KERNEL, -1, 0)
        if address == 0:
            failed += 1
        else:
            slab_entry.kfree(m, address, 0)
    return failed


@kernel
def slab_random(h: int, count: int, slots: Array[i64], seed: int) -> int:
    """As `slub_random`, with SLAB of 2.6.24."""
    m = slab_at(h)
    failed = 0
    mask = len(slots) - 1
    for _ in range(count):
        seed = (seed * 25214903917 + 11) & 0xFFFFFFFFFFFF
        slot = (seed >> 16) & mask
        if slots[slot]:
            slab_entry.kfree(m, slots[slot], 0)
            slots[slot] = 0
        else:
            size = 8 << ((seed >> 40) & 7)
            slots[slot] = slab_entry.kmalloc(m, size, GFP_KERNEL, -1, 0)
            if slots[slot] == 0:
                failed += 1
    return failed


KERNELS = {"slub": (slub_pairs, slub_random), "slab": (slab_pairs, slab_random)}


def best(repeat: int, function: Callable[[], Any]) -> float:
    """Least number of seconds of processor time of several calls."""
    least = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        function()
        least = min(least, time.process_time() - start)
    return least


def measure(kind: str, repeat: int, count: int) -> dict[str, float]:
    """Nanoseconds per pair and per operation of one allocator."""
    machine = Machine.build("1GiB")
    h = machine.slab_start(kind)._h
    pairs, work = (ready(function) for function in KERNELS[kind])
    found = {f"{kind}_pair_kernel_ns": best(repeat, lambda: pairs(h, count, 64)) / count * 1e9}
    slots: Any = np.zeros(1 << 14, np.int64)
    found[f"{kind}_random_ns"] = best(repeat, lambda: work(h, count, slots, 1)) / count * 1e9
    # many short turns: what other processes take away is not in the shortest one
    turns, small = 50, max(count // 2500, 1)

    def from_python() -> None:
        for _ in range(small):
            machine.kfree(machine.kmalloc(64))

    found[f"{kind}_pair_python_ns"] = best(turns * repeat, from_python) / small * 1e9
    return found


def measure_c(repeat: int, count: int) -> dict[str, float]:
    """The same SLUB in C, if there is a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "objects"
        source = Path(__file__).with_name("objects.c")
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        done = subprocess.run(
            [program, str(count), str(repeat)], check=True, capture_output=True, text=True
        )
    pair, work = map(float, done.stdout.split())
    return {"c_pair_ns": pair, "c_random_ns": work}


def measure_objects(repeat: int = 3, count: int = 10_000_000) -> dict[str, float]:
    """All figures; ratios are ours to C."""
    found = {**measure_c(repeat, count), **measure("slub", repeat, count)}
    found |= measure("slab", repeat, count)
    for kind in KERNELS:
        for what, ours in (("pair", "pair_kernel"), ("random", "random")):
            if f"c_{what}_ns" in found:
                ratio = found[f"{kind}_{ours}_ns"] / found[f"c_{what}_ns"]
                found[f"{kind}_{what}_ratio"] = ratio
    return found


if __name__ == "__main__":
    for name, value in measure_objects().items():
        print(f"{name:24s} {value:10.2f}")
