# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() stage by stage, against what real kernels logged with memblock=debug."""

from dataclasses import replace

import pytest

from physmem.arch import x86_early
from physmem.arch.arm64_setup import blocks
from physmem.arch.descriptor import Generation
from physmem.arch.registry import ARCHS, arch_for
from physmem.arch.setup import Setup
from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import E820Entry, E820Type
from physmem.firmware.hardware import DtMemory, Hardware, Reservation
from physmem.lib.errors import BadMachineError, BootAllocError

M, G = 1 << 20, 1 << 30

# what two kernels of 6.1 printed, callers left out
LOG_64 = """\
memblock_reserve: [0x0000000001000000-0x00000000037fffff]
memblock_reserve: [0x0000000000000000-0x000000000000ffff]
memblock_reserve: [0x000000001fe51000-0x000000001ffcffff]
memblock_reserve: [0x000000000009f000-0x00000000000fffff]
BIOS-provided physical RAM map:
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
BIOS-e820: [mem 0x0000000000100000-0x000000001ffd9fff] usable
BIOS-e820: [mem 0x000000001ffda000-0x000000001fffffff] reserved
BIOS-e820: [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
BIOS-e820: [mem 0x000000fd00000000-0x000000ffffffffff] reserved
NX (Execute Disable) protection: active
e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
e820: remove [mem 0x000a0000-0x000fffff] usable
last_pfn = 0x1ffda max_arch_pfn = 0x400000000
memblock_reserve: [0x0000000003800000-0x0000000003810fff]
memblock_add: [0x0000000000001000-0x000000000009fbff]
memblock_add: [0x0000000000100000-0x000000001ffd9fff]
memblock_phys_alloc_range: 28672 bytes align=0x1000 from=0x0000000000000000 \
max_addr=0x0000000000100000
memblock_reserve: [0x0000000000098000-0x000000000009efff]
memblock_reserve: [0x0000000000000000-0x00000000000fffff]
memblock_phys_alloc_range: 2097152 bytes align=0x200000 from=0x0000000000100000 \
max_addr=0x000000001ffda000
memblock_reserve: [0x000000001fc00000-0x000000001fdfffff]
memblock_phys_free: [0x000000001fc00000-0x000000001fdfffff]
RAMDISK: [mem 0x1fe51000-0x1ffcffff]
No NUMA configuration found
Faking a node at [mem 0x0000000000000000-0x000000001ffd9fff]
memblock_reserve: [0x000000001fe26000-0x000000001fe50fff]
NODE_DATA(0) allocated [mem 0x1fe26000-0x1fe50fff]
"""
LOG_32 = """\
memblock_reserve: [0x01000000-0x01ee2fff]
memblock_reserve: [0x00000000-0x0000ffff]
memblock_reserve: [0x4ae4d000-0x4afcffff]
memblock_reserve: [0x0009f000-0x000fffff]
BIOS-provided physical RAM map:
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
BIOS-e820: [mem 0x0000000000100000-0x000000004afd9fff] usable
BIOS-e820: [mem 0x000000004afda000-0x000000004affffff] reserved
BIOS-e820: [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
Notice: NX (Execute Disable) protection missing in CPU!
e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
e820: remove [mem 0x000a0000-0x000fffff] usable
last_pfn = 0x4afda max_arch_pfn = 0x100000
found SMP MP-table at [mem 0x000f5b90-0x000f5b9f]
memblock_reserve: [0x000f5b90-0x000f5b9f]
memblock_reserve: [0x000f5ba0-0x000f5c77]
memblock_reserve: [0x01ee3000-0x01ef2fff]
memblock_add: [0x00001000-0x0009fbff]
memblock_add: [0x00100000-0x4afd9fff]
initial memory mapped: [mem 0x00000000-0x023fffff]
memblock_phys_alloc_range: 16384 bytes align=0x1000 from=0x00000000 max_addr=0x00100000
memblock_reserve: [0x0009b000-0x0009efff]
memblock_reserve: [0x00000000-0x000fffff]
memblock_phys_alloc_range: 4194304 bytes align=0x400000 from=0x00100000 max_addr=0x36bfe000
memblock_reserve: [0x36400000-0x367fffff]
memblock_phys_free: [0x36400000-0x367fffff]
RAMDISK: [mem 0x4ae4d000-0x4afcffff]
memblock_phys_alloc_range: 1585152 bytes align=0x1000 from=0x00000000 max_addr=0x36bfe000
memblock_reserve: [0x36a7b000-0x36bfdfff]
Allocated new RAMDISK: [mem 0x36a7b000-0x36bfdec8]
Move RAMDISK from [mem 0x4ae4d000-0x4afcfec8] to [mem 0x36a7b000-0x36bfdec8]
memblock_phys_free: [0x4ae4d000-0x4afcffff]
ACPI: Reserving FACP table memory at [mem 0x4afe1931-0x4afe19a4]
memblock_reserve: [0x4afe1931-0x4afe19a4]
323MB HIGHMEM available.
875MB LOWMEM available.
  mapped low ram: 0 - 36bfe000
  low ram: 0 - 36bfe000
"""


def run(machine, cmdline="", **more):
    """Run all stages; the log holds memblock's calls, too, without their callers."""
    log = []

    def note(call):
        log.append(replace(call, caller="").line(bits))

    arch = arch_for(machine.arch)
    bits = 32 if arch.pa_bits == 32 else 64
    memblock = Memblock(MemblockConfig(phys_addr_bits=bits), on_call=note)
    line = CommandLine.parse(cmdline)
    setup = Setup(arch=arch, hardware=machine, memblock=memblock, cmdline=line, log=log, **more)
    return setup.run()


def test_a_64_bit_kernel_line_by_line():
    machine = replace(Hardware.of(memory="512MiB"), huge_1g=False)
    assert run(machine).log == LOG_64.splitlines()


def test_a_32_bit_kernel_line_by_line():
    machine = replace(
        Hardware.of(memory="1200MiB", arch="i386"),
        initrd=(0x4AE4D000, 0x4AFCFEC9),
        mp_table=(Reservation(base=0xF5B90, size=0x10), Reservation(base=0xF5BA0, size=0xD8)),
        acpi_tables=(Reservation(base=0x4AFE1931, size=0x74, name="FACP"),),
        real_mode_bytes=16384,
    )
    setup = run(machine)
    assert setup.log == LOG_32.splitlines()
    assert setup.initrd == (0x36A7B000, 0x36BFDEC9)
    assert setup.boot.current_limit == 0x36BFE000


def test_node_descriptors_of_newer_kernels_are_not_whole_pages():
    machine = Hardware.of(memory="512MiB")
    setup = run(machine, whole_page_node_data=False)
    assert setup.node_data == {0: (0x1FE26680, 0x1FE51000)}


def test_options_change_the_map_before_anything_is_added():
    setup = run(Hardware.of(memory="4GiB"), "mem=3G")
    assert setup.limits.max_pfn == 0xBFFDA
    assert setup.boot.end_of_dram() == 0xBFFDA000
    assert "user-defined physical RAM map:" in setup.log
    # two lines for a machine that reaches beyond 4 GiB: of all memory, of the lower part
    log = run(Hardware.of(memory="8GiB")).log
    told = [line for line in log if line.startswith("last_pfn")]
    assert told == [
        "last_pfn = 0x240000 max_arch_pfn = 0x400000000",
        "last_pfn = 0xbffda max_arch_pfn = 0x400000000",
    ]


def test_movable_node_grows_from_the_bottom_until_the_nodes_are_known():
    setup = run(Hardware.of(memory="1GiB"), "movable_node")
    assert not setup.boot.bottom_up
    starts = [piece.start for piece in setup.direct_map.pieces]
    assert starts[:2] == [0, 0x3811000]


def test_odd_machines():
    machine = Hardware.of(memory="1GiB")
    soft = (*machine.e820, E820Entry(2 * G, M, E820Type.SOFT_RESERVED))
    setup = run(
        replace(
            machine,
            e820=soft,
            sandy_bridge_graphics=True,
            setup_data=(Reservation(base=0x4000000, size=4096),),
            bios_kib=640,
            ebda=0x9D000,
        )
    )
    taken = [(start, end) for start, end, _ in setup.boot.reserved_ranges()]
    assert (2 * G, 2 * G + M) in taken
    assert (0x20050000, 0x20051000) in taken
    assert (0x4000000, 0x4001000) in taken
    # its frame is memory, and taken
    assert setup.boot.is_memory(0x4000000)
    assert x86_early.bios_start(replace(machine, ebda=0x9D000)) == 0x9D000


def test_a_kernel_with_32_bit_addresses_leaves_out_what_ends_beyond():
    machine = Hardware.of(memory="8GiB", arch="i386")
    setup = Setup(arch=arch_for("i386"), hardware=machine, memblock=Memblock()).run()
    assert setup.boot.end_of_dram() == 0xBFFDA000


def test_mirrored_memory():
    memblock = Memblock(MemblockConfig(mirrored_kernelcore=True))
    machine = replace(Hardware.of(memory="1GiB"), mirror=((512 * M, 64 * M),))
    setup = Setup(arch=arch_for("x86_64"), hardware=machine, memblock=memblock).run()
    assert setup.boot.has_mirror


def test_numa_emulation_of_newer_kernels_is_refused():
    with pytest.raises(BadMachineError, match="numa=fake=2: not modelled"):
        run(Hardware.of(), "numa=fake=2")


def test_no_room_for_the_ram_disk_is_a_panic():
    machine = replace(Hardware.of(memory="1200MiB", arch="i386"), initrd=(700 * M, 1100 * M))
    with pytest.raises(BootAllocError, match="Cannot find place for new RAMDISK"):
        run(machine, "vmalloc=760M")


def test_stages_need_their_predecessors_and_the_right_allocator():
    arch = arch_for("x86_64")
    setup = Setup(arch=arch, hardware=Hardware.of(), memblock=Memblock())
    with pytest.raises(BadMachineError, match="run the stages in order"):
        arch.stages[2].run(setup)
    with pytest.raises(BadMachineError, match="no bootmem"):
        _ = setup.old_boot
    old = arch_for("x86_64", Generation.BOOTMEM)
    with pytest.raises(BadMachineError, match="run the stages in order"):
        old.stages[1].run(Setup(arch=old, hardware=Hardware.of(), bootmem=Bootmem()))
    with pytest.raises(BadMachineError, match="no memblock"):
        arch.stages[0].run(Setup(arch=arch, hardware=Hardware.of()))


@pytest.mark.parametrize("name", [name for name in ARCHS if name.startswith("x86")])
def test_a_terabyte_with_8_nodes(name):
    setup = run(Hardware.of(memory="1TiB", nodes=8, cpus=16, arch=name))
    assert len(setup.node_data) == 8
    assert setup.cpu_node == tuple(cpu // 2 for cpu in range(16))
    assert len(setup.distance) == 8


# -- 2.6.24 --


def old(memory="1GiB", cmdline="", name="i386", **changes):
    arch = arch_for(name, Generation.BOOTMEM)
    machine = replace(Hardware.of(memory=memory, arch=name), image=arch.image, **changes)
    bits = arch.bits_per_long
    bootmem = Bootmem(BootmemConfig(bits_per_long=bits, smp_cache_bytes=arch.smp_cache_bytes))
    line = CommandLine.parse(cmdline)
    return Setup(arch=arch, hardware=machine, bootmem=bootmem, cmdline=line).run()


def test_reservations_of_2_6_24():
    setup = old(
        athlon=True, mp_table=(Reservation(base=0xF5B90, size=16),), initrd=(256 * M, 257 * M)
    )
    assert setup.log[-2:] == ["127MB HIGHMEM available.", "896MB LOWMEM available."]
    assert setup.limits.min_low_pfn == 0x41D
    bootmem = setup.bootmem
    # page 0, page 1, the page for sleep, the trampoline's, two tables: first free is page 6
    assert bootmem.alloc_low(4096, 4096) == 0x6000
    # the last pages below 640 KiB and the disk cannot be had
    for taken in (0x9F000, 0x100000, 0x41C000, 256 * M):
        assert bootmem.alloc_core(0, 4096, 4096, taken, taken + 4096) != taken


def test_a_ram_disk_beyond_low_memory_is_given_up():
    setup = old(initrd=(1000 * M, 1001 * M))
    assert setup.initrd is None
    assert setup.log[-2:] == [
        "initrd extends beyond end of memory (0x3e900000 > 0x38000000)",
        "disabling initrd",
    ]


def test_a_kernel_without_numa_has_one_node():
    arch = replace(arch_for("x86_64", Generation.BOOTMEM), max_numnodes=1)
    machine = replace(Hardware.of(memory="1GiB"), image=arch.image)
    setup = Setup(arch=arch, hardware=machine, bootmem=Bootmem()).run()
    assert setup.node_data == {0: (0, 0)}
    assert setup.active_regions == [(0, 159, 0), (256, 0x3FFDA, 0)]


def test_what_lies_beyond_memory_is_not_reserved():
    far = (Reservation(base=0xFFFE0000, size=16), Reservation(base=1 << 45, size=16))
    setup = old(name="x86_64", mp_table=far)
    assert setup.log[-1] == "reserve_bootmem: illegal reserve 200000000000 4096"


def test_bad_kernel_panics():
    with pytest.raises(BootAllocError, match="Cannot find space for the kernel page tables"):
        old("64MiB", name="x86_64", e820=(E820Entry(0, 0x9000), E820Entry(1 << 40, G, 2)))


# -- machines with a device tree --


def board(banks, cmdline="", arch="arm64", **more):
    machine = replace(Hardware.of(memory="1GiB", arch=arch), memory=tuple(banks), **more)
    return run(machine, cmdline)


def test_memory_that_does_not_fit_into_the_linear_map():
    setup = board([DtMemory(base=G, size=G), DtMemory(base=(1 << 47) + 512 * M, size=G)])
    assert setup.boot.end_of_dram() == (1 << 47) + G
    assert "Memory doesn't fit in the linear mapping, VA_BITS too small" in setup.log
    # beyond what the machine's addresses reach
    setup = board([DtMemory(base=G, size=G), DtMemory(base=1 << 40, size=G)], pa_bits=36)
    assert setup.boot.end_of_dram() == 2 * G


def test_a_kernel_that_lies_high_keeps_the_top():
    high = 1 << 47
    image = replace(Hardware.of(arch="arm64").image, start=high + 2 * G, end=high + 2 * G + 32 * M)
    image = replace(image, init_start=0, init_end=0, boot_tables=(0, 0))
    banks = [DtMemory(base=G, size=G), DtMemory(base=high, size=4 * G)]
    setup = board(banks, image=image, initrd=(high + 3 * G, high + 3 * G + M), dtb=None)
    assert setup.boot.end_of_dram() == high + 2 * G + 32 * M
    assert setup.min_alloc_addr == 3 * G


@pytest.mark.parametrize("arch", ["arm64", "riscv64"])
def test_mem_limits_boards_too(arch):
    setup = run(Hardware.of(memory="2GiB", arch=arch), "mem=256M")
    assert "Memory limited to 256MB" in setup.log
    assert setup.boot.phys_mem_size() in {256 * M, 256 * M + 0x163000}


def test_a_ram_disk_outside_of_memory_is_given_up():
    banks = [DtMemory(base=G, size=G)]
    setup = board(banks, initrd=(8 * M, 9 * M))
    assert setup.initrd is None
    base = 2 * G
    for place, told in (((8 * M, 9 * M), "is not a memory region"), ((base, base + M), "in-use")):
        bank = [DtMemory(base=base, size=G)]
        image = replace(Hardware.of(arch="riscv64").image, start=base, end=base + 16 * M)
        setup = board(bank, arch="riscv64", initrd=place, image=image)
        assert setup.initrd is None
        assert any(told in line for line in setup.log)


@pytest.mark.parametrize("arch", ["arm64", "riscv64"])
def test_no_memory_at_all(arch):
    with pytest.raises(BadMachineError, match="give the machine some"):
        board([DtMemory(base=G, size=1)], arch=arch)


def test_riscv_loses_what_lies_beyond_its_linear_map():
    banks = [DtMemory(base=2 * G, size=G), DtMemory(base=200 * G, size=G)]
    setup = board(banks, arch="riscv64-sv39")
    assert setup.boot.end_of_dram() == 3 * G
    assert setup.limits.max_pfn == 3 * G >> 12


def test_blocks_are_the_largest_that_are_aligned():
    sizes = (4096, 2 * M, G)
    found = list(blocks(G - 3 * M, 2 * G + 5 * M + 4096, sizes))
    assert found == [
        (G - 3 * M, G - 2 * M, 4096),
        (G - 2 * M, G, 2 * M),
        (G, 2 * G, G),
        (2 * G, 2 * G + 4 * M, 2 * M),
        (2 * G + 4 * M, 2 * G + 5 * M + 4096, 4096),
    ]
    assert list(blocks(4096, 8192, sizes)) == [(4096, 8192, 4096)]
