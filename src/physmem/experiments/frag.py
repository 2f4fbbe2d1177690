# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that allocate many single frames and free them in random order."""

from typing import Annotated

from physmem.experiments.random32 import Random, below
from physmem.lib.jit import kernel, pointer_to
from physmem.lib.struct import Array, i64, struct, u32
from physmem.mm.mmzone import NONE, Memory
from physmem.mm.page_alloc import alloc_pages
from physmem.mm.page_free import free_pages


@struct
class Frag:
    """Single frames that are held: `frag_pfn[0 .. held - 1]`, in random order after a shuffle."""

    memory_addr: i64  # Memory record of the machine
    gfp: i64
    node: i64
    nr_cpus: i64  # requests go to these CPUs in turn
    held: i64
    operations: i64
    random: Annotated[Array[Random], 1]
    frag_pfn: Array[u32]


frag_at = pointer_to(Frag)
memory_of = pointer_to(Memory)


@kernel
def frag_alloc(h: int, count: int) -> int:
    """Allocate up to `count` frames behind the held ones; how many were obtained."""
    f = frag_at(h)
    m = memory_of(f.memory_addr)
    for done in range(count):
        pfn = alloc_pages(m, 0, f.gfp, f.node, f.operations % f.nr_cpus, 0)
        if pfn == NONE:
            return done
        f.frag_pfn[f.held] = pfn
        f.held += 1
        f.operations += 1
    return count


@kernel
def frag_shuffle(h: int) -> None:
    """Bring the held frames into random order (Fisher and Yates)."""
    f = frag_at(h)
    for last in range(f.held - 1, 0, -1):
        other = below(f.random[0], last + 1)
        pfn = f.frag_pfn[last]
        f.frag_pfn[last] = f.frag_pfn[other]
        f.frag_pfn[other] = pfn


@kernel
def frag_free(h: int, count: int) -> int:
    """Free the last `count` held frames, last first; how many the allocator took back."""
    f = frag_at(h)
    m = memory_of(f.memory_addr)
    freed = 0
    for _ in range(count):
        f.held -= 1
        freed += int(free_pages(m, int(f.frag_pfn[f.held]), 0, f.operations % f.nr_cpus, False))
        f.operations += 1
    return freed


@kernel
def frag_choose(h: int, count: int) -> None:
    """Bring `count` random frames of the held ones to the end (the first steps of a shuffle)."""
    f = frag_at(h)
    for last in range(f.held - 1, f.held - 1 - count, -1):
        other = below(f.random[0], last + 1)
        pfn = f.frag_pfn[last]
        f.frag_pfn[last] = f.frag_pfn[other]
        f.frag_pfn[other] = pfn


@kernel
def frag_replace(h: int, count: int) -> int:
    """Free a random held frame and allocate one in its place, `count` times; how many times."""
    f = frag_at(h)
    m = memory_of(f.memory_addr)
    for done in range(count):
        at = below(f.random[0], f.held)
        cpu = f.operations % f.nr_cpus
        free_pages(m, int(f.frag_pfn[at]), 0, cpu, False)
        pfn = alloc_pages(m, 0, f.gfp, f.node, cpu, 0)
        f.operations += 2
        if pfn == NONE:
            f.held -= 1
            f.frag_pfn[at] = f.frag_pfn[f.held]
            return done
        f.frag_pfn[at] = pfn
    return count
