# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem replay`: hold the allocator's answers against a real kernel's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physmem.cli.options import CaptureFile, Json, Quiet, complete_file

if TYPE_CHECKING:
    from physmem.replay.session import Session

_Strict = Annotated[
    bool,
    typer.Option("--strict", help="Give the allocator requests only: races are not decided."),
]
_Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="Write line, recorded and predicted frame of every allocation (Parquet).",
    ),
]
_Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", autocompletion=complete_file, help="Keep the machine as it is at the end."
    ),
]
_Slab = Annotated[
    bool,
    typer.Option("--slab", help="Predict slabs from the recorded objects, instead of frames."),
]
_Picture = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="Draw the memory map over time (.png or .svg).",
    ),
]


def replay(
    file: CaptureFile,
    strict: _Strict = False,
    json: Json = False,
    predictions: _Predictions = None,
    save: _Save = None,
    picture: _Picture = None,
    slab: _Slab = False,
    quiet: Quiet = False,
) -> None:
    """Replay a capture and compare every answer, and all lists at the end.

    Exit code: 0 everything is equal, 1 something differs, 2 bad input.
    """
    from physmem.cli.main import DIVERGED, EQUAL

    if slab:
        from physmem.cli.slab_result import replay_objects

        equal = replay_objects(file, json=json, quiet=quiet)
        raise typer.Exit(EQUAL if equal else DIVERGED)
    from physmem.cli.run import check_output, run_replay

    for output, suffixes in ((predictions, ()), (save, ()), (picture, (".png", ".svg"))):
        if output is not None:
            check_output(output, file, *suffixes)
    done = run_replay(file, strict=strict, sampled=picture is not None, quiet=quiet or json)
    if predictions is not None:
        _write_predictions(done.session, predictions)
    if save is not None:
        done.session.machine().save(save)
    if picture is not None:
        from physmem.cli.draw import draw_timeline

        draw_timeline(done, picture)
    if json:
        from physmem.cli.output import print_json

        print_json(done.result.to_dict())
    else:
        from physmem.cli.result import describe, verdict

        print(verdict(done.result) if quiet else describe(done.result))
        if quiet:
            for note in done.result.notes:
                typer.echo(f"physmem: note: {note}", err=True)
    raise typer.Exit(EQUAL if done.result.equal else DIVERGED)


def _write_predictions(session: "Session", path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from physmem.lib.output import replace_file

    with replace_file(path) as out:
        parquet.write_table(pa.table(session.predictions()), out, compression="zstd")
