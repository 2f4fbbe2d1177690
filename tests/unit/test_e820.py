# SPDX-License-Identifier: GPL-2.0-or-later
"""e820 tables: worked examples, and lines as kernels print them."""

import pytest

from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import (
    NO_MERGE_BOOTMEM,
    E820Entry,
    E820Type,
    parse_line,
    sanitize,
)
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.e820_table import E820Table
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadInputError, BadMachineError

RAM, RES, ACPI, PRAM = E820Type.RAM, E820Type.RESERVED, E820Type.ACPI, E820Type.PRAM

# a PC of QEMU with 1 GiB, as its kernel printed it
LOG = """\
BIOS-provided physical RAM map:
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
BIOS-e820: [mem 0x0000000000100000-0x000000003ffd9fff] usable
BIOS-e820: [mem 0x000000003ffda000-0x000000003fffffff] reserved
BIOS-e820: [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
BIOS-e820: [mem 0x000000fd00000000-0x000000ffffffffff] reserved
e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
e820: remove [mem 0x000a0000-0x000fffff] usable
last_pfn = 0x3ffda max_arch_pfn = 0x400000000
"""


def span(*ranges):
    return [E820Entry(start, end - start, kind) for start, end, kind in ranges]


def spans(entries):
    return [(entry.addr, entry.end, entry.type) for entry in entries]


@pytest.mark.parametrize("no_merge", [NO_MERGE_BOOTMEM, {12, 0xEFFFFFFF}])
def test_a_larger_type_wins(no_merge):
    bios = span(
        (0, 0xA0000, RAM),
        (0x9FC00, 0xA0000, RES),
        (0xE0000, 0x100000, RES),
        (0x100000, 0x80000000, RAM),
        (0x7FEE0000, 0x7FF00000, ACPI),
        (0x7FF00000, 0x80000000, RES),
        (0x7FF80000, 0x7FF81000, RAM),
    )
    assert spans(sanitize(bios, no_merge)) == [
        (0, 0x9FC00, RAM),
        (0x9FC00, 0xA0000, RES),
        (0xE0000, 0x100000, RES),
        (0x100000, 0x7FEE0000, RAM),
        (0x7FEE0000, 0x7FF00000, ACPI),
        (0x7FF00000, 0x80000000, RES),
    ]


def test_equal_neighbours_join_and_empty_entries_vanish():
    bios = span((0, 0x1000, RAM), (0x1000, 0x2000, RAM), (0x3000, 0x3000, RES))
    bios += span((0x3000, 0x4000, RAM))
    assert spans(sanitize(bios)) == [(0, 0x2000, RAM), (0x3000, 0x4000, RAM)]


def test_some_types_never_join():
    bios = span((0x1000, 0x4000, PRAM), (0x4000, 0x5000, PRAM), (0x5000, 0x6000, RAM))
    bios += span((0x6000, 0x7000, RAM))
    assert spans(sanitize(bios)) == [
        (0x1000, 0x4000, PRAM),
        (0x4000, 0x5000, PRAM),
        (0x5000, 0x7000, RAM),
    ]
    assert len(sanitize(bios, NO_MERGE_BOOTMEM)) == 2


def test_a_table_of_one_entry_or_with_a_wrapping_one_is_refused():
    assert sanitize(span((0, 0x1000, RAM))) is None
    assert sanitize([]) is None
    wrapping = E820Entry((1 << 64) - 4096, 4096)
    assert sanitize([E820Entry(0, 4096), wrapping]) is None


def test_a_full_table_drops_the_rest():
    checkered = span(*((at * 2, at * 2 + 1, RAM) for at in range(10)))
    assert len(sanitize(checkered, capacity=7)) == 7


def test_update_appends_and_sanitising_sorts():
    table = E820Table(span((0, 0x9FC00, RAM), (0x100000, 0x40000000, RAM)))
    assert table.update(0, 4096, RAM, RES) == 4096
    assert spans(table.entries) == [
        (0x1000, 0x9FC00, RAM),
        (0x100000, 0x40000000, RAM),
        (0, 0x1000, RES),
    ]
    assert table.sanitize()
    assert spans(table.entries)[0] == (0, 0x1000, RES)


def test_remove_shortens_memory_and_leaves_the_rest():
    bios = span((0, 0x9FC00, RAM), (0x100000, 0x40000000, RAM), (0x30000000, 0x30001000, RES))
    table = E820Table(bios)
    table.remove(512 << 20, (1 << 64) - 1, RAM)
    assert spans(table.entries) == [
        (0, 0x9FC00, RAM),
        (0x100000, 0x20000000, RAM),
        (0x30000000, 0x30001000, RES),
    ]


def test_a_table_that_is_full_says_so():
    table = E820Table(span((0, 0x1000, RAM)), capacity=1)
    table.append(0x2000, 0x1000, RAM)
    assert table.log == ["e820: too many entries; ignoring [mem 0x00002000-0x00002fff]"]
    assert len(table.entries) == 1


def test_the_log_of_a_pc_line_by_line():
    lines = LOG.splitlines()
    bios = [entry for entry in map(parse_line, lines) if entry]
    assert len(bios) == 7
    table = E820Table()
    table.memory_setup(bios)
    table.trim_bios_range()
    assert table.end_pfn(1 << 34, 1 << 34) == 0x3FFDA
    assert table.log == lines


def test_lines_of_2_6_24():
    line = " BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)"
    entry = parse_line(line)
    assert spans([entry]) == [(0, 0x9FC00, RAM)]
    assert entry.line_bootmem("BIOS-e820") == line
    odd = E820Entry(0, 4096, 17)
    assert parse_line(odd.line_bootmem("BIOS-e820")) == odd
    assert parse_line(odd.line("BIOS-e820")) == odd
    assert parse_line("user: [mem 0x00-0xff] usable") is None
    assert parse_line("Zone ranges:") is None
    with pytest.raises(BadInputError, match="no type of memory"):
        parse_line("BIOS-e820: [mem 0x00-0xff] lost")
    with pytest.raises(BadInputError, match="ends before it starts"):
        parse_line("BIOS-e820: [mem 0xff0000-0xff] usable")


def test_every_type_is_printed_and_read():
    for kind in E820Type:
        entry = E820Entry(4096, 4096, kind)
        back = parse_line(entry.line("BIOS-e820"))
        assert back.type == (RAM if kind is E820Type.RESERVED_KERN else kind)


def test_mem_and_memmap():
    table = E820Table(Hardware.of(memory="1GiB").e820)
    table.apply(CommandLine.parse("memmap=64M$256M mem=512M memmap=4K%8K-1+4,1M@2G"))
    assert table.log[1] == "e820: update [mem 0x00002000-0x00002fff] usable ==> ACPI NVS"
    assert table.log[2] == "user-defined physical RAM map:"
    ram = [(start, end) for start, end in table.ranges(RAM) if start >= 0x100000]
    assert ram == [
        (0x100000, 0x10000000),
        (0x14000000, 0x20000000),
        (0x80000000, 0x80100000),
    ]
    assert (0x2000, 0x3000, E820Type.NVS) in spans(table.entries)


def test_exactmap_starts_anew():
    table = E820Table(Hardware.of(memory="1GiB").e820)
    table.apply(CommandLine.parse("memmap=exactmap memmap=640K@0 memmap=63M@1M"))
    assert spans(table.entries) == [(0, 0xA0000, RAM), (0x100000, 0x4000000, RAM)]
    with pytest.raises(BadMachineError, match="Invalid user supplied memory map"):
        table.apply(CommandLine.parse("memmap=exactmap"))


def test_setup_data_is_kept():
    table = E820Table(Hardware.of(memory="1GiB").e820)
    table.reserve_setup_data([(0x2000000, 0x1000)])
    assert (0x2000000, 0x2001000, 128) in spans(table.entries)
    assert table.log[1] == "extended physical RAM map:"
    assert table.log[2].startswith("reserve setup_data: [mem ")


def test_the_kernel_is_in_memory_whatever_the_firmware_says():
    table = E820Table(
        span((0, 0x9FC00, RAM), (0x100000, 0x1800000, RAM), (0x2000000, 1 << 30, RAM))
    )
    table.add_kernel_range(0x1000000, 0x1400000)
    assert table.log == []
    table.add_kernel_range(0x1000000, 0x2200000)
    assert table.sanitize()
    assert table.mapped_all(0x1000000, 0x2200000, RAM)
    assert ".text .data .bss are not marked" in table.log[0]


def test_without_a_map_there_is_a_fake_one():
    table = E820Table()
    table.memory_setup(span((0, 0x9FC00, RAM)), alt_mem_kib=63 << 10)
    assert spans(table.entries) == [(0, 0x9F000, RAM), (0x100000, 0x4000000, RAM)]
    old = E820Bootmem(wide=False)
    old.memory_setup([], alt_mem_kib=63 << 10)
    assert spans(old.entries) == spans(table.entries)
    with pytest.raises(BadMachineError, match="Cannot find a valid memory map"):
        E820Bootmem(wide=True).memory_setup([])


def test_memory_in_the_bios_area_is_cut_out_by_the_old_32_bit_kernel_only():
    bios = span((0, 0x200000, RAM), (0x300000, 0x400000, RAM), (0xFFFC0000, 1 << 32, RES))
    old = E820Bootmem(wide=False)
    old.memory_setup(bios)
    assert spans(old.entries)[:2] == [(0, 0xA0000, RAM), (0x100000, 0x200000, RAM)]
    wide = E820Bootmem(wide=True)
    wide.memory_setup(bios)
    assert spans(wide.entries) == spans(bios)


def test_limit_regions_also_drops_what_is_reserved_behind():
    table = E820Bootmem(wide=False)
    table.memory_setup(Hardware.of(memory="1GiB").e820)
    table.apply(CommandLine.parse("mem=512M"))
    assert spans(table.entries)[-1] == (0x100000, 0x20000000, RAM)
    assert "user-defined physical RAM map:" in table.log
    assert table.max_pfn() == 0x20000


def test_a_limit_below_the_next_memory_drops_it():
    table = E820Bootmem(wide=False)
    table.memory_setup(Hardware.of(memory="1GiB").e820)
    table.limit_regions(0xF8000)
    assert spans(table.entries)[-1] == (0xF0000, 0x100000, RES)


def test_the_64_bit_kernel_only_notes_a_limit():
    table = E820Bootmem(wide=True)
    table.memory_setup(Hardware.of(memory="1GiB").e820)
    before = list(table.entries)
    table.apply(CommandLine.parse("mem=512M"))
    assert table.entries == before
    assert table.end_of_ram(1 << 34) == 512 << 8
    assert table.end_pfn_map == 1 << 28
    assert table.active_regions() == [(0, 159), (256, 512 << 8)]
    assert table.hole_pages(0, 1024) == 97


def test_the_old_table_has_room_for_128():
    table = E820Bootmem(wide=True)
    for at in range(130):
        table.append(at * 8192, 4096, RAM)
    assert len(table.entries) == 128
    assert table.log == ["Ooops! Too many entries in the memory map!"] * 2


def test_first_fit_treats_touching_as_a_clash():
    table = E820Bootmem(wide=True)
    table.append(0, 0x9F000, RAM)
    table.append(0x100000, 0x1000000, RAM)
    # a block that ended exactly where the taken range starts would be free, but is not taken
    assert table.find_area(0, 1 << 30, 0x2000, [(0xA000, 0xB000)]) == 0xB000
    assert table.find_area(0, 1 << 30, 0x1000, [(0xA000, 0xB000)]) == 0x8000
    assert table.find_area(0, 1 << 30, 0x98000) == 0x100000
    assert table.find_area(0, 1 << 30, 0x800, [], (0x8000, 0x8480)) == 0x8480
    assert table.find_area(0, 1 << 30, 1 << 30) is None
