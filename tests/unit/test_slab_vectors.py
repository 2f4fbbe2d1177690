# SPDX-License-Identifier: GPL-2.0-or-later
"""SLAB of 2.6.24 follows the worked examples step by step, and starts as the kernel does."""

import json
import re
from pathlib import Path

import pytest

from physmem import Machine
from physmem.slab.slab_types import BUFCTL_END, ON_FREE, ON_FULL, ON_PARTIAL
from physmem.slab.slab_view import lists_of, slab_list

pytestmark = pytest.mark.pure
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_slab2624.json").read_text())
SHAPE = {"l1_cache_bytes": 64, "line": 64, "cpus": 1, "possible_cpus": 2, "nr_cpus": 8}


def boot(arch="x86_64", **options):
    machine = Machine.build("64MiB", arch=arch)
    slab = machine.slab_start("slab", **options)
    slab.validate()
    return machine, slab


class Example:
    """A machine with one cache, as the examples have it."""

    def __init__(self, name, size, flags=0):
        self.machine, self.slab = boot(**SHAPE)
        self.cache = self.slab.kmem_cache_create(name, size, 0, flags)
        self.slabs = []
        self.objects = {}
        self.logged = int(self.slab.tables.page_log[0])

    def tuned(self, *tunables):
        self.slab.tune(self.cache, *tunables)
        return self

    def letter(self, pfn):
        if pfn not in self.slabs:
            self.slabs.append(pfn)
        return chr(ord("A") + self.slabs.index(pfn))

    def name(self, address):
        address %= 1 << 64
        pfn = int(self.slab.tables.slab_frames[self.slab.paddr(address) >> 12]["head"])
        first = int(self.slab.tables.slab_frames[pfn]["s_mem"]) % (1 << 64)
        return f"{self.letter(pfn)}{(address - first) // self.cache.geometry.buffer_size}"

    def alloc(self, count=1):
        names = []
        for _ in range(count):
            address = self.cache.alloc()
            self.objects[self.name(address)] = address
            names.append(self.name(address))
            self.slab.validate()
        return names

    def free(self, *names):
        for name in names:
            self.cache.free(self.objects[name])
            self.slab.validate()

    def array(self, kind):
        key = (kind, self.cache.number, 0)
        if key not in self.slab.tables.entries:
            return ""
        table = self.slab.tables.cpu_array if kind == "cpu" else self.slab.tables.shared
        entries = self.slab.tables.entries[key][: int(table[self.cache.number]["avail"])]
        return " ".join(self.name(each) for each in entries.tolist())

    def members(self, which):
        found = []
        for pfn in slab_list(self.slab, lists_of(self.slab, self.cache)[0], which):
            frame = self.slab.tables.slab_frames[pfn]
            free = int(frame["free"])
            first = "END" if free == BUFCTL_END else free
            found.append(
                f"{self.letter(pfn)}({int(frame['inuse'])}/{self.cache.geometry.num},free={first})"
            )
        return " ".join(found) or "-"

    def state(self, label):
        touched = int(self.slab.tables.cpu_array[self.cache.number]["touched"])
        l3 = lists_of(self.slab, self.cache)[0]
        return (
            f"{label:<34} ac[{self.array('cpu')}] touched={touched}"
            f" | shared[{self.array('shared')}]"
            f" | partial {self.members(ON_PARTIAL)} | full {self.members(ON_FULL)}"
            f" | free {self.members(ON_FREE)} | free_objects={int(l3['free_objects'])}"
        )

    def pages(self, kind):
        log = self.slab.tables.page_log
        calls = [
            (int(log[1 + 2 * i]), int(log[2 + 2 * i])) for i in range(self.logged, int(log[0]))
        ]
        mine = [
            pfn
            for packed, pfn in calls
            if packed >> 16 == self.cache.number and packed & 0xFF == kind
        ]
        return [hex(0x1000 + self.slabs.index(pfn)) for pfn in mine]

    def address(self, address):
        """The address in a memory where the cache's first slab is frame 0x1000."""
        paddr = self.slab.paddr(address)
        letter = self.letter(paddr >> 12)
        return hex(0x1000000 + ((ord(letter) - ord("A")) << 12) + (paddr & 0xFFF))

    def geometry(self, *extra):
        g = self.cache.geometry
        record = self.slab.tables.slab_caches[self.cache.number]
        found = {
            "buffer_size": g.buffer_size, "align": g.align, "num": g.num, "order": g.gfporder,
            "off": g.off_slab, "slab_size": g.slab_size, "colour": g.colour,
            "colour_off": g.colour_off, "limit": int(record["limit"]),
            "batch": int(record["batchcount"]), "shared": int(record["sharedfactor"]),
        }  # fmt: skip
        return {**found, **dict(extra)}

    def free_limit(self):
        return int(lists_of(self.slab, self.cache)[0]["free_limit"])


def e1():
    e = Example("E1", 100)
    yield f"E1 object 100, no flags, x86-64 line 64: {e.geometry()}"
    names = e.alloc(60)
    yield f"E1 60 allocations: {' '.join(names)}"
    yield f"E1 pages: {e.pages(1)} first object address {e.address(e.objects[names[0]])}"
    yield e.state("E1 end")


def e2():
    e = Example("E2", 1000).tuned(4, 2, 2)
    # the example prints the factor that the stride gives, the one before tuning
    tuned = e.geometry(("shared", 8))
    yield f"E2 object 1000, tunables 4 2 2: {tuned} free_limit={e.free_limit()}"
    yield e.state("E2.0")
    for step in (1, 2, 3):
        yield e.state(f"E2.{step} alloc -> {e.alloc()[0]}")
    yield e.state(f"E2.4 alloc x9 -> {','.join(e.alloc(9))}")
    for step, names, note in (
        (5, "A0 B1 C2 A1", ""), (6, "B0", " (flush to shared)"), (7, "C0", ""),
        (8, "A2", " (flush)"), (9, "A3", ""), (10, "B2", " (shared full: to slabs)"),
        (11, "B3 C1 C3", ""),
    ):  # fmt: skip
        e.free(*names.split())
        yield e.state(f"E2.{step} free {names}{note}")
    yield e.state(f"E2.12 alloc x5 -> {','.join(e.alloc(5))}")
    yield f"E2 pages freed: {e.pages(2)}"
    yield e.state(f"E2.13 kmem_cache_shrink -> {int(e.cache.shrink())}")
    yield f"E2 pages freed: {e.pages(2)}"


def e3():
    e = Example("E3", 500, "SLAB_HWCACHE_ALIGN")
    yield f"E3 object 500 HWCACHE_ALIGN: {e.geometry()}"
    e.alloc(8 * 7)
    offsets = []
    for pfn in e.slabs:
        first = e.slab.paddr(int(e.slab.tables.slab_frames[pfn]["s_mem"]) % (1 << 64))
        offsets.append(f"{hex(0x1000 + e.slabs.index(pfn))}:{first & 0xFFF}")
    yield f"E3 s_mem offsets of the first slabs: {' '.join(offsets)}"


def e5():
    e = Example("E5", 1000).tuned(10, 5, 0)
    names = e.alloc(20)
    e.free(*names)
    l3 = lists_of(e.slab, e.cache)[0]
    l3["next_reap"] = 0
    yield e.state("E5.0 20 allocs+frees")
    yield f"E5 free_limit={e.free_limit()}"
    for step in range(1, 7):
        e.slab.reap(0, 2 * step * e.slab.config.hz)
        e.slab.validate()
        yield e.state(f"E5.{step} reap at t={2 * step}s")
    yield f"E5 pages freed {e.pages(2)}"


def e6():
    e = Example("E6", 2048, "SLAB_HWCACHE_ALIGN")
    record = e.slab.tables.slab_caches[e.cache.number]
    descriptors = next(c.name for c in e.slab.caches if c.number == int(record["slabp_cache"]))
    yield f"E6 size-2048-like: {e.geometry()} slabp_cache={descriptors}"
    addresses = [e.address(e.objects[e.alloc()[0]]) for _ in range(3)]
    pages = [("E6", 0, pfn) for pfn in e.pages(1)]
    yield f"E6 3 allocs: {' '.join(addresses)} pages {pages}"


@pytest.mark.parametrize("example", [e1, e2, e3, e5, e6])
def test_every_step_of_a_worked_example(example):
    label = example.__name__.upper()
    wanted = [line for line in VECTORS if re.match(rf"{label}[ .]", line)]
    assert [" ".join(line.split()) for line in example()] == [
        " ".join(line.split()) for line in wanted
    ]


def page_calls(slab):
    names = {cache.number: cache.name for cache in slab.caches}
    log = slab.tables.page_log
    calls = [int(log[1 + 2 * i]) for i in range(int(log[0]))]
    assert all(packed >> 8 & 0xFF == 0 and packed & 0xFF == 1 for packed in calls)
    return [names[packed >> 16] for packed in calls]


def test_start_of_x86_64():
    machine, slab = boot(**SHAPE)
    assert page_calls(slab) == (
        "kmem_cache size-32 size-128 kmem_cache size-128 size-256 size-1024 size-64 size-512"
        " size-2048 size-2048 size-1024" + " size-4096" * 4 + " size-1024" + " size-4096" * 4
        + " size-1024" + " size-4096" * 3
    ).split()  # fmt: skip
    rows = {row.name: row for row in slab.rows()}
    for name, active, total in (("kmem_cache", 38, 40), ("size-32", 12, 112), ("size-128", 51, 60)):
        assert (rows[name].active_objs, rows[name].num_objs) == (active, total)
    names = [line.split()[0] for line in machine.slabinfo().splitlines()]
    assert names[-4:] == ["size-32(DMA)", "size-128", "size-32", "kmem_cache"]


def test_start_of_i386():
    _machine, slab = boot("i386", smp=False, nr_cpus=1, l1_cache_bytes=32, line=32)
    assert page_calls(slab) == (
        ["kmem_cache", "size-32", "size-64", "size-128", "size-256", "size-512", "size-512"]
    )


def test_text_of_slabinfo():
    machine, slab = boot(**SHAPE)
    slab.kmem_cache_create("E1", 100)
    line = machine.slabinfo().splitlines()[2]
    assert line == (
        "E1                     0      0    104   37    1 : tunables  120   60    8"
        " : slabdata      0      0      0"
    )
