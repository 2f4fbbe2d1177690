# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes of memory as a log tells them: from the ACPI table SRAT, from a dump, or a single one."""

from physmem.boot.boot import Boot
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import MemblockDump


def assign_nodes(boot: Boot, log: BootLog) -> None:
    """Give memory (on a PC: reservations, too) their nodes, at the moment when the kernel did.

    Linux: numa_register_memblks(), arch/x86/mm/numa.c, drivers/base/arch_numa.c (6.1)
    """
    memblock = boot.memblock
    for start, end, nid in _blocks(log, memblock.start_of_dram(), memblock.end_of_dram()):
        memblock.set_node(start, end - start, nid)
        if log.e820 or log.srat:
            # a PC looks for nodes that hold reservations: those cannot be unplugged
            memblock.set_node(start, end - start, nid, array=memblock.reserved)


def uses_srat(log: BootLog) -> bool:
    """Whether the firmware's table decides: it is there, and nothing else was chosen."""
    return bool(log.srat) and log.fake_node is None and "numa=" not in log.cmdline


def _blocks(log: BootLog, first: int, end: int) -> list[tuple[int, int, int]]:
    """Blocks (start, end, node), those of a node joined where no other node lies between."""
    if uses_srat(log):
        blocks = [
            (max(entry.base, 0), min(entry.end, end), entry.domain)
            for entry in sorted(log.srat, key=lambda entry: entry.base)
        ]
        joined: list[tuple[int, int, int]] = []
        for start, stop, nid in blocks:
            if start >= stop:
                continue
            if joined and joined[-1][2] == nid:
                joined[-1] = (joined[-1][0], stop, nid)
            else:
                joined.append((start, stop, nid))
        return joined
    if log.fake_node is not None:
        return [(log.fake_node[0], min(log.fake_node[1], end), 0)]
    for event in log.events:
        if isinstance(event, MemblockDump) and any(r.nid is not None for r in event.memory):
            return [(r.start, r.end, r.nid or 0) for r in event.memory]
    return [
        (max(start, first), min(stop, end), nid) for nid, start, stop in log.figures.node_ranges
    ] or [(0, end, 0)]
