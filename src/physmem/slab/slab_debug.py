# SPDX-License-Identifier: GPL-2.0-or-later
"""Red zones, poison and the last user's note of debug builds, and the checks of them.

Linux: poison_obj(), check_poison_obj(), verify_redzone_free(), cache_free_debugcheck(), mm/slab.c
(2.6.24, DEBUG_SLAB)

A stride: [padding][red word 1][object][red word 2][last caller, the last word].
"""

from physmem.lib.jit import kernel
from physmem.slab.flags import SLAB_POISON, SLAB_RED_ZONE, SLAB_STORE_USER
from physmem.slab.slab_object import fill
from physmem.slab.slab_types import ERRORS, SlabCache, SlabMemory

RED_INACTIVE = 0x09F911029D74E35B
RED_ACTIVE = 0xD84156C5635688C0 - (1 << 64)
POISON_INUSE = 0x5A
POISON_FREE = 0x6B
POISON_END = 0xA5
CHECKS = SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER

OK = 0
RED_ZONE = 1
POISON_OVERWRITTEN = 2
DOUBLE_FREE = 3
INVALID_POINTER = 4
NOT_A_SLAB = 5
WRONG_CACHE = 6


@kernel
def red_word(m: SlabMemory, c: SlabCache, address: int, which: int) -> int:
    """Place of a red word of the stride at `address` among the 64-bit words of memory."""
    if which == 1:
        at = address + c.obj_offset - 8
    elif c.cache_flags & SLAB_STORE_USER:
        at = address + c.buffer_size - 16
    else:
        at = address + c.buffer_size - 8
    return (at - m.page_offset) >> 3


@kernel
def set_red(m: SlabMemory, c: SlabCache, address: int, value: int) -> None:
    """Write both red words."""
    if c.cache_flags & SLAB_RED_ZONE:
        m.ram_longs[red_word(m, c, address, 1)] = value
        m.ram_longs[red_word(m, c, address, 2)] = value


@kernel
def store_user(m: SlabMemory, c: SlabCache, address: int, who: int) -> None:
    """Note the last caller."""
    if c.cache_flags & SLAB_STORE_USER:
        at = address + c.buffer_size - m.word - m.page_offset
        if m.word == 8:
            m.ram_longs[at >> 3] = who
        else:
            m.ram_ints[at >> 2] = who


@kernel
def poison_obj(m: SlabMemory, c: SlabCache, address: int, value: int) -> None:
    """Fill an object so that use of it shows."""
    if c.cache_flags & SLAB_POISON:
        fill(m, address + c.obj_offset, c.obj_size, value)
        m.ram_bytes[address + c.obj_offset + c.obj_size - 1 - m.page_offset] = POISON_END


@kernel
def init_debug(m: SlabMemory, c: SlabCache, address: int) -> None:
    """Prepare an object of a new slab. Linux: cache_init_objs(), mm/slab.c (2.6.24)"""
    poison_obj(m, c, address, POISON_FREE)
    store_user(m, c, address, 0)
    set_red(m, c, address, RED_INACTIVE)


@kernel
def note_error(m: SlabMemory, c: SlabCache, code: int, address: int, offset: int) -> None:
    """Remember what a check finds; offsets count from the object."""
    m.error = code
    m.error_cache = c.number
    m.error_object = address + c.obj_offset
    m.error_offset = offset
    c.statistic[ERRORS] += 1


@kernel
def check_red(m: SlabMemory, c: SlabCache, address: int, wanted: int) -> bool:
    """Check both red words."""
    if not c.cache_flags & SLAB_RED_ZONE:
        return True
    for which in range(1, 3):
        place = red_word(m, c, address, which)
        found = m.ram_longs[place]
        if found != wanted:
            for byte in range(8):
                has = 0 + m.ram_bytes[(place << 3) + byte]
                want = wanted >> (8 * byte) & 0xFF
                if has != want:
                    m.error_found = has
                    m.error_expected = want
                    offset = (place << 3) + byte + m.page_offset - address - c.obj_offset
                    note_error(m, c, RED_ZONE, address, offset)
                    return False
    return True


@kernel
def check_poison(m: SlabMemory, c: SlabCache, address: int) -> bool:
    """Check that nobody wrote a free object."""
    if not c.cache_flags & SLAB_POISON:
        return True
    at = address + c.obj_offset - m.page_offset
    for i in range(c.obj_size):
        wanted = POISON_END if i == c.obj_size - 1 else POISON_FREE
        if m.ram_bytes[at + i] != wanted:
            m.error_found = 0 + m.ram_bytes[at + i]
            m.error_expected = wanted
            note_error(m, c, POISON_OVERWRITTEN, address, i)
            return False
    return True


@kernel
def check_alloc(m: SlabMemory, c: SlabCache, address: int) -> bool:
    """Check an object that is to be handed out, and mark it as in use.

    What is wrong is mended, so that it is told once.

    Linux: cache_alloc_debugcheck_after(), mm/slab.c (2.6.24)
    """
    if not (check_poison(m, c, address) and check_red(m, c, address, RED_INACTIVE)):
        poison_obj(m, c, address, POISON_FREE)
        set_red(m, c, address, RED_INACTIVE)
        return False
    poison_obj(m, c, address, POISON_INUSE)
    store_user(m, c, address, m.call_site)
    set_red(m, c, address, RED_ACTIVE)
    return True


@kernel
def check_free(m: SlabMemory, c: SlabCache, address: int) -> bool:
    """Check an object that is given back, and mark it as free.

    DEVIATION: an object with damaged red words is not freed, where the kernel frees it.
    """
    if not check_red(m, c, address, RED_ACTIVE):
        return False
    set_red(m, c, address, RED_INACTIVE)
    store_user(m, c, address, m.call_site)
    poison_obj(m, c, address, POISON_FREE)
    return True
