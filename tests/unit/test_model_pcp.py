# SPDX-License-Identifier: GPL-2.0-or-later
"""The twin against small worked examples: per-CPU lists.

`0/M: [2]` is the per-CPU list of order 0, type M, head first.
"""

from tests.model import V2_6_24, V61, V612, Machine, ZoneSpec
from tests.model.toy import alloc, assert_lists, blocks_of, events_of, lists_of, pcp_of, toy

# ---- per-CPU lists -----------------------------------------------------------------------------


def test_pcp_of_2_6_24_mixes_types():
    machine = toy(V2_6_24, "o5/M:[0,32]", batch=3, high=8)
    pcp = machine.pcp[0][0]

    def hot():
        return " ".join(f"{pfn}{pcp.private[pfn]}" for pfn in pcp.lists[0])

    for letter, result, after in [
        ("M", 0, "1M 2M"),
        ("M", 1, "2M"),
        ("U", 32, "33U 34U 2M"),  # no U there: a refill is put in front
        ("M", 2, "33U 34U"),  # looks past the two U frames
        ("M", 3, "4M 5M 33U 34U"),
        ("U", 33, "4M 5M 34U"),
    ]:
        assert alloc(machine, 0, letter) == result
        assert hot() == after
    for pfn in (0, 1, 32, 2):
        machine.free_pages(pfn, 0)
    assert hot() == "2M 32U 1M 0M 4M 5M 34U"
    machine.free_pages(3, 0)  # eight are too many: the last three go, 34 first
    assert hot() == "3M 2M 32U 1M 0M"
    assert lists_of(machine)[1, "U"] == [34]
    assert lists_of(machine)[2, "M"] == [4]


def test_pcp_of_6_1_refills():
    machine = toy(V61, "o5/M:[0,32]", batch=3, high=12)
    for order, letter, result, count, lists, taken in [
        (0, "M", 0, 2, {"0/M": [1, 2]}, [0, 1, 2]),
        (0, "M", 1, 1, {"0/M": [2]}, []),
        (1, "M", 4, 3, {"0/M": [2], "1/M": [6]}, [4, 6]),  # 3 >> 1 = 1, but two at least
        (0, "U", 32, 5, {"0/U": [33, 34], "0/M": [2], "1/M": [6]}, [32, 33, 34]),
        (0, "M", 2, 4, {"0/U": [33, 34], "1/M": [6]}, []),
        (0, "M", 3, 6, {"0/U": [33, 34], "0/M": [8, 9], "1/M": [6]}, [3, 8, 9]),
        (2, "M", 12, 10, {"0/U": [33, 34], "0/M": [8, 9], "1/M": [6], "2/M": [16]}, [12, 16]),
    ]:
        assert alloc(machine, order, letter) == result
        assert (machine.pcp[0][0].count, pcp_of(machine)) == (count, lists)
        events = events_of(machine)
        assert [event[1] for event in events if event[0] == "zl"] == taken
        if letter == "U":
            assert events[0] == ["xf", 32, 0, 5, 0, 1, 1]


def test_pcp_of_6_1_gives_more_back_the_longer_nothing_is_allocated():
    machine = toy(V61, "o5/M:[32]", batch=3, high=12)
    pcp = machine.pcp[0][0]

    def drained():
        return [event[1] for event in events_of(machine)]

    for pfn in range(12):
        assert pcp.free_factor == 0
        machine.free_pages(pfn, 0)
    # 12 >= 12: a batch of 3 goes, oldest first, and the next time it will be twice as much.
    assert (pcp.free_factor, pcp.count, drained()) == (1, 9, [0, 1, 2])
    assert_lists(machine, "o0/M:[2] o1/M:[0] o5/M:[32]")
    for pfn in (12, 13, 14):
        machine.free_pages(pfn, 0)
    assert (pcp.free_factor, pcp.count, drained()) == (2, 6, [3, 4, 5, 6, 7, 8])
    assert_lists(machine, "o0/M:[8] o3/M:[0] o5/M:[32]")
    machine.free_pages(15, 0)
    assert alloc(machine, 0, "M") == 15
    assert pcp.free_factor == 1
    machine.free_pages(16, 0)
    # A larger chunk is freed while free_factor > 0: everything goes, its own list first.
    machine.free_pages(18, 1)
    assert (pcp.count, drained()) == (0, [18, 9, 10, 11, 12, 13, 14, 16])
    # 16 is at the tail: 17 is missing, but the buddy of the pair (16,17), chunk 18, is free.
    assert_lists(machine, "o0/M:[14,16] o1/M:[18,12] o2/M:[8] o3/M:[0] o5/M:[32]")
    machine.validate()


def test_pcp_bulk_free_walks_the_lists_in_a_circle():
    machine = toy(V61, "")
    pcp = machine.pcp[0][0]
    pcp.batch, pcp.high = 3, 100
    for pfn in (0, 1, 2, 16, 17, 18, 20, 32, 33):
        machine.free_prepare(pfn, order := int(pfn in (2, 20)))
        machine.prepared.pop(pfn)
        letter = "U" if pfn < 3 else "M"
        machine.zones[0].pcppage_migratetype[pfn] = letter
        pcp.lists[pcp.order_to_pindex(letter, order)].insert(0, pfn)
        pcp.count += 1 << order
        machine.zones[0].nr_in_use -= 1 << order
    lists = {"0/U": [1, 0], "0/M": [33, 32, 18, 17, 16], "1/U": [2], "1/M": [20]}
    assert pcp_of(machine) == lists
    pcp.free_pcppages_bulk(8, pcp.order_to_pindex("M", 0))
    # Five single frames, then 1/U (0/R and the rest are empty), then one chunk more than asked.
    assert [event[1] for event in events_of(machine)] == [16, 17, 18, 32, 33, 2, 20]
    assert pcp_of(machine) == {"0/U": [1, 0]}
    pcp.free_pcppages_bulk(99, 0)
    assert [event[1] for event in events_of(machine)] == [0, 1]
    machine.validate()


def test_pcp_drain_of_one_batch_and_of_everything():
    machine = toy(V61, "o5/M:[32]", batch=3, high=12)
    for pfn in (0, 2, 4, 6, 8):
        machine.free_pages(pfn, 0)
    machine.drain_zone_pages(0, 0)
    assert [event[1] for event in events_of(machine)] == [0, 2, 4]
    machine.drain_pages_zone(0, 0)
    assert [event[1] for event in events_of(machine)] == [6, 8]
    machine.validate()


def test_pcp_free_in_two_steps_remembers_the_type_of_the_first():
    # A batch of frees: all are prepared, then all are committed. Between the two the block may
    # change its type; the frame goes where it belonged.
    machine = toy(V61, "o5/M:[32]", batch=3, high=12)
    assert machine.free_prepare(3)
    machine.zones[0].set_pageblock_migratetype(3, "U")
    machine.validate()
    machine.free_commit(3)
    assert pcp_of(machine) == {"0/M": [3]}
    machine.drain_pages_zone(0, 0)
    assert_lists(machine, "o0/M:[3] o5/M:[32]")


def test_bulk_allocation_leaves_free_factor_alone():
    machine = toy(V61, "o5/M:[0,32]", batch=3, high=12)
    machine.pcp[0][0].free_factor = 4
    assert machine.alloc_bulk(4, 0x8) == [0, 1, 2, 3]
    assert machine.pcp[0][0].free_factor == 4
    assert pcp_of(machine) == {"0/M": [4, 5]}
    machine.validate()


def test_busy_pcp_is_passed_by():
    machine = toy(V61, "o5/M:[0,32]", batch=3, high=12)
    assert machine.alloc_pages(0, 0x8, pcp_busy=True) == 0
    assert machine.pcp[0][0].count == 0
    machine.free_pages(0, 0, pcp_busy=True)
    assert_lists(machine, "o5/M:[0,32]")
    machine.validate()


def test_pcp_of_6_12_tunes_itself():
    machine = toy(V612, "o5/M:[0,32]", batch=3, high=6, high_max=24)
    pcp, zone = machine.pcp[0][0], machine.zones[0]
    pcp.high = 6
    seen = []
    for pfn in range(10):
        assert pcp.rmqueue_pcplist(0, "M", 0) == pfn
        seen.append((pcp.high, pcp.alloc_factor, pcp.count))
    zone.nr_in_use += 10
    # Each refill asks for twice as many as the one before.
    assert [seen[i] for i in (0, 3, 9)] == [(9, 1, 2), (15, 2, 5), (24, 3, 11)]
    machine.validate()


def test_pcp_of_6_12_only_frees():
    machine = toy(V612, "o5/M:[32]", batch=3, high=6, high_max=24)
    pcp = machine.pcp[0][0]
    pcp.high = 6
    drained = {}
    for pfn in range(24):
        machine.free_pages(pfn, 0)
        if events := events_of(machine):
            drained[pfn + 1] = ([event[1] for event in events], pcp.high)
    assert drained == {
        6: ([0, 1, 2], 9),
        12: ([3, 4, 5, 6, 7, 8], 15),
        24: (list(range(9, 21)), 24),
    }
    for high in (21, 19, 17, 15, 14, 13, 12):  # one step per second, down by an eighth
        pcp.decay_pcp_high()
        assert pcp.high == high


def test_pcp_of_6_12_below_high():
    machine = toy(V612, "o5/M:[32]", batch=3, high=6, high_max=24)
    pcp, zone = machine.pcp[0][0], machine.zones[0]
    pcp.high, zone.below_high, zone.wmark = 20, True, [1, 2, 99, 100]
    highs = []
    for pfn in range(6):
        machine.free_pages(pfn, 0)
        highs.append(pcp.high)
    assert highs == [17, 14, 11, 7, 6, 6]
    assert [event[1] for event in events_of(machine)] == [0, 1, 2]
    assert zone.below_high


def test_pcp_of_6_12_two_larger_chunks_in_a_row_empty_it():
    machine = toy(V612, "", batch=3, high=6, high_max=24)
    pcp = machine.pcp[0][0]
    pcp.high = 24
    for pfn in range(4):
        machine.free_pages(pfn, 0)
    machine.free_pages(8, 1)
    assert events_of(machine) == []
    machine.free_pages(10, 1)
    assert [event[1] for event in events_of(machine)] == [8, 10, 0, 1, 2, 3]
    assert_lists(machine, "o2/M:[0,8]")


# ---- real sizes --------------------------------------------------------------------------------


def real(features, batch, high):
    zone = ZoneSpec(0, "Normal", 0, 4096, batch=batch, high=high)
    machine = Machine([zone], features=features)
    machine.memblock_free_pages(0, 4096)
    machine.validate()
    return machine


def test_boot_hands_memory_over_ascending_in_6_1():
    machine = real(V61, 15, 60)
    assert_lists(machine, "o10/M:[0,1024,2048,3072]")
    assert alloc(machine, 0, "U") == 0
    assert events_of(machine)[0] == ["xf", 0, 0, 10, 0, 1, 1]
    assert lists_of(machine)[9, "U"] == [512]
    zone, pcp = machine.zones[0], machine.pcp[0][0]
    assert (blocks_of(machine), zone.nr_free_pages, pcp.count) == ("UUMMMMMM", 4081, 14)
    assert alloc(machine, 0, "M") == 1024
    machine.events.clear()
    assert alloc(machine, 2, "R") == 2048  # 15 >> 2 = 3 chunks
    assert [event[1] for event in events_of(machine)] == [2048, 2048, 2052, 2056]
    assert alloc(machine, 9, "M") == 1536  # a huge page and one more for the list
    assert [event[1] for event in events_of(machine)] == [1536, 3072]
    assert pcp_of(machine)["pb/M"] == [3072]
    # The recorded figures of this example; 4096 frames less 15 + 15 + 12 + 1024 refilled.
    assert (zone.nr_free_pages, pcp.count) == (3030, 548)
    assert alloc(machine, 10, "M") is None


def test_boot_hands_memory_over_descending_in_2_6_24():
    machine = real(V2_6_24, 3, 18)
    assert_lists(machine, "o10/M:[3072,2048,1024,0]")
    assert alloc(machine, 0, "U") == 3072
    assert blocks_of(machine) == "MMMMMMUM"
    results = [alloc(machine, o, t) for o, t in [(0, "M"), (2, "R"), (9, "M"), (10, "M")]]
    assert results == [2048, 1024, 2560, 0]
