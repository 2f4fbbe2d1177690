# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine and its twin, driven side by side by operations that are plain tuples.

An operation names blocks by their place among those in use, so that any sequence of operations
makes sense on any machine. The answers are compared at once, the events of each operation too.
"""

import contextlib
from random import Random

import msgspec
import pytest
from tests.property import native

from physmem.lib.errors import BadFreeError, BadRequestError, OutOfMemoryError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.machine import open_machine
from physmem.mm.alloc_flags import ALLOC_PCP_BUSY
from physmem.mm.entry import do_drain, do_setup_reserve
from physmem.mm.features import HOT_COLD, RESERVE_BLOCKS
from physmem.mm.gfp import TABLES, parse_gfp
from physmem.mm.mmzone import ZONE_BELOW_HIGH, ZONE_RECLAIM_ACTIVE
from physmem.mm.state import State

GFP = tuple(
    map(
        parse_gfp,
        (
            "GFP_KERNEL",
            "GFP_HIGHUSER_MOVABLE",
            "GFP_KERNEL|__GFP_RECLAIMABLE",
            "GFP_ATOMIC",
            "GFP_USER|__GFP_MOVABLE",
            "GFP_NOWAIT",
            "GFP_KERNEL|__GFP_DMA32",
            "GFP_KERNEL|__GFP_DMA",
            "GFP_TRANSHUGE_LIGHT",
            "GFP_TRANSHUGE",
            "GFP_HIGHUSER",
            "GFP_KERNEL_ACCOUNT|__GFP_COMP",
            "GFP_KERNEL|__GFP_THISNODE",
            "GFP_HIGHUSER_MOVABLE|__GFP_THISNODE|__GFP_NORETRY",
            "GFP_ATOMIC|__GFP_RECLAIMABLE|__GFP_COMP",
            "GFP_ATOMIC|__GFP_NOMEMALLOC",
            "GFP_KERNEL|__GFP_MEMALLOC",
            "GFP_ATOMIC|__GFP_MEMALLOC",
            "__GFP_HIGH|__GFP_DIRECT_RECLAIM",
            "GFP_KERNEL|__GFP_MOVABLE|__GFP_DMA32|__GFP_THISNODE",
            "GFP_KERNEL|__GFP_MOVABLE|__GFP_RECLAIMABLE",
            "none",
        ),
    )
)

GFP_2_6_24 = tuple(
    parse_gfp(flags, TABLES["2.6.24"])
    for flags in (
        "GFP_KERNEL",
        "GFP_HIGHUSER_MOVABLE",
        "GFP_TEMPORARY",
        "GFP_ATOMIC",
        "GFP_USER_PAGECACHE",
        "GFP_HIGHUSER_PAGECACHE|__GFP_COLD",
        "GFP_KERNEL|__GFP_DMA32",
        "GFP_KERNEL|__GFP_DMA",
        "GFP_KERNEL|__GFP_COLD",
        "GFP_NOWAIT",
        "GFP_HIGHUSER",
        "GFP_TEMPORARY|__GFP_COMP|__GFP_ZERO",
        "GFP_KERNEL|__GFP_THISNODE",
        "GFP_HIGHUSER_MOVABLE|__GFP_THISNODE|__GFP_NORETRY",
        "GFP_ATOMIC|__GFP_RECLAIMABLE|__GFP_COMP",
        "GFP_ATOMIC|__GFP_NOMEMALLOC",
        "GFP_KERNEL|GFP_THISNODE",
        "GFP_ATOMIC|GFP_THISNODE",
        "__GFP_HIGH|__GFP_WAIT",
        "GFP_USER|__GFP_MOVABLE|__GFP_DMA32|__GFP_THISNODE",
        "GFP_KERNEL|__GFP_MOVABLE|__GFP_RECLAIMABLE",
        "__GFP_RECLAIMABLE|__GFP_COLD",
    )
)
assert len(GFP) == len(GFP_2_6_24)
REQUESTS = {"2.6.24": GFP_2_6_24, "6.1": GFP, "6.12": GFP}
"""Flags of requests by the kernel whose bits they are."""

_NEAR = ((0, 1), (0, 1), (0, -1), (1, 0), (-1, 0), (2, -1), (-4, 2), (0, 3))
"""Offsets of frame and order by which a free misses its block."""
FREE, LOADED, OWNED, LOOSE, PREPARED = range(5)
"""Use of a frame: in use since the state was loaded, in a block of ours, left of such a block."""


def plain(event):
    """A `Consequence` in the form of the twin's events."""
    if event.name == "mm_page_alloc_extfrag":
        return (
            "xf",
            event.pfn,
            event.order,
            event.fallback_order,
            event.migratetype,
            event.fallback_migratetype,
            int(event.change_ownership),
        )
    if event.name == "mm_page_pcpu_drain":
        return ("dr", event.pfn, event.order, event.migratetype)
    return ("zl", event.pfn, event.order, event.migratetype, int(event.percpu_refill))


class Pair:
    """A machine, its twin (or none), and what both know to be in use."""

    def __init__(self, shape, twin=True, validate_every=1):
        self.validate_every = validate_every
        self.shape = shape
        self.machine = shape.machine()
        self.machine.tracing()
        self.twin = shape.twin() if twin else None
        self.held = []  # blocks of ours
        self.loose = []  # what is left of blocks that were freed in parts: only kernels free those
        self.prepared = []
        self.use = bytearray(shape.end)
        self.operations = 0
        self.answers = []  # of the last operation: what it returned, and the events
        self._find_loaded()

    def _find_loaded(self):
        state = self.shape.state
        for zone in state["zones"]:
            start, end = zone["start"], zone["start"] + zone["spanned"]
            self.use[start:end] = bytes([LOADED]) * (end - start)
            for order, row in enumerate(zone["free"]):
                for pfn in (pfn for pfns in row for pfn in pfns):
                    self._set(pfn, order, FREE)
            for pfn in (pfn for pcp in zone["pcp"] for pfns in pcp["lists"] for pfn in pfns):
                self._set(pfn, 0, FREE)  # at first only single frames are there
            size = 1 << state["pageblock_order"]
            for block, letter in enumerate(zone["pageblocks"], start // size):
                if letter == ".":  # a hole: nobody frees it
                    self.use[block * size : (block + 1) * size] = bytes([LOOSE]) * size

    def _set(self, pfn, order, use):
        self.use[pfn : pfn + (1 << order)] = bytes([use]) * (1 << order)

    def _all(self, pfn, order, use):
        return self.use.count(use, pfn, pfn + (1 << order)) == 1 << order

    @property
    def handle(self):
        return address(self.machine.tables.memory)

    # ---- one operation ---------------------------------------------------------------------------

    def run(self, op):
        """Carry out one operation on both; compare what they answer and tell."""
        self.operations += 1
        answer = getattr(self, op[0])(*op[1:])
        events = [plain(event) for event in self.machine.events()]
        if self.twin is not None:
            assert events == self.twin.events, (op, events, self.twin.events)
            self.twin.events.clear()
        if self.operations % self.validate_every == 0:
            self.machine.validate()
        self.answers = (answer, events)

    def both(self, mine, twins):
        """Return our answer, which must be the twin's, too."""
        if self.twin is not None:
            wanted = twins(self.twin)
            assert mine == wanted, f"{mine} instead of {wanted}"
        return mine

    def _got(self, pfn, order):
        assert self._all(pfn, order, FREE), f"{pfn:#x} of order {order} is not free"
        self._set(pfn, order, OWNED)
        self.held.append((pfn, order))

    def has(self, feature):
        return bool(int(self.machine.tables.memory[0]["features"]) & feature)

    def bits(self, gfp):
        requests = REQUESTS[self.shape.kernel]
        return requests[gfp % len(requests)]

    def alloc(self, order, gfp, cpu, node, busy=False):
        bits, cpu = self.bits(gfp), cpu % self.shape.nr_cpus
        node = None if node is None else node % self.shape.nr_nodes
        if not 0 <= order <= self.shape.max_order:
            with pytest.raises(BadRequestError):
                self.machine.alloc_pages(order, bits, cpu=cpu, node=node)
            return None
        pfn = None
        if busy:
            nid = self.shape.cpu_node[cpu] if node is None else node
            run = ready(native.alloc_busy)
            inner = TABLES[self.shape.kernel].internal(bits)
            pfn = run(self.handle, order, inner, nid, cpu, ALLOC_PCP_BUSY)
            pfn = None if pfn < 0 else pfn
        else:
            with contextlib.suppress(OutOfMemoryError):
                pfn = self.machine.alloc_pages(order, bits, cpu=cpu, node=node)
        self.both(pfn, lambda t: t.alloc_pages(order, bits, cpu, nid=node, pcp_busy=busy))
        if pfn is not None:
            self._got(pfn, order)
        return pfn

    def bulk(self, nr, gfp, cpu, node):
        bits, cpu = self.bits(gfp), cpu % self.shape.nr_cpus
        node = None if node is None else node % self.shape.nr_nodes
        pfns = self.machine.alloc_pages_bulk(nr, bits, cpu=cpu, node=node)
        self.both(pfns, lambda t: t.alloc_bulk(nr, bits, cpu, nid=node))
        for pfn in pfns:
            self._got(pfn, 0)
        return pfns

    def _take(self, blocks, index):
        """Take a block out of a list, whose order does not matter."""
        at = index % len(blocks)
        blocks[at], blocks[-1] = blocks[-1], blocks[at]
        return blocks.pop()

    def free(self, index, cpu):
        if not self.held:
            return
        pfn, order = self._take(self.held, index)
        self._free(pfn, order, cpu % self.shape.nr_cpus)

    def _free(self, pfn, order, cpu):
        self.machine.free_pages(pfn, order, cpu=cpu)
        self.both(None, lambda t: t.free_pages(pfn, order, cpu))
        self._set(pfn, order, FREE)

    def cold(self, index, cpu):
        """Free a single frame to the cold list."""
        held = [block for block in self.held if block[1] == 0]
        if not held:
            return
        pfn, cpu = held[index % len(held)][0], cpu % self.shape.nr_cpus
        if not self.has(HOT_COLD):
            with pytest.raises(BadRequestError):
                self.machine.free_pages(pfn, cpu=cpu, cold=True)
            return
        self.held.remove((pfn, 0))
        self.machine.free_pages(pfn, cpu=cpu, cold=True)
        self.both(None, lambda t: t.free_pages(pfn, 0, cpu, cold=1))
        self._set(pfn, 0, FREE)

    def reserve(self, zone, least):
        """Set the watermarks of a zone, and as many pageblocks aside as the lowest one says."""
        zone %= len(self.shape.zones)
        spec, size = self.shape.zones[zone], 1 << self.shape.pageblock_order
        firsts = range(spec.start, spec.start + spec.spanned, size)
        letters = self.machine.snapshot().zones[zone].pageblocks
        left = [pfn for pfn in firsts if self.use[pfn] == LOOSE]
        if not self.has(RESERVE_BLOCKS) or any(letters[firsts.index(pfn)] != "." for pfn in left):
            return  # of a frame left of a block nobody knows whether it was reserved
        marks = [least, least + least // 4, least + least // 2, 0]
        self.machine.tables.zones[zone]["watermark"] = marks
        ready(do_setup_reserve)(self.handle, zone)
        if self.twin is not None:
            at_boot = frozenset(pfn for pfn in firsts if self.use[pfn] == LOADED)
            self.twin.zones[zone].wmark = marks
            self.twin.zones[zone].setup_zone_migrate_reserve(least, at_boot)

    def burst(self, nr, gfp, cpu):
        """Take many single frames at once and free them all: drains double, time after time."""
        pfns = self.bulk(min(nr, self.shape.end), gfp, cpu, None)
        for pfn in pfns:
            self.held.remove((pfn, 0))
            self._free(pfn, 0, cpu % self.shape.nr_cpus)
        return pfns

    def free_loaded(self, index, order, cpu):
        """Free frames that were in use at first, in a block of any order."""
        pfn = self.use.find(LOADED, index % len(self.use))
        order = min(order, self.shape.max_order)
        while pfn >= 0 and (pfn % (1 << order) or not self._all(pfn, order, LOADED)):
            order -= 1
        if pfn >= 0 and self._in_one_zone(pfn, order):
            self._free(pfn, order, cpu % self.shape.nr_cpus)

    def _in_one_zone(self, pfn, order):
        return any(
            zone.start <= pfn and pfn + (1 << order) <= zone.start + zone.spanned
            for zone in self.shape.zones
        )

    def part(self, index, place, cpu, busy=False):
        """Free a part of a block, as only a kernel may."""
        blocks = self.loose if self.loose and place & 1 else self.held
        if not blocks:
            return
        pfn, order = self._take(blocks, index)
        piece = pfn
        while order and (place := place >> 1) & 1:  # keep one half, go on in the other one
            order -= 1
            half = pfn + (1 << order)
            keep, piece = (pfn, half) if place & 2 else (half, pfn)
            self.loose.append((keep, order))
            self._set(keep, order, LOOSE)
            pfn = piece
        cpu %= self.shape.nr_cpus
        assert ready(native.free_trusted)(self.handle, pfn, order, cpu, busy)
        self.both(None, lambda t: t.free_pages(pfn, order, cpu, pcp_busy=busy))
        self._set(pfn, order, FREE)

    def wrong(self, pfn, order, cpu):
        """Free what may not be ours: refused, and nothing changed; or a fine free after all."""
        fits = 0 <= order <= self.shape.max_order and cpu in range(self.shape.nr_cpus)
        if fits and 0 <= pfn < self.shape.end:
            if LOOSE in self.use[pfn : pfn + (1 << order)]:
                return
            aligned = pfn % (1 << order) == 0 and self._in_one_zone(pfn, order)
            if (pfn, order) in self.held or (aligned and self._all(pfn, order, LOADED)):
                return
        before = self.machine.snapshot()
        with pytest.raises(BadFreeError if fits else BadRequestError):
            self.machine.free_pages(pfn, order, cpu=cpu)
        assert self.machine.snapshot() == before

    def almost(self, index, shift, order, cpu):
        """Free a block of ours by another frame, or by another order."""
        if self.held:
            pfn, real = self.held[index % len(self.held)]
            self.wrong(pfn + shift, real + order, cpu)

    def prepare(self, index):
        """First half of a free, as in a batch; blocks under isolation are not put off."""
        held = [block for block in self.held if self._may_wait(*block)]
        if not held:
            return
        pfn, order = held[index % len(held)]
        self.held.remove((pfn, order))
        ready(native.prepare)(self.handle, pfn, order)
        self.both(True, lambda t: t.free_prepare(pfn, order))
        self._set(pfn, order, PREPARED)
        self.prepared.append((pfn, order))

    def _may_wait(self, pfn, order):
        if order > (0 if self.has(HOT_COLD) else 3):
            return False
        number = next(
            number
            for number, zone in enumerate(self.shape.zones)
            if zone.start <= pfn < zone.start + zone.spanned
        )
        zone = self.machine.tables.zones[number]
        at = (pfn >> self.shape.pageblock_order) - int(zone["first_block"])
        before = self.machine.tables.zones[:number]
        for lower in before:
            size = 1 << self.shape.pageblock_order
            at += -(-int(lower["end_pfn"]) // size) - int(lower["first_block"])
        return int(self.machine.tables.pageblock_flags[at]) != int(zone["isolate_type"])

    def commit(self, index, cpu):
        """Second half of a free."""
        if not self.prepared:
            return
        pfn, order = self.prepared.pop(index % len(self.prepared))
        cpu %= self.shape.nr_cpus
        ready(native.commit)(self.handle, pfn, order, cpu)
        self.both(None, lambda t: t.free_commit(pfn, cpu))
        self._set(pfn, order, FREE)

    def drain(self, cpu, zone):
        """Drain everything of one CPU or of all, of one zone or of all."""
        cpu = None if cpu is None else cpu % self.shape.nr_cpus
        zone = None if zone is None else zone % len(self.shape.zones)
        self.machine.drain(cpu, zone)
        zones = range(len(self.shape.zones)) if zone is None else [zone]
        cpus = range(self.shape.nr_cpus) if cpu is None else [cpu]
        for number in zones:
            for each in cpus:
                self.both(None, lambda t, n=number, c=each: t.drain_pages_zone(n, c))

    def drain_batch(self, cpu, zone):
        cpu, zone = cpu % self.shape.nr_cpus, zone % len(self.shape.zones)
        ready(do_drain)(self.handle, zone, cpu, False)
        self.both(None, lambda t: t.drain_zone_pages(zone, cpu))

    def tick(self, cpu):
        """Let a second pass for one CPU."""
        cpu %= self.shape.nr_cpus
        self.machine.tick(cpu)
        if self.shape.features.pcp_auto_tuning:
            for number in range(len(self.shape.zones)):
                self.both(None, lambda t, n=number: t.pcp[n][cpu].decay_pcp_high())

    def reclaim(self, zone, active):
        """Say that kswapd works on a zone, or that it sleeps again: per-CPU lists are shorter."""
        zone %= len(self.shape.zones)
        flags = self.machine.tables.zones[zone]
        flags["zone_flags"] = int(flags["zone_flags"]) & ~ZONE_RECLAIM_ACTIVE
        if active:
            flags["zone_flags"] = int(flags["zone_flags"]) | ZONE_RECLAIM_ACTIVE
        self.both(None, lambda t: setattr(t.zones[zone], "reclaim_active", active))

    def copy(self):
        """Go on with a copy; the original hears nothing of it."""
        old = self.machine
        self.machine = old.copy()
        assert self.machine == old
        before = old.snapshot()
        with contextlib.suppress(OutOfMemoryError):
            spoilt = self.machine.copy()
            spoilt.alloc_pages(0)
            spoilt.drain()
        assert old.snapshot() == before == self.machine.snapshot()

    def reopen(self, path):
        """Go on with a machine from a file."""
        self.machine.save(path)
        again = open_machine(path)
        assert again == self.machine
        self.machine = again
        self.machine.tracing()

    # ---- everything ------------------------------------------------------------------------------

    def compare(self):
        """Compare everything: lists in order, per-CPU lists, counters, pageblocks."""
        mine = self.machine.snapshot()
        wanted = msgspec.convert(self.twin.snapshot(), State)
        assert mine == wanted, differences(mine, wanted)
        self.twin.validate()
        for zone, record in zip(self.twin.zones, self.machine.tables.zones, strict=True):
            assert zone.nr_free_pages == int(record["nr_free_pages"])
            assert zone.nr_free_cma_pages == int(record["nr_free_cma"])
            assert zone.below_high == (int(record["zone_flags"]) & ZONE_BELOW_HIGH != 0)
        self.machine.validate()


def differences(mine, wanted):
    """Say in words where two states differ."""
    lines = [
        f"{a.name}.{name}: {getattr(a, name)} instead of {getattr(b, name)}"
        for a, b in zip(mine.zones, wanted.zones, strict=True)
        for name in a.__struct_fields__
        if getattr(a, name) != getattr(b, name)
    ]
    return "\n".join(lines)


def random_ops(rng: Random, count: int, frames: int):
    """Operations in phases: memory fills up, is worked with, and empties (or is only freed)."""
    left, gets = 60, 0.8
    for _ in range(count):
        if left == 0:
            left, gets = rng.randrange(20, 250), rng.choice((0, 0.2, 0.45, 0.55, 0.75, 0.95))
        left -= 1
        cpu, dice = rng.randrange(4), rng.random()
        if dice < 0.86:
            if rng.random() < gets:
                yield _random_alloc(rng, cpu)
            else:
                yield ("free", rng.randrange(1 << 16), cpu)
        else:
            yield _random_other(rng, cpu, frames)


def _random_alloc(rng, cpu):
    node = rng.randrange(4) if rng.random() < 0.1 else None
    gfp = int(rng.random() ** 2 * len(GFP))
    if rng.random() < 0.08:
        return ("bulk", rng.choice((0, 1, 2, 3, 7, 20)), gfp, cpu, node)
    order = rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 3)) if rng.random() < 0.9 else rng.randrange(12)
    return ("alloc", order, gfp, cpu, node, rng.random() < 0.02)


def _random_other(rng, cpu, frames):
    dice = rng.randrange(38)
    if dice < 6:
        return ("part", rng.randrange(1 << 16), rng.randrange(1 << 8), cpu, rng.random() < 0.1)
    if dice < 7:
        return ("almost", rng.randrange(1 << 16), *rng.choice(_NEAR), rng.randrange(-1, 2))
    if dice < 9:
        order = rng.choice((0, 0, 1, 2, 3, 5, 9, 11))
        pfn = rng.randrange(-2, frames + 3)
        return ("wrong", pfn >> order << order if rng.random() < 0.8 else pfn, order, 0)
    if dice < 15:
        return ("prepare", rng.randrange(1 << 16))
    if dice < 22:
        return ("commit", rng.randrange(1 << 16), cpu)
    if dice < 26:
        return ("drain_batch", cpu, rng.randrange(4))
    if dice < 28:
        who = cpu if rng.random() < 0.5 else None
        return ("drain", who, rng.randrange(4) if rng.random() < 0.5 else None)
    if dice < 29:
        return ("burst", rng.choice((5, 30, 90, 90)), rng.randrange(4), cpu)
    if dice < 30:
        return ("free_loaded", rng.randrange(frames), rng.randrange(6), cpu)
    if dice < 32:
        return ("reclaim", rng.randrange(4), rng.random() < 0.4)
    if dice < 34:
        return ("cold", rng.randrange(1 << 16), cpu)
    if dice < 37:
        return ("tick", cpu)
    return ("reserve", rng.randrange(4), rng.choice((0, 4, 30, 70, 150)))
