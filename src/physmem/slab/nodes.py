# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones and nodes behind a page allocator's record, seen from Python."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.jit import ready
from physmem.lib.struct import address, dtype_of
from physmem.mm.entry import do_find_zone
from physmem.mm.mmzone import NONE, Page, Zone


def _far(memory: NDArray[Any], name: str, record: Any) -> NDArray[Any]:
    """Array that a field of the record points to."""
    dtype = dtype_of(record)
    size = dtype.itemsize * int(memory[0][f"{name}_len"])
    raw = (ctypes.c_uint8 * size).from_address(int(memory[0][f"{name}_addr"]))
    array: NDArray[Any] = np.frombuffer(memoryview(raw), dtype)
    return array


def zones_of(memory: NDArray[Any]) -> NDArray[Any]:
    """Zone records."""
    return _far(memory, "zones", Zone)


def frames_of(memory: NDArray[Any]) -> NDArray[Any]:
    """Page records."""
    return _far(memory, "mem_map", Page)


def nodes_with_memory(memory: NDArray[Any]) -> list[int]:
    """Nodes that manage frames, ascending."""
    zones = zones_of(memory)
    return sorted({int(node) for node in zones["node"][zones["managed_pages"] > 0]})


def node_of(memory: NDArray[Any], pfn: int) -> int:
    """Node of a frame, or NONE."""
    number = ready(do_find_zone)(address(memory), pfn)
    return NONE if number == NONE else int(zones_of(memory)[number]["node"])


def cpu_nodes(memory: NDArray[Any]) -> NDArray[np.int64]:
    """Node of each CPU."""
    count = int(memory[0]["cpu_node_len"])
    raw = (ctypes.c_int64 * count).from_address(int(memory[0]["cpu_node_addr"]))
    array: NDArray[np.int64] = np.frombuffer(memoryview(raw), np.int64)
    return array
