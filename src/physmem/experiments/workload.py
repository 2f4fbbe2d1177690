# SPDX-License-Identifier: GPL-2.0-or-later
"""A synthesised load like `make -j` beside `find`: jobs, page cache, caches of names, the kernel.

Each step is one page fault or one request of the kernel on behalf of a job:

    anonymous page    movable; lives until its job ends
    page table, stack unmovable; one stack (order 1) per job, a table for every `pte_every` pages;
                      live until the job ends
    file page         movable; a run of `readahead` pages; stays in the page cache
    name cache page   reclaimable (dentries, inodes); mostly from `find`; stays until shrunk
    kernel page       unmovable (buffers, objects of the kernel); freed at random when there are
                      more than the goal, which may swing between a base and a peak

When free memory falls below the high watermarks, the oldest file pages are dropped (some get a
second chance) and the name caches shrink by the same share, at random: a page of objects is free
only when its last object is. That is the part of reclaim that decides which frames become free; it
is the workload's, since the allocator here has none. Anonymous pages are never swapped: a job that
gets nothing ends.

All pages of a job hang on one chain: `Page.private` of the first frame of each block names the
next block.
"""

from typing import Annotated

from physmem.experiments.random32 import Random, below, chance
from physmem.lib.jit import kernel, pointer_to
from physmem.lib.struct import Array, i64, struct, u32
from physmem.mm.mmzone import HEAD_IN_USE, NONE, PG_MOVABLE, WMARK_HIGH, Memory
from physmem.mm.page_alloc import alloc_pages, gfp_zone
from physmem.mm.page_free import free_pages, page_zone

END_OF_CHAIN = 0xFFFFFFFF
RECLAIM_BATCH = 32
"""Pages looked at together. Linux: SWAP_CLUSTER_MAX, include/linux/swap.h"""
_MOST_BATCHES = 64
"""Batches for one request: then the kernel would call the OOM killer."""


@struct
class Job:
    """A process: what it holds, and how much it still wants."""

    first_block: i64  # chain of its blocks, END_OF_CHAIN: none
    pages_left: i64  # anonymous pages until it ends
    since_table: i64  # anonymous pages since the last page table
    finds: i64  # 1: walks directories, 0: compiles


@struct
class Workload:
    """State and settings of the load; shares are in 65,536ths of all steps."""

    memory_addr: i64  # Memory record of the machine
    gfp_user: i64  # movable
    gfp_kernel: i64  # unmovable
    gfp_cache: i64  # reclaimable
    file_share: i64  # steps that read a file
    cache_share: i64  # steps that need a page for names, compiling
    find_share: i64  # the same, walking directories
    kernel_share: i64  # steps that need a page for the kernel
    second_chance: i64  # old file pages that stay
    readahead: i64  # pages of a file read together
    pte_every: i64  # anonymous pages per page table
    job_pages: i64  # mean of the anonymous pages of a job
    kernel_base: i64  # goal for pages of the kernel, between swings and at the end ...
    kernel_peak: i64  # ... and at the height of a swing
    swing: i64  # steps from base to peak and back
    count_all: i64  # 1: the goal counts all unmovable pages, those of jobs too
    steps: i64
    operations: i64
    failed: i64  # requests that got nothing
    unmovable_pages: i64  # held by jobs and the kernel
    lru_head: i64  # next place to write; the oldest is at lru_tail
    lru_tail: i64
    nr_cache_pages: i64
    nr_kernel_pages: i64
    random: Annotated[Array[Random], 1]
    job: Array[Job]
    lru_pfn: Array[u32]
    cache_pfn: Array[u32]
    kernel_pfn: Array[u32]


workload_at = pointer_to(Workload)
memory_of = pointer_to(Memory)


@kernel
def short_of_memory(m: Memory, gfp: int) -> bool:
    """Tell whether the zones that may serve a request are together below their high marks."""
    highest = gfp_zone(m, gfp)
    free = 0
    wanted = 0
    for number in range(m.nr_zones):
        zone = m.zones[number]
        if zone.zone_idx <= highest:
            free += max(0, zone.nr_free_pages - zone.lowmem_reserve[highest])
            wanted += zone.watermark[WMARK_HIGH] + zone.watermark_boost
    return free < wanted


@kernel
def free_block(m: Memory, w: Workload, pfn: int, cpu: int) -> None:
    """Free a block; its order is noted in its first frame."""
    order = int(m.mem_map[pfn].order) & ~HEAD_IN_USE
    m.mem_map[pfn].private = 0
    free_pages(m, pfn, order, cpu, False)
    w.operations += 1


@kernel
def add_file_page(w: Workload, pfn: int) -> None:
    """Make a page the youngest of the page cache."""
    w.lru_pfn[w.lru_head % len(w.lru_pfn)] = pfn
    w.lru_head += 1


@kernel
def shrink_lru(m: Memory, w: Workload, highest: int, cpu: int) -> int:
    """Look at the oldest file pages and drop them, or keep all; how many were looked at.

    What is looked at together was read together: it is in use, or it is not.

    Linux: shrink_inactive_list(), mm/vmscan.c
    """
    seen = min(RECLAIM_BATCH, w.lru_head - w.lru_tail)
    kept = chance(w.random[0], w.second_chance)
    for _ in range(seen):
        pfn = int(w.lru_pfn[w.lru_tail % len(w.lru_pfn)])
        w.lru_tail += 1
        number = page_zone(m, pfn)
        if kept or m.zones[number].zone_idx > highest:
            add_file_page(w, pfn)
        else:
            free_block(m, w, pfn, cpu)
    return seen


@kernel
def drop_cache_page(m: Memory, w: Workload, cpu: int) -> None:
    """Free a random page of names of files."""
    at = below(w.random[0], w.nr_cache_pages)
    free_block(m, w, int(w.cache_pfn[at]), cpu)
    w.nr_cache_pages -= 1
    w.cache_pfn[at] = w.cache_pfn[w.nr_cache_pages]


@kernel
def drop_kernel_page(m: Memory, w: Workload, cpu: int) -> None:
    """Free a random page of the kernel."""
    at = below(w.random[0], w.nr_kernel_pages)
    free_block(m, w, int(w.kernel_pfn[at]), cpu)
    w.nr_kernel_pages -= 1
    w.kernel_pfn[at] = w.kernel_pfn[w.nr_kernel_pages]
    w.unmovable_pages -= 1


@kernel
def reclaim(m: Memory, w: Workload, gfp: int, cpu: int) -> None:
    """Drop file pages and name caches, in proportion, until the zones are at their high marks.

    Linux: balance_pgdat(), shrink_slab(), mm/vmscan.c
    """
    highest = gfp_zone(m, gfp)
    for _ in range(_MOST_BATCHES):
        if not short_of_memory(m, gfp):
            return
        old = w.lru_head - w.lru_tail
        seen = shrink_lru(m, w, highest, cpu)
        share = w.nr_cache_pages * max(seen, 1) // (old + 1) + int(seen < RECLAIM_BATCH)
        for _ in range(min(share, w.nr_cache_pages)):
            drop_cache_page(m, w, cpu)


@kernel
def get_pages(m: Memory, w: Workload, order: int, gfp: int, cpu: int) -> int:
    """Allocate a block, with reclaim before if memory is short; its first pfn or NONE."""
    if short_of_memory(m, gfp):
        reclaim(m, w, gfp, cpu)
    pfn = alloc_pages(m, order, gfp, int(m.cpu_node[cpu]), cpu, 0)
    w.operations += 1
    if pfn == NONE:
        w.failed += 1
    return pfn


@kernel
def give_to_job(m: Memory, w: Workload, job: Job, order: int, gfp: int, cpu: int) -> bool:
    """Allocate a block that lives as long as the job; False: there is none."""
    pfn = get_pages(m, w, order, gfp, cpu)
    if pfn == NONE:
        return False
    m.mem_map[pfn].private = job.first_block
    job.first_block = pfn
    if gfp == w.gfp_kernel:
        w.unmovable_pages += 1 << order
    return True


@kernel
def end_job(m: Memory, w: Workload, job: Job, cpu: int) -> None:
    """Free everything that a job holds. Linux: exit_mmap(), mm/mmap.c"""
    pfn = int(job.first_block)
    while pfn != END_OF_CHAIN:
        follow = int(m.mem_map[pfn].private)
        if not m.mem_map[pfn].flags & PG_MOVABLE:
            w.unmovable_pages -= 1 << (int(m.mem_map[pfn].order) & ~HEAD_IN_USE)
        free_block(m, w, pfn, cpu)
        pfn = follow
    job.first_block = END_OF_CHAIN


@kernel
def start_job(m: Memory, w: Workload, job: Job, cpu: int) -> None:
    """Fork: a stack and the upper page tables; a length between none and twice the mean."""
    job.pages_left = 1 + below(w.random[0], 2 * w.job_pages)
    job.since_table = 0
    give_to_job(m, w, job, 1, w.gfp_kernel, cpu)
    for _ in range(3):
        give_to_job(m, w, job, 0, w.gfp_kernel, cpu)


@kernel
def kernel_goal(w: Workload) -> int:
    """Pages that the kernel wants to hold now: from base to peak and back, again and again."""
    if w.swing == 0:
        return w.kernel_base
    phase = w.steps % w.swing
    half = w.swing // 2
    height = min(phase, w.swing - phase)
    return w.kernel_base + (w.kernel_peak - w.kernel_base) * height // half


@kernel
def kernel_step(m: Memory, w: Workload, cpu: int) -> None:
    """A page for the kernel; while it holds more than its goal, random ones are freed."""
    pfn = get_pages(m, w, 0, w.gfp_kernel, cpu)
    if pfn != NONE and w.nr_kernel_pages < len(w.kernel_pfn):
        m.mem_map[pfn].private = 0
        w.kernel_pfn[w.nr_kernel_pages] = pfn
        w.nr_kernel_pages += 1
        w.unmovable_pages += 1
    elif pfn != NONE:
        free_block(m, w, pfn, cpu)
    trim_kernel(m, w, kernel_goal(w), cpu)


@kernel
def trim_kernel(m: Memory, w: Workload, goal: int, cpu: int) -> None:
    """Free random pages of the kernel until it holds no more than its goal."""
    while w.nr_kernel_pages > 0:
        held = w.unmovable_pages + w.nr_cache_pages if w.count_all else w.nr_kernel_pages
        if held <= goal:
            break
        drop_kernel_page(m, w, cpu)


@kernel
def cache_step(m: Memory, w: Workload, cpu: int) -> None:
    """A page of objects for names of files."""
    pfn = get_pages(m, w, 0, w.gfp_cache, cpu)
    if pfn != NONE and w.nr_cache_pages < len(w.cache_pfn):
        w.cache_pfn[w.nr_cache_pages] = pfn
        w.nr_cache_pages += 1
    elif pfn != NONE:
        free_block(m, w, pfn, cpu)


@kernel
def file_step(m: Memory, w: Workload, cpu: int) -> None:
    """Some pages of a file."""
    for _ in range(1 + below(w.random[0], 2 * w.readahead - 1)):
        pfn = get_pages(m, w, 0, w.gfp_user, cpu)
        if pfn == NONE:
            return
        if w.lru_head - w.lru_tail >= len(w.lru_pfn):
            free_block(m, w, pfn, cpu)
            return
        add_file_page(w, pfn)


@kernel
def anon_step(m: Memory, w: Workload, job: Job, cpu: int) -> None:
    """A page fault of a job, with a page table now and then; after the last one it ends."""
    if job.since_table == 0 and not give_to_job(m, w, job, 0, w.gfp_kernel, cpu):
        job.pages_left = 0
    job.since_table = (job.since_table + 1) % w.pte_every
    if job.pages_left <= 0 or not give_to_job(m, w, job, 0, w.gfp_user, cpu):
        end_job(m, w, job, cpu)
        start_job(m, w, job, cpu)
        return
    job.pages_left -= 1


@kernel
def run_workload(h: int, steps: int) -> None:
    """Make `steps` steps, each of a random job."""
    w = workload_at(h)
    m = memory_of(w.memory_addr)
    for _ in range(steps):
        w.steps += 1
        at = below(w.random[0], len(w.job))
        cpu = at % m.nr_cpus
        job = w.job[at]
        kind = below(w.random[0], 1 << 16)
        cached = w.find_share if job.finds else w.cache_share
        if kind < w.kernel_share:
            kernel_step(m, w, cpu)
        elif kind < w.kernel_share + cached:
            cache_step(m, w, cpu)
        elif job.finds or kind < w.kernel_share + cached + w.file_share:
            file_step(m, w, cpu)
        else:
            anon_step(m, w, job, cpu)


@kernel
def start_workload(h: int) -> None:
    """Begin every job."""
    w = workload_at(h)
    m = memory_of(w.memory_addr)
    for at in range(len(w.job)):
        w.job[at].first_block = END_OF_CHAIN
        start_job(m, w, w.job[at], at % m.nr_cpus)


@kernel
def settle_workload(h: int) -> None:
    """Let the kernel give back what it holds above its base."""
    w = workload_at(h)
    trim_kernel(memory_of(w.memory_addr), w, w.kernel_base, 0)


@kernel
def free_movable(h: int, cpu: int) -> int:
    """Free every movable block of a machine, in the order of addresses; how many frames."""
    m = memory_of(h)
    freed = 0
    for number in range(m.nr_zones):
        zone = m.zones[number]
        pfn = zone.start_pfn
        while pfn < zone.end_pfn:
            mark = int(zone.mem_map[pfn].order)
            if not mark & HEAD_IN_USE:
                pfn += 1
                continue
            order = mark & ~HEAD_IN_USE
            if zone.mem_map[pfn].flags & PG_MOVABLE:
                zone.mem_map[pfn].private = 0
                free_pages(m, pfn, order, cpu, False)
                freed += 1 << order
            pfn += 1 << order
    return freed


@kernel
def take_all(h: int, order: int, gfp: int, nid: int, cpu: int, most: int) -> int:
    """Allocate blocks of one order until a request fails, or `most`; how many."""
    m = memory_of(h)
    for count in range(most):
        if alloc_pages(m, order, gfp, nid, cpu, 0) == NONE:
            return count
    return most
