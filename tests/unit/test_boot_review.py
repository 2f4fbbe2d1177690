# SPDX-License-Identifier: GPL-2.0-or-later
"""Start-ups in places that are easily got wrong: late struct pages, odd nodes, odd logs."""

import lzma
import re
from pathlib import Path

import pytest

from physmem.boot.calls_percpu import UnitLayout, group_lines
from physmem.boot.compare_log import compare_log
from physmem.boot.from_log import boot_from_log
from physmem.boot.self_made import boot_of_hardware
from physmem.boot.start import boot, boot_hardware
from physmem.firmware.bootlog import parse_boot_log
from physmem.firmware.e820 import E820Entry
from physmem.firmware.hardware import DtMemory, Hardware, MemoryAffinity
from physmem.lib.errors import BadMachineError

MIB = 1 << 20
LOGS = Path(__file__).parents[1] / "logs"
PC = "linux-6.1-x86_64-512M"
NODES = "linux-6.1-x86_64-2nodes"


def text_of(name, file="dmesg.txt.xz"):
    return lzma.decompress((LOGS / name / file).read_bytes()).decode()


def lines_of(name):
    return [re.sub(r"^\[ *[\d.]+\] ?", "", line) for line in text_of(name).splitlines()]


def compared(text):
    log = parse_boot_log(text)
    return compare_log(boot_from_log(log), log)


# -- pageblocks and free lists -----------------------------------------------------------------


def test_blocks_that_were_reserved_when_their_struct_pages_came_late_are_unmovable():
    log = parse_boot_log(text_of(PC))
    booted = boot_from_log(log)
    (zone,) = [zone for zone in booted.zones if zone.name == "DMA32"]
    letters = "".join(run.type * run.count for run in zone.pageblocks)
    first = zone.start_pfn >> 9
    # as in this kernel's memory: the four pageblocks of the memory map
    assert letters[0xFB - first : 0xFF - first] == "UUUU"
    assert letters[: 0xFA - first] == "M" * (0xFA - first)


def test_areas_of_cma_lie_on_their_list_from_the_last_to_the_first():
    machine = boot("512MiB", arch="arm64")
    (zone,) = machine.snapshot().zones
    largest = zone.free[10][4]
    assert len(largest) >= 15
    assert largest == sorted(largest, reverse=True)
    machine.validate()


def test_pageblocks_of_another_node_within_a_span_are_not_the_zone_s_own():
    parts = ((0, 0, 64), (1, 64, 64), (0, 128, 64), (1, 192, 320))
    srat = tuple(MemoryAffinity(domain=d, base=a * MIB, length=s * MIB) for d, a, s in parts)
    e820 = (E820Entry(0, 0x9FC00, 1), E820Entry(MIB, 511 * MIB, 1))
    machine = Hardware(e820=e820, srat=srat, cpu_domain=(0, 1))
    booted = boot_hardware(machine).memory
    low, high = (zone for zone in booted.zones if zone.name == "DMA32")
    kinds = [
        [(run.first, run.count) for run in z.pageblocks if run.type == "."] for z in (low, high)
    ]
    assert kinds == [[(24, 32)], [(32, 32)]]


# -- nodes ---------------------------------------------------------------------------------------


def test_no_cpu_counts_when_the_order_of_nodes_is_made():
    """CPUs are counted to their nodes as they come up: a node without any is no better."""
    machine = Hardware.of(memory="2GiB", nodes=4, cpus=1)
    assert boot_hardware(machine).memory.fallback == {
        0: (0, 1, 2, 3),
        1: (1, 2, 3, 0),
        2: (2, 3, 0, 1),
        3: (3, 0, 1, 2),
    }


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "arm64-64k", "riscv64"])
def test_a_node_whose_memory_is_cut_off_keeps_its_cpu(arch):
    machine = Hardware.of(memory="768MiB", nodes=4, cpus=4, arch=arch)
    booted = boot_hardware(machine, cmdline="mem=300M")
    memory = booted.memory
    assert memory.cpu_node == (0, 1, 2, 3)
    assert memory.online == (0, 1, 2, 3)
    assert memory.fallback[3][0] == 3
    assert set(memory.fallback[3][1:]) == {zone.node for zone in memory.zones if zone.populated}
    booted.machine().validate()


def test_a_node_that_may_come_later_has_a_descriptor_and_is_not_online():
    e820 = Hardware.of(memory="512MiB").e820
    srat = (
        MemoryAffinity(domain=0, base=0, length=512 * MIB),
        MemoryAffinity(domain=1, base=1 << 32, length=1 << 30, hotpluggable=True),
    )
    booted = boot_hardware(Hardware(e820=e820, srat=srat), cmdline="memblock=debug").memory
    assert booted.online == (0,)
    assert "Initmem setup node 1 as memoryless" in booted.log
    assert any(line.endswith("free_area_init") and "nid=-1" in line for line in booted.log)
    assert any(line.startswith("Built 1 zonelists") for line in booted.log)


def test_groups_of_cpus_are_in_the_order_of_their_first_cpu():
    banks = tuple(DtMemory(base=(1 << 30) + n * 256 * MIB, size=256 * MIB, nid=n) for n in (0, 1))
    turned = Hardware(arch="arm64", memory=banks, cpu_domain=(1, 0))
    log = boot_hardware(turned, cmdline="memblock=debug").memory.log
    asked = [re.search(r"nid=(\d)", line)[1] for line in log if line.endswith("pcpu_fc_alloc")]
    assert asked == ["1", "0"]
    assert "pcpu-alloc: [0] 0 [1] 1 " in log


def test_lines_of_the_per_cpu_allocator():
    state = boot_of_hardware(Hardware.of(memory="512MiB"))
    groups = [list(range(6)), [6, 7, 8]]
    lines = group_lines(state, groups, UnitLayout(0x3D000, 0x80000, 4))
    assert lines[1:] == ["pcpu-alloc: [0] 0 1 2 3 [0] 4 5 - - [1] 6 7 8 - "]
    many = group_lines(state, [[cpu] for cpu in range(20)], UnitLayout(0x3D000, 0x200000, 1))
    assert many[1] == "pcpu-alloc: [00] 00 [01] 01 [02] 02 [03] 03 "


# -- the log of a start-up -----------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["x86_64", "i386", "arm64", "riscv64"])
def test_memblock_prints_nothing_before_the_command_line_is_read(arch):
    machine = Hardware.of(memory="512MiB", arch=arch)
    log = boot_hardware(machine, cmdline="memblock=debug").memory.log
    image = machine.image
    assert not any(
        line.startswith("memblock_reserve") and f"{image.start:08x}-" in line
        for line in log
        if "arm64_memblock_init" not in line and "setup_bootmem" not in line
    )
    dumps = [line for line in log if line == "MEMBLOCK configuration:"]
    assert len(dumps) == (2 if arch == "x86_64" else 1)


def test_addresses_have_sixteen_digits_with_pae():
    machine = Hardware.of(memory="6GiB", arch="i386-pae")
    log = boot_hardware(machine, cmdline="memblock=debug").memory.log
    added = [line for line in log if line.startswith("memblock_add")]
    assert "memblock_add: [0x0000000100000000-0x00000001bfffffff] e820__memblock_setup" in added


# -- logs of others ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[    0.000000] ",
        "[Mon Nov 23 00:20:11 2026] ",
        "[Mo Nov 23 00:20:11 2026] ",
        "[Nov23 00:20] ",
        "[  +0.000000] ",
        "[    0.000000 <    0.000000>] ",
        "[<    0.000000>] ",
        "2026-11-23T00:20:11,123456+00:00 ",
        "<6>[    0.000000] ",
        "kern  :info  : [    0.000000] ",
        "Nov 23 00:20:11 host kernel: ",
        "\x1b[32m[    0.000000] \x1b[0m",
        "[    0.000000][    T0] ",
    ],
)
def test_prefixes_of_all_kinds(prefix):
    text = "\r\n".join(prefix + line for line in lines_of(PC))
    comparison = compared(text)
    assert comparison.equal == comparison.compared == compared(text_of(PC)).compared


def test_a_terminal_that_is_cleared_first_hides_no_line():
    comparison = compared("SeaBIOS (version 1.16)\r\n\x1bc" + text_of(PC))
    assert "memory by the firmware's map" in {figure.name for figure in comparison.figures}
    assert comparison.differences == ()


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("0x0000000000100000-0x000000001ffd9fff] usable", "", "memory by the firmware's map"),
        ("0009fbff] usable", "0008fbff] usable", "memory by the firmware's map"),
        ("  DMA32    [mem 0x", "  dropped ", "zone range DMA32"),
        ("Policy zone", "dropped", "policy zone"),
        (
            "Fallback order for Node 0: 0",
            "Fallback order for Node 0: 1",
            "fallback order of node 0",
        ),
        ("Dentry cache hash", "dropped hash", "Dentry cache hash table"),
        ("Built 1 zonelists", "dropped", "zonelists"),
        ("last_pfn = 0x1ffda", "dropped", "last_pfn"),
        ("bytes on node 0 flags", "bytes on node 1 flags", "memblock dumps"),
    ],
)
def test_what_a_log_tells_otherwise_or_not_at_all_is_a_difference(old, new, name):
    text = text_of(PC)
    assert old in text
    changed = (
        "\n".join(line for line in text.splitlines() if old not in line)
        if not new
        else text.replace(old, new)
    )
    assert name in {figure.name for figure in compared(changed).differences}


def test_pages_of_an_arm64_kernel_are_as_large_as_its_hash_tables_tell():
    text = "Booting Linux on physical CPU 0x0\nMemory: 1K/2K available\n"
    for order, arch in ((7, "arm64"), (5, "arm64-16k"), (3, "arm64-64k")):
        table = f"Dentry cache hash table entries: 65536 (order: {order}, 524288 bytes, linear)\n"
        nodes = "  node   0: [mem 0x0000000040000000-0x000000005fffffff]\n"
        assert parse_boot_log(text + nodes + table).arch == arch


def test_an_area_of_cma_below_four_gib_is_foretold():
    bank = DtMemory(base=1 << 30, size=5 << 30)
    booted = boot_hardware(Hardware(arch="arm64", memory=(bank,))).memory
    assert int(booted.cma.pfn[-1]) << 12 < 4 << 30
    above = boot_hardware(
        Hardware(arch="arm64", memory=(DtMemory(base=1 << 32, size=1 << 30),))
    ).memory
    # memory above 4 GiB is taken from below, to leave the low part alone
    assert int(above.cma.pfn[0]) << 12 == 1 << 32


def test_a_machine_that_is_too_large_is_refused_at_once():
    e820 = (E820Entry(0, 0x9FC00, 1), E820Entry(MIB, 1 << 60, 1))
    with pytest.raises(BadMachineError, match="takes at most 65536 GiB"):
        boot_hardware(Hardware(e820=e820))
