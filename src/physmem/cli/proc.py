# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem proc`: a recorded state as the kernel prints it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physmem.cli.options import CaptureFile
from physmem.lib.errors import BadInputError

if TYPE_CHECKING:
    from physmem.mm.state import State


class View(StrEnum):
    """File of /proc or of debugfs (the two indices)."""

    BUDDYINFO = "buddyinfo"
    PAGETYPEINFO = "pagetypeinfo"
    UNUSABLE_INDEX = "unusable_index"
    EXTFRAG_INDEX = "extfrag_index"


def proc(
    file: CaptureFile,
    view: Annotated[
        View,
        typer.Argument(metavar="VIEW", show_default=False, help=f"One of {', '.join(View)}."),
    ],
    end: Annotated[
        bool, typer.Option("--end", help="The state at the end instead of the start.")
    ] = False,
) -> None:
    """Print a recorded state as the kernel would print it in /proc."""
    print(text_of(view, recorded_state(file, end=end)), end="")


def text_of(view: View, state: "State") -> str:
    """Text of one file for a state."""
    from physmem.views.buddyinfo import buddyinfo
    from physmem.views.fragmentation import extfrag_index_text, unusable_index_text
    from physmem.views.pagetypeinfo import pagetypeinfo

    return {
        View.BUDDYINFO: buddyinfo,
        View.PAGETYPEINFO: pagetypeinfo,
        View.UNUSABLE_INDEX: unusable_index_text,
        View.EXTFRAG_INDEX: extfrag_index_text,
    }[view](state)


def recorded_state(file: Path, *, end: bool) -> "State":
    """State at the start or the end of a capture.

    Raises
    ------
    BadInputError
        The capture has no such state.
    """
    from physmem.trace.capture import read_capture

    capture = read_capture(file, columns=())
    state = capture.state1 if end else capture.state0
    if state is None:
        which = "end" if end else "start"
        raise BadInputError(f"{file}: the capture holds no state of the {which}")
    return state
