# SPDX-License-Identifier: GPL-2.0-or-later
"""What architectures map at start-up, entered into memory: each table in its place, none left."""

from dataclasses import replace

import numpy as np
import pytest

from physmem.arch.descriptor import Generation
from physmem.arch.direct_map import MapPiece, TablePages
from physmem.arch.registry import ARCHS, ARCHS_BOOTMEM, arch_for
from physmem.arch.setup import Setup
from physmem.bootalloc.bootmem import Bootmem
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadRequestError, OutOfMemoryError
from physmem.lib.ram import Ram
from physmem.pgtable.boot import DirectMapWriter
from physmem.pgtable.formats import page_table_format, page_table_formats
from physmem.pgtable.kernel_layout import kernel_layout

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


def tables_in_use(writer):
    """Physical addresses of the tables below the top ones, from the entries themselves."""
    found = set()
    for table in writer._spaces.values():
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
    writer = DirectMapWriter.for_setup(setup, ram)
    setup.direct_map.observer = writer
    plan = setup.run().direct_map
    assert writer.unused == 0
    planned = {paddr for tables in plan.tables for paddr in tables.addresses()}
    used = tables_in_use(writer)
    assert planned <= used
    assert writer.nr_tables == len(used)
    image = setup.image
    for paddr in used - planned:  # in the image, or right behind it by its entry code
        assert image.start <= paddr < image.end + (64 << 12)
    for piece in plan.pieces:
        for paddr in (piece.start, (piece.start + piece.end) // 2, piece.end - 1):
            walk = writer.table.translate(plan.offset + paddr, "w")
            assert (walk.paddr, walk.ok) == (paddr, True)
            assert walk.size <= piece.size
    for piece in plan.others:
        if piece.size and piece.space == "kernel":
            walk = writer.table.translate(piece.va, "r")
            assert (walk.paddr, walk.kernel[1]) == (piece.start, "-" if "RO" in piece.prot else "w")


@pytest.mark.parametrize(("generation", "name"), CASES)
def test_replaying_a_plan_gives_the_same_bytes(generation, name):
    setup, ram = prepared(generation, name, "128MiB")
    writer = DirectMapWriter.for_setup(setup, ram)
    setup.direct_map.observer = writer
    plan = setup.run().direct_map
    again = Ram(ram.size)
    plan.observer = None
    DirectMapWriter.for_setup(setup, again).replay(plan)
    written = list(ram.written())
    assert written == list(again.written())
    assert all(ram.read(a, b - a) == again.read(a, b - a) for a, b in written)


def test_arm64_may_have_large_leaves():
    setup, ram = prepared(Generation.MEMBLOCK, "arm64", "4GiB", "rodata=off")
    writer = DirectMapWriter.for_setup(setup, ram)
    writer.replay(setup.run().direct_map)
    sizes = {
        leaf.size for leaf in writer.table.leaves(kernel_layout(writer.table.format).page_offset)
    }
    assert sizes == {4096, 2 << 20, 1 << 30}
    assert writer.unused == 0


@pytest.mark.parametrize("name", ["i386", "i386-pae"])
def test_x86_32_without_large_pages_uses_the_tables_of_its_entry_code(name):
    for generation in Generation:
        setup, ram = prepared(generation, name, "512MiB", pse=False)
        writer = DirectMapWriter.for_setup(setup, ram)
        plan = setup.run().direct_map
        writer.replay(plan)
        adopted = sum(tables.count for tables in plan.adopted)
        assert adopted or (generation is Generation.BOOTMEM and name == "i386-pae")
        assert writer.unused == 0
        assert writer.nr_tables == plan.nr_tables() + adopted
        assert writer.table.translate(0xC0123456).size == 4096


def test_kernel_images_are_mapped_apart_from_the_direct_map():
    for name in ("x86_64", "arm64", "riscv64"):
        setup, ram = prepared(Generation.MEMBLOCK, name, "1GiB")
        writer = DirectMapWriter.for_setup(setup, ram)
        writer.replay(setup.run().direct_map)
        piece = next(p for p in setup.direct_map.others if p.space == "kernel")
        walk = writer.table.translate(piece.va, "x")
        assert (walk.ok, walk.paddr) == (True, piece.start)
        assert not writer.table.translate(setup.direct_map.offset + piece.start, "x").ok


def test_the_identity_map_of_arm64_has_tables_of_its_own():
    setup, ram = prepared(Generation.MEMBLOCK, "arm64", "1GiB")
    writer = DirectMapWriter.for_setup(setup, ram)
    writer.replay(setup.run().direct_map)
    text = setup.image.start + (setup.image.code_kib << 10)
    assert writer.idmap().translate(text, "x").paddr == text
    assert not writer.table.translate(text).ok
    own = [tables.count for tables in setup.direct_map.tables if tables.space == "idmap"]
    assert writer.idmap().nr_tables == sum(own) >= 3


def test_too_few_tables_are_told():
    writer = DirectMapWriter(
        page_table_format("x86_64"), Ram(1 << 30), 0xFFFF888000000000, root=0x1000
    )
    writer.on_tables(TablePages("pud", 0, 0x2000, 1, 0, "brk"))
    with pytest.raises(OutOfMemoryError, match="was given"):
        writer.on_piece(MapPiece(0, 1 << 21, 1 << 21))
    with pytest.raises(BadRequestError, match="more than there can be"):
        writer.give(range(0, 1 << 31, 4096))


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
