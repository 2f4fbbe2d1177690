# SPDX-License-Identifier: GPL-2.0-or-later
"""One variant in one call: a flat row of figures, for sweeps and searches."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from physmem.lab.metrics import metrics_of
from physmem.lab.settings import parse_group
from physmem.lab.source import Source
from physmem.lab.variant import Run, prepare

_KEPT = 2
"""Recordings that a worker keeps ready."""


def evaluate(
    capture_path: str | os.PathLike[str], settings: Mapping[str, str], seed: int = 0
) -> dict[str, float | int | str]:
    """Scalar metrics of one variant at the end of a recorded workload.

    The same arguments give the same values, in whatever process. A recording stays in memory for
    the next calls.

    Parameters
    ----------
    capture_path : path
        A capture, or the folder of a recording.
    settings : mapping of str to str
        As `physmem whatif --set` takes them; empty: the recorded machine.
    seed : int
        Given to settings that draw lots (shuffle) and do not name a seed themselves.

    Returns
    -------
    dict
        `capture`, `digest`, `settings`, `seed`; counters of the run; metrics of the whole machine
        (`physmem.lab.metrics.Metrics`) under their names, those of zones with the zone before them.

    Raises
    ------
    BadInputError, BadMachineError
        Settings that do not exist or that no kernel could start with.
    BadCaptureError
        Not a capture, or one without a state.
    """
    path = Path(capture_path)
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    source = _source(os.fspath(path), stamp)
    run = prepare(source.described, parse_group(settings, seed), source.workload)
    run.carry_out()
    return row_of(source, run, seed)


@lru_cache(maxsize=_KEPT)
def _source(path: str, _stamp: int) -> Source:
    return Source.open(path)


def counters_of(run: Run) -> dict[str, int]:
    """Counters of a run, by name."""
    memory = run.machine.tables.memory[0]
    zones = run.machine.tables.zones
    return {
        "allocations": run.count("takes"),
        "failed": run.count("failed"),
        "early_failed": run.count("early_failed"),
        "frees_of_failed": run.count("gives_skipped"),
        "fallbacks": int(zones["nr_steals"].sum()),
        "claims": int(zones["nr_claims"].sum()),
        "fragmenting": run.count("fragmenting"),
        "below_low": run.count("below_low"),
        "below_min": run.count("below_min"),
        "slowpath": int(memory["nr_slowpath"]),
        "recorded_failures_tried": run.count("tried_again"),
        "recorded_failures_served": run.count("tried_got"),
    }


def row_of(source: Source, run: Run, seed: int) -> dict[str, float | int | str]:
    """Everything scalar about a run."""
    row: dict[str, float | int | str] = {
        "capture": Path(source.name).name,
        "digest": source.digest,
        "settings": run.settings.text,
        "seed": seed,
        **counters_of(run),
    }
    metrics = metrics_of(run.machine)
    whole = metrics[-1].flat()
    row |= {name: value for name, value in whole.items() if name not in ("node", "name")}
    for zone in metrics[:-1]:
        prefix = f"node{zone.node}_{zone.name}_"
        row |= {
            prefix + name: value
            for name, value in zone.flat().items()
            if name not in ("node", "name")
        }
    return row
