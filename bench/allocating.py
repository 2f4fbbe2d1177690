# SPDX-License-Identifier: GPL-2.0-or-later
"""What one allocation costs, and what a machine costs: to make, to copy, to hold."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from physmem.lib.jit import kernel, ready
from physmem.lib.struct import address
from physmem.machine.machine import Machine
from physmem.mm.lists import memory_at
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages

GFP_KERNEL = 0xCC0
_HUGE = """
import resource, sys, time
from physmem.machine.machine import Machine
Machine.build("64MiB")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
machine = Machine.build(sys.argv[1])
seconds = time.perf_counter() - start
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(seconds, grown, machine.bytes_per_page)
"""


@kernel
def pairs(h: int, count: int, order: int) -> int:
    """Allocate and free again, `count` times; how many allocations failed."""
    m = memory_at(h)
    failed = 0
    for _ in range(count):
        pfn = alloc_pages(m, order, GFP_KERNEL, 0, 0, 0)
        if not free_pages(m, pfn, order, 0, False):
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


def measure_pairs(repeat: int, count: int) -> dict[str, float]:
    """Nanoseconds of one allocation with its free, from Python and inside a kernel."""
    machine = Machine.build("1GiB")

    def from_python() -> None:
        for _ in range(count):
            machine.free_pages(machine.alloc_pages())

    found = {"pair_python_order0_ns": best(repeat, from_python) / count * 1e9}
    run = ready(pairs)
    handle = address(machine.tables.memory)
    machine.tables.zones["pcp_thp"] = 0  # order 9: straight from the free lists
    for order, times in ((0, 50 * count), (9, count)):
        assert run(handle, times, order) == 0
        seconds = best(repeat, lambda n=times, k=order: run(handle, n, k))
        found[f"pair_kernel_order{order}_ns"] = seconds / times * 1e9
    return found


def measure_machine(repeat: int) -> dict[str, float]:
    """Seconds to copy and to snapshot a machine of 1 GiB in use, bytes per page of memory."""
    machine = Machine.build("1GiB")
    held = [machine.alloc_pages() for _ in range(1 << 16)]
    for pfn in held[::3]:
        machine.free_pages(pfn)
    return {
        "copy_1gib_ms": best(repeat, machine.copy) * 1e3,
        "snapshot_1gib_ms": best(repeat, machine.snapshot) * 1e3,
        "bytes_per_page": machine.bytes_per_page,
    }


def measure_huge(size: str) -> dict[str, float]:
    """Make a huge machine in a process of its own: seconds and growth of resident memory."""
    done = subprocess.run(
        [sys.executable, "-c", _HUGE, size], check=True, capture_output=True, text=True
    )
    seconds, grown, per_page = map(float, done.stdout.split())
    return {
        "huge_setup_s": seconds,
        "huge_rss_mib": grown / 1024,
        "huge_bytes_per_page": per_page,
    }
