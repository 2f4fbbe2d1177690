# SPDX-License-Identifier: GPL-2.0-or-later
"""What `memblock=debug` tells about a call: one record, one line of the boot log."""

from collections.abc import Callable
from dataclasses import dataclass

from physmem.bootalloc.region import MEMBLOCK_NONE, NUMA_NO_NODE

_RANGE = {
    "memblock_add",
    "memblock_remove",
    "memblock_reserve",
    "memblock_phys_free",
    "memblock_free_late",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemblockCall:
    """One call of memblock: `kind` is the kernel's function name, sizes and addresses in bytes.

    `note` is the text of a line that is no call (a doubled array, a warning); `nid`, `flags`,
    `align`, `min_addr` and `max_addr` only mean something for the kinds that print them. `size` is
    the size asked for, before it is cut off at the end of the address space.

    Examples
    --------
    >>> call = MemblockCall(kind="memblock_reserve", base=0x98000, size=0x7000, caller="here")
    >>> call.line()
    'memblock_reserve: [0x0000000000098000-0x000000000009efff] here'
    """

    kind: str
    base: int = 0
    size: int = 0
    align: int = 0
    nid: int = NUMA_NO_NODE
    flags: int = MEMBLOCK_NONE
    min_addr: int = 0
    max_addr: int = 0
    caller: str = ""
    note: str = ""

    def line(self, phys_addr_bits: int = 64) -> str:
        """The line that the kernel logs, without its time stamp."""
        digits = phys_addr_bits // 4
        if self.note:
            return self.note
        if self.kind in _RANGE or self.kind == "memblock_add_node":
            last = (self.base + self.size - 1) & ((1 << phys_addr_bits) - 1)
            node = f"nid={self.nid} flags={self.flags:x} " if self.kind not in _RANGE else ""
            told = f"[{address(self.base, digits)}-{address(last, digits)}] {node}"
        else:
            node = "" if self.kind == "memblock_phys_alloc_range" else f"nid={self.nid} "
            told = (
                f"{self.size} bytes align={self.align:#x} {node}"
                f"from={address(self.min_addr, digits)} max_addr={address(self.max_addr, digits)} "
            )
        return f"{self.kind}: {told}{self.caller}".rstrip()


Observer = Callable[[MemblockCall], None]
"""Is told of every call, in the order in which the kernel would log them."""


def address(value: int, digits: int) -> str:
    """A physical address as `%pa` prints it: 16 hex digits, or 8 where addresses have 32 bits."""
    return f"0x{value:0{digits}x}"
