# SPDX-License-Identifier: GPL-2.0-or-later
"""What a start-up costs, in a process of its own: time, and memory at the peak."""

import json
import subprocess
import sys

_BOOT = """
import json, resource, time
import physmem

def best(*words, **more):
    least = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        physmem.boot(*words, **more)
        least = min(least, time.perf_counter() - start)
    return least

physmem.boot("64MiB")
small = best("1GiB")
usual = best("16GiB")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
huge = best("1TiB", nodes=8, cpus=8)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([small, usual, huge, grown]))
"""
MOST_RATIO = 128
"""1 TiB of 8 nodes over 1 GiB: 1,024 times the memory; the work must follow the ranges."""


def measure_boot() -> dict[str, float]:
    """Milliseconds of warm start-ups, and what the largest one adds to the peak."""
    done = subprocess.run([sys.executable, "-c", _BOOT], check=True, capture_output=True, text=True)
    small, usual, huge, grown = json.loads(done.stdout)
    return {
        "boot_1gib_ms": small * 1e3,
        "boot_16gib_ms": usual * 1e3,
        "boot_1tib_ms": huge * 1e3,
        "boot_ratio": huge / small,
        "boot_rss_mib": grown / 1024,
    }
