# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures for keeping and sending: the rows between the states in a third of the bytes.

`CaptureInfo.encoding` names what was done to a column; `read_capture` undoes it.

=================  ==============================================================================
``delta:UNIT``     difference from the row above in units of UNIT (ts: 1000 where every time is a
                   multiple of 1000 ns, as in ftrace text); the first row counts from zero
``kind-delta``     difference from the last row of the same kind (pfn: what comes to the per-CPU
                   lists in runs leaves them in runs), the first of each kind counts from zero
``no count``       all rows are NO_PREEMPT_COUNT, whatever the file holds
=================  ==============================================================================

Nothing is lost but the rows in front of state0 and from state1 on. Frames stay movable as before:
`movable0` is kept. `CaptureInfo.counts` keeps counting the whole trace.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.trace.events import Events

ROW_GROUP = 1 << 22
_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 19,  # 22 saves 1 % more in four times the time
    "data_page_size": 64 << 20,
    "dictionary_pagesize_limit": 8 << 20,
}
_DICTIONARY = (
    "cpu",
    "pid",
    "comm",
    "context",
    "gfp",
    "order",
    "migratetype",
    "arg0",
    "arg1",
    "site",
)
_ENCODINGS = {
    "line": "DELTA_BINARY_PACKED",
    "ts": "BYTE_STREAM_SPLIT",
    "pfn": "PLAIN",
    "kind": "BYTE_STREAM_SPLIT",
    "preempt": "BYTE_STREAM_SPLIT",
}


def encode_delta(values: NDArray[np.int64], unit: int) -> NDArray[Any]:
    """Differences in units, int32 where they fit."""
    steps = np.diff(values // unit, prepend=0)
    small = np.iinfo(np.int32)
    fits = len(steps) == 0 or (small.min <= steps.min() and steps.max() <= small.max)
    return steps.astype(np.int32) if fits else steps


def decode_delta(steps: NDArray[Any], unit: int) -> NDArray[np.int64]:
    """Undo `encode_delta`."""
    return np.cumsum(steps, dtype=np.int64) * unit


def encode_kind_delta(values: NDArray[np.int64], kind: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Difference of each value from the last one of its kind (wrapping around)."""
    steps = np.empty_like(values)
    for each in np.unique(kind):
        rows = np.flatnonzero(kind == each)
        steps[rows] = np.diff(values[rows], prepend=0)
    return steps


def decode_kind_delta(steps: NDArray[np.int64], kind: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Undo `encode_kind_delta`."""
    values = np.empty_like(steps)
    for each in np.unique(kind):
        rows = np.flatnonzero(kind == each)
        values[rows] = np.cumsum(steps[rows])
    return values


def decode_column(
    values: NDArray[Any], encoding: str, kind: Callable[[], NDArray[np.uint8]]
) -> NDArray[Any]:
    """Undo the transform of a column; `kind` gives the column `kind` when it is needed."""
    if encoding.startswith("delta:"):
        return decode_delta(values, int(encoding.removeprefix("delta:")))
    if encoding == "kind-delta":
        return decode_kind_delta(values.astype(np.int64), kind())
    return values


def _encoded(events: Events) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Columns as they are written, and what was done to them."""
    columns = {name: getattr(events, name) for name in events.columns}
    encoding = {}
    if "ts" in columns:
        unit = 1000 if not (columns["ts"] % 1000).any() else 1
        columns["ts"] = encode_delta(columns["ts"], unit)
        encoding["ts"] = f"delta:{unit}"
    if "pfn" in columns and "kind" in columns:
        columns["pfn"] = encode_kind_delta(columns["pfn"], columns["kind"])
        encoding["pfn"] = "kind-delta"
    return columns, encoding


def compact_capture(
    path_in: str | os.PathLike[str], path_out: str | os.PathLike[str]
) -> tuple[int, int]:
    """Rewrite a capture as small as it gets; returns the bytes before and after.

    Rows outside of state0 to state1 go (a missing state sets no limit). The rows must fit in
    memory (some 100 bytes each); it takes about three seconds per million of them.

    Raises
    ------
    BadCaptureError
        `path_in` is no capture, or damaged.
    OSError
        `path_out` cannot be written; nothing of it stays behind.

    Examples
    --------
    >>> import tempfile
    >>> from physmem.trace.capture import CaptureInfo, read_capture, write_capture
    >>> here = Path(tempfile.mkdtemp())
    >>> events = Events.from_columns({"kind": [2, 1, 2], "pfn": [7, 90, 8]})
    >>> write_capture(here / "a", events, CaptureInfo(state0_row=1))
    >>> before, after = compact_capture(here / "a", here / "b")
    >>> read_capture(here / "b").events.pfn.tolist()
    [90, 8]
    """
    from physmem.trace.capture import capture_writer, read_capture
    from physmem.trace.window import window

    capture = read_capture(path_in)
    info = capture.info
    begin, end = window(capture)
    columns, encoding = _encoded(capture.events[begin:end])
    kept = msgspec.structs.replace(
        info,
        state0_row=None if info.state0_row is None else 0,
        state1_row=None if info.state1_row is None else end - begin,
        encoding=encoding,
    )
    options = dict(_OPTIONS)
    options["use_dictionary"] = [name for name in columns if name in _DICTIONARY]
    options["column_encoding"] = {k: v for k, v in _ENCODINGS.items() if k in columns}
    with capture_writer(path_out, options) as writer:
        writer.write(columns, ROW_GROUP)
        writer.finish(kept, capture.state0, capture.state1)
    return Path(path_in).stat().st_size, Path(path_out).stat().st_size
