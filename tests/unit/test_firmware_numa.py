# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes from SRAT and device tree, in kernels with memblock and in 2.6.24."""

from dataclasses import replace
from itertools import pairwise

import pytest

from physmem.arch.descriptor import Generation
from physmem.arch.registry import arch_for
from physmem.arch.setup import Setup
from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.region import MAX_NUMNODES, MEMBLOCK_HOTPLUG, MEMBLOCK_NOMAP
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.devicetree import ArchNuma, scan_memory, scan_reserved_mem
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.hardware import (
    DtMemory,
    DynamicReservation,
    Hardware,
    MemoryAffinity,
    Reservation,
)
from physmem.firmware.numa_bootmem import (
    acpi_scan_nodes,
    add_active_range,
    hash_shift,
    split_nodes_equally,
)
from physmem.firmware.numa_memblock import NumaConfig, NumaInit
from physmem.firmware.srat import nodes_of, slit_valid
from physmem.lib.errors import BadMachineError, BootAllocError

M, G = 1 << 20, 1 << 30


def affinity(domain, start, end, **more):
    return MemoryAffinity(domain=domain, base=start, length=end - start, **more)


def init(srat, ram, *, reserved=(), off=False, **hardware):
    memblock = Memblock()
    for start, end in ram:
        memblock.add(start, end - start)
    for start, end in reserved:
        memblock.reserve(start, end - start)
    end = ram[-1][1]
    machine = Hardware(srat=tuple(srat), **hardware)
    log = []
    config = NumaConfig(max_pfn=end >> 12, max_mapped=end, off=off)
    return NumaInit(machine, memblock, config, log).run(), memblock, log


RAM = [(0x1000, 0x9F000), (M, G)]


def test_a_recorded_machine_of_two_nodes():
    srat = [
        affinity(0, 0, 0xA0000),
        affinity(0, M, 0x28000000),
        affinity(1, 0x28000000, 0x40000000),
    ]
    ram = [(0x1000, 0x9F000), (M, 0x3FFDA000)]
    reserved = [(0, M), (0x1000000, 0x3811000), (0x3FE51000, 0x3FFD0000), (0x3FFE0000, 0x3FFE1BD4)]
    numa, memblock, log = init(srat, ram, reserved=reserved, cpu_domain=(0, 1))
    assert log == [
        "SRAT: PXM 0 -> APIC 0x00 -> Node 0",
        "SRAT: PXM 1 -> APIC 0x01 -> Node 1",
        "ACPI: SRAT: Node 0 PXM 0 [mem 0x00000000-0x0009ffff]",
        "ACPI: SRAT: Node 0 PXM 0 [mem 0x00100000-0x27ffffff]",
        "ACPI: SRAT: Node 1 PXM 1 [mem 0x28000000-0x3fffffff]",
        (
            "NUMA: Node 0 [mem 0x00000000-0x0009ffff] + [mem 0x00100000-0x27ffffff] "
            "-> [mem 0x00000000-0x27ffffff]"
        ),
        "NODE_DATA(0) allocated [mem 0x27fd5000-0x27ffffff]",
        "NODE_DATA(1) allocated [mem 0x3fe26000-0x3fe50fff]",
    ]
    assert [(r.base, r.end, r.nid) for r in memblock.memory.regions] == [
        (0x1000, 0x9F000, 0),
        (M, 0x28000000, 0),
        (0x28000000, 0x3FFDA000, 1),
    ]
    assert [(r.base, r.nid) for r in memblock.reserved.regions] == [
        (0, 0),
        (0x1000000, 0),
        (0x27FD5000, MAX_NUMNODES),
        (0x3FE26000, MAX_NUMNODES),
        (0x3FE51000, 1),
        (0x3FFE0000, MAX_NUMNODES),
    ]
    assert numa.cpu_node == (0, 1)
    assert numa.distance == [[10, 20], [20, 10]]
    assert numa.nodes == {0: (0, 0x28000000), 1: (0x28000000, 0x3FFDA000)}


def test_without_a_description_there_is_one_node():
    numa, memblock, log = init([], RAM, cpu_domain=(0, 7))
    assert log[:2] == [
        "No NUMA configuration found",
        "Faking a node at [mem 0x0000000000000000-0x000000003fffffff]",
    ]
    assert numa.faked
    assert numa.cpu_node == (0, 0)
    assert {region.nid for region in memblock.memory.regions} == {0}


def test_numa_off():
    _, _, log = init([affinity(0, 0, G)], RAM, off=True)
    assert log[0] == "NUMA turned off"


def test_domains_become_nodes_in_order_of_appearance():
    machine = Hardware(srat=(affinity(9, 0, M), affinity(4, M, G)), cpu_domain=(4, 2))
    assert nodes_of(machine) == {4: 0, 2: 1, 9: 2}


def test_nodes_that_overlap_are_refused():
    numa, _, log = init([affinity(0, 0, 600 * M), affinity(1, 512 * M, G)], RAM)
    assert numa.faked
    assert "NUMA: node 0 [mem 0x00000000-0x257fffff] overlaps with node 1" in log[3]


def test_a_node_may_overlap_itself():
    numa, _, log = init([affinity(0, 0, 600 * M), affinity(0, 512 * M, G)], RAM)
    assert not numa.faked
    assert "overlaps with itself" in log[3]
    assert numa.nodes == {0: (0, G)}


def test_blocks_with_another_node_between_stay_apart():
    srat = [affinity(0, 0, 256 * M), affinity(1, 256 * M, 512 * M), affinity(0, 512 * M, G)]
    numa, memblock, log = init(srat, RAM)
    assert not any("->" in line for line in log if line.startswith("NUMA"))
    assert numa.nodes == {0: (0, G), 1: (256 * M, 512 * M)}
    assert [region.nid for region in memblock.memory.regions] == [0, 0, 1, 0]


def test_what_is_no_memory_is_put_aside():
    srat = [affinity(0, 0, 8 * G), affinity(1, 8 * G, 16 * G), affinity(2, 0, 0)]
    numa, _, _ = init(srat, RAM)
    # node 1 has no memory here, node 2 never had
    assert numa.possible == (0, 1, 2)
    assert set(numa.node_data) == {0}


@pytest.mark.parametrize(("missing", "faked"), [(255, False), (256, True)])
def test_a_mib_of_memory_may_be_missing(missing, faked):
    numa, _, log = init([affinity(0, 0, G - missing * 4096)], RAM)
    assert numa.faked == faked
    assert any("NUMA: nodes only cover" in line for line in log) == faked


def test_the_kernels_node_cannot_be_unplugged():
    srat = [
        affinity(0, 0, 512 * M, hotpluggable=True),
        affinity(1, 512 * M, G, hotpluggable=True, nonvolatile=True),
    ]
    _, memblock, log = init(srat, RAM, reserved=[(16 * M, 32 * M)])
    assert log[2].endswith(" hotplug non-volatile")
    assert {r.nid for r in memblock.memory.regions if r.flags & MEMBLOCK_HOTPLUG} == {1}


def test_disabled_entries_do_not_count():
    numa, _, _ = init([affinity(0, 0, G), affinity(5, 0, G, enabled=False)], RAM)
    assert numa.possible == (0,)


def test_distances_take_a_page_of_their_own():
    srat = [affinity(0, 0, 512 * M), affinity(1, 512 * M, G)]
    numa, memblock, log = init(srat, RAM, distance=((10, 31), (17, 10)))
    assert numa.distance == [[10, 31], [17, 10]]
    assert "NUMA: Initialized distance table, cnt=2" in log
    assert memblock.reserved.regions[-1].base == G - 4096
    assert not slit_valid([[10, 31], [10, 10]])
    _, _, log = init(srat, RAM, distance=((10, 10), (17, 10)))
    assert "ACPI: SLIT table looks invalid. Not used." in log
    numa, _, log = init(srat, RAM, distance=((10, 300), (17, 10)))
    assert numa.distance == [[10, 20], [17, 10]]
    assert any("invalid distance parameter, from=0 to=1 distance=300" in line for line in log)


def test_too_many_domains():
    memblock = Memblock()
    memblock.add(M, G - M)
    machine = Hardware(srat=tuple(affinity(n, n * M, n * M + M) for n in range(3)))
    log = []
    config = NumaConfig(max_pfn=G >> 12, max_mapped=G, max_numnodes=2)
    assert NumaInit(machine, memblock, config, log).run().faked
    assert "Too many proximity domains" in log[0]


def test_no_memory_for_a_node_is_a_panic():
    memblock = Memblock()
    memblock.add(M, 4096)
    config = NumaConfig(max_pfn=(M + 4096) >> 12, max_mapped=M + 4096)
    with pytest.raises(BootAllocError, match="in any node"):
        NumaInit(Hardware(), memblock, config, []).run()


# -- 2.6.24 --


def old(srat, memory="1GiB", **hardware):
    machine = replace(Hardware.of(memory=memory), srat=tuple(srat), **hardware)
    table = E820Bootmem(wide=True)
    table.memory_setup(machine.e820)
    log = []
    end_pfn = table.end_of_ram(1 << 34)
    return acpi_scan_nodes(machine, table, end_pfn, log), log


TOP = 0x3FFDA000


def test_one_span_per_node():
    numa, log = old([affinity(0, 0, 256 * M), affinity(1, 256 * M, G), affinity(0, 0, 512 * K)])
    # the last entry lies within the first: reported, accepted
    assert numa.nodes == {0: (0, 256 * M), 1: (256 * M, TOP)}
    assert "overlaps with itself" in log[2]
    assert numa.active == [(0, 159, 0), (256, 65536, 0), (65536, TOP >> 12, 1)]
    assert numa.shift == 28


K = 1 << 10


@pytest.mark.parametrize(
    ("srat", "told"),
    [
        # spans, not entries: a node between the parts of another one is refused
        (
            [affinity(0, 0, 256 * M), affinity(0, 512 * M, G), affinity(1, 256 * M, 512 * M)],
            "overlaps with PXM 0",
        ),
        ([affinity(0, 0, 300 * M), affinity(1, 256 * M, G)], "overlaps with PXM 0"),
    ],
)
def test_conflicts_refuse_everything(srat, told):
    numa, log = old(srat)
    assert numa is None
    assert any(told in line for line in log)
    assert log[-1] == "SRAT: SRAT not used."


def test_small_and_pluggable_nodes_are_dropped():
    numa, _ = old(
        [
            affinity(0, 0, 1020 * M),
            affinity(1, 1020 * M, G),
            affinity(2, 4 * G, 5 * G, hotpluggable=True),
            affinity(3, 5 * G, 6 * G, enabled=False),
        ],
        cpu_domain=(0, 1, 2),
    )
    assert set(numa.nodes) == {0}
    assert numa.cpu_node == (0, 0, 0)
    assert numa.shift == 63


def test_4_gib_may_be_missing_by_mistake():
    numa, _ = old([affinity(0, 0, 6 * G)], "8GiB")
    assert numa is not None
    numa, log = old([affinity(0, 0, 5 * G)], "8GiB")
    assert numa is None
    assert "Not used" in log[-1]


def test_the_hash_from_address_to_node():
    assert hash_shift({0: (0, 1 << 32), 1: (1 << 32, 3 << 31)}) == (32, 2)
    parts = [(0, 7 * M), (7 * M, TOP)]
    numa, log = old([affinity(n, *part) for n, part in enumerate(parts)])
    assert numa.shift == 20
    assert numa.node_map[1] - numa.node_map[0] == (TOP >> 20) + 1 + 127
    assert log[-2].startswith("NUMA: Allocated memnodemap from 8000 - ")
    # a node of an odd size shares a slot with the next
    numa, log = old([affinity(0, 0, 300 * M + 4096), affinity(1, 512 * M, TOP)])
    assert numa.shift == 29
    # two nodes within one step of the hash
    srat = [affinity(0, M, 600 * M), affinity(1, 768 * M, 800 * M), affinity(2, 900 * M, TOP)]
    assert old(srat)[0].shift == 20


def test_distances_of_2_6_24():
    srat = [affinity(0, 0, 512 * M), affinity(1, 512 * M, G)]
    assert old(srat, distance=((10, 15), (16, 10)))[0].distance == [[10, 15], [16, 10]]
    numa, log = old(srat, distance=((10, 5), (16, 10)))
    assert numa.distance == [[10, 20], [20, 10]]
    assert "SLIT table looks invalid" in log[-1]


def test_active_ranges_grow():
    active = []
    for start, end in ((10, 20), (12, 18), (20, 30), (5, 10), (40, 50)):
        add_active_range(active, 0, start, end)
    add_active_range(active, 1, 30, 40)
    assert active == [(5, 30, 0), (40, 50, 0), (30, 40, 1)]


def test_equal_parts():
    table = E820Bootmem(wide=True)
    table.memory_setup(Hardware.of(memory="1GiB").e820)
    parts = split_nodes_equally(table, TOP >> 12, 4)
    assert parts[0][0] == 0
    assert parts[-1][1] == TOP
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert split_nodes_equally(table, TOP >> 12, 40) is None


def start(cmdline="", memory="2GiB", nodes=2):
    arch = arch_for("x86_64", Generation.BOOTMEM)
    machine = replace(Hardware.of(memory=memory, nodes=nodes, cpus=2), image=arch.image)
    bootmem = Bootmem(BootmemConfig(smp_cache_bytes=128))
    line = CommandLine.parse(cmdline)
    return Setup(arch=arch, hardware=machine, bootmem=bootmem, cmdline=line).run()


def test_2_6_24_starts_on_two_nodes():
    setup = start()
    assert "Bootmem setup node 0 0000000000000000-0000000040000000" in setup.log
    assert "Bootmem setup node 1 0000000040000000-000000007ffda000" in setup.log
    # a reserved range at 1 TiB makes room for many tables, of which 17 are used
    told = "kernel direct mapping tables up to 10000000000 @ 5f0000-9f2000"
    assert told in setup.log
    assert setup.direct_map.nr_tables() == 17
    # first fit: below the kernel, and at the start of the second node
    assert setup.node_data == {0: (0x8000, 0xD000), 1: (0x40000000, 0x40005000)}
    assert [node.nid for node in setup.bootmem.nodes] == [0, 1]
    setup.bootmem.validate()
    assert setup.cpu_node == (0, 1)
    # tables, kernel, page 0, EBDA, trampoline below 16 MiB
    assert setup.dma_reserve == 17 + 0x3F0 + 1 + 1 + 2


def test_2_6_24_fakes_nodes():
    setup = start("numa=fake=4")
    assert len(setup.node_data) == 4
    assert setup.cpu_node == (0, 1)
    assert "Faking node 1 at" in "".join(setup.log)
    setup = start("numa=fake=64")
    assert "Not enough memory for each node.  NUMA emulation disabled." in setup.log
    assert len(setup.node_data) == 2
    with pytest.raises(BadMachineError, match="write a number of equal nodes"):
        start("numa=fake=2*512")
    assert "NUMA turned off" in start("numa=off").log


# -- device trees --


def tree(banks, *, off=False, **hardware):
    memblock, log = Memblock(), []
    machine = Hardware(arch="arm64", memory=tuple(banks), **hardware)
    scan_memory(memblock, machine, log)
    scan_reserved_mem(memblock, machine, log)
    numa = ArchNuma(memblock, machine, log, sizeof_pgdat=0x2C80, max_numnodes=16)
    return numa, memblock, log, numa.run(off=off)


def test_banks_are_cut_to_whole_pages():
    memblock, log = Memblock(), []
    banks = (
        DtMemory(base=G + 1, size=8192),
        DtMemory(base=2 * G + 1, size=4096),
        DtMemory(base=3 * G, size=4095),
        DtMemory(base=4 * G, size=0),
        DtMemory(base=5 * G, size=M, hotpluggable=True),
    )
    scan_memory(memblock, Hardware(arch="arm64", memory=banks), log)
    assert [(s, e) for s, e, _ in memblock.mem_ranges()] == [
        (G + 4096, G + 8192),
        (5 * G, 5 * G + M),
    ]
    assert log == ["OF: fdt: Ignoring memory block 0xc0000000 - 0xc0000fff"]
    assert memblock.memory.regions[-1].flags == MEMBLOCK_HOTPLUG


def test_memory_is_capped_to_what_is_usable():
    _, memblock, _, _ = tree([DtMemory(base=G, size=G)], usable_range=(G + M, 64 * M))
    assert memblock.start_of_dram() == G + M
    assert memblock.phys_mem_size() == 64 * M


def test_reserved_memory():
    reserved = (
        Reservation(base=G, size=M),
        Reservation(base=G + 2 * M, size=M, nomap=True, name="secure"),
        Reservation(base=G, size=4096, nomap=True, name="late"),
        Reservation(base=0, size=0),
    )
    dynamic = (
        DynamicReservation(size=M, alignment=M, ranges=((G + 16 * M, 8 * M),), name="pool"),
        DynamicReservation(size=M, nomap=True, name="any"),
        DynamicReservation(size=64 * G, name="huge"),
    )
    _, memblock, log, _ = tree([DtMemory(base=G, size=64 * M)], reserved=reserved, dynamic=dynamic)
    taken = [(start, end) for start, end, _ in memblock.reserved_ranges()]
    assert (G, G + M) in taken
    assert (G + 23 * M, G + 24 * M) in taken
    nomap = [r.base for r in memblock.memory.regions if r.flags & MEMBLOCK_NOMAP]
    assert nomap == [G + 2 * M, G + 63 * M]
    assert "failed to reserve memory for node 'late'" in log[0]
    assert "allocated memory for 'pool' node" in log[1]
    assert "failed to allocate memory for node 'huge'" in log[3]


def test_a_board_without_node_numbers():
    _, memblock, log, numa = tree([DtMemory(base=G, size=64 * M)])
    assert log[0] == "NUMA: No NUMA configuration found"
    assert log[1] == "NUMA: Faking a node at [mem 0x0000000040000000-0x0000000043ffffff]"
    assert log[2].startswith("NUMA: NODE_DATA [mem 0x")
    assert numa.faked
    # the table of distances of the first attempt was given back
    assert memblock.reserved_size() == 256 + 0x2C80


def test_a_board_with_nodes():
    banks = [DtMemory(base=G, size=64 * M, nid=0), DtMemory(base=2 * G, size=64 * M, nid=2)]
    _, _, log, numa = tree(banks, cpu_domain=(0, 1, 2), distance=((10, 11, 12),) * 3)
    assert numa.possible == (0, 1, 2)
    assert numa.distance[0] == [10, 11, 12]
    assert "NUMA: Initmem setup node 1 [<memory-less node>]" in log
    assert "NUMA: NODE_DATA(1) on node 2" in log
    assert numa.cpu_node == (0, 1, 2)
    assert tree(banks, off=True)[3].faked


def test_banks_that_contradict():
    mixed = [DtMemory(base=G, size=64 * M, nid=0), DtMemory(base=2 * G, size=64 * M)]
    _, _, log, numa = tree(mixed)
    assert numa.faked
    assert "invalid memblk node 1024" in log[0]
    far = [DtMemory(base=G, size=64 * M, nid=16)]
    _, _, log, numa = tree(far)
    assert numa.faked
    assert "exceeds maximum value" in log[0]
    setup = Setup(
        arch=arch_for("riscv64"),
        hardware=Hardware.of(memory="1GiB", arch="riscv64", nodes=8),
        memblock=Memblock(),
    )
    with pytest.raises(BadMachineError, match="kernels of riscv64 have 4 nodes"):
        setup.run()
