# SPDX-License-Identifier: GPL-2.0-or-later
"""Importing a recording of a real kernel: a directory of text files becomes one capture.

What the directory may hold (compressed or not; only the trace must be there):

    trace.txt            ftrace text
    manifest.json        kernel, machine, which trace line each state belongs to, event counts
    state0.json          memory state right before line `state0_before_line`
    state1.json          memory state right before line `state1_before_line`
    start.zoneinfo       /proc/zoneinfo near state0; start.meminfo likewise
    dmesg.txt            boot log: nodes of the CPUs, places of the node descriptors
    cmdline, version     /proc/cmdline, /proc/version
"""

import datetime as dt
import os
import re
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadInputError, BadStateError, BadTraceError
from physmem.mm.gfp import TABLES
from physmem.mm.state import State, decode_state
from physmem.trace.capture import CaptureInfo, CaptureWriter, capture_writer
from physmem.trace.check import check_against_trace, check_same_machine, check_state
from physmem.trace.events import DTYPES
from physmem.trace.folder import RecordingFolder
from physmem.trace.ftrace import Progress, TraceReader, columns_of
from physmem.trace.info import MachineInfo, Provenance
from physmem.trace.ledger import FrameLedger
from physmem.trace.machine_info import machine_of
from physmem.trace.profile import profile_of


class ImportReport(msgspec.Struct):
    """What an import did.

    `unknown_frees` counts frees of frames that no earlier line had allocated: memory from before
    the trace began, or from allocations that have no event. `seconds` is wall time.
    """

    source: str = ""
    output: str = ""
    kernel: str = ""
    profile: str = ""
    lines: int = 0
    trace_bytes: int = 0
    seconds: float = 0.0
    lines_per_second: float = 0.0
    capture_bytes: int = 0
    events: dict[str, int] = {}
    unknown: dict[str, int] = {}
    lost: int = 0
    failed: int = 0
    unknown_frees: int = 0
    has_state0: bool = False
    has_state1: bool = False
    truncated: bool = False
    notes: list[str] = []

    def to_json(self) -> bytes:
        """JSON text of the report."""
        return msgspec.json.encode(self)


def import_recording(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    allow_truncated: bool = False,
) -> ImportReport:
    """Read the recording in `directory` and write the capture `output`.

    `progress` is called with the bytes of the trace done and in total. With `allow_truncated` a
    trace that ends early is taken as far as it goes; a state behind its end is left out.

    Raises
    ------
    BadInputError
        No such directory, no trace in it, a damaged file.
    BadTraceError
        See `physmem.trace.ftrace.TraceReader`; or other event counts than the manifest has.
    BadStateError
        A state that contradicts itself, the other one or the trace.
    OSError
        The output cannot be written. Nothing of it stays behind after any error or interrupt.

    Examples
    --------
    >>> import tempfile
    >>> here = Path(tempfile.mkdtemp())
    >>> line = "init-1 [000] .... 1.5: mm_page_free: page=x pfn=0x9226 order=1"
    >>> _ = (here / "trace.txt").write_text(line + chr(10))
    >>> report = import_recording(here, here / "a.physmem")
    >>> report.events, report.unknown_frees, report.has_state0
    ({'mm_page_free': 1}, 1, False)
    """
    began = time.perf_counter()
    files = RecordingFolder(Path(directory))
    manifest = _manifest(files)
    states = [_state(files, name) for name in ("state0", "state1")]
    if states[0] and states[1]:
        check_same_machine(states[0], states[1])
    machine = _machine(files, manifest, states[0])
    trace = files.find("trace.txt", "trace")
    if trace is None:
        raise BadInputError(f"{files.path}: no trace.txt (or trace.txt.xz, .gz) in it")
    job = _Import(files, manifest, states, machine)
    reader = TraceReader(
        trace, TABLES[machine.profile], allow_truncated=allow_truncated, progress=progress
    )
    with capture_writer(output) as writer:
        info = job.run(reader, writer)
        writer.finish(info, *job.kept_states())
    report = job.report(reader)
    report.output = os.fspath(output)
    report.seconds = time.perf_counter() - began
    report.lines_per_second = report.lines / report.seconds
    report.capture_bytes = Path(output).stat().st_size
    return report


def _manifest(files: RecordingFolder) -> dict[str, Any]:
    text = files.content("manifest.json")
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInputError(f"{files.read[-1]}: damaged ({error}); copy it again") from None


def _state(files: RecordingFolder, name: str) -> State | None:
    text = files.content(f"{name}.json")
    if text is None:
        return None
    source = str(files.read[-1])
    state = decode_state(text, source)
    check_state(state, source)
    return state


def _machine(files: RecordingFolder, manifest: dict[str, Any], state: State | None) -> MachineInfo:
    texts = {
        "zoneinfo": files.text("start.zoneinfo", "zoneinfo"),
        "meminfo": files.text("start.meminfo", "meminfo"),
        "dmesg": files.text("dmesg.txt", "dmesg"),
        "cmdline": files.text("cmdline"),
    }
    version = files.text("version").strip()
    machine = machine_of(texts, manifest, state)
    machine.kernel = str(manifest.get("kernel", "")) or version
    machine.profile, _ = profile_of(machine.kernel)
    return machine


class _Import:
    """One import: rows from the reader to the writer, checks on the way."""

    def __init__(
        self,
        files: RecordingFolder,
        manifest: dict[str, Any],
        states: list[State | None],
        machine: MachineInfo,
    ) -> None:
        self.files = files
        self.manifest = manifest
        self.states = states
        self.info = CaptureInfo(machine=machine, columns=list(DTYPES))
        if dmesg := files.text("dmesg.txt", "dmesg"):
            self.info.boot_log = zlib.compress(dmesg.encode(), 9)
        self.notes: list[str] = []
        self.ledger = FrameLedger(states[0] or states[1])
        self.info.state0_line = self._line(0)
        self.info.state1_line = self._line(1)

    def _line(self, which: int) -> int | None:
        if self.states[which] is None:
            return None
        name = f"state{which}_before_line"
        line = self.manifest.get(name)
        if not isinstance(line, int) or line < 1:
            raise BadStateError(
                f"{self.files.path}: state{which} is there, but manifest.json has no {name}: "
                "nobody can tell which trace line it belongs to"
            )
        return line

    def run(self, reader: TraceReader, writer: CaptureWriter) -> CaptureInfo:
        """Write all rows; returns the info for the end of the file."""
        for rows in reader:
            self._enter(rows, writer.rows)
            writer.write(columns_of(rows))
        self._check_end(reader, writer.rows)
        info = self.info
        info.lines = reader.lines
        info.counts = reader.event_counts()
        info.unknown = reader.unknown
        info.lost = self._lost(reader)
        info.comms = reader.comms
        info.markers = reader.markers
        info.sites = reader.sites
        if not reader.depth_seen:
            info.encoding = {"preempt": "no count"}
        info.provenance = Provenance(
            files=self.files.sources(),
            importer=f"physmem {_version()}",
            date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
        return info

    def _enter(self, rows: NDArray[Any], before: int) -> None:
        """Enter a batch into the ledger, stopping where a state belongs."""
        self._check_cpus(rows)
        begin = 0
        for which in (0, 1):
            line = self._open_line(which)
            if line is None or rows["line"][-1] < line:
                continue
            end = int(np.searchsorted(rows["line"], line))
            self.ledger.enter(rows[begin:end])
            begin = end
            self._place_state(which, before + end)
        self.ledger.enter(rows[begin:])

    def _check_cpus(self, rows: NDArray[Any]) -> None:
        """Check that the CPUs exist; without a manifest the trace tells how many there are."""
        machine = self.info.machine
        highest = int(rows["cpu"].max())
        if highest < machine.nr_cpus:
            return
        if "cpus" in self.manifest:
            line = int(rows["line"][np.argmax(rows["cpu"] >= machine.nr_cpus)])
            raise BadTraceError(
                f"{self.files.path}: line {line} of the trace is of CPU {highest}, but the machine "
                f"has {machine.nr_cpus} CPUs (manifest.json); copy the recording again"
            )
        machine.cpu_node += [0] * (highest + 1 - machine.nr_cpus)
        machine.nr_cpus = highest + 1

    def _open_line(self, which: int) -> int | None:
        info = self.info
        line = info.state1_line if which else info.state0_line
        row = info.state1_row if which else info.state0_row
        return line if row is None else None

    def _place_state(self, which: int, row: int) -> None:
        """Take note that a state belongs before `row`, and check it against the rows so far."""
        if which:
            self.info.state1_row = row
        else:
            self.info.state0_row = row
            self.info.movable0 = self.ledger.movable()
        state = self.states[which]
        if state is not None:
            check_against_trace(state, f"state{which}", self.ledger.allocated())

    def _check_end(self, reader: TraceReader, rows: int) -> None:
        """Check what the whole trace must agree with: the manifest's counts, the states' lines."""
        self._check_counts(reader)
        for which in (0, 1):
            line = self._open_line(which)
            if line is None:
                continue
            if line <= reader.lines + 1:
                self._place_state(which, rows)
            elif not reader.allow_truncated:
                raise BadStateError(
                    f"state{which} belongs before line {line:,} of the trace, which has only "
                    f"{reader.lines:,} lines: they do not belong together"
                )

    def _check_counts(self, reader: TraceReader) -> None:
        expected = self.manifest.get("trace", {}).get("events")
        if not isinstance(expected, dict) or reader.truncated:
            return
        found = {**reader.event_counts(), **reader.unknown}
        for name in sorted({*expected, *found}):
            if expected.get(name, 0) == found.get(name, 0):
                continue
            if reader.allow_truncated:
                reader.truncated = True
                return
            raise BadTraceError(
                f"{reader.path}: {found.get(name, 0):,} events {name}, but manifest.json counts "
                f"{expected.get(name, 0):,}; copy the recording again, or use --allow-truncated "
                "for what there is"
            )

    def _lost(self, reader: TraceReader) -> int:
        """Lost events: lines of the trace, or the counters of the ring buffer."""
        stats = self.files.text("trace.stats")
        counted = re.findall(
            r"^(?:overrun|commit overrun|dropped events): (\d+)$", stats, re.MULTILINE
        )
        return max(reader.lost, sum(map(int, counted)))

    def kept_states(self) -> tuple[State | None, State | None]:
        """Return the states that lie within the trace."""
        info = self.info
        for which, row in enumerate((info.state0_row, info.state1_row)):
            if row is None and self.states[which] is not None:
                self.notes.append(f"state{which} left out: the trace ends before its line")
                self.states[which] = None
        return self.states[0], self.states[1]

    def report(self, reader: TraceReader) -> ImportReport:
        """Sum up."""
        info = self.info
        machine = info.machine
        profile, own = profile_of(machine.kernel)
        if not own:
            what = f"kernel {machine.kernel}" if machine.kernel else "kernel of unknown version"
            self.notes.append(f"{what}: read with the rules of Linux {profile}")
        return ImportReport(
            source=str(self.files.path),
            kernel=machine.kernel,
            profile=machine.profile,
            lines=reader.lines,
            trace_bytes=reader.path.stat().st_size,
            events=info.counts,
            unknown=info.unknown,
            lost=info.lost,
            failed=self.ledger.failed,
            unknown_frees=self.ledger.unknown_frees,
            has_state0=self.states[0] is not None,
            has_state1=self.states[1] is not None,
            truncated=reader.truncated,
            notes=self.notes,
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("physmem")
    except PackageNotFoundError:
        return "unknown"
