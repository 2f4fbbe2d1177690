# SPDX-License-Identifier: GPL-2.0-or-later
"""The page tables that a start-up leaves in memory, walked by whoever walks page tables."""

from pathlib import Path

import numpy as np
import pytest

import physmem
from physmem.arch.direct_map import Leaves, TablePages
from physmem.boot.kernel_map import arch_of
from physmem.boot.start import boot_hardware
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadRequestError, CorruptStateError, PageFaultError
from physmem.lib.ram import Ram
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.kernel_map import KernelMapWriter

K, M, G = 1 << 10, 1 << 20, 1 << 30
MACHINES = [
    *(("x86_64", "6.1"), ("x86_64", "6.12"), ("x86_64-la57", "6.1"), ("i386", "6.1")),
    *(("i386-pae", "6.1"), ("x86_64", "2.6.24"), ("i386", "2.6.24"), ("i386-pae", "2.6.24")),
    *(("arm64", "6.1"), ("arm64", "6.12"), ("arm64-16k", "6.1"), ("arm64-64k", "6.1")),
    *(("riscv64", "6.1"), ("riscv64-sv39", "6.12"), ("riscv64-sv57", "6.1")),
]
LOGS = Path(__file__).parents[1] / "logs"


def booted(arch, kernel="6.1", memory="1GiB", cmdline="", **how):
    hardware = Hardware.of(memory=memory, arch=arch, **how)
    start = boot_hardware(hardware, kernel=kernel, cmdline=cmdline)
    return start, start.machine(), arch_of(start.memory)


def direct_map(start, arch):
    """Virtual address of physical byte 0 in the direct map (may be below the map itself)."""
    base = start.memory.memblock.start_of_dram() if start.memory.memblock else 0
    if arch.name.startswith("x86") or arch.highmem:
        base = 0
    elif arch.two_roots:
        base = base // (1 << 30) * (1 << 30)
    return arch.layout.page_offset - base


@pytest.mark.parametrize(("arch", "kernel"), MACHINES)
def test_every_managed_frame_has_its_address_in_the_direct_map(arch, kernel):
    start, machine, arch = booted(arch, kernel)
    table, base = machine.page_table, direct_map(start, arch)
    zones = [zone for zone in machine.zones if zone.name not in {"HighMem", "Movable"}]
    assert zones
    for zone in zones:
        if zone.name == "HighMem":
            continue
        pfn = np.arange(zone.start_pfn, zone.start_pfn + zone.spanned_pages, dtype=np.uint64)
        paddr = pfn << np.uint64(machine.layout.page_shift)
        found = table.translate_many(paddr + np.uint64(base % (1 << 64)))
        assert (found == paddr.astype(np.int64)).all()
    # tables are reserved, or were allocated: never free
    root = machine.page_table.root_high >> machine.layout.page_shift
    assert machine.origin.owner(root) == "kernel image"
    machine.validate()


@pytest.mark.parametrize(("arch", "kernel"), MACHINES)
def test_what_is_listed_is_what_the_start_up_decided(arch, kernel):
    """Bytes by size of leaf: of the plan, and of the tables as they are."""
    start, machine, arch = booted(arch, kernel, "600MiB")
    plan = start.memory.kernel_map
    low = arch.layout.page_offset
    high = min(low + arch.layout.direct_map_bytes, 1 << 64)
    found = {}
    for leaf in machine.page_table.leaves(low, high):
        found[leaf.size] = found.get(leaf.size, 0) + min(leaf.end, high) - leaf.va
    assert found == plan.bytes_by_size(low, high)


@pytest.mark.parametrize(
    ("arch", "kernel"),
    [
        ("x86_64", "6.1"),
        ("x86_64-la57", "6.12"),
        ("arm64", "6.1"),
        ("arm64-64k", "6.1"),
        ("riscv64", "6.1"),
        ("x86_64", "2.6.24"),
    ],
)
def test_the_memory_map_is_found_through_the_tables(arch, kernel):
    _, machine, arch = booted(arch, kernel)
    table, layout = machine.page_table, arch.layout
    held = [r for r in machine.origin.reserved if r.owner == "mem_map"]
    for zone in machine.zones:
        for pfn in (zone.start_pfn, zone.start_pfn + zone.spanned_pages - 1):
            walk = table.translate(layout.vmemmap_start + pfn * arch.sizeof_page, "w")
            assert walk.ok
            frame = walk.paddr >> machine.layout.page_shift
            assert any(r.start_pfn <= frame < r.end_pfn for r in held)


def test_protections_of_the_image():
    """x86 makes its image read-only after the start-up; the others at once."""
    _, machine, arch = booted("x86_64")
    walk = machine.page_table.translate(arch.layout.image_base + 0x1000000)
    assert (walk.kernel, walk.size, walk.paddr) == ("rwx", 2 * M, 0x1000000)
    assert machine.page_table.translate(arch.layout.page_offset + 0x1000000).kernel == "rw-"
    # the image's brk pages are the last that its addresses show
    end = arch.layout.image_base + 0x3A00000
    assert machine.page_table.translate(end - 1).ok
    assert machine.page_table.translate(end).reason == "not_present"

    _, machine, arch = booted("arm64")
    table, base = machine.page_table, arch.layout.image_base
    assert table.translate(base + 0x10000).kernel == "r-x"
    assert table.translate(base + 0x41A00000 - 0x40200000).kernel == "rw-"
    assert table.translate(arch.layout.page_offset + 0x210000).kernel == "rw-"

    _, machine, arch = booted("riscv64")
    table, base = machine.page_table, arch.layout.image_base
    assert table.translate(base).kernel == "r-x"
    assert table.translate(base + 0x1800000).kernel == "rw-"
    assert table.translate(arch.layout.page_offset + 0x200000).kernel == "r--"

    # with PAE the direct map holds the code
    _, machine, arch = booted("i386-pae")
    assert machine.page_table.translate(0xC1000000).kernel == "rwx"
    assert machine.page_table.translate(0xC8000000).kernel == "rw-"


def test_large_pages_of_the_processor():
    for huge, size in ((True, G), (False, 2 * M)):
        hardware = Hardware.of(memory="8GiB")
        from dataclasses import replace

        start = boot_hardware(replace(hardware, huge_1g=huge))
        machine = start.machine()
        walk = machine.page_table.translate(0xFFFF888000000000 + (5 * G) + 123)
        assert (walk.paddr, walk.size) == (5 * G + 123, size)


def test_bytes_by_virtual_address():
    machine = physmem.boot("256MiB")
    pfn = machine.alloc_pages(order=1)
    va = 0xFFFF888000000000 + (pfn << 12)
    machine.write(None, b"hello", vaddr=va + 4093)
    assert machine.read((pfn << 12) + 4093, 5) == b"hello"
    with pytest.raises(PageFaultError):
        machine.read(vaddr=0xFFFF888000000000 + 8 * G)
    # entries can be read like any bytes: they are the walk's
    walk = machine.page_table.translate(va)
    step = walk.steps[-1]
    assert machine.read(step.slot, 8) == step.entry.to_bytes(8, "little")


def test_later_tables_come_from_the_page_allocator():
    machine = physmem.boot("256MiB")
    machine.drain()
    before, tables = machine.nr_free_pages, machine.page_table.nr_tables
    start = 0xFFFFC90000000000
    machine.page_table.map(start, 0x100000, 64 * K)
    # the upper table is there already: a pmd and a pte table are new
    assert machine.page_table.nr_tables == tables + 2
    machine.drain()
    assert machine.nr_free_pages == before - 2
    machine.page_table.unmap(start, 64 * K, keep_tables=False)
    mm = machine.new_process()
    assert mm.fault(mm.mmap(4096), "w") == "mapped"


@pytest.mark.parametrize(
    ("arch", "kernel"), [("x86_64", "6.1"), ("arm64", "6.1"), ("i386", "2.6.24")]
)
def test_copies_and_files_have_the_tables(tmp_path, arch, kernel):
    _, machine, arch = booted(arch, kernel, "256MiB")
    where = arch.layout.page_offset + (16 << 20)
    machine.page_table.unmap(where, machine.page_table.translate(where).size, keep_tables=True)
    machine.save(tmp_path / "machine")
    for other in (machine.copy(), physmem.open(tmp_path / "machine")):
        assert other == machine
        assert other.page_table.nr_tables == machine.page_table.nr_tables
        assert other.page_table.format == machine.page_table.format
        assert not other.page_table.translate(where).ok
        assert list(other.page_table.leaves()) == list(machine.page_table.leaves())
    fresh = machine.copy()
    fresh.page_table.map(where, 16 << 20, machine.page_table.format.page_size)
    assert not machine.page_table.translate(where).ok


def test_many_tables_are_written_when_somebody_looks():
    """Small pages for 8 GiB are 16 MiB of tables: a start-up that nobody looks into is quick."""
    _, machine, arch = booted("arm64", memory="8GiB")
    assert machine._ram.is_pending
    other = machine.copy()
    assert other._ram.is_pending
    walk = other.page_table.translate(arch.layout.page_offset + 5 * G)
    assert (walk.paddr, walk.size) == (6 * G, 4 * K)
    assert machine._ram.is_pending
    assert machine.page_table.translate(arch.layout.page_offset + 5 * G).paddr == 6 * G


def test_machines_without_a_start_up_have_no_table():
    with pytest.raises(BadRequestError, match="map_memory"):
        _ = physmem.Machine.build("64MiB").page_table


def meminfo(folder):
    """DirectMap lines of a real kernel: KiB by bytes of a page."""
    sizes = {"4k": 4 * K, "2M": 2 * M, "4M": 4 * M, "1G": G}
    lines = (LOGS / folder / "meminfo").read_text().splitlines()
    pairs = [line.split() for line in lines if line.startswith("DirectMap")]
    return {sizes[name[9:-1]]: int(kib) for name, kib, _ in pairs}


@pytest.mark.parametrize(
    ("folder", "arch", "memory"),
    [
        ("linux-6.1-x86_64-512M", "x86_64", "512MiB"),
        ("linux-6.1-x86_64-512M-movablecore", "x86_64", "512MiB"),
        ("linux-6.1-x86_64-512M-slab", "x86_64", "512MiB"),
        ("linux-6.1-x86_64-2nodes", "x86_64", "1GiB"),
        ("linux-6.12-x86_64-512M", "x86_64", "512MiB"),
        ("linux-6.1-i386-highmem", "i386", "1200MiB"),
    ],
)
def test_sizes_of_pages_are_those_of_real_kernels(folder, arch, memory):
    """As much is mapped, and the real kernel has since taken a few large pages apart.

    It does so when it makes memory of modules and programs of its own read-only.
    """
    real = meminfo(folder)
    start, _, arch = booted(arch, folder.split("-")[1], memory)
    layout = arch.layout
    plan = start.memory.kernel_map.bytes_by_size(
        layout.page_offset, layout.page_offset + layout.direct_map_bytes
    )
    ours = {size: total // K for size, total in plan.items()}
    assert set(ours) == set(real)
    assert sum(ours.values()) == sum(real.values())
    large = max(real)
    split = ours[large] - real[large]
    assert split % (large // K) == 0
    assert 0 <= split // (large // K) <= 16
    assert real[4 * K] - ours[4 * K] == split


# -- the writer --


def test_runs_of_tables_upwards_and_downwards():
    fmt = page_table_format("riscv64_sv39")
    base = 0xFFFFFFD800000000
    for stride, first in ((4096, 0x100000), (-4096, 0x1FF000)):
        ram = Ram(16 * M)
        ram.write(0x100000, b"\xff" * M)
        writer = KernelMapWriter(fmt, ram, {"kernel": 0x1000})
        writer.add_tables(TablePages("pmd", base, 0x2000, 1, 0, "memblock"))
        writer.add_tables(TablePages("pte", base, first, 256, stride, "memblock"))
        assert not any(ram.read(0x100000, M))
        end = base + 511 * M
        writer.add_leaves(Leaves("pte", base + M, end, M, 4096, "PAGE_KERNEL"))
        from physmem.pgtable.reading import TableReader

        table = TableReader(fmt, ram, 0x1000)
        assert not table.translate(base + M - 1).ok
        assert not table.translate(end).ok
        for at in (M, 2 * M - 1, 2 * M, 77 * M + 5, 511 * M - 1):
            assert table.translate(base + at).paddr == at
        assert sum(leaf.end - leaf.va for leaf in table.leaves()) == 510 * M


def test_groups_lie_wholly_in_a_range():
    fmt = page_table_format("arm64_4k_48")
    ram = Ram(16 * M)
    writer = KernelMapWriter(fmt, ram, {"kernel": 0x1000})
    base = 0xFFFF000000000000
    for level, at in (("pud", 0x2000), ("pmd", 0x3000), ("pte", 0x4000)):
        writer.add_tables(TablePages(level, base, at, 1, 0, "memblock"))
    writer.add_leaves(
        Leaves("pte", base + 8 * K, base + 140 * K, 8 * K, 4096, "PAGE_KERNEL", contiguous=True)
    )
    marked = [
        bool(int.from_bytes(ram.read(0x4000 + 8 * n, 8), "little") >> 52 & 1) for n in range(48)
    ]
    assert [n for n, mark in enumerate(marked) if mark] == list(range(16, 32))


def test_a_plan_with_a_table_missing_is_refused():
    writer = KernelMapWriter(page_table_format("x86_64"), Ram(M), {"kernel": 0x1000})
    with pytest.raises(CorruptStateError, match="no pmd table"):
        writer.add_leaves(Leaves("pmd", 0, 2 * M, 0, 2 * M, "PAGE_KERNEL"))
    with pytest.raises(CorruptStateError, match="no level p4d"):
        writer.add_tables(TablePages("p4d", 0, 0x2000, 1, 0, "memblock"))
