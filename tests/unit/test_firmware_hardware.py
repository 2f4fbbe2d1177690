# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines from a few words, from TOML and from /proc/iomem; and machines that cannot exist."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.firmware.e820 import E820Entry, E820Type
from physmem.firmware.hardware import (
    DtMemory,
    DynamicReservation,
    Hardware,
    MemoryAffinity,
    Reservation,
)
from physmem.firmware.iomem import parse_iomem, read_iomem
from physmem.firmware.platform import PLATFORMS, KernelImage
from physmem.firmware.size import memparse, parse_size
from physmem.firmware.toml import KEYS, parse_toml, read_machine
from physmem.firmware.toml_write import to_toml, write_machine
from physmem.lib.errors import BadInputError, BadMachineError

M, G = 1 << 20, 1 << 30


# -- a few words --


@pytest.mark.parametrize("arch", [*PLATFORMS])
@pytest.mark.parametrize("memory", ["64MiB", "512MiB", "3.5GiB", "16GiB", "100GiB"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_short_forms_are_whole(arch, memory, nodes):
    if arch.startswith("i386") and memory == "100GiB":
        return
    machine = Hardware.of(memory=memory, arch=arch, nodes=nodes, cpus=4)
    total = parse_size(memory)
    firmware = PLATFORMS[arch].firmware_bytes
    if machine.e820:
        ram = sum(e.size for e in machine.e820 if e.type == E820Type.RAM)
        assert total - firmware - M < ram <= total
    else:
        assert sum(bank.size for bank in machine.memory) == total
    assert machine.nr_cpus == 4
    assert machine.cpu_domain[-1] == nodes - 1
    assert len(machine.domains) == nodes
    assert len(machine.distance) == (nodes if nodes > 1 else 0)
    assert machine.image is PLATFORMS[arch].image


def test_a_pc_is_laid_out_as_its_emulator_does():
    machine = Hardware.of(memory="1GiB", nodes=2)
    assert [(entry.domain, entry.base, entry.end) for entry in machine.srat] == [
        (0, 0, 0xA0000),
        (0, 0x100000, 0x20000000),
        (1, 0x20000000, 0x40000000),
    ]
    assert machine.initrd == (0x3FE51000, 0x3FFD0000)
    high = Hardware.of(memory="8GiB", nodes=3).srat
    assert [(entry.domain, entry.base >> 20, entry.end >> 20) for entry in high] == [
        (0, 0, 0),
        (0, 1, 2728),
        (1, 2728, 3072),
        (1, 4096, 6480),
        (2, 6480, 9216),
    ]
    # the hole of HyperTransport is not drawn over memory
    assert len(Hardware.of(memory="2TiB").e820) == 7


@pytest.mark.parametrize(
    ("given_words", "told"),
    [
        ({"memory": "lots"}, "write one such as 512MiB"),
        ({"memory": 0}, "need more; give it"),
        ({"memory": "16MiB"}, "need more; give it"),
        ({"memory": 1 << 60}, "takes at most 65536 GiB"),
        ({"memory": "1TiB", "arch": "i386"}, "takes at most 64 GiB"),
        ({"arch": "vax"}, "known are x86_64"),
        ({"nodes": 0}, "a machine has 1 to 64"),
        ({"nodes": 65}, "a machine has 1 to 64"),
        ({"nodes": 2.0}, "a machine has 1 to 64"),
        ({"cpus": True}, "a machine has 1 to 8192"),
        ({"memory": "64MiB", "nodes": 64}, "need at least 512MiB"),
    ],
)
def test_nonsense_words(given_words, told):
    with pytest.raises(BadMachineError, match=told):
        Hardware.of(**given_words)


@pytest.mark.parametrize("arch", [*PLATFORMS])
def test_the_least_memory_that_is_named_is_enough(arch):
    with pytest.raises(BadMachineError) as caught:
        Hardware.of(memory="1MiB", arch=arch)
    least = str(caught.value).split("give it ")[1].split(" or")[0]
    assert Hardware.of(memory=least, arch=arch)


# -- machines that cannot exist --

PC = Hardware.of(memory="1GiB", nodes=2)
BOARD = Hardware.of(memory="1GiB", nodes=2, arch="arm64")
HIGH = (E820Entry(G, G), E820Entry(3 * G, G))


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (replace(PC, e820=()), "no entry of type"),
        (replace(PC, e820=HIGH), "needs some below 16 MiB"),
        (replace(PC, e820=(E820Entry(0, 0), *PC.e820)), "give it at least one byte"),
        (replace(PC, e820=(E820Entry((1 << 64) - 1, 2), *PC.e820)), "ends beyond"),
        (replace(PC, e820=(E820Entry(0, 1, 0), *PC.e820)), "1 is RAM, 2 reserved"),
        (replace(PC, e820=PC.e820 * 500), "keeps at most 3200"),
        (replace(PC, e820=(*PC.e820, E820Entry(1 << 50, 1 << 50))), "takes at most"),
        (replace(PC, memory=BOARD.memory), "has no device tree"),
        (replace(BOARD, e820=PC.e820), "has a device tree"),
        (replace(BOARD, memory=()), "a machine needs memory"),
        (replace(BOARD, memory=(*BOARD.memory, BOARD.memory[0])), "overlaps"),
        (replace(BOARD, memory=(replace(BOARD.memory[0], nid=4096),)), "write 0 to 1023"),
        (replace(BOARD, memory=tuple(DtMemory(base=n, size=1) for n in range(1025))), "at most"),
        (
            replace(PC, srat=(*PC.srat, MemoryAffinity(domain=1, base=0, length=M))),
            "each byte has one domain",
        ),
        (replace(PC, srat=(MemoryAffinity(domain=0, base=0, length=0),)), "at least one byte"),
        (replace(PC, srat=(MemoryAffinity(domain=-1, base=0, length=1),)), "write 0 or more"),
        (replace(PC, cpu_domain=()), "a machine has 1 to 8192"),
        (replace(PC, cpu_domain=(-1,)), "0 or more"),
        (replace(PC, distance=((10,),)), "2 domains need 2 rows"),
        (replace(PC, distance=((10, 10), (20, 10))), "write 10 on the diagonal"),
        (replace(PC, distance=((10, 300), (20, 10))), "11 to 255"),
        (replace(PC, image=KernelImage(start=8 * G, end=9 * G)), "not in memory"),
        (replace(PC, initrd=(M, M)), "is empty"),
        (replace(PC, initrd=(16 * M, 17 * M)), "image and initrd"),
        (replace(PC, arch="vax"), "not known"),
    ],
)
def test_impossible_machines(machine, told):
    with pytest.raises(BadMachineError, match=told):
        machine.check()


def test_overlaps_within_a_node_are_the_kernels_business():
    again = replace(PC.srat[1])
    assert replace(PC, srat=(*PC.srat, again)).check()
    off = MemoryAffinity(domain=1, base=0, length=M, enabled=False)
    assert replace(PC, srat=(*PC.srat, off)).check()


# -- sizes --


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("0x1000", 4096), ("0x10k", 16384), (" 1.5 GiB ", 3 * G // 2), ("2e", 2 << 60)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1 2", "one", "1X", None, 1.5, True])
def test_no_sizes(text):
    with pytest.raises(BadMachineError):
        parse_size(text)


def test_numbers_of_the_command_line_are_those_of_c():
    assert memparse("0x10M rest") == (16 * M, " rest")
    assert memparse("010") == (8, "")
    for bad in ("", "x", "09"):
        with pytest.raises(BadInputError):
            memparse(bad)


# -- TOML --

FULL = Hardware(
    arch="x86_64",
    e820=(
        E820Entry(0, 0x9FC00),
        E820Entry(M, G, E820Type.RAM),
        E820Entry(2 * G, M, E820Type.RESERVED_KERN),
        E820Entry(3 * G, M, E820Type.SOFT_RESERVED),
        E820Entry(3 * G + M, M, 77),
        E820Entry((1 << 64) - 4096, 4096, E820Type.RESERVED),
    ),
    reserved=(Reservation(base=0x2000, size=0x1000, nomap=True, name='quote " and \\ and \x7f'),),
    dynamic=(DynamicReservation(size=M, alignment=4096, ranges=((0, G),), name="pool"),),
    usable_range=(0, G),
    srat=(
        MemoryAffinity(domain=3, base=0, length=G, hotpluggable=True, nonvolatile=True),
        MemoryAffinity(domain=1, base=G, length=M, enabled=False),
    ),
    cpu_domain=(3, 1),
    distance=((10, 21), (22, 10)),
    image=KernelImage(start=16 * M, end=32 * M, code_kib=5, brk_bytes=9, boot_tables=(1, 2)),
    initrd=(64 * M, 65 * M),
    dtb=(66 * M, 67 * M),
    acpi_tables=(Reservation(base=M, size=5, name="FACP"),),
    setup_data=(Reservation(base=2 * M, size=7),),
    mp_table=(Reservation(base=0xF0000, size=16),),
    mirror=((0, M), (G, M)),
    ebda=0x9FC00,
    ebda_kib=2,
    alt_mem_kib=3,
    bios_kib=640,
    real_mode_bytes=4096,
    huge_1g=False,
    pse=False,
    pge=False,
    nx=False,
    pa_bits=40,
    dma_bits=30,
    sandy_bridge_graphics=True,
    athlon=True,
)


@pytest.mark.parametrize(
    "machine",
    [FULL, *(Hardware.of(memory="4GiB", arch=arch, nodes=2, cpus=3) for arch in PLATFORMS)],
    ids=lambda machine: machine.arch,
)
def test_a_machine_survives_toml(machine, tmp_path):
    path = tmp_path / "machine.toml"
    write_machine(machine, path)
    assert read_machine(path) == machine
    assert to_toml(read_machine(path)) == to_toml(machine)


sizes = st.integers(1, 1 << 40)
machines = st.builds(
    Hardware,
    e820=st.lists(
        st.builds(E820Entry, st.integers(0, 1 << 45), sizes, st.sampled_from([1, 2, 3, 4, 9])),
        max_size=6,
    ).map(lambda more: (E820Entry(0, M), *more)),
    srat=st.lists(
        st.builds(
            MemoryAffinity, domain=st.just(0), base=sizes, length=sizes, enabled=st.booleans()
        ),
        max_size=4,
    ).map(tuple),
    reserved=st.lists(
        st.builds(Reservation, base=sizes, size=sizes, nomap=st.booleans(), name=st.text()),
        max_size=3,
    ).map(tuple),
    ebda=st.integers(0, M),
    nx=st.booleans(),
)


@given(machines)
def test_any_machine_survives_toml(machine):
    text = to_toml(machine)
    try:
        machine.check()
    except BadMachineError:
        return
    # text that a TOML file may not hold as it is must have been escaped
    assert parse_toml(text) == machine


def test_keys_beside_the_short_form_change_it():
    machine = parse_toml(
        """
        memory = "1GiB"
        cpus = [0, 0, 0]
        arch = "arm64"
        dma_bits = 30
        [[reserved]]
        start = "0x50000000"
        size = "1MiB"
        nomap = true
        """
    )
    assert machine.nr_cpus == 3
    assert machine.dma_bits == 30
    assert machine.reserved == (Reservation(base=0x50000000, size=M, nomap=True),)
    assert set(Hardware.__dataclass_fields__) - {"cpu_domain"} <= set(KEYS)


BAD_TOML = [
    ("memory = ", "not TOML: Invalid value"),
    ("nods = 2", "line 1: nods: no such key; did you mean nodes"),
    ("zzzzzzzz = 2", "no such key; known are arch"),
    ("memory = true", "line 1: memory: write a number"),
    ('memory = "many"', "line 1: memory: write a number"),
    ("memory = -1", "write a number"),
    ('arch = 3\nmemory = "1GiB"', "line 1: arch: 3: write text"),
    ('\nmemory = "1GiB"\nnodes = "two"', "line 3: nodes: 'two': write a number"),
    ('memory = "1GiB"\nnx = 1', "line 2: nx: 1: write true or false"),
    ('memory = "1GiB"\n\n[[e820]]\nstart=0\nsize=1\ntype=1', "line 3: e820: not beside memory"),
    ("nodes = 2\n[[e820]]\nstart = 0\nsize = 1\ntype = 1", "only beside memory = a size"),
    ("[[e820]]\nstart = 0\n", "line 1: e820.0.: size is missing"),
    ("[[e820]]\nsize=1\nstart=1\n[[e820]]\nstart=0\nsize='x'", r"line 6: e820\[1\].size: write"),
    ("[[e820]]\nstart=0\nsize=1\ntype='rom'", r"line 4: e820\[0\].type: 'rom': write a number, or"),
    ("[[e820]]\nstart=0\nsise=1", r"line 3: e820\[0\].sise: no such key; did you mean size"),
    ("e820 = [1]", r"line 1: e820\[0\]: 1: write a table with start, size, type"),
    ("e820 = 1", "line 1: e820: 1: write a list"),
    ("initrd = 4", "line 1: initrd: 4: write a table with start, end"),
    ("initrd = { start = 4 }", "line 1: initrd: end is missing"),
    ("[image]\nstart = 1", "line 1: image: end is missing"),
    ("[image]\nstart = 1\nend = 'x'", "line 3: image.end: write a number"),
    ("distance = [[10], 3]", r"distance\[1\]: 3: write a list"),
    ("distance = [[10, 'a']]", r"distance\[0\]: 'a': write a number"),
    ("cpus = ['a']", r"cpus\[0\]: 'a': write a number"),
    ("[[srat]]\ndomain=0\nstart=0\nsize=1\nenabled=2", r"line 5: srat\[0\].enabled: 2: write true"),
    ("[[dynamic]]\nsize=1\nranges=3", r"line 3: dynamic\[0\].ranges: 3: write a list"),
    ("[[reserved]]\nstart=0\nsize=1\nname=3", r"line 4: reserved\[0\].name: 3: write text"),
    ("memory = '2MiB'", "m: memory 2097152: kernel and RAM disk need more"),
    ("arch = 'vax'\nmemory = '1GiB'", "known are x86_64"),
]


@pytest.mark.parametrize(("text", "told"), BAD_TOML)
def test_bad_toml_is_one_error(text, told):
    with pytest.raises(BadInputError, match=told) as caught:
        parse_toml(text, "m")
    assert str(caught.value).startswith("m: ")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInputError, match="give a machine file"):
        read_machine(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="not a text file"):
        read_machine(tmp_path / "binary")
    with pytest.raises(BadInputError):
        read_machine(tmp_path)


# -- /proc/iomem --

IOMEM_PC = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-3ffd9fff : System RAM
  01000000-01e01ef1 : Kernel code
  02000000-02821fff : Kernel rodata
  02a00000-02c45bff : Kernel data
  032ab000-037fffff : Kernel bss
3ffda000-3fffffff : Reserved
40000000-febfffff : PCI Bus 0000:00
  febf4000-febf7fff : 0000:00:02.0
fd00000000-ffffffffff : Reserved
"""
IOMEM_BOARD = """\
09000000-09000fff : pl011@9000000
  09000000-09000fff : 9000000.pl011 pl011@9000000
40000000-5fffffff : System RAM
  40210000-4157ffff : Kernel code
  41580000-419fffff : reserved
  41a00000-41c9ffff : Kernel data
  48000000-48162fff : reserved
60000000-600fffff : reserved
60100000-7fffffff : System RAM
"""


def test_iomem_of_a_pc():
    machine = parse_iomem(IOMEM_PC)
    assert machine.arch == "x86_64"
    assert [(e.addr, e.end, int(e.type)) for e in machine.e820] == [
        (0, 0x1000, 2),
        (0x1000, 0x9FC00, 1),
        (0x9FC00, 0xA0000, 2),
        (0xF0000, 0x100000, 2),
        (0x100000, 0x3FFDA000, 1),
        (0x3FFDA000, 0x40000000, 2),
        (0xFD00000000, 1 << 40, 2),
    ]
    image = machine.image
    assert (image.code_kib, image.rodata_kib, image.rwdata_kib, image.bss_kib) == (
        14343,
        8328,
        2327,
        5460,
    )
    assert parse_iomem(IOMEM_PC, "i386").arch == "i386"


def test_iomem_of_a_board():
    machine = parse_iomem(IOMEM_BOARD)
    assert machine.arch == "arm64"
    assert [(bank.base, bank.end) for bank in machine.memory] == [
        (0x40000000, 0x60000000),
        (0x60100000, 0x80000000),
    ]
    assert machine.reserved == (Reservation(base=0x60000000, size=M, nomap=True, name="reserved"),)
    assert machine.image.init_kib == 4608
    assert parse_iomem(IOMEM_BOARD, "riscv64").arch == "riscv64"


def test_iomem_without_the_kernel():
    assert parse_iomem("00001000-3fffffff : System RAM\n00000000-00000fff : Reserved").image is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty; read it as root"),
        ("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code", "hides them; read"),
        ("hello", "line 1: 'hello' is not of the form"),
        ("00002000-00001000 : System RAM", "ends before it starts"),
        ("00000000-00000fff : Reserved", 'no "System RAM"'),
        ("40000000-5fffffff : System RAM\n60000000-600fffff : Reserved", "below 16 MiB"),
    ],
)
def test_bad_iomem(text, told):
    with pytest.raises(BadInputError, match=told):
        parse_iomem(text)


def test_iomem_from_a_file(tmp_path):
    path = tmp_path / "iomem"
    path.write_text(IOMEM_PC)
    assert read_iomem(path) == parse_iomem(IOMEM_PC)
    assert read_iomem(path, cpus=3).nr_cpus == 3
    with pytest.raises(BadInputError, match="none"):
        read_iomem(tmp_path / "none")


def test_importing_is_light():
    code = (
        "import sys, physmem.arch.registry, physmem.firmware.toml_write;"
        "print([m for m in ('numpy', 'numba', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"[]", "['numpy']"}
