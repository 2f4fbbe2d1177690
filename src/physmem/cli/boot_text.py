# SPDX-License-Identifier: GPL-2.0-or-later
"""A start-up in words: its stages for students, the comparison with a real log."""

from typing import TYPE_CHECKING

from physmem.cli.output import facts, of, paint, table

if TYPE_CHECKING:
    from physmem.boot.compare_log import Comparison
    from physmem.boot.start import Booted

_RANGES = 4


def stages_text(booted: "Booted") -> str:
    """Each stage in one sentence, with the frames it took or gave."""
    shift = booted.memory.page_shift
    lines = []
    for number, stage in enumerate(booted.memory.stages, 1):
        lines.append(f"{number:>3}. {paint(stage.name, 'bold')}: {stage.sentence}")
        frames = stage.frames(shift)
        where = [f"{start:#x}-{end - 1:#x}" for start, end in stage.ranges[:_RANGES]]
        more = len(stage.ranges) - _RANGES
        if more > 0:
            where.append(f"and {more} more place{'s' if more > 1 else ''}")
        if frames:
            lines.append(f"     takes {_frames(frames)}: {', '.join(where)}")
        elif stage.taken < 0:
            lines.append(f"     gives {_frames(-(stage.taken >> shift))} back")
        if stage.given_pages:
            lines.append(f"     {_frames(stage.given_pages)} go to the page allocator")
    return "\n".join(lines)


def _frames(count: int) -> str:
    return f"{count:,} frame{'s' if count != 1 else ''}"


def comparison_text(comparison: "Comparison") -> str:
    """How many figures agree, and every one that does not."""
    left_out = [("not compared", f"{part.name}: {part.reason}") for part in comparison.not_compared]
    head = facts([("figures equal", of(comparison.equal, comparison.compared)), *left_out])
    if not comparison.differences:
        return f"{head}\n  {paint('every figure is equal', 'green')}"
    rows = [
        [figure.name, str(figure.ours), str(figure.theirs)] for figure in comparison.differences
    ]
    return f"{head}\n{table(['figure', 'ours', 'theirs'], rows, left=3)}"
