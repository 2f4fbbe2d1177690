# SPDX-License-Identifier: GPL-2.0-or-later
"""A sweep: what is missing is computed, every outcome is kept at once, the results are written.

Beside the results `NAME.parquet` stand `NAME.state/` (the journal, from which an interrupted sweep
goes on) and `NAME.run.json` (when, where and how long: all that differs between two runs).
"""

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from physmem.lab.journal import Journal, read_records
from physmem.lab.local_pool import Pool
from physmem.lab.results import Results, collect, write_results
from physmem.lab.summary import no_such_metric
from physmem.lab.sweep_plan import Plan
from physmem.lab.task import OK, Outcome, Task
from physmem.lib.errors import BadStudyError
from physmem.lib.output import replace_file
from physmem.lib.version import __version__

SUFFIX = ".parquet"


def state_folder(output: Path) -> Path:
    """Folder of the journal of results.

    Examples
    --------
    >>> state_folder(Path("a/study.parquet")).as_posix()
    'a/study.state'
    """
    return output.with_name(f"{_stem(output)}.state")


def run_file(output: Path) -> Path:
    """File that tells of the run that wrote results.

    Examples
    --------
    >>> run_file(Path("a/study.parquet")).as_posix()
    'a/study.run.json'
    """
    return output.with_name(f"{_stem(output)}.run.json")


def _stem(output: Path) -> str:
    return output.name.removesuffix(SUFFIX)


@dataclass
class Swept:
    """What `sweep` did.

    Attributes
    ----------
    known : tasks whose outcome was in the journal already
    unused : outcomes in the journal that this study does not ask for, by why
    """

    results: Results
    known: int = 0
    done: int = 0
    seconds: float = 0.0
    unused: dict[str, int] = field(default_factory=dict)


def known_outcomes(plan: Plan, output: Path) -> dict[str, Outcome]:
    """Outcomes of a plan's tasks that are known from before."""
    records = read_records(state_folder(output))
    return {key: records[key] for key in plan.tasks if key in records}


def sweep(
    plan: Plan,
    output: Path,
    pool: Pool,
    *,
    retry_failed: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    started: Callable[[int, int, Mapping[str, int]], None] = lambda _known, _todo, _unused: None,
) -> Swept:
    """Run what is missing of a plan and write the results.

    Parameters
    ----------
    retry_failed : repeat tasks that failed before
    progress : told tasks done and to do, twice a second at least
    started : told tasks known and missing, and results of the journal that are not used, by why

    Raises
    ------
    BadStudyError
        The metric that decides is not among those of the first result.
    BadInputError
        Another sweep is at work on the same output.
    ClusterError
        As `DaskPool`.
    """
    start = time.monotonic()
    begun = time.time()
    with Journal(state_folder(output)) as journal:
        for key, outcome in list(journal.records.items()):
            if outcome.status != OK and (retry_failed or not outcome.lasting):
                journal.forget(key)
        missing = plan.missing(journal.records)
        swept_known = len(plan.tasks) - len(missing)
        unused = _unused(plan, journal)
        started(swept_known, len(missing), unused)
        _check_metric(plan, journal.records.values())
        by_key = {task.key: task for task in missing}
        fresh: dict[str, Outcome] = {}
        if missing:
            with pool:
                progress(0, len(missing))
                for came in pool.run(missing):
                    if came is not None:
                        fresh[came.key] = came
                        _keep(journal, by_key[came.key], came)
                        _check_metric(plan, [came])
                    progress(len(fresh), len(missing))
        results = collect(plan, {**journal.records, **fresh})
        write_results(output, results)
        made = Swept(results, swept_known, len(missing), time.monotonic() - start, unused)
        _write_run(output, plan, pool, made, {**journal.records, **fresh}, begun)
    return made


def _keep(journal: Journal, task: Task, outcome: Outcome) -> None:
    """Note an outcome; one that another attempt may change is not noted."""
    if outcome.lasting:
        journal.append(task, outcome)


def _check_metric(plan: Plan, outcomes: Iterable[Outcome]) -> None:
    """Stop at once when the objective is misspelt, not after hours."""
    metric = plan.study.objective.metric
    for outcome in outcomes:
        if outcome.key not in plan.tasks or outcome.status != OK:
            continue
        if metric not in outcome.metrics:
            reason = no_such_metric(metric, list(outcome.metrics))
            raise BadStudyError(f"{plan.study.name}: objective.metric: {reason}")


def _unused(plan: Plan, journal: Journal) -> dict[str, int]:
    """Count outcomes that this plan does not ask for, by what has changed since."""
    from physmem.lab.digest import source_digest

    counts: dict[str, int] = {}
    digests = set(plan.digests.values())
    for key in journal.records:
        if key in plan.tasks:
            continue
        inputs = journal.inputs[key]
        if inputs["source"] != source_digest():
            why = "of another version of physmem"
        elif inputs["digest"] and inputs["digest"] not in digests:
            why = "of captures that have changed or left the study"
        else:
            why = "of settings, seeds or experiments that have left the study"
        counts[why] = counts.get(why, 0) + 1
    return counts


def _write_run(
    output: Path,
    plan: Plan,
    pool: Pool,
    swept: Swept,
    outcomes: Mapping[str, Outcome],
    begun: float,
) -> None:
    """Write the record of this run: what is not the same in every run."""
    record = {
        "physmem": __version__,
        "study": plan.study.name,
        "results": output.name,
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(swept.seconds, 3),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "pool": pool.describe(),
        "known_before": swept.known,
        "done_now": swept.done,
        "tasks": [
            {
                "key": key,
                "subject": task.subject,
                "settings": task.settings,
                "seed": task.seed,
                "status": outcomes[key].status,
                "worker": outcomes[key].worker,
                "seconds": round(outcomes[key].seconds, 6),
            }
            for key, task in plan.tasks.items()
        ],
    }
    with replace_file(run_file(output)) as out:
        out.write(json.dumps(record, indent=1).encode() + b"\n")
