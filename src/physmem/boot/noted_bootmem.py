# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem that remembers who took what: the kernel's keeps bits only."""

from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.bootalloc.bootmem_node import BootmemNode
from physmem.bootalloc.ram import ViewRam

FIRMWARE = "firmware and loader"


class NotedBootmem(Bootmem):
    """bootmem with notes.

    Attributes
    ----------
    purpose : what the next calls are for, in words
    notes : (start, end, purpose) in bytes of each range that was reserved or allocated, in order

    Examples
    --------
    >>> bootmem = NotedBootmem()
    >>> bootmem.init_bootmem(map_pfn=16, pages=64)
    8
    >>> bootmem.free(0, 64 << 12)
    >>> bootmem.purpose = "hash tables"
    >>> hex(bootmem.alloc_low(100)), bootmem.notes
    ('0x0', [(0, 100, 'hash tables')])
    """

    def __init__(self, config: BootmemConfig | None = None, *, ram: ViewRam | None = None) -> None:
        super().__init__(config, ram=ram)
        self.purpose = FIRMWARE
        self.notes: list[tuple[int, int, str]] = []

    def reserve(self, addr: int, size: int, nid: int = 0, *, exclusive: bool = False) -> None:
        """Take all pages that [addr, addr + size) touches, and note it."""
        super().reserve(addr, size, nid, exclusive=exclusive)
        self.notes.append((addr, addr + size, self.purpose))

    def _on(self, node: BootmemNode, size: int, align: int, goal: int, limit: int) -> int | None:
        found = super()._on(node, size, align, goal, limit)
        if found is not None:
            self.notes.append((found, found + size, self.purpose))
        return found
