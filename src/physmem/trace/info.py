# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture says besides its events: the machine, the states' places, where it came from."""

import msgspec

FORMAT = 1
"""Format of the captures that this version writes; it reads this one and older ones."""


class ZoneInfo(msgspec.Struct):
    """One zone of one node, populated or not, in the order of /proc/zoneinfo.

    `index` counts all zones of the node from the lowest; `start`, `spanned`, `present`, `managed`
    and `cma` are frames.
    """

    node: int
    index: int
    name: str
    start: int = 0
    spanned: int = 0
    present: int = 0
    managed: int = 0
    cma: int = 0

    @property
    def end(self) -> int:
        """First pfn behind the span of the zone."""
        return self.start + self.spanned


class MachineInfo(msgspec.Struct):
    """The recorded machine.

    Attributes
    ----------
    kernel : str
        Version of the kernel as its recording states it; empty when unknown.
    profile : str
        Rules that come nearest to that kernel: "6.1" or "6.12".
    page_size : int
        Bytes.
    cpu_node : list of int
        Node of each CPU.
    node_distance : list of list of int
        Distance of node i to node j; 10 is local.
    zones : list of ZoneInfo
        Empty when the recording does not tell.
    node_data : list of (int, int)
        First and last byte of each node's descriptor; empty when the boot log does not tell.
    thp : bool
        The per-CPU lists have one for blocks of `pageblock_order`.
    """

    kernel: str = ""
    profile: str = "6.1"
    arch: str = ""
    cmdline: str = ""
    page_size: int = 4096
    nr_cpus: int = 1
    nr_nodes: int = 1
    cpu_node: list[int] = msgspec.field(default_factory=lambda: [0])
    node_distance: list[list[int]] = msgspec.field(default_factory=lambda: [[10]])
    zones: list[ZoneInfo] = []
    node_data: list[tuple[int, int]] = []
    pageblock_order: int = 9
    nr_migratetypes: int = 5
    thp: bool = True


class SourceFile(msgspec.Struct):
    """A file that was read: name, bytes and SHA-256 of what lies on disk."""

    name: str
    size: int
    sha256: str


class Provenance(msgspec.Struct):
    """Where a capture came from."""

    files: list[SourceFile] = []
    importer: str = ""
    date: str = ""


class CaptureInfo(msgspec.Struct):
    """Everything in a capture but events and states.

    Attributes
    ----------
    rows : int
        Events in the file.
    lines : int
        Lines of the trace text.
    state0_row, state1_row : int or None
        Each state is the one right before this row; None: the capture has no such state.
    state0_line, state1_line : int or None
        The same as lines of the text.
    movable0 : list of (int, int)
        Frames (start, count) allocated with __GFP_MOVABLE before state0 and not yet freed.
    counts : dict
        Lines of the trace per known event; in a compact capture more than the rows that are left.
    unknown : dict
        Lines of the trace per event that is not read.
    lost : int
        Events that the recording kernel dropped.
    comms, markers, sites : list of str
        What the columns `comm`, (in MARKER rows) `arg0` and `site` index.
    columns : list of str
        Columns that were kept.
    encoding : dict
        Column -> transform of a compact capture (`physmem.trace.compact`).
    boot_log : bytes
        The boot log that lay beside the trace, packed by zlib: what the machine can be booted from
        again. Empty: there was none.
    """

    format: int = FORMAT
    machine: MachineInfo = msgspec.field(default_factory=MachineInfo)
    rows: int = 0
    lines: int = 0
    state0_row: int | None = None
    state1_row: int | None = None
    state0_line: int | None = None
    state1_line: int | None = None
    movable0: list[tuple[int, int]] = []
    counts: dict[str, int] = {}
    unknown: dict[str, int] = {}
    lost: int = 0
    comms: list[str] = []
    markers: list[str] = []
    sites: list[str] = []
    columns: list[str] = []
    encoding: dict[str, str] = {}
    boot_log: bytes = b""
    provenance: Provenance = msgspec.field(default_factory=Provenance)
