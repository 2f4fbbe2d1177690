# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded objects: read, tied to slabs, predicted, and given to one's own machine."""

from pathlib import Path
from random import Random

import pytest

from physmem import Machine
from physmem.lib.errors import BadCaptureError
from physmem.replay.slab_drive import Driver
from physmem.replay.slab_model import NEW, CacheModel
from physmem.replay.slab_objects import slab_options
from physmem.replay.slab_replay import NOT_KNOWN, UNSEEN_ALLOC, replay_slab
from physmem.slab.owners import pins
from physmem.slab.slub_config import SlubConfig
from physmem.slab.slub_sizes import slub_geometry
from physmem.slab.waste import all_waste
from physmem.trace.capture import read_capture
from physmem.trace.events import Events, Kind
from physmem.trace.info import CaptureInfo, MachineInfo, ZoneInfo
from physmem.views.slabinfo import parse_slabinfo
from physmem.views.slabs import pins_text, slabtop, waste_text

BASE = 0xFFFF888000000000 - (1 << 64)


class _Capture:
    """Just enough of a capture."""

    def __init__(self, rows, sites, machine=None):
        columns = {
            name: [row.get(name, 0) for row in rows]
            for name in (
                "line",
                "kind",
                "cpu",
                "pfn",
                "order",
                "pid",
                "gfp",
                "arg0",
                "arg1",
                "site",
            )
        }
        self.events = Events.from_columns(columns, sites=sites)
        self.info = CaptureInfo(machine=machine or MachineInfo(arch="x86_64"), rows=len(rows))
        self.state0 = None


def record(operations, size=1024, name="thing", shape=(1, 1), cmdline="", **options):
    """Rows of a machine's own SLUB at work: what a kernel would have recorded."""
    cpus, nodes = shape
    machine = Machine.build("128MiB", cpus=cpus, nodes=nodes)
    slab = machine.slab_start("slub", **options)
    turns = Random(7)
    cache = slab.kmem_cache_create(name, size)
    rows, live, seen = [], [], int(slab.tables.page_log[0])
    log = slab.tables.page_log

    def pages():
        nonlocal seen
        while seen < int(log[0]):
            packed, pfn = int(log[1 + 2 * seen]), int(log[2 + 2 * seen])
            kind = Kind.ALLOC if packed & 0xFF == 1 else Kind.FREE
            rows.append(
                {"kind": kind, "pfn": pfn, "order": packed >> 8 & 0xFF, "pid": cpu, "cpu": cpu}
            )
            seen += 1

    for choice in operations:
        cpu = turns.randrange(cpus)
        if choice >= 0 or not live:
            address = cache.alloc(cpu=cpu)
            live.append(address)
            pages()
            rows.append(
                {"kind": Kind.CACHE_ALLOC, "pfn": address - (1 << 64), "arg0": size,
                 "arg1": cache.size, "gfp": 0xCC0, "pid": cpu, "cpu": cpu, "site": 0}
            )  # fmt: skip
        else:
            address = live.pop(choice % len(live))
            rows.append(
                {"kind": Kind.CACHE_FREE, "pfn": address - (1 << 64), "pid": cpu, "cpu": cpu,
                 "site": 1}
            )  # fmt: skip
            cache.free(address, cpu=cpu)
            pages()
    for line, row in enumerate(rows):
        row["line"] = line + 1
    zones = [
        ZoneInfo(zone.node, 0, zone.name, zone.start, zone.spanned)
        for zone in machine.snapshot().zones
    ]
    described = MachineInfo(
        arch="x86_64", nr_cpus=cpus, nr_nodes=nodes, cpu_node=list(machine.layout.cpu_node),
        zones=zones, cmdline=cmdline,
    )  # fmt: skip
    return _Capture(rows, ["caller", name], described)


def operations(count, seed=1):
    random = Random(seed)
    return [random.choice((1, 1, -1)) * random.randrange(1, 1000) for _ in range(count)] + [
        -random.randrange(1, 1000) for _ in range(count)
    ]


def test_what_our_own_allocator_did_is_predicted():
    result = replay_slab(record(operations(1500)))
    assert result.equal
    assert result.inconsistent == ()
    assert result.slabs_unknown == 1  # the very first slab
    assert result.slabs_made == result.slabs_made_exact + 1 > 40
    assert result.slabs_ended == result.slabs_ended_exact > 20
    assert result.known > 1400
    assert result.causes == ((NOT_KNOWN, 1),)


@pytest.mark.parametrize(
    ("shape", "seed"), [((2, 1), 1), ((4, 1), 2), ((2, 2), 1), ((4, 2), 2), ((4, 2), 3)]
)
def test_what_several_cpus_and_nodes_did_is_predicted(shape, seed):
    result = replay_slab(record(operations(1500, seed), shape=shape))
    assert result.inconsistent == ()
    assert result.known == result.known_exact > 1400
    assert result.allocations - result.exact < 8
    # until every CPU has made a slab of its own
    assert result.slabs_made - result.slabs_made_exact == result.slabs_unknown < 8
    assert result.slabs_ended == result.slabs_ended_exact > 10
    assert result.extra == 0
    assert {cause for cause, _count in result.causes} <= {NOT_KNOWN}
    assert f"{shape[0]} CPUs" in result.notes[0]


def test_debug_caches_of_a_recording():
    capture = record(operations(600), debug="FZPU", cmdline="quiet slub_debug=FZPU")
    result = replay_slab(capture)
    assert result.equal
    assert result.slabs_ended_exact > 10
    # without the option it is another allocator
    capture.info.machine.cmdline = "quiet"
    assert not replay_slab(capture).equal


def test_orders_of_a_recording():
    capture = record(operations(600), cmdline="slub_max_order=0", max_order=0)
    assert replay_slab(capture).equal
    assert slab_options("slab_min_order=2 slab_max_order=1 slub_nomerge x slubs=1") == {
        "min_order": 1, "max_order": 1, "merge": False,
    }  # fmt: skip


def test_hidden_work_is_named_and_not_guessed():
    capture = record(operations(1500))
    keep = [
        row for row in range(len(capture.events))
        if capture.events.kind[row] != Kind.CACHE_ALLOC or row % 50
    ]  # fmt: skip
    columns = {name: getattr(capture.events, name)[keep] for name in capture.events.columns}
    capture.events = Events.from_columns(columns, sites=capture.events.sites)
    result = replay_slab(capture)
    assert result.inconsistent == ()
    assert not result.equal
    assert {cause for cause, _count in result.causes} & {NOT_KNOWN, UNSEEN_ALLOC}


def test_an_object_that_does_not_fit_is_told():
    capture = record([1] * 20)
    columns = {name: getattr(capture.events, name).copy() for name in capture.events.columns}
    columns["pfn"][-1] += 8
    capture.events = Events.from_columns(columns, sites=capture.events.sites)
    result = replay_slab(capture)
    assert len(result.inconsistent) == 1
    assert not result.equal


def test_model_begins_with_a_new_slab():
    model = CacheModel(slub_geometry(SlubConfig(), 1024))
    assert not model.certain
    assert model.alloc() == NEW
    model.new_slab(0, 7)
    assert [model.alloc() for _ in range(8)] == [7] * 7 + [NEW]
    assert model.certain
    model.resync(0, 9, 3)
    assert not model.certain
    assert [model.alloc() for _ in range(4)] == [9] * 3 + [NEW]


def test_no_events_of_objects():
    capture = _Capture([{"kind": Kind.ALLOC, "line": 1}], [])
    with pytest.raises(BadCaptureError, match="kmem:kmalloc"):
        replay_slab(capture)
    with pytest.raises(BadCaptureError):
        Driver(capture, Machine.build("64MiB"))


@pytest.mark.parametrize("kind", ["slub", "slab"])
def test_recorded_objects_on_a_machine_of_our_own(kind):
    capture = record(operations(300, seed=3))
    machine = Machine.build("64MiB")
    machine.slab_start(kind)
    driver = Driver(capture, machine)
    watched = []
    done = driver.run(watched.append, 5)
    assert done.allocations == int((capture.events.kind == Kind.CACHE_ALLOC).sum())
    assert done.unknown_frees == done.failed == done.repeated == 0
    assert len(machine.slab.cache("thing").live()) == done.allocations - done.frees
    assert len(watched) >= 5
    machine.slab.validate()
    accounts = {each.name: each for each in all_waste(machine.slab)}
    for each in accounts.values():
        parts = each.used + each.internal + each.left_over + each.partial + each.per_cpu
        assert parts == each.total
        assert min(each.used, each.internal, each.left_over, each.partial, each.per_cpu) >= 0
    assert waste_text(accounts.values()).splitlines()[-1].startswith("all ")
    found = pins(machine.slab)
    frames = sum(len(machine.slab.cache_frames(c)) for c in machine.slab.caches)
    assert sum(pin.slabs for pin in found) == frames
    assert "objects in use" in pins_text(found, 9)
    assert "NAME" in slabtop(machine.slab.rows())
    assert parse_slabinfo(machine.slabinfo()) == [
        row.__class__(**{**row.__dict__, "statistics": ()}) for row in machine.slab.rows()
    ]


CAPTURE = Path(__file__).parents[1] / "recordings" / "linux-6.1-x86_64-512M-slab.physmem"


def test_the_recording_with_objects():
    result = replay_slab(read_capture(CAPTURE))
    assert result.inconsistent == ()
    assert result.unknown_pointers == 0
    assert (result.slabs_made, result.slabs_made_exact) == (197, 197)
    assert (result.slabs_ended, result.slabs_ended_exact) == (176, 176)
    assert result.known == result.known_exact == 22678
    assert (result.allocations, result.exact) == (24173, 24116)
    assert result.extra == 0
    assert result.causes == ((UNSEEN_ALLOC, 57),)  # all of maple_node, which asks in bulk
