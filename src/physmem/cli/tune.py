# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem tune`: search for the settings that make one metric best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from physmem.cli.options import SUFFIX, Json, Quiet, complete_capture

if TYPE_CHECKING:
    from physmem.lab.evaluator import Evaluator
    from physmem.lab.tune import Search, Tuned

_TOP = 10

_Subject = Annotated[
    str,
    typer.Argument(
        metavar="CAPTURE|EXPERIMENT",
        show_default=False,
        autocompletion=complete_capture,
        help="A capture, or the name of an experiment.",
    ),
]
_Objective = Annotated[
    str, typer.Option(metavar="METRIC[:max|min]", help="What is to be best; default: max.")
]
_Knob = Annotated[
    list[str],
    typer.Option(metavar="KNOB", help="name=low..high[:log|:step] or name=a|b|c; repeat for more."),
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting that stays; may be repeated."),
]
_Trials = Annotated[
    int, typer.Option(metavar="N", min=1, help="Trials in all, with those of earlier runs.")
]
_Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Same seed, same trials.")]
_Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where trials are kept, such as sqlite:///file.db; default: SUBJECT.tune.db here.",
    ),
]
_Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", metavar="N", min=1, help="Trials at a time; default 1."),
]
_Evaluator = Annotated[
    str | None,
    typer.Option(metavar="FILE.py:FUNCTION", help="A measure of your own, as in a study."),
]


def tune(
    subject: _Subject,
    objective: _Objective,
    knob: _Knob,
    set_: _Set = None,
    trials: _Trials = 50,
    seed: _Seed = 0,
    storage: _Storage = None,
    jobs: _Jobs = 1,
    evaluator: _Evaluator = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the settings that make one metric best, and print them as a command.

    Interrupted in whatever way, the same command goes on; more --trials go on from the last one.
    Exit code: 0 it found some, 1 no trial succeeded, 2 bad input.
    """
    import gc

    from physmem.cli.main import DIVERGED, EQUAL
    from physmem.cli.output import print_json
    from physmem.cli.progress import Bar
    from physmem.cli.sweep import prepare
    from physmem.lab.local_pool import LocalPool
    from physmem.lab.tune import tune as run

    search = _search(subject, objective, knob, set_ or [], evaluator, trials, seed)
    gc.enable()  # a search is no short run
    where = storage or f"{Path(subject).name.removesuffix(SUFFIX)}.tune.db"
    pool = LocalPool(jobs, lambda: prepare([search.evaluator], quiet=quiet or json))
    with Bar("tune", "trials", quiet=quiet or json) as bar:
        made = run(search, where, pool, jobs, bar)
    if json:
        print_json(_dict(made, where))
    elif quiet:
        print(_best_line(made))
    else:
        print(_text(made))
    raise typer.Exit(EQUAL if made.best else DIVERGED)


def _search(
    subject: str,
    objective: str,
    knobs: list[str],
    settings: list[str],
    evaluator: str | None,
    trials: int,
    seed: int,
) -> "Search":
    from physmem.lab.evaluator import check_settings
    from physmem.lab.knob import parse_aim, parse_knob
    from physmem.lab.tune import Search
    from physmem.lib.errors import BadStudyError

    made = [parse_knob(text) for text in knobs]
    fixed = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadStudyError(f"--set {text}: write NAME=VALUE")
        fixed[name] = value
    names = [*fixed, *(knob.name for knob in made)]
    for name in names:
        if names.count(name) > 1:
            raise BadStudyError(f"{name}: set more than once; leave one out")
    target, digest, measured_by = _subject(subject, evaluator)
    check_settings(measured_by, target, {**fixed, **{knob.name: knob.first for knob in made}})
    label = Path(subject).name if digest else subject
    return Search(
        subject=label,
        target=target,
        digest=digest,
        evaluator=measured_by,
        aim=parse_aim(objective),
        knobs=tuple(made),
        trials=trials,
        seed=seed,
        fixed=fixed,
    )


def _subject(subject: str, evaluator: str | None) -> tuple[str, str, "Evaluator"]:
    """What the evaluator is given, its digest, and the evaluator."""
    from physmem.lab.digest import file_digest
    from physmem.lab.evaluator import CAPTURE, EXPERIMENT, read_evaluator

    own = None if evaluator is None else read_evaluator(evaluator, Path())
    path = Path(subject)
    if path.suffix == SUFFIX or path.is_file() or len(path.parts) > 1:
        from physmem.trace.capture import read_info

        read_info(path)
        return str(path.absolute()), file_digest(path), own or CAPTURE
    return subject, "", own or EXPERIMENT


def _command(made: "Tuned") -> str:
    """Command that shows the best settings."""
    from shlex import quote

    best = made.best
    if best is None:
        return ""
    search = made.search
    pairs = [f"{name}={value}" for name, value in {**search.fixed, **best.settings}.items()]
    if search.digest:
        words = ["physmem", "whatif", search.target, "--set", ",".join(pairs)]
    else:
        words = ["physmem", "experiment", search.subject]
        words += [word for pair in pairs for word in ("-p", pair)]
    return " ".join(quote(word) for word in [*words, "--seed", str(search.seed)])


def _best_line(made: "Tuned") -> str:
    from physmem.cli.sweep_text import number

    best = made.best
    if best is None:
        return "best: none, no trial succeeded"
    settings = " ".join(f"{name}={value}" for name, value in best.settings.items())
    return f"best: {made.search.aim.metric} {number(best.value)} with {settings}"


def _text(made: "Tuned") -> str:
    from physmem.cli.output import paint, table
    from physmem.cli.sweep_text import number

    names = [knob.name for knob in made.search.knobs]
    rows = [
        [str(trial.number), *(trial.settings.get(name, "-") for name in names), number(trial.value)]
        for trial in made.ranked[:_TOP]
    ]
    failed = [trial for trial in made.trials if trial.value is None]
    before = f", {made.known:,} of them from before" if made.known else ""
    lines = [
        f"{paint(str(made.search.aim), 'bold')}, {len(made.trials):,} trials{before}",
        table(["trial", *names, made.search.aim.metric], rows),
        "",
        _best_line(made),
    ]
    if made.best:
        lines.append(f"  {_command(made)}")
    if failed:
        lines.append(f"{len(failed):,} trials failed, the last: {failed[-1].message}")
    return "\n".join(lines)


def _dict(made: "Tuned", storage: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "subject": made.search.subject,
        "digest": made.search.digest,
        "objective": made.search.aim.metric,
        "goal": "maximise" if made.search.aim.maximise else "minimise",
        "seed": made.search.seed,
        "fixed": dict(made.search.fixed),
        "storage": storage,
        "study": made.search.name,
        "known_before": made.known,
        "best": asdict(made.best) if made.best else None,
        "command": _command(made),
        "trials": [asdict(trial) for trial in made.trials],
    }
