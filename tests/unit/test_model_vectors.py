# SPDX-License-Identifier: GPL-2.0-or-later
"""The twin against random sequences with known results; its states and invariants."""

import json
import lzma
from pathlib import Path

import pytest
from tests.model import V61, Machine
from tests.model.features import ALLOC_NO_WATERMARKS
from tests.model.toy import (
    KERNELS,
    V61_ON,
    alloc,
    blocks_of,
    events_of,
    gfp_of,
    lists_of,
    toy,
)

VECTOR_FILE = Path(__file__).parents[1] / "vectors" / "buddy_sequences.json.xz"
VECTORS = json.loads(lzma.decompress(VECTOR_FILE.read_bytes()))

# ---- random sequences --------------------------------------------------------------------------


def load_vector(vector):
    features = KERNELS[vector["version"]]
    initial = vector["initial"]
    return toy(
        features,
        {(int(k[:-1]), k[-1]): v for k, v in initial["free_lists"].items()},
        initial["blocks"],
        vector["start"],
        vector["span"],
        vector["pbo"],
        vector["orders"] - 1,
        vector["batch"],
        vector.get("high", vector.get("high_min")),
        vector.get("high_max"),
    )


def final_of(vector, machine):
    """Write the twin's state in the form of the vectors."""
    zone, pcp = machine.zones[0], machine.pcp[0][0]
    final = {
        "free_lists": {f"{o}{t}": chunks for (o, t), chunks in lists_of(machine).items()},
        "blocks": blocks_of(machine),
        "nr_free_pages": zone.nr_free_pages,
    }
    if vector["version"] == "2.6.24":
        return final | {"pcp": [[pfn, pcp.private[pfn]] for pfn in pcp.lists[0]]}
    final["pcp"] = {str(i): pages for i, pages in enumerate(pcp.lists) if pages}
    final["count"] = pcp.count
    if vector["version"] == "6.1":
        return final | {"free_factor": pcp.free_factor}
    return final | {
        "high": pcp.high,
        "alloc_factor": pcp.alloc_factor,
        "free_count": pcp.free_count,
        "prev": int(pcp.prev_free_high_order),
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['version']}-{v['seed']}")
def test_random_sequence(vector):
    machine = load_vector(vector)
    if vector["version"] == "6.12":
        machine.pcp[0][0].high = vector["high0"]
    for step, op in enumerate(vector["ops"]):
        where = f"step {step}: {op}"
        if op[0] == "a":
            _, order, letter, result, *events = op
            gfp = gfp_of(machine.features, letter)
            got = machine.alloc_pages(order, gfp, alloc_flags=ALLOC_NO_WATERMARKS)
            assert got == result, where
        else:
            _, pfn, order, *events = op
            machine.free_pages(pfn, order)
        assert [events_of(machine)] == (events or [[]]), where
        if step % 16 == 0:
            machine.validate()
    machine.validate()
    assert final_of(vector, machine) == vector["final"]


def test_every_kernel_has_its_vectors():
    assert [v["version"] for v in VECTORS] == ["2.6.24"] * 14 + ["6.1"] * 14 + ["6.12"] * 14


# ---- states and invariants ---------------------------------------------------------------------


@pytest.mark.parametrize("kernel", V61_ON)
def test_snapshot_round_trip(kernel):
    machine = toy(KERNELS[kernel], "o5/M:[0,32]", batch=3, high=12, high_max=24)
    held = [alloc(machine, o, t) for o, t in [(0, "M"), (1, "U"), (0, "R"), (2, "M")]]
    machine.free_pages(held[0], 0)
    state = json.loads(json.dumps(machine.snapshot(remembered_types=True)))
    again = Machine.from_state(state, features=machine.features, movable=machine.movable)
    again.validate()
    assert again.snapshot(remembered_types=True) == state
    assert again.zones[0].pcppage_migratetype.items() <= (
        machine.zones[0].pcppage_migratetype.items()
    )


def test_every_invariant_is_named():
    def broken(damage, name):
        machine = toy(V61, "o0/M:[5] o1/M:[8] o4/M:[16] o5/M:[32]", batch=3, high=12)
        machine.free_pages(0, 0)
        damage(machine, machine.zones[0])
        with pytest.raises(AssertionError, match=name):
            machine.validate()

    broken(lambda _m, z: z.add_to_free_list(6, 2, "M"), "alignment")
    broken(lambda _m, z: z.add_to_free_list(64, 0, "M"), "inside-zone")
    broken(lambda _m, z: z.add_to_free_list(4, 0, "M"), "coalescing")
    broken(lambda _m, z: z.free_list[0]["U"].append(5), "list-index")
    broken(lambda _m, z: z.nr_free.__setitem__(3, 1), "nr-free: order 3")
    broken(lambda _m, z: setattr(z, "nr_free_pages", 1), "nr-free-pages")
    broken(lambda m, _z: setattr(m.pcp[0][0], "count", 7), "pcp-count")
    broken(lambda m, _z: m.movable.add(5), "movable-in-use")
    broken(lambda _m, z: setattr(z, "nr_in_use", 3), "conservation")
    broken(lambda _m, z: z.set_pageblock_migratetype(32, "H"), "highatomic-count")

    def overlap(_machine, zone):
        zone.add_to_free_list(40, 2, "M")
        zone.nr_free_pages += 4

    broken(overlap, "overlap")


def test_double_free_is_refused():
    machine = toy(V61, "o5/M:[0,32]")
    with pytest.raises(AssertionError, match="free already"):
        machine.free_pages(7, 0)
