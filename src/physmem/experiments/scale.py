# SPDX-License-Identifier: GPL-2.0-or-later
"""`scale`: boot a terabyte and reallocate single frames in a part of it."""

import time
from typing import Any

from physmem.experiments.census import census
from physmem.experiments.holder import Holder
from physmem.experiments.machines import booted, managed, provenance
from physmem.experiments.params import CHOICE, INT, SIZE, Parameter
from physmem.experiments.registry_types import Experiment, Progress
from physmem.experiments.report import SAME_SHAPE, Figure, Line, Report, Series, Table, Verdict
from physmem.firmware.size import parse_size
from physmem.lib.errors import BadRequestError

_COLUMNS = ("round", "free_huge", "possible_huge", "percent_of_possible")


def run(params: dict[str, Any], seed: int, progress: Progress) -> Report:
    """Boot, then run the reallocation of `llfree-frag` on a part of the memory."""
    rounds = params["rounds"]
    part = parse_size(params["part"]) >> 12
    start = time.perf_counter()
    machine = booted(params["memory"], params["kernel"])
    boot_seconds = time.perf_counter() - start
    if part > managed(machine) * 9 // 10:
        raise BadRequestError(
            f"part {params['part']!r}: at most nine tenths of memory {params['memory']!r}"
        )
    holder = Holder(machine, seed=seed, room=part)
    holder.need(part)
    holder.shuffle()
    holder.free(part // 2)
    moved = holder.held // 10
    rows = []
    for number in range(rounds + 1):
        if number:
            holder.choose(moved)
            holder.free(moved)
            holder.need(moved)
        found = census(machine)
        rows.append((number, found.free_blocks, found.possible, round(found.score, 4)))
        progress(number + 1, rounds + 1)
    scores = [float(row[3]) for row in rows]
    drift = max(abs(score - scores[0]) for score in scores)
    return Report(
        name=EXPERIMENT.name,
        title=EXPERIMENT.title,
        params=params,
        seed=seed,
        source=EXPERIMENT.source,
        figures=(
            Figure("frames", "frames of the machine", managed(machine)),
            Figure(
                "bytes_per_frame", "bytes of tables per frame", round(machine.bytes_per_page, 3)
            ),
            Figure("drift", "largest distance from the start, points", round(drift, 4)),
        ),
        tables=(Table("rounds", _COLUMNS, tuple(rows)),),
        series=(
            Series(
                "Free huge pages of a large machine",
                "round",
                "% of possible huge pages",
                (Line(params["memory"], tuple(range(len(scores))), tuple(scores)),),
            ),
        ),
        notes=NOTES,
        verdict=Verdict(
            drift <= 1.0,
            f"{params['memory']} booted, {holder.operations} operations; the share of huge pages"
            f" moved by {drift:.2f} points",
        ),
        provenance=provenance(machine),
        operations=holder.operations,
        machines={"end": machine},
        measured={"boot_seconds": boot_seconds, "peak_rss_mib": _peak_mib()},
    )


def _peak_mib() -> float:
    """Most memory that this process ever had, in MiB; 0 where that cannot be told."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


NOTES = (
    (
        "0sim runs real kernels of 1 TB on a 31 GB host, 8 to 100 times slower than the machine"
        " itself; this is a model of the allocator alone: only memory and time can be set side by"
        " side."
    ),
    (
        "Time and memory belong to this run and this computer; they are printed, but are no part"
        " of the result."
    ),
)

EXPERIMENT = Experiment(
    name="scale",
    title="A terabyte of memory, booted and in use",
    source="M. Mansi and M. Swift, 0sim: Preparing System Software for a World with Terabyte-scale"
    " Memories, ASPLOS 2020",
    claim="1 TB on a 31 GB host at 8 to 100 times the time",
    word=SAME_SHAPE,
    parameters=(
        Parameter("memory", SIZE, "1TiB", "memory of the machine", 64 << 20, 16 << 40),
        Parameter("part", SIZE, "4GiB", "memory that is allocated first", 1 << 20, 16 << 40),
        Parameter("rounds", INT, 10, "rounds of reallocation", 1, 100_000),
        Parameter("kernel", CHOICE, "6.1", "rules", choices=("2.6.24", "6.1", "6.12")),
    ),
    run=run,
)
