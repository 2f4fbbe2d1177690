# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct maps: worked examples, what real kernels logged, and random memory against a twin."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from physmem.arch.descriptor import Generation, Limits
from physmem.arch.direct_map import MapPiece, Slots
from physmem.arch.registry import ARCHS, ARCHS_BOOTMEM, arch_for
from physmem.arch.setup import Setup
from physmem.arch.x86_direct_map import InitMemMapping, split_mem_range, widen
from physmem.arch.x86_direct_map_bootmem import (
    find_early_table_space,
    init_memory_mapping,
    init_pg_tables_end,
)
from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import E820Entry, E820Type
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BootAllocError

K, M, G = 1 << 10, 1 << 20, 1 << 30
BUF = (0x3801000, 0x3811000)


def yes(*_):
    return True


def no(*_):
    return False


def mapped(ram, *, arch="x86_64", buf=BUF, cmdline="", **hardware):
    """Run init_mem_mapping() over the given memory; all of it is free."""
    memblock = Memblock(MemblockConfig(phys_addr_bits=64))
    for start, end in ram:
        memblock.add(start, end - start)
    end = ram[-1][1] >> 12
    setup = Setup(
        arch=arch_for(arch),
        hardware=Hardware(arch=arch, **hardware),
        memblock=memblock,
        cmdline=CommandLine.parse(cmdline),
        limits=Limits(max_low_pfn=end, max_pfn=end),
    )
    setup.scratch["initial_mapped"] = 0x2400000
    InitMemMapping(setup, buf).run()
    return setup.direct_map


def pieces(made):
    names = {4 * K: "4K", 2 * M: "2M", 4 * M: "4M", G: "1G"}
    return [(piece.start, piece.end, names[piece.size]) for piece in made.pieces]


def test_1_gib_without_gigabyte_pages():
    made = mapped([(0x1000, 0x9F000), (M, 0x3FFE0000)], huge_1g=False)
    assert pieces(made) == [
        (0, M, "4K"),
        (0x3FC00000, 0x3FE00000, "2M"),
        (0x20000000, 0x3FC00000, "2M"),
        (M, 2 * M, "4K"),
        (2 * M, 512 * M, "2M"),
        (0x3FE00000, 0x3FFE0000, "4K"),
    ]
    assert [made.nr_tables(level) for level in ("pud", "pmd", "pte")] == [1, 1, 2]
    assert {tables.source for tables in made.tables} == {"brk"}
    assert [tables.paddr for tables in made.tables] == [0x3801000 + 4096 * i for i in range(4)]


def test_8_gib_with_gigabyte_pages():
    made = mapped([(M, 0xBFFE0000), (4 * G, 9 * G)])
    assert pieces(made) == [
        (0, M, "4K"),
        (0x23FE00000, 0x240000000, "1G"),
        (0x220000000, 0x23FE00000, "1G"),
        (M, 2 * M, "4K"),
        (2 * M, G, "2M"),
        (G, 2 * G, "1G"),
        (2 * G, 0xBFE00000, "2M"),
        (0xBFE00000, 0xBFFE0000, "4K"),
        (4 * G, 0x220000000, "1G"),
    ]


def test_options_that_forbid_large_pages():
    ram = [(0x1000, 0x9F000), (M, 64 * M)]
    for cmdline in ("nogbpages", ""):
        made = mapped(ram, cmdline=cmdline)
        assert "2M" in {size for *_, size in pieces(made)}
    for cmdline, hardware in (("debug_pagealloc=on", {}), ("", {"pse": False})):
        made = mapped(ram, cmdline=cmdline, **hardware)
        assert {size for *_, size in pieces(made)} == {"4K"}
        assert made.nr_tables("pte") == 32


def test_tables_come_from_memblock_when_the_buffer_is_used_up():
    made = mapped([(0x1000, 0x9F000), (M, 64 * M)], cmdline="debug_pagealloc=on", buf=(0, 0x6000))
    sources = [tables.source for tables in made.tables]
    assert sources.count("brk") == 6
    assert sources.count("memblock") == 28
    # each lies in what was mapped before
    at = [tables.paddr for tables in made.tables if tables.source == "memblock"]
    assert all(paddr >= 60 * M for paddr in at[:1])


def test_no_room_for_tables_is_a_panic():
    with pytest.raises(BootAllocError, match="can not alloc memory"):
        mapped([(0x1000, 0x9F000), (M, 64 * M)], pse=False, buf=(0, 0))


def test_bottom_up_starts_behind_the_kernel():
    memblock = Memblock()
    memblock.add(M, G - M)
    memblock.set_bottom_up(enable=True)
    machine = Hardware.of(memory="1GiB")
    setup = Setup(
        arch=arch_for("x86_64"),
        hardware=machine,
        memblock=memblock,
        limits=Limits(max_low_pfn=G >> 12, max_pfn=G >> 12),
    )
    InitMemMapping(setup, BUF).run()
    made = setup.direct_map
    assert made.pieces[1].start == 0x3811000
    assert made.is_mapped(M, G)


def test_the_32_bit_kernel_maps_the_first_large_page_small():
    found = split_mem_range(0, 16 * M, (4 * M,), wide=False)
    assert found == [(0, 4 * M, 0), (4 * M, 16 * M, 1)]
    assert split_mem_range(0, 16 * M, (2 * M, G)) == [(0, 16 * M, 1)]
    # the entry code's tables are there already
    made = mapped([(0x1000, 0x9F000), (M, 512 * M)], arch="i386")
    assert made.nr_tables() == 0


def test_large_pages_reach_over_a_piece_only_inside_memory():
    whole = [(2 * M + 4096, 4 * M - 4096, 0)]
    assert widen(whole, (2 * M, G), lambda _, size: size == 2 * M)[0][2] == 1
    assert widen(whole, (2 * M, G), yes)[0][2] == 3
    assert widen(whole, (2 * M,), yes, low_end=3 * M)[0][2] == 0


def test_splitting_follows_the_twin():
    rng = random.Random(5)
    for _ in range(120):
        start = rng.randrange(3 * G // (512 * K)) * 512 * K
        end = start + rng.randrange(1, 2 * G // (512 * K)) * 512 * K
        sizes = (2 * M, G) if rng.random() < 0.5 else (2 * M,)
        found = widen(split_mem_range(start, end, sizes), sizes, no)
        wanted = coarse_twin(start, end, sizes[-1])
        assert [(a, b, (4 * K, 2 * M, 2 * M, G)[mask]) for a, b, mask in found] == wanted


def coarse_twin(start, end, largest):
    """Largest page size at each 512 KiB, as runs: all borders here are multiples of that."""
    found = []
    step = 512 * K
    for page in range(start, end, step):
        size = 4 * K
        for larger in (2 * M, G):
            low = page // larger * larger
            if larger <= largest and start <= low and low + larger <= end:
                size = larger
        if found and found[-1][2] == size:
            found[-1] = (found[-1][0], page + step, size)
        else:
            found.append((page, page + step, size))
    return found


def test_every_byte_of_random_memory_is_mapped_once():
    rng = random.Random(11)
    for _ in range(60):
        ram, at = [(0x1000, 0x9F000)], M
        for _ in range(rng.randrange(1, 6)):
            at += rng.choice([0, 4 * K, 3 * M, 700 * M])
            size = rng.choice([4 * K, 2 * M, 17 * M, 2 * G]) * rng.randrange(1, 4)
            ram.append((at, at + size))
            at += size + 4 * K
        made = mapped(ram, huge_1g=rng.random() < 0.5, buf=(0, 64 * 4 * K))
        found = sorted((piece.start, piece.end) for piece in made.pieces)
        assert all(a[1] <= b[0] for a, b in pairwise(found))
        assert all(made.is_mapped(start, end) for start, end in ram)
        covered = sum(end - start for start, end in found)
        assert covered == sum(end - start for start, end in ram) + M - (0x9F000 - 0x1000)
        for piece in made.pieces:
            low = piece.start // piece.size * piece.size
            high = -(-piece.end // piece.size) * piece.size
            # no large page over anything but memory (the first MiB has small ones)
            inside = any(start <= low and high <= end for start, end in joined(ram))
            assert inside or piece.end <= M


def joined(ram):
    out = []
    for start, end in sorted(ram):
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


# -- 2.6.24 --


def old_table(*ranges):
    table = E820Bootmem(wide=True)
    for start, end, kind in ranges:
        table.append(start, end - start, kind)
    return table


def test_tables_of_2_6_24_lie_in_one_block():
    table = old_table((0, 0x9FC00, 1), (M, 0x7FF70000, 1))
    made, used = init_memory_mapping(table, 0x7FF70000, 0xFFFF810000000000)
    assert used == (0x8000, 0xB000)
    assert [tables.level for tables in made.tables] == ["pud", "pmd", "pmd"]
    assert table.log == ["kernel direct mapping tables up to 7ff70000 @ 8000-b000"]
    assert {piece.size for piece in made.pieces} == {2 * M}


def test_gigabytes_without_any_firmware_entry_stay_empty():
    table = old_table((0, 0x9FC00, 1), (M, G, 1), (4 * G - 64 * K, 4 * G, 2), (4 * G, 5 * G, 1))
    made, used = init_memory_mapping(table, 5 * G, 0xFFFF810000000000)
    assert [piece.start // G for piece in made.pieces] == [0, 3, 4]
    # room for five gigabytes was found, four pages of it are used
    assert used == (0x8000, 0xC000)


def test_no_room_for_the_old_tables_is_a_panic():
    with pytest.raises(BootAllocError, match="Cannot find space for the kernel page tables"):
        find_early_table_space(old_table((0, 0x9000, 1)), 64 * G)


def test_entry_tables_of_32_bits():
    # 128 KiB + 1028 pages behind the tables, in steps of 4 MiB
    assert init_pg_tables_end(0x41A000, pae=False) == (0x41D000, 0xC00000)
    assert init_pg_tables_end(0x41A000, pae=True) == (0x41E000, 0x1000000)


@pytest.mark.parametrize("name", ["i386", "i386-pae"])
@pytest.mark.parametrize("pse", [True, False])
def test_32_bit_maps_of_2_6_24(name, pse):
    arch = arch_for(name, Generation.BOOTMEM)
    machine = replace(Hardware.of(memory="64MiB", arch=name), image=arch.image, pse=pse)
    bootmem = Bootmem(BootmemConfig(bits_per_long=32, smp_cache_bytes=32))
    setup = Setup(arch=arch, hardware=machine, bootmem=bootmem).run()
    made = setup.direct_map
    size = arch.levels[-2].size if pse else 4 * K
    assert made.pieces == [MapPiece(0, (64 * M - 0x26000), 1 << arch.huge_shift if pse else 4 * K)]
    assert size <= made.pieces[0].size
    # fixmap and pkmap have a table each; with PAE also one directory, and all tables anew
    pae = name == "i386-pae"
    assert made.nr_tables("pmd") == int(pae)
    low = 0 if pse else (32 if pae else 16 - 3)
    assert made.nr_tables("pte") == 2 + low
    assert {tables.source for tables in made.tables} == {"bootmem"}


# -- arm64, riscv --


def run(arch, memory, **changes):
    log = []
    memblock = Memblock(on_call=log.append)
    machine = replace(Hardware.of(memory=memory, arch=arch), **changes)
    return Setup(arch=arch_for(arch), hardware=machine, memblock=memblock).run(), log


def test_arm64_maps_pages_as_recorded():
    """257 tables for 512 MiB, down from the end of memory; then 20 KiB back, then 4 more."""
    setup, log = run("arm64", "512MiB")
    calls = [call for call in log if call.caller.endswith(("alloc", "paging_init"))]
    kinds = [call.kind for call in calls]
    assert kinds.index("memblock_phys_free") == 257
    assert (calls[257].base, calls[257].size) == (0x41C8D000, 0x5000)
    assert len(calls) == 262
    made = setup.direct_map
    addresses = [paddr for tables in made.tables for paddr in tables.addresses()]
    assert addresses == [0x60000000 - 4096 * (at + 1) for at in range(261)]
    alias = [piece for piece in made.pieces if piece.size == 2 * M]
    assert [(piece.start, piece.end) for piece in alias] == [(0x40400000, 0x41400000)]
    assert setup.node_data == {0: (0x5FEF7380, 0x5FEFA000)}


def test_arm64_with_blocks():
    memblock = Memblock()
    setup = Setup(
        arch=arch_for("arm64"),
        hardware=Hardware.of(memory="8GiB", arch="arm64"),
        memblock=memblock,
        cmdline=CommandLine.parse("rodata=on"),
    ).run()
    sizes = {piece.size for piece in setup.direct_map.pieces}
    assert sizes == {4 * K, 2 * M, G}
    assert setup.direct_map.nr_tables() < 20


class Notes(list):
    """An observer of memblock that may be told of many pages at once."""

    def __call__(self, call):
        self.append(call)


def test_pages_taken_together_are_those_taken_one_by_one():
    for memory in ("512MiB", "3GiB"):
        machine = Hardware.of(memory=memory, arch="arm64", nodes=2)
        made = []
        quiet = Notes()
        quiet.wholesale = True
        for observer in (None, yes, quiet):
            memblock = Memblock(on_call=observer)
            setup = Setup(arch=arch_for("arm64"), hardware=machine, memblock=memblock).run()
            tables = setup.direct_map.tables
            made.append(
                [
                    sorted(paddr for t in tables for paddr in t.addresses()),
                    list(memblock.reserved_ranges()),
                ]
            )
        assert made[0] == made[1] == made[2]
        assert len(quiet) < 100


@pytest.mark.parametrize(
    ("name", "tables"), [("riscv64-sv39", 2), ("riscv64", 4), ("riscv64-sv57", 6)]
)
def test_riscv_maps_aligned_memory_with_large_pages(name, tables):
    setup, _ = run(name, "512MiB")
    assert setup.direct_map.pieces == [MapPiece(0x80000000, 0xA0000000, 2 * M)]
    assert setup.direct_map.nr_tables() == tables


def test_riscv_maps_other_memory_with_small_pages():
    setup, _ = run("riscv64", 512 * M - 4 * K)
    assert {piece.size for piece in setup.direct_map.pieces} == {4 * K}
    assert setup.direct_map.nr_tables("pte") == 256


# -- the description itself --


def test_slots_are_a_set():
    rng = random.Random(3)
    slots, twin = Slots(), set()
    for _ in range(400):
        start = rng.randrange(200)
        end = start + rng.randrange(1, 9)
        missing = [n for low, high in slots.missing(start, end) for n in range(low, high)]
        assert missing == sorted(set(range(start, end)) - twin)
        slots.add(start, end)
        twin |= set(range(start, end))
    assert all((n in slots) == (n in twin) for n in range(220))


@pytest.mark.parametrize("name", [*ARCHS])
def test_all_memory_of_every_architecture_is_mapped(name):
    setup, _ = run(name, "600MiB")
    for start, end, _ in setup.memblock.mem_ranges():
        top = setup.limits.max_low_pfn << setup.arch.page_shift
        assert setup.direct_map.is_mapped(start, min(end, top))
    assert setup.limits.max_pfn > 0


@pytest.mark.parametrize("name", [*ARCHS_BOOTMEM])
def test_every_architecture_of_2_6_24_starts(name):
    arch = arch_for(name, Generation.BOOTMEM)
    machine = replace(Hardware.of(memory="600MiB", arch=name), image=arch.image)
    bits = arch.bits_per_long
    bootmem = Bootmem(BootmemConfig(bits_per_long=bits, smp_cache_bytes=arch.smp_cache_bytes))
    setup = Setup(arch=arch, hardware=machine, bootmem=bootmem).run()
    assert setup.direct_map.is_mapped(M, 500 * M)
    bootmem.validate()
    assert setup.e820_bootmem.entries[0] == E820Entry(0, 0x9FC00, E820Type.RAM)
