# SPDX-License-Identifier: GPL-2.0-or-later
"""Pictures into files: whole or not at all, PNG or SVG by the name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from physmem.lib.output import replace_file

if TYPE_CHECKING:
    from physmem.cli.run import Replayed
    from physmem.mm.state import State
    from physmem.views.timeline import Timeline

SUFFIXES = (".png", ".svg")


def timeline_of(done: "Replayed") -> "Timeline":
    """Map over time of a sampled replay."""
    import numpy as np

    from physmem.views.timeline import Timeline

    samples, state = done.samples, done.result.state
    if samples is None or not samples.times_ns:
        from physmem.lib.errors import BadCaptureError

        raise BadCaptureError("the capture has no event between its states: nothing to draw")
    kept: list[int] = []
    for at, time in enumerate(samples.times_ns):
        # A replay that went back to try another order of a race took its samples again.
        while kept and samples.times_ns[kept[-1]] >= time:
            kept.pop()
        kept.append(at)
    nodes = {zone.node for zone in state.zones}
    order = state.pageblock_order
    zones = []
    for zone in state.zones:
        first = zone.start >> order
        label = zone.name if len(nodes) == 1 else f"{zone.name} {zone.node}"
        zones.append((label, first, ((zone.end - 1) >> order) + 1 - first))
    return Timeline(
        samples=np.array([samples.free[at] for at in kept]),
        types=np.array([samples.types[at] for at in kept]),
        times_ns=np.array([samples.times_ns[at] for at in kept], np.int64),
        zones=zones,
        title=f"Physical memory of Linux {_version(done.result.kernel)} over time",
        type_names=state.type_names,
        pageblock_order=order,
        usable=np.array([samples.usable[at] for at in kept]),
        usable_order=samples.usable_order,
    )


def _version(kernel: str) -> str:
    """The number out of a kernel's version line."""
    import re

    found = re.search(r"\d+\.\d+[.\d]*", kernel)
    return found[0] if found else "(version unknown)"


def draw_timeline(done: "Replayed", path: Path) -> None:
    """Write the map over time."""
    from physmem.views.timeline import timeline_png, timeline_svg

    line = timeline_of(done)
    if path.suffix.lower() == ".svg":
        _write_text(path, timeline_svg(line))
        return
    with replace_file(path) as out:
        timeline_png(line, _as_path(out))


def draw_mosaic(state: "State", path: Path) -> None:
    """Write the mosaic of a state."""
    from physmem.views.mosaic import mosaic_png, mosaic_svg

    if path.suffix.lower() == ".svg":
        _write_text(path, mosaic_svg(state))
        return
    with replace_file(path) as out:
        mosaic_png(state, _as_path(out))


def _write_text(path: Path, text: str) -> None:
    with replace_file(path) as out:
        out.write(text.encode())


def _as_path(out: Any) -> Any:
    """An open file where a path is asked for: Pillow takes both."""
    return out
