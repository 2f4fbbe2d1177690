# SPDX-License-Identifier: GPL-2.0-or-later
"""What architectures map at start-up, entered into memory: each table in its place, none left."""

from dataclasses import replace

import numpy as np
import pytest

from physmem.arch.descriptor import Generation
from physmem.arch.registry import ARCHS, ARCHS_BOOTMEM, arch_for
from physmem.arch.setup import Setup
from physmem.bootalloc.bootmem import Bootmem
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.hardware import Hardware
from physmem.lib.ram import Ram
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.kernel_layout import kernel_layout
from physmem.pgtable.kernel_map import write_kernel_map
from physmem.pgtable.table import PageTable

CASES = [(Generation.MEMBLOCK, name) for name in ARCHS]
CASES += [(Generation.BOOTMEM, name) for name in ARCHS_BOOTMEM]


def prepared(generation, name, memory, cmdline="", **hardware):
    """A start-up before its first stage, and the bytes of its machine."""
    old = generation is Generation.BOOTMEM
    setup = Setup(
        arch=arch_for(name, generation),
        hardware=replace(Hardware.of(memory=memory, arch=name), **hardware),
        cmdline=CommandLine.parse(cmdline),
        **({"bootmem": Bootmem()} if old else {"memblock": Memblock()}),
    )
    return setup, Ram(1 << 34)


def entered(setup, ram):
    """Run a start-up and enter its plan: the plan, and the page table of each address space."""
    plan = setup.run().direct_map
    arch = setup.arch
    fmt = page_table_format(arch.page_table, old_bits=arch.generation is Generation.BOOTMEM)
    count = write_kernel_map(fmt, ram, plan)
    return plan, {
        space: PageTable(fmt, ram, no_page, root=root, root_high=root, nr_tables=count)
        for space, root in plan.roots.items()
    }


def no_page(size, align):
    raise AssertionError((size, align))


def tables_in_use(tables):
    """Physical addresses of the tables below the top ones, from the entries themselves."""
    found = set()
    for table in tables.values():
        fmt = table.format
        level = [table.root]
        for position in range(len(fmt.levels) - 1):
            below = []
            for paddr in level:
                size = fmt.entry_bytes << fmt.levels[position].bits
                dtype = np.uint32 if fmt.entry_bytes == 4 else np.uint64
                entries = np.frombuffer(table.ram.read(paddr, size), dtype)
                below += [
                    fmt.table_address(int(entry))
                    for entry in np.unique(entries)
                    if entry and fmt.is_table(int(entry), position)
                ]
            found |= set(below)
            level = below
    return found


@pytest.mark.parametrize("memory", ["128MiB", "5GiB"])
@pytest.mark.parametrize(("generation", "name"), CASES)
def test_every_architecture_maps_what_it_planned(generation, name, memory):
    setup, ram = prepared(generation, name, memory)
    plan, tables = entered(setup, ram)
    planned = {paddr for taken in plan.tables for paddr in taken.addresses()}
    used = tables_in_use(tables)
    assert planned <= used
    own = tables_in_use({"kernel": tables["kernel"]})
    assert tables["kernel"].nr_tables == 1 + len(own)
    image = setup.image
    for paddr in used - planned:  # in the image, or right behind it by its entry code
        assert image.start <= paddr < image.end + (64 << 12)
    offset = setup.arch.layout.page_offset
    if not name.startswith(("x86", "i386")):
        offset -= setup.min_alloc_addr
    for piece in plan.pieces:
        for paddr in (piece.start, (piece.start + piece.end) // 2, piece.end - 1):
            walk = tables["kernel"].translate(offset + paddr, "r")
            assert (walk.paddr, walk.ok) == (paddr, True)
            assert walk.size <= piece.size
    for leaves in plan.leaves:
        walk = tables[leaves.space].translate(leaves.va)
        assert walk.paddr == leaves.paddr
        if walk.size == leaves.size:  # else a large page has taken its place
            assert walk.kernel[1] == ("-" if "RO" in leaves.prot else "w")


@pytest.mark.parametrize(("generation", "name"), CASES)
def test_entering_a_plan_again_gives_the_same_bytes(generation, name):
    setup, ram = prepared(generation, name, "128MiB")
    plan, tables = entered(setup, ram)
    again = Ram(ram.size)
    for start, end in ram.written():
        again.write(start, b"\xa5" * (end - start))  # tables are cleared first
    write_kernel_map(tables["kernel"].format, again, plan)
    used = {*tables_in_use(tables), *plan.roots.values()}
    for paddr in used:
        assert ram.read(paddr, setup.arch.page_size) == again.read(paddr, setup.arch.page_size)


def test_arm64_may_have_large_leaves():
    setup, ram = prepared(Generation.MEMBLOCK, "arm64", "4GiB", "rodata=off")
    _, tables = entered(setup, ram)
    table = tables["kernel"]
    sizes = {leaf.size for leaf in table.leaves(kernel_layout(table.format).page_offset)}
    assert sizes == {4096, 2 << 20, 1 << 30}


@pytest.mark.parametrize("name", ["i386", "i386-pae"])
def test_x86_32_without_large_pages_uses_the_tables_of_its_entry_code(name):
    for generation in Generation:
        setup, ram = prepared(generation, name, "512MiB", pse=False)
        plan, tables = entered(setup, ram)
        adopted = sum(taken.count for taken in plan.fixed)
        assert adopted or (generation is Generation.BOOTMEM and name == "i386-pae")
        assert tables["kernel"].nr_tables == 1 + plan.nr_tables() + adopted
        assert tables["kernel"].translate(0xC0123456).size == 4096


def test_the_identity_map_of_arm64_has_tables_of_its_own():
    setup, ram = prepared(Generation.MEMBLOCK, "arm64", "1GiB")
    plan, tables = entered(setup, ram)
    text = setup.image.start + (setup.image.code_kib << 10)
    assert tables["idmap"].translate(text, "x").paddr == text
    assert not tables["kernel"].translate(text).ok
    own = [taken.count for taken in plan.tables if taken.space == "idmap"]
    assert len(tables_in_use({"idmap": tables["idmap"]})) == sum(own) >= 3


def test_layouts_of_architectures_and_formats_agree():
    archs = [*ARCHS.values()]
    assert {arch.page_table for arch in archs} <= set(page_table_formats())
    for arch in archs:
        fmt = page_table_format(arch.page_table)
        ours, theirs = kernel_layout(fmt), arch.layout
        assert ours.page_offset == theirs.page_offset
        assert ours.vmemmap == theirs.vmemmap_start
        assert [level.shift for level in fmt.levels] == [
            level.shift for level in arch.levels if not level.folded
        ]
        if theirs.vmalloc_start and fmt.va_bits > 32:
            assert (ours.vmalloc_start, ours.vmalloc_end) == (
                theirs.vmalloc_start,
                theirs.vmalloc_end,
            )
