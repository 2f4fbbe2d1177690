# SPDX-License-Identifier: GPL-2.0-or-later
"""free_pgd_range: tables go only where no neighbour needs them. Huge vmalloc; counts of tables."""

import random
from itertools import pairwise

import pytest
from tests.pgtable.fuzzing import free_frames

from physmem.lib.errors import OutOfMemoryError, TableInUseError
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.free_range import free_pgd_range
from physmem.pgtable.kernel_layout import kernel_layout
from physmem.pgtable.source import Buddy
from physmem.pgtable.table import PageTable
from physmem.pgtable.vmalloc import Vmalloc
from physmem.pgtable.vmap_area import VmList, VmTrees

pytestmark = pytest.mark.pure


def made(name, memory="64MiB"):
    machine = Machine.build(memory)
    table = PageTable(page_table_format(name), machine.ram, Buddy(machine._h), kernel=False)
    return machine, table


@pytest.mark.parametrize("name", page_table_formats())
def test_areas_are_torn_down_one_by_one(name):
    """As exit_mmap() does it: floor is the end of the area before, ceiling the next start."""
    machine, table = made(name)
    fmt = table.format
    page, rnd = fmt.page_size, random.Random(name)
    top = min(1 << fmt.canonical_shift, 1 << 47)
    spread = [1 << rnd.randrange(fmt.page_shift + 4, top.bit_length() - 1) for _ in range(12)]
    starts = sorted({at // page * page + page for at in spread})
    areas = [(at, min(at + 3 * page, behind)) for at, behind in pairwise([*starts, top])]
    for start, end in areas:
        table.map(start, 0, end - start, "PAGE_SHARED", largest=page)
    for start, end in areas:
        table.unmap(start, end - start, keep_tables=True)
    order = list(range(len(areas)))
    left = list(areas)
    while order:
        n = order.pop(rnd.randrange(len(order)))
        area = areas[n]
        at = left.index(area)
        floor = left[at - 1][1] if at else 0
        ceiling = left[at + 1][0] if at + 1 < len(left) else 0
        free_pgd_range(table, *area, floor, ceiling)
        left.pop(at)
        for start, _ in left:  # what the others need is still there
            real = [step for step in table.translate(start).steps if not step.folded]
            assert len(real) == len(fmt.levels)
    assert table.nr_tables == 1 + fmt.two_roots
    table.free()
    machine.validate()


def test_borders():
    machine, table = made("x86_64")
    table.map(0x400000, 0, 4096, "PAGE_SHARED")
    with pytest.raises(TableInUseError):
        free_pgd_range(table, 0x400000, 0x401000)
    table.unmap(0x400000, 4096, keep_tables=True)
    assert free_pgd_range(table, 0x400000, 0x401000, 0x3FF000) == 1  # only the pte table
    assert free_pgd_range(table, 0x400000, 0x401000, 0x401000) == 0
    assert free_pgd_range(table, 0x400000, 0x401000, 0, 1 << 20) == 0
    assert free_pgd_range(table, 0x400000, 0x401000, 0, 1 << 30) == 1
    assert free_pgd_range(table, 0x400000, 0x401000) == 1
    table.map(0x200000, 0, 2 << 20, "PAGE_SHARED")
    with pytest.raises(TableInUseError, match="unmap it first"):
        free_pgd_range(table, 0x200000, 0x400000)
    assert machine


@pytest.mark.parametrize("name", ["x86_64", "arm64_4k_48"])
def test_vmalloc_huge(name):
    machine, table = made(name)
    layout = kernel_layout(table.format)
    vm = Vmalloc(table, VmTrees(layout.vmalloc_start, layout.vmalloc_end))
    before = free_frames(machine) + table.nr_tables
    va = vm.vmalloc_huge(3 << 20)
    assert va % (2 << 20) == 0
    assert {table.translate(va + n).size for n in (0, (4 << 20) - 1)} == {2 << 20}
    assert not table.translate(va + (4 << 20)).ok  # the guard page
    small = vm.vmalloc_huge(1 << 20)
    assert table.translate(small).size == 4096
    assert table.translate(vm.vmalloc_huge(4 << 20, nr_nodes=4)).size == 4096
    for area in list(vm.areas.areas):
        vm.vfree(area.addr)
    assert free_frames(machine) + table.nr_tables == before
    machine.validate()


def exhaust(table):
    """All frames that there are."""
    held = []
    while True:
        try:
            held.append(table.alloc_frames())
        except OutOfMemoryError:
            return held


def test_vmalloc_huge_falls_back():
    machine, table = made("x86_64", "16MiB")
    held = exhaust(table)
    for paddr in held:  # no large block is free, small pages are
        if paddr >> 12 & 7:
            table.free_frames(paddr)
    vm = Vmalloc(table, VmTrees(0xFFFFC90000000000, 0xFFFFE90000000000))
    assert table.translate(vm.vmalloc_huge(2 << 20)).size == 4096
    old = Vmalloc(table, VmList(0xFFFFC20000000000, 0xFFFFE20000000000))
    assert table.translate(old.vmalloc_huge(2 << 20)).size == 4096
    assert machine


@pytest.mark.parametrize("name", page_table_formats())
def test_tables_are_counted_by_level(name):
    machine = Machine.build("64MiB")
    machine.map_memory(name)
    mm = machine.new_process()
    page = mm.kernel.format.page_size
    va = mm.mmap(4 * page)
    mm.fault(va, "w")
    levels = mm.table.tables_by_level()
    real = {level.name for level in mm.table.format.levels}
    assert {level for level, count in levels.items() if count} == real
    pmd = 1 if "pmd" in real else 0
    assert machine.nr_page_table_pages() == (1 + pmd) * (page >> 12)
    child = mm.fork()
    assert machine.nr_page_table_pages() == 2 * (1 + pmd) * (page >> 12)
    child.exit()
    mm.munmap(va, 4 * page)
    assert machine.nr_page_table_pages() == 0


@pytest.mark.parametrize("name", page_table_formats())
def test_leaves_as_the_kernel_chooses_them(name):
    machine = Machine.build("64MiB")
    table = machine.map_memory(name, as_kernel=True)
    sizes = {leaf.size for leaf in table.leaves()}
    offset = kernel_layout(table.format).page_offset
    assert table.translate(offset + (64 << 20) - 1, "w").paddr == (64 << 20) - 1
    page = table.format.page_size
    huge = 1 << table.format.levels[-2].shift
    want = {page} if name.startswith("arm64") else {huge} if "riscv" in name else {page, huge}
    assert sizes == want
