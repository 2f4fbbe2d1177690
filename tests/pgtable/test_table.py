# SPDX-License-Identifier: GPL-2.0-or-later
"""The generic layer: entries by name, folding, mistakes, splitting, boot-time maps."""

import numpy as np
import pytest

from physmem.arch.direct_map import DirectMap, TableTree, Target
from physmem.arch.registry import arch_for
from physmem.lib.errors import (
    AlreadyMappedError,
    BadMappingError,
    BadRequestError,
    CorruptStateError,
    MisalignedError,
    NotCanonicalError,
    OutOfMemoryError,
    TableInUseError,
)
from physmem.lib.ram import Ram
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.kernel_map import write_kernel_map
from physmem.pgtable.ranges import CONTINUE, WalkOps, apply_to_page_range, walk_page_range
from physmem.pgtable.source import Buddy, bump
from physmem.pgtable.table import PageTable

pytestmark = pytest.mark.pure
DIRECT = 0xFFFF888000000000
MIB, GIB = 1 << 20, 1 << 30


def make(name="x86_64", ram=1 << 26, **more):
    return PageTable(page_table_format(name), Ram(ram), bump(0x1000, 0x400000), **more)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0x1001, 0, 4096), MisalignedError),
        ((0x1000, 1, 4096), MisalignedError),
        ((0x1000, 0, 100), MisalignedError),
        ((0x1000, 0, 0), MisalignedError),
        ((1 << 47, 0, 4096), NotCanonicalError),
        (((1 << 47) - 4096, 0, 8192), NotCanonicalError),
        (((1 << 64) - 4096, 0, 8192), NotCanonicalError),
        ((1 << 64, 0, 4096), NotCanonicalError),
        ((0x1000, 1 << 52, 4096), BadRequestError),
        ((0x1000, -4096, 4096), BadRequestError),
        ((0x1000, 0, 4096, "PAGE_PINK"), BadRequestError),
    ],
)
def test_mistakes(arguments, error):
    table = make()
    with pytest.raises(error):
        table.map(*arguments)
    assert table.nr_tables == 1


def test_more_mistakes():
    table = make()
    with pytest.raises(MisalignedError, match="0x200000"):
        table.map(0x201000, 0x200000, 2 * MIB, page=2 * MIB)
    with pytest.raises(BadRequestError, match="page size 0x3000"):
        table.map(0, 0, 4096, page=0x3000)
    with pytest.raises(BadRequestError, match="protection 0"):
        table.protect(0, 4096, 0)
    table.map(0x5000, 0, 4096)
    with pytest.raises(AlreadyMappedError, match="0x5000"):
        table.map(0x3000, 0, 0x4000)
    assert [leaf.va for leaf in table.leaves()] == [0x5000]
    with pytest.raises(TableInUseError):
        table.free()
    table.unmap(0, 8 * MIB)
    table.free()
    with pytest.raises(TableInUseError, match="freed"):
        table.map(0, 0, 4096)
    assert table.translate(0).reason == "outside_ram"


def test_large_leaf_in_the_way():
    table = make()
    table.map(2 * MIB, 0, 2 * MIB)
    with pytest.raises(AlreadyMappedError):
        table.map(2 * MIB + 4096, 0, 4096)
    table.map(4 * MIB, 0, 4096)
    with pytest.raises(AlreadyMappedError):
        table.map(4 * MIB, 0, 2 * MIB, page=2 * MIB)


def test_boot_allocator_is_empty():
    table = PageTable(page_table_format("x86_64"), Ram(1 << 20), bump(0x1000, 0x3000))
    with pytest.raises(OutOfMemoryError):
        table.map(0, 0, 4096)


def test_corrupt_entry_is_noticed():
    table = make()
    table.map(0x1000, 0x2000, 4096)
    slot = table.pgd_offset(0x1000)
    table.set_entry(slot, 0x7FFF_FFFF_F063)
    walk = table.translate(0x1000)
    assert walk.reason == "outside_ram"
    with pytest.raises(CorruptStateError):
        table.map(0x2000, 0, 4096)
    table.set_entry(slot, 0x10E7)  # a large page where there can be none
    assert table.translate(0x1000).reason == "bad_entry"


def test_pse_36_cannot_be_split():
    table = make("x86_32")
    table.map(0x40000000, 0x1_0000_0000, 4 * MIB, page=4 * MIB)
    with pytest.raises(BadMappingError, match="too high"):
        table.unmap(0x40001000, 4096)


# -- generic names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", page_table_formats())
def test_walk_by_generic_names(name):
    table = make(name)
    page = table.format.page_size
    va = 0x40000000
    table.map(va, 5 * page, page, "PAGE_KERNEL_RO", largest=page)
    slot = table.pgd_offset(va)
    names = [slot.name]
    for _ in range(4):
        assert table.present(slot)
        assert not table.none(slot)
        assert not table.leaf(slot)
        if not table.is_folded(slot):
            assert not table.bad(slot)
        slot = table.offset(slot, va)
        names.append(slot.name)
    assert names == ["pgd", "p4d", "pud", "pmd", "pte"]
    entry = table.entry(slot)
    assert table.format.pte_pfn(entry) == 5
    assert table.leaf(slot)
    assert table.translate(va).steps[-1].slot == slot.paddr
    assert [step.name for step in table.translate(va).steps] == names


@pytest.mark.parametrize("name", page_table_formats())
def test_tables_by_hand(name):
    table = make(name)
    fmt = table.format
    before, va = table.nr_tables, 3 << fmt.page_shift
    slots = [table.pgd_offset(va)]
    for _ in range(4):
        slots.append(table.alloc(slots[-1], va))
    assert table.nr_tables - before == len(fmt.levels) - 1
    table.set_entry(slots[-1], fmt.mk_pte(7, fmt.prot("PAGE_KERNEL")))
    assert table.translate(va).paddr == 7 << fmt.page_shift
    parent = next(slot for slot in reversed(slots[:-1]) if not table.is_folded(slot))
    with pytest.raises(TableInUseError, match="still has entries"):
        table.free_table(parent)
    table.clear(slots[-1])
    for slot in reversed(slots[:-1]):
        if not table.is_folded(slot):
            table.free_table(slot)
        else:
            table.clear(slot)
            with pytest.raises(TableInUseError):
                table.free_table(slot)
    assert table.nr_tables == before


def test_bad_pointers():
    table = make()
    slot = table.pgd_offset(0)
    assert table.none(table.offset(slot, 0))
    assert table.is_folded(slot)
    p4d = table.offset(slot, 0)
    table.set_entry(p4d, 0x5063)
    assert not table.bad(p4d)
    table.set_entry(p4d, 0x5063 | 1 << 62)
    assert table.bad(p4d)


# -- splitting and groups --------------------------------------------------------------------------


@pytest.mark.parametrize("name", page_table_formats())
def test_a_part_of_a_large_leaf(name):
    table = make(name)
    fmt = table.format
    size = 1 << (fmt.levels[-2].shift)
    va = size
    table.map(va, 0, size, page=size)
    before = table.nr_tables
    assert table.protect(va + 8 * fmt.page_size, fmt.page_size, "PAGE_KERNEL_RO") == 1
    assert table.nr_tables == before + 1
    assert table.translate(va + 8 * fmt.page_size, "w").reason == "no_write"
    assert table.translate(va + 9 * fmt.page_size + 5, "w").paddr == 9 * fmt.page_size + 5
    kinds = [leaf.kernel[:2] for leaf in table.leaves()]
    assert kinds == ["rw", "r-", "rw"]


@pytest.mark.parametrize("name", ["arm64_4k_48", "arm64_16k_47", "arm64_64k_48", "riscv64_sv39"])
def test_contiguous_groups(name):
    table = make(name)
    fmt = table.format
    group = 1 << fmt.levels[-1].cont_shift
    page = fmt.page_size
    table.map(group - page, group - page, 2 * group + 2 * page, contiguous=True, largest=page)
    marks = [bool(leaf.flags & fmt.cont_bit) for leaf in table.leaves(merge="none")]
    assert marks == [False] + [True] * (2 * group // page) + [False]
    table.unmap(group + page, page)
    marks = [bool(leaf.flags & fmt.cont_bit) for leaf in table.leaves(merge="none")]
    assert sum(marks) == group // page
    for at in (group, group + 2 * page + 3, 2 * group + 5):
        assert table.translate(at).paddr == at
    assert table.protect(2 * group, group, "PAGE_KERNEL_RO") == group // page
    entry = table.translate(2 * group).steps[-1].entry
    assert entry & fmt.cont_bit


# -- sources of table pages ------------------------------------------------------------------------


def test_boot_pages_first_then_the_page_allocator():
    machine = Machine.build("64MiB")
    taken = []

    def boot(size, align):
        taken.append(machine.alloc_pages() << 12)
        assert (size, align) == (4096, 4096)
        return taken[-1]

    table = PageTable(page_table_format("x86_64"), machine.ram, boot)
    table.map(DIRECT, 0, 16 * MIB)
    assert table.nr_tables == len(taken) == 3
    machine.drain()
    free = machine.nr_free_pages
    table.use(Buddy(machine._h))
    table.map(0x1000, 0, 4096)
    machine.drain()
    assert machine.nr_free_pages == free - 3
    assert (table.nr_tables, len(taken)) == (6, 3)
    table.unmap(0x1000, 4096)
    machine.drain()
    assert machine.nr_free_pages == free
    assert table.nr_tables == 3


def test_tables_larger_than_frames():
    machine = Machine.build("64MiB")
    table = PageTable(page_table_format("arm64_64k_42"), machine.ram, Buddy(machine._h))
    assert table.root % 65536 == 0
    table.map(0, 0, 1 << 16)
    machine.drain()
    assert (1 << 14) - machine.nr_free_pages >= 3 * 16


# -- a starting kernel -----------------------------------------------------------------------------


def mapped(ram, pages, *pieces):
    """The tables of a direct map of pieces (start, end, sizes), entered one after the other."""
    made = DirectMap(roots={"kernel": 0x1000})
    free = iter(pages)
    arch = arch_for("x86_64")

    def take(level, va, count):
        del level, va
        return [(next(free), 1, 0, "memblock") for _ in range(count)]

    tree = TableTree(arch.levels, take, made)
    for start, end, sizes in pieces:
        tree.map(DIRECT + start, DIRECT + end, sizes or {4096}, Target(start))
    fmt = page_table_format("x86_64")
    count = write_kernel_map(fmt, ram, made)
    assert count == 1 + made.nr_tables()
    return PageTable(fmt, ram, bump(0, 0), root=0x1000, nr_tables=count)


def test_direct_map_of_a_small_machine():
    """1 GiB without 1G pages, as Linux 6.1 does it: one pud, one pmd and two pte pages."""
    small, large = set(), {2 * MIB}
    table = mapped(
        *(Ram(GIB), range(0x2000, 0x6000, 4096)),
        *((0, MIB, small), (0x3FC00000, 0x3FE00000, large), (0x20000000, 0x3FC00000, large)),
        *((MIB, 2 * MIB, small), (2 * MIB, 0x20000000, large), (0x3FE00000, 0x3FFE0000, small)),
    )
    assert table.nr_tables == 5
    found = [(leaf.va - DIRECT, leaf.end - DIRECT, leaf.size) for leaf in table.leaves()]
    assert found == [
        *((0, 2 * MIB, 4096), (2 * MIB, 0x3FE00000, 2 * MIB), (0x3FE00000, 0x3FFE0000, 4096))
    ]


def test_direct_map_of_a_large_machine():
    """8 GiB with 1G pages; the outermost leaf reaches beyond its piece and is met again."""
    small, large, largest = set(), {2 * MIB}, {2 * MIB, GIB}
    table = mapped(
        *(Ram(9 * GIB), range(0x2000, 0x20000, 4096)),
        *((0, MIB, small), (0x23FE00000, 0x240000000, largest)),
        *((0x220000000, 0x23FE00000, largest), (MIB, 2 * MIB, small), (2 * MIB, GIB, large)),
        *((GIB, 2 * GIB, largest), (2 * GIB, 0xBFE00000, large)),
        *((0xBFE00000, 0xBFFE0000, small), (4 * GIB, 0x220000000, largest)),
    )
    sizes = [(leaf.va - DIRECT, leaf.end - DIRECT, leaf.size) for leaf in table.leaves()]
    assert sizes == [
        *((0, 2 * MIB, 4096), (2 * MIB, GIB, 2 * MIB), (GIB, 2 * GIB, GIB)),
        *((2 * GIB, 0xBFE00000, 2 * MIB), (0xBFE00000, 0xBFFE0000, 4096)),
        (4 * GIB, 9 * GIB, GIB),
    ]


def test_small_pages_within_large_ones():
    """A table in the way is filled; a large page in the way is taken apart (its rest is lost)."""
    table = mapped(
        *(Ram(16 * MIB), range(0x2000, 0x20000, 4096)),
        *((0, MIB, set()), (0, 4 * MIB, {2 * MIB}), (8 * MIB, 8 * MIB + 4096, {2 * MIB})),
        (9 * MIB, 10 * MIB, set()),
    )
    found = [(leaf.va - DIRECT, leaf.end - DIRECT, leaf.size) for leaf in table.leaves()]
    assert found == [*((0, 2 * MIB, 4096), (2 * MIB, 4 * MIB, 2 * MIB), (9 * MIB, 10 * MIB, 4096))]


def test_many_translations_at_once():
    table = make()
    table.map(DIRECT, 0, 1 << 26, largest=4096)
    table.unmap(DIRECT + 0x5000, 4096)
    where = np.array([DIRECT + 0x1234, DIRECT + 0x5000, 0, 1 << 50, DIRECT + 0x6789], np.uint64)
    assert table.translate_many(where).tolist() == [0x1234, -1, -1, -1, 0x6789]


@pytest.mark.parametrize("name", page_table_formats())
def test_the_fast_translation_equals_the_full_one(name):
    from random import Random

    from tests.oracles.random_maps import Maps

    maps = Maps(name, Random(f"fast {name}"), 40)
    where = list(maps.queries(700))
    fast = maps.table.translate_many(np.array(where, np.uint64)).tolist()
    slow = [maps.table.translate(va).paddr for va in where]
    assert fast == [-1 if paddr is None else paddr for paddr in slow]


# -- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", page_table_formats())
def test_walking_a_range_meets_every_page(name):
    table = make(name)
    page = table.format.page_size
    base = 1 << table.format.levels[-2].shift
    table.map(base - 2 * page, 0x10 * page, 4 * page, largest=page)
    seen, holes = [], []
    ops = WalkOps(
        pte_entry=lambda slot, start, end: seen.append((start, end, table.none(slot))),
        pte_hole=lambda start, end, depth: holes.append((start, end, depth)),
    )
    assert walk_page_range(table, 0, 3 * base, ops) == 0
    assert [start for start, _, none in seen if not none] == [base + n * page for n in range(-2, 2)]
    assert all(end == start + page for start, end, _ in seen)
    assert holes[-1][:2] == (2 * base, 3 * base)
    assert len(seen) == 2 * base // page
    covered = sum(end - start for start, end, *_ in seen + holes)
    assert covered == 3 * base


def test_a_walk_stops_and_skips():
    table = make()
    table.map(0, 0, 8 * MIB, largest=4096)
    seen = []
    ops = WalkOps(pte_entry=lambda _slot, start, _end: 7 if start == 0x3000 else 0)
    assert walk_page_range(table, 0, MIB, ops) == 7
    ops = WalkOps(
        pmd_entry=lambda _slot, start, _end: CONTINUE if start < 4 * MIB else None,
        pte_entry=lambda _slot, start, _end: seen.append(start),
    )
    assert walk_page_range(table, 0, 8 * MIB, ops) == 0
    assert (seen[0], len(seen)) == (4 * MIB, 1024)
    with pytest.raises(MisalignedError):
        walk_page_range(table, 4096, 4096, ops)
    with pytest.raises(NotCanonicalError):
        walk_page_range(table, 0, 1 << 48, ops)


@pytest.mark.parametrize("name", page_table_formats())
def test_applying_to_a_range_makes_tables(name):
    table = make(name)
    fmt = table.format
    frames = iter(range(3, 100))
    va = (1 << fmt.levels[-2].shift) - fmt.page_size

    def enter(slot, addr):
        table.set_entry(slot, fmt.mk_pte(next(frames), fmt.prot("PAGE_KERNEL")))
        return 5 if addr == va + 2 * fmt.page_size else 0

    assert apply_to_page_range(table, va, 2 * fmt.page_size, enter) == 0
    assert apply_to_page_range(table, va + 2 * fmt.page_size, 4 * fmt.page_size, enter) == 5
    assert [table.translate(va + n * fmt.page_size).ok for n in range(4)] == [True] * 3 + [False]
    if fmt.levels[-2].leaf:
        table.unmap(va, 3 * fmt.page_size)
        size = 1 << fmt.levels[-2].shift
        table.map(0, 0, size, page=size)
        with pytest.raises(AlreadyMappedError):
            apply_to_page_range(table, 0, fmt.page_size, enter)
