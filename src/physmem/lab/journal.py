# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal of a sweep: each outcome is on the disk before the next one is waited for.

One line per outcome, `<digest of the rest> <JSON>`, only ever appended. A line that a power cut or
a `kill -9` tore is known by its digest and left out; its task is done again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from physmem.lab.digest import bytes_digest
from physmem.lab.task import Outcome, Task
from physmem.lib.errors import BadInputError

NAME = "journal.jsonl"


class Journal:
    """Journal in a folder, which is made. Only one process at a time may have it open.

    Attributes
    ----------
    records : the last outcome of each key
    inputs : what each key was computed from: capture's digest, sources, version

    Raises
    ------
    BadInputError
        Another process has it open.
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from physmem.lab.evaluator import CAPTURE
    >>> folder = Path(tempfile.mkdtemp())
    >>> task = Task("a", "a", "", {}, 0, CAPTURE, "sources")
    >>> with Journal(folder) as journal:
    ...     journal.append(task, Outcome(task.key, "ok", {"free": 7}))
    >>> read_records(folder)[task.key].metrics
    {'free': 7}
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / NAME
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            lock_file(self._file, self._path)
            self.records: dict[str, Outcome] = {}
            self.inputs: dict[str, dict[str, str]] = {}
            data = self._path.read_bytes()
            for key, outcome, inputs in _parse(data):
                self.records[key] = outcome
                self.inputs[key] = inputs
            if data and not data.endswith(b"\n"):
                os.write(self._file, b"\n")  # ends the torn line; the next one stands for itself
        except BaseException:
            os.close(self._file)
            raise

    def append(self, task: Task, outcome: Outcome) -> None:
        """Keep an outcome; it is on the disk when this returns."""
        inputs = {"digest": task.digest, "source": task.source, "version": task.version}
        record = {
            "key": outcome.key,
            "status": outcome.status,
            "metrics": outcome.metrics,
            "error": outcome.error,
            "message": outcome.message,
            "worker": outcome.worker,
            "seconds": outcome.seconds,
            "inputs": inputs,
        }
        # Not msgspec: it has no NaN, and a metric may be one.
        text = json.dumps(record, separators=(",", ":")).encode()
        line = b"%s %s\n" % (bytes_digest(text).encode(), text)
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            error.filename = str(self._path)
            raise
        self.records[outcome.key] = outcome
        self.inputs[outcome.key] = inputs

    def forget(self, key: str) -> None:
        """Take an outcome for unknown; a new one will be appended."""
        self.records.pop(key, None)

    def close(self) -> None:
        """Let another process have it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_records(folder: Path) -> dict[str, Outcome]:
    """Outcomes that a folder holds, by key; without opening its journal for writing."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return {}
    return {key: outcome for key, outcome, _inputs in _parse(data)}


def _parse(data: bytes) -> Iterator[tuple[str, Outcome, dict[str, str]]]:
    for line in data.split(b"\n"):
        digest, _, text = line.partition(b" ")
        if not text or bytes_digest(text).encode() != digest:
            continue
        record: dict[str, Any] = json.loads(text)
        inputs = record.pop("inputs")
        yield record["key"], Outcome(**record), inputs


def lock_file(descriptor: int, path: Path) -> None:
    """Hold a file for this process until it is closed, or the process ends in whatever way.

    Raises
    ------
    BadInputError
        Another process holds it.
    """
    with suppress(ImportError):  # no such locks on Windows
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(
                f"{path}: another physmem is at work on it; wait for it, or choose another --output"
            ) from None
        except OSError:  # a file system without locks
            return
