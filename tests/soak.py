# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak run: 10^8 random operations at native speed, with every invariant checked.

`python -m tests.soak [--operations 1e8] [--seed N] [--shape NAME]`

The work goes round the shapes in chunks. After each chunk every invariant is checked; before it, a
few thousand operations are done on the slow twin as well. When something is wrong the chunk is done
again in smaller steps until the first bad operation is known; the exit status is 1.
"""

import argparse
import sys
import time

from tests.model import ZoneSpec
from tests.property.shapes import SHAPES as SMALL
from tests.property.shapes import Shape
from tests.property.worker import Worker

from physmem.lib.errors import CorruptStateError

SHAPES = SMALL | {
    "large": Shape(  # 512 MiB with the sizes that a kernel would choose
        name="large",
        zones=(
            ZoneSpec(
                *(0, "DMA", 1, 4095),
                wmark=(42, 52, 62, 72),
                lowmem_reserve=(0, 492, 492, 492, 492),
                batch=1,
                high=52,
            ),
            ZoneSpec(
                *(0, "DMA32", 4096, 126976), wmark=(1300, 1625, 1950, 2275), batch=31, high=812
            ),
        ),
        free=((3, 159), (256, 130000)),
        pageblock_order=9,
        max_order=10,
        letters={0: "U" + "M" * 7},
        cpu_node=(0, 0),
    )
}
CHUNK = 1_000_000
SLICE = 2_000
FAULTS = (AssertionError, CorruptStateError)


def fault(worker, steps):
    """What is wrong after so many operations, or None."""
    try:
        worker.run(steps)
        worker.check()
    except FAULTS as error:
        return error
    return None


def first_fault(worker, steps):
    """Fewest operations from the state of `worker` that end in a fault, and the fault."""
    good, bad = 0, steps
    while bad - good > 1:
        middle = (good + bad) // 2
        if fault(worker.copy(), middle) is None:
            good = middle
        else:
            bad = middle
    return bad, fault(worker.copy(), bad)


def chunk(worker, steps):
    """Do operations, the first of them on the twin as well; a text when something is wrong."""
    first = min(SLICE, steps)
    try:
        worker.against_twin(first)
    except FAULTS as error:
        return f"operations {worker.done - first}..{worker.done}, against the twin: {error}"
    before = worker.copy()
    if fault(worker, steps - first) is None:
        return None
    step, error = first_fault(before, steps - first)
    return f"operation {before.done + step}: {error}"


def soak(operations, seed, names, show):
    """Do all operations; how many were done, and a text when something is wrong."""
    workers = [Worker(SHAPES[name], seed) for name in names]
    share = -(-operations // len(workers))
    done = 0
    while done < operations:
        for name, worker in zip(names, workers, strict=True):
            steps = min(CHUNK, share - worker.done, operations - done)
            if steps <= 0:
                continue
            wrong = chunk(worker, steps)
            if wrong is not None:
                return done, f"shape {name}, seed {seed}, {wrong}"
            done += steps
            show(done, name)
    return done, None


def main(argv=None):
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--operations", type=float, default=1e8)
    parser.add_argument("--seed", type=int, help="default: the clock")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="default: all, by turns")
    args = parser.parse_args(argv)
    operations = max(int(args.operations), 1)
    seed = int(time.time()) if args.seed is None else args.seed
    names = [args.shape] if args.shape else list(SHAPES)
    print(f"soak: {operations:,} operations, seed {seed}, shapes {', '.join(names)}", flush=True)
    Worker(SHAPES[names[0]], seed).run(1)  # compile
    started = time.monotonic()
    live = sys.stdout.isatty()
    told = [0.0]

    def show(done, name):
        seconds = time.monotonic() - started
        if not live and done < operations and seconds - told[0] < 15:
            return
        told[0] = seconds
        bar = "#" * (30 * done // operations)
        line = f"[{bar:<30}] {done:>13,}  {done / seconds / 1e6:5.2f} M/s  {name:<10}"
        print(f"\r{line}" if live else line, end="" if live else "\n", flush=True)

    done, wrong = soak(operations, seed, names, show)
    seconds = time.monotonic() - started
    if live:
        print()
    if wrong is not None:
        print(f"soak: WRONG after {done:,} operations: {wrong}")
        print(f"soak: again: python -m tests.soak --operations {operations} --seed {seed}", end="")
        print(f" --shape {args.shape}" if args.shape else "")
        return 1
    rate = done / seconds
    print(f"soak: {done:,} operations in {seconds:.1f} s ({rate:,.0f}/s), every invariant holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
