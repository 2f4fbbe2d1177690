# SPDX-License-Identifier: GPL-2.0-or-later
"""Copy on write: a child has its parent's pages until one of both writes."""

import random

import numpy as np
import pytest
from tests.pgtable.fuzzing import free_frames

from physmem.lib.errors import OutOfMemoryError, PageFaultError, StaleTlbError
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.mm import AddressSpace
from physmem.pgtable.source import Buddy
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs

pytestmark = pytest.mark.pure


class Computer:
    """A machine, its kernel's page table, and a process."""

    def __init__(self, name="x86_64", memory="64MiB", cpus=2):
        self.machine = Machine.build(memory)
        buddy = Buddy(self.machine._h)
        kernel = PageTable(page_table_format(name), self.machine.ram, buddy)
        self.tlbs = Tlbs(kernel, cpus)
        self.before = free_frames(self.machine)
        self.mm = AddressSpace(kernel, buddy, self.tlbs)
        self.page = kernel.format.page_size


def put(mm, va, data):
    """Write as the program does."""
    mm.fault(va, "w")
    mm.table.ram.write(mm.table.translate(va, "wu").paddr, data)


def get(mm, va, size=4):
    mm.fault(va, "r")
    return mm.table.ram.read(mm.table.translate(va, "ru").paddr, size)


@pytest.mark.parametrize("name", page_table_formats())
def test_both_see_their_own_writes(name):
    computer = Computer(name)
    mm, page = computer.mm, computer.page
    va = mm.mmap(8 * page)
    put(mm, va, b"both")
    put(mm, va + page, b"them")
    child = mm.fork()
    same = mm.table.translate(va, "ru").paddr
    assert child.fault(va, "r") == "present"
    assert child.table.translate(va, "ru").paddr == same
    for space in (mm, child):
        assert space.table.translate(va, "wu").reason == "no_write"
    assert child.fault(va, "w") == "copied"
    assert child.table.translate(va, "wu").paddr != same
    put(child, va, b"mine")
    assert (get(mm, va), get(child, va), get(child, va + page)) == (b"both", b"mine", b"them")
    assert mm.fault(va, "w") == "present"  # the last one keeps the page
    assert mm.table.translate(va, "wu").paddr == same
    assert child.fault(va + 2 * page, "w") == "mapped"
    assert get(mm, va + 2 * page) == bytes(4)
    child.exit()
    assert get(mm, va + page) == b"them"
    mm.exit()
    assert free_frames(computer.machine) == computer.before
    assert not mm.kernel.frame_shares().any()


def test_what_is_read_only_stays_so():
    computer = Computer()
    mm = computer.mm
    va = mm.mmap(8192)
    put(mm, va, b"text")
    mm.mprotect(va, 4096, "r--")
    child = mm.fork()
    with pytest.raises(PageFaultError):
        child.fault(va, "w")
    child.mprotect(va, 4096, "rw-")
    assert child.table.translate(va, "wu").reason == "no_write"  # still the parent's page
    assert child.fault(va, "w") == "copied"
    mm.mprotect(va, 4096, "rw-")
    assert mm.table.translate(va, "wu").ok  # nobody else has it


def test_a_forgotten_flush_at_fork_is_seen():
    computer = Computer()
    mm, tlbs = computer.mm, computer.tlbs
    tlbs.switch(1, mm.table)
    va = mm.mmap(4096)
    mm.fault(va, "w")
    tlbs.access(va, "wu", cpu=1)
    child = mm.fork(flush=False)
    tlbs.access(va, "wu", cpu=1)  # writes to what is the child's as well
    with pytest.raises(StaleTlbError):
        tlbs.check()
    tlbs.flush_tlb_mm(mm.table)
    with pytest.raises(PageFaultError):
        tlbs.access(va, "wu", cpu=1)
    tlbs.access(va, "ru", cpu=1)
    assert mm.fault(va, "w") == "copied"
    tlbs.check()  # the fault dropped the old page
    assert tlbs.counts.calls["flush_cache_dup_mm"] == 1
    child.exit()


def test_huge_pages_are_shared_in_parts():
    computer = Computer()
    mm = computer.mm
    va = mm.mmap(4 << 20, addr=0x40000000, huge=True)
    assert mm.fault(va, "w") == "mapped huge"
    mm.table.ram.write(mm.table.translate(va + 0x5000).paddr, b"deep")
    child = mm.fork()
    assert child.rss == mm.rss == 2 << 20
    assert (child.fault(va + 0x5000, "w"), get(child, va + 0x5000)) == ("copied", b"deep")
    mm.exit()
    assert get(child, va + 0x5000) == b"deep"
    child.exit()
    assert free_frames(computer.machine) == computer.before


def test_streams_copy_in_order():
    computer = Computer()
    mm = computer.mm
    va = mm.mmap(1 << 20)
    where = va + np.arange(0, 1 << 20, 4096)
    mm.fault_stream(where, np.ones(256, bool))
    for n, at in enumerate(where.tolist()):
        put(mm, at, n.to_bytes(4, "little"))
    child = mm.fork()
    did = child.fault_stream(where, np.arange(256) % 2 == 0)
    assert set(did[::2].tolist()) == {4}
    assert set(did[1::2].tolist()) == {3}
    mm.exit()
    assert [int.from_bytes(get(child, at), "little") for at in where.tolist()] == [*range(256)]
    child.exit()
    assert free_frames(computer.machine) == computer.before


def test_a_fork_without_memory_leaves_no_child():
    computer = Computer(memory="16MiB")
    mm, machine = computer.mm, computer.machine
    va = mm.mmap(4 << 20)
    for at in range(0, 4 << 20, 4096):
        mm.fault(va + at, "w")
    held = []
    while True:
        try:
            held.append(machine.alloc_pages())
        except OutOfMemoryError:
            break
    for _ in range(5):
        machine.free_pages(held.pop())
    before = free_frames(machine)
    with pytest.raises(OutOfMemoryError):
        mm.fork()
    assert free_frames(machine) == before
    assert mm.fault(va, "w") == "present"
    assert not mm.kernel.frame_shares().any()


@pytest.mark.parametrize("name", ["x86_64", "arm64_16k_48", "riscv64_sv39"])
def test_random_families(name):
    """Forks, writes, unmapping and exits against dictionaries; nothing leaks."""
    computer = Computer(name)
    rnd, page = random.Random(name), computer.page
    va = computer.mm.mmap(16 * page)
    family = [(computer.mm, {})]
    for _ in range(400):
        mm, twin = rnd.choice(family)
        n, kind = rnd.randrange(16), rnd.random()
        if kind < 0.5 and n in twin:
            value = rnd.randbytes(4)
            put(mm, va + n * page, value)
            twin[n] = value
        elif kind < 0.8:
            if n not in twin and mm.find_vma(va + n * page):
                twin[n] = bytes(4)
            if n in twin:
                assert get(mm, va + n * page) == twin[n]
        elif kind < 0.85:
            mm.munmap(va + n * page, page)
            twin.pop(n, None)
        elif kind < 0.93 and len(family) < 6:
            family.append((mm.fork(), dict(twin)))
        elif len(family) > 1:
            family.remove((mm, twin))
            mm.exit()
    for mm, twin in family:
        for n, value in twin.items():
            assert get(mm, va + n * page) == value
        mm.exit()
    assert free_frames(computer.machine) == computer.before
    computer.machine.validate()
