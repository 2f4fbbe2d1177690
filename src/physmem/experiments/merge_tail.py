# SPDX-License-Identifier: GPL-2.0-or-later
"""`merge-tail`: a freed block whose pair may merge soon waits at the tail of its list (2010)."""

from typing import Any

from physmem.experiments.load import Load, Settings
from physmem.experiments.machines import booted, managed, provenance, with_features
from physmem.experiments.params import CHOICE, FLOAT, INT, SIZE, Parameter
from physmem.experiments.registry_types import Experiment, Progress
from physmem.experiments.report import SAME_SHAPE, Figure, Line, Report, Series, Table, Verdict
from physmem.mm.features import MERGE_TO_TAIL
from physmem.views.fragmentation import unusable_index

ORDERS = (2, 4, 6, 9)
SAMPLES = 64


def run(params: dict[str, Any], seed: int, progress: Progress) -> Report:
    """The same load with and without the rule, over several seeds."""
    runs = params["runs"]
    rows: list[tuple[Any, ...]] = []
    course: dict[str, list[float]] = {}
    machines: dict[str, Any] = {}
    operations = 0
    for at in range(runs):
        means = {}
        for rule, clear in (("on", 0), ("off", MERGE_TO_TAIL)):
            machine = with_features(booted(params["memory"], params["kernel"]), clear=clear)
            load = Load(machine, Settings(), seed=seed + at)
            course[rule], means[rule] = _run(machine, load, params["turnover"])
            machines[rule] = machine
            operations += load.operations
            progress(2 * at + (rule == "off") + 1, 2 * runs)
        rows += [
            (seed + at, order, round(on, 4), round(off, 4), round(on - off, 4))
            for order, on, off in zip(ORDERS, means["on"], means["off"], strict=True)
        ]
    change = {order: sum(row[4] for row in rows if row[1] == order) / runs for order in ORDERS}
    mean = sum(change.values()) / len(change)
    times = tuple(params["turnover"] * (k + 1) / SAMPLES for k in range(SAMPLES))
    lines = tuple(Line(f"rule {rule}", times, tuple(values)) for rule, values in course.items())
    return Report(
        name=EXPERIMENT.name,
        title=EXPERIMENT.title,
        params=params,
        seed=seed,
        source=EXPERIMENT.source,
        figures=(
            *(
                Figure(
                    f"change_order{order}",
                    f"unusable index at order {order}, on - off, thousandths",
                    round(change[order], 4),
                    "slightly lower",
                    SAME_SHAPE,
                )
                for order in ORDERS
            ),
            Figure("change", "mean over the orders, thousandths", round(mean, 4)),
        ),
        tables=(Table("runs", ("seed", "order", "on", "off", "change"), tuple(rows)),),
        series=(
            Series(
                "Unusable index at order 4, last seed",
                "steps of the load, in multiples of the machine's frames",
                "unusable index (thousandths)",
                lines,
            ),
        ),
        notes=NOTES,
        verdict=Verdict(
            mean <= 0,
            f"with the rule the unusable index is {abs(mean):.1f} thousandths"
            f" {'lower' if mean <= 0 else 'higher'} on average (published: slightly lower)",
        ),
        provenance=provenance(*machines.values()),
        operations=operations,
        machines=machines,
    )


def _run(machine: Any, load: Load, turnover: float) -> tuple[list[float], list[float]]:
    """Course of the index at order 4, and its mean at each of ORDERS over the second half."""
    steps = int(managed(machine) * turnover)
    sums = [0.0] * len(ORDERS)
    course = []
    for sample in range(SAMPLES):
        load.run(steps * (sample + 1) // SAMPLES - steps * sample // SAMPLES)
        counts = machine.tables.zones["free_area"]["nr_free"].sum(axis=0).tolist()
        values = [unusable_index(counts, order) for order in ORDERS]
        course.append(float(values[1]))
        if sample >= SAMPLES // 2:
            sums = [total + value for total, value in zip(sums, values, strict=True)]
    return course, [total / (SAMPLES - SAMPLES // 2) for total in sums]


NOTES = (
    "Comparable: the sign. The size of the effect is ours and belongs to this load.",
    (
        "The rule is one feature bit (physmem.mm.features.MERGE_TO_TAIL); all else is equal, and"
        " both runs get the same random numbers."
    ),
)

EXPERIMENT = Experiment(
    name="merge-tail",
    title="Blocks that may merge again go to the tail of their list: on and off",
    source="M. Gorman and C. Ehrhardt, commit 6dda9d55bf54, Linux 2.6.35 (2010)",
    claim="the unusable free space index is slightly lower with the rule",
    word=SAME_SHAPE,
    parameters=(
        Parameter("memory", SIZE, "512MiB", "memory of the machine", 128 << 20, 1 << 40),
        Parameter("turnover", FLOAT, 6.0, "steps, in multiples of the frames", 0.1, 10_000),
        Parameter("runs", INT, 3, "seeds, one after the other", 1, 1000),
        Parameter("kernel", CHOICE, "6.1", "rules", choices=("6.1", "6.12")),
    ),
    run=run,
)
