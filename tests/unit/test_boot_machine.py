# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted machine: its lists, its bytes, its file."""

import resource
import time

import numpy as np
import pytest

import physmem
from physmem import PhysmemError, open_machine
from physmem.arch.registry import ARCHS
from physmem.boot.start import boot_hardware
from physmem.firmware.hardware import Hardware
from physmem.lib.struct import dtype_of
from physmem.mm.mmzone import PG_IN_USE, Page


@pytest.fixture(scope="module")
def machine():
    return physmem.boot("2GiB", nodes=2, cpus=2)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_boots_into_a_sound_machine(arch, kernel):
    machine = physmem.boot("512MiB", arch=arch, cpus=2, kernel=kernel)
    machine.validate()
    free = machine.nr_free_pages
    held = [machine.alloc_pages(order, "GFP_KERNEL") for order in (0, 0, 3, 5)]
    machine.validate()
    for pfn, order in zip(held, (0, 0, 3, 5), strict=True):
        machine.free_pages(pfn, order)
    machine.drain()
    assert machine.nr_free_pages >= free


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"memory": "8GiB"}, ["DMA", "DMA32", "Normal"]),
        ({"memory": "8GiB", "cmdline": "movablecore=2G"}, ["DMA", "DMA32", "Normal", "Movable"]),
        ({"memory": "8GiB", "cmdline": "kernelcore=64G"}, ["DMA", "DMA32", "Normal"]),
        ({"memory": "1GiB", "arch": "i386"}, ["DMA", "Normal", "HighMem"]),
        ({"memory": "8GiB", "arch": "arm64"}, ["DMA", "Normal"]),
        ({"memory": "8GiB", "arch": "riscv64"}, ["DMA32", "Normal"]),
    ],
)
def test_zones(how, names):
    assert [zone.name for zone in physmem.boot(**how).zones] == names


def test_every_frame_is_free_or_somebody_holds_it(machine):
    """What is neither free nor in a hole has an owner, and no owned frame is free."""
    state = machine.snapshot()
    free = np.zeros(int(machine.tables.memory[0]["max_pfn"]), bool)
    for zone in state.zones:
        for order, row in enumerate(zone.free):
            for pfn in (pfn for members in row for pfn in members):
                free[pfn : pfn + (1 << order)] = True
        for pcp in zone.pcp:
            for pindex, members in enumerate(pcp.lists):
                order = 9 if pindex >= 12 else pindex // 3
                for pfn in members:
                    free[pfn : pfn + (1 << order)] = True
    owned = np.zeros_like(free)
    for held in machine.origin.reserved:
        owned[held.start_pfn : held.end_pfn] = True
    assert not (free & owned).any()
    in_zones = np.zeros_like(free)
    for zone in machine.zones:
        in_zones[zone.start_pfn : zone.end_pfn] = True
    # the only hole of this machine lies below 1 MiB, and all of that is reserved
    rest = np.flatnonzero(~(free | owned) & in_zones)
    # what the kernel has asked the page allocator for: tables below the top one, for vmalloc
    top = machine.page_table.root
    tables = {
        machine.page_table.format.table_address(
            int.from_bytes(machine.read(top + 8 * n, 8), "little")
        )
        for n in range(402, 402 + 65)
    }
    assert sorted(tables) == [pfn << 12 for pfn in rest.tolist()]
    assert len(rest) == 65


def test_the_records_of_the_frames_lie_where_the_boot_allocator_put_them(machine):
    size = dtype_of(Page).itemsize
    pieces = machine.origin.mem_map
    assert {piece.start_pfn >> 15 for piece in pieces} >= {0, 8}
    for piece in pieces:
        assert machine.origin.owner(piece.paddr >> 12) == "mem_map"
    pfn = machine.alloc_pages(0, "GFP_KERNEL")
    piece = next(part for part in pieces if part.start_pfn <= pfn < part.end_pfn)
    at = piece.paddr + (pfn - piece.start_pfn) * size
    record = np.frombuffer(machine.ram.read(at, size), dtype_of(Page))[0]
    assert record["flags"] & PG_IN_USE
    machine.free_pages(pfn)
    record = np.frombuffer(machine.ram.read(at, size), dtype_of(Page))[0]
    assert not record["flags"] & PG_IN_USE


def test_frames_say_who_holds_them(machine):
    assert machine.frame(0x1000) == "reserved since boot (kernel image), of node 0, zone DMA32"


def test_a_saved_machine_comes_back_with_its_bytes(machine, tmp_path):
    machine.ram.write(0x1234567, b"here")
    machine.save(tmp_path / "machine")
    opened = open_machine(tmp_path / "machine")
    assert opened == machine
    assert opened.origin == machine.origin
    assert opened.ram.read(0x1234567, 4) == b"here"
    piece = opened.origin.mem_map[0]
    assert opened.ram.read(piece.paddr, 1 << 16) == machine.ram.read(piece.paddr, 1 << 16)


def test_a_copy_goes_its_own_way(machine):
    copied = machine.copy()
    assert copied == machine
    pfn = copied.alloc_pages(4)
    copied.ram.write(pfn << 12, b"mine")
    assert machine.ram.read(pfn << 12, 4) == b"\0\0\0\0"
    piece = next(p for p in machine.origin.mem_map if p.start_pfn <= pfn < p.end_pfn)
    size = dtype_of(Page).itemsize
    record = piece.paddr + (pfn - piece.start_pfn) * size
    assert copied.ram.read(record, size) != machine.ram.read(record, size)
    assert copied != machine
    copied.validate()


def test_the_same_words_boot_the_same_machine():
    assert physmem.boot("1GiB", nodes=2) == physmem.boot("1GiB", nodes=2)


def test_a_terabyte_of_eight_nodes_boots_fast_and_small():
    physmem.boot("1GiB")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = []
    for _ in range(3):
        start = time.perf_counter()
        machine = physmem.boot("1TiB", nodes=8, cpus=8)
        took.append(time.perf_counter() - start)
    assert min(took) < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
    assert [zone.node for zone in machine.zones] == [0, 0, *range(8)]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"memory": 1 << 60}, "at most"),
        ({"memory": "8MiB"}, "give it"),
        ({"memory": 0}, "give it"),
        ({"memory": "abc"}, "write one such as"),
        ({"nodes": 0}, "1 to 64"),
        ({"cpus": 0}, "1 to 8192"),
        ({"arch": "vax"}, "known are"),
        ({"kernel": "5.4"}, "known are"),
        ({"memory": "64MiB", "nodes": 8}, "too small"),
        ({"cmdline": "mem=0"}, "write a size"),
        ({"cmdline": "movablecore=x"}, "write a size"),
    ],
)
def test_impossible_machines(how, message):
    with pytest.raises(PhysmemError, match=message):
        physmem.boot(**how)


def test_overlapping_nodes_are_refused():
    good = Hardware.of(memory="4GiB", nodes=2)
    first, *others = good.srat
    wrong = [type(first)(domain=1, base=first.base, length=first.length), *others]
    bad = type(good)(**{**vars(good), "srat": (first, *wrong)})
    booted = boot_hardware(bad)  # as the kernel: a contradictory table is not used at all
    assert {zone.node for zone in booted.machine().zones} == {0}


def test_no_usable_memory():
    hardware = Hardware.of(memory="1GiB")
    reserved = type(hardware.e820[0])
    entries = tuple(reserved(entry.addr, entry.size, 2) for entry in hardware.e820)
    with pytest.raises(PhysmemError):
        boot_hardware(type(hardware)(**{**vars(hardware), "e820": entries}))


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ({"memory": "8GiB", "cmdline": "crashkernel=128M"}, (0xB7000000, 0xBF000000)),
        ({"memory": "8GiB", "cmdline": "crashkernel=64M@512M"}, (0x20000000, 0x24000000)),
        (
            {"memory": "1GiB", "arch": "i386", "cmdline": "crashkernel=64M"},
            (0x1C000000, 0x20000000),
        ),
        ({"memory": "1GiB", "cmdline": "crashkernel=512M-2G:32M,2G-:64M"}, (None, 32 << 20)),
    ],
)
def test_memory_for_a_crash_kernel(how, where):
    machine = physmem.boot(**how)
    held = [part for part in machine.origin.reserved if part.owner == "crash kernel"]
    start, end = held[0].start_pfn << 12, held[0].end_pfn << 12
    assert len(held) == 1
    assert (start, end) == where if where[0] is not None else end - start == where[1]
    without = physmem.boot(**{**how, "cmdline": ""})
    assert without.nr_free_pages - machine.nr_free_pages == end - start >> 12
