# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting SLAB or SLUB on a machine.

Linux: mm_init(), init/main.c; kmalloc_minalign: ARCH_DMA_MINALIGN, arch/*/include/asm/cache.h (6.1)
"""

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from physmem.lib.errors import BadRequestError
from physmem.lib.ram import Ram
from physmem.slab.allocator import ObjectAllocator, Reserve
from physmem.slab.direct_map import direct_map

Shape = tuple[tuple[str, ...], tuple[int, ...]]
"""Zone names of the architecture, node of each CPU."""


def start(
    kind: str,
    memory: NDArray[Any],
    ram: Ram,
    shape: Shape,
    reserve: Reserve,
    options: dict[str, Any],
) -> ObjectAllocator:
    """Start an allocator with options over what the machine implies.

    Raises
    ------
    BadRequestError
        No such allocator or option.
    """
    zone_names, cpu_node = shape
    where = direct_map(zone_names)
    chosen = dict(options)
    page_offset = int(chosen.pop("page_offset", where.page_offset))
    chosen.setdefault("word", where.word)
    chosen.setdefault("cpus", len(cpu_node))
    nodes = int(memory[0]["zonelist_len"]) // int(memory[0]["nr_zones"])
    chosen.setdefault("nr_node_ids", nodes)
    try:
        if kind == "slub":
            from physmem.slab.slub import SlubAllocator
            from physmem.slab.slub_config import SlubConfig, SlubFeature

            chosen.setdefault("zone_dma", int(memory[0]["zone_dma"]) >= 0)
            config = SlubConfig(**chosen)
            small = config.features & SlubFeature.SMALL_KMALLOC
            if "kmalloc_minalign" not in chosen and not small:
                config = replace(config, kmalloc_minalign=where.dma_minalign)
            return SlubAllocator(memory, ram, config, page_offset, reserve)
        if kind == "slab":
            from physmem.slab.slab import SlabAllocator
            from physmem.slab.slab_config import SlabConfig

            chosen.setdefault("num_physpages", int(memory[0]["max_pfn"]))
            chosen.setdefault("numa", nodes > 1)
            chosen.setdefault("zone_dma", int(memory[0]["zone_dma"]) >= 0)
            return SlabAllocator(memory, ram, SlabConfig(**chosen), page_offset, reserve)
    except TypeError as error:
        raise BadRequestError(f"slab_start: {error}") from None
    raise BadRequestError(f"slab_start: {kind!r} is no allocator; known are slab, slub")
