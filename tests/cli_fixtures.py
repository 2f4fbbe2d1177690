# SPDX-License-Identifier: GPL-2.0-or-later
"""A tiny recording that replays exactly, and the command line as a program of its own."""

import os
import subprocess
import sys

from tests.trace_fixtures import START, alloc, free, line, make_recording, make_state

from physmem.mm.state import encode_state

PROGRAM = (sys.executable, "-c", "from physmem.cli.main import main; main()")

_BLOCK = START + 128
TRACE = "".join(
    (
        alloc(START + 4, 1.0),
        line("tracing_mark_write: SNAP0", 1.1),  # line 2: state0 before it
        line(
            f"mm_page_alloc_zone_locked: page=x pfn={_BLOCK:#x} order=6 migratetype=0 "
            "percpu_refill=0",
            2.0,
        ),
        alloc(_BLOCK, 2.0, order=6, gfp="GFP_KERNEL", migratetype=0),
        alloc(START + 20, 2.1),
        free(START + 4, 2.2),
        line("tracing_mark_write: SNAP1", 2.3),  # line 7: state1 before it
    )
)
EVENTS = {
    "mm_page_alloc": 3,
    "mm_page_alloc_zone_locked": 1,
    "mm_page_free": 1,
    "tracing_mark_write": 2,
}
_REST = ((9, 1, START + 512), (8, 1, START + 256))


def tiny_recording(directory, **changes):
    """Write a recording of four requests; `changes` as for `make_recording`."""
    state0 = make_state((*_REST, (7, 0, _BLOCK)), [START + 20, START + 21])
    state1 = make_state((*_REST, (6, 0, _BLOCK + 64)), [START + 4, START + 21])
    given = {
        "trace_txt": TRACE,
        "state0_json": encode_state(state0),
        "state1_json": encode_state(state1),
        "manifest": {
            "trace": {"lines": 7, "events": EVENTS, "lost": 0},
            "state0_before_line": 2,
            "state1_before_line": 7,
        },
    }
    return make_recording(directory, **{**given, **changes})


def environment(**more):
    """Environment of a program whose output a test reads."""
    plain = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    return {**os.environ, **plain, **{name: str(value) for name, value in more.items()}}


def program(*arguments, cwd=None, **options):
    """Run the program; its exit code, stdout and stderr."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment(),
        **options,
    )
