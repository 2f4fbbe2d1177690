# SPDX-License-Identifier: GPL-2.0-or-later
"""The /proc texts: byte for byte as kernels print them, read back, and broken text refused."""

import msgspec
import pytest

from physmem.lib.errors import BadInputError
from physmem.mm.state import State, ZoneState
from physmem.views.buddyinfo import (
    buddyinfo,
    buddyinfo_rows,
    format_buddyinfo,
    free_counts,
    parse_buddyinfo,
)
from physmem.views.pagetypeinfo import (
    LIST_CAP,
    format_pagetypeinfo,
    pageblock_counts,
    pagetypeinfo,
    pagetypeinfo_rows,
    parse_pagetypeinfo,
)
from physmem.views.sample import small_state

# Recorded on a 6.1 kernel (i386, three zones). `|` stands for the end of a line and the blank
# before it.
BUDDYINFO = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 |
Node 0, zone   Normal      3      2      3      3      1      1      3      2      4      1    170 |
Node 0, zone  HighMem    252     45     39     24     43     36     32     23     30     15     54 |
""".replace("|", "")

# Recorded on a 6.1 kernel (arm64) with CMA: six migratetypes.
PAGETYPEINFO_CMA = """\
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 |
Node    0, zone      DMA, type    Unmovable      2     75     63     60     51     43     11      3      1      0      0 |
Node    0, zone      DMA, type      Movable     88     31      9     21     16      7      7     14      4      4     59 |
Node    0, zone      DMA, type  Reclaimable      4      4     11      2      1      0      0      1      0      1      0 |
Node    0, zone      DMA, type   HighAtomic      0      0      0      0      0      0      0      0      0      0      0 |
Node    0, zone      DMA, type          CMA      0      0      0      0      0      1      0      1      1      1     15 |
Node    0, zone      DMA, type      Isolate      0      0      0      0      0      0      0      0      0      0      0 |

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate |
Node 0, zone      DMA           68          150            6            0           32            0 |
""".replace("|", "")  # noqa: E501 - as recorded

# Recorded on a 6.1 kernel with two nodes; rows of empty lists left out.
PAGETYPEINFO_NODES = """\
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 |
Node    0, zone    DMA32, type    Unmovable      8      3      2      3     32     37     25      3      1      0      0 |

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate |
Node 0, zone      DMA            1            7            0            0            0 |
Node 0, zone    DMA32           78          228            6            0            0 |
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 |
Node    1, zone    DMA32, type    Unmovable     10      9     13     14      8      3      2      0      0      1      0 |

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate |
Node 1, zone    DMA32           68          122            2            0            0 |
""".replace("|", "")  # noqa: E501 - as recorded

# 2.6.24: another order of types, and the fifth has no name.
PAGETYPEINFO_2624 = """\
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1 |
Node    0, zone      DMA, type    Unmovable      0      1 |
Node    0, zone      DMA, type  Reclaimable      0      0 |
Node    0, zone      DMA, type      Movable      0      5 |
Node    0, zone      DMA, type      Reserve      0      0 |
Node    0, zone      DMA, type       <NULL>      0      0 |

Number of blocks type     Unmovable  Reclaimable      Movable      Reserve       <NULL> |
Node 0, zone      DMA            1            0            6            1            0 |

Number of mixed blocks    Unmovable  Reclaimable      Movable      Reserve       <NULL> |
Node 0, zone      DMA            0            0            2            0            0 |
""".replace("|", "")

TEXTS = (PAGETYPEINFO_CMA, PAGETYPEINFO_NODES, PAGETYPEINFO_2624)


def zone(name, start, spanned, pageblocks, orders=11, types=5, **fields):
    free = [[[] for _ in range(types)] for _ in range(orders)]
    return ZoneState(
        node=fields.pop("node", 0),
        name=name,
        start=start,
        spanned=spanned,
        present=spanned,
        managed=spanned,
        wmark=[1, 2, 3, 4],
        free=free,
        pcp=[],
        pageblocks=pageblocks,
        **fields,
    )


def recorded_state(text, types=5):
    """A state whose lists have the recorded lengths (frames are made up: text shows no frame)."""
    zones = []
    for row in parse_buddyinfo(text):
        made = zone(row.zone, 0, 1 << 30, "M", types=types, node=row.node)
        for order, count in enumerate(row.counts):
            made.free[order][1] = [index << order for index in range(count)]
        zones.append(made)
    return State(zones=zones)


def test_buddyinfo_of_a_recorded_kernel():
    assert buddyinfo(recorded_state(BUDDYINFO)) == BUDDYINFO


def test_buddyinfo_round_trip_and_counts():
    rows = parse_buddyinfo(BUDDYINFO)
    assert format_buddyinfo(rows) == BUDDYINFO
    assert rows[2].zone == "HighMem"
    assert rows[0].free_frames == 256 + 512 + 3 * 1024
    assert parse_buddyinfo(buddyinfo(small_state())) == buddyinfo_rows(small_state())


def test_buddyinfo_prefers_the_counter_of_the_kernel():
    state = small_state()
    from_lists = msgspec.structs.replace(state.zones[0], nr_free=[])
    assert free_counts(from_lists) == free_counts(state.zones[0])
    counter = msgspec.structs.replace(state.zones[0], nr_free=[7] * 11)
    assert free_counts(counter) == (7,) * 11


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("MemTotal: 5 kB\n", "not a line of /proc/buddyinfo"),
        (BUDDYINFO[:-30], "orders"),
        ("Node 0, zone DMA 1 2 x\n", "not a line"),
    ],
)
def test_buddyinfo_refuses(text, reason):
    with pytest.raises(BadInputError, match=reason) as error:
        parse_buddyinfo(text, "guest/buddyinfo")
    assert str(error.value).startswith("guest/buddyinfo")


@pytest.mark.parametrize("text", TEXTS)
def test_pagetypeinfo_round_trip(text):
    assert format_pagetypeinfo(parse_pagetypeinfo(text)) == text


def test_pagetypeinfo_of_a_recorded_kernel():
    parsed = parse_pagetypeinfo(PAGETYPEINFO_CMA)[0]
    letters = "".join(
        letter * count for letter, count in zip("UMRHCI", parsed.blocks[0].counts, strict=True)
    )
    made = zone("DMA", 0x40000, 131072, letters, types=6)
    for mt, row in enumerate(parsed.free):
        for order, count in enumerate(row.counts):
            made.free[order][mt] = list(range(count))
    assert pagetypeinfo(State(zones=[made])) == PAGETYPEINFO_CMA


def test_pagetypeinfo_nodes_one_after_another():
    state = small_state()
    other = msgspec.structs.replace(state.zones[1], node=1)
    two = State(zones=[*state.zones, other])
    assert [node.node for node in pagetypeinfo_rows(two)] == [0, 1]
    text = pagetypeinfo(two)
    assert text.count("Page block order: 9\n") == 2
    assert text.index("Node    1, zone") > text.index("Number of blocks type")
    assert parse_pagetypeinfo(text) == pagetypeinfo_rows(two)
    assert [node.node for node in parse_pagetypeinfo(PAGETYPEINFO_NODES)] == [0, 1]


def test_a_long_list_is_capped():
    state = small_state()
    lists = state.zones[1].free
    lists[0][1] = list(range(LIST_CAP - 1))
    assert "  99999 " in pagetypeinfo(state)
    lists[0][1] = list(range(LIST_CAP))
    text = pagetypeinfo(state)
    assert "Node    0, zone   Normal, type      Movable >100000      0 " in text
    parsed = parse_pagetypeinfo(text)
    assert parsed == pagetypeinfo_rows(state)
    assert parsed[0].free[6].capped[:2] == (True, False)
    lists[0][1] = list(range(LIST_CAP + 5))
    assert pagetypeinfo(state) == text


def test_block_walk_starts_at_the_zone_not_at_a_block():
    # Sizes of a recorded i386 machine: 82 blocks hold frames of HighMem, the kernel counts 81.
    high = zone("HighMem", 224254, 82908, "U" * 3 + "M" * 79)
    assert pageblock_counts(high, "UMRHI", 10) == (3, 78, 0, 0, 0)
    normal = zone("Normal", 4096, 220158, "U" * 35 + "M" * 178 + "RR")
    assert pageblock_counts(normal, "UMRHI", 10) == (35, 178, 2, 0, 0)
    dma = zone("DMA", 1, 4095, "UMMM")
    assert pageblock_counts(dma, "UMRHI", 10) == (1, 3, 0, 0, 0)


def test_block_walk_equals_a_plain_walk():
    for start in range(0, 40, 3):
        for spanned in range(1, 70):
            first, last = start >> 4, (start + spanned - 1) >> 4
            blocks = "".join("UMR."[index % 4] for index in range(last - first + 1))
            walked = [blocks[(pfn >> 4) - first] for pfn in range(start, start + spanned, 16)]
            counts = pageblock_counts(zone("Z", start, spanned, blocks), "UMR", 4)
            assert counts == tuple(walked.count(letter) for letter in "UMR")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Node 0, zone DMA 1\n", "expected 'Page block order:'"),
        ("Page block order: many\n", "not a number"),
        (PAGETYPEINFO_CMA[: PAGETYPEINFO_CMA.index("Number")], "a table is missing"),
        (PAGETYPEINFO_CMA.replace("   150 ", "   "), "columns"),
        (PAGETYPEINFO_CMA.replace("    59 ", ""), "columns"),
        (PAGETYPEINFO_CMA.replace("    59 ", "  what "), "not a row"),
        (PAGETYPEINFO_CMA.replace("Node 0", "Node 3"), "node 3 in the table of node 0"),
    ],
)
def test_pagetypeinfo_refuses(text, reason):
    with pytest.raises(BadInputError, match=reason):
        parse_pagetypeinfo(text)
