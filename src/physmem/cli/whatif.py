# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem whatif`: a recorded workload under other settings, and held against a real kernel."""

from pathlib import Path
from typing import Annotated

import typer

from physmem.cli.options import Json, Quiet, complete_capture, complete_file


def _complete_setting(incomplete: str) -> list[str]:
    from physmem.lab.settings import setting_names

    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}=" for name in setting_names() if name.startswith(last)]


_Capture = Annotated[
    Path,
    typer.Argument(
        metavar="CAPTURE",
        show_default=False,
        autocompletion=complete_capture,
        help="A capture, or the folder of a recording.",
    ),
]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE[,NAME=VALUE...]",
        autocompletion=_complete_setting,
        help="One variant: settings joined by commas hold together. Give --set several times for"
        " several variants side by side; the recorded machine is always the first column."
        " NAME= (or =0, =off for sizes) takes a recorded boot option away.",
    ),
]
_Against = Annotated[
    Path | None,
    typer.Option(
        metavar="CAPTURE",
        autocompletion=complete_capture,
        help="A recording of a kernel that was really booted like the first --set: compare its"
        " end with the prediction.",
    ),
]
_Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Take the metrics every N operations (with --json, --parquet, --plot); default:"
        " some 300 samples where they are needed.",
    ),
]
_Until = Annotated[
    int | None,
    typer.Option(metavar="ROW", min=1, help="End before this event; default: the recorded end."),
]
_Seed = Annotated[int, typer.Option(metavar="N", help="For settings that draw lots.")]
_Parquet = Annotated[
    Path | None,
    typer.Option(metavar="FILE", autocompletion=complete_file, help="Write the samples (Parquet)."),
]
_Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="Draw huge pages and memory over time (.png or .svg).",
    ),
]


def whatif(
    capture: _Capture,
    settings: _Set = None,
    against: _Against = None,
    sample: _Sample = None,
    until: _Until = None,
    seed: _Seed = 0,
    json: Json = False,
    parquet: _Parquet = None,
    plot: _Plot = None,
    quiet: Quiet = False,
) -> None:
    """Run a recorded workload on variants of its machine and print them side by side.

    Settings: boot options (movablecore, kernelcore, mem, numa_fake, ...), sysctls
    (min_free_kbytes, watermark_scale_factor, ...), kernel, page_size, and the knobs of the model
    (mobility, pcp, max_order, ...). A wrong name lists all of them.

    Exit code: 0 done (and with --against every zone is as predicted), 1 a zone is not, 2 bad input.
    """
    from physmem.cli.compiling import compile_now
    from physmem.cli.main import DIVERGED, EQUAL
    from physmem.cli.progress import Bar
    from physmem.cli.run import check_output
    from physmem.lab.settings import parse_group

    groups = list(settings or [])
    for group in groups:
        parse_group(group, seed)
    for output, suffixes in ((parquet, ()), (plot, (".png", ".svg"))):
        if output is not None:
            check_output(output, capture, *suffixes)
    from physmem.lab.kernels import KERNELS
    from physmem.lab.run import run_study

    compile_now(*KERNELS, quiet=quiet or json)
    wanted = 0 if parquet is not None or plot is not None else None
    with Bar("what if", "variants", quiet=quiet or json) as bar:
        study = run_study(
            capture,
            groups,
            against=against,
            sample=sample or wanted,
            until=until,
            seed=seed,
            progress=bar,
            keep=plot is not None,
        )
    report = study.report
    if report is None:
        raise RuntimeError("a study has a report")
    from physmem.lab.export import draw, write_parquet

    if parquet is not None:
        write_parquet(report, parquet)
    if plot is not None:
        draw(study, plot)
    if json:
        from physmem.cli.output import print_json

        print_json(report.to_dict())
    else:
        from physmem.cli.whatif_text import describe, summary

        print(summary(report) if quiet else describe(report))
    differs = report.against is not None and not report.against.holds
    raise typer.Exit(DIVERGED if differs else EQUAL)
