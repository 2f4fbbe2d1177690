# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem experiment`: published experiments, run on the allocator, with both figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from physmem.cli.options import Json, Quiet, complete_file

if TYPE_CHECKING:
    from physmem.experiments.registry_types import Experiment
    from physmem.experiments.report import Report, Table

_ROWS_SHOWN = 12


def _complete_name(incomplete: str) -> list[str]:
    from physmem.experiments.registry import EXPERIMENTS

    return [name for name in EXPERIMENTS if name.startswith(incomplete)]


_Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        show_default=False,
        autocompletion=_complete_name,
        help="Which one; without it all are listed.",
    ),
]
_Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="As --param memory=SIZE.")]
_Rounds = Annotated[int | None, typer.Option(metavar="N", help="As --param rounds=N.")]
_Seed = Annotated[int, typer.Option(metavar="N", help="Of all random choices.")]
_Param = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; may be repeated."),
]
_Parquet = Annotated[
    Path | None,
    typer.Option(metavar="FILE", autocompletion=complete_file, help="Write the rows as Parquet."),
]
_TableName = Annotated[
    str | None, typer.Option("--table", metavar="NAME", help="Which table; default the first.")
]
_Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", autocompletion=complete_file, help="Draw it (.png or .svg)."),
]
_Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", autocompletion=complete_file, help="Keep the machine that it leaves."
    ),
]
_Machine = Annotated[
    str | None,
    typer.Option("--machine", metavar="NAME", help="Which machine to keep; default the first."),
]


def experiment(
    name: _Name = None,
    memory: _Memory = None,
    rounds: _Rounds = None,
    seed: _Seed = 42,
    param: _Param = None,
    json: Json = False,
    parquet: _Parquet = None,
    table: _TableName = None,
    plot: _Plot = None,
    save: _Save = None,
    machine: _Machine = None,
    quiet: Quiet = False,
) -> None:
    """Run a published experiment and print its figures beside ours.

    Exit code: 0 what the source claims holds here, 1 it does not, 2 bad input.
    """
    from physmem.cli.main import DIVERGED, EQUAL

    if name is None:
        _list(json=json)
        return
    from physmem.experiments.params import fill
    from physmem.experiments.registry import find

    chosen = find(name)
    given = _params(param or [], memory, rounds)
    fill(chosen.parameters, given, name)
    _check_outputs(parquet, plot, save)
    report = _run(name, given, seed, quiet=quiet or json)
    if save is not None:
        _save_machine(report, save, machine)
    if parquet is not None:
        _write_parquet(report, parquet, table)
    if plot is not None:
        _draw(report, plot)
    if json:
        from physmem.cli.output import print_json

        print_json(report.to_dict())
    elif quiet:
        print(_verdict(report))
    else:
        print(describe(report, chosen))
    raise typer.Exit(EQUAL if report.verdict.holds else DIVERGED)


def _params(words: list[str], memory: str | None, rounds: int | None) -> dict[str, Any]:
    from physmem.lib.errors import BadRequestError

    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise BadRequestError(f"--param {word!r}: write it as name=value")
        if key.strip() in given:
            raise BadRequestError(f"--param {key.strip()} is given twice; leave one out")
        given[key.strip()] = value.strip()
    for key, chosen in (("memory", memory), ("rounds", rounds)):
        if chosen is None:
            continue
        if key in given:
            raise BadRequestError(f"--{key} and --param {key}= say the same; leave one out")
        given[key] = chosen
    return given


def _check_outputs(parquet: Path | None, plot: Path | None, save: Path | None) -> None:
    from physmem.cli.run import check_output
    from physmem.lib.errors import BadInputError

    for path, suffixes in ((parquet, (".parquet",)), (plot, (".png", ".svg")), (save, ())):
        if path is not None:
            check_output(path, Path(), *suffixes)
    named = [path.absolute() for path in (parquet, plot, save) if path is not None]
    for path in named:
        if named.count(path) > 1:
            raise BadInputError(f"{path}: two options name it; choose two files")


def _run(name: str, given: dict[str, Any], seed: int, *, quiet: bool) -> "Report":
    from physmem.cli.compiling import needs_compiling
    from physmem.cli.output import note
    from physmem.cli.progress import Bar
    from physmem.experiments.registry import run
    from physmem.experiments.workload import run_workload
    from physmem.mm.entry import do_alloc_pages

    if needs_compiling(do_alloc_pages, run_workload):
        note("compiling the kernels (first run only) ...", quiet=quiet)
    with Bar(name, "steps", quiet=quiet) as bar:
        return run(name, given, seed, bar)


def _save_machine(report: "Report", path: Path, name: str | None) -> None:
    from physmem.lib.errors import BadRequestError

    known = list(report.machines)
    if name is not None and name not in known:
        raise BadRequestError(f"machine {name!r}: {report.name} leaves {', '.join(known)}")
    report.machines[name or known[0]].save(path)


def _write_parquet(report: "Report", path: Path, table: str | None) -> None:
    import pyarrow.parquet as pq

    from physmem.lib.output import replace_file

    with replace_file(path) as out:
        pq.write_table(report.to_arrow(table), out)


def _draw(report: "Report", path: Path) -> None:
    from physmem.views.chart import Curve, Panel, draw_chart

    panels = [
        Panel(
            series.title,
            series.x_label,
            series.y_label,
            [Curve(line.name, line.x, line.y, line.published) for line in series.lines],
            series.ticks,
        )
        for series in report.series
    ]
    size = f", {report.params['memory']}" if "memory" in report.params else ""
    draw_chart(panels, path, f"physmem experiment {report.name}{size}, seed {report.seed}")


def _list(*, json: bool) -> None:
    from physmem.cli.output import paint, print_json
    from physmem.experiments.registry import EXPERIMENTS

    if json:
        print_json({"experiments": [_listed(each) for each in EXPERIMENTS.values()]})
        return
    width = max(map(len, EXPERIMENTS))
    for each in EXPERIMENTS.values():
        print(f"{paint(f'{each.name:<{width}}', 'bold')}  {each.title}")
        print(f"{'':<{width}}  published: {each.claim}; here: {each.word}")
        words = [f"{one.name}={one.default}" for one in each.parameters]
        print(f"{'':<{width}}  {paint(' '.join(words), 'dim')}")


def _listed(each: "Experiment") -> dict[str, Any]:
    return {
        "name": each.name,
        "title": each.title,
        "source": each.source,
        "claim": each.claim,
        "comparison": each.word,
        "parameters": {one.name: one.default for one in each.parameters},
    }


def _verdict(report: "Report") -> str:
    from physmem.cli.output import paint

    word, colour = ("HOLDS", "green") if report.verdict.holds else ("DOES NOT HOLD", "red")
    return f"{paint(f'{word}:', colour, 'bold')} {report.verdict.text}"


def describe(report: "Report", chosen: "Experiment") -> str:
    """The whole report as text."""
    from physmem.cli.output import facts, paint, table

    rows = [
        (
            figure.text,
            _number(figure.ours),
            "-" if figure.published is None else _number(figure.published),
            figure.word or "-",
        )
        for figure in report.figures
    ]
    params = " ".join(f"{name}={value}" for name, value in report.params.items())
    sections = [
        paint(report.title, "bold"),
        facts(
            [
                ("source", report.source),
                ("published", chosen.claim),
                ("parameters", f"{params} seed={report.seed}"),
                ("computed from", ", ".join(f"{k} {v}" for k, v in report.provenance.items())),
            ]
        ),
        f"{paint('Figures', 'bold')}\n{table(['', 'ours', 'published', 'comparison'], rows)}",
        *(_table_text(each) for each in report.tables),
        *(f"Note: {note}" for note in report.notes),
        _verdict(report),
        _speed(report),
    ]
    return "\n\n".join(sections)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table_text(each: "Table") -> str:
    """A table; of a long one the beginning and the end."""
    from physmem.cli.output import paint, table

    rows = [[_number(cell) for cell in row] for row in each.rows]
    if len(rows) > _ROWS_SHOWN:
        rows = [*rows[: _ROWS_SHOWN // 2], ["..."] * len(each.columns), *rows[-_ROWS_SHOWN // 2 :]]
    return f"{paint(each.name, 'bold')}\n{table(each.columns, rows)}"


def _speed(report: "Report") -> str:
    rate = report.operations / report.seconds / 1e6 if report.seconds else 0.0
    more = "".join(f", {name} {value:,.1f}" for name, value in report.measured.items())
    return (
        f"{report.operations:,} operations in {report.seconds:.1f} s"
        f" ({rate:.1f} million per second, all else included){more}"
    )
