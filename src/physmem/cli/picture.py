# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem picture`: the memory of a capture as an image."""

from pathlib import Path
from typing import Annotated

import typer

from physmem.cli.options import CaptureFile, Quiet, complete_file


def picture(
    file: CaptureFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            show_default=False,
            autocompletion=complete_file,
            help="Picture to write, .png or .svg; default: name of FILE + .png.",
        ),
    ] = None,
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="One recorded state, pageblock by pageblock.")
    ] = False,
    end: Annotated[
        bool, typer.Option("--end", help="With --mosaic: the state at the end, not at the start.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Draw the map of memory over time, or with --mosaic a recorded state.

    The map replays the capture and samples every pageblock on the way.
    """
    from physmem.cli.draw import SUFFIXES, draw_mosaic, draw_timeline
    from physmem.cli.proc import recorded_state
    from physmem.cli.run import check_output, run_replay

    path = output or Path(file.name).with_suffix(".png")
    check_output(path, file, *SUFFIXES)
    if mosaic:
        draw_mosaic(recorded_state(file, end=end), path)
    else:
        draw_timeline(run_replay(file, sampled=True, quiet=quiet), path)
    if not quiet:
        print(f"wrote {path}")
