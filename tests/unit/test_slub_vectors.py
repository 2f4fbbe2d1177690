# SPDX-License-Identifier: GPL-2.0-or-later
"""SLUB follows the worked examples step by step, in both flavours."""

import json
from pathlib import Path

import pytest

from physmem import Machine
from physmem.slab.slub_types import NO_SLAB, STATS
from physmem.slab.slub_view import cpu_records, node_records, slab_list

pytestmark = pytest.mark.pure
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors_slub.json").read_text())


class Example:
    """A machine with one cache of 8 KiB objects, as the examples have it."""

    def __init__(self, kernel):
        self.machine = Machine.build("64MiB", cpus=2)
        slub = self.slub = self.machine.slab_start("slub", kernel=kernel, merge=False)
        self.cache = slub.kmem_cache_create("ex8k", 8192)
        self.slabs = []
        self.objects = {}
        self.freed = 0
        self.logged = int(slub.tables.page_log[0])

    def name(self, pfn):
        return chr(ord("A") + self.slabs.index(pfn))

    def alloc(self, cpu, count=1):
        names = []
        for _ in range(count):
            address = self.cache.alloc(cpu=cpu)
            pfn = (address - self.slub.page_offset) >> 12
            head = pfn & ~7
            if head not in self.slabs:
                self.slabs.append(head)
            name = f"{self.name(head)}{(pfn - head) // 2}"
            self.objects[name] = address
            names.append(name)
            self.slub.validate()
        return names

    def free(self, cpu, *names):
        for name in names:
            self.cache.free(self.objects[name], cpu=cpu)
            self.slub.validate()

    def places(self, pfn, first):
        found = []
        while first:
            paddr = self.slub.paddr(first)
            found.append((paddr - (pfn << 12)) // 8192)
            at = paddr + self.cache.geometry.offset
            first = int.from_bytes(self.slub.ram.read(at, 8), "little")
        return found

    def slab(self, pfn):
        frame = self.slub.tables.slab_map[pfn]
        free = self.places(pfn, int(frame["freelist"]) % (1 << 64))
        return f"{self.name(pfn)}{int(frame['inuse'])}/{int(frame['objects'])}{free}"

    def state(self, label):
        frames = self.slub.tables.slab_map
        parts = []
        for cpu, each in enumerate(cpu_records(self.slub, self.cache)):
            pfn, text = int(each["slab"]), "-"
            if pfn != NO_SLAB:
                text = f"{self.name(pfn)}{self.places(pfn, int(each['freelist']) % (1 << 64))}"
                remote = self.places(pfn, int(frames[pfn]["freelist"]) % (1 << 64))
                text += f" +slab{remote}" if remote else ""
            chain = slab_list(self.slub, int(each["partial"]))
            members = " ".join(f"{self.slab(p)}({int(frames[p]['slabs'])})" for p in chain)
            parts.append(f"cpu{cpu}: {text} | partial {members or '-'}")
        node = node_records(self.slub, self.cache)[0]
        members = " ".join(self.slab(p) for p in slab_list(self.slub, int(node["partial_head"])))
        parts.append(
            f"node: {members or '-'} (nr_partial {int(node['nr_partial'])},"
            f" nr_slabs {int(node['nr_slabs'])})"
        )
        return f"{label:<46} " + " ; ".join(parts)

    def pages_freed(self):
        """Frees since the start, as frames of an example that begins at 0x1000."""
        log = self.slub.tables.page_log
        calls = [
            (int(log[1 + 2 * i]) & 0xFF, int(log[2 + 2 * i]))
            for i in range(self.logged, int(log[0]))
        ]
        return [hex(0x1000 + 8 * self.slabs.index(pfn)) for kind, pfn in calls if kind == 2]

    def stats(self):
        total = cpu_records(self.slub, self.cache)["stat"].sum(axis=0)
        names = sorted(name.upper() for name in STATS)
        found = {name: int(total[STATS.index(name.lower())]) for name in names}
        return {name: count for name, count in found.items() if count}

    def slabinfo(self):
        line = next(x for x in self.machine.slabinfo().splitlines() if x.startswith("ex8k"))
        return " ".join(line.split())


def first_example(kernel):
    e = Example(kernel)
    g = e.cache.geometry
    yield str({"size": g.size, "order": g.order, "oo": g.objects, "min_partial": g.min_partial,
               "cpu_partial": g.cpu_partial, "cps": g.cpu_partial_slabs})  # fmt: skip
    got = e.alloc(0, 20)
    yield e.state(f"1 cpu0 alloc x20 -> {got[0]}..{got[-1]}")
    e.free(0, "A2")
    yield e.state("2 cpu0 free A2")
    e.free(0, "B0")
    yield e.state("3 cpu0 free B0")
    e.free(0, "C1")
    yield e.state("4 cpu0 free C1")
    e.free(0, "D3")
    yield e.state("5 cpu0 free D3 (drain)")
    e.free(1, "A0")
    yield e.state("6 cpu1 free A0")
    e.free(1, "A1", "A3")
    yield e.state("7 cpu1 free A1 A3 (A empty, kept)")
    e.free(0, "E1")
    yield e.state("8 cpu0 free E1 (cpu slab, fast)")
    e.free(1, "E2")
    yield e.state("9 cpu1 free E2 (frozen, remote)")
    for step in range(10, 14):
        yield e.state(f"{step} cpu0 alloc -> {e.alloc(0)}")
    e.cache.shrink()
    e.slub.validate()
    yield e.state("14 kmem_cache_shrink")
    yield f"freed to buddy: {e.pages_freed()} stats {e.stats()}"
    yield e.slabinfo()


def second_example(kernel):
    e = Example(kernel)
    e.alloc(0, 48)
    for slab in "ABCDEFGHI":
        e.free(0, f"{slab}0")
    yield e.state("20 free x0 of A..I")
    for slab in "ABCDEFGHI":
        e.free(0, f"{slab}1", f"{slab}2", f"{slab}3")
    yield e.state("21 free rest of A..I")
    yield f"freed to buddy: {e.pages_freed()} stats {e.stats()}"
    yield e.slabinfo()
    e.free(0, "J0")
    yield e.state("22 free J0")
    e.free(0, "K0")
    yield e.state("23 free K0")
    yield f"freed to buddy: {e.pages_freed()}"


@pytest.mark.parametrize("kernel", list(VECTORS))
def test_every_step_of_the_worked_examples(kernel):
    seen = [*first_example(kernel), *second_example(kernel)]
    wanted = [" ".join(line.split()) for line in VECTORS[kernel]]
    assert [" ".join(line.split()) for line in seen] == wanted
