# SPDX-License-Identifier: GPL-2.0-or-later
"""Random operations on a page table and on its twin, compared after each.

The addresses lie in a few windows, so that operations meet: at both ends of the lower half, at both
ends of the upper one. Tables come from the page allocator and have to be back there at the end.
"""

import random

from tests.model.pgtable import Twin

from physmem.lib.errors import AlreadyMappedError
from physmem.machine.machine import Machine
from physmem.pgtable.format import U64
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.source import Buddy
from physmem.pgtable.table import PageTable

WINDOW = 4096  # pages
PROTS = ("PAGE_KERNEL", "PAGE_KERNEL_RO", "PAGE_SHARED", "PAGE_READONLY", "PAGE_NONE")


def free_frames(machine):
    """Frames that the page allocator has, those on per-CPU lists included."""
    machine.drain()
    return machine.nr_free_pages


class Fuzz:
    """A machine, a page table and its twin."""

    def __init__(self, name, seed, memory="64MiB"):
        self.rnd = random.Random(seed)
        self.fmt = fmt = page_table_format(name)
        self.machine = Machine.build(memory)
        self.before = free_frames(self.machine)
        source = Buddy(self.machine._h, frame_shift=12)
        self.table = PageTable(fmt, self.machine.ram, source, kernel=False)
        self.twin = Twin(fmt.page_shift)
        half, size = 1 << fmt.canonical_shift, WINDOW << fmt.page_shift
        self.windows = [0x10 << fmt.page_shift, half - size]
        if fmt.signed:
            self.windows += [(1 << 64) - half, (1 << 64) - size]
        self.counts = dict.fromkeys(("map", "refused", "unmap", "protect", "translate"), 0)

    def run(self, operations):
        """So many operations."""
        for _ in range(operations):
            self.step()

    def step(self):
        """One random operation on both."""
        rnd, shift = self.rnd, self.fmt.page_shift
        pages = min(rnd.choice((1, 1, 1, 2, 3, 7, 16, 33, 128, 512, 1024)), WINDOW)
        first = rnd.randrange(WINDOW - pages + 1)
        if rnd.random() < 0.4:
            first = first // pages * pages
        va = (rnd.choice(self.windows) + (first << shift)) & U64
        size = pages << shift
        kind = rnd.random()
        if kind < 0.3:
            self.do_map(va, size)
        elif kind < 0.55:
            assert self.table.unmap(va, size) == self.twin.unmap(va, size)
            self.counts["unmap"] += 1
        elif kind < 0.7:
            prot = rnd.choice(PROTS)
            assert self.table.protect(va, size, prot) == self.twin.protect(va, size, prot)
            self.counts["protect"] += 1
        else:
            self.check(va + rnd.randrange(size))
            self.counts["translate"] += 1

    def do_map(self, va, size):
        """Map on both, or find it refused by both."""
        rnd = self.rnd
        paddr = rnd.randrange(0, 1 << 31, size) if rnd.random() < 0.5 else va & 0x7FFFF000
        paddr = paddr >> self.fmt.page_shift << self.fmt.page_shift
        prot = rnd.choice(PROTS)
        allowed = self.twin.map(va, paddr, size, prot)
        try:
            self.table.map(va, paddr, size, prot, contiguous=rnd.random() < 0.3)
        except AlreadyMappedError:
            assert not allowed, f"{va:#x} {size:#x}: refused"
            self.counts["refused"] += 1
        else:
            assert allowed, f"{va:#x} {size:#x}: accepted"
            self.counts["map"] += 1
        self.check(va)
        self.check(va + size - 1)

    def check(self, va):
        """Both translate an address alike, to the same protection."""
        walk, known = self.table.translate(va & U64), self.twin.translate(va & U64)
        if known is None:
            reason = "not_present" if self.fmt.canonical(va & U64) else "not_canonical"
            assert walk.reason == reason, f"{walk}"
            return
        fmt = self.fmt
        paddr, prot = known
        entry = walk.steps[-1].entry
        if prot == "PAGE_NONE":
            assert walk.reason == "prot_none", f"{walk} {known}"
            return
        assert walk.paddr == paddr, f"{walk} {known}"
        want = fmt.mk_pte(0, fmt.prot(prot))
        assert fmt.pte_write(entry) == fmt.pte_write(want)
        assert fmt.pte_user(entry) == fmt.pte_user(want)

    def finish(self):
        """Unmap everything: no table may be left, the page allocator has all its frames."""
        listed = sum((leaf.end - leaf.va) >> self.fmt.page_shift for leaf in self.table.leaves())
        assert listed == len(self.twin.pages)
        for va in self.windows:
            self.table.unmap(va, WINDOW << self.fmt.page_shift)
        assert list(self.table.leaves()) == []
        assert self.table.nr_tables == 1 + self.fmt.two_roots
        self.table.free()
        assert free_frames(self.machine) == self.before
        self.machine.validate()
