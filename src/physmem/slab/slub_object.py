# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses of objects, and the links that free objects hold.

Linux: get_freepointer(), set_freepointer(), freelist_ptr(), mm/slub.c (6.1)
"""

from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.slab.slub_types import KmemCache, SlubMemory

slub_at = pointer_to(SlubMemory)
_BYTE = 0xFF


@inlined
def virt_to_pfn(m: SlubMemory, address: int) -> int:
    """Frame of an address of the direct map; negative or too large: not inside memory."""
    return (address - m.page_offset) >> m.page_shift


@inlined
def page_address(m: SlubMemory, pfn: int) -> int:
    """Address of a frame in the direct map."""
    return m.page_offset + (pfn << m.page_shift)


@kernel
def swab(x: int) -> int:
    """Reverse the bytes of a 64-bit word."""
    out = 0
    for i in range(7):
        out = out << 8 | (x >> (8 * i) & _BYTE)
    top = x >> 56 & _BYTE  # the result's lowest byte; the shift above kept the sign bit clear
    if out >= 1 << 55:
        out -= 1 << 56
    return out * 256 + top


@inlined
def load_word(m: SlubMemory, paddr: int) -> int:
    """Pointer stored at a physical address."""
    if m.word == 8:
        return m.ram_longs[paddr >> 3]
    return int(m.ram_ints[paddr >> 2])


@inlined
def store_word(m: SlubMemory, paddr: int, value: int) -> None:
    """Store a pointer at a physical address."""
    if m.word == 8:
        m.ram_longs[paddr >> 3] = value
    else:
        m.ram_ints[paddr >> 2] = value & 0xFFFFFFFF


@inlined
def get_freepointer(m: SlubMemory, s: KmemCache, address: int) -> int:
    """The free object behind a free object; 0: it is the last."""
    at = address + s.offset
    value = load_word(m, at - m.page_offset)
    if s.secret:
        value ^= s.secret ^ swab(at)
    return value


@inlined
def set_freepointer(m: SlubMemory, s: KmemCache, address: int, link: int) -> None:
    """Let a free object lead to another."""
    at = address + s.offset
    if s.secret:
        link ^= s.secret ^ swab(at)
    store_word(m, at - m.page_offset, link)


@kernel
def fill(m: SlubMemory, address: int, size: int, value: int) -> None:
    """Set bytes."""
    at = address - m.page_offset
    end = at + size
    if value == 0 and (at | size) & 7 == 0:
        for word in range(at >> 3, end >> 3):
            m.ram_longs[word] = 0
        return
    for byte in range(at, end):
        m.ram_bytes[byte] = value


@kernel
def copy_bytes(m: SlubMemory, source: int, target: int, size: int) -> None:
    """Copy bytes between two addresses that do not overlap."""
    a = source - m.page_offset
    b = target - m.page_offset
    for i in range(size):
        m.ram_bytes[b + i] = m.ram_bytes[a + i]


@kernel
def random_below(m: SlubMemory, below: int) -> int:
    """Next number of [0, below) of the seeded generator: what a kernel leaves to chance."""
    m.rng = (m.rng * 25214903917 + 11) & 0xFFFFFFFFFFFF
    return (m.rng >> 16) % below


@inlined
def is_live(m: SlubMemory, address: int) -> bool:
    """Tell whether an allocated object begins at an address."""
    unit = (address - m.page_offset) >> 3
    return m.live_objects[unit >> 3] >> (unit & 7) & 1 == 1


@inlined
def mark_live(m: SlubMemory, address: int) -> None:
    """Note that an object is allocated."""
    unit = (address - m.page_offset) >> 3
    m.live_objects[unit >> 3] = m.live_objects[unit >> 3] | 1 << (unit & 7)


@inlined
def mark_dead(m: SlubMemory, address: int) -> None:
    """Note that an object is free."""
    unit = (address - m.page_offset) >> 3
    m.live_objects[unit >> 3] = m.live_objects[unit >> 3] & ~(1 << (unit & 7)) & 0xFF
