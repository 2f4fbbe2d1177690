# SPDX-License-Identifier: GPL-2.0-or-later
"""Random operations against the dictionary twin; leaks of table pages."""

import random

import pytest
from tests.pgtable.fuzzing import Fuzz, free_frames

from physmem.lib.errors import AlreadyMappedError, OutOfMemoryError
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.source import Buddy
from physmem.pgtable.table import PageTable


@pytest.mark.pure
@pytest.mark.parametrize("name", page_table_formats())
def test_short_fuzz(name):
    fuzz = Fuzz(name, f"short {name}")
    fuzz.run(300)
    assert min(fuzz.counts.values()) > 5
    fuzz.finish()


@pytest.mark.soak
def test_fuzz_of_a_million_operations():
    names = page_table_formats()
    done = 0
    for name in names:
        fuzz = Fuzz(name, f"soak {name}")
        fuzz.run(1_000_000 // len(names) + 1)
        done += sum(fuzz.counts.values())
        fuzz.finish()
    assert done >= 1_000_000


@pytest.mark.pure
def test_out_of_memory_takes_nothing():
    machine = Machine.build("16MiB")
    table = PageTable(page_table_format("x86_64"), machine.ram, Buddy(machine._h))
    held = []
    while True:
        try:
            held.append(machine.alloc_pages())
        except OutOfMemoryError:
            break
    machine.free_pages(held.pop())
    machine.free_pages(held.pop())
    before = free_frames(machine), table.nr_tables
    with pytest.raises(OutOfMemoryError):
        table.map(0xFFFF888000000000, 0, 1 << 24, largest=4096)
    assert (free_frames(machine), table.nr_tables) == before
    assert list(table.leaves()) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", ["x86_64", "arm64_16k_48", "riscv64_sv57", "x86_32_pae"])
def test_a_million_ranges_leak_no_table(name):
    fmt = page_table_format(name)
    machine = Machine.build("256MiB")
    before = free_frames(machine)
    table = PageTable(fmt, machine.ram, Buddy(machine._h))
    rnd = random.Random(name)
    window = min(1 << (fmt.canonical_shift - 1), 1 << 44)
    live = []
    for _ in range(250_000):
        pages = rnd.choice((1, 1, 2, 5, 40))
        va = rnd.randrange(window >> fmt.page_shift) << fmt.page_shift
        size = pages << fmt.page_shift
        try:
            table.map(va, va & 0xFFFF_F000 >> 4 << 4 & -fmt.page_size, size)
        except AlreadyMappedError:
            continue
        live.append((va, size))
        if len(live) > 500:
            assert table.unmap(*live.pop(rnd.randrange(len(live)))) > 0
    for va, size in live:
        table.unmap(va, size)
    assert table.nr_tables == 1 + fmt.two_roots
    table.free()
    assert free_frames(machine) == before
