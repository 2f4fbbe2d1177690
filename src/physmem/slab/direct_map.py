# SPDX-License-Identifier: GPL-2.0-or-later
"""What an architecture decides: where the kernel sees physical memory, words, alignments.

Linux: PAGE_OFFSET, arch/*/include/asm/page*.h (6.1); addresses are those of a kernel without KASLR
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DirectMap:
    """What an architecture decides about objects.

    Attributes
    ----------
    page_offset : address of physical address 0 in the direct map
    word : bytes of a pointer
    dma_minalign : alignment of what devices may read and write, bytes
    """

    page_offset: int
    word: int
    dma_minalign: int = 8


DIRECT_MAPS = {
    "x86_64": DirectMap(0xFFFF888000000000, 8),
    "i386": DirectMap(0xC0000000, 4),
    "arm64": DirectMap(0xFFFF000000000000 - 0x40000000, 8, 128),  # PAGE_OFFSET: start of RAM
    "riscv64": DirectMap(0xFFFFAF8000000000 - 0x80000000, 8),  # the same
}


def direct_map(zone_names: tuple[str, ...]) -> DirectMap:
    """Direct map of the architecture with these zones.

    Examples
    --------
    >>> hex(direct_map(("DMA", "Normal", "HighMem", "Movable")).page_offset)
    '0xc0000000'
    """
    if "HighMem" in zone_names:
        return DIRECT_MAPS["i386"]
    if "DMA" not in zone_names:
        return DIRECT_MAPS["riscv64"]
    return DIRECT_MAPS["x86_64" if "Device" in zone_names else "arm64"]
