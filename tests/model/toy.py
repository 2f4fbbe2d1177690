# SPDX-License-Identifier: GPL-2.0-or-later
"""Toy machines of one zone for tests: build one from a line of text, work it, read it.

A list is written head first: `o2/M:[24,20]` is the free list of order 2, type M, whose head is the
chunk of frame 24.
"""

from dataclasses import replace

from .features import ALLOC_NO_WATERMARKS, V2_6_24, V61, V612, Features
from .page_alloc import Machine

# Toy machines have no watermarks, so nothing may set the flag that comes with them.
KERNELS = {"2.6.24": V2_6_24, "6.1": V61, "6.12": replace(V612, below_high_flag=False)}
ALL, V61_ON = ("2.6.24", "6.1", "6.12"), ("6.1", "6.12")


def free_lists(text):
    """Parse `o1/M:[28] o2/M:[24,20]` into {(1, "M"): [28], (2, "M"): [24, 20]}."""
    lists = {}
    for item in text.split():
        name, pfns = item.split(":")
        order, letter = name.removeprefix("o").split("/")
        lists[int(order), letter] = [int(pfn) for pfn in pfns.strip("[]").split(",")]
    return lists


def toy(
    features: Features,
    lists,
    blocks="MMMM",
    start=0,
    span=64,
    pbo=4,
    top=5,
    batch=1,
    high=0,
    high_max=None,
    used_by="",
):
    """Make a one-zone machine with these free lists; `used_by` M: all other frames are movable."""
    table = [[[] for _ in features.letters] for _ in range(top + 1)]
    lists = free_lists(lists) if isinstance(lists, str) else lists
    for (order, letter), pfns in lists.items():
        table[order][features.number(letter)] = list(pfns)
    pcp = {"cpu": 0, "count": 0, "high": high, "batch": batch, "lists": [[] for _ in range(14)]}
    if features.pcp_auto_tuning:
        pcp |= {"high_min": high, "high_max": high_max if high_max is not None else high}
        pcp |= {"alloc_factor": 0, "free_count": 0, "flags": 0}
    if features.pcp_one_list_of_mixed_types:
        pcp["lists"] = [[], []]
    zone = {"node": 0, "name": "Normal", "start": start, "spanned": span, "managed": span}
    zone |= {"present": span, "wmark": [0] * 4, "lowmem_reserve": [0] * 5, "boost": 0}
    zone |= {"highatomic": blocks.count("H") << pbo, "free": table, "pcp": [pcp]}
    zone |= {"pageset_batch": batch, "pageset_high": high, "pageset_high_max": high_max}
    zone["pageblocks"] = blocks
    machine = Machine.from_state(
        {"pageblock_order": pbo, "zones": [zone]}, features=features, watermark_boost_factor=0
    )
    if used_by == "M":
        free = {p + i for p, (o, _) in machine.zones[0].buddy.items() for i in range(1 << o)}
        machine.movable.update(set(range(start, start + span)) - free)
    machine.validate()
    return machine


def gfp_of(features, letter):
    return {"U": 0, "M": features.gfp.MOVABLE, "R": features.gfp.RECLAIMABLE}[letter]


def alloc(machine, order, letter):
    """Allocate without watermarks, through the per-CPU lists if the order has some."""
    gfp = gfp_of(machine.features, letter)
    pfn = machine.alloc_pages(order, gfp, alloc_flags=ALLOC_NO_WATERMARKS)
    machine.validate()
    return pfn


def take(machine, order, letter):
    """Allocate from the buddy lists, past the per-CPU lists."""
    gfp, zone = gfp_of(machine.features, letter), machine.zones[0]
    pfn = zone.rmqueue_buddy(order, letter, 0)
    if pfn is not None:
        machine.prep_new_page(zone, pfn, order, gfp)
    machine.validate()
    return pfn


def give(machine, pfn, order=0):
    """Free to the buddy lists, past the per-CPU lists."""
    machine.movable.difference_update(range(pfn, pfn + (1 << order)))
    zone = machine.zones[0]
    zone.nr_in_use -= 1 << order
    zone.free_one_page(pfn, order, zone.get_pageblock_migratetype(pfn))
    machine.validate()


def lists_of(machine):
    return {
        (order, letter): chunks
        for order, lists in enumerate(machine.zones[0].free_list)
        for letter, chunks in lists.items()
        if chunks
    }


def blocks_of(machine):
    return "".join(machine.zones[0].pageblock.values())


def assert_lists(machine, text):
    assert lists_of(machine) == free_lists(text)


def pcp_of(machine):
    """Write the per-CPU lists as {"0/M": [2, 1]}."""
    pcp, letters = machine.pcp[0][0], machine.features.letters
    names = [f"{i // 3}/{letters[i % 3]}" for i in range(12)] + ["pb/UR", "pb/M"]
    return {name: pages for name, pages in zip(names, pcp.lists, strict=True) if pages}


def events_of(machine):
    events = [list(event) for event in machine.events]
    machine.events.clear()
    return events
