# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of placement of a machine's tables: switched on and off, and what they rest on built."""

from dataclasses import replace

import numpy as np

from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.machine.buffers import reserve
from physmem.machine.tables import Tables, nr_trees
from physmem.mm.mmzone import MIGRATE_PCPTYPES, NONE
from physmem.mm.placement import ADDRESS_ORDER, TREES
from physmem.mm.retype import do_count_trees, do_forget_trees, do_sort, do_start_maps
from physmem.mm.tree import TREE_BLOCKS_ORDER


def set_placement(tables: Tables, bits: int) -> None:
    """Write the rules of a machine: the same in all zones."""
    tables.zones["placement"] = bits
    tables.memory["placement"] = bits


def get_placement(tables: Tables) -> int:
    """The rules of a machine: bits of `physmem.mm.placement`."""
    return int(tables.memory[0]["placement"])


def arrange(tables: Tables, bits: int, *, keep_trees: bool = False) -> Tables:
    """Tables with these rules, and with what they rest on: sorted lists and their maps, trees.

    Parameters
    ----------
    keep_trees : go on in the trees in which each CPU was (`tables.tree_at` has the right length)
    """
    set_placement(tables, 0)
    h = address(tables.memory)
    zones = range(len(tables.zones))
    order_map = reserve(0, np.uint32)
    tree_free, tree_at = reserve(0, np.int64), reserve(0, np.int64)
    if bits & ADDRESS_ORDER:
        words = sum(ready(do_start_maps)(h, number) for number in zones)
        order_map = reserve(words, np.uint32)
    else:
        tables.zones["map_start"] = 0
    if bits & TREES:
        block_order = tables.zones["pageblock_order"]
        largest = tables.zones["max_order"]
        tables.zones["tree_order"] = np.maximum(block_order + TREE_BLOCKS_ORDER, largest)
        tree_free = reserve(sum(map(nr_trees, tables.zones)), np.int64)
        slots = int(tables.memory[0]["nr_cpus"]) * MIGRATE_PCPTYPES
        tree_at = tables.tree_at if keep_trees else reserve(slots * len(zones), np.int64)
    made = replace(tables, order_map=order_map, tree_free=tree_free, tree_at=tree_at)
    made.attach()
    for number in zones:
        if bits & ADDRESS_ORDER:
            ready(do_sort)(h, number)
        if bits & TREES:
            ready(do_count_trees)(h, number)
            if not keep_trees:
                ready(do_forget_trees)(h, number)
    set_placement(made, bits)
    return made


def trees_fit(tables: Tables) -> bool:
    """Whether `tree_at` names frames of its zones only: what a file says is not trusted."""
    slots = int(tables.memory[0]["nr_cpus"]) * MIGRATE_PCPTYPES
    if len(tables.tree_at) != slots * len(tables.zones):
        return False
    at = tables.tree_at.reshape(len(tables.zones), slots)
    start, end = tables.zones["start_pfn"][:, None], tables.zones["end_pfn"][:, None]
    return bool(((at == NONE) | ((at >= start) & (at < end))).all())
