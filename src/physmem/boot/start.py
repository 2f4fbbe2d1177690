# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a machine: the one call for Python, and its parts for the command line.

Linux: start_kernel(), init/main.c (2.6.24, 6.1, 6.12)
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physmem.boot.booted import HEAD, BlockTypes, BootedMemory, BootedZone
from physmem.boot.kernel_map import enter_kernel_map, vmalloc_tables
from physmem.boot.mem_map import mem_map_pieces
from physmem.firmware.hardware import Hardware
from physmem.lib.errors import BadMachineError
from physmem.lib.ram import Ram
from physmem.machine.handover import Handover
from physmem.machine.layout import Layout
from physmem.machine.machine import Machine
from physmem.machine.origin import Reserved
from physmem.machine.profiles import feature_bits
from physmem.mm.entry import do_free_boot_pages, do_setup_reserve
from physmem.mm.free_core import do_free_core, do_free_reserved
from physmem.mm.lists import init_lists, mark_rest_in_use, read_list
from physmem.mm.mmzone import MIGRATE_TYPES
from physmem.mm.state import (
    BLOCK_LETTERS,
    BLOCK_LETTERS_CMA,
    State,
    ZoneState,
    block_letters,
)

if TYPE_CHECKING:
    from physmem.boot.compare_log import Comparison

BOOT_KERNELS: tuple[Callable[..., Any], ...] = (
    *(init_lists, do_free_core, mark_rest_in_use, do_free_reserved, read_list),
    *(do_free_boot_pages, do_setup_reserve),
)
"""Kernels that a boot runs: to be compiled before."""
_FIELDS = (
    *("arch", "kernel", "cmdline", "page_shift", "pageblock_order", "grouping", "total_pages"),
    *("policy_zone", "cpu_node", "totalram_pages", "min_free_kbytes"),
)
_ZONE_FIELDS = (
    *("node", "name", "start_pfn", "spanned_pages", "present_pages", "managed_pages"),
    *("cma_pages", "watermark", "lowmem_reserve", "pcp_batch", "pcp_high", "pcp_high_max"),
)


@dataclass(frozen=True, eq=False)
class Booted:
    """A finished start-up: its log, its stages, and the machine that it leaves.

    Attributes
    ----------
    memory : all that the kernel found out and decided
    hardware : the machine that it started on; None: a log's
    ram : bytes that the start-up wrote to
    """

    memory: BootedMemory
    hardware: Hardware | None = None
    ram: Ram | None = None

    @property
    def log(self) -> tuple[str, ...]:
        """Lines that the kernel would print."""
        return self.memory.log

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, in words."""
        return self.memory.assumptions

    def machine(self) -> Machine:
        """The running machine; made once."""
        return self._machine

    @cached_property
    def _machine(self) -> Machine:
        return Machine.from_boot(handover_of(self.memory, self.ram))

    def to_dict(self, comparison: "Comparison | None" = None) -> dict[str, Any]:
        """Builtins form, for JSON: zones, stages, log, and the comparison with a real log."""
        memory, machine = self.memory, self.machine()
        result: dict[str, Any] = {name: getattr(memory, name) for name in _FIELDS}
        result["memory"] = asdict(memory.memory)
        result["zones"] = [_zone_dict(zone) for zone in memory.zones]
        result["fallback"] = {str(nid): list(order) for nid, order in memory.fallback.items()}
        result["free_pages"] = machine.nr_free_pages
        result["reserved"] = [
            {"start": held.start, "end": held.end, "owner": held.owner} for held in memory.reserved
        ]
        result["stages"] = [
            {
                "name": stage.name,
                "sentence": stage.sentence,
                "taken_frames": stage.frames(memory.page_shift),
                "given_frames": stage.given_pages,
                "ranges": [list(span) for span in stage.ranges],
            }
            for stage in memory.stages
        ]
        result["assumptions"] = list(memory.assumptions)
        result["log"] = list(memory.log)
        if comparison is not None:
            result |= comparison.to_dict()
        return result


def _zone_dict(zone: BootedZone) -> dict[str, Any]:
    return {name: getattr(zone, name) for name in _ZONE_FIELDS}


def boot(  # noqa: PLR0913 - every word of a machine's description has a default
    memory: str | int = "1GiB",
    *,
    nodes: int = 1,
    cpus: int | None = None,
    arch: str = "x86_64",
    kernel: str = "6.1",
    cmdline: str = "",
    hardware: Hardware | None = None,
) -> Machine:
    """Boot a machine: firmware map, boot allocator, zones, and the page allocator running.

    Parameters
    ----------
    memory : str or int
        Size as text ("64GiB") or in bytes, laid out as on a common PC (or virtual machine).
    nodes, cpus : int
        NUMA nodes that share the memory evenly, CPUs that share the nodes (default: one each).
    arch : str
        A key of `physmem.arch.registry.ARCHS`: x86_64, i386, arm64, riscv64, ...
    kernel : str
        "2.6.24", "6.1" or "6.12".
    cmdline : str
        Kernel command line, such as "movablecore=16G".
    hardware : Hardware, optional
        The machine in full, instead of `memory`, `nodes`, `cpus` and `arch`.

    Raises
    ------
    BadMachineError
        No kernel could start on such a machine, or no such kernel or architecture is known.
    BadInputError
        An option of the command line has a value that makes no sense.

    Examples
    --------
    >>> machine = boot("8GiB", cmdline="movablecore=2G")
    >>> [(zone.name, zone.managed_pages > 0) for zone in machine.zones]
    [('DMA', True), ('DMA32', True), ('Normal', True), ('Movable', True)]
    """
    if hardware is None:
        count = nodes if cpus is None else cpus
        hardware = Hardware.of(memory=memory, nodes=nodes, arch=arch, cpus=count)
    return boot_hardware(hardware, kernel=kernel, cmdline=cmdline).machine()


def boot_hardware(hardware: Hardware, *, kernel: str = "6.1", cmdline: str = "") -> Booted:
    """Start a kernel on a machine that is described in full.

    Raises
    ------
    BadMachineError
        No kernel could start on it, or the kernel is not known.
    """
    from physmem.boot.features import BootFeature, boot_features

    if BootFeature.MEMBLOCK not in boot_features(kernel):
        from physmem.boot.self_made_bootmem import boot_of_hardware_bootmem
        from physmem.boot.start_kernel_bootmem import start_kernel_bootmem

        old = boot_of_hardware_bootmem(hardware, kernel=kernel, cmdline=cmdline)
        return Booted(start_kernel_bootmem(old), old.hardware, old.ram)
    from physmem.boot.self_made import boot_of_hardware
    from physmem.boot.start_kernel import start_kernel

    state = boot_of_hardware(hardware, kernel=kernel, cmdline=cmdline)
    return Booted(start_kernel(state), hardware)


def boot_log(
    path: str | os.PathLike[str], zoneinfo: str | os.PathLike[str] | None = None
) -> tuple[Booted, "Comparison"]:
    """Boot what a real kernel's log describes, and compare every figure.

    Parameters
    ----------
    path : the boot log, best with memblock=debug
    zoneinfo : /proc/zoneinfo of the same kernel; default: start.zoneinfo or zoneinfo beside the log

    Raises
    ------
    BadInputError
        A file cannot be read, or is not what it should be.
    """
    from physmem.boot.compare_log import compare_log, zoneinfo_beside
    from physmem.boot.from_log import boot_from_log
    from physmem.firmware.bootlog import read_boot_log
    from physmem.firmware.bootlog_lines import read_text
    from physmem.lib.errors import BadInputError

    log = read_boot_log(Path(path))
    booted = Booted(boot_from_log(log))
    if zoneinfo is None:
        return booted, compare_log(booted.memory, log, zoneinfo_beside(Path(path)))
    try:
        return booted, compare_log(booted.memory, log, read_text(Path(zoneinfo)))
    except BadInputError as error:
        where = os.fspath(zoneinfo)
        raise BadInputError(str(error) if where in str(error) else f"{where}: {error}") from None


def handover_of(booted: BootedMemory, ram: Ram | None = None) -> Handover:
    """What a machine is made from.

    Raises
    ------
    BadMachineError
        No zone has memory.
    """
    zones = [zone for zone in booted.zones if zone.populated or zone.managed_pages]
    if not zones:
        raise BadMachineError("no zone has memory: the firmware map names no usable memory")
    names = {zone.index: zone.name for zone in booted.zones}
    cma = any(zone.cma_pages for zone in zones)
    nr_types = MIGRATE_TYPES if cma else MIGRATE_TYPES - 1
    nr_nodes = 1 + max(*(zone.node for zone in zones), *booted.cpu_node)
    layout = Layout(
        zone_names=tuple(names[index] for index in sorted(names)),
        cpu_node=booted.cpu_node,
        node_distance=booted.distance if len(booted.distance) == nr_nodes else (),
        max_order=booted.nr_orders - 1,
        thp=booted.pcp_thp,
        kernel=booted.kernel,
        zonelist_order=booted.zonelist_order.lower(),
        page_shift=booted.page_shift,
    )
    state = State(
        zones=[_zone_state(zone, booted, nr_types) for zone in zones],
        pageblock_order=booted.pageblock_order,
    )
    letters = block_letters(feature_bits(booted.kernel), nr_types)
    if letters not in (BLOCK_LETTERS, BLOCK_LETTERS_CMA):
        state.migratetypes = letters
    shift = booted.page_shift
    end = max(zone.end_pfn for zone in zones) << shift
    first = [part for part in (booted.hand_over, booted.highmem) if len(part.pfn)]
    blocks = [*first, *booted.deferred.values(), booted.cma]
    ram = ram or Ram(end)
    tables = enter_kernel_map(booted, ram)
    return Handover(
        state=state,
        layout=layout,
        blocks=[(part.pfn, part.order) for part in blocks if len(part.pfn)],
        to_head=booted.hand_over_path == HEAD,
        boot_pagesets=booted.boot_pagesets,
        early=[(late.start_pfn, late.end_pfn) for late in booted.late if not late.after_marks],
        late=[(late.start_pfn, late.end_pfn) for late in booted.late if late.after_marks],
        reserved=_kept(booted),
        mem_map=mem_map_pieces(booted),
        zonelists=booted.zonelists,
        grouping_disabled=not booted.grouping,
        ram=ram,
        page_table=tables,
        early_tables=vmalloc_tables(booted),
        early_after=len(first),
    )


def _kept(booted: BootedMemory) -> tuple[Reserved, ...]:
    """Who holds which frames for good: what is given back late is left out."""
    shift, kept = booted.page_shift, []
    late = sorted((free.start_pfn, free.end_pfn) for free in booted.late)
    for held in booted.reserved:
        start, end = held.start >> shift, -(-held.end >> shift)
        for low, high in late:
            if high <= start or low >= end:
                continue
            if start < low:
                kept.append(Reserved(start, low, held.owner))
            start = max(start, high)
        if start < end:
            kept.append(Reserved(start, end, held.owner))
    return tuple(kept)


def _zone_state(zone: BootedZone, booted: BootedMemory, nr_types: int) -> ZoneState:
    return ZoneState(
        node=zone.node,
        name=zone.name,
        start=zone.start_pfn,
        spanned=zone.spanned_pages,
        present=zone.present_pages,
        managed=zone.managed_pages,
        wmark=list(zone.watermark),
        free=[[[] for _ in range(nr_types)] for _ in range(booted.nr_orders)],
        pcp=[],
        pageblocks=_letters(zone, booted),
        lowmem_reserve=list(zone.lowmem_reserve),
        pageset_high=zone.pcp_high,
        pageset_high_max=zone.pcp_high_max,
        pageset_batch=zone.pcp_batch,
        nr_free=[0] * booted.nr_orders,
    )


def _letters(zone: BootedZone, booted: BootedMemory) -> str:
    """One letter per pageblock of the zone's span; "." where no run of blocks lies."""
    order = booted.pageblock_order
    count = -(-zone.end_pfn >> order) - (zone.start_pfn >> order)
    parts, at = [], 0
    for run in zone.pageblocks:
        parts += ["." * (run.first - at), run.type * run.count]
        at = run.first + run.count
    letters = "".join([*parts, "." * (count - at)])[:count]
    return letters if booted.grouping else letters.replace("M", "U")


__all__ = ["BOOT_KERNELS", "BlockTypes", "Booted", "boot", "boot_hardware", "boot_log"]
