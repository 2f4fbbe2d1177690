# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments and options that several commands have, and what the shell completes for them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

SUFFIX = ".physmem"


def _entries(incomplete: str) -> Iterable[tuple[str, Path]]:
    """Entries of the folder that is being typed, as the user would write them."""
    head, tail = os.path.split(incomplete)
    folder = Path(head or ".").expanduser()
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        hidden = entry.name.startswith(".") and not tail.startswith(".")
        if entry.name.startswith(tail) and not hidden:
            yield os.path.join(head, entry.name), entry  # noqa: PTH118 - keeps "./" and "~"


def complete_capture(incomplete: str) -> list[str]:
    """Folders and captures.

    Examples
    --------
    >>> complete_capture("/no/such/folder/a")
    []
    """
    return [
        text + "/" if entry.is_dir() else text
        for text, entry in _entries(incomplete)
        if entry.is_dir() or entry.suffix == SUFFIX
    ]


def complete_folder(incomplete: str) -> list[str]:
    """Folders."""
    return [text + "/" for text, entry in _entries(incomplete) if entry.is_dir()]


def complete_file(incomplete: str) -> list[str]:
    """Folders and files."""
    return [text + "/" if entry.is_dir() else text for text, entry in _entries(incomplete)]


CaptureFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        show_default=False,
        autocompletion=complete_capture,
        help="A capture: the file that `physmem import` wrote.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes; the result in one line.")
]
