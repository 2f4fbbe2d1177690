# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects and slabs: which is where, chains of free objects, lists of slabs.

Linux: slab_get_obj(), slab_put_obj(), obj_to_index(), mm/slab.c (2.6.24)
"""

from physmem.lib.jit import inlined, kernel, pointer_to
from physmem.slab.slab_types import NO_SLAB, ON_NONE, KmemList3, SlabCache, SlabMemory

slab_at = pointer_to(SlabMemory)


@inlined
def frame_of(m: SlabMemory, address: int) -> int:
    """First frame of the slab that an object is in."""
    return m.slab_frames[(address - m.page_offset) >> m.page_shift].head


@inlined
def obj_to_index(m: SlabMemory, c: SlabCache, pfn: int, address: int) -> int:
    """Number of an object in its slab."""
    return ((address - m.slab_frames[pfn].s_mem) * c.reciprocal) >> 32


@inlined
def bufctl_place(m: SlabMemory, pfn: int) -> int:
    """Place of a slab's chain among the 32-bit words of memory."""
    return (m.slab_frames[pfn].mgmt + m.sizeof_slab - m.page_offset) >> 2


@inlined
def take_object(m: SlabMemory, c: SlabCache, pfn: int) -> int:
    """Take the first free object of a slab."""
    slab = m.slab_frames[pfn]
    index = 0 + slab.free
    slab.free = m.ram_ints[bufctl_place(m, pfn) + index]
    slab.inuse = slab.inuse + 1
    return slab.s_mem + index * c.buffer_size


@inlined
def put_object(m: SlabMemory, c: SlabCache, pfn: int, address: int) -> None:
    """Put an object in front of its slab's free ones."""
    slab = m.slab_frames[pfn]
    index = obj_to_index(m, c, pfn, address)
    m.ram_ints[bufctl_place(m, pfn) + index] = slab.free
    slab.free = index
    slab.inuse = slab.inuse - 1


@kernel
def list_del(m: SlabMemory, l3: KmemList3, pfn: int) -> None:
    """Take a slab off its list."""
    slab = m.slab_frames[pfn]
    which = 0 + slab.list
    before = 0 + slab.prev
    after = 0 + slab.next
    if before == NO_SLAB:
        l3.first[which] = after
    else:
        m.slab_frames[before].next = after
    if after == NO_SLAB:
        l3.last[which] = before
    else:
        m.slab_frames[after].prev = before
    slab.list = ON_NONE


@kernel
def list_add(m: SlabMemory, l3: KmemList3, which: int, pfn: int) -> None:
    """Put a slab at the head of a list."""
    slab = m.slab_frames[pfn]
    slab.list = which
    after = l3.first[which]
    slab.next = after
    slab.prev = NO_SLAB
    if after == NO_SLAB:
        l3.last[which] = pfn
    else:
        m.slab_frames[after].prev = pfn
    l3.first[which] = pfn


@kernel
def list_add_tail(m: SlabMemory, l3: KmemList3, which: int, pfn: int) -> None:
    """Put a slab at the tail of a list."""
    slab = m.slab_frames[pfn]
    slab.list = which
    before = l3.last[which]
    slab.prev = before
    slab.next = NO_SLAB
    if before == NO_SLAB:
        l3.first[which] = pfn
    else:
        m.slab_frames[before].next = pfn
    l3.last[which] = pfn


@inlined
def is_live(m: SlabMemory, address: int) -> bool:
    """Tell whether an allocated object begins at an address."""
    unit = (address - m.page_offset) >> 2
    return m.live_objects[unit >> 3] >> (unit & 7) & 1 == 1


@inlined
def mark_live(m: SlabMemory, address: int) -> None:
    """Note that an object is allocated."""
    unit = (address - m.page_offset) >> 2
    m.live_objects[unit >> 3] = m.live_objects[unit >> 3] | 1 << (unit & 7)


@inlined
def mark_dead(m: SlabMemory, address: int) -> None:
    """Note that an object is free."""
    unit = (address - m.page_offset) >> 2
    m.live_objects[unit >> 3] = m.live_objects[unit >> 3] & ~(1 << (unit & 7)) & 0xFF


@kernel
def fill(m: SlabMemory, address: int, size: int, value: int) -> None:
    """Set bytes."""
    at = address - m.page_offset
    end = at + size
    if value == 0 and (at | size) & 7 == 0:
        for word in range(at >> 3, end >> 3):
            m.ram_longs[word] = 0
        return
    for byte in range(at, end):
        m.ram_bytes[byte] = value
