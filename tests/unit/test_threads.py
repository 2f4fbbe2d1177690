# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines do not influence each other: in one thread, by turns, or in several threads at once."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier

import pytest
from tests.property.pair import Pair, random_ops
from tests.property.shapes import SHAPES
from tests.property.worker import Worker

ROOT = Path(__file__).parents[2]
NAMES = ("normal", "numa", "cma", "highmem")
STEPS = 100_000


def face(name, barrier=None):
    """Answers and final state of some hundred operations through the Python face."""
    pair = Pair(SHAPES[name], twin=False, validate_every=50)
    answers = []
    if barrier is not None:
        barrier.wait()
    for op in random_ops(Random(name), 600, pair.shape.end):
        pair.run(op)
        answers.append(pair.answers)
    return answers, pair.machine.snapshot()


def native(name, barrier=None):
    """Final state after many operations without the interpreter."""
    worker = Worker(SHAPES[name], 5)
    if barrier is not None:
        barrier.wait()
    worker.run(STEPS)
    worker.check()
    return worker.result()


@pytest.mark.parametrize("work", [face, native])
def test_threads_give_what_each_gives_alone(work):
    alone = [work(name) for name in NAMES]
    barrier = Barrier(len(NAMES))
    with ThreadPoolExecutor(len(NAMES)) as pool:
        together = list(pool.map(lambda name: work(name, barrier), NAMES))
    assert together == alone


def test_machines_that_take_turns_give_what_each_gives_alone():
    pairs = [Pair(SHAPES[name], twin=False) for name in NAMES]
    works = [random_ops(Random(name), 600, SHAPES[name].end) for name in NAMES]
    answers = [[] for _ in NAMES]
    for ops in zip(*works, strict=True):
        for pair, op, told in zip(pairs, ops, answers, strict=True):
            pair.run(op)
            told.append(pair.answers)
    for name, pair, told in zip(NAMES, pairs, answers, strict=True):
        assert (told, pair.machine.snapshot()) == face(name)


def test_the_same_machine_twice_in_two_threads():
    barrier = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda name: native(name, barrier), ("huge", "huge"))
    assert one == other


def test_a_machine_that_is_gone_takes_nothing_with_it():
    machine = SHAPES["normal"].machine()
    expected = machine.snapshot()
    for name in SHAPES:
        other = SHAPES[name].machine()
        other.alloc_pages_bulk(9)
        del other
    assert machine.snapshot() == expected
    machine.validate()


FIRST_USE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from tests.property.shapes import SHAPES

def work(name):
    barrier.wait()
    machine = SHAPES[name].machine()
    machine.free_pages(machine.alloc_pages(2), 2)
    machine.validate()
    return machine.snapshot()

sys.setswitchinterval(1e-5)
barrier = Barrier(4)
with ThreadPoolExecutor(4) as pool:
    one, two, other, three = pool.map(work, ("normal", "normal", "numa", "normal"))
assert one == two == three != other
"""


def test_threads_that_meet_at_the_first_use_of_everything():
    run = subprocess.run(
        [sys.executable, "-c", FIRST_USE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
