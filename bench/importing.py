# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast ftrace text becomes events: the text is printed from a capture's own events."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from physmem.mm.gfp import GFP_6_1, format_gfp
from physmem.trace.capture import read_capture
from physmem.trace.events import Events, Kind
from physmem.trace.ftrace import read_events

COLUMNS = ("cpu", "context", "kind", "pfn", "order", "migratetype", "gfp", "arg0")
PRINTED = (Kind.ALLOC, Kind.FREE, Kind.FREE_BATCHED, Kind.ZONE_LOCKED, Kind.PCPU_DRAIN)
PAGE = "page=00000000c0ffee00"


def lines_of(events: Events) -> Iterator[str]:
    """Print events as a kernel does; 3 µs apart."""
    columns = [getattr(events, name).tolist() for name in COLUMNS]
    texts: dict[int, str] = {}
    for at, (cpu, context, kind, pfn, order, mt, gfp, refill) in enumerate(
        zip(*columns, strict=True)
    ):
        us = 5_000_000 + 3 * at
        level = "h" if context & 4 else "s" if context & 8 else "."
        head = (
            f"            bench-100     [{cpu:03d}] d.{level}1. "
            f"{us // 1_000_000:5d}.{us % 1_000_000:06d}: "
        )
        frame = f"{PAGE} pfn={pfn:#x} order={order}"
        if kind == Kind.ALLOC:
            if gfp not in texts:
                texts[gfp] = format_gfp(gfp, GFP_6_1)
            yield f"{head}mm_page_alloc: {frame} migratetype={mt} gfp_flags={texts[gfp]}\n"
        elif kind == Kind.FREE:
            yield f"{head}mm_page_free: {frame}\n"
        elif kind == Kind.FREE_BATCHED:
            yield f"{head}mm_page_free_batched: {frame}\n"
        elif kind == Kind.ZONE_LOCKED:
            yield (
                f"{head}mm_page_alloc_zone_locked: {frame} migratetype={mt} "
                f"percpu_refill={refill}\n"
            )
        else:
            yield f"{head}mm_page_pcpu_drain: {frame} migratetype={mt}\n"


def measure_import(path: Path, repeat: int, most: int) -> dict[str, float]:
    """Lines and bytes per second of reading a text of up to `most` lines."""
    events = read_capture(path, columns=COLUMNS).events[:most]
    printed = np.isin(events.kind, PRINTED) & (events.pfn >= 0)
    events = Events.from_columns({name: getattr(events, name)[printed] for name in COLUMNS})
    with tempfile.TemporaryDirectory(prefix="physmem-bench-") as folder:
        text = Path(folder) / "trace.txt"
        with text.open("w", encoding="ascii") as file:
            file.writelines(lines_of(events))
        size = text.stat().st_size
        read_events(text)  # compiles; brings the text into the page cache
        least = float("inf")
        for _ in range(repeat):
            start = time.perf_counter()
            again = read_events(text)
            least = min(least, time.perf_counter() - start)
    for name in ("kind", "pfn", "order", "cpu"):
        assert (getattr(again, name) == getattr(events, name)).all(), f"{name} was misread"
    return {
        "import_lines": len(events),
        "import_lines_per_s": len(events) / least,
        "import_mb_per_s": size / least / 1e6,
    }
