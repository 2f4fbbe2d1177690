# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables, address spaces and their TLBs under any sequence of operations.

Hypothesis looks for a small sequence after which a page table and its dictionary twin differ, a
table page is lost, or a TLB says what the tables say no more though everything was flushed.
"""

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.model.pgtable import Twin
from tests.pgtable.fuzzing import PROTS, WINDOW, Fuzz, free_frames

from physmem.lib.errors import AlreadyMappedError, PageFaultError
from physmem.machine.machine import Machine
from physmem.pgtable.format import U64
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.mm import AddressSpace
from physmem.pgtable.source import Buddy
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs

FORMATS = st.sampled_from(page_table_formats())
FIRST = st.integers(0, WINDOW - 1) | st.sampled_from((0, 511, 512, 1024, 2048, WINDOW - 1))
PAGES = st.sampled_from((1, 2, 3, 16, 128, 512, 1024)) | st.integers(1, 600)


class TableMachine(RuleBasedStateMachine):
    """A page table and its twin."""

    fuzz = None

    @initialize(name=FORMATS)
    def begin(self, name):
        self.fuzz = Fuzz(name, 0)

    def place(self, window, first, pages):
        """Address and size of a range inside of a window."""
        shift = self.fuzz.fmt.page_shift
        pages = min(pages, WINDOW - first)
        windows = self.fuzz.windows
        return (windows[window % len(windows)] + (first << shift)) & U64, pages << shift

    @rule(
        window=st.integers(0, 3),
        first=FIRST,
        pages=PAGES,
        frame=st.integers(0, 1 << 18) | st.sampled_from((0, 512, 8192, 1 << 18)),
        prot=st.sampled_from(PROTS),
        contiguous=st.booleans(),
    )
    def map(self, window, first, pages, frame, prot, contiguous):
        va, size = self.place(window, first, pages)
        paddr = frame << self.fuzz.fmt.page_shift
        if paddr + size > 1 << 32:
            return
        allowed = self.fuzz.twin.map(va, paddr, size, prot)
        try:
            self.fuzz.table.map(va, paddr, size, prot, contiguous=contiguous)
        except AlreadyMappedError:
            assert not allowed
        else:
            assert allowed
        self.check(window, first, 0)
        self.check(window, first, size - 1)

    @rule(window=st.integers(0, 3), first=FIRST, pages=PAGES)
    def unmap(self, window, first, pages):
        va, size = self.place(window, first, pages)
        assert self.fuzz.table.unmap(va, size) == self.fuzz.twin.unmap(va, size)

    @rule(window=st.integers(0, 3), first=FIRST, pages=PAGES, prot=st.sampled_from(PROTS))
    def protect(self, window, first, pages, prot):
        va, size = self.place(window, first, pages)
        assert self.fuzz.table.protect(va, size, prot) == self.fuzz.twin.protect(va, size, prot)

    @rule(window=st.integers(0, 3), first=FIRST, offset=st.integers(0, 1 << 20))
    def check(self, window, first, offset):
        va, _ = self.place(window, first, 1)
        self.fuzz.check(va + offset)

    def teardown(self):
        if self.fuzz is not None:
            self.fuzz.finish()


AREA = 0x4000_0000
SPAN = 2048  # pages


class ProcessMachine(RuleBasedStateMachine):
    """An address space with TLBs, against dictionaries of areas and of present pages."""

    mm = None

    @initialize(name=st.sampled_from(("x86_64", "x86_32_pae", "arm64_4k_48", "riscv64_sv39")))
    def begin(self, name):
        self.machine = Machine.build("64MiB", cpus=2)
        buddy = Buddy(self.machine._h)
        self.kernel = PageTable(page_table_format(name), self.machine.ram, buddy)
        self.tlbs = Tlbs(self.kernel, 2, entries=16)
        self.before = free_frames(self.machine)
        self.mm = AddressSpace(self.kernel, buddy, self.tlbs)
        self.tlbs.switch(1, self.mm.table)
        self.areas = Twin(12)
        self.present = set()

    @rule(first=st.integers(0, SPAN - 1), pages=PAGES, huge=st.booleans(), write=st.booleans())
    def mmap(self, first, pages, huge, write):
        va, size, prot = AREA + first * 4096, pages * 4096, "rw-" if write else "r--"
        allowed = self.areas.map(va, 0, size, prot)
        try:
            assert self.mm.mmap(size, prot, addr=va, huge=huge) == va
        except AlreadyMappedError:
            assert not allowed
        else:
            assert allowed

    @rule(first=st.integers(0, SPAN - 1), pages=PAGES)
    def munmap(self, first, pages):
        va, size = AREA + first * 4096, pages * 4096
        self.areas.unmap(va, size)
        gone = {page for page in self.present if va >> 12 <= page < (va + size) >> 12}
        assert self.mm.munmap(va, size) == len(gone) * 4096
        self.present -= gone

    @rule(first=st.integers(0, SPAN - 1), write=st.booleans(), cpu=st.integers(0, 1))
    def touch(self, first, write, cpu):
        self.tlbs.switch(cpu, self.mm.table)
        va, access = AREA + first * 4096 + 5, "w" if write else "r"
        known = self.areas.translate(va)
        try:
            did = self.mm.fault(va, access)
        except PageFaultError:
            assert known is None or (write and known[1] == "r--")
            return
        assert known is not None
        assert not write or known[1] == "rw-"
        page = va >> 12
        assert (did == "present") == (page in self.present)
        self.present |= set(range(page & -512, (page & -512) + 512)) if "huge" in did else {page}
        assert self.tlbs.access(va, access + "u", cpu) == self.mm.table.translate(va).paddr

    @precondition(lambda self: self.mm is not None and self.mm.vmas)
    @rule(pick=st.integers(0, 1 << 16), write=st.booleans(), cut=st.integers(0, 50))
    def mprotect(self, pick, write, cut):
        vma = self.mm.vmas[pick % len(self.mm.vmas)]
        start = min(vma.start + cut * 4096, vma.end - 4096)
        prot = "rw-" if write else "r--"
        self.mm.mprotect(start, vma.end - start, prot)
        self.areas.protect(start, vma.end - start, prot)

    @rule()
    def nothing_is_stale(self):
        self.tlbs.check()
        assert self.mm.rss == len(self.present) * 4096

    def teardown(self):
        if self.mm is not None:
            self.nothing_is_stale()
            self.mm.exit()
            assert free_frames(self.machine) == self.before
            self.machine.validate()


TestTables = pytest.mark.slow(TableMachine.TestCase)
TestProcesses = pytest.mark.slow(ProcessMachine.TestCase)
