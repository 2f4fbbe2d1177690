# SPDX-License-Identifier: GPL-2.0-or-later
"""The block "MEMBLOCK configuration" that `memblock=debug` prints: both arrays at one moment.

Linux: memblock_dump_all(), memblock_dump(), mm/memblock.c (6.1)
"""

from collections.abc import Iterator

from physmem.bootalloc.call import address
from physmem.bootalloc.memblock_core import MemblockCore
from physmem.bootalloc.region import MAX_NUMNODES, RegionArray


def memblock_dump_lines(memblock: MemblockCore, phys_addr_bits: int = 64) -> list[str]:
    r"""Lines of the dump.

    Parameters
    ----------
    phys_addr_bits : bits of a physical address in the kernel, 32 or 64

    Examples
    --------
    >>> from physmem.bootalloc.memblock import Memblock
    >>> memblock = Memblock()
    >>> memblock.add(0x100000, 0x100000)
    >>> print("\n".join(memblock_dump_lines(memblock, 32)).expandtabs(1))
    MEMBLOCK configuration:
     memory size = 0x00100000 reserved size = 0x00000000
     memory.cnt  = 0x1
     memory[0x0] [0x00100000-0x001fffff], 0x00100000 bytes flags: 0x0
     reserved.cnt  = 0x1
     reserved[0x0] [0x00000000-0xffffffff], 0x00000000 bytes flags: 0x0
    """
    digits = phys_addr_bits // 4
    memory, reserved = memblock.memory, memblock.reserved
    sizes = [address(array.total_size, digits) for array in (memory, reserved)]
    lines = [
        "MEMBLOCK configuration:",
        f" memory size = {sizes[0]} reserved size = {sizes[1]}",
    ]
    for array in (memory, reserved):
        lines += _array_lines(array, digits, numa=memblock.config.numa)
    return lines


def _array_lines(array: RegionArray, digits: int, *, numa: bool) -> Iterator[str]:
    yield f" {array.name}.cnt  = {array.cnt:#x}"
    last = (1 << 4 * digits) - 1
    for number, region in enumerate(array.regions):
        # an empty array has a region without size, whose end has wrapped around
        span = f"[{address(region.base, digits)}-{address(region.end - 1 & last, digits)}]"
        node = f" on node {region.nid}" if numa and region.nid != MAX_NUMNODES else ""
        size = address(region.size, digits)
        yield f" {array.name}[{number:#x}]\t{span}, {size} bytes{node} flags: {region.flags:#x}"
