# SPDX-License-Identifier: GPL-2.0-or-later
"""Red zones, poison and notes about users around an object, and the checks of them.

Linux: init_object(), check_object(), check_slab(), set_track(), mm/slub.c (6.1)

A stride: [red_left_pad][object][right red zone up to inuse][free pointer if it is outside][notes of
the allocation and of the free][requested size of a kmalloc][padding].
"""

from physmem.lib.jit import inlined, kernel
from physmem.slab.flags import SLAB_POISON, SLAB_RED_ZONE, SLAB_STORE_USER
from physmem.slab.slub_object import fill, get_freepointer, page_address, store_word
from physmem.slab.slub_types import KmemCache, SlubMemory

SLUB_RED_INACTIVE = 0xBB
SLUB_RED_ACTIVE = 0xCC
POISON_INUSE = 0x5A
POISON_FREE = 0x6B
POISON_END = 0xA5

OK = 0
RED_ZONE_LEFT = 1
RED_ZONE_RIGHT = 2
POISON_OVERWRITTEN = 3
PADDING_OVERWRITTEN = 4
FREE_POINTER_CORRUPT = 5
SLAB_PADDING = 6
INVALID_POINTER = 7
ALREADY_FREE = 8
WRONG_CACHE = 9
NOT_A_SLAB = 10
NOT_LARGE_START = 11
SLAB_CORRUPT = 12

TRACK_ALLOC = 0
TRACK_FREE = 1


@kernel
def note_error(m: SlubMemory, s: KmemCache, code: int, address: int, offset: int) -> None:
    """Remember the first thing that a check finds."""
    if m.error == OK:
        m.error = code
        m.error_cache = s.number
        m.error_object = address
        m.error_offset = offset


@kernel
def check_bytes(m: SlubMemory, address: int, size: int, value: int) -> int:
    """Place of the first byte that is not `value`, -1: all are."""
    at = address - m.page_offset
    for i in range(size):
        if m.ram_bytes[at + i] != value:
            m.error_found = int(m.ram_bytes[at + i])
            m.error_expected = value
            return i
    return -1


@inlined
def get_orig_size(m: SlubMemory, s: KmemCache, address: int) -> int:
    """Requested size that is noted with a kmalloc."""
    return 0 + m.ram_ints[(address + s.orig_offset - m.page_offset) >> 2]


@kernel
def set_orig_size(m: SlubMemory, s: KmemCache, address: int, size: int) -> None:
    """Note the requested size of a kmalloc."""
    at = address + s.orig_offset - m.page_offset
    m.ram_ints[at >> 2] = size
    if s.orig_size > 4:
        m.ram_ints[(at >> 2) + 1] = 0


@kernel
def init_object(m: SlubMemory, s: KmemCache, address: int, red: int) -> None:
    """Write red zones and poison."""
    size = s.object_size
    if s.cache_flags & SLAB_RED_ZONE:
        fill(m, address - s.red_left_pad, s.red_left_pad, red)
        if s.red_at_request and red == SLUB_RED_ACTIVE:
            size = get_orig_size(m, s, address)
    if s.poison_object and size > 0:
        fill(m, address, size - 1, POISON_FREE)
        m.ram_bytes[address + size - 1 - m.page_offset] = POISON_END
    if s.cache_flags & SLAB_RED_ZONE:
        fill(m, address + size, s.inuse - size, red)


@kernel
def init_requested(m: SlubMemory, s: KmemCache, address: int, size: int) -> None:
    """Note the requested size of a kmalloc that was just served; the red zone may begin there."""
    set_orig_size(m, s, address, size)
    if s.red_at_request:
        init_object(m, s, address, SLUB_RED_ACTIVE)


@kernel
def setup_object_debug(m: SlubMemory, s: KmemCache, address: int) -> None:
    """Prepare an object of a new slab."""
    if not s.cache_flags & (SLAB_STORE_USER | SLAB_RED_ZONE | SLAB_POISON):
        return
    init_object(m, s, address, SLUB_RED_INACTIVE)
    if s.cache_flags & SLAB_STORE_USER:
        fill(m, address + s.track_offset, 2 * s.track_size, 0)


@kernel
def init_slab_padding(m: SlubMemory, s: KmemCache, pfn: int) -> None:
    """Fill the whole of a new slab."""
    if s.cache_flags & SLAB_POISON:
        order = int(m.slab_map[pfn].order)
        fill(m, page_address(m, pfn), 1 << (order + m.page_shift), POISON_INUSE)


@kernel
def set_track(m: SlubMemory, s: KmemCache, address: int, which: int, cpu: int) -> None:
    """Note who allocated or freed an object, on which CPU, when."""
    if not s.cache_flags & SLAB_STORE_USER:
        return
    m.now += 1  # steps instead of jiffies: what was noted later is greater
    at = address + s.track_offset + which * s.track_size - m.page_offset
    store_word(m, at, m.call_site)
    m.ram_ints[(at + m.word) >> 2] = cpu
    store_word(m, at + s.track_size - m.word, m.now)


@kernel
def info_end(m: SlubMemory, s: KmemCache) -> int:
    """Bytes from the object to where padding begins."""
    end = s.inuse
    if s.offset >= s.inuse:
        end = s.offset + m.word
    if s.cache_flags & SLAB_STORE_USER:
        end = s.track_offset + 2 * s.track_size
        end += s.orig_size
    return end


@kernel
def valid_pointer(m: SlubMemory, s: KmemCache, pfn: int, address: int) -> bool:
    """Tell whether an object of the slab begins at an address (or it is 0: end of the chain)."""
    if address == 0:
        return True
    start = page_address(m, pfn) + s.red_left_pad
    past = start + int(m.slab_map[pfn].objects) * s.size
    return start <= address < past and (address - start) % s.size == 0


@kernel
def check_object(m: SlubMemory, s: KmemCache, pfn: int, address: int, red: int) -> bool:
    """Check what surrounds an object, and the object itself while it is free."""
    flags = s.cache_flags
    if flags & SLAB_RED_ZONE:
        bad = check_bytes(m, address - s.red_left_pad, s.red_left_pad, red)
        if bad >= 0:
            note_error(m, s, RED_ZONE_LEFT, address, bad - s.red_left_pad)
            return False
        bad = check_bytes(m, address + s.object_size, s.inuse - s.object_size, red)
        if bad >= 0:
            note_error(m, s, RED_ZONE_RIGHT, address, bad + s.object_size)
            return False
        if s.red_at_request and red == SLUB_RED_ACTIVE:
            size = min(get_orig_size(m, s, address), s.object_size)
            bad = check_bytes(m, address + size, s.object_size - size, red)
            if bad >= 0:
                note_error(m, s, RED_ZONE_RIGHT, address, bad + size)
                return False
    elif flags & SLAB_POISON and s.object_size < s.inuse:
        bad = check_bytes(m, address + s.object_size, s.inuse - s.object_size, POISON_INUSE)
        if bad >= 0:
            note_error(m, s, PADDING_OVERWRITTEN, address, bad + s.object_size)
            return False
    if flags & SLAB_POISON:
        if red != SLUB_RED_ACTIVE and s.poison_object:
            bad = check_bytes(m, address, s.object_size - 1, POISON_FREE)
            if bad < 0:
                bad = check_bytes(m, address + s.object_size - 1, 1, POISON_END)
                bad = s.object_size - 1 if bad == 0 else -1
            if bad >= 0:
                note_error(m, s, POISON_OVERWRITTEN, address, bad)
                return False
        end = info_end(m, s)
        room = s.size - s.red_left_pad - end
        bad = check_bytes(m, address + end, room, POISON_INUSE)
        if bad >= 0:
            note_error(m, s, PADDING_OVERWRITTEN, address, bad + end)
            return False
    if red == SLUB_RED_ACTIVE and s.offset < s.inuse:
        return True  # the link's place belongs to the user now
    if red != SLUB_RED_ACTIVE and not valid_pointer(m, s, pfn, get_freepointer(m, s, address)):
        note_error(m, s, FREE_POINTER_CORRUPT, address, s.offset)
        return False
    return True


@kernel
def check_slab(m: SlubMemory, s: KmemCache, pfn: int) -> bool:
    """Check a slab's counters and the bytes behind its last object."""
    slab = m.slab_map[pfn]
    size = 1 << (int(slab.order) + m.page_shift)
    if int(slab.objects) > size // s.size or slab.inuse > slab.objects:
        note_error(m, s, SLAB_CORRUPT, page_address(m, pfn), 0)
        return False
    if s.cache_flags & SLAB_POISON:
        used = int(slab.objects) * s.size
        bad = check_bytes(m, page_address(m, pfn) + used, size - used, POISON_INUSE)
        if bad >= 0:
            note_error(m, s, SLAB_PADDING, page_address(m, pfn), used + bad)
            return False
    return True


@kernel
def on_freelist(m: SlubMemory, s: KmemCache, pfn: int, address: int) -> bool:
    """Tell whether an object is on its slab's free chain."""
    slab = m.slab_map[pfn]
    at = slab.freelist
    for _ in range(int(slab.objects)):
        if at == 0:
            return False
        if at == address:
            return True
        if not valid_pointer(m, s, pfn, at):
            return False
        at = get_freepointer(m, s, at)
    return False
