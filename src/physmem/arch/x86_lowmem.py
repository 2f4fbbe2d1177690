# SPDX-License-Identifier: GPL-2.0-or-later
"""Low and high memory of x86-32: what fits into the direct map beside the vmalloc area.

Linux: find_low_pfn_range(), arch/x86/mm/init_32.c (6.1), arch/x86/kernel/setup_32.c (2.6.24)
"""

from dataclasses import dataclass

from physmem.arch.descriptor import Arch, Generation, Limits
from physmem.firmware.cmdline import CommandLine

_VMALLOC_OFFSET = 8 << 20
_MAX_NONPAE_PFN = 1 << 20
_LEAST_LOWMEM = (64 << 20) >> 12


@dataclass(frozen=True, slots=True)
class Messages:
    """What a kernel prints about a bad highmem=; all figures in MB."""

    too_big: str
    lowmem_too_small: str
    too_small: str
    trimmed: tuple[str, ...]


_MESSAGES = {
    Generation.BOOTMEM: Messages(
        "highmem size specified ({0}MB) is bigger than pages available ({1}MB)!.",
        "highmem size {0}MB results in smaller than 64MB lowmem, ignoring it.",
        "only {0}MB highmem pages available, ignoring highmem size of {1}MB.",
        ("Warning only 4GB will be used.", "Use a HIGHMEM64G enabled kernel."),
    ),
    Generation.MEMBLOCK: Messages(
        "highmem size ({0}MB) is bigger than pages available ({1}MB)!",
        "highmem size ({0}MB) results in <64MB lowmem, ignoring it!",
        "only {0}MB highmem pages available, ignoring highmem size of {1}MB!",
        ("Warning: only 4GB will be used. Support for for CONFIG_HIGHMEM64G enabled kernel!",),
    ),
}


def maxmem(arch: Arch, cmdline: CommandLine | None = None) -> int:
    """Most bytes of low memory (MAXMEM).

    Linux: MAXMEM, arch/x86/include/asm/pgtable_32_areas.h (6.1), asm-x86/page_32.h (2.6.24)

    Examples
    --------
    >>> from physmem.arch.registry import arch_for
    >>> maxmem(arch_for("i386", Generation.BOOTMEM)) >> 20, hex(maxmem(arch_for("i386")))
    (896, '0x36bfe000')
    >>> maxmem(arch_for("i386"), CommandLine.parse("vmalloc=256M")) >> 20
    739
    """
    options = cmdline or CommandLine()
    top = options.reservetop or 0
    layout = arch.layout
    if arch.generation is Generation.BOOTMEM:
        reserve = arch.vmalloc_reserve if options.vmalloc is None else options.vmalloc
        return (1 << 32) - layout.page_offset - reserve - top
    # the guard hole before the vmalloc area is not part of what the user asks for
    asked = options.vmalloc
    reserve = arch.vmalloc_reserve if asked is None else asked + _VMALLOC_OFFSET
    pmd = 1 << arch.huge_shift
    return layout.vmalloc_end - -(-top // pmd) * pmd - layout.page_offset - reserve


def find_low_pfn_range(
    arch: Arch, max_pfn: int, cmdline: CommandLine | None = None, log: list[str] | None = None
) -> Limits:
    """Split memory into low and high.

    Parameters
    ----------
    max_pfn : first frame number behind all memory
    log : messages go there

    Examples
    --------
    >>> from physmem.arch.registry import arch_for
    >>> limits = find_low_pfn_range(arch_for("i386", Generation.BOOTMEM), 0x3FFF0)
    >>> limits.max_low_pfn, limits.nr_high, highmem_lines(limits)
    (229376, 32752, ['127MB HIGHMEM available.', '896MB LOWMEM available.'])
    """
    options = cmdline or CommandLine()
    told: list[str] = [] if log is None else log
    messages = _MESSAGES[arch.generation]
    maxmem_pfn = maxmem(arch, options) >> 12
    wanted = None if options.highmem is None else options.highmem >> 12
    if max_pfn <= maxmem_pfn:
        max_low = max_pfn
        high = wanted or 0
        if high >= max_pfn:
            told.append(messages.too_big.format(_mb(high), _mb(max_pfn)))
            high = 0
        if high and max_low - high < _LEAST_LOWMEM:
            told.append(messages.lowmem_too_small.format(_mb(high)))
            high = 0
        max_low -= high
    else:
        max_low = maxmem_pfn
        high = max_pfn - maxmem_pfn if wanted is None else wanted
        max_pfn = min(max_pfn, maxmem_pfn + high)
        if high + maxmem_pfn > max_pfn:
            told.append(messages.too_small.format(_mb(max_pfn - maxmem_pfn), _mb(high)))
        if arch.pa_bits == 32 and max_pfn > _MAX_NONPAE_PFN:
            max_pfn = _MAX_NONPAE_PFN
            told.extend(messages.trimmed)
    return Limits(
        max_low_pfn=max_low,
        max_pfn=max_pfn,
        highstart_pfn=min(max_low, max_pfn),
        highend_pfn=max_pfn,
        dram_end=max_pfn << 12,
    )


def highmem_lines(limits: Limits) -> list[str]:
    """How much of each there is, as printed later.

    Linux: initmem_init(), arch/x86/mm/init_32.c (6.1); setup_memory(),
    arch/x86/kernel/setup_32.c (2.6.24)
    """
    return [
        f"{_mb(limits.nr_high)}MB HIGHMEM available.",
        f"{_mb(limits.max_low_pfn)}MB LOWMEM available.",
    ]


def vmalloc_start(arch: Arch, max_low_pfn: int) -> int:
    """Where the vmalloc area starts behind low memory.

    Linux: VMALLOC_START, arch/x86/include/asm/pgtable_32_areas.h (6.1), pgtable_32.h (2.6.24)

    Examples
    --------
    >>> from physmem.arch.registry import arch_for
    >>> hex(vmalloc_start(arch_for("i386", Generation.BOOTMEM), 229376))
    '0xf8800000'
    """
    high_memory = arch.layout.page_offset + (max_low_pfn << 12)
    if arch.generation is Generation.BOOTMEM:
        return high_memory + 2 * _VMALLOC_OFFSET - 1 & -_VMALLOC_OFFSET
    return high_memory + _VMALLOC_OFFSET


def _mb(pages: int) -> int:
    return pages >> 8
