# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading ftrace text: plain or compressed, of any length, in pieces.

Linux: Documentation/trace/ftrace.rst (the text of /sys/kernel/tracing/trace and trace_pipe); the
output of `trace-cmd report` and `perf script` differs little and is read too.
"""

import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadTraceError
from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.mm.gfp import GFP_6_1, GfpTable, decode_gfp
from physmem.trace import bytescan as bs
from physmem.trace import scan as sc
from physmem.trace.events import DTYPES, EVENT_NAMES, NO_PREEMPT_COUNT, Events, Kind
from physmem.trace.literals import FIELDS, guess_table, literal_table

CHUNK = 1 << 20
"""Bytes of text that are read at a time; no line may be longer."""
ROWS = 1 << 17
"""Rows of a batch."""
_SPARE = 64
_SLOTS = 1 << 18
_KNOWN = 1 << 17
_ARENA = 4 << 20
_COUNTS = 1 << 12
_LIMITS = {bs.COMM: (1 << 16) - 1, bs.GFP: 1 << 14, bs.NAME: _COUNTS - 1, bs.MARK: 1 << 16}
_LIMITS[bs.SITE] = (1 << 16) - 1
"""Different texts per space; what comes later shares the number of `_OTHER`."""
_OTHER = {bs.COMM: "<...>", bs.NAME: "(others)", bs.MARK: "(further texts)"}
_OTHER[bs.SITE] = "(others)"
_ENTRIES = re.compile(rb"^# entries-in-buffer/entries-written: (\d+)/", re.MULTILINE)
_MAGIC = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}
DAMAGED = (lzma.LZMAError, zlib.error, EOFError, OSError)
"""What the decompressors raise at a damaged or truncated file."""
_ADVICE = "copy it again, or use --allow-truncated for what there is"
_PAGE_KINDS = range(Kind.ALLOC, Kind.BULK)

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total, both of the file on disk."""


def compression_of(path: str | os.PathLike[str]) -> str:
    """Return "xz", "gz", "zst", or "" by the first bytes of a file."""
    with Path(path).open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def decompressed(file: Any, kind: str) -> Any:
    """Wrap a file of compressed bytes as one of plain bytes."""
    if kind == "xz":
        return lzma.LZMAFile(file)
    if kind == "gz":
        import gzip

        return gzip.GzipFile(fileobj=file)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file), "zstd")


class _Plain:
    """A file read as it is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readinto(self, view: memoryview) -> int:
        """Fill the view as far as one read does; 0 at the end."""
        return int(self._file.readinto(view))

    def close(self) -> None:
        """Nothing is left behind."""


class _Ahead:
    """Text that a thread decompresses one piece ahead (the decompressors release the GIL)."""

    def __init__(self, file: Any, kind: str) -> None:
        self._text = decompressed(file, kind)
        self._thread = ThreadPoolExecutor(1)
        self._next = self._thread.submit(self._text.read, CHUNK)

    def readinto(self, view: memoryview) -> int:
        """Fill the view with the next piece; 0 at the end."""
        piece = self._next.result()
        if piece:
            self._next = self._thread.submit(self._text.read, CHUNK)
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


class TraceReader:
    """Rows of a trace, batch by batch, and what was counted on the way.

    Attributes
    ----------
    lines : int
        Lines passed.
    lost : int
        Events that the kernel says it dropped ("CPU:0 [LOST 12 EVENTS]").
    comms, markers, sites : list of str
        What `comm`, (in MARKER rows) `arg0` and `site` index.
    truncated : bool
        The text ended in the middle, and that was allowed.

    Parameters
    ----------
    path
        Text; plain, .xz, .gz or .zst (told by its first bytes).
    table
        Names of the gfp flags of the recorded kernel.
    allow_truncated
        Drop an unfinished last line, and take a text with fewer lines than its header tells.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: GfpTable = GFP_6_1,
        *,
        allow_truncated: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.path = Path(path)
        self.table = table
        self.allow_truncated = allow_truncated
        self.truncated = False
        self.lost = 0
        self.comms: list[str] = []
        self.markers: list[str] = []
        self.sites: list[str] = []
        self.counts: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._names: list[str] = []
        self._progress = progress
        self._announced: int | None = None
        self._nr_gfp = 0
        self._tail = 0
        self._keep: dict[str, NDArray[Any]] = {}
        self._state = np.zeros(1, dtype_of(bs.Scan))
        self._setup()

    def _setup(self) -> None:
        self._buffer = bytearray(2 * CHUNK + _SPARE)
        text = np.frombuffer(self._buffer, np.uint8)
        self._text = address(text)
        near: dict[str, NDArray[Any]] = {
            "literals": literal_table(),
            "guesses": guess_table(),
            "last_ts": np.zeros(sc.MAX_CPUS, np.int64),
            "name_counts": np.zeros(_COUNTS, np.int64),
            "slots": np.zeros(_SLOTS, np.int64),
            "arena": np.zeros(_ARENA, np.uint8),
        }
        far: dict[str, NDArray[Any]] = {
            "rows": np.zeros(ROWS, dtype_of(bs.Row)),
            "known": np.zeros(_KNOWN, dtype_of(bs.Known)),
        }
        s = self._state[0]
        for name, array in near.items():
            s[name] = address(array)
        for name, array in far.items():
            attach(s, name, array)
        s["slot_mask"] = _SLOTS - 1
        s["arena_size"] = _ARENA
        s["other"] = -1
        for kind, keys in FIELDS.items():
            s["required"][kind] = sum(1 << key for key in keys)
        self._keep = {**near, **far, "text": text}

    @property
    def lines(self) -> int:
        """Lines passed."""
        return int(self._state[0]["line"])

    @property
    def depth_seen(self) -> bool:
        """The kernel counts preemption depth: some line showed one."""
        return bool(self._state[0]["depth_seen"])

    @property
    def unknown(self) -> dict[str, int]:
        """Lines per event that is not read."""
        counts = self._keep["name_counts"]
        return {name: int(counts[i]) for i, name in enumerate(self._names) if counts[i]}

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yield batches of rows (dtype of `physmem.trace.bytescan.Row`), valid until the next one.

        Raises
        ------
        BadTraceError
            No such file; a line that cannot be read; lines out of order; a truncated text; no
            event of the page allocator in the whole text.
        """
        if not self.path.is_file():
            raise BadTraceError(f"{self.path}: no such file")
        kind = compression_of(self.path)
        try:
            with self.path.open("rb", buffering=-1 if kind else 0) as file:
                source = _Ahead(file, kind) if kind else _Plain(file)
                try:
                    for end in self._fill(source, file):
                        whole = self._buffer.rfind(b"\n", 0, end) + 1
                        yield from self._scan(whole)
                        self._tail = end - whole
                        self._buffer[: self._tail] = self._buffer[whole:end]
                finally:
                    source.close()
        except DAMAGED as error:
            if not kind:
                raise BadTraceError(f"{self.path}: cannot be read ({error})") from None
            if not self.allow_truncated:
                reason = f"the compressed text ends early or is damaged ({error})"
                raise self._error(self.lines + 1, f"{reason}; {_ADVICE}") from None
            self.truncated = True
        if self._state[0]["row"]:
            yield self._batch()
        self._finish()

    def _fill(self, source: "_Plain | _Ahead", file: Any) -> Iterator[int]:
        """Read pieces behind the rest of the last one; yields the end of the text in the buffer."""
        view = memoryview(self._buffer)
        size = self.path.stat().st_size
        while got := source.readinto(view[self._tail : self._tail + CHUNK]):
            end = self._tail + got
            if self._announced is None:
                header = _ENTRIES.search(bytes(view[: min(end, 4096)]))
                self._announced = int(header[1]) if header else -1
            yield end
            if self._tail > CHUNK:
                raise self._error(self.lines + 1, f"a line of more than {CHUNK >> 20} MiB")
            if self._progress:
                self._progress(min(file.tell(), size), size)

    def _scan(self, end: int) -> Iterator[NDArray[Any]]:
        """Scan the whole lines before `end`, yielding full batches."""
        s = self._state[0]
        s["pos"], s["end"] = self._text, self._text + end
        run = ready(sc.scan)
        while (result := run(address(self._state))) != sc.DONE:
            if result == sc.NEED:
                self._answer()
            elif result == sc.LOST:
                self.lost += int(s["value"])
            elif result == sc.BAD:
                raise self._bad_line(int(s["pos"]), int(s["value"]))
            else:
                yield self._batch()

    def _batch(self) -> NDArray[Any]:
        """Count the rows so far and empty the buffer."""
        s = self._state[0]
        rows = self._keep["rows"][: int(s["row"])]
        s["row"] = 0
        per_kind = np.bincount(rows["kind"], minlength=len(Kind) + 1)
        for kind in Kind:
            self.counts[kind] += int(per_kind[kind])
        return rows

    def _answer(self) -> None:
        """Tell the scanner the number of the text that it asked for."""
        s = self._state[0]
        space, at = int(s["space"]), int(s["at"]) - self._text
        raw = bytes(self._buffer[at : at + int(s["length"])])
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r")
        if space == bs.GFP:
            try:
                number = decode_gfp(text, self.table)
            except BadTraceError as error:
                raise self._bad_line(int(s["pos"]), str(error)) from None
            self._nr_gfp += 1
            full = self._nr_gfp > _LIMITS[space]
        else:
            texts = {
                bs.COMM: self.comms,
                bs.NAME: self._names,
                bs.MARK: self.markers,
                bs.SITE: self.sites,
            }[space]
            number = len(texts)
            full = number >= _LIMITS[space]
            texts.append(_OTHER[space] if full else text)
            if full:
                s["other"][space] = number
                return
        if full or not ready(bs.learn)(address(self._state), number):
            raise self._bad_line(int(s["pos"]), "too many different texts for a trace")

    def _bad_line(self, pos: int, reason: int | str) -> BadTraceError:
        """Make the error for the line at the address `pos`."""
        pos -= self._text
        end = self._buffer.find(b"\n", pos)
        text = bytes(self._buffer[pos : min(end, pos + 160)]).decode("utf-8", "backslashreplace")
        why = sc.REASONS[reason] if isinstance(reason, int) else reason
        shown = "".join(c if c.isprintable() else "?" for c in text)
        return self._error(self.lines + 1, f"{why}: {shown!r}; copy or record the trace again")

    def _error(self, line: int, what: str) -> BadTraceError:
        return BadTraceError(f"{self.path}:{line}: {what}")

    def _finish(self) -> None:
        """Check what can only be known at the end."""
        events = int(self._state[0]["event_lines"])
        if self._tail:
            if not self.allow_truncated:
                raise self._error(self.lines + 1, f"the text ends within a line; {_ADVICE}")
            self.truncated = True
        elif self._announced is not None and events < self._announced:
            if not self.allow_truncated:
                raise self._error(
                    self.lines,
                    f"the text ends after {events:,} of the {self._announced:,} events that its "
                    f"header tells; {_ADVICE}",
                )
            self.truncated = True
        if not any(self.counts[Kind(kind)] for kind in _PAGE_KINDS):
            raise BadTraceError(
                f"{self.path}: no event of the page allocator in {self.lines:,} lines; record "
                "kmem:mm_page_alloc, kmem:mm_page_free and the other kmem:mm_page_* events"
            )

    def event_counts(self) -> dict[str, int]:
        """Return the rows per event name."""
        return {EVENT_NAMES[kind]: count for kind, count in self.counts.items() if count}


def columns_of(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Copy rows into columns."""
    return {name: np.ascontiguousarray(rows[name]) for name in DTYPES}


def read_events(
    path: str | os.PathLike[str], table: GfpTable = GFP_6_1, *, allow_truncated: bool = False
) -> Events:
    r"""Read a whole trace into memory (`TraceReader` reads it in pieces).

    Raises
    ------
    BadTraceError
        See `TraceReader`.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "trace.txt"
    >>> _ = name.write_text(
    ...     "            init-1       [000] d..1.     0.310394: mm_page_free: "
    ...     "page=(ptrval) pfn=0x9226 order=1\n"
    ... )
    >>> events = read_events(name)
    >>> events.comms, hex(events.pfn[0]), int(events.preempt[0]), int(events.ts[0])
    (['init'], '0x9226', 1, 310394000)
    """
    reader = TraceReader(path, table, allow_truncated=allow_truncated)
    batches = [columns_of(rows) for rows in reader]
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in DTYPES}
    if not reader.depth_seen:
        columns["preempt"][:] = NO_PREEMPT_COUNT
    return Events.from_columns(columns, reader.comms, reader.markers, reader.sites)
