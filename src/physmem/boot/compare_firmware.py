# SPDX-License-Identifier: GPL-2.0-or-later
"""What a PC's firmware calls memory, next to what memblock was told.

The map and the command line are in the log; what memblock made of them is in its first dump. The
start-up itself goes on from the dump: here the two are compared.

Linux: e820__memory_setup(), e820__memblock_setup(), arch/x86/kernel/e820.c (6.1)
"""

from physmem.arch.registry import arch_for
from physmem.arch.x86_early import memblock_setup
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import MemblockDump
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820_table import E820Table
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import PhysmemError

Spans = list[list[int]]


def firmware_memory(log: BootLog, hardware: Hardware) -> tuple[Spans | None, Spans] | None:
    """Memory by the firmware's map and the command line, and memory in the first dump.

    Returns
    -------
    tuple or None
        Both as [first byte, end], ascending; the first is None when no kernel could use such a map.
        None: the log has lost one of them, or no kernel with memblock=debug wrote it.
    """
    dump = next((event for event in log.events if isinstance(event, MemblockDump)), None)
    if log.headless or not log.e820 or dump is None:
        return None
    told = [[region.start, region.end] for region in dump.memory]
    return _memory(log, hardware), _joined(told)


def _memory(log: BootLog, hardware: Hardware) -> Spans | None:
    memblock = Memblock()
    try:
        table = E820Table()
        table.memory_setup(log.e820)
        table.apply(CommandLine.parse(log.cmdline, strict=False))
        if hardware.image is not None:
            table.add_kernel_range(hardware.image.start, hardware.image.end)
        table.trim_bios_range()
        memblock_setup(memblock, table, arch_for(log.arch).phys_addr_bits)
    except PhysmemError:
        return None
    return _joined([[region.base, region.end] for region in memblock.memory])


def _joined(spans: Spans) -> Spans:
    """Touching spans as one: nodes do not matter here."""
    joined: Spans = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined
