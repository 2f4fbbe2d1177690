# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for experiments: booted or plain, with one rule changed."""

from dataclasses import replace
from typing import Any

from physmem.boot.start import boot_hardware, handover_of
from physmem.firmware.hardware import Hardware
from physmem.firmware.size import parse_size
from physmem.lib.errors import BadMachineError
from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.build import plan, setup_sizes
from physmem.machine.machine import Machine
from physmem.machine.present_sizes import watermarks
from physmem.machine.sizing import thp_min_free_kbytes
from physmem.mm.entry import do_setup_reserve
from physmem.mm.features import MANAGED_PAGES
from physmem.mm.gfp import TABLES, GfpTable, parse_gfp
from physmem.mm.mmzone import WMARK_HIGH

HUGE = 9
"""Order of a huge page with 4 KiB pages on x86-64: 2 MiB."""


def booted(
    memory: str | int,
    kernel: str = "6.1",
    *,
    arch: str = "x86_64",
    cpus: int = 1,
    grouping: bool = True,
    movable: int = 0,
) -> Machine:
    """Machine that booted with this memory, perhaps without mobility grouping.

    Parameters
    ----------
    grouping : False: as if the kernel had found too little memory to group pages by mobility
    movable : percent of the memory that goes to ZONE_MOVABLE (boot parameter movablecore=)

    Raises
    ------
    BadMachineError
        No kernel can start on it.

    Examples
    --------
    >>> machine = booted("256MiB", movable=50)
    >>> [zone.name for zone in machine.zones]
    ['DMA', 'DMA32', 'Movable']
    """
    size = parse_size(memory)
    hardware = Hardware.of(memory=size, cpus=cpus, arch=arch)
    cmdline = f"movablecore={size * movable // 100 >> 10}K" if movable else ""
    start = boot_hardware(hardware, kernel=kernel, cmdline=cmdline)
    return Machine.from_boot(
        handover_of(replace(start.memory, grouping=grouping and start.memory.grouping))
    )


def recommended_min_free(machine: Machine) -> int:
    """min_free_kbytes that keeps pageblocks of each type free: what `hugeadm` and khugepaged set.

    Linux: set_recommended_min_free_kbytes(), mm/khugepaged.c (6.1)
    """
    zones = machine.tables.zones
    total = managed(machine)
    free = int((zones["managed_pages"] - zones["watermark"][:, WMARK_HIGH]).clip(0).sum())
    order = int(machine.tables.memory[0]["pageblock_order"])
    return thp_min_free_kbytes(order, len(zones), free, total)


def set_min_free(machine: Machine, kbytes: int) -> Machine:
    """The machine itself after `sysctl vm.min_free_kbytes` (kernels without managed pages only).

    Linux: setup_per_zone_pages_min(), mm/page_alloc.c (2.6.24)

    Raises
    ------
    BadMachineError
        The kernel is a later one.
    """
    zones = machine.tables.zones
    if int(zones[0]["features"]) & MANAGED_PAGES:
        raise BadMachineError(f"Linux {machine.layout.kernel} sets min_free_kbytes at boot here")
    lowmem = int(zones["present_pages"].sum())
    for number, zone in enumerate(zones):
        zone["watermark"][:] = watermarks(kbytes, int(zone["present_pages"]), lowmem)
        ready(do_setup_reserve)(address(machine.tables.memory), number)
    return machine


def built(
    memory: str | int,
    kernel: str = "6.1",
    *,
    pageblock_order: int = HUGE,
    min_free_kbytes: int | None = None,
) -> Machine:
    """Machine with all memory free and another pageblock order.

    Raises
    ------
    BadMachineError
        No such machine can exist.

    Examples
    --------
    >>> machine = built("64MiB", pageblock_order=7)
    >>> len(machine.snapshot().zones[1].pageblocks)
    96
    """
    state, layout = plan(memory, "x86_64", 1, 1, kernel)
    if not 1 <= pageblock_order <= layout.max_order:
        raise BadMachineError(
            f"pageblock order {pageblock_order}: 1 to {layout.max_order} are possible here"
        )
    state.pageblock_order = pageblock_order
    for zone in state.zones:
        blocks = -(-zone.end >> pageblock_order) - (zone.start >> pageblock_order)
        zone.pageblocks = "M" * blocks
    # The per-CPU lists of huge pages are for blocks of the CPU's huge page, whatever the order.
    layout = replace(layout, thp=layout.thp and pageblock_order == HUGE)
    setup_sizes(state, layout, min_free_kbytes)
    return Machine.from_state(state, layout)


def with_features(machine: Machine, *, clear: int = 0) -> Machine:
    """The machine itself, without some rules of its kernel (`physmem.mm.features`)."""
    for table in (machine.tables.zones, machine.tables.memory):
        table["features"] &= ~clear
    return machine


def flags(machine: Machine, text: str) -> int:
    """Bits of request flags, as kernels know them."""
    table: GfpTable = TABLES[machine.layout.kernel]
    return table.internal(parse_gfp(text, table))


def managed(machine: Machine) -> int:
    """Frames that the page allocator of a machine manages."""
    return int(machine.tables.zones["managed_pages"].sum())


def provenance(*machines: Machine) -> dict[str, Any]:
    """What a result was computed from: the program's version and the machines' sizes."""
    from physmem.lib.version import __version__

    first = machines[0]
    return {
        "physmem": __version__,
        "kernel": first.layout.kernel,
        "zones": ", ".join(
            f"{zone.name} {zone.managed_pages}"
            for machine in machines[:1]
            for zone in machine.zones
        ),
        "cpus": first.layout.nr_cpus,
        "pageblock_order": int(first.tables.memory[0]["pageblock_order"]),
        "random": "sfc32",
    }
