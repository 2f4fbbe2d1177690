# SPDX-License-Identifier: GPL-2.0-or-later
"""One replay for the command line: files, progress, pictures on the way."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from physmem.cli.compiling import compile_now, needs_compiling
from physmem.cli.progress import Bar
from physmem.lib.errors import BadInputError

if TYPE_CHECKING:
    from physmem.replay.report import Result
    from physmem.replay.sample import Samples
    from physmem.replay.session import Session
    from physmem.trace.capture import Capture

SAMPLES = 600
"""Moments of a map over time: one for every three pixels of the picture."""
_SAMPLE_BYTES = 512 << 20


@dataclass
class Replayed:
    """A session after its run; `samples` if a picture was asked for."""

    session: "Session"
    result: "Result"
    samples: "Samples | None"


def check_output(path: Path, source: Path, *suffixes: str) -> None:
    """Refuse an output that cannot be meant, before the work instead of after it.

    Raises
    ------
    BadInputError
        It is the input itself, lies in no folder, or has a suffix that tells no format.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise BadInputError(f"{path}: name a file that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise BadInputError(f"{path}: is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise BadInputError(f"{path}: there is no directory {path.parent}; make it first")
    if path.exists() and source.exists() and path.samefile(source):
        raise BadInputError(f"{path}: is the input itself; choose another name for the output")


class _Reading(threading.Thread):
    """Reads a capture on another CPU, while this one loads Numba and the kernels."""

    def __init__(self, path: Path, *, timed: bool) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._more = ("ts",) if timed else ()
        self._capture: Capture | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Read; an error is kept for `result`."""
        try:
            from physmem.replay.columns import replay_columns
            from physmem.trace.capture import read_capture

            self._capture = read_capture(
                self._path, columns=lambda info: (*replay_columns(info), *self._more)
            )
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error

    def result(self) -> "Capture":
        """Wait for the capture."""
        self.join()
        if self._error is not None or self._capture is None:
            raise self._error or RuntimeError
        return self._capture


def run_replay(
    path: Path, *, strict: bool = False, sampled: bool = False, quiet: bool = False
) -> Replayed:
    """Read a capture and replay it, with notes and progress on stderr."""
    reading = _Reading(path, timed=sampled)
    from physmem.replay.engine import replay
    from physmem.replay.lowering import lower
    from physmem.replay.session import Session

    if needs_compiling(lower, replay):
        reading.result()  # a bad capture is no reason to compile
    compile_now(lower, replay, quiet=quiet)
    session = Session.prepare(reading.result(), strict=strict)
    with Bar("replay", "requests", quiet=quiet) as bar:
        if not sampled:
            return Replayed(session, session.run(bar), None)
        memory = session.tables.memory[0]
        blocks = int(memory["max_pfn"]) >> int(memory["pageblock_order"])
        count = max(1, min(SAMPLES, _SAMPLE_BYTES // (2 * blocks + 1)))
        result, samples = session.run_sampled(count, bar)
    return Replayed(session, result, samples)
