# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of 2.6.24: sizes, zonelists, flags, what they print, files."""

import msgspec
import pytest

from physmem.lib.errors import (
    BadFreeError,
    BadInputError,
    BadMachineError,
    BadRequestError,
    BadStateError,
    OutOfMemoryError,
)
from physmem.machine.build import plan
from physmem.machine.layout import Layout
from physmem.machine.machine import Machine, open_machine
from physmem.machine.present_sizes import (
    lowmem_reserve,
    min_free_kbytes,
    pcp_sizes,
    setup_present_sizes,
    watermarks,
)
from physmem.mm.state import State, decode_state, encode_state
from physmem.mm.zonelist import node_order, prefers_zone_order, zone_ranks
from physmem.views.pagetypeinfo import format_pagetypeinfo, parse_pagetypeinfo

pytestmark = pytest.mark.pure
OLD = {"kernel": "2.6.24"}
I386 = ("DMA", "Normal", "HighMem", "Movable")
X86_64 = ("DMA", "DMA32", "Normal", "Movable")


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "present", "kbytes", "marks", "reserve"),
    [
        (
            I386,
            (4000, 221184, 32768),
            3796,
            [(16, 20, 24), (932, 1165, 1398), (32, 66, 101)],
            [[0, 864, 992, 992], [0, 0, 1024, 1024]],
        ),
        (
            I386,
            (4064, 223520, 32497),
            3816,
            [(17, 21, 25), (936, 1170, 1404), (32, 66, 100)],
            [[0, 873, 1000, 1000], [0, 0, 1015, 1015]],
        ),
        (
            X86_64,
            (2827, 512959),
            5745,
            [(7, 8, 10), (1428, 1785, 2142)],
            [[0, 2003, 2003, 2003], [0, 0, 0, 0]],
        ),
    ],
)
def test_documented_sizes(names, present, kbytes, marks, reserve):
    high = {"HighMem"}
    lowmem = sum(size for name, size in zip(names, present, strict=False) if name not in high)
    assert min_free_kbytes(lowmem) == kbytes
    found = [
        tuple(watermarks(kbytes, size, lowmem, highmem=name in high)[:3])
        for name, size in zip(names, present, strict=False)
    ]
    assert found == marks
    sizes = [*present, *[0] * (len(names) - len(present))]
    assert lowmem_reserve(sizes, names)[: len(reserve)] == reserve


@pytest.mark.parametrize(
    ("pages", "sizes"),
    [
        (3840, (0, 1, 0, 1)),
        (8192, (6, 1, 2, 1)),
        (16384, (18, 3, 6, 1)),
        (32768, (42, 7, 14, 3)),
        (65536, (90, 15, 30, 7)),
        (131072, (186, 31, 62, 15)),
        (262144, (186, 31, 62, 15)),
    ],
)
def test_documented_per_cpu_sizes(pages, sizes):
    assert pcp_sizes(pages) == sizes


def test_a_built_machine_has_these_sizes():
    made = Machine.build("1GiB", arch="i386", cpus=2, **OLD)
    low, normal, high = made.zones
    assert [zone.name for zone in made.zones] == ["DMA", "Normal", "HighMem"]
    assert normal.watermark == (939, 1173, 1408, 0)
    assert (low.pcp_high, normal.pcp_high, high.pcp_high) == (0, 186, 42)
    pcp = made.snapshot().zones[1].pcp[1]
    assert (pcp.high, pcp.batch, pcp.cold_high, pcp.cold_batch) == (186, 31, 62, 15)
    assert high.lowmem_reserve == (0, 0, 0, 0)
    assert low.lowmem_reserve == (0, 880, 1008, 1008)
    made.validate()


def test_sizes_follow_present_pages():
    state, layout = plan("64MiB", "x86_64", 1, 1, "2.6.24")
    for zone in state.zones:
        zone.present -= 512
    setup_present_sizes(state, layout)
    assert state.zones[1].wmark == watermarks(min_free_kbytes(15360), 11776, 15360)
    assert state.zones[1].managed == 12288
    Machine.from_state(state, layout).validate()


def test_memory_comes_from_the_top():
    made = Machine.build("64MiB", **OLD)
    assert made.alloc_pages(10) == (1 << 14) - 1024
    assert made.alloc_pages(10) == (1 << 14) - 2048
    assert Machine.build("64MiB").alloc_pages(10) == 4096


def test_pageblocks_are_set_aside_at_once():
    made = Machine.build("64MiB", **OLD)
    assert made.zones[1].watermark[0] == 192
    assert made.snapshot().zones[1].pageblocks == "X" + "M" * 23
    assert made.frame(4096).endswith("on the Reserve list of node 0, zone DMA32")
    assert made.frame(8192).endswith("on the Movable list of node 0, zone DMA32")


def test_too_little_memory_is_not_grouped():
    made = Machine.build("8MiB", **OLD)
    assert set(made.snapshot().zones[0].pageblocks) == {"U"}
    made.alloc_pages(gfp="GFP_HIGHUSER_MOVABLE")
    made.validate()


def test_what_no_such_machine_is():
    with pytest.raises(BadMachineError, match=r"no kernel with bootmem here \(2\.6\.24\)"):
        Machine.build("1GiB", arch="arm64", **OLD)
    with pytest.raises(BadMachineError, match=r"kernel '2\.4'"):
        Machine.build("1GiB", kernel="2.4")
    with pytest.raises(BadMachineError, match="min_free_kbytes"):
        Machine.build("64MiB", min_free_kbytes=-1, **OLD)
    state, layout = plan("64MiB", "x86_64", 1, 1, "2.6.24")
    with pytest.raises(BadMachineError, match=r"URMXI, Linux 6\.1 has UMRHI"):
        Machine.from_state(state, Layout(zone_names=layout.zone_names))
    with pytest.raises(BadMachineError, match="write node or zone"):
        Machine.from_state(state, Layout(zone_names=X86_64, zonelist_order="x", **OLD))
    state, layout = plan("64MiB", "x86_64", 1, 1)
    with pytest.raises(BadMachineError, match="node order only"):
        Machine.from_state(state, Layout(zone_names=layout.zone_names, zonelist_order="zone"))


# ---- zonelists -----------------------------------------------------------------------------------

PAIRS = [[10, 16, 32, 32], [16, 10, 32, 32], [32, 32, 10, 16], [32, 32, 16, 10]]


def test_documented_node_orders():
    every = [True] * 4
    assert node_order(PAIRS, every, every, local_load=True) == [
        [0, 1, 2, 3],
        [1, 0, 2, 3],
        [2, 3, 0, 1],
        [3, 2, 0, 1],
    ]
    assert node_order(PAIRS, every, every)[1] == [1, 0, 3, 2]
    far = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    without = [True, True, False, True]
    wanted = [[0, 2, 1, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 2, 0, 1]]
    assert node_order(far, every, without, local_load=True) == wanted


def test_when_zones_go_before_nodes():
    gib = 1 << 18
    assert not prefers_zone_order([[(3 * gib, False)], [(gib, False)]])  # nothing low
    assert not prefers_zone_order([[(2 * gib, True)], [(gib, False)]])  # mostly low
    assert prefers_zone_order([[(gib, True), (3 * gib, False)], [(4 * gib, False)]])
    assert not prefers_zone_order([[(3 * gib, True), (gib, False)], [(4 * gib, False)]])
    # a node smaller than the average may have all of its memory low
    assert prefers_zone_order([[(gib, True)], [(4 * gib, False)], [(4 * gib, False)], []])


def test_zones_by_node_and_by_type():
    zones = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 1), (2, 2)]
    assert zone_ranks([1, 2, 0], zones, by_zone=False) == [3, 5, 4, 2, 1, 0]
    assert zone_ranks([1, 2, 0], zones, by_zone=True) == [3, 5, 2, 4, 1, 0]
    assert zone_ranks([0], zones, by_zone=True) == [2, 1, 0]


@pytest.mark.parametrize(("order", "seen"), [("node", "NDn"), ("zone", "NnD"), ("", "NnD")])
def test_low_memory_is_spared(order, seen):
    """A little low memory on the first of two nodes; a request of that one that may use all."""
    like = plan("64MiB", "i386", 1, 1, "2.6.24")[0]
    parts = ((0, "DMA", 0, 1024), (0, "Normal", 1024, 4096), (1, "Normal", 5120, 5120))
    state = State(
        zones=[_zone(like, *part) for part in parts],
        pageblock_order=9,
        migratetypes=like.migratetypes,
    )
    layout = Layout(zone_names=I386, cpu_node=(0, 1), thp=False, zonelist_order=order, **OLD)
    made = Machine.from_state(state, layout)
    got = []
    for _ in range(10 * 2):
        pfn = made.alloc_pages(9, "GFP_HIGHUSER_MOVABLE", cpu=0)
        got.append("D" if pfn < 1024 else "N" if pfn < 5120 else "n")
    assert "".join(dict.fromkeys(got)) == seen
    with pytest.raises(OutOfMemoryError):
        made.alloc_pages(9)


@pytest.mark.parametrize(("cpu", "left"), [(0, 0), (1, 1536)])
def test_reserves_are_kept_from_requests_that_begin_in_a_higher_zone(cpu, left):
    """Not from those that may use one: to node 0, DMA32 of node 1 is no lower zone."""
    like = plan("64MiB", "x86_64", 1, 1, "2.6.24")[0]
    parts = ((0, "DMA32", 0, 1024), (1, "DMA32", 4096, 3072), (1, "Normal", 7168, 1024))
    zones = [_zone(like, *part) for part in parts]
    zones[1].lowmem_reserve = [0, 0, 1500, 1500]
    state = State(zones=zones, pageblock_order=9, migratetypes=like.migratetypes)
    layout = Layout(zone_names=X86_64, cpu_node=(0, 1), thp=False, zonelist_order="node", **OLD)
    made = Machine.from_state(state, layout)
    for _ in range(20):
        try:
            made.alloc_pages(9, "GFP_USER_PAGECACHE", cpu=cpu)
        except OutOfMemoryError:
            break
    assert made.zones[1].free_pages == left


def _zone(state, node, name, start, span):
    free = [[[] for _ in range(5)] for _ in range(11)]
    free[10][2] = list(range(start, start + span, 1024))[::-1]
    return msgspec.structs.replace(
        state.zones[0],
        node=node,
        name=name,
        start=start,
        spanned=span,
        present=span,
        managed=span,
        free=free,
        nr_free=[0] * 10 + [span // 1024],
        pageblocks="M" * (span // 512),
        wmark=[0, 0, 0, 0],
        lowmem_reserve=[0, 0, 0, 0],
        pcp=[],
    )


# ---- requests ------------------------------------------------------------------------------------


def use_up(machine, order, gfp):
    """Allocate until nothing is left for such a request; how many blocks it was."""
    for count in range(1 << 20):
        try:
            machine.alloc_pages(order, gfp)
        except OutOfMemoryError:
            return count
    raise AssertionError("there is no end")


def test_flags_are_those_of_this_kernel():
    made = Machine.build("64MiB", **OLD)
    pfn = made.alloc_pages(gfp="GFP_TEMPORARY")
    assert made.snapshot().zones[1].pcp[0].types[0] == "R" * 2
    assert made.alloc_pages(gfp=0x80000 | 0xD0) == pfn + 1
    with pytest.raises(BadRequestError, match=r"GFP_KERNEL_ACCOUNT.* Linux 2\.6\.24"):
        made.alloc_pages(gfp="GFP_KERNEL_ACCOUNT")
    assert use_up(made, 10, "GFP_USER_PAGECACHE") == 14
    with pytest.raises(OutOfMemoryError, match=r"gfp=GFP_HIGHUSER_MOVABLE\|__GFP_NOWARN,"):
        made.alloc_pages(10, "GFP_HIGHUSER_PAGECACHE|__GFP_NOWARN")


def test_cold_frees():
    made = Machine.build("256MiB", **OLD)
    hot, cold = made.alloc_pages(), made.alloc_pages(gfp="GFP_KERNEL|__GFP_COLD")
    made.free_pages(hot)
    made.free_pages(cold, cold=True)
    pcp = made.snapshot().zones[1].pcp[0]
    assert (pcp.lists[0][0], pcp.lists[1][0]) == (hot, cold)
    with pytest.raises(BadFreeError, match="double free"):
        made.free_pages(cold, cold=True)
    pfn = made.alloc_pages(1)
    with pytest.raises(BadRequestError, match="only single frames"):
        made.free_pages(pfn, 1, cold=True)
    for bad in ({"cpu": 1}, {"cpu": -1}):
        with pytest.raises(BadRequestError):
            made.free_pages(pfn, cold=True, **bad)
    for bad in (-1, 1 << 40, 1 << 80):
        with pytest.raises(BadFreeError):
            made.free_pages(bad, cold=True)
    new = Machine.build("64MiB")
    with pytest.raises(BadRequestError, match=r"6\.1 has no cold"):
        new.free_pages(new.alloc_pages(), cold=True)


def test_many_frames_come_one_after_another():
    made, one = Machine.build("64MiB", **OLD), Machine.build("64MiB", **OLD)
    assert made.alloc_pages_bulk(20) == [one.alloc_pages() for _ in range(20)]
    everything = made.alloc_pages_bulk(1 << 14)
    assert 15000 < len(everything) < (1 << 14) - 20
    assert made.alloc_pages_bulk(5) == []
    made.validate()


def test_a_request_for_one_node_gives_up_early():
    made = Machine.build("32MiB", nodes=2, cpus=2, **OLD)
    assert use_up(made, 0, "GFP_ATOMIC|GFP_THISNODE") > 3000
    low = made.zones[0].watermark[1]
    assert made.zones[0].free_pages + 1 >= low
    assert made.zones[1].free_pages == 4096
    made.alloc_pages(gfp="GFP_ATOMIC|__GFP_THISNODE", cpu=0)


# ---- texts and files -----------------------------------------------------------------------------


def test_pagetypeinfo():
    made = Machine.build("64MiB", **OLD)
    made.alloc_pages(gfp="GFP_TEMPORARY")
    text = made.pagetypeinfo()
    lines = text.splitlines()
    assert lines[3] == f"{'Free pages count per migrate type at order':<43s} " + "".join(
        f"{order:6d} " for order in range(11)
    )
    assert [line[26:43] for line in lines[4:9]] == [
        "type    Unmovable",
        "type  Reclaimable",
        "type      Movable",
        "type      Reserve",
        "type       <NULL>",
    ]
    assert lines[-3] == (
        "Number of blocks type     Unmovable  Reclaimable      Movable      Reserve       <NULL> "
    )
    assert lines[-1].split() == ["Node", "0,", "zone", "DMA32", "0", "1", "22", "1", "0"]
    assert format_pagetypeinfo(parse_pagetypeinfo(text)) == text
    assert ">" not in text.replace("<NULL>", "")
    assert made.buddyinfo().count("\n") == 2


def test_a_state_survives_as_text():
    made = Machine.build("64MiB", **OLD)
    held = [made.alloc_pages(gfp=gfp) for gfp in ("GFP_KERNEL", "GFP_TEMPORARY", "GFP_USER") * 9]
    for pfn in held[::2]:
        made.free_pages(pfn, cold=pfn % 3 == 0)
    state = made.snapshot()
    again = decode_state(encode_state(state), "here")
    assert (again, again.letters) == (state, "URMXI")
    other = Machine.from_state(again, made.layout)
    assert other.snapshot() == state
    for gfp in ("GFP_TEMPORARY", "GFP_KERNEL", "GFP_HIGHUSER_MOVABLE|__GFP_COLD") * 20:
        assert other.alloc_pages(gfp=gfp) == made.alloc_pages(gfp=gfp)
    assert other.snapshot() == made.snapshot()


def test_a_state_that_cannot_be():
    made = Machine.build("64MiB", **OLD)
    made.alloc_pages()
    for change, words in (
        ({"types": ["U", ""]}, "one letter of URMXI for each of 2"),
        ({"types": ["UH", ""]}, "one letter of URMXI for each of 2"),
        ({"cold_batch": 0}, "cold_batch 0"),
        ({"lists": [[1], [], []]}, "3 per-CPU lists"),
    ):
        state = made.snapshot()
        pcp = state.zones[1].pcp[0]
        state.zones[1].pcp[0] = msgspec.structs.replace(pcp, **change)
        with pytest.raises(BadStateError, match=words):
            Machine.from_state(state, made.layout)


def test_types_that_a_state_does_not_tell_are_those_of_the_pageblocks():
    made = Machine.build("64MiB", **OLD)
    made.alloc_pages(gfp="GFP_TEMPORARY")
    state = made.snapshot()
    state.zones[1].pcp[0].types = None
    state.zones[1].pageblocks = state.zones[1].pageblocks.replace("R", "U")
    again = Machine.from_state(state, made.layout).snapshot()
    assert again.zones[1].pcp[0].types == ["UU", ""]


def test_a_machine_survives_in_a_file(tmp_path):
    made = Machine.build("64MiB", cpus=2, **OLD)
    made.free_pages(made.alloc_pages(gfp="GFP_TEMPORARY|__GFP_COLD"), cold=True)
    made.save(tmp_path / "machine")
    again = open_machine(tmp_path / "machine")
    assert (again, again.layout) == (made, made.layout)
    assert again.alloc_pages(gfp="GFP_HIGHUSER_PAGECACHE") == made.alloc_pages(gfp=0x1200D2)
    assert again.copy() == again
    assert again != Machine.build("64MiB", cpus=2)


def test_a_file_must_say_the_rules_of_its_kernel(tmp_path):
    made = Machine.build("64MiB", **OLD)
    made.tables.zones["features"] = 0
    made.save(tmp_path / "machine")
    with pytest.raises(BadInputError, match="do not fit together"):
        open_machine(tmp_path / "machine")
