# SPDX-License-Identifier: GPL-2.0-or-later
"""Rings of frames threaded through `mem_map`; a list head is a record behind the frames.

Linux: include/linux/list.h

`next` of a head is the end that allocation takes from (HEAD), `prev` the other end (TAIL).
"""

from physmem.lib.jit import kernel
from physmem.mm.mmzone import Zone


@kernel
def list_init(zone: Zone, head: int) -> None:
    """Make an empty list. Linux: INIT_LIST_HEAD(), include/linux/list.h"""
    zone.mem_map[head].next = head
    zone.mem_map[head].prev = head


@kernel
def list_empty(zone: Zone, head: int) -> bool:
    """Tell whether a list has no member. Linux: list_empty(), include/linux/list.h"""
    return zone.mem_map[head].next == head


@kernel
def list_add(zone: Zone, pfn: int, head: int) -> None:
    """Put a frame at HEAD. Linux: list_add(), include/linux/list.h"""
    first = zone.mem_map[head].next
    zone.mem_map[first].prev = pfn
    zone.mem_map[pfn].next = first
    zone.mem_map[pfn].prev = head
    zone.mem_map[head].next = pfn


@kernel
def list_add_tail(zone: Zone, pfn: int, head: int) -> None:
    """Put a frame at TAIL. Linux: list_add_tail(), include/linux/list.h"""
    last = zone.mem_map[head].prev
    zone.mem_map[last].next = pfn
    zone.mem_map[pfn].prev = last
    zone.mem_map[pfn].next = head
    zone.mem_map[head].prev = pfn


@kernel
def list_del(zone: Zone, pfn: int) -> None:
    """Unlink a frame from its list. Linux: list_del(), include/linux/list.h"""
    after = zone.mem_map[pfn].next
    before = zone.mem_map[pfn].prev
    zone.mem_map[before].next = after
    zone.mem_map[after].prev = before
