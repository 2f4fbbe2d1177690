# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6.24 does in small cases that can be checked by hand, on toy machines of one zone.

Unless said otherwise blocks of up to 32 frames, pageblocks of 16. A list is written head first.
"""

import numpy as np
import pytest
from tests.model import V2_6_24
from tests.model import Machine as TwinMachine
from tests.model.free_area import ZoneSpec
from tests.model.toy import free_lists
from tests.property import native

from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.layout import Layout, zone_names
from physmem.machine.machine import Machine
from physmem.mm.entry import do_free_boot_pages, do_setup_reserve
from physmem.mm.gfp import __GFP_MOVABLE, __GFP_RECLAIMABLE
from physmem.mm.mmzone import NONE, PG_IN_USE
from physmem.mm.state import BLOCK_LETTERS_RESERVE, PcpState, State, ZoneState

pytestmark = pytest.mark.pure
GFP = {"U": 0, "M": __GFP_MOVABLE, "R": __GFP_RECLAIMABLE}


class Toy:
    """A machine of one zone [start, start + span)."""

    def __init__(self, lists, blocks="MMMM", *, start=0, span=64, pbo=4, top=5, hot=(1, 0), pcp=()):
        free = [[[] for _ in BLOCK_LETTERS_RESERVE] for _ in range(top + 1)]
        for (order, letter), pfns in free_lists(lists).items():
            free[order][BLOCK_LETTERS_RESERVE.index(letter)] = pfns
        batch, high = hot
        lists = [list(pfns) for pfns in pcp] or [[], []]
        state = PcpState(
            cpu=0, count=sum(map(len, lists)), high=high, batch=batch, lists=lists, cold_high=4
        )
        zone = ZoneState(
            node=0,
            name="Normal",
            start=start,
            spanned=span,
            present=span,
            managed=span,
            wmark=[0, 0, 0, 0],
            free=free,
            pcp=[state],
            pageblocks=blocks,
        )
        layout = Layout(
            zone_names=zone_names("x86_64")[:4], max_order=top, thp=False, kernel="2.6.24"
        )
        whole = State(zones=[zone], pageblock_order=pbo, migratetypes=BLOCK_LETTERS_RESERVE)
        self.machine = Machine.from_state(whole, layout)
        self.h = address(self.machine.tables.memory)

    def alloc(self, order, letter):
        pfn = ready(native.alloc_freely)(self.h, order, GFP[letter], 0)
        self.machine.validate()
        return None if pfn == NONE else pfn

    def free(self, *pfns, order=0, cold=False):
        for pfn in pfns:
            self.machine.free_pages(pfn, order, cold=cold)
        self.machine.validate()

    def reserve(self, pages_min, *, at_boot=()):
        """Set pageblocks aside; frames `at_boot` count as in use since then."""
        flags = self.machine.tables.mem_map["flags"]
        flags[list(at_boot)] ^= PG_IN_USE
        self.machine.tables.zones[0]["watermark"][:3] = pages_min
        ready(do_setup_reserve)(self.h, 0)
        flags[list(at_boot)] ^= PG_IN_USE
        self.machine.validate()

    @property
    def zone(self):
        return self.machine.snapshot().zones[0]

    @property
    def lists(self):
        return {
            (order, letter): pfns
            for order, row in enumerate(self.zone.free)
            for letter, pfns in zip(BLOCK_LETTERS_RESERVE, row, strict=True)
            if pfns
        }

    def pcp(self, which=0):
        """Frames of a per-CPU list with the types that they remember, such as "1M 2M"."""
        pcp = self.zone.pcp[0]
        pairs = zip(pcp.lists[which], pcp.types[which], strict=True)
        return " ".join(f"{pfn}{letter}" for pfn, letter in pairs)


def shows(toy, lists, blocks=None):
    assert toy.lists == free_lists(lists)
    assert blocks is None or toy.zone.pageblocks == blocks


# ---- free lists ----------------------------------------------------------------------------------


def test_freed_blocks_always_go_to_the_head():
    """6 goes in front, although its pair (6, 7) may merge again soon."""
    toy = Toy("o5/M:[0,32]")
    assert [toy.alloc(0, "M") for _ in range(16)] == list(range(16))
    toy.free(0, 5, 3, 2, 4)
    shows(toy, "o0/M:[0] o1/M:[4,2] o4/M:[16] o5/M:[32]")
    toy.free(6)
    shows(toy, "o0/M:[6,0] o1/M:[4,2] o4/M:[16] o5/M:[32]")
    toy.free(7, 1)
    shows(toy, "o3/M:[0] o4/M:[16] o5/M:[32]")


@pytest.mark.parametrize("letter", ["X", "I", "U"])
def test_nothing_keeps_buddies_apart(letter):
    toy = Toy(f"o4/{letter}:[16] o5/M:[32]", f"M{letter}MM")
    toy.free(0, order=4)
    shows(toy, "o5/M:[0,32]", f"M{letter}MM")
    assert toy.machine.nr_free_pages == 64


def test_isolated_frames_count_as_free():
    toy = Toy("o4/I:[16] o5/M:[32]", "MIMM")
    assert toy.machine.nr_free_pages == 48


# ---- fallback ------------------------------------------------------------------------------------


def test_a_whole_zone_is_there_to_take():
    """Only the first pageblock of a block that is larger changes hands."""
    toy = Toy("o5/M:[0,32]")
    assert toy.alloc(0, "U") == 0
    shows(toy, "o0/U:[1] o1/U:[2] o2/U:[4] o3/U:[8] o4/U:[16] o5/M:[32]", "UMMM")


def test_the_largest_block_is_taken_and_the_pageblock_with_it():
    toy = Toy("o1/M:[28] o2/M:[24,20,0]")
    assert toy.alloc(0, "U") == 24
    shows(toy, "o0/U:[25] o1/U:[26,28] o2/U:[20] o2/M:[0]", "MUMM")


def test_the_rest_of_a_small_block_stays_with_the_donor():
    toy = Toy("o0/M:[22] o1/M:[20]")
    assert toy.alloc(0, "U") == 20
    shows(toy, "o0/M:[21,22]", "MMMM")


def test_reclaimable_requests_take_the_rest_as_well():
    toy = Toy("o0/M:[20] o1/M:[2] o2/M:[40]")
    assert toy.alloc(0, "R") == 40
    shows(toy, "o0/M:[20] o0/R:[41] o1/M:[2] o1/R:[42]", "MMMM")
    toy = Toy("o0/M:[20] o2/M:[4]")
    assert toy.alloc(0, "U") == 4
    shows(toy, "o0/M:[20] o0/U:[5] o1/U:[6]", "MMMM")


def test_movable_requests_go_from_large_to_small():
    toy = Toy("o0/U:[33] o1/U:[50,16]", "UUUU")
    assert toy.alloc(0, "M") == 50
    shows(toy, "o0/U:[51,33] o1/U:[16]", "UUUU")
    assert [toy.alloc(0, "M") for _ in range(2)] == [16, 17]
    toy = Toy("o0/U:[33] o1/U:[16] o3/U:[0]", "UUUU")
    assert toy.alloc(0, "M") == 0
    shows(toy, "o0/U:[33] o1/U:[16] o0/M:[1] o1/M:[2] o2/M:[4]", "MUUU")


def test_events_have_the_numbers_of_this_kernel():
    toy = Toy("o1/M:[28] o2/M:[24,20,0]")
    toy.machine.tracing()
    assert toy.alloc(0, "R") == 24
    event = toy.machine.events()[0]
    assert (event.pfn, event.migratetype, event.fallback_migratetype) == (24, 1, 2)
    assert (event.fallback_order, event.change_ownership) == (2, True)
    assert toy.alloc(0, "R") == 25
    (event,) = toy.machine.events()
    assert (event.name, event.pfn, event.migratetype) == ("mm_page_alloc_zone_locked", 25, 1)
    toy.free(24)
    (event,) = toy.machine.events()
    assert (event.name, event.pfn, event.migratetype) == ("mm_page_pcpu_drain", 24, 1)


# ---- the reserve ---------------------------------------------------------------------------------


def test_the_reserve_is_taken_last_and_given_back():
    """The pageblock at 16 counts, although its frames lie in a block that begins before it."""
    toy = Toy("o5/M:[0,32,64]", "MMMMMM", span=96)
    toy.reserve(20, at_boot=[0])
    shows(toy, "o5/M:[0,64] o5/X:[32]", "MXXMMM")
    assert [toy.alloc(0, "M") for _ in range(64)] == [*range(32), *range(64, 96)]
    assert toy.alloc(0, "M") == 32
    shows(toy, "o0/X:[33] o1/X:[34] o2/X:[36] o3/X:[40] o4/X:[48]")
    assert toy.alloc(0, "U") == 33
    toy.machine.tables.mem_map["order"][0] = 0  # as if it had never been given out
    toy.reserve(10)  # one pageblock will do now: the one at 16, all in use
    shows(toy, "o1/M:[34] o2/M:[36] o3/M:[40] o4/X:[48]", "MXMMMM")


def test_what_is_in_use_since_boot_is_not_set_aside():
    """But what a request has got is, and what is free."""
    toy = Toy("o4/M:[16] o5/M:[32]", "MMMM")
    assert toy.alloc(4, "M") == 16
    toy.reserve(40)
    shows(toy, "o5/X:[32]", "MXXX")
    toy = Toy("o5/M:[64] o4/M:[16]", "MMMMMM", span=96)
    assert toy.alloc(5, "M") == 64
    toy.reserve(64)
    assert toy.zone.pageblocks == "MXMMXX"


def test_the_reserve_is_the_start_of_the_zone():
    toy = Toy("o5/M:[32,0]", "MUMM")
    toy.reserve(17)
    shows(toy, "o5/X:[32,0]", "XUXM")
    toy.reserve(0)
    shows(toy, "o5/M:[32,0]", "MUMM")


def test_frames_of_the_reserve_wait_on_a_list_that_nobody_looks_for_them_on():
    toy = Toy("o4/M:[16] o5/M:[32]", "XMMM", hot=(3, 8))
    toy.free(0)
    assert toy.pcp() == "0X"
    assert toy.alloc(0, "M") == 16
    assert toy.pcp() == "17M 18M 0X"
    toy.machine.drain()
    shows(toy, "o0/X:[0] o0/M:[17] o1/M:[18] o2/M:[20] o3/M:[24] o5/M:[32]")


def test_without_grouping_no_pageblock_has_the_type_of_the_reserve():
    toy = Toy("o5/M:[32,0]")
    toy.machine.tables.zones["grouping_disabled"] = 1
    toy.reserve(17)
    shows(toy, "o5/M:[32] o5/X:[0]", "UUMM")
    assert toy.alloc(5, "M") == 32  # all requests are for UNMOVABLE
    toy.free(32, order=5)
    shows(toy, "o5/U:[32] o5/X:[0]", "UUUM")


# ---- hot and cold lists --------------------------------------------------------------------------


def test_the_hot_list_step_by_step():
    toy = Toy("o5/M:[0,32]", hot=(3, 8))
    assert toy.alloc(0, "M") == 0
    assert toy.pcp() == "1M 2M"
    shows(toy, "o0/M:[3] o2/M:[4] o3/M:[8] o4/M:[16] o5/M:[32]")
    assert toy.alloc(0, "M") == 1
    assert toy.alloc(0, "U") == 32  # nothing unmovable there: a refill
    assert toy.pcp() == "33U 34U 2M"
    shows(
        toy,
        "o0/M:[3] o2/M:[4] o3/M:[8] o4/M:[16] o0/U:[35] o2/U:[36] o3/U:[40] o4/U:[48]",
        "MMUM",
    )
    assert toy.alloc(0, "M") == 2
    assert toy.alloc(0, "M") == 3
    assert toy.pcp() == "4M 5M 33U 34U"
    assert toy.alloc(0, "U") == 33
    toy.free(0, 1)
    assert toy.pcp() == "1M 0M 4M 5M 34U"
    toy.free(2, 32)
    assert toy.pcp() == "32U 2M 1M 0M 4M 5M 34U"
    toy.free(3)  # 8 frames: three go back, the oldest first
    assert toy.pcp() == "3M 32U 2M 1M 0M"
    shows(
        toy,
        "o2/M:[4] o3/M:[8] o4/M:[16] o1/U:[34] o2/U:[36] o3/U:[40] o4/U:[48]",
    )


def test_a_list_without_the_type_gives_what_it_has_when_nothing_is_left():
    toy = Toy("o0/U:[40]", "MMMM", hot=(3, 8), pcp=([7, 6], []))
    assert toy.pcp() == "7M 6M"
    assert toy.alloc(0, "U") == 40
    assert toy.alloc(0, "U") == 7  # movable
    assert toy.alloc(1, "U") is None


def test_the_cold_list_is_another_one():
    toy = Toy("o5/M:[0,32]", hot=(4, 12))
    cold = toy.machine.alloc_pages(0, "GFP_HIGHUSER_MOVABLE|__GFP_COLD")
    assert cold == 0  # the cold batch is the half: 2
    assert (toy.pcp(0), toy.pcp(1)) == ("", "1M")
    assert toy.alloc(0, "M") == 2
    assert (toy.pcp(0), toy.pcp(1)) == ("3M 4M 5M", "1M")
    toy.free(2, cold=True)
    assert toy.pcp(1) == "2M 1M"
    toy.free(0, cold=True)
    toy.free(toy.alloc(0, "M"), cold=True)  # the fourth: two go back, the oldest first
    assert toy.pcp(1) == "3M 0M"
    assert toy.zone.pcp[0].count == 4
    toy.machine.drain()
    shows(toy, "o5/M:[0,32]")


def test_without_room_frees_pass_straight_through():
    toy = Toy("o5/M:[0,32]", hot=(1, 0))
    assert toy.alloc(0, "M") == 0
    toy.free(0)
    assert toy.pcp() == ""
    shows(toy, "o5/M:[0,32]")


def test_a_drain_looks_at_the_pageblock_anew():
    toy = Toy("o5/M:[0,32]", hot=(3, 8))
    assert toy.alloc(0, "M") == 0
    toy.machine.tables.pageblock_flags[0] = 2  # RECLAIMABLE, as tables number it
    toy.machine.drain()
    assert toy.lists[0, "R"] == [1]


# ---- hand-over -----------------------------------------------------------------------------------


def hand_over(ranges, *, frames=4096, word=6, hot=(3, 18), untouched=True, blocks=None):
    """Machine and twin of one zone, to both of which a bitmap's free frames are handed over."""
    blocks = blocks or "M" * (frames >> 9)
    pcp = ([], [])
    toy = Toy("o0/M:[0]", blocks, span=frames, pbo=9, top=10, hot=hot, pcp=pcp)
    machine, h = toy.machine, toy.h
    assert toy.alloc(0, "M") == 0
    machine.drain()
    shows(toy, "")
    machine.tables.mem_map["order"][:frames] = 0
    machine.tables.mem_map["flags"][:frames] = 0 if untouched else 1
    pfns, orders = [], []
    for start, end in ranges:
        at = start
        while at < end:
            order = word if at % (1 << word) == 0 and at + (1 << word) <= end else 0
            pfns.append(at)
            orders.append(order)
            at += 1 << order
    answer = ready(do_free_boot_pages)(h, np.array(pfns, np.int64), np.array(orders, np.int64), 0)
    spec = ZoneSpec(0, "Normal", 0, frames, batch=hot[0], high=hot[1], cold_high=4)
    twin = TwinMachine([spec], features=V2_6_24)
    for block, letter in enumerate(blocks):
        twin.zones[0].set_pageblock_migratetype(block << 9, letter)
    for pfn, order in zip(pfns, orders, strict=True):
        if order:
            twin.zones[0].nr_in_use -= 1 << order
            twin.zones[0].free_one_page(pfn, order, "M")
        else:
            twin.free_pages(pfn, 0)
    theirs = twin.snapshot()["zones"][0]
    ours = toy.zone
    assert answer == NONE
    assert (ours.free, ours.nr_free) == (theirs["free"], theirs["nr_free"])
    assert ours.pcp[0].lists == theirs["pcp"][0]["lists"]
    assert machine.nr_free_pages == twin.zones[0].nr_free_pages
    return toy


@pytest.mark.parametrize("untouched", [True, False])
@pytest.mark.parametrize("word", [5, 6])
def test_a_boot_gives_out_memory_from_the_top(word, untouched):
    toy = hand_over([(0, 4096)], word=word, untouched=untouched)
    shows(toy, "o10/M:[3072,2048,1024,0]")
    toy.machine.validate()
    assert toy.alloc(0, "U") == 3072
    assert toy.pcp() == "3073U 3074U"
    assert toy.zone.pageblocks == "M" * 6 + "UM"
    assert toy.alloc(0, "M") == 2048
    assert toy.alloc(2, "R") == 1024
    assert toy.alloc(9, "M") == 2560
    assert toy.alloc(10, "M") == 0


@pytest.mark.parametrize("untouched", [True, False])
def test_holes_cut_words_into_single_frames(untouched):
    hand_over([(3, 500), (501, 2049), (2051, 4000)], untouched=untouched)
    hand_over([(1024, 2048), (0, 1000), (3072, 4096)], untouched=untouched)


def test_parts_of_other_types_keep_their_order():
    """The last part of a block decides about its list."""
    hand_over([(0, 4096)], blocks="MUUMRMMR")


def test_what_cannot_be_handed_over():
    toy = Toy("o5/M:[0]", hot=(3, 8))

    def at(*blocks):
        pfns, orders = (np.array(part, np.int64) for part in zip(*blocks, strict=True))
        return ready(do_free_boot_pages)(toy.h, pfns, orders, 0)

    assert at((32, 3), (40, 3)) == NONE
    toy.machine.validate()
    shows(toy, "o4/M:[32] o5/M:[0]")
    assert at((48, 0), (49, 0), (33, 1)) == 2  # misaligned
    for bad in ((64, 0), (-1, 0), (0, 5), (32, 4), (48, 6), (48, -1)):
        assert at(bad) == 0
    assert toy.alloc(0, "M") == 49
    assert at((49, 0)) == 0
    toy.machine.validate()
