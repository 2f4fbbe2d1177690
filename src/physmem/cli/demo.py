# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem demo`: replay the recording that comes with the package, and look at its memory."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physmem.cli.options import Json, Quiet, complete_folder

if TYPE_CHECKING:
    from physmem.mm.state import State

PICTURE = "physmem-demo.png"


def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            autocompletion=complete_folder,
            help=f"Folder for the picture {PICTURE}.",
        ),
    ] = Path(),
    no_picture: Annotated[
        bool, typer.Option("--no-picture", help="Write no picture of memory over time.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replay the recording of a real kernel that comes with physmem.

    Exit code: 0 everything is equal, 1 something differs.
    """
    from importlib.resources import as_file, files

    from physmem.cli.main import DIVERGED, EQUAL
    from physmem.cli.output import note, print_json
    from physmem.cli.run import check_output, run_replay

    picture = None if no_picture else output / PICTURE
    with as_file(files("physmem") / "data" / "demo.physmem") as capture:
        if picture is not None:
            check_output(picture, capture)
        silent = quiet or json
        note("replaying 2 million page events of a real kernel ...", quiet=silent)
        done = run_replay(capture, sampled=picture is not None, quiet=silent)
    if picture is not None:
        from physmem.cli.draw import draw_timeline

        draw_timeline(done, picture)
    if json:
        print_json({**done.result.to_dict(), "picture": str(picture) if picture else None})
    elif quiet:
        from physmem.cli.result import verdict

        print(verdict(done.result))
    else:
        from physmem.cli.result import describe, verdict

        _show_state(done.result.state)
        print(describe(done.result))
        if picture is not None:
            print(f"memory over time: {picture}")
    raise typer.Exit(EQUAL if done.result.equal else DIVERGED)


def _show_state(state: "State") -> None:
    """The machine at the end: /proc files and a mosaic."""
    import shutil

    from physmem.cli.output import has_colour, paint
    from physmem.views.buddyinfo import buddyinfo
    from physmem.views.pagetypeinfo import pagetypeinfo
    from physmem.views.terminal import terminal_mosaic

    print(paint("/proc/buddyinfo at the end", "bold"))
    print(buddyinfo(state))
    print(paint("/proc/pagetypeinfo at the end", "bold"))
    print(pagetypeinfo(state))
    print(paint("Pageblocks at the end", "bold"))
    columns = shutil.get_terminal_size().columns
    mosaic = terminal_mosaic(state, columns)
    if not has_colour(sys.stdout):
        print(mosaic.plain)
        return
    from rich.console import Console

    Console(file=sys.stdout, width=columns, highlight=False).print(mosaic)
