# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot allocations of the per-CPU areas, in the kernel's order.

Linux: pcpu_build_alloc_info(), pcpu_embed_first_chunk(), pcpu_setup_first_chunk(),
mm/percpu.c (6.1)
"""

from dataclasses import dataclass

from physmem.boot.boot import Boot
from physmem.lib.errors import BadMachineError

_ALLOC_BYTES = 4
"""Grain of the per-CPU allocator: PCPU_MIN_ALLOC_SIZE."""
_BLOCK_BYTES = 32
"""Record of a page of a chunk: struct pcpu_block_md."""


@dataclass(frozen=True, slots=True)
class UnitLayout:
    """How units are packed.

    Attributes
    ----------
    size : bytes of a CPU's unit that are used
    unit : bytes from one unit to the next
    per_alloc : units in one allocation of the atom size
    """

    size: int
    unit: int
    per_alloc: int


def unit_layout(boot: Boot, groups: list[list[int]]) -> UnitLayout:
    """Choose how many units share an allocation: few allocations, little waste.

    Linux: pcpu_build_alloc_info(), mm/percpu.c (6.1)
    """
    config, page = boot.config, boot.geometry.page_size
    size = _up(config.percpu_static + config.percpu_reserved + config.percpu_dynamic, page)
    atom = max(config.percpu_atom, page)
    alloc = _up(size, atom)
    most = alloc // size
    while alloc % most or alloc // most % page:
        most -= 1
    cpus = sum(map(len, groups))
    best, last = most, 1 << 62
    for units in range(most, 0, -1):
        if alloc % units or alloc // units % page:
            continue
        allocs = sum(-(-len(group) // units) for group in groups)
        if allocs * units - cpus > cpus // 3:
            continue
        if allocs > last:
            break
        last, best = allocs, units
    return UnitLayout(size, alloc // best, best)


def setup_per_cpu_areas(boot: Boot) -> None:
    """Allocate all that the first chunk needs."""
    memblock, config, page = boot.memblock, boot.config, boot.geometry.page_size
    cache = boot.geometry.cache_bytes
    nodes = list(dict.fromkeys(boot.cpu_node))  # groups by their first CPU, not by node
    groups = [[cpu for cpu, nid in enumerate(boot.cpu_node) if nid == node] for node in nodes]
    layout = unit_layout(boot, groups)
    word = boot.geometry.bits_per_long // 8
    units = [_up(len(group), layout.per_alloc) for group in groups]
    cpus = len(boot.cpu_node)
    info_size = _up(64 + len(groups) * 32 + sum(units) * 4, page)
    caller = "pcpu_build_alloc_info"
    info = memblock.alloc(info_size, page, caller=caller)
    areas_size = _up(len(groups) * word, page)
    areas = memblock.alloc(areas_size, cache, caller="pcpu_embed_first_chunk")
    places = [
        _area(boot, count * layout.unit, node) for count, node in zip(units, nodes, strict=True)
    ]
    for place, count, group in zip(places, units, groups, strict=True):
        for unit in range(count):
            start = place + unit * layout.unit
            used = layout.size if unit < len(group) else 0
            memblock.phys_free(start + used, layout.unit - used, caller="pcpu_embed_first_chunk")
    boot.say(
        f"percpu: Embedded {layout.size // page} pages/cpu s{config.percpu_static}"
        f" r{config.percpu_reserved} d{_dynamic(boot, layout)} u{layout.unit}"
    )
    setup = "pcpu_setup_first_chunk"
    memblock.alloc(len(groups) * word, cache, caller=setup)
    memblock.alloc(len(groups) * word, cache, caller=setup)
    memblock.alloc(cpus * 4, cache, caller=setup)
    memblock.alloc(cpus * word, cache, caller=setup)
    boot.say(*group_lines(boot, groups, layout))
    memblock.alloc(config.percpu_slots_bytes, cache, caller=setup)
    start = config.percpu_static
    for size in (config.percpu_reserved, _dynamic(boot, layout)):
        if size:
            _chunk(boot, start % page + size)
        start += size
    memblock.phys_free(info, info_size, caller="pcpu_free_alloc_info")
    memblock.phys_free(areas, areas_size, caller="pcpu_embed_first_chunk")


def group_lines(boot: Boot, groups: list[list[int]], layout: UnitLayout) -> list[str]:
    """Lines that tell which CPUs share an allocation, as many allocations a line as fit.

    Linux: pcpu_dump_alloc_info(), mm/percpu.c (6.1)
    """
    config, per_alloc = boot.config, layout.per_alloc
    atom = max(config.percpu_atom, boot.geometry.page_size)
    alloc = layout.unit * per_alloc
    cpus = sum(map(len, groups))
    group_width, cpu_width = len(str(len(groups))), len(str(cpus))
    width = per_alloc * (cpu_width + 1) + group_width + 3
    per_line = 1 << max(60 // width, 1).bit_length() - 1
    told = []
    for number, group in enumerate(groups):
        for first in range(0, _up(len(group), per_alloc), per_alloc):
            units = [f"{cpu:0{cpu_width}d}" for cpu in group[first : first + per_alloc]]
            units += ["-" * cpu_width] * (per_alloc - len(units))
            told.append(f"[{number:0{group_width}d}] {' '.join(units)} ")
    sizes = f"s{config.percpu_static} r{config.percpu_reserved} d{_dynamic(boot, layout)}"
    lines = [f"{sizes} u{layout.unit} alloc={alloc // atom}*{atom}"]
    lines += ["".join(told[at : at + per_line]) for at in range(0, len(told), per_line)]
    return [f"pcpu-alloc: {line}" for line in lines]


def _dynamic(boot: Boot, layout: UnitLayout) -> int:
    """Bytes of a unit that are left for variables of running code."""
    config = boot.config
    return layout.size - config.percpu_static - config.percpu_reserved


def _area(boot: Boot, size: int, node: int) -> int:
    goal = boot.arch.max_dma_address or boot.memblock.start_of_dram()
    align = max(boot.config.percpu_atom, boot.geometry.page_size)
    place = boot.memblock.alloc_try_nid(size, align, goal, 0, node, caller="pcpu_fc_alloc")
    if not place:
        raise BadMachineError(
            f"no memory for the per-CPU areas of node {node} ({size >> 10} KiB): the machine is too"
            " small for so many CPUs"
        )
    return place


def _chunk(boot: Boot, size: int) -> None:
    """Record of a chunk and its maps: one bit for four bytes, and one more for the end.

    `size` counts from the start of the page in which the chunk begins.

    Linux: pcpu_alloc_first_chunk(), mm/percpu.c (6.1)
    """
    memblock, geometry = boot.memblock, boot.geometry
    page, word = geometry.page_size, geometry.bits_per_long
    bits = _up(size, page) // _ALLOC_BYTES
    caller = "pcpu_alloc_first_chunk"
    for wanted in (
        boot.config.percpu_chunk_bytes,
        _up(bits, word) // 8,
        _up(bits + 1, word) // 8,
        _up(size, page) // page * _BLOCK_BYTES,
    ):
        memblock.alloc(wanted, geometry.cache_bytes, caller=caller)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
