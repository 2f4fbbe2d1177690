# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture: the events of a recording, its machine and its memory states in one Parquet file.

The columns of `physmem.trace.events` are the columns of the file (any Parquet reader shows them).
The key-value metadata hold JSON: `physmem` is a `CaptureInfo`, `physmem.state0` and
`physmem.state1` are states (`physmem.mm.state`). Pages and metadata carry checksums.
"""

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadCaptureError
from physmem.lib.output import replace_file
from physmem.mm.state import State, encode_state
from physmem.trace.compact import decode_column
from physmem.trace.events import DTYPES, NO_PREEMPT_COUNT, Events
from physmem.trace.info import FORMAT, CaptureInfo, MachineInfo

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Capture",
    "CaptureInfo",
    "CaptureWriter",
    "MachineInfo",
    "capture_writer",
    "read_capture",
    "read_info",
    "write_capture",
]

KEY = b"physmem"
STATE_KEYS = (b"physmem.state0", b"physmem.state1")
SUM_KEY = b"physmem.crc32"
"""Checksum over the values of the other keys, in hexadecimal."""

_DELTA = ("line", "ts", "pfn")
_GROUPS_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class Capture:
    """What `read_capture` returns; a state is None when the recording had none."""

    events: Events
    info: CaptureInfo
    state0: State | None
    state1: State | None


def metadata_sum(metadata: Mapping[bytes, bytes]) -> bytes:
    """Checksum of the metadata that are ours."""
    total = 0
    for key in (KEY, *STATE_KEYS):
        total = zlib.crc32(metadata.get(key, b""), total)
    return f"{total:08x}".encode()


class CaptureWriter:
    """Takes rows as they come; made by `capture_writer`."""

    def __init__(self, out: Any, options: Mapping[str, Any] | None = None) -> None:
        self._out = out
        self._options = dict(options or {})
        self._writer: Any = None
        self.rows = 0

    def _open(self, schema: "pa.Schema") -> Any:
        from pyarrow import parquet

        options: dict[str, Any] = {
            "use_dictionary": [name for name in schema.names if name not in _DELTA],
            "column_encoding": {n: "DELTA_BINARY_PACKED" for n in schema.names if n in _DELTA},
            "compression": "lz4",
            "write_statistics": False,
            "write_page_checksum": True,
            "store_schema": False,
        }
        return parquet.ParquetWriter(self._out, schema, **{**options, **self._options})

    def write(self, columns: Mapping[str, Any], row_group: int | None = None) -> None:
        """Append rows: column name -> array; one row group, or groups of so many rows."""
        import pyarrow as pa

        table = pa.table({name: pa.array(array) for name, array in columns.items()})
        if self._writer is None:
            self._writer = self._open(table.schema)
        self._writer.write_table(table, row_group_size=row_group or max(len(table), 1))
        self.rows += len(table)

    def finish(
        self, info: CaptureInfo, state0: State | None = None, state1: State | None = None
    ) -> None:
        """Write what comes behind the rows; `info.rows` is set here."""
        if self._writer is None:
            self.write({name: np.empty(0, dtype) for name, dtype in DTYPES.items()})
        info.rows = self.rows
        metadata = {KEY: msgspec.json.encode(info)}
        for key, state in zip(STATE_KEYS, (state0, state1), strict=True):
            if state is not None:
                metadata[key] = encode_state(state)
        metadata[SUM_KEY] = metadata_sum(metadata)
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def abandon(self) -> None:
        """Forget what is not finished: nothing may be written when the file is closed."""
        if self._writer is not None and self._writer.is_open:
            with contextlib.suppress(Exception):
                self._writer.close()
            self._writer.is_open = False


@contextlib.contextmanager
def capture_writer(
    path: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> Iterator[CaptureWriter]:
    """Write a capture in pieces; the file appears when the block ends well.

    `options` go to `pyarrow.parquet.ParquetWriter` over the defaults, which are chosen for speed.

    Raises
    ------
    OSError
        The file cannot be written; nothing of it stays behind.
    """
    with replace_file(path) as out:
        writer = CaptureWriter(out, options)
        try:
            yield writer
        finally:
            writer.abandon()


def write_capture(
    path: str | os.PathLike[str],
    events: Events,
    info: CaptureInfo,
    state0: State | None = None,
    state1: State | None = None,
) -> None:
    """Write a capture of events that are in memory.

    Raises
    ------
    OSError
        The file cannot be written; nothing of it stays behind.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "a.physmem"
    >>> events = Events.from_columns({"kind": [2, 2], "pfn": [7, 9]}, comms=["init"])
    >>> write_capture(name, events, CaptureInfo(lines=2))
    >>> capture = read_capture(name)
    >>> capture.events.pfn.tolist(), capture.info.lines, capture.state0
    ([7, 9], 2, None)
    """
    info = msgspec.structs.replace(
        info,
        comms=list(events.comms),
        markers=list(events.markers),
        sites=list(events.sites),
        columns=list(events.columns),
        encoding={},
    )
    with capture_writer(path) as writer:
        writer.write({name: getattr(events, name) for name in events.columns})
        writer.finish(info, state0, state1)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, CaptureInfo]]:
    """Open a capture as Parquet file and decode its info; Arrow's errors become ours."""
    import pyarrow as pa
    from pyarrow import parquet

    name = os.fspath(path)
    try:
        if not Path(path).is_file():
            raise BadCaptureError(f"{name}: no such file")
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata or {}
            if KEY not in metadata:
                raise BadCaptureError(f"{name}: a Parquet file, but no capture of physmem")
            info = _decode_info(name, metadata)
            missing = set(info.columns) - set(file.schema_arrow.names)
            if missing:
                raise BadCaptureError(
                    f"{name}: damaged (no column {missing.pop()}); import it again"
                )
            yield file, info
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise BadCaptureError(f"{name}: an empty file, no capture; import it again") from None
        reason = str(error).split("\n", maxsplit=1)[0][:120]
        raise BadCaptureError(
            f"{name}: no capture, or damaged ({reason}); import it again"
        ) from None


def _decode_info(name: str, metadata: Mapping[bytes, bytes]) -> CaptureInfo:
    class Head(msgspec.Struct):
        format: int

    text = metadata[KEY]
    try:
        head = msgspec.json.decode(text, type=Head)
        if head.format > FORMAT:
            raise BadCaptureError(
                f"{name}: written by a newer physmem (capture format {head.format}, "
                f"this one reads up to {FORMAT}); upgrade physmem"
            )
        info = msgspec.json.decode(text, type=CaptureInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadCaptureError(f"{name}: damaged metadata ({error}); import it again") from None
    if metadata.get(SUM_KEY) != metadata_sum(metadata):
        raise BadCaptureError(f"{name}: damaged metadata (wrong checksum); import it again")
    return info


def read_info(path: str | os.PathLike[str]) -> CaptureInfo:
    """Read what a capture says about itself, without its events.

    Raises
    ------
    BadCaptureError
        No such file, no capture, damaged, or written by a newer physmem.
    """
    with _opened(path) as (_file, info):
        return info


def read_capture(
    path: str | os.PathLike[str],
    columns: Iterable[str] | Callable[[CaptureInfo], Iterable[str]] | None = None,
) -> Capture:
    """Read a capture; `columns` names those that are needed (default: all that it has).

    It may also be a function that tells them when it is given what the capture says of itself.

    Raises
    ------
    BadCaptureError
        No such file, no capture, damaged, written by a newer physmem, or a column that it lacks.
    BadStateError
        A state in the capture is not of the form of a state.
    """
    from physmem.mm.state import decode_state

    with _opened(path) as (file, info):
        if callable(columns):
            columns = columns(info)
        wanted = info.columns if columns is None else [c for c in DTYPES if c in set(columns)]
        missing = [column for column in wanted if column not in info.columns]
        if missing:
            raise BadCaptureError(
                f"{os.fspath(path)}: the capture has no column {missing[0]}; "
                "it was made without it (compact): import the recording again"
            )
        arrays = _read_columns(file, info, wanted)
        metadata = file.metadata.metadata
        states = [
            decode_state(metadata[key], f"{os.fspath(path)}: {key.decode()}")
            if key in metadata
            else None
            for key in STATE_KEYS
        ]
    for column, array in arrays.items():
        if len(array) != info.rows:
            raise BadCaptureError(
                f"{os.fspath(path)}: column {column} has {len(array)} rows instead of "
                f"{info.rows}; import it again"
            )
    events = Events.from_columns(arrays, info.comms, info.markers, info.sites)
    return Capture(events, info, states[0], states[1])


def _read_columns(file: Any, info: CaptureInfo, wanted: Sequence[str]) -> dict[str, Any]:
    """Read columns as arrays of their dtypes, transforms undone."""
    needed = set(wanted)
    if any(info.encoding.get(name) == "kind-delta" for name in wanted):
        needed.add("kind")
    raw = _read_raw(file, info, sorted(needed))
    arrays = {}
    for name in wanted:
        encoding = info.encoding.get(name, "")
        array = decode_column(raw[name], encoding, lambda: raw["kind"])
        arrays[name] = array.astype(DTYPES[name], copy=False)
        if encoding == "no count":
            arrays[name][:] = NO_PREEMPT_COUNT
    return arrays


def _read_raw(file: Any, info: CaptureInfo, needed: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Copy columns as they lie in the file into writable arrays.

    Few row groups at a time: what Arrow needs for them it uses again for the next ones, and fresh
    memory costs more than decoding.
    """
    import pyarrow as pa

    groups = file.metadata.num_row_groups
    rows = sum(file.metadata.row_group(number).num_rows for number in range(groups))
    if rows != info.rows:
        raise pa.ArrowInvalid(f"{rows} rows instead of {info.rows}")
    raw: dict[str, NDArray[Any]] = {name: np.empty(0, DTYPES[name]) for name in needed}
    at = 0
    for first in range(0, groups if needed else 0, _GROUPS_AT_ONCE):
        numbers = list(range(first, min(first + _GROUPS_AT_ONCE, groups)))
        table = file.read_row_groups(numbers, columns=needed, use_threads=True)
        for name in needed:
            column = table[name]
            if column.null_count:
                raise pa.ArrowInvalid("missing values")
            if not at:
                raw[name] = np.empty(rows, column.type.to_pandas_dtype())
            _copy(column, raw[name][at : at + len(column)])
        at += len(table)
    return raw


def _copy(column: Any, target: NDArray[Any]) -> None:
    """Copy an Arrow column into an array."""
    at = 0
    for chunk in column.chunks:
        target[at : at + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
        at += len(chunk)
