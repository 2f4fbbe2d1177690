# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem sweep`: captures and experiments under many settings and seeds, and which is best."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physmem.cli.options import Json, Quiet, complete_file

if TYPE_CHECKING:
    from physmem.lab.evaluator import Evaluator
    from physmem.lab.local_pool import Pool
    from physmem.lab.results import Results
    from physmem.lab.sweep_plan import Plan

_Study = Annotated[
    Path | None,
    typer.Argument(
        metavar="STUDY",
        show_default=False,
        autocompletion=complete_file,
        help="A study: a TOML file as --example prints one.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        autocompletion=complete_file,
        help="Results (Parquet); default: STUDY with the suffix .parquet.",
    ),
]
_Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes; default: CPUs.")
]
_Dask = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Dask scheduler, such as tcp://10.0.0.1:8786."),
]
_Retry = Annotated[bool, typer.Option("--retry-failed", help="Repeat tasks that failed before.")]
_Plan = Annotated[bool, typer.Option("--plan", help="Print the tasks and stop.")]
_Example = Annotated[bool, typer.Option("--example", help="Print a study and stop.")]
_SummaryFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="Print the summary of results (Parquet) again and stop.",
    ),
]
_Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Summarise this metric, too; may be repeated."),
]


def sweep(
    study: _Study = None,
    output: _Output = None,
    jobs: _Jobs = None,
    dask: _Dask = None,
    retry_failed: _Retry = False,
    plan: _Plan = False,
    example: _Example = False,
    summary: _SummaryFile = None,
    metric: _Metric = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: captures and experiments x settings x seeds; print each variant and the winner.

    Interrupted in whatever way, the same command goes on where it was.
    Exit code: 0 all tasks succeeded, 1 some failed, 2 bad input.
    """
    from physmem.lib.errors import BadInputError

    if example:
        from physmem.lab.study_example import EXAMPLE

        print(EXAMPLE, end="")
        return
    if summary is not None:
        from physmem.lab.results import read_results

        _finish(read_results(summary), summary, metric or [], json=json, quiet=quiet)
        return
    if study is None:
        raise BadInputError("name a study; physmem sweep --example prints one")
    from physmem.lab.study import read_study
    from physmem.lab.sweep_plan import plan_study

    output = output or study.with_suffix(".parquet")
    check_results(output, study)
    made = plan_study(read_study(study))
    if plan:
        _print_plan(made, output, json=json)
        return
    pool = _pool(jobs, dask, made.used_evaluators(), quiet=quiet or json)
    _run(made, output, pool, retry_failed=retry_failed, quiet=quiet or json)
    from physmem.lab.results import read_results

    _finish(read_results(output), output, metric or [], json=json, quiet=quiet)


def check_results(output: Path, source: Path) -> None:
    """Refuse an output that cannot be meant.

    Raises
    ------
    BadInputError
        As `check_output`, or its suffix is not .parquet.
    """
    from physmem.cli.run import check_output

    check_output(output, source, ".parquet")


def prepare(evaluators: Iterable["Evaluator"], *, quiet: bool) -> None:
    """Compile what captures need: otherwise each process would, at the same time."""
    from physmem.lab.evaluator import CAPTURE

    if CAPTURE in evaluators:
        from physmem.cli.compiling import compile_now
        from physmem.lab.kernels import KERNELS

        compile_now(*KERNELS, quiet=quiet)


def _pool(
    jobs: int | None, dask: str | None, evaluators: set["Evaluator"], *, quiet: bool
) -> "Pool":
    from physmem.lib.errors import BadInputError

    if dask is None:
        from physmem.lab.local_pool import LocalPool

        return LocalPool(jobs, lambda: prepare(evaluators, quiet=quiet))
    if jobs is not None:
        raise BadInputError("--dask brings its own workers; leave --jobs out")
    from physmem.lab.dask_cluster import DaskPool

    return DaskPool(dask)


def _run(plan: "Plan", output: Path, pool: "Pool", *, retry_failed: bool, quiet: bool) -> None:
    import gc

    from physmem.cli.output import note
    from physmem.cli.progress import Bar
    from physmem.lab.sweep import state_folder, sweep

    done = 0

    def started(known: int, todo: int, unused: Mapping[str, int]) -> None:
        if known:
            note(f"{known:,} tasks are done from before, {todo:,} to do", quiet=quiet)
        for why, count in unused.items():
            note(f"{count:,} earlier results are not used: {why}", quiet=quiet)

    gc.enable()  # a sweep is no short run
    try:
        with Bar("sweep", "tasks", quiet=quiet) as bar:

            def progress(now: int, total: int) -> None:
                nonlocal done
                done = now
                bar(now, total)

            sweep(plan, output, pool, retry_failed=retry_failed, progress=progress, started=started)
    except (KeyboardInterrupt, SystemExit):
        note(
            f"{done:,} tasks done now are kept in {state_folder(output)}; the same command goes on"
        )
        raise
    for text in getattr(pool, "notes", []):
        note(f"physmem: note: {text}")


def _print_plan(plan: "Plan", output: Path, *, json: bool) -> None:
    from physmem.lab.sweep import known_outcomes

    known = known_outcomes(plan, output)
    if json:
        from physmem.cli.output import print_json

        rows = [
            {
                "subject": row.subject,
                "variant": row.variant,
                "seed": row.task.seed,
                "settings": row.task.settings,
                "key": row.key,
                "status": known[row.key].status if row.key in known else "to do",
            }
            for row in plan.rows
        ]
        print_json({"tasks": len(plan.tasks), "known": len(known), "rows": rows})
        return
    from physmem.cli.sweep_text import plan_text

    print(plan_text(plan, known))


def _finish(results: "Results", path: Path, metrics: list[str], *, json: bool, quiet: bool) -> None:
    """Print the summary of results; exit by whether a task failed."""
    from physmem.cli.main import DIVERGED, EQUAL
    from physmem.lab.summary import summarise

    summaries = [summarise(results, metric) for metric in dict.fromkeys([None, *metrics])]
    if json:
        from physmem.cli.output import print_json
        from physmem.cli.sweep_text import results_dict

        print_json(results_dict(results, path, summaries))
    else:
        from physmem.cli.sweep_text import failures_text, summary_text, winner_text

        if quiet:
            print(winner_text(summaries[0]))
        else:
            for one in summaries:
                print(summary_text(one, results), end="\n\n")
            print(f"results  {path}")
        if results.failed:
            typer.echo(failures_text(results), err=True)
    raise typer.Exit(DIVERGED if results.failed else EQUAL)
