# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels against random sequences with known results, on toy machines of one zone.

The sequences know no watermarks: requests are made past them. One CPU, all memory free and MOVABLE
at first, no boost; the list 12 and 13 of the per-CPU lists hold blocks of pageblock order.
"""

import json
import lzma
from pathlib import Path

import pytest
from tests.property import native
from tests.property.pair import plain

from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.layout import Layout, zone_names
from physmem.machine.machine import Machine
from physmem.mm.features import BELOW_HIGH
from physmem.mm.gfp import __GFP_MOVABLE, __GFP_RECLAIMABLE
from physmem.mm.mmzone import PCPF_PREV_FREE_HIGH_ORDER
from physmem.mm.state import BLOCK_LETTERS, PcpState, State, ZoneState

VECTOR_FILE = Path(__file__).parents[1] / "vectors" / "buddy_sequences.json.xz"
VECTORS = [
    vector
    for vector in json.loads(lzma.decompress(VECTOR_FILE.read_bytes()))
    if vector["version"] in ("6.1", "6.12")
]
GFP = {"U": 0, "M": __GFP_MOVABLE, "R": __GFP_RECLAIMABLE}

pytestmark = pytest.mark.pure


def machine_of(vector):
    initial, span = vector["initial"], vector["span"]
    free = [[[] for _ in BLOCK_LETTERS] for _ in range(vector["orders"])]
    for key, pfns in initial["free_lists"].items():
        free[int(key[:-1])][BLOCK_LETTERS.index(key[-1])] = list(pfns)
    batch, high = vector["batch"], vector.get("high", vector.get("high0"))
    tuning = {}
    if vector["version"] == "6.12":
        tuning = {"high_min": vector["high_min"], "high_max": vector["high_max"]}
    zone = ZoneState(
        node=0,
        name="Normal",
        start=vector["start"],
        spanned=span,
        managed=span,
        present=span,
        wmark=[0, 0, 0, 0],
        free=free,
        pcp=[
            PcpState(
                cpu=0, count=0, high=high, batch=batch, lists=[[] for _ in range(14)], **tuning
            )
        ],
        pageblocks=initial["blocks"],
        pageset_high=high,
        pageset_batch=batch,
    )
    layout = Layout(
        zone_names=zone_names("x86_64"),
        max_order=vector["orders"] - 1,
        watermark_boost_factor=0,
        kernel=vector["version"],
    )
    machine = Machine.from_state(State(zones=[zone], pageblock_order=vector["pbo"]), layout)
    # without watermarks no zone is ever below its high mark
    machine.tables.zones["features"] &= ~BELOW_HIGH
    machine.tracing()
    return machine


def final_of(machine, version):
    zone = machine.snapshot().zones[0]
    pcp = zone.pcp[0]
    sizes = {"free_factor": pcp.free_factor}
    if version == "6.12":
        sizes = {name: getattr(pcp, name) for name in ("high", "alloc_factor", "free_count")}
        sizes["prev"] = pcp.flags & PCPF_PREV_FREE_HIGH_ORDER
    return sizes | {
        "free_lists": {
            f"{order}{letter}": pfns
            for order, row in enumerate(zone.free)
            for letter, pfns in zip(BLOCK_LETTERS, row, strict=True)
            if pfns
        },
        "blocks": zone.pageblocks,
        "nr_free_pages": machine.nr_free_pages,
        "pcp": {str(index): pfns for index, pfns in enumerate(pcp.lists) if pfns},
        "count": pcp.count,
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['version']}-{v['seed']}")
def test_random_sequence(vector):
    machine = machine_of(vector)
    alloc, h = ready(native.alloc_freely), address(machine.tables.memory)
    for step, op in enumerate(vector["ops"]):
        where = f"step {step}: {op}"
        if op[0] == "a":
            _, order, letter, result, events = op
            pfn = alloc(h, order, GFP[letter], 0)
            assert (None if pfn < 0 else pfn) == result, where
        else:
            _, pfn, order, events = op
            machine.free_pages(pfn, order)
        assert [list(plain(event)) for event in machine.events()] == events, where
        if step % 16 == 0:
            machine.validate()
    machine.validate()
    assert final_of(machine, vector["version"]) == vector["final"]


def test_all_vectors_of_these_kernels_are_there():
    assert [vector["version"] for vector in VECTORS] == ["6.1"] * 14 + ["6.12"] * 14
