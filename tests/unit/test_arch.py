# SPDX-License-Identifier: GPL-2.0-or-later
"""Architectures as data: constants, page-table levels, layouts, zones."""

from itertools import pairwise

import pytest

from physmem.arch import arm64, zone_limits
from physmem.arch.descriptor import Generation, Limits
from physmem.arch.registry import ARCHS, ARCHS_BOOTMEM, arch_for
from physmem.arch.x86_lowmem import find_low_pfn_range, highmem_lines, maxmem, vmalloc_start
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.platform import PLATFORMS
from physmem.lib.errors import BadMachineError
from physmem.machine.layout import zone_names

OLD, NEW = Generation.BOOTMEM, Generation.MEMBLOCK
ALL = [*ARCHS.values(), *ARCHS_BOOTMEM.values()]

# name, generation: page shift, orders, huge shift, pageblock order, struct page, section, physmem
CONSTANTS = [
    ("i386", OLD, 12, 11, 22, 10, 32, 26, 32),
    ("i386-pae", OLD, 12, 11, 21, 9, 32, 30, 36),
    ("x86_64", OLD, 12, 11, 21, 9, 56, 27, 40),
    ("x86_64", NEW, 12, 11, 21, 9, 64, 27, 46),
    ("x86_64-la57", NEW, 12, 11, 21, 9, 64, 27, 52),
    ("i386", NEW, 12, 11, 22, 10, 40, 26, 32),
    ("i386-pae", NEW, 12, 11, 21, 9, 40, 29, 36),
    ("arm64", NEW, 12, 11, 21, 9, 64, 27, 48),
    ("arm64-16k", NEW, 14, 12, 25, 11, 64, 27, 48),
    ("arm64-64k", NEW, 16, 14, 29, 13, 64, 29, 48),
    ("riscv64", NEW, 12, 11, 21, 9, 64, 27, 56),
]


@pytest.mark.parametrize(("name", "generation", *("abcdefg")), CONSTANTS)
def test_constants(name, generation, a, b, c, d, e, f, g):
    arch = arch_for(name, generation)
    assert (arch.page_shift, arch.max_order, arch.huge_shift) == (a, b, c)
    assert (arch.pageblock_order, arch.sizeof_page) == (d, e)
    assert (arch.section_size_bits, arch.max_physmem_bits) == (f, g)
    assert arch.pageblock_order_without_hugetlb == b - 1
    assert arch.max_order_pages == 1 << b - 1


@pytest.mark.parametrize("arch", ALL, ids=lambda arch: f"{arch.name}-{arch.generation.value}")
def test_an_architecture_is_whole(arch):
    real = [level for level in arch.levels if not level.folded]
    assert real[0].name == "pgd"
    assert real[-1].name == "pte"
    # each level's entry maps one table of the next
    for above, below in pairwise(real):
        assert above.shift == below.shift + below.bits
    assert real[-1].shift == arch.page_shift
    assert real[0].shift + real[0].bits == arch.va_bits
    for level in real[1:]:
        assert arch.table_bytes(level) == arch.page_size
    assert {"pgd", "pud", "pmd", "pte"} <= {level.name for level in arch.levels}
    assert (arch.generation is OLD) != ("p4d" in {level.name for level in arch.levels})
    assert arch.name in PLATFORMS
    assert arch.stages
    assert all(stage.text.endswith(".") for stage in arch.stages)
    assert arch.image.size > 0
    assert arch.layout.vmalloc_start < arch.layout.vmalloc_end
    assert arch.canonical(arch.layout.page_offset)
    with pytest.raises(KeyError):
        arch.level("pxd")


def test_folded_levels_have_one_entry_of_the_parents_size():
    arch = arch_for("x86_64")
    p4d = arch.level("p4d")
    assert p4d.folded
    assert p4d.size == arch.level("pgd").size
    assert not arch_for("x86_64-la57").level("p4d").folded


@pytest.mark.parametrize(
    ("name", "generation", "va", "indices"),
    [
        ("i386", OLD, 0xC0123456, (768, 291)),
        ("i386-pae", OLD, 0xC0123456, (3, 0, 291)),
        ("i386-pae", NEW, 0xFFFFF000, (3, 511, 511)),
        ("x86_64", NEW, 0xFFFF888012345678, (273, 0, 145, 325)),
        ("x86_64-la57", NEW, 0xFF11000012345678, (273, 0, 0, 145, 325)),
        ("x86_64", OLD, 0xFFFF810012345678, (258, 0, 145, 325)),
        ("x86_64", NEW, 0xFFFFFFFF81000000, (511, 510, 8, 0)),
    ],
)
def test_indices(name, generation, va, indices):
    arch = arch_for(name, generation)
    assert arch.indices(va) == indices
    assert arch.canonical(va)


def test_canonical_addresses():
    four, five = arch_for("x86_64"), arch_for("x86_64-la57")
    for arch, good, bad in ((four, 0x00007FFFFFFFFFFF, 1 << 47), (five, 1 << 55, 1 << 56)):
        assert arch.canonical(good)
        assert not arch.canonical(bad)
    assert not four.canonical(0xFF11000000000000)
    assert four.level("pgd").index(four.layout.vmalloc_start) == 402
    assert four.level("pgd").index(four.layout.vmemmap_start) == 468


@pytest.mark.parametrize(
    ("page_shift", "va_bits", "shifts", "top", "blocks"),
    [
        (12, 39, (30, 21, 12), 512, {30, 21}),
        (12, 48, (39, 30, 21, 12), 512, {30, 21}),
        (14, 36, (25, 14), 2048, {25}),
        (14, 47, (36, 25, 14), 2048, {25}),
        (14, 48, (47, 36, 25, 14), 2, {25}),
        (16, 42, (29, 16), 8192, {29}),
        (16, 48, (42, 29, 16), 64, {29}),
        (16, 52, (42, 29, 16), 1024, {29}),
    ],
)
def test_levels_of_arm64(page_shift, va_bits, shifts, top, blocks):
    levels = arm64.levels(page_shift, va_bits)
    real = [level for level in levels if not level.folded]
    assert tuple(level.shift for level in real) == shifts
    assert 1 << real[0].bits == top
    assert {level.shift for level in levels if level.leaf} == {*blocks, page_shift}
    groups = {12: (16, 16), 14: (32, 128), 16: (32, 32)}[page_shift]
    assert tuple(level.group for level in levels[-2:]) == groups


def test_layout_of_arm64():
    layout = arch_for("arm64").layout
    assert layout.page_offset == 0xFFFF000000000000
    assert layout.direct_map_bytes == 128 << 40
    assert layout.modules_start == 0xFFFF800000000000
    assert layout.vmalloc_start == layout.image_base == 0xFFFF800008000000
    assert layout.vmalloc_end == 0xFFFFFBFFF0000000
    assert layout.fixaddr_top == 0xFFFFFBFFFE000000
    assert layout.regions["PCI I/O"][0] == 0xFFFFFBFFFE800000
    assert (layout.vmemmap_start, layout.vmemmap_bytes) == (0xFFFFFC0000000000, 2 << 40)
    assert arm64.layout(16, 52).page_offset == (1 << 64) - (1 << 52)


@pytest.mark.parametrize(
    ("name", "vmemmap", "size", "pci"),
    [
        ("riscv64-sv39", 0xFFFFFFC700000000, 4 << 30, 0xFFFFFFC6FF000000),
        ("riscv64", 0xFFFF8D8000000000, 2 << 40, 0xFFFF8D7FFF000000),
        ("riscv64-sv57", 0xFF1C000000000000, 1 << 50, 0xFF1BFFFFFF000000),
    ],
)
def test_layout_of_riscv(name, vmemmap, size, pci):
    layout = arch_for(name).layout
    assert (layout.vmemmap_start, layout.vmemmap_bytes) == (vmemmap, size)
    assert layout.regions["PCI I/O"][0] == layout.fixaddr_top == pci
    assert layout.vmalloc_end == layout.page_offset


def test_zone_names_are_those_that_machines_use():
    for name, arch in ARCHS.items():
        assert zone_names(name) == arch.zones


def test_unknown_architectures():
    with pytest.raises(BadMachineError, match="known are x86_64"):
        arch_for("m68k")
    with pytest.raises(BadMachineError, match="no kernel with bootmem"):
        arch_for("arm64", OLD)


def test_fixmap_grows_downwards():
    assert arch_for("x86_64").layout.fixmap(511) == 0xFFFFFFFFFF600000
    assert arch_for("i386").layout.fixmap(0) == 0xFFFFF000


# -- low and high memory --


def test_the_worked_example_of_32_bits():
    arch = arch_for("i386", OLD)
    limits = find_low_pfn_range(arch, 0x3FFF0)
    assert (limits.max_low_pfn, limits.max_pfn, limits.nr_high) == (229376, 262128, 32752)
    assert highmem_lines(limits) == ["127MB HIGHMEM available.", "896MB LOWMEM available."]
    assert vmalloc_start(arch, limits.max_low_pfn) == 0xF8800000
    assert arch.layout.vmalloc_end == 0xFF7FE000
    assert arch.max_zone_pfns(limits) == {"DMA": 4096, "Normal": 229376, "HighMem": 262128}


def test_a_recorded_kernel_of_6_1():
    arch = arch_for("i386")
    limits = find_low_pfn_range(arch, 0x4AFDA)
    assert limits.max_low_pfn == 0x36BFE
    assert highmem_lines(limits) == ["323MB HIGHMEM available.", "875MB LOWMEM available."]
    assert vmalloc_start(arch, limits.max_low_pfn) == 0xF73FE000


@pytest.mark.parametrize(
    ("max_pfn", "option", "low", "end", "told"),
    [
        (0x10000, "", 0x10000, 0x10000, None),
        (0x10000, "highmem=64M", 0x10000 - 16384, 0x10000, None),
        (0x10000, "highmem=1G", 0x10000, 0x10000, "bigger than pages available (256MB)"),
        (0x10000, "highmem=200M", 0x10000, 0x10000, "lowmem, ignoring it"),
        (0x60000, "", 229376, 0x60000, None),
        (0x60000, "highmem=256M", 229376, 229376 + 65536, None),
        (0x40000, "highmem=256M", 229376, 0x40000, "only 128MB highmem pages available"),
        (1 << 21, "", 229376, 1 << 20, "only 4GB will be used"),
    ],
)
def test_highmem_option(max_pfn, option, low, end, told):
    log = []
    limits = find_low_pfn_range(arch_for("i386", OLD), max_pfn, CommandLine.parse(option), log)
    assert (limits.max_low_pfn, limits.max_pfn) == (low, end)
    assert (told in log[0]) if told else not log
    assert limits.nr_high == end - low


def test_pae_reaches_beyond_4_gib():
    limits = find_low_pfn_range(arch_for("i386-pae", OLD), 1 << 21)
    assert limits.max_pfn == 1 << 21


def test_options_that_move_the_vmalloc_area():
    old, new = arch_for("i386", OLD), arch_for("i386")
    assert maxmem(old, CommandLine.parse("vmalloc=256M")) == 768 << 20
    assert maxmem(old, CommandLine.parse("reservetop=64M")) == 832 << 20
    assert maxmem(new) - maxmem(new, CommandLine.parse("reservetop=64M")) == 64 << 20


# -- zones --


def test_zones_of_x86_64():
    arch = arch_for("x86_64")
    limits = Limits(max_low_pfn=0x240000, max_pfn=0x240000)
    assert arch.max_zone_pfns(limits) == {"DMA": 4096, "DMA32": 1 << 20, "Normal": 0x240000}
    tiny = Limits(max_low_pfn=2048, max_pfn=2048)
    assert arch.max_zone_pfns(tiny) == {"DMA": 2048, "DMA32": 2048, "Normal": 2048}


@pytest.mark.parametrize(
    ("bits", "start", "end", "limit"),
    [
        (32, 1 << 30, 0x60000000, 0x60000000),
        (32, 1 << 30, 9 << 30, 1 << 32),
        (30, 0, 8 << 30, 1 << 30),
        # memory starts behind what 30 bits reach
        (30, 1 << 31, 8 << 30, 1 << 32),
        # memory starts behind 4 GiB: no limit
        (32, 1 << 39, (1 << 39) + (8 << 30), (1 << 39) + (8 << 30)),
    ],
)
def test_max_zone_phys(bits, start, end, limit):
    assert zone_limits.max_zone_phys(bits, start, end) == limit


def test_zones_of_arm64_follow_the_devices():
    limits = Limits(max_low_pfn=1 << 21, max_pfn=1 << 21, dram_end=8 << 30, dma_bits=30)
    assert arch_for("arm64").max_zone_pfns(limits) == {
        "DMA": 1 << 18,
        "DMA32": 1 << 20,
        "Normal": 1 << 21,
    }
