# SPDX-License-Identifier: GPL-2.0-or-later
"""What is new for a machine that follows Linux 6.12: worked examples and sizes."""

import pytest

from physmem.lib.errors import BadMachineError, BadRequestError, BadStateError
from physmem.machine.layout import Layout, zone_names
from physmem.machine.machine import Machine
from physmem.machine.profiles import feature_bits
from physmem.mm import features
from physmem.mm.mmzone import ZONE_BELOW_HIGH
from physmem.mm.state import PcpState, State, ZoneState

pytestmark = pytest.mark.pure

MOVABLE = "GFP_HIGHUSER_MOVABLE"


def toy(kernel="6.12", high=6, **pcp):
    """64 frames, all free and MOVABLE; pageblocks of 16; batch 3, high 6 to 24."""
    tuning = {"high_min": 6, "high_max": 24} | pcp
    lists = [[] for _ in range(14)]
    free = [[[] for _ in range(5)] for _ in range(6)]
    free[5][1] = [0, 32]
    zone = ZoneState(
        node=0,
        name="Normal",
        start=0,
        spanned=64,
        managed=64,
        present=64,
        wmark=[0, 0, 0, 0],
        free=free,
        pcp=[PcpState(cpu=0, count=0, high=high, batch=3, lists=lists, **tuning)],
        pageblocks="MMMM",
        pageset_batch=3,
        pageset_high=6,
        pageset_high_max=24,
    )
    layout = Layout(
        zone_names=zone_names("x86_64"), max_order=5, watermark_boost_factor=0, kernel=kernel
    )
    return Machine.from_state(State(zones=[zone], pageblock_order=4), layout)


def pcp_of(machine):
    return machine.snapshot().zones[0].pcp[0]


def take(machine, count, order=0):
    return [machine.alloc_pages(order, MOVABLE) for _ in range(count)]


def drained(machine):
    return [e.pfn for e in machine.events() if e.name == "mm_page_pcpu_drain"]


def test_refills_double_and_high_grows():
    machine = toy()
    sizes = []
    for _ in range(10):
        take(machine, 1)
        pcp = pcp_of(machine)
        sizes.append((pcp.high, pcp.alloc_factor, pcp.count))
    assert sizes[0] == (9, 1, 2)
    assert sizes[3] == (15, 2, 5)
    assert sizes[9] == (24, 3, 11)


def test_high_decays_by_an_eighth_each_second():
    machine = toy(high=24)
    frames = take(machine, 12)
    for pfn in frames:
        machine.free_pages(pfn)
    highs = []
    for _ in range(9):
        machine.tick()
        highs.append(pcp_of(machine).high)
    assert highs[:4] == [21, 19, 17, 15]
    machine.tracing()
    for _ in range(20):
        machine.tick()
    assert pcp_of(machine).high == 7  # an eighth of 7 is nothing
    assert pcp_of(machine).count == 7
    assert drained(machine)
    machine.validate()


def test_only_frees_let_drains_grow():
    machine = toy()
    frames = take(machine, 24)
    machine.drain()
    tables = machine.tables.pageset[0]
    tables["high"], tables["alloc_factor"], tables["free_count"] = 6, 0, 0
    machine.tracing()
    told = {}
    for number, pfn in enumerate(frames, 1):
        machine.free_pages(pfn)
        if gone := drained(machine):
            told[number] = len(gone), pcp_of(machine).high
    assert told == {6: (3, 9), 12: (6, 15), 24: (12, 24)}


def test_below_its_high_mark_a_zone_shortens_the_lists():
    machine = toy(high=20)
    frames = take(machine, 8)
    machine.tables.zones["zone_flags"] = ZONE_BELOW_HIGH
    machine.tables.zones["watermark"][0] = 100
    machine.tables.pageset[0]["high"] = 20
    highs = []
    for pfn in frames[:5]:
        machine.free_pages(pfn)
        highs.append(pcp_of(machine).high)
    assert highs == [17, 14, 11, 7, 6]


def test_an_older_kernel_has_no_seconds():
    machine = toy("6.1", high=24)
    for pfn in take(machine, 12):
        machine.free_pages(pfn)
    before = machine.snapshot()
    machine.tick()
    assert machine.snapshot() == before
    assert pcp_of(machine).high_min is None
    with pytest.raises(BadRequestError):
        machine.tick(1)


def test_a_free_block_follows_its_pageblock():
    machine = toy()
    held = machine.alloc_pages(5, "GFP_KERNEL|__GFP_RECLAIMABLE")
    assert machine.snapshot().zones[0].pageblocks == "RRMM"
    assert machine.alloc_pages(0, MOVABLE) == 32
    # what is freed takes its pageblocks' type, and the other half of a pair takes it over
    machine.free_pages(32)
    machine.drain()
    machine.free_pages(held, 5)
    machine.validate()
    zone = machine.snapshot().zones[0]
    assert (zone.free[5][2], zone.free[5][1]) == ([0], [32])


def test_steals_leave_the_rest_to_the_donor():
    machine = toy(high=0, high_min=0, high_max=0)
    held = take(machine, 64)
    for pfn in held[20:24]:
        machine.free_pages(pfn)
    machine.drain()
    machine.tracing()
    pfn = machine.alloc_pages(0)
    told = [e for e in machine.events() if e.name == "mm_page_alloc_extfrag"]
    assert [e.pfn for e in told][:1] == [pfn]
    assert not told[0].change_ownership
    assert machine.snapshot().zones[0].pageblocks == "MMMM"


def test_sizes_of_a_built_machine():
    machine = Machine.build("512MiB", cpus=2, kernel="6.12")
    assert machine.layout.kernel == "6.12"
    assert int(machine.tables.memory[0]["features"]) == feature_bits("6.12")
    for zone in machine.snapshot().zones:
        assert zone.pageset_high == max(zone.wmark[1] // 2, 4 * zone.pageset_batch)
        assert zone.pageset_high_max == max(zone.managed // 8 // 2, 4 * zone.pageset_batch)
        for pcp in zone.pcp:
            assert (pcp.high, pcp.free_factor) == (0, None)
            assert (pcp.high_min, pcp.high_max) == (zone.pageset_high, zone.pageset_high_max)
    with pytest.raises(BadMachineError, match="not known"):
        Machine.build("512MiB", kernel="7.1")


def test_requests_have_the_names_of_their_kernel():
    machine = Machine.build("64MiB", kernel="6.12")
    with pytest.raises(BadRequestError, match="__GFP_ATOMIC"):
        machine.alloc_pages(gfp="GFP_KERNEL|__GFP_ATOMIC")
    assert machine.alloc_pages(gfp="GFP_ATOMIC") >= 0


def test_bounds_that_are_negative():
    with pytest.raises(BadStateError, match="high_min -1, high_max 8"):
        toy(high_min=-1, high_max=8)
    # a tiny Movable zone has them crossed: its low watermark has a lower bound of its own
    toy(high_min=9, high_max=8).validate()


def test_profiles_differ_in_bits():
    old, new = feature_bits("6.1"), feature_bits("6.12")
    assert new & features.PCP_AUTO_TUNING
    assert not old & (features.PCP_AUTO_TUNING | features.CLAIM_OR_STEAL | features.BELOW_HIGH)
    assert old & features.COUNT_AT_END
    assert not new & features.COUNT_AT_END


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_what_is_set_aside_for_atomic_requests_is_given_back(kernel):
    machine = Machine.build("512MiB", kernel=kernel)
    zone = machine.tables.zones[1]
    held = []
    gfp = "GFP_ATOMIC|__GFP_NOWARN"
    while int(zone["nr_reserved_highatomic"]) == 0:
        held.append(machine.alloc_pages(3, gfp))
    reserved = int(zone["nr_reserved_highatomic"])
    machine.validate()
    assert reserved
    for pfn in held[-200:]:
        machine.free_pages(pfn, 3)
    taken = 0
    try:
        while True:
            machine.alloc_pages(0)
            taken += 1
    except MemoryError:
        pass
    assert taken
    assert int(zone["nr_reserved_highatomic"]) == 0
    assert "H" not in machine.snapshot().zones[1].pageblocks
    machine.validate()
