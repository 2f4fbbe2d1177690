# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel's SLUB against ours: the same opens and closes, the same counters.

Opening a file of /proc allocates one object of the cache seq_file, closing frees it. Needs root, a
kernel with SLUB and CPU slabs (6.1 to 6.18), and PHYSMEM_LIVE=1. Other processes can disturb a
trial: one without any difference is asked for.

"""

import os
from pathlib import Path
from random import Random

import pytest

from physmem import Machine

CACHE = Path("/sys/kernel/slab/seq_file")
ATTRIBUTES = ("slabs", "total_objects", "objects", "partial", "objects_partial")
TRIALS = 12
OPERATIONS = 1500

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.environ.get("PHYSMEM_LIVE") != "1"
        or not hasattr(os, "sched_setaffinity")
        or not os.access(CACHE / "shrink", os.W_OK),
        reason="only with PHYSMEM_LIVE=1, as root, on a kernel with SLUB",
    ),
]


class Kernel:
    """The cache of the running kernel; what reads it is opened once, so that reading takes none."""

    def __init__(self):
        self.fds = {name: os.open(CACHE / name, os.O_RDONLY) for name in ATTRIBUTES}
        self.shrinker = os.open(CACHE / "shrink", os.O_WRONLY)
        self.cpus = sorted(os.sched_getaffinity(0))

    def close(self):
        for fd in (*self.fds.values(), self.shrinker):
            os.close(fd)

    def counts(self):
        return {name: int(os.pread(fd, 4096, 0).split()[0]) for name, fd in self.fds.items()}

    def alloc(self, cpu):
        os.sched_setaffinity(0, {cpu})
        return os.open("/proc/version", os.O_RDONLY)

    def free(self, cpu, fd):
        os.sched_setaffinity(0, {cpu})
        os.close(fd)

    def shrink(self):
        os.pwrite(self.shrinker, b"1", 0)


def ours(cpus):
    machine = Machine.build("64MiB", cpus=cpus)
    kernel = ".".join(os.uname().release.split(".")[:2])
    known = kernel if kernel in {"6.1", "6.12", "6.18"} else "6.12"
    slab = machine.slab_start("slub", kernel=known, merge=False, cpus=cpus)
    size = int((CACHE / "object_size").read_text())
    return slab.kmem_cache_create("seq_file", size, 0)


def model_counts(cache):
    attributes = cache.attributes()
    return {name: int(attributes[name].split()[0]) for name in ATTRIBUTES}


def trial(kernel, seed):
    """Comparisons and hits of one trial."""
    random = Random(seed)
    cpus = kernel.cpus[:2]
    cache = ours(max(kernel.cpus) + 1)
    held, pairs = [], []
    kernel.shrink()
    before = kernel.counts()["slabs"]
    # until a new slab is made: then this CPU has it, and all others are full
    while kernel.counts()["slabs"] == before and len(held) < 2000:
        held.append(kernel.alloc(cpus[0]))
    pairs.append((held.pop(), cache.alloc(cpu=cpus[0])))
    base = {name: kernel.counts()[name] - count for name, count in model_counts(cache).items()}
    compared = hits = 0
    try:
        for _ in range(OPERATIONS):
            cpu = random.choice(cpus)
            if pairs and (random.random() < 0.48 or len(pairs) > 400):
                fd, address = pairs.pop(random.randrange(len(pairs)))
                kernel.free(cpu, fd)
                cache.free(address, cpu=cpu)
            else:
                pairs.append((kernel.alloc(cpu), cache.alloc(cpu=cpu)))
            found, expected = kernel.counts(), model_counts(cache)
            for name in ATTRIBUTES:
                compared += 1
                hits += found[name] == expected[name] + base[name]
    finally:
        for fd in (*held, *(fd for fd, _address in pairs)):
            os.close(fd)
    return compared, hits


def test_the_running_kernel_agrees():
    kernel = Kernel()
    affinity = os.sched_getaffinity(0)
    try:
        results = [trial(kernel, seed) for seed in range(TRIALS)]
    finally:
        kernel.close()
        os.sched_setaffinity(0, affinity)
    clean = [compared for compared, hits in results if compared == hits]
    print(f"{len(clean)} of {TRIALS} trials without any difference: {results}")
    assert clean, results
