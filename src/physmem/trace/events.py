# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded events as columns: one row per understood line of a trace, in the order of the file.

Linux: include/trace/events/kmem.h (6.1); the probes are described with `Kind`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

IRQS_OFF = 1
"""Bit of `Events.context`: interrupts or bottom halves were off (flags column 'd', 'D', 'b')."""
NEED_RESCHED = 2
"""Bit of `Events.context`: the task was to be rescheduled (any letter in the second column)."""
HARDIRQ = 4
"""Bit of `Events.context`: in a hard or non-maskable interrupt ('h', 'H', 'z', 'Z')."""
SOFTIRQ = 8
"""Bit of `Events.context`: in a soft interrupt ('s', 'H')."""
NO_PREEMPT_COUNT = 255
"""Value of `Events.preempt` in every row of a kernel that does not count preemption depth."""
NO_PFN = -1
"""Value of `Events.pfn` in a row without a frame: a failed allocation, a marker, a bulk probe."""


class Kind(IntEnum):
    """What a row records; the comment names the trace event (BULK to ISOLATE_FREE are probes)."""

    ALLOC = 1  # mm_page_alloc
    FREE = 2  # mm_page_free
    FREE_BATCHED = 3  # mm_page_free_batched
    ZONE_LOCKED = 4  # mm_page_alloc_zone_locked
    PCPU_DRAIN = 5  # mm_page_pcpu_drain
    EXTFRAG = 6  # mm_page_alloc_extfrag
    BULK = 7  # bulk: entry of __alloc_pages_bulk()
    BULK_RET = 8  # bulk_ret: return of __alloc_pages_bulk()
    DRAIN_PAGES_ZONE = 9  # drain_pages_zone: all per-CPU lists of one zone and CPU
    DRAIN_ZONE_PAGES = 10  # drain_zone_pages: one batch of them
    ISOLATE_FREE = 11  # isolate_free: __isolate_free_page() is about to take a free block
    MARKER = 12  # tracing_mark_write: text that user space wrote
    KMALLOC = 13  # kmalloc
    KFREE = 14  # kfree
    CACHE_ALLOC = 15  # kmem_cache_alloc
    CACHE_FREE = 16  # kmem_cache_free


EVENT_NAMES: dict[Kind, str] = {
    Kind.ALLOC: "mm_page_alloc",
    Kind.FREE: "mm_page_free",
    Kind.FREE_BATCHED: "mm_page_free_batched",
    Kind.ZONE_LOCKED: "mm_page_alloc_zone_locked",
    Kind.PCPU_DRAIN: "mm_page_pcpu_drain",
    Kind.EXTFRAG: "mm_page_alloc_extfrag",
    Kind.BULK: "bulk",
    Kind.BULK_RET: "bulk_ret",
    Kind.DRAIN_PAGES_ZONE: "drain_pages_zone",
    Kind.DRAIN_ZONE_PAGES: "drain_zone_pages",
    Kind.ISOLATE_FREE: "isolate_free",
    Kind.MARKER: "tracing_mark_write",
    Kind.KMALLOC: "kmalloc",
    Kind.KFREE: "kfree",
    Kind.CACHE_ALLOC: "kmem_cache_alloc",
    Kind.CACHE_FREE: "kmem_cache_free",
}
"""Name of the trace event or probe of each kind, as ftrace prints it."""

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in (
        ("line", "i8"),
        ("ts", "i8"),
        ("cpu", "u2"),
        ("pid", "i4"),
        ("comm", "u2"),
        ("context", "u1"),
        ("preempt", "u1"),
        ("kind", "u1"),
        ("pfn", "i8"),
        ("order", "u1"),
        ("migratetype", "i1"),
        ("gfp", "u4"),
        ("arg0", "i4"),
        ("arg1", "i4"),
        ("site", "u2"),
    )
}
"""Column name -> dtype, in the order of the columns."""


@dataclass(frozen=True, eq=False)
class Events:
    """Columns of equal length; row i of all of them is one line of the trace.

    Columns
    -------
    line : int64
        1-based line of the text.
    ts : int64
        Trace clock in ns.
    cpu : uint16
        CPU that printed the event.
    pid : int32
        Task; 0 is the idle task of any CPU.
    comm : uint16
        Name of the task: index into `comms`.
    context : uint8
        IRQS_OFF | NEED_RESCHED | HARDIRQ | SOFTIRQ.
    preempt : uint8
        Preemption depth, or NO_PREEMPT_COUNT.
    kind : uint8
        A `Kind`.
    pfn : int64
        Frame, or NO_PFN. DRAIN_*: address of the zone. KMALLOC to CACHE_FREE: the pointer.
    order : uint8
        Order; EXTFRAG: the order that was asked for.
    migratetype : int8
        Migratetype; EXTFRAG: the one that was asked for. -1 where the event has none.
    gfp : uint32
        Bits of gfp (`physmem.mm.gfp`); ALLOC, BULK, KMALLOC and CACHE_ALLOC only.
    arg0 : int32
        EXTFRAG: fallback order. ZONE_LOCKED: percpu_refill. BULK: node.
        DRAIN_PAGES_ZONE: CPU whose lists are drained. MARKER: index into `markers`.
        KMALLOC, CACHE_ALLOC: bytes asked for.
    arg1 : int32
        EXTFRAG: fallback migratetype | change_ownership << 8 (the type's low byte). BULK: pages
        asked for. BULK_RET: pages on the caller's array afterwards. KMALLOC, CACHE_ALLOC: bytes
        obtained.
    site : uint16
        KMALLOC, KFREE, CACHE_ALLOC: caller, CACHE_FREE: name of the cache; index into `sites`.

    A column that was not read (`read_capture(..., columns=...)`) raises AttributeError.

    Examples
    --------
    >>> events = Events.from_columns({"kind": [1, 2], "pfn": [7, 7]}, comms=["init"])
    >>> len(events), events[1:].pfn.tolist(), events[:1].count(Kind.ALLOC)
    (2, [7], 1)
    """

    line: NDArray[np.int64]
    ts: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    pid: NDArray[np.int32]
    comm: NDArray[np.uint16]
    context: NDArray[np.uint8]
    preempt: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    pfn: NDArray[np.int64]
    order: NDArray[np.uint8]
    migratetype: NDArray[np.int8]
    gfp: NDArray[np.uint32]
    arg0: NDArray[np.int32]
    arg1: NDArray[np.int32]
    site: NDArray[np.uint16]
    comms: list[str] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        comms: Iterable[str] = (),
        markers: Iterable[str] = (),
        sites: Iterable[str] = (),
    ) -> "Events":
        """Make events of some or all columns; each is converted to its dtype without copying.

        Raises
        ------
        ValueError
            An unknown column, or columns of different lengths.
        """
        made = object.__new__(cls)
        lengths = set()
        for name, values in columns.items():
            if name not in DTYPES:
                raise ValueError(f"{name}: no column of this name; there are {', '.join(DTYPES)}")
            column = np.ascontiguousarray(values, dtype=DTYPES[name])
            lengths.add(len(column))
            object.__setattr__(made, name, column)
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        object.__setattr__(made, "comms", list(comms))
        object.__setattr__(made, "markers", list(markers))
        object.__setattr__(made, "sites", list(sites))
        return made

    @classmethod
    def empty(cls) -> "Events":
        """Make events without rows."""
        return cls.from_columns({name: np.empty(0, dtype) for name, dtype in DTYPES.items()})

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say which column was not read."""
            if name in DTYPES:
                raise AttributeError(f"column {name!r} was not read: name it in columns=")
            raise AttributeError(name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are here."""
        return tuple(name for name in DTYPES if name in self.__dict__)

    def __len__(self) -> int:
        for name in self.columns:
            return len(self.__dict__[name])
        return 0

    def __getitem__(self, rows: slice) -> "Events":
        """Rows of a slice, as views."""
        part = {name: self.__dict__[name][rows] for name in self.columns}
        return Events.from_columns(part, self.comms, self.markers, self.sites)

    def of_pages(self) -> "Events":
        """Rows of the page allocator and markers: all but those of objects."""
        objects = self.kind >= Kind.KMALLOC
        if not objects.any():
            return self
        part = {name: self.__dict__[name][~objects] for name in self.columns}
        return Events.from_columns(part, self.comms, self.markers, self.sites)

    def count(self, kind: Kind) -> int:
        """Return the number of rows of one kind."""
        return int(np.count_nonzero(self.kind == kind))

    def counts(self) -> dict[str, int]:
        """Rows per event name; names without a row are left out."""
        per_kind = np.bincount(self.kind, minlength=len(Kind) + 1)
        return {EVENT_NAMES[kind]: int(per_kind[kind]) for kind in Kind if per_kind[kind]}

    def to_arrow(self) -> "pa.Table":
        """Arrow table of the columns; `comm` becomes a dictionary of names.

        Names that no row has stay in the dictionary, markers go to the schema's metadata, so that
        `from_arrow` gives the same events again.
        """
        import msgspec
        import pyarrow as pa

        arrays = [pa.array(self.__dict__[name]) for name in self.columns]
        names = list(self.columns)
        if "comm" in names and self.comms:
            at = names.index("comm")
            arrays[at] = pa.DictionaryArray.from_arrays(arrays[at], pa.array(self.comms))
        texts = {"markers": msgspec.json.encode(self.markers)}
        if self.sites:
            texts["sites"] = msgspec.json.encode(self.sites)
        return pa.table(arrays, names).replace_schema_metadata(texts)

    @classmethod
    def from_arrow(cls, table: "pa.Table") -> "Events":
        """Make events of a table that `to_arrow` made (slices and concatenations of it too)."""
        import msgspec
        import pyarrow as pa

        table = table.unify_dictionaries().combine_chunks()
        columns: dict[str, Any] = {}
        comms: list[str] = []
        for name in DTYPES:
            if name not in table.column_names:
                continue
            column = table[name].combine_chunks()
            if isinstance(column, pa.ChunkedArray):  # what no rows combine to
                column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            if pa.types.is_dictionary(column.type):
                comms = column.dictionary.to_pylist()
                column = column.indices
            columns[name] = column.to_numpy(zero_copy_only=False)
        metadata = table.schema.metadata or {}
        markers = msgspec.json.decode(metadata.get(b"markers", b"[]"), type=list[str])
        sites = msgspec.json.decode(metadata.get(b"sites", b"[]"), type=list[str])
        return cls.from_columns(columns, comms, markers, sites)
