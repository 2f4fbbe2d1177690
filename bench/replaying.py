# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay against plain C: the same requests over equal tables, taken in turns."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from physmem.lib.jit import ready
from physmem.lib.struct import address, dtype_of
from physmem.mm.mmzone import FreeArea, Memory, Page, PerCpuPages, Zone, Zoneref
from physmem.replay.columns import replay_columns
from physmem.replay.engine import Run, replay
from physmem.replay.request import Request
from physmem.replay.runner import Runner
from physmem.replay.session import Session, fresh_tables
from physmem.trace.capture import read_capture

SOURCE = Path(__file__).with_name("baseline.c")
FLAGS = ("-std=c11", "-O2", "-shared", "-fPIC")
STRUCTS = (Page, FreeArea, PerCpuPages, Zone, Zoneref, Memory, Request, Run)
"""In the order of `struct_sizes` in baseline.c."""
TABLES = ("memory", "zones", "mem_map", "pageset", "pageblock_flags")

ReplayFunction = Callable[[int, int], int]


@dataclass
class Replays:
    """Seconds of each repetition, and what was replayed.

    `lowering` and `session` are seconds of a clock, with checkpoints and the search for races.
    `kernel` and `c` are one call over all requests, in their final order: seconds of the processor,
    so that the turns of other processes do not count in their ratio.
    """

    capture: str
    events: int = 0
    requests: int = 0
    digest: str = ""
    compiler: str = ""
    lowering: list[float] = field(default_factory=list)
    session: list[float] = field(default_factory=list)
    kernel: list[float] = field(default_factory=list)
    c: list[float] = field(default_factory=list)

    @property
    def events_per_second(self) -> float:
        """Of lowering and run together: the best of each."""
        return self.events / (min(self.lowering) + min(self.session))

    @property
    def ratio(self) -> float | None:
        """Time of the compiled kernels over that of the C code; None without a C compiler."""
        return min(self.kernel) / min(self.c) if self.c else None


def c_compiler() -> list[str] | None:
    """Command of a C compiler: $CC, else the first of cc, gcc, clang; None: there is none."""
    chosen = os.environ.get("CC")
    if chosen:
        words = shlex.split(chosen)
        return words if shutil.which(words[0]) else None
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    return None


def load_baseline(compiler: list[str], folder: Path) -> ReplayFunction:
    """Compile baseline.c and check that its structs are ours."""
    library = folder / "baseline.so"
    subprocess.run([*compiler, *FLAGS, "-o", str(library), str(SOURCE)], check=True)
    loaded = ctypes.CDLL(str(library))
    theirs = list((ctypes.c_int64 * len(STRUCTS)).in_dll(loaded, "struct_sizes"))
    ours = [dtype_of(cls).itemsize for cls in STRUCTS]
    assert theirs == ours, f"struct sizes in baseline.c {theirs}, in physmem {ours}"
    loaded.replay.argtypes = [ctypes.c_void_p, ctypes.c_long]
    loaded.replay.restype = ctypes.c_long
    return loaded.replay


def measure_replay(path: Path, repeat: int) -> Replays:
    """Measure all ways of replaying a capture, in turns, and demand that they agree."""
    measured = Replays(path.name)
    compiler = c_compiler()
    with tempfile.TemporaryDirectory(prefix="physmem-bench-") as folder:
        baseline = None
        if compiler is not None:
            baseline = load_baseline(compiler, Path(folder))
            measured.compiler = " ".join([*compiler, *FLAGS[:2]])
        capture = read_capture(path, columns=replay_columns)
        for _ in range(repeat):
            session = Session.prepare(capture)
            session.run()
            assert session.runner is not None
            measured.events = len(session.events)
            measured.requests = len(session.requests)
            measured.lowering.append(session.lowering_seconds)
            measured.session.append(session.runner.seconds)
            seconds, ours = _once(session, ready(replay))
            measured.kernel.append(seconds)
            measured.digest = f"{int(ours.stats['digest']):012x}"
            if baseline is not None:
                seconds, theirs = _once(session, baseline)
                measured.c.append(seconds)
                demand_equal(ours, theirs)
    return measured


def _once(session: Session, function: ReplayFunction) -> tuple[float, Runner]:
    """Carry all requests out in one call, on fresh tables; processor seconds and the runner."""
    state = session.capture.state0
    assert state is not None
    tables = fresh_tables(state, session.layout, session.capture)
    runner = Runner(tables, session.requests, strict=session.strict)
    runner.record[0]["stop_at_divergence"] = 0
    handle, end = address(runner.record), len(session.requests)
    start = time.thread_time()
    function(handle, end)
    return time.thread_time() - start, runner


def demand_equal(ours: Runner, theirs: Runner) -> None:
    """Every counter, every prediction and every byte of the machine: addresses left out."""
    pairs: list[tuple[str, Any, Any]] = [("run", ours.record, theirs.record)]
    pairs += [(name, getattr(ours.tables, name), getattr(theirs.tables, name)) for name in TABLES]
    pairs += [(name, ours.arrays[name], theirs.arrays[name]) for name in ours.arrays]
    for name, one, two in pairs:
        for part in one.dtype.names or ():
            if not part.endswith("_addr"):
                assert (one[part] == two[part]).all(), f"C and kernels differ in {name}.{part}"
        if one.dtype.names is None:
            assert (one == two).all(), f"C and kernels differ in {name}"
