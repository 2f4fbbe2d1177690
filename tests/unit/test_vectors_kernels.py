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
from physmem.machine.profiles import PROFILES
from physmem.mm.features import BELOW_HIGH
from physmem.mm.gfp import __GFP_MOVABLE, __GFP_RECLAIMABLE
from physmem.mm.mmzone import PCPF_PREV_FREE_HIGH_ORDER
from physmem.mm.state import (
    BLOCK_LETTERS,
    BLOCK_LETTERS_RESERVE,
    PcpState,
    State,
    ZoneState,
)

VECTOR_FILE = Path(__file__).parents[1] / "vectors" / "buddy_sequences.json.xz"
VECTORS = [
    vector
    for vector in json.loads(lzma.decompress(VECTOR_FILE.read_bytes()))
    if vector["version"] in PROFILES
]
GFP = {"U": 0, "M": __GFP_MOVABLE, "R": __GFP_RECLAIMABLE}
LETTERS = {"2.6.24": BLOCK_LETTERS_RESERVE}

pytestmark = pytest.mark.pure


def machine_of(vector):
    initial, span, kernel = vector["initial"], vector["span"], vector["version"]
    letters = LETTERS.get(kernel, BLOCK_LETTERS)
    free = [[[] for _ in letters] for _ in range(vector["orders"])]
    for key, pfns in initial["free_lists"].items():
        free[int(key[:-1])][letters.index(key[-1])] = list(pfns)
    batch, high = vector["batch"], vector.get("high", vector.get("high0"))
    nr_lists = 2 if kernel == "2.6.24" else 14
    tuning = {}
    if kernel == "6.12":
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
                cpu=0,
                count=0,
                high=high,
                batch=batch,
                lists=[[] for _ in range(nr_lists)],
                **tuning,
            )
        ],
        pageblocks=initial["blocks"],
        pageset_high=high,
        pageset_batch=batch,
    )
    layout = Layout(
        zone_names=zone_names("x86_64"),
        max_order=vector["orders"] - 1,
        thp=kernel != "2.6.24",
        watermark_boost_factor=0,
        kernel=kernel,
    )
    state = State(zones=[zone], pageblock_order=vector["pbo"])
    state.migratetypes = LETTERS.get(kernel, "")
    machine = Machine.from_state(state, layout)
    # without watermarks no zone is ever below its high mark
    machine.tables.zones["features"] &= ~BELOW_HIGH
    machine.tracing()
    return machine


def final_of(machine):
    state = machine.snapshot()
    zone = state.zones[0]
    pcp = zone.pcp[0]
    final = {
        "free_lists": {
            f"{order}{letter}": pfns
            for order, row in enumerate(zone.free)
            for letter, pfns in zip(state.letters, row, strict=True)
            if pfns
        },
        "blocks": zone.pageblocks,
        "nr_free_pages": machine.nr_free_pages,
    }
    if machine.layout.kernel == "2.6.24":
        hot = pcp.lists[0]
        return final | {"pcp": list(map(list, zip(hot, pcp.types[0], strict=True)))}
    sizes = {"free_factor": pcp.free_factor}
    if machine.layout.kernel == "6.12":
        sizes = {name: getattr(pcp, name) for name in ("high", "alloc_factor", "free_count")}
        sizes["prev"] = pcp.flags & PCPF_PREV_FREE_HIGH_ORDER
    return (
        final
        | sizes
        | {
            "pcp": {str(index): pfns for index, pfns in enumerate(pcp.lists) if pfns},
            "count": pcp.count,
        }
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['version']}-{v['seed']}")
def test_random_sequence(vector):
    machine = machine_of(vector)
    alloc, h = ready(native.alloc_freely), address(machine.tables.memory)
    for step, op in enumerate(vector["ops"]):
        where = f"step {step}: {op}"
        if op[0] == "a":
            _, order, letter, result, *events = op
            pfn = alloc(h, order, GFP[letter], 0)
            assert (None if pfn < 0 else pfn) == result, where
        else:
            _, pfn, order, *events = op
            machine.free_pages(pfn, order)
        told = [list(plain(event)) for event in machine.events()]
        assert not events or [told] == events, where  # 2.6.24 itself has no tracepoints
        if step % 16 == 0:
            machine.validate()
    machine.validate()
    assert final_of(machine) == vector["final"]


def test_all_vectors_of_these_kernels_are_there():
    assert len(VECTORS) == 14 * len(PROFILES)
