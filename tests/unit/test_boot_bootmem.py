# SPDX-License-Identifier: GPL-2.0-or-later
"""Start-up of 2.6.24: worked figures, log, bootmem's bytes, hand-over, what makes no sense."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from physmem.boot.booted import HEAD
from physmem.boot.mem_init_bootmem import init_section
from physmem.boot.self_made_bootmem import boot_of_hardware_bootmem
from physmem.boot.setup_arch_bootmem import pci_gap, pci_start, ram_frames, run_arch_stages
from physmem.boot.start import boot, boot_hardware, handover_of
from physmem.boot.start_kernel_bootmem import start_kernel_bootmem
from physmem.firmware.e820 import E820Entry
from physmem.firmware.hardware import Hardware
from physmem.firmware.platform import KernelImage
from physmem.lib.errors import BadInputError, BadMachineError, BootAllocError
from physmem.machine.handover import hand_over

PAGE = 4096
M, G = 1 << 20, 1 << 30
OLD = "2.6.24"

# of the size that makes 1116 frames reserved in the worked example
IMAGE_64 = KernelImage(
    start=0x200000, end=0x655000, code_kib=2489, rwdata_kib=1318, init_kib=320, bss_kib=300
)
PC_64 = Hardware(
    e820=(
        E820Entry(0, 0x9FC00),
        E820Entry(0x9FC00, 0x400, 2),
        E820Entry(0xE0000, 0x20000, 2),
        E820Entry(M, 524165 * PAGE - M),
        E820Entry(524165 * PAGE, 0x80000000 - 524165 * PAGE, 3),
    ),
    image=IMAGE_64,
    ebda=0x9FC00,
    cpu_domain=(0,),
)
PC_32 = Hardware(
    arch="i386",
    e820=(
        E820Entry(0, 0x9FC00),
        E820Entry(0x9FC00, 0x400, 2),
        E820Entry(0xF0000, 0x10000, 2),
        E820Entry(M, 0x3FFF0000 - M),
        E820Entry(0x3FFF0000, 0x10000, 3),
    ),
    ebda=0x9FC00,
)


@cache
def _booted(name):
    if name == "2 GiB":
        return boot_hardware(PC_64, kernel=OLD)
    if name == "1 GiB":
        return boot_hardware(PC_32, kernel=OLD)
    arch, memory, nodes = name.split()
    hardware = Hardware.of(memory=memory, arch=arch, nodes=int(nodes), cpus=2 * int(nodes))
    return boot_hardware(hardware, kernel=OLD)


MACHINES = ("2 GiB", "1 GiB", "x86_64 8GiB 2", "i386 256MiB 1", "i386-pae 6GiB 1", "x86_64 64GiB 4")


def _zones(booted):
    return {(zone.node, zone.name): zone for zone in booted.memory.zones}


# ---- worked figures ----------------------------------------------------------------------------


def test_2_gib_64_bit_zones():
    zones = _zones(_booted("2 GiB"))
    dma, dma32, normal = (zones[0, name] for name in ("DMA", "DMA32", "Normal"))
    assert (dma.spanned_pages, dma.present_pages, dma.pcp_batch) == (4096, 2827, 1)
    assert (dma32.spanned_pages, dma32.present_pages, dma32.pcp_batch) == (520069, 512959, 31)
    assert normal.spanned_pages == normal.present_pages == 0
    assert dma.watermark[:3] == (7, 8, 10)
    assert dma32.watermark[:3] == (1428, 1785, 2142)
    assert dma.lowmem_reserve == (0, 2003, 2003, 2003)
    assert (dma.pcp_high, dma32.pcp_high) == (0, 186)
    assert _booted("2 GiB").memory.min_free_kbytes == 5745


def test_1_gib_32_bit_zones():
    zones = _zones(_booted("1 GiB"))
    found = [zones[0, name] for name in ("DMA", "Normal", "HighMem")]
    assert [zone.spanned_pages for zone in found] == [4096, 225280, 32752]
    assert [zone.present_pages for zone in found] == [4064, 223520, 32497]
    assert [zone.watermark[:3] for zone in found] == [
        (17, 21, 25),
        (936, 1170, 1404),
        (32, 66, 100),
    ]
    assert found[0].lowmem_reserve == (0, 873, 1000, 1000)
    assert found[1].lowmem_reserve == (0, 0, 1015, 1015)
    assert [zone.pcp_batch for zone in found] == [1, 31, 7]
    assert _booted("1 GiB").memory.min_free_kbytes == 3816


def test_2_gib_log():
    log = _booted("2 GiB").log
    wanted = """\
BIOS-provided physical RAM map:
 BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)
Entering add_active_range(0, 256, 524165) 1 entries of 3200 used
end_pfn_map = 524288
kernel direct mapping tables up to 80000000 @ 8000-b000
No NUMA configuration found
Faking a node at 0000000000000000-000000007ff85000
Bootmem setup node 0 0000000000000000-000000007ff85000
 [ffffe20000000000-ffffe200001fffff] PMD ->ffff810001200000 on node 0
 [ffffe20000200000-ffffe200003fffff] PMD ->ffff810001600000 on node 0
Zone PFN ranges:
  DMA             0 ->     4096
  DMA32        4096 ->  1048576
  Normal    1048576 ->  1048576
Movable zone start PFN for each node
early_node_map[2] active PFN ranges
    0:        0 ->      159
    0:      256 ->   524165
On node 0 totalpages: 524068
  DMA zone: 56 pages used for memmap
  DMA zone: 1116 pages reserved
  DMA zone: 2827 pages, LIFO batch:0
  DMA32 zone: 7110 pages used for memmap
  DMA32 zone: 512959 pages, LIFO batch:31
  Normal zone: 0 pages used for memmap
  Movable zone: 0 pages used for memmap
SMP: Allowing 1 CPUs, 0 hotplug CPUs
PERCPU: Allocating 33288 bytes of per cpu data
Built 1 zonelists in Node order, mobility grouping on.  Total pages: 515786
Policy zone: DMA32
PID hash table entries: 4096 (order: 12, 32768 bytes)
Dentry cache hash table entries: 262144 (order: 9, 2097152 bytes)
Inode-cache hash table entries: 131072 (order: 8, 1048576 bytes)
Mount-cache hash table entries: 256
Freeing unused kernel memory: 320k freed"""
    at = -1
    for line in wanted.split("\n"):
        at = log.index(line, at + 1)


def test_1_gib_log():
    log = _booted("1 GiB").log
    wanted = """\
127MB HIGHMEM available.
896MB LOWMEM available.
Entering add_active_range(0, 0, 262128) 0 entries of 256 used
Zone PFN ranges:
  DMA             0 ->     4096
  Normal       4096 ->   229376
  HighMem    229376 ->   262128
early_node_map[1] active PFN ranges
    0:        0 ->   262128
On node 0 totalpages: 262128
  DMA zone: 32 pages used for memmap
  DMA zone: 0 pages reserved
  DMA zone: 4064 pages, LIFO batch:0
  Normal zone: 223520 pages, LIFO batch:31
  HighMem zone: 32497 pages, LIFO batch:7
Built 1 zonelists in Zone order, mobility grouping on.  Total pages: 260081
PID hash table entries: 4096 (order: 12, 16384 bytes)
Dentry cache hash table entries: 131072 (order: 7, 524288 bytes)
Inode-cache hash table entries: 65536 (order: 6, 262144 bytes)
virtual kernel memory layout:
    pkmap   : 0xff800000 - 0xffc00000   (4096 kB)
    vmalloc : 0xf8800000 - 0xff7fe000   ( 111 MB)
    lowmem  : 0xc0000000 - 0xf8000000   ( 896 MB)
      .text : 0xc0100000 - 0xc02cd800   (1846 kB)
Mount-cache hash table entries: 512
Freeing unused kernel memory: 244k freed"""
    at = -1
    for line in wanted.split("\n"):
        at = log.index(line, at + 1)
    memory = next(line for line in log if line.startswith("Memory: "))
    assert "/1048512k available (1846k kernel code, " in memory
    assert memory.endswith(f"k reserved, 785k data, 244k init, {32752 * 4}k highmem)")


def test_places_for_devices():
    # as a machine of 2007 printed them
    gap = pci_gap([E820Entry(M, 0x1FF00000), E820Entry(0xFFFF0000, 0x10000, 2)])
    assert gap == (0x20000000, 0xDFFF0000)
    assert pci_start(*gap) == 0x30000000
    assert pci_gap([E820Entry(0, 4 * G - 4 * M)]) is None


def test_init_section_lies_behind_the_data():
    start, end = init_section(IMAGE_64)
    assert start % PAGE == end % PAGE == 0
    assert end - start == 320 << 10
    assert start >= 0x200000 + (2489 + 1318 << 10)
    told = replace(IMAGE_64, init_start=0x300000, init_end=0x301000)
    assert init_section(told) == (0x300000, 0x301000)


# ---- bootmem -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "nodes"), [("i386", 1), ("x86_64", 1), ("x86_64", 2)])
def test_the_bitmap_lies_in_memory(arch, nodes):
    hardware = Hardware.of(memory="1GiB", arch=arch, nodes=nodes, cpus=nodes)
    state = boot_of_hardware_bootmem(hardware)
    run_arch_stages(state)
    assert len(state.bootmem.nodes) == nodes
    free = 0
    for node in state.bootmem.nodes:
        stored = np.frombuffer(state.ram.read(node.map_pfn * PAGE, node.map_size), np.uint8)
        bits = np.unpackbits(stored, bitorder="little")[: node.pages]
        free += int((bits == 0).sum())
        assert int((bits == 0).sum()) == node.free_pages
        own = range(node.map_pfn, node.map_pfn - (-node.map_size // PAGE))
        assert all(bits[pfn - node.start_pfn] for pfn in own)
        state.bootmem.validate()
    # and a change of the bytes is a change of the map
    node = state.bootmem.nodes[0]
    at = next(pfn for pfn in range(node.pages) if not node.bits.test(pfn))
    state.ram.view(node.map_pfn * PAGE + at // 8, 1)[0] |= 1 << at % 8
    assert node.bits.test(at)


@pytest.mark.parametrize("name", MACHINES)
def test_bootmem_is_unusable_afterwards(name):
    bootmem = _booted(name).memory.bootmem
    assert _booted(name).memory.memblock is None
    with pytest.raises(BootAllocError, match="page allocator"):
        bootmem.alloc(64)
    with pytest.raises(BootAllocError, match="page allocator"):
        bootmem.alloc_low_pages(PAGE)
    with pytest.raises(BootAllocError):
        bootmem.free_all(bootmem.nodes[0].nid)
    with pytest.raises(BootAllocError):
        bootmem.reserve(bootmem.nodes[0].start, PAGE, bootmem.nodes[0].nid)


def test_page_tables_come_from_the_right_place():
    state = boot_of_hardware_bootmem(Hardware.of(memory="1GiB", arch="i386"))
    run_arch_stages(state)
    tables = state.setup.direct_map.tables
    assert tables
    assert {table.source for table in tables} == {"bootmem"}
    state = boot_of_hardware_bootmem(PC_64)
    run_arch_stages(state)
    tables = state.setup.direct_map.tables
    assert [table.paddr for table in tables] == [0x8000, 0x9000, 0xA000]
    assert {table.source for table in tables} == {"e820"}


# ---- hand-over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_what_was_given_and_what_was_kept_is_all_memory(name):
    booted = _booted(name).memory
    memory = sum(end - start for start, end in _ram(_booted(name).hardware))
    late = sum(each.nr_pages for each in booted.late)
    given = booted.hand_over.nr_pages + booted.highmem.nr_pages
    kept = sum(held.end - held.start for held in booted.reserved)
    assert kept % PAGE == 0
    assert given + late + kept // PAGE == memory
    assert booted.totalram_pages == given + late
    assert sum(zone.managed_pages for zone in booted.zones) == given + late
    figures = booted.memory
    assert figures.reserved // 4 == memory - given


@pytest.mark.parametrize("name", MACHINES)
def test_no_frame_is_given_twice(name):
    booted = _booted(name).memory
    spans = []
    for blocks in (booted.hand_over, booted.highmem):
        spans += zip(blocks.pfn, blocks.pfn + (1 << blocks.order.astype(np.int64)), strict=True)
    spans += [(late.start_pfn, late.end_pfn) for late in booted.late]
    spans += [(held.start // PAGE, -(-held.end // PAGE)) for held in booted.reserved[:1]]
    ordered = np.array(sorted(spans), np.int64)
    assert (ordered[1:, 0] >= ordered[:-1, 1]).all()


@pytest.mark.parametrize("name", MACHINES)
def test_blocks_are_words_of_the_bitmap_or_frames(name):
    booted = _booted(name).memory
    word = 5 if booted.arch.startswith("i386") else 6
    assert set(booted.hand_over.order.tolist()) == {0, word}
    assert booted.hand_over_path == HEAD
    assert not booted.highmem.order.any()


@pytest.mark.parametrize("name", MACHINES)
def test_memory_line_counts_what_is_free_then(name):
    """Frames on a CPU's hot list are not free: only NUMA kernels keep none until later."""
    booted = _booted(name)
    plan = replace(handover_of(booted.memory), early=(), late=(), ram=None, mem_map=())
    tables, _ = hand_over(plan)
    assert int(tables.zones["nr_free_pages"].sum()) * 4 == booted.memory.memory.available
    waiting = int(tables.pageset["count"].sum())
    free = int(tables.zones["nr_free_pages"].sum())
    assert free + waiting == booted.memory.hand_over.nr_pages + booted.memory.highmem.nr_pages
    if booted.memory.boot_pagesets:
        assert waiting == 0


@pytest.mark.parametrize("name", MACHINES)
def test_the_machine_works(name):
    machine = _booted(name).machine().copy()
    machine.validate()
    free = machine.nr_free_pages
    taken = [(machine.alloc_pages(order), order) for order in (0, 3, 10, 0, 9, 1)]
    taken.append((machine.alloc_pages(0, "GFP_HIGHUSER_MOVABLE"), 0))
    machine.validate()
    for pfn, order in taken:
        machine.free_pages(pfn, order)
    machine.drain()
    machine.validate()
    assert machine.nr_free_pages >= free


@pytest.mark.parametrize("name", MACHINES)
def test_the_first_pageblocks_are_set_aside(name):
    """As many as the min watermark fills, none whose first frame is reserved."""
    booted = _booted(name)
    order = booted.memory.pageblock_order
    for zone in booted.machine().snapshot().zones:
        wanted = -(-zone.wmark[0] >> order)
        assert zone.pageblocks.count("X") == wanted
        held = [(held.start // PAGE, -(-held.end // PAGE)) for held in booted.memory.reserved]
        for at, letter in enumerate(zone.pageblocks):
            pfn = max((zone.start >> order) + at << order, zone.start)
            if letter == "X":
                assert not any(start <= pfn < end for start, end in held)


def test_mem_map_lies_in_memory():
    booted = _booted("1 GiB")
    machine = booted.machine()
    held = [held for held in booted.memory.reserved if held.owner == "mem_map"]
    assert [(each.start, each.end) for each in held] == [(16 * M, 24 * M)]
    assert machine.ram.read(16 * M, 4096) == machine.tables.mem_map[:256].tobytes()


def test_init_memory_is_filled_with_a_pattern():
    for name in ("1 GiB", "x86_64 8GiB 2"):
        booted = _booted(name)
        for late in booted.memory.late:
            got = booted.machine().ram.read(late.start_pfn * PAGE, late.nr_pages * PAGE)
            assert set(got) == {0xCC}
    assert [late.what for late in _booted("x86_64 8GiB 2").memory.late] == [
        "initrd",
        "unused kernel",
    ]
    assert [late.after_marks for late in _booted("x86_64 8GiB 2").memory.late] == [False, True]


def test_owners():
    owners = {held.owner for held in _booted("x86_64 8GiB 2").memory.reserved}
    assert {"kernel image", "mem_map", "page tables", "NODE_DATA", "per-CPU areas"} <= owners
    assert {"hash tables", "wait tables", "pageblock flags", "section table"} <= owners
    assert "initial RAM disk" not in owners
    assert "reserved early" not in owners


@pytest.mark.parametrize("name", MACHINES)
def test_stages_tell_all_that_is_taken(name):
    booted = _booted(name).memory
    given = sum(stage.given_pages for stage in booted.stages)
    assert given == booted.totalram_pages
    names = [stage.name for stage in booted.stages]
    assert names.index("free_area_init_nodes") < names.index("mem_init")
    assert names.index("populate_rootfs") < names.index("init_per_zone_pages_min")
    taken = sum(stage.taken for stage in booted.stages)
    assert taken >= sum(held.end - held.start for held in booted.reserved)
    assert all(stage.sentence.endswith(".") for stage in booted.stages)


# ---- NUMA --------------------------------------------------------------------------------------


def test_two_nodes():
    booted = _booted("x86_64 8GiB 2").memory
    assert booted.fallback == {0: (0, 1), 1: (1, 0)}
    assert booted.zonelist_order == "Node"  # most of node 0 is DMA32
    assert booted.zonelists[1] == ((1, 2), (0, 2), (0, 1), (0, 0))
    assert booted.policy_zone == "Normal"
    assert booted.cpu_node == (0, 0, 1, 1)
    assert any(line.startswith("SRAT: Node 1 PXM 1 ") for line in booted.log)
    assert sum("Bootmem setup node" in line for line in booted.log) == 2
    machine = _booted("x86_64 8GiB 2").machine()
    assert machine.layout.zonelist_order == "node"
    pfn = machine.copy().alloc_pages(0, node=1)
    assert pfn >= 5 * G // PAGE


def test_zone_order_on_demand():
    hardware = Hardware.of(memory="8GiB", nodes=2, cpus=2)
    started = boot_hardware(hardware, kernel=OLD, cmdline="numa_zonelist_order=zone")
    booted = started.memory
    assert booted.zonelists[1] == ((1, 2), (0, 2), (0, 1), (0, 0))
    assert booted.zonelists[0] == ((0, 2), (1, 2), (0, 1), (0, 0))
    assert _booted("x86_64 8GiB 2").memory.zonelists[0] == ((0, 2), (0, 1), (0, 0), (1, 2))
    assert any("in Zone order" in line for line in booted.log)
    rows = started.machine().tables.zonelist["zone"].reshape(2, -1)
    assert rows.tolist() == [[2, 3, 1, 0], [3, 2, 1, 0]]


def test_numa_can_be_switched_off_or_faked():
    hardware = Hardware.of(memory="4GiB", nodes=2, cpus=2)
    off = boot_hardware(hardware, kernel=OLD, cmdline="numa=off").memory
    assert "NUMA turned off" in off.log
    assert {zone.node for zone in off.zones} == {0}
    fake = boot_hardware(hardware, kernel=OLD, cmdline="numa=fake=4")
    assert {zone.node for zone in fake.memory.zones} == {0, 1, 2, 3}
    fake.machine().validate()


def test_hash_tables_come_early_without_spreading():
    hardware = Hardware.of(memory="4GiB", nodes=2, cpus=2)
    log = boot_hardware(hardware, kernel=OLD, cmdline="hashdist=0").log
    memory = next(at for at, line in enumerate(log) if line.startswith("Memory: "))
    dentry = next(at for at, line in enumerate(log) if line.startswith("Dentry"))
    assert dentry < memory


def test_a_32_bit_kernel_has_one_node():
    booted = boot_hardware(Hardware.of(memory="1GiB", arch="i386", nodes=2, cpus=2), kernel=OLD)
    assert {zone.node for zone in booted.memory.zones} == {0}
    assert booted.memory.cpu_node == (0, 0)
    assert any("NUMA" in text for text in booted.assumptions)
    booted.machine().validate()


# ---- options -----------------------------------------------------------------------------------


def test_movable_memory():
    machine = boot("2GiB", kernel=OLD, cmdline="movablecore=512M")
    zones = {zone.name: zone for zone in machine.zones}
    assert zones["Movable"].spanned_pages >= 131072 - 1024
    machine.validate()
    pfn = machine.alloc_pages(0, "GFP_HIGHUSER_MOVABLE")
    assert pfn >= zones["Movable"].start_pfn


def test_mem_and_highmem():
    booted = boot_hardware(PC_32, kernel=OLD, cmdline="mem=512M")
    assert "512MB LOWMEM available." in booted.log
    assert booted.machine().ram.size == 512 * M
    booted = boot_hardware(PC_32, kernel=OLD, cmdline="mem=512M highmem=99M")
    zones = _zones(booted)
    assert zones[0, "HighMem"].spanned_pages == 99 * 256
    assert zones[0, "Normal"].spanned_pages == (512 - 99) * 256 - 4096
    booted.machine().validate()  # a zone that starts inside a pageblock
    booted = boot_hardware(PC_64, kernel=OLD, cmdline="mem=1G")
    assert _zones(booted)[0, "DMA32"].spanned_pages == 262144 - 4096
    booted.machine().validate()


def test_little_memory_is_not_grouped():
    image = KernelImage(start=M, end=3 * M, code_kib=1024, rwdata_kib=500, init_kib=100)
    hardware = Hardware(
        arch="i386", e820=(E820Entry(0, 0x9F000), E820Entry(M, 15 * M)), image=image
    )
    booted = boot_hardware(hardware, kernel=OLD)
    assert not booted.memory.grouping
    assert any("mobility grouping off" in line for line in booted.log)
    machine = booted.machine()
    machine.validate()
    assert set(machine.snapshot().zones[0].pageblocks) == {"U"}
    machine.free_pages(machine.alloc_pages(2), 2)


def test_a_user_defined_map():
    line = "memmap=exactmap memmap=640K@0 memmap=255M@1M"
    booted = boot_hardware(Hardware.of(memory="1GiB", arch="i386"), kernel=OLD, cmdline=line)
    assert "user-defined physical RAM map:" in booted.log
    assert "256MB LOWMEM available." in booted.log
    booted.machine().validate()


# ---- nonsense ----------------------------------------------------------------------------------


def _refused(hardware, cmdline="", error=(BadMachineError, BootAllocError, BadInputError)):
    with pytest.raises(error) as caught:
        boot_hardware(hardware, kernel=OLD, cmdline=cmdline).machine()
    return str(caught.value)


def test_other_architectures_have_no_such_kernel():
    assert "i386" in _refused(Hardware.of(arch="arm64"))
    with pytest.raises(BadMachineError, match=r"no kernel with bootmem|not known"):
        boot("1GiB", arch="riscv64", kernel=OLD)


def test_no_memory():
    image = KernelImage(start=16 * M, end=20 * M)
    text = _refused(Hardware(e820=(E820Entry(0, M, 2), E820Entry(M, M, 2)), image=image))
    assert "a machine needs memory" in text
    text = _refused(Hardware(e820=(E820Entry(32 * M, G), E820Entry(2 * G, M)), image=image))
    assert "16 MiB" in text
    for line in ("mem=4K", "mem=1M", "memmap=exactmap"):
        for machine in (PC_64, PC_32):
            assert "memory ends at" in _refused(machine, line)


def test_more_memory_than_sections():
    assert "MAX_PHYSMEM_BITS" in _refused(Hardware.of(memory="2TiB"))


def test_kernelcore_of_more_than_all_memory():
    booted = boot_hardware(PC_64, kernel=OLD, cmdline="kernelcore=64G")
    assert _zones(booted)[0, "Movable"].present_pages == 0
    booted.machine().validate()


def test_bad_options_are_named():
    assert "mem=lots" in _refused(PC_64, "mem=lots", BadInputError)
    assert "numa=fake" in _refused(PC_64, "numa=fake=x")


def test_overlapping_user_memory_is_refused():
    assert _refused(PC_64, "memmap=1G@16M")


def test_holes_everywhere():
    pieces = [E820Entry(0, 0x9FC00), E820Entry(M, 63 * M)]
    pieces += [E820Entry((64 + 2 * at) * M, M + 0x800) for at in range(100)]
    for arch in ("x86_64", "i386"):
        booted = boot_hardware(Hardware(arch=arch, e820=tuple(pieces)), kernel=OLD)
        booted.machine().validate()
        machine = booted.machine().copy()
        machine.free_pages(machine.alloc_pages(8), 8)
        memory = sum(end - start for start, end in _ram(booted.hardware))
        kept = sum(held.end - held.start for held in booted.memory.reserved) // PAGE
        assert booted.memory.totalram_pages + kept == memory


def _ram(hardware):
    state = boot_of_hardware_bootmem(hardware)
    run_arch_stages(state)
    return ram_frames(state)


def test_start_kernel_needs_its_stages_in_order():
    state = boot_of_hardware_bootmem(PC_64)
    with pytest.raises(RuntimeError, match="zones"):
        _ = state.made_zones
    assert start_kernel_bootmem(state).kernel == OLD


# ---- the rest ----------------------------------------------------------------------------------


def test_a_booted_machine_can_be_kept(tmp_path):
    from physmem.machine.machine import open_machine

    machine = _booted("x86_64 8GiB 2").machine()
    machine.save(tmp_path / "machine")
    again = open_machine(tmp_path / "machine")
    assert again == machine
    assert again.origin == machine.origin


def test_json_form():
    import json

    told = json.loads(json.dumps(_booted("1 GiB").to_dict()))
    assert told["kernel"] == OLD
    assert told["zones"][2]["name"] == "HighMem"
    assert told["memory"]["highmem"] == 32752 * 4


def test_a_node_freed_frame_by_frame_is_the_same_machine(monkeypatch):
    """A node at a multiple of 4 GiB: single frames that pass through equal words of frames."""
    from physmem.boot import mem_init_bootmem

    # 3 GiB below the hole for devices and 1 GiB above it: node 1 starts at 8 GiB
    hardware = Hardware.of(memory="8GiB", nodes=2, cpus=2)
    affinity = tuple(
        replace(part, base=8 * G) if part.domain == 1 else part for part in hardware.srat
    )
    e820 = [entry for entry in hardware.e820 if entry.type != 1 or entry.addr < 4 * G]
    e820 += [E820Entry(4 * G, G), E820Entry(8 * G, 4 * G)]
    hardware = replace(hardware, srat=affinity, e820=tuple(e820))
    quick = boot_hardware(hardware, kernel=OLD)
    assert quick.memory.hand_over.nr_pages == quick.memory.totalram_pages - sum(
        late.nr_pages for late in quick.memory.late
    )
    monkeypatch.setattr(mem_init_bootmem, "in_words", lambda runs, _word: runs)
    slow = boot_hardware(hardware, kernel=OLD)
    assert len(slow.memory.hand_over.pfn) > 1 << 20 > len(quick.memory.hand_over.pfn)
    assert quick.machine() == slow.machine()
    quick.machine().validate()
