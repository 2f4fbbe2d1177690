# SPDX-License-Identifier: GPL-2.0-or-later
"""What a boot log tells about memory, in the order in which it happened.

Addresses are physical bytes, ranges half open; `line` is the number of the log's line.
"""

from dataclasses import dataclass
from enum import Enum


class MemblockOp(Enum):
    """Calls that change memblock directly."""

    ADD = "memblock_add"
    REMOVE = "memblock_remove"
    RESERVE = "memblock_reserve"
    FREE = "memblock_phys_free"


@dataclass(frozen=True, slots=True)
class MemblockCall:
    """A range added, removed, reserved or freed by name.

    Attributes
    ----------
    caller : function that did it, with its offset, as the log prints it
    nid : node of `memblock_add_node`; None: not told
    """

    op: MemblockOp
    start: int
    end: int
    caller: str
    line: int
    nid: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class AllocCall:
    """An allocation, and the range that it was given.

    Attributes
    ----------
    function : name of the memblock function
    size, align : bytes
    nid : node asked for; -1: any
    min_addr, max_addr : limits in bytes; max_addr 0: what is mapped ("accessible")
    start, end : what the kernel got; None: nothing
    inferred : the log shows only the range; size, alignment and node are those of its purpose
    """

    function: str
    size: int
    align: int
    nid: int
    min_addr: int
    max_addr: int
    caller: str
    line: int
    start: int | None = None
    end: int | None = None
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class DumpRegion:
    """A region of a memblock dump; `nid` None: the dump names no node."""

    start: int
    end: int
    flags: int
    nid: int | None


@dataclass(frozen=True, slots=True)
class MemblockDump:
    """The block "MEMBLOCK configuration": both arrays at one moment.

    Linux: memblock_dump_all(), mm/memblock.c (6.1)
    """

    memory: tuple[DumpRegion, ...]
    reserved: tuple[DumpRegion, ...]
    line: int


@dataclass(frozen=True, slots=True)
class NodeData:
    """Where a node's descriptor lies: a line "NODE_DATA(n) allocated"."""

    nid: int
    start: int
    end: int
    line: int


@dataclass(frozen=True, slots=True)
class CmaReserved:
    """An area that becomes movable memory later: a line "cma: Reserved"."""

    base: int
    size: int
    line: int


class Step(Enum):
    """Moments of the start-up that the log shows."""

    NUMA = "the nodes of memory are known"
    ZONES = "zones and nodes are laid out"
    HANDOVER = "the page allocator takes over"
    MEMORY_LINE = "the line about available memory"
    INITCALLS = "the initcalls begin"


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the start-up, seen at `line`."""

    step: Step
    line: int


@dataclass(frozen=True, slots=True)
class Freed:
    """Memory of the start-up that the running kernel gets: a line "Freeing ... memory: nK"."""

    what: str
    kib: int
    line: int


@dataclass(frozen=True, slots=True)
class RamdiskMoved:
    """Where the kernel has moved the initial RAM disk to: a line "Allocated new RAMDISK"."""

    start: int
    end: int
    line: int


Event = (
    MemblockCall | AllocCall | MemblockDump | NodeData | CmaReserved | Moment | Freed | RamdiskMoved
)
