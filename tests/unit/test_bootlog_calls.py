# SPDX-License-Identifier: GPL-2.0-or-later
"""Start-ups of machines that nobody recorded: every architecture, and what must hold for all."""

from dataclasses import replace

import pytest

from physmem.boot.calls_percpu import unit_layout
from physmem.boot.kernel_config import kernel_config
from physmem.boot.owners import OwnerBook, owner_of
from physmem.boot.self_made import boot_of_hardware
from physmem.boot.start_kernel import start_kernel
from physmem.bootalloc.call import MemblockCall
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadInputError, BadMachineError, BootAllocError

MACHINES = [
    ("x86_64", "512MiB", 1, ""),
    ("x86_64", "16GiB", 2, "nokaslr"),
    ("x86_64", "8GiB", 1, "movablecore=2G"),
    ("x86_64", "8GiB", 2, "kernelcore=30% transparent_hugepage=never"),
    ("x86_64-la57", "64GiB", 2, ""),
    ("i386", "1200MiB", 1, ""),
    ("i386-pae", "4GiB", 1, "vmalloc=256M"),
    ("arm64", "512MiB", 1, "cma=32M"),
    ("arm64", "16GiB", 2, ""),
    ("arm64-16k", "16GiB", 1, ""),
    ("arm64-64k", "16GiB", 1, ""),
    ("riscv64", "16GiB", 1, ""),
    ("riscv64-sv39", "4GiB", 1, ""),
    ("riscv64-sv57", "16GiB", 1, ""),
]


def booted_of(arch, memory, nodes=1, cmdline="", kernel="6.1", cpus=None):
    hardware = Hardware.of(memory=memory, arch=arch, nodes=nodes, cpus=cpus or nodes)
    return start_kernel(boot_of_hardware(hardware, kernel=kernel, cmdline=cmdline))


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize(("arch", "memory", "nodes", "cmdline"), MACHINES)
def test_every_frame_is_given_once_or_reserved(arch, memory, nodes, cmdline, kernel):
    booted = booted_of(arch, memory, nodes, cmdline, kernel)
    given = booted.hand_over.nr_pages + booted.highmem.nr_pages + booted.cma.nr_pages
    given += sum(part.nr_pages for part in booted.deferred.values())
    given += sum(late.nr_pages for late in booted.late)
    managed = sum(zone.managed_pages for zone in booted.zones)
    assert given == managed == booted.totalram_pages
    page = 1 << booted.page_shift
    # what is not given is reserved, page by page outwards
    taken = {
        pfn for held in booted.reserved for pfn in (held.start // page, (held.end - 1) // page)
    }
    reserved = sum(
        -(-region.end // page) - region.base // page for region in booted.memblock.reserved
    )
    assert managed + reserved + len(taken) >= sum(zone.present_pages for zone in booted.zones)
    for zone in booted.zones:
        assert zone.managed_pages <= zone.present_pages <= zone.spanned_pages
        if zone.populated:
            assert zone.watermark[0] <= zone.watermark[1] <= zone.watermark[2]
            order = booted.pageblock_order
            blocks = (zone.end_pfn - 1 >> order) - (zone.start_pfn >> order) + 1
            assert sum(run.count for run in zone.pageblocks) == blocks


def test_the_start_up_reads_like_a_table_of_contents():
    booted = booted_of("x86_64", "1GiB")
    names = [stage.name for stage in booted.stages]
    assert names[:3] == ["setup_arch", "sparse_init", "free_area_init"]
    assert names.index("build_all_zonelists") < names.index("vfs_caches_init_early")
    later = [stage.name for stage in booted_of("x86_64", "1GiB", kernel="6.12").stages]
    assert later.index("build_all_zonelists") > later.index("vfs_caches_init_early")
    by_name = {stage.name: stage for stage in booted.stages}
    assert by_name["sparse_init"].frames() > 4096
    assert by_name["mem_init"].given_pages > 0
    assert all(stage.sentence.endswith(".") for stage in booted.stages)


def test_a_terabyte_of_eight_nodes():
    booted = booted_of("x86_64", "1TiB", nodes=8, cpus=16)
    assert len(booted.deferred) == 8
    assert {len(zone.local_cpus) for zone in booted.zones if zone.populated} == {2}
    assert booted.fallback[3] == (3, 4, 5, 6, 7, 0, 1, 2)


def test_memblock_debug_prints_every_call():
    quiet = booted_of("x86_64", "1GiB")
    told = booted_of("x86_64", "1GiB", cmdline="memblock=debug")
    assert not [line for line in quiet.log if line.startswith("memblock_")]
    calls = [line for line in told.log if line.startswith("memblock_")]
    assert any("sparse_init" in line for line in calls)
    assert [zone.managed_pages for zone in told.zones] == [
        zone.managed_pages for zone in quiet.zones
    ]


def test_random_addresses_touch_one_more_table():
    assert booted_of("x86_64", "1GiB", cmdline="nokaslr").early_taken == 64
    assert booted_of("x86_64", "1GiB").early_taken == 65
    assert booted_of("x86_64-la57", "1GiB", cmdline="nokaslr").early_taken == 50
    assert booted_of("arm64", "1GiB").early_taken == 0


@pytest.mark.parametrize(
    ("cpus", "unit"), [([0], 2 << 20), ([0] * 4, 512 << 10), ([0] * 8, 256 << 10)]
)
def test_units_of_one_node_share_an_allocation(cpus, unit):
    boot = boot_of_hardware(Hardware.of(memory="1GiB", cpus=len(cpus)))
    assert unit_layout(boot, [list(range(len(cpus)))]).unit == unit


def test_another_build_has_other_sizes():
    config = replace(kernel_config("x86_64"), deferred_pages=False, thp=False)
    boot = boot_of_hardware(Hardware.of(memory="1GiB"), config=config)
    booted = start_kernel(boot)
    assert booted.deferred == {}
    assert not booted.thp
    assert booted.memory.available > 900 << 10


def test_what_cannot_be_is_refused():
    with pytest.raises(BadMachineError, match="no memblock start-up"):
        kernel_config("x86_64", "2.6.24")
    with pytest.raises(BadMachineError, match="is not known"):
        kernel_config("vax")
    with pytest.raises(BadInputError):
        boot_of_hardware(Hardware.of(), cmdline="mem=lots")


def test_memblock_ends_with_the_hand_over():
    booted = booted_of("i386", "512MiB")
    with pytest.raises(BootAllocError):
        booted.memblock.alloc(64, 64)


def test_the_purpose_of_a_call_beats_its_caller():
    book = OwnerBook()
    book.on_call(MemblockCall(kind="memblock_alloc_exact_nid_raw", size=64, caller="inlined"))
    book.on_call(
        MemblockCall(kind="memblock_reserve", base=4096, size=64, caller="memblock_alloc_range_nid")
    )
    assert [held.owner for held in book.ranges([(4096, 4160)])] == ["mem_map"]
    assert owner_of("") == "reserved early"
