# SPDX-License-Identifier: GPL-2.0-or-later
"""Who uses page tables: address spaces, vmalloc, ioremap, fixmap, kmap; and their TLBs."""

import numpy as np
import pytest
from tests.pgtable.fuzzing import free_frames

from physmem.lib.errors import (
    AlreadyMappedError,
    BadFreeError,
    BadRequestError,
    OutOfMemoryError,
    PageFaultError,
    StaleTlbError,
)
from physmem.lib.ram import Ram
from physmem.machine.machine import Machine
from physmem.pgtable.fixmap import AtomicKmap, Fixmap, Pkmap
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.mm import AddressSpace
from physmem.pgtable.source import Buddy, bump
from physmem.pgtable.table import PageTable
from physmem.pgtable.tlb import Tlbs
from physmem.pgtable.vmalloc import Vmalloc
from physmem.pgtable.vmap_area import VmList, VmTrees

pytestmark = pytest.mark.pure
START, END = 0xFFFFC90000000000, 0xFFFFE90000000000


class Computer:
    """A machine with a kernel's page table."""

    def __init__(self, name="x86_64", memory="64MiB", cpus=1):
        self.machine = Machine.build(memory, cpus=cpus)
        self.before = free_frames(self.machine)
        self.buddy = Buddy(self.machine._h)
        self.kernel = PageTable(page_table_format(name), self.machine.ram, self.buddy)
        self.tlbs = Tlbs(self.kernel, cpus)

    def mm(self):
        return AddressSpace(self.kernel, self.buddy, self.tlbs)


# -- address spaces --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", page_table_formats())
def test_a_process_in_every_format(name):
    computer = Computer(name)
    mm = computer.mm()
    page = mm.kernel.format.page_size
    before = free_frames(computer.machine)
    va = mm.mmap(20 * page)
    assert mm.fault(va + 3 * page + 1, "r") == "mapped"
    assert mm.fault(va + 3 * page + 2, "w") == "present"
    assert mm.fault(va, "w") == "mapped"
    walk = mm.table.translate(va + 3, "wu")
    assert walk.ok
    assert walk.user == "rw-" or name == "x86_32"
    mm.mprotect(va, page, "r--")
    assert mm.table.translate(va, "wu").reason == "no_write"
    with pytest.raises(PageFaultError) as caught:
        mm.fault(va, "w")
    assert caught.value.reason == "protection"
    mm.mprotect(va, page, "---")
    assert mm.table.translate(va, "ru").reason == "prot_none"
    with pytest.raises(PageFaultError):
        mm.fault(va, "r")
    mm.mprotect(va, page, "rw-")
    assert mm.fault(va, "w") == "present"
    assert mm.rss == 2 * page
    assert mm.munmap(va + 3 * page, page) == page
    with pytest.raises(PageFaultError) as caught:
        mm.fault(va + 3 * page)
    assert caught.value.reason == "no_area"
    assert [(v.start, v.end) for v in mm.vmas] == [
        (va, va + 3 * page),
        (va + 4 * page, va + 20 * page),
    ]
    mm.munmap(va, 20 * page)
    assert mm.table.nr_tables == 1
    assert free_frames(computer.machine) == before
    mm.exit()
    assert free_frames(computer.machine) == before + (page >> 12)


def test_huge_pages_split_and_go_back():
    computer = Computer()
    before = free_frames(computer.machine)
    mm = computer.mm()
    va = mm.mmap(8 << 20, addr=0x40000000, huge=True)
    assert mm.fault(va + 12345, "w") == "mapped huge"
    assert mm.fault(va + (2 << 20) - 1, "w") == "present"
    assert mm.table.translate(va).size == 2 << 20
    assert mm.munmap(va + 0x5000, 0x3000) == 0x3000
    assert mm.table.translate(va).size == 4096
    assert mm.rss == (2 << 20) - 0x3000
    small = mm.mmap(1 << 20, huge=True)
    assert mm.fault(small) == "mapped"
    mm.exit()
    assert free_frames(computer.machine) == before
    computer.machine.validate()


def test_fresh_memory_is_zero():
    computer = Computer(memory="16MiB")
    mm = computer.mm()
    paddr = mm.table.alloc_frames(gfp=0x100CCA)  # as a fault does
    computer.machine.ram.write(paddr, b"secret")
    mm.table.free_frames(paddr)
    seen = set()
    va = mm.mmap(1 << 20)
    for n in range(200):
        mm.fault(va + 4096 * n)
        found = mm.table.translate(va + 4096 * n).paddr
        seen.add(found)
        assert computer.machine.ram.read(found, 8) == bytes(8)
    assert paddr in seen


def test_faults_touch_no_host_memory():
    computer = Computer(memory="1GiB")
    mm = computer.mm()
    va = mm.mmap(64 << 20)
    mm.fault_stream(va + np.arange(0, 64 << 20, 4096), np.ones(16384, bool))
    assert mm.rss == 64 << 20
    touched = sum(end - start for start, end in computer.machine.ram.written())
    assert touched <= computer.machine.ram.size // 512 + (2 << 20)  # the tables only


def test_a_stream_clears_what_was_written():
    computer = Computer(memory="64MiB")
    mm = computer.mm()
    held = [mm.table.alloc_frames(gfp=0x100CCA) for _ in range(500)]
    for paddr in held[::2]:
        computer.machine.ram.write(paddr + 100, b"secret")
    for paddr in held:
        mm.table.free_frames(paddr)
    va = mm.mmap(4 << 20)
    assert (mm.fault_stream(va + np.arange(0, 4 << 20, 4096), np.ones(1024, bool)) == 1).all()
    frames = mm.table.translate_many(va + np.arange(0, 4 << 20, 4096))
    assert len(set(held) & set(frames.tolist())) > 200
    assert not any(computer.machine.ram.read(int(frame), 4096).strip(b"\0") for frame in frames)


def test_fault_stream():
    computer = Computer()
    mm = computer.mm()
    va = mm.mmap(1 << 20)
    mm.mmap(1 << 20, "r--", addr=0x10000000)
    rnd = np.random.default_rng(3)
    where = va + rnd.integers(0, 1 << 20, 2000)
    did = mm.fault_stream(where, rnd.random(2000) < 0.5)
    assert set(did.tolist()) == {1, 3}
    assert (did == 1).sum() == len(np.unique(where >> 12)) == mm.rss >> 12
    bad = mm.fault_stream(np.array([0x10000000, 0x10000000, 0x99000]), np.array([0, 1, 0]))
    assert bad.tolist() == [1, -21, -20]


def test_kernel_half_is_shared():
    computer = Computer()
    computer.kernel.map(0xFFFF888000000000, 0, 1 << 24)
    mm = computer.mm()
    assert mm.table.translate(0xFFFF888000123456).paddr == 0x123456
    assert not mm.table.translate(0xFFFF888000123456, "ru").ok
    computer.kernel.map(START, 0, 4096)
    assert not mm.table.translate(START).ok
    mm.sync_kernel()
    assert mm.table.translate(START).ok
    mm.exit()
    assert computer.kernel.translate(START).ok


def test_bad_areas():
    mm = Computer().mm()
    va = mm.mmap(8192)
    with pytest.raises(AlreadyMappedError):
        mm.mmap(4096, addr=va)
    with pytest.raises(BadRequestError, match="gaps"):
        mm.mprotect(va, 16384, "r--")
    with pytest.raises(BadRequestError, match="user space ends"):
        mm.mmap(4096, addr=1 << 47)
    with pytest.raises(BadRequestError, match="protection"):
        mm.mmap(4096, "-w-")


# -- translation buffers ---------------------------------------------------------------------------


def test_forgotten_flush_after_munmap_is_seen():
    computer = Computer(cpus=2)
    mm = computer.mm()
    computer.tlbs.switch(1, mm.table)
    va = mm.mmap(4096)
    mm.fault(va, "w")
    paddr = computer.tlbs.access(va, "wu", cpu=1)
    mm.munmap(va, 4096, flush=False)
    assert computer.tlbs.access(va, "wu", cpu=1) == paddr  # another's memory by now
    with pytest.raises(StaleTlbError, match="cpu 1"):
        computer.tlbs.check()
    computer.tlbs.flush_tlb_mm(mm.table)
    computer.tlbs.check()
    with pytest.raises(PageFaultError):
        computer.tlbs.access(va, "ru", cpu=1)


def test_forgotten_flush_after_mprotect_is_seen():
    computer = Computer()
    mm = computer.mm()
    computer.tlbs.switch(0, mm.table)
    va = mm.mmap(4096)
    mm.fault(va, "w")
    computer.tlbs.access(va, "wu")
    mm.mprotect(va, 4096, "r--", flush=False)
    computer.tlbs.access(va, "wu")
    with pytest.raises(StaleTlbError):
        computer.tlbs.check()
    computer.tlbs.flush_tlb_page(mm.table, va)
    with pytest.raises(PageFaultError) as caught:
        computer.tlbs.access(va, "wu")
    assert caught.value.reason == "no_write"


def test_flushed_properly_nothing_is_stale():
    computer = Computer(cpus=2)
    mm = computer.mm()
    for cpu in range(2):
        computer.tlbs.switch(cpu, mm.table)
    va = mm.mmap(40 * 4096)
    for n in range(40):
        mm.fault(va + n * 4096, "w")
        computer.tlbs.access(va + n * 4096, "wu", cpu=n % 2)
    mm.mprotect(va, 8192, "r--")
    mm.munmap(va + 4096, 36 * 4096)
    computer.tlbs.check()
    counts = computer.tlbs.counts
    assert (counts.page_flushes, counts.full_flushes) == (4, 2)
    assert counts.calls["flush_cache_range"] == 2
    assert counts.ipis == 2
    mm.exit()
    computer.tlbs.check()


def test_a_tlb_forgets_the_oldest():
    table = PageTable(page_table_format("x86_64"), Ram(1 << 22), bump(0x1000, 0x10000))
    table.map(0, 0, 1 << 22, largest=4096)
    tlbs = Tlbs(table, entries=4)
    for n in range(6):
        tlbs.access(n << 12)
    assert tlbs.counts.dropped == 2
    tlbs.access(5 << 12)
    assert (tlbs.counts.hits, tlbs.counts.misses) == (1, 6)


def test_hardware_managed_bits_of_arm64():
    computer = Computer("arm64_4k_48")
    fmt = computer.kernel.format
    clean = fmt.mk_pte(0, fmt.prot("PAGE_SHARED")) & ~fmt.young
    computer.kernel.map(0x1000, 0x5000, 4096, clean)
    with pytest.raises(PageFaultError) as caught:
        computer.tlbs.access(0x1000, "ru")
    assert caught.value.reason == "not_accessed"
    tlbs = Tlbs(computer.kernel, managed=True)
    assert tlbs.access(0x1008, "ru") == 0x5008
    entry = computer.kernel.translate(0x1000).steps[-1].entry
    assert entry == clean | fmt.young | 0x5000
    assert tlbs.access(0x1008, "wu") == 0x5008
    written = computer.kernel.translate(0x1000).steps[-1].entry
    assert written == entry & ~(1 << 7)
    assert fmt.pte_dirty(written)


def test_a_write_marks_the_page_dirty_through_a_tlb():
    computer = Computer()
    fmt = computer.kernel.format
    computer.kernel.map(0x1000, 0x5000, 4096, fmt.prot("PAGE_KERNEL") & ~(fmt.young | fmt.dirty))
    computer.tlbs.access(0x1000, "r")
    assert not fmt.pte_dirty(computer.kernel.translate(0x1000).steps[-1].entry)
    computer.tlbs.access(0x1000, "w")
    assert fmt.pte_dirty(computer.kernel.translate(0x1000).steps[-1].entry)
    computer.tlbs.access(0x1000, "w")
    assert computer.tlbs.counts.hits == 1


# -- vmalloc ---------------------------------------------------------------------------------------


def test_addresses_of_2_6_24():
    areas = VmList(0xF8800000, 0xFF7FE000)
    first = areas.get(4096)
    second = areas.get(10000)
    got = [first, second, areas.get(4096, ioremap=True), areas.get(5000, ioremap=True)]
    got.append(areas.get(100))
    assert [area.addr for area in got] == [
        *(0xF8800000, 0xF8802000, 0xF8806000, 0xF8808000, 0xF880B000)
    ]
    areas.put(second)
    assert [areas.get(4096).addr for _ in range(2)] == [0xF8802000, 0xF8804000]


def test_the_list_checks_its_end_after_an_area_only():
    assert VmList(0, 1 << 16).get(1 << 20).addr == 0
    areas = VmList(0, 1 << 16)
    areas.get(4096)
    with pytest.raises(OutOfMemoryError):
        areas.get(1 << 20)


def test_addresses_of_6_1():
    areas = VmTrees(START, END, most_align=30)
    first, second = areas.get(4096), areas.get(10000)
    assert (first.addr, second.addr) == (START, START + 0x2000)
    areas.put(first)
    assert areas.get(4096).addr == START + 0x6000  # not free before the purge
    assert [area.addr for area in areas.purge()] == [START]
    assert areas.get(4096).addr == START
    assert areas.get(1 << 20, ioremap=True).addr == START + (1 << 20)
    assert areas.get(4096, align=8192).addr == START + 0x8000
    with pytest.raises(OutOfMemoryError):
        areas.get(1 << 46)


def test_vmalloc_gives_everything_back():
    computer = Computer()
    vm = Vmalloc(computer.kernel, VmTrees(START, END), computer.tlbs)
    tables = computer.kernel.nr_tables
    before = free_frames(computer.machine)
    got = [vm.vmalloc(5000 * n + 1) for n in range(20)]
    assert computer.kernel.translate(got[3], "w").ok
    assert computer.kernel.translate(got[3] + 16384).reason == "not_present"  # the guard page
    for va in got:
        vm.vfree(va)
    added = computer.kernel.nr_tables - tables
    assert added == 3
    assert free_frames(computer.machine) == before - added
    with pytest.raises(BadFreeError):
        vm.vfree(got[0])
    assert vm.purge() == 20
    computer.tlbs.check()


def test_vmalloc_without_memory_holds_nothing():
    computer = Computer(memory="16MiB")
    vm = Vmalloc(computer.kernel, VmTrees(START, END))
    before = free_frames(computer.machine)
    with pytest.raises(OutOfMemoryError):
        vm.vmalloc(1 << 28)
    assert free_frames(computer.machine) == before
    assert vm.areas.areas == []


def test_vmap_and_ioremap():
    computer = Computer()
    vm = Vmalloc(computer.kernel, VmList(START, END), computer.tlbs)
    frames = [computer.kernel.alloc_frames() for _ in range(3)]
    va = vm.vmap([frames[2], frames[0], frames[1]])
    assert [computer.kernel.translate(va + n * 4096).paddr for n in range(3)] == [
        *(frames[2], frames[0], frames[1])
    ]
    io = vm.ioremap(0xFEC00010, 0x20)
    assert computer.kernel.translate(io).paddr == 0xFEC00010
    assert computer.kernel.translate(io).steps[-1].entry & 0x18 == 0x18
    computer.tlbs.access(va)
    vm.vunmap(va, flush=False)
    with pytest.raises(StaleTlbError):
        computer.tlbs.check()
    computer.tlbs.flush_tlb_kernel_range(va, va + 4096)
    vm.iounmap(io)
    with pytest.raises(BadFreeError):
        vm.vunmap(va)


# -- fixmap and kmap -------------------------------------------------------------------------------


def small():
    return PageTable(page_table_format("x86_32"), Ram(1 << 20), bump(0x1000, 0x20000))


def test_fixmap():
    table = small()
    fixmap = Fixmap(table, 0xFFFFF000, 32, Tlbs(table))
    assert fixmap.virt(1) == 0xFFFFE000
    assert fixmap.slot(0xFFFFE123) == 1
    fixmap.set(1, 0x5000)
    fixmap.set(1, 0x6000)
    assert table.translate(0xFFFFE004).paddr == 0x6004
    fixmap.clear(1)
    assert not table.translate(0xFFFFE004).ok
    with pytest.raises(BadRequestError):
        fixmap.virt(32)


def test_atomic_kmap():
    kmap = AtomicKmap(Fixmap(small(), 0xFFFFF000, 64), 10, 13, 0xC0000000, 896 << 20)
    assert kmap.map(0x1000) == 0xC0001000
    va = kmap.map(0x40000000, use=2, cpu=1)
    assert va == 0xFFFFF000 - (10 + 2 + 13) * 4096
    with pytest.raises(AlreadyMappedError):
        kmap.map(0x40001000, use=2, cpu=1)
    kmap.unmap(va, use=2, cpu=1)
    assert kmap.map(0x40001000, use=2, cpu=1) == va


def test_pkmap_goes_round():
    table = small()
    tlbs = Tlbs(table)
    pkmap = Pkmap(table, 0xFF800000, 8, 0xC0000000, 896 << 20, tlbs)
    high = [0x40000000 + n * 4096 for n in range(20)]
    assert [pkmap.kmap(p) - 0xFF800000 >> 12 for p in high[:7]] == [1, 2, 3, 4, 5, 6, 7]
    assert pkmap.kmap(high[0]) == 0xFF801000
    assert pkmap.kmap(high[7]) == 0xFF800000
    with pytest.raises(OutOfMemoryError):
        pkmap.kmap(high[8])
    pkmap.kunmap(high[2])
    assert table.translate(0xFF803000).ok  # stays until the windows come round
    assert pkmap.kmap(high[8]) == 0xFF803000
    assert pkmap.counts == [2, 3, 2, 2, 2, 2, 2, 2]
    with pytest.raises(BadFreeError):
        pkmap.kunmap(high[2])
    assert tlbs.counts.calls["flush_tlb_kernel_range"] >= 2
