# SPDX-License-Identifier: GPL-2.0-or-later
"""Corners of a start-up that were wrong once."""

from dataclasses import replace
from pathlib import Path

import pytest

import physmem
from physmem.boot.active_range import EarlyNodeMap
from physmem.boot.from_log import boot_of_log
from physmem.boot.start import boot_hardware
from physmem.firmware.bootlog import read_boot_log
from physmem.firmware.e820 import E820Entry
from physmem.firmware.hardware import Hardware
from physmem.firmware.numa_bootmem import add_active_range
from physmem.mm.pcp_tuning import clamp

GIB = 1 << 30
LOGS = Path(__file__).parents[1] / "logs"


def test_a_tiny_movable_zone_of_6_12_has_crossed_bounds(tmp_path):
    """Its low watermark counts 32 frames at least; an eighth of its memory may be less.

    Linux: zone_highsize(), zone_set_pageset_high_and_batch(), mm/page_alloc.c (6.12)
    """
    machine = physmem.boot(
        "1200MiB", nodes=2, arch="riscv64-sv57", kernel="6.12", cmdline="movablecore=16M"
    )
    movable = [zone for zone in machine.snapshot().zones if zone.name == "Movable"]
    assert movable
    machine.validate()
    machine.save(tmp_path / "machine")
    assert physmem.open(tmp_path / "machine") == machine
    for _ in range(300):
        machine.free_pages(machine.alloc_pages(0, "GFP_HIGHUSER_MOVABLE"))
    machine.validate()


def test_crossed_bounds_are_asked_as_the_kernel_asks():
    """Linux: __clamp(), include/linux/minmax.h (6.12): the upper bound first."""
    assert [clamp(value, 30, 20) for value in (0, 19, 20, 25, 30, 40)] == [30, 30, 20, 20, 20, 20]
    assert [clamp(value, 20, 30) for value in (0, 20, 25, 30, 40)] == [20, 20, 25, 30, 30]


@pytest.mark.parametrize(("memory", "mark"), [("512MiB", 0), ("1200MiB", 32)])
def test_an_empty_movable_zone_has_marks_only_beside_high_memory(memory, mark):
    text = physmem.boot(memory, arch="i386").zoneinfo()
    movable = text[text.index("zone  Movable") :].splitlines()
    assert movable[1:6] == [
        "  pages free     0",
        "        boost    0",
        f"        min      {mark}",
        f"        low      {mark}",
        f"        high     {mark}",
    ]


def test_zoneinfo_tells_of_nodes_without_memory():
    hardware = Hardware.of(memory="1GiB", nodes=2, cpus=4)
    alone = replace(
        hardware,
        srat=tuple(entry for entry in hardware.srat if entry.domain == 0),
        e820=(E820Entry(0, 0x9FC00), E820Entry(1 << 20, (512 << 20) - (1 << 20))),
        initrd=None,
    )
    machine = boot_hardware(alone).machine()
    assert set(machine.layout.cpu_node) == {0, 1}
    lines = machine.zoneinfo().splitlines()
    nodes = [line for line in lines if line.startswith("Node")]
    assert nodes == [
        f"Node {node}, zone {name:>8}" for node in (0, 1) for name in machine.layout.zone_names
    ]
    own = lines[lines.index("Node 1, zone      DMA") :]
    assert "  per-node stats" not in own
    assert own[1] == "  pages free     0"


def test_no_cpu_counts_when_2_6_24_sorts_its_nodes():
    """Nodes with CPUs are no worse than others: at that time none has any.

    Linux: find_next_best_node(), node_to_cpumask(), mm/page_alloc.c (2.6.24)
    """
    far = tuple(tuple(10 if a == b else 20 for b in range(3)) for a in range(3))
    hardware = replace(Hardware.of(memory="3GiB", nodes=3, cpus=2), distance=far)
    cpus = replace(hardware, cpu_domain=(0, 1))
    order = boot_hardware(cpus, kernel="2.6.24").memory.fallback
    nobody = boot_hardware(replace(hardware, cpu_domain=(0, 2)), kernel="2.6.24").memory.fallback
    assert order == nobody


def test_mirrored_memory_is_normal_and_the_rest_movable():
    hardware = replace(Hardware.of(memory="12GiB"), mirror=((0, 6 * GIB), (9 * GIB, GIB)))
    booted = boot_hardware(hardware, cmdline="kernelcore=mirror")
    machine = booted.machine()
    normal, movable = (
        next(zone for zone in machine.zones if zone.name == name) for name in ("Normal", "Movable")
    )
    # both span the mirrored parts, and what lies between
    assert normal.start_pfn < movable.start_pfn + movable.spanned_pages
    assert movable.start_pfn < normal.start_pfn + normal.spanned_pages
    machine.validate()
    frames = machine.alloc_pages_bulk(300_000, "GFP_KERNEL")
    inside = [pfn for pfn in frames if pfn >= 1 << 20]
    assert inside
    for pfn in inside:
        at = pfn << 12
        assert any(base <= at < base + size for base, size in hardware.mirror)
    for _ in range(1000):
        at = machine.alloc_pages(0, "GFP_HIGHUSER_MOVABLE") << 12
        if at >= 4 * GIB:
            assert not any(base <= at < base + size for base, size in hardware.mirror)
    machine.validate()


def test_the_end_of_low_memory_is_computed():
    log = read_boot_log(LOGS / "linux-6.1-i386-highmem" / "dmesg.txt.xz")
    boot = boot_of_log(log)
    assert boot.memblock.current_limit == 0x36BFE000
    assert not any("low memory ends" in note for note in boot.assumptions)
    # what the log tells about it is not needed
    silent = replace(log, events=[])
    assert boot_of_log(silent).memblock.current_limit == 0x36BFE000


def test_both_tables_of_active_ranges_grow_alike():
    from random import Random

    rng = Random(8)
    for _ in range(300):
        ours, theirs = EarlyNodeMap(), []
        for _ in range(rng.randrange(1, 8)):
            nid, start = rng.randrange(2), rng.randrange(40)
            end = start + rng.randrange(1, 12)
            ours.add(nid, start, end)
            add_active_range(theirs, nid, start, end)
        found = [(r.start_pfn, r.end_pfn, r.nid) for r in ours.sorted()]
        assert found == sorted(theirs, key=lambda entry: entry[0])
