# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock: the boot allocator of today's kernels, two arrays of address ranges.

Linux: mm/memblock.c (6.1, 6.12)
"""

from physmem.bootalloc.handover import MemblockHandOver


class Memblock(MemblockHandOver):
    """The memory that there is and the memory that is taken, in bytes of physical address.

    Parameters
    ----------
    config : MemblockConfig, optional
        Page size, capacities, switches; x86-64 without options unless told.
    ram : Ram, optional
        Is cleared by the allocators that return cleared memory.
    on_call : callable, optional
        Gets a `MemblockCall` for everything that `memblock=debug` logs.

    Examples
    --------
    >>> from physmem.bootalloc.memblock import Memblock
    >>> log = []
    >>> memblock = Memblock(on_call=lambda call: log.append(call.line()))
    >>> memblock.add(0x100000, 0x3FEE0000)
    >>> memblock.reserve(0x1000000, 0x2C00000, caller="setup_arch")
    >>> hex(memblock.alloc(0x2A80, 64, caller="start_kernel"))
    '0x3ffdd580'
    >>> print(log[-1])
    memblock_reserve: [0x000000003ffdd580-0x000000003ffdffff] memblock_alloc_range_nid
    """
