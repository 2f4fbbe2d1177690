# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled kernels against the slow twin: random work on machines of many shapes.

After each operation the answers and the events are equal and every invariant holds; every few
operations all lists are equal, in order. Two drivers do the work: Hypothesis looks for small
examples of a difference, a seeded generator does many operations.
"""

import os
import time
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.model.numa import NodeOrder
from tests.property.pair import GFP, Pair, random_ops
from tests.property.pair import REQUESTS as REQUESTS_OF
from tests.property.shapes import SHAPES

from physmem.lib.errors import BadRequestError
from physmem.mm.gfp import TABLES, format_gfp, parse_gfp
from physmem.mm.zonelist import node_order

CI_OPERATIONS = 105_000
COMPARE_EVERY = 25

CPUS = st.integers(0, 3)
NODES = st.none() | st.integers(0, 3)
ORDERS = st.sampled_from((0, 0, 0, 0, 1, 1, 2, 3)) | st.integers(-1, 12)
REQUESTS = st.integers(0, len(GFP) - 1)
PLACES = st.integers(0, 1 << 12)


# ---- Hypothesis ----------------------------------------------------------------------------------


class PairMachine(RuleBasedStateMachine):
    """One machine and its twin under any sequence of operations."""

    pair = None

    @initialize(name=st.sampled_from(sorted(SHAPES)), seed=st.integers(0, 7), warm=st.booleans())
    def begin(self, name, seed, warm):
        """Start fresh, or after some work: shortage is many steps away."""
        self.pair = Pair(SHAPES[name])
        if warm:
            for op in random_ops(Random(seed), 120, self.pair.shape.end):
                self.pair.run(op)
        self.pair.compare()

    def run_op(self, *op):
        self.pair.run(op)
        self.pair.compare()

    @rule(order=ORDERS, gfp=REQUESTS, cpu=CPUS, node=NODES)
    def alloc(self, order, gfp, cpu, node):
        self.run_op("alloc", order, gfp, cpu, node)

    @rule(order=ORDERS, gfp=REQUESTS, count=st.integers(2, 60))
    def alloc_many(self, order, gfp, count):
        """Bring shortage about."""
        for cpu in range(count):
            self.pair.run(("alloc", order, gfp, cpu % 3, None))
        self.pair.compare()

    @rule(nr=st.integers(0, 40), gfp=REQUESTS, cpu=CPUS, node=NODES)
    def bulk(self, nr, gfp, cpu, node):
        self.run_op("bulk", nr, gfp, cpu, node)

    @rule(nr=st.integers(1, 90), gfp=REQUESTS, cpu=CPUS)
    def burst(self, nr, gfp, cpu):
        self.run_op("burst", nr, gfp, cpu)

    @precondition(lambda self: self.pair.held)
    @rule(index=PLACES, cpu=CPUS)
    def free(self, index, cpu):
        self.run_op("free", index, cpu)

    @precondition(lambda self: self.pair.held)
    @rule(index=PLACES, count=st.integers(2, 40), cpu=CPUS)
    def free_many(self, index, count, cpu):
        for place in range(index, index + count):
            self.pair.run(("free", place, cpu))
        self.pair.compare()

    @precondition(lambda self: self.pair.held or self.pair.loose)
    @rule(index=PLACES, place=st.integers(0, 255), cpu=CPUS, busy=st.booleans())
    def part(self, index, place, cpu, busy):
        self.run_op("part", index, place, cpu, busy)

    @rule(pfn=PLACES, order=st.integers(0, 5), cpu=CPUS)
    def free_loaded(self, pfn, order, cpu):
        self.run_op("free_loaded", pfn, order, cpu)

    @rule(pfn=st.integers(-3, 12_000) | st.sampled_from((-(1 << 70), 1 << 70)), order=ORDERS)
    def wrong(self, pfn, order):
        self.run_op("wrong", pfn, order, 0)

    @precondition(lambda self: self.pair.held)
    @rule(index=PLACES, shift=st.sampled_from((-1, 1, 2)), order=st.integers(-1, 2))
    def almost(self, index, shift, order):
        self.run_op("almost", index, shift, order, 0)

    @precondition(lambda self: self.pair.held)
    @rule(index=PLACES)
    def prepare(self, index):
        self.run_op("prepare", index)

    @precondition(lambda self: self.pair.prepared)
    @rule(index=PLACES, cpu=CPUS)
    def commit(self, index, cpu):
        self.run_op("commit", index, cpu)

    @rule(cpu=st.none() | CPUS, zone=NODES)
    def drain(self, cpu, zone):
        self.run_op("drain", cpu, zone)

    @rule(cpu=CPUS, zone=st.integers(0, 3))
    def drain_batch(self, cpu, zone):
        self.run_op("drain_batch", cpu, zone)

    @rule(cpu=CPUS, seconds=st.integers(1, 4))
    def tick(self, cpu, seconds):
        for _ in range(seconds):
            self.run_op("tick", cpu)

    @rule(zone=st.integers(0, 3), active=st.booleans())
    def reclaim(self, zone, active):
        self.run_op("reclaim", zone, active)

    @rule(index=PLACES, cpu=CPUS)
    def cold(self, index, cpu):
        self.run_op("cold", index, cpu)

    @rule(zone=st.integers(0, 3), least=st.integers(0, 200))
    def reserve(self, zone, least):
        self.run_op("reserve", zone, least)

    @rule()
    def copy(self):
        self.run_op("copy")

    def teardown(self):
        if self.pair is not None:
            self.pair.compare()


TestPairs = pytest.mark.slow(PairMachine.TestCase)


# ---- the seeded generator ------------------------------------------------------------------------


def drive(name, seed, count, path=None):
    """Run `count` random operations on a shape; how many were done."""
    pair = Pair(SHAPES[name])
    pair.compare()
    for step, op in enumerate(random_ops(Random(f"{name} {seed}"), count, pair.shape.end)):
        try:
            pair.run(op)
            if step % COMPARE_EVERY == 0:
                pair.compare()
            if step % 997 == 500:
                pair.run(("copy",))
            if step % 1999 == 1000 and path is not None:
                pair.run(("reopen", path))
        except AssertionError as error:
            raise AssertionError(
                f"shape {name}, seed {seed}, step {step}: {op}\n{error}"
            ) from error
    pair.compare()
    for _ in range(len(pair.prepared)):
        pair.run(("commit", 0, 0))
    while pair.held:
        pair.run(("free", 0, 0))
    pair.run(("drain", None, None))
    pair.compare()
    return pair.operations


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_in_short(name, tmp_path):
    assert drive(name, 1, 250, tmp_path / "machine") >= 250


@pytest.mark.slow
def test_a_hundred_thousand_operations(tmp_path):
    share = -(-CI_OPERATIONS // len(SHAPES))
    done = {name: drive(name, 2, share, tmp_path / "machine") for name in SHAPES}
    print(f"\n{sum(done.values())} operations: {done}")
    assert sum(done.values()) >= 100_000


@pytest.mark.soak
def test_the_nightly_run(tmp_path):
    """PHYSMEM_NIGHTLY_SECONDS of other seeds each night."""
    seconds = float(os.environ.get("PHYSMEM_NIGHTLY_SECONDS", "600"))
    end, night, done = time.monotonic() + seconds, time.strftime("%Y%m%d"), 0
    while time.monotonic() < end:
        for name in SHAPES:
            done += drive(name, f"{night} {done}", 2000, tmp_path / "machine")
    print(f"\n{done} operations, seeds of {night}")


# ---- what is neither frame nor list --------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_snapshot_makes_the_same_machine(name):
    pair = Pair(SHAPES[name])
    for op in random_ops(Random(name), 150, pair.shape.end):
        pair.run(op)
    for _ in range(len(pair.prepared)):
        pair.run(("commit", 0, 0))
    again = type(pair.machine).from_state(pair.machine.snapshot(), pair.shape.layout)
    again.validate()
    assert again.snapshot() == pair.machine.snapshot()
    twin = pair.shape.twin_of(pair.machine)
    twin.validate()
    assert twin.snapshot() == pair.twin.snapshot()


def test_requests_that_no_kernel_would_accept():
    machine = SHAPES["numa"].machine()
    before = machine.snapshot()
    for bad in ({"order": 8}, {"order": -1}, {"cpu": 3}, {"cpu": -1}, {"node": 2}, {"gfp": "X"}):
        with pytest.raises(BadRequestError):
            machine.alloc_pages(**bad)
    for nr in (-1, 1 << 40):
        with pytest.raises(BadRequestError):
            machine.alloc_pages_bulk(nr)
    assert machine.snapshot() == before


def test_the_names_of_requests_are_those_of_their_bits():
    for kernel, requests in REQUESTS_OF.items():
        table = TABLES[kernel]
        assert [parse_gfp(format_gfp(bits, table), table) for bits in requests] == list(requests)
        assert [table.external(table.internal(bits)) for bits in requests] == list(requests)


@pytest.mark.parametrize("local_load", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_node_orders(seed, local_load):
    rng = Random(seed)
    nodes = rng.randrange(1, 7)
    distance = [[10] * nodes for _ in range(nodes)]
    for a in range(nodes):
        for b in range(a):
            distance[a][b] = distance[b][a] = rng.choice((16, 20, 20, 32))
    has_memory = [rng.random() < 0.8 for _ in range(nodes)]
    has_cpu = [memory is False or rng.random() < 0.7 for memory in has_memory]
    orders = NodeOrder(
        distance,
        [node for node in range(nodes) if has_memory[node]],
        [node for node in range(nodes) if has_cpu[node]],
        load_per_local_node=local_load,
    ).build()
    wanted = [[node for node in orders[local] if has_memory[node]] for local in range(nodes)]
    assert node_order(distance, has_memory, has_cpu, local_load=local_load) == wanted
