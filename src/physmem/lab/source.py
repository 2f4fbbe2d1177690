# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command names as a recording: a capture, or the folder of a recording."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from physmem.boot.booted import BootedMemory
from physmem.boot.start import handover_of
from physmem.lab.described import Described
from physmem.lab.settings import Settings
from physmem.lab.workload import Workload, workload_columns, workload_of
from physmem.machine.machine import Machine
from physmem.mm.mmzone import PG_IN_USE
from physmem.trace.capture import Capture, read_capture

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Source:
    """A recording and what is made from it, each once.

    Attributes
    ----------
    name : as it was named
    digest : SHA-256 of the capture's bytes; of a folder: of its files' digests
    """

    name: str
    digest: str
    capture: Capture

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: Progress | None = None) -> "Source":
        """Read a capture, or import the folder of a recording for this once.

        Raises
        ------
        BadCaptureError, BadInputError, BadTraceError, BadStateError
            As `physmem.trace.capture.read_capture` and an import do.
        """
        name = os.fspath(path)
        if not Path(path).is_dir():
            capture = read_capture(path, columns=workload_columns)
            with Path(path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(name, digest, capture)
        from physmem.trace.recording import import_recording

        with tempfile.TemporaryDirectory(prefix="physmem.") as folder:
            file_name = Path(folder) / "recording.physmem"
            import_recording(path, file_name, progress)
            capture = read_capture(file_name, columns=workload_columns)
        files = sorted((file.name, file.sha256) for file in capture.info.provenance.files)
        return cls(name, hashlib.sha256(repr(files).encode()).hexdigest(), capture)

    @cached_property
    def described(self) -> Described:
        """The recorded machine."""
        return Described.of(self.capture.info)

    @cached_property
    def booted(self) -> BootedMemory:
        """The recorded machine, booted again."""
        return self.described.boot(Settings())[0]

    @cached_property
    def reserved(self) -> NDArray[np.uint8]:
        """(max_pfn,) uint8, 1 for frames that its complete boot keeps."""
        machine = Machine.from_boot(handover_of(self.booted))
        frames = int(machine.tables.memory[0]["max_pfn"])
        return (machine.tables.mem_map["flags"][:frames] & PG_IN_USE).astype(np.uint8)

    @cached_property
    def workload(self) -> Workload:
        """What was asked of it."""
        return workload_of(self.capture, self.booted, self.reserved)
