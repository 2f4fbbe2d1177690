# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python side of `workload`: settings, start, running, and what is left for huge pages."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from physmem.experiments.machines import flags, managed
from physmem.experiments.random32 import start_random
from physmem.experiments.workload import (
    Job,
    Workload,
    free_movable,
    run_workload,
    settle_workload,
    start_workload,
    take_all,
)
from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.machine.machine import Machine

_PART = 1 << 17
_UNIT = 1 << 16


@dataclass(frozen=True)
class Settings:
    """Settings of the load. Shares are of all steps, sizes of the managed frames.

    The defaults are those of a build in which gcc takes tens of MiB: a quarter of memory is
    anonymous, the rest page cache; the kernel's own pages are a few percent.

    Attributes
    ----------
    jobs : processes at a time; one in four walks directories
    anonymous : share of the frames that all jobs together hold on average
    file, cache, find, kernel : shares of steps that read a file, need a page for names (compiling,
        walking directories), need a page for the kernel; the rest are anonymous pages
    second_chance : share of old file pages that stay
    readahead : mean pages of a file read together
    pte_every : anonymous pages per page table
    base, peak : share of the frames that the kernel holds between swings and at their height
    swing : steps from base to peak and back, as a multiple of the frames; 0: no swings
    count_all : base and peak count all unmovable and reclaimable pages, not the kernel's own alone
    """

    jobs: int = 8
    anonymous: float = 0.25
    file: float = 0.12
    cache: float = 0.01
    find: float = 0.25
    kernel: float = 0.04
    second_chance: float = 0.25
    readahead: int = 4
    pte_every: int = 64
    base: float = 0.02
    peak: float = 0.02
    swing: float = 0.0
    count_all: bool = False


class Load:
    """A load on a machine.

    Examples
    --------
    >>> load = Load(Machine.build("64MiB"), Settings(), seed=1)
    >>> load.run(10_000)
    >>> load.operations > 10_000, load.failed
    (True, 0)
    """

    def __init__(self, machine: Machine, settings: Settings, *, seed: int) -> None:
        self.machine = machine
        frames = managed(machine)
        self._record: Any = np.zeros(1, dtype_of(Workload))
        self._jobs: Any = np.zeros(settings.jobs, dtype_of(Job))
        self._jobs["finds"] = np.arange(settings.jobs) % 4 == 3
        self._pages: dict[str, Any] = {
            name: np.zeros(frames, np.uint32) for name in ("lru_pfn", "cache_pfn", "kernel_pfn")
        }
        record = self._record[0]
        record["memory_addr"] = address(machine.tables.memory)
        record["gfp_user"] = flags(machine, "GFP_HIGHUSER_MOVABLE")
        record["gfp_kernel"] = flags(machine, "GFP_KERNEL")
        record["gfp_cache"] = flags(machine, "GFP_KERNEL|__GFP_RECLAIMABLE")
        for name in ("file", "cache", "find", "kernel"):
            record[f"{name}_share"] = int(getattr(settings, name) * _UNIT)
        record["second_chance"] = int(settings.second_chance * _UNIT)
        record["readahead"] = settings.readahead
        record["pte_every"] = settings.pte_every
        compiling = settings.jobs - settings.jobs // 4
        record["job_pages"] = max(1, int(frames * settings.anonymous / compiling))
        record["kernel_base"] = int(frames * settings.base)
        record["kernel_peak"] = int(frames * settings.peak)
        record["swing"] = int(frames * settings.swing)
        record["count_all"] = settings.count_all
        attach(record, "job", self._jobs)
        for name, pages in self._pages.items():
            attach(record, name, pages)
        ready(start_random)(record["random"], seed, 1)
        self._h = address(self._record)
        ready(start_workload)(self._h)

    @property
    def operations(self) -> int:
        """Allocations and frees so far."""
        return int(self._record[0]["operations"])

    @property
    def failed(self) -> int:
        """Requests that got nothing."""
        return int(self._record[0]["failed"])

    def run(self, steps: int) -> None:
        """Make steps."""
        while steps > 0:
            ready(run_workload)(self._h, min(_PART, steps))
            steps -= _PART

    def settle(self) -> None:
        """Let the kernel give back what it holds above its base."""
        ready(settle_workload)(self._h)


def allocatable(machine: Machine, order: int, most: int = 1 << 40) -> int:
    """Blocks of an order that can be allocated when all movable pages are taken away first.

    The machine is left as it is: a copy is emptied and asked until it refuses.

    Examples
    --------
    >>> machine = Machine.build("64MiB")
    >>> _ = machine.alloc_pages(gfp="GFP_HIGHUSER_MOVABLE")
    >>> allocatable(machine, 9)
    30
    """
    copy = machine.copy()
    h = address(copy.tables.memory)
    ready(free_movable)(h, 0)
    copy.drain()
    gfp = flags(copy, "GFP_HIGHUSER_MOVABLE|__GFP_NOWARN")
    return int(ready(take_all)(h, order, gfp, 0, 0, most))
