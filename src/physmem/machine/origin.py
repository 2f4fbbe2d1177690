# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a machine comes from: what its start-up kept, and where its tables lie.

Linux: memblock.reserved, mm/memblock.c (6.1)
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from physmem.lib.ram import Ram
from physmem.machine.tables import Tables


@dataclass(frozen=True, order=True)
class Reserved:
    """Frames [start_pfn, end_pfn) that the page allocator never got, and who holds them."""

    start_pfn: int
    end_pfn: int
    owner: str


@dataclass(frozen=True, order=True)
class MemMapPiece:
    """Where the records of frames [start_pfn, end_pfn) lie: physical address, in bytes."""

    start_pfn: int
    end_pfn: int
    paddr: int


@dataclass(frozen=True)
class KernelTables:
    """Where the kernel's page table lies.

    Attributes
    ----------
    format : name of its format; `old_bits` : with the software bits of 2.6.24
    root, root_high : physical addresses of the top tables (of the upper half, where it has its own)
    nr_tables : pages that hold tables
    """

    format: str
    root: int
    root_high: int
    nr_tables: int
    old_bits: bool = False


@dataclass(frozen=True)
class Origin:
    """What a start-up left; empty for a machine that was not booted here.

    Attributes
    ----------
    reserved : ranges and owners, ascending
    mem_map : where the records of the frames lie
    page_table : the kernel's page table; None: nobody has made one

    Examples
    --------
    >>> origin = Origin((Reserved(16, 32, "kernel image"),))
    >>> origin.owner(20), origin.owner(32)
    ('kernel image', None)
    >>> Origin.from_dict(origin.to_dict()) == origin
    True
    """

    reserved: tuple[Reserved, ...] = ()
    mem_map: tuple[MemMapPiece, ...] = ()
    page_table: KernelTables | None = None

    def owner(self, pfn: int) -> str | None:
        """Who holds a frame since the start-up, as far as known."""
        at = bisect_right(self.reserved, pfn, key=lambda held: held.start_pfn) - 1
        if at >= 0 and pfn < self.reserved[at].end_pfn:
            return self.reserved[at].owner
        return None

    def to_dict(self) -> dict[str, Any]:
        """Builtins form, for JSON."""
        return {
            "reserved": [[held.start_pfn, held.end_pfn, held.owner] for held in self.reserved],
            "mem_map": [[part.start_pfn, part.end_pfn, part.paddr] for part in self.mem_map],
            "page_table": None if self.page_table is None else asdict(self.page_table),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Origin":
        """Undo `to_dict`.

        Raises
        ------
        ValueError, TypeError, LookupError
            Not such a form.
        """
        reserved = [
            Reserved(int(start), int(end), str(owner)) for start, end, owner in fields["reserved"]
        ]
        mem_map = [
            MemMapPiece(int(start), int(end), int(paddr)) for start, end, paddr in fields["mem_map"]
        ]
        told = fields.get("page_table")
        tables = None
        if told is not None:
            numbers = {name: int(told[name]) for name in ("root", "root_high", "nr_tables")}
            tables = KernelTables(
                format=str(told["format"]), old_bits=bool(told["old_bits"]), **numbers
            )
        return cls(tuple(reserved), tuple(mem_map), tables)


def lay_mem_map(tables: Tables, ram: Ram, pieces: Sequence[MemMapPiece]) -> None:
    """Let the records of the frames lie at the physical addresses that the boot allocator gave.

    The kernel's records are larger than ours (struct page: 32 to 64 bytes, `Page`: 16): ours fill
    the first part of each piece, one behind the other.

    Raises
    ------
    BadRequestError
        Pieces overlap, or lie outside the memory.
    """
    records: Any = tables.mem_map
    for piece in pieces:
        part = records[piece.start_pfn : piece.end_pfn].view(np.uint8).reshape(-1)
        ram.overlay(piece.paddr, part)
