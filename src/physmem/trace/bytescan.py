# SPDX-License-Identifier: GPL-2.0-or-later
"""Primitives of the scanner: bytes at addresses, numbers, and a table of texts.

Texts are reached by address, eight bytes at a time where that is possible: it is what makes the
scanner fast, and the kernels stay free of arrays that would have to be counted.
"""

from typing import Annotated, Any, cast

import numpy as np

from physmem.lib.jit import kernel, pointer_to
from physmem.lib.struct import Array, i8, i32, i64, struct, u8, u16, u32
from physmem.trace.literals import LITERAL_SHIFT

COMM = 0
GFP = 1
NAME = 2
MARK = 3
SITE = 4

SPACE = ord(" ")
NEWLINE = ord("\n")
ZERO = ord("0")
NINE = ord("9")
DASH = ord("-")
DOT = ord(".")
COLON = ord(":")


@struct
class Row:
    """One row; the columns of `physmem.trace.events.Events`, widest first."""

    line: i64
    ts: i64
    pfn: i64
    pid: i32
    arg0: i32
    arg1: i32
    gfp: u32
    cpu: u16
    comm: u16
    site: u16
    context: u8
    preempt: u8
    kind: u8
    order: u8
    migratetype: i8


@struct
class Known:
    """One text of the table: address and length of its copy, its space and its number."""

    start: i64
    length: i64
    space: i64
    value: i64


@struct
class Byte:
    """A byte of the text."""

    value: u8


@struct
class Word:
    """Eight bytes at any address, in the order of this machine."""

    value: i64


cast("Any", Word).dtype = np.dtype([("value", np.int64)])  # without alignment: loads may be odd


@struct
class Scan:
    """State of the scanner between two calls; places in the text are addresses.

    From `pos` to `end` there are whole lines; behind `end` lie 64 spare bytes. `other[space]` is
    the number of every text that is not in the table, -1: ask.
    """

    pos: i64
    end: i64
    line: i64  # lines passed
    event_lines: i64  # lines with an event, read or not
    row: i64  # rows written
    at: i64
    length: i64
    space: i64
    value: i64
    depth_seen: i64  # 1: some line had a digit in the preemption column
    last_kind: i64
    nr_known: i64
    arena: i64  # address of the copies of texts
    arena_size: i64
    arena_end: i64  # bytes in use
    gfp_start: i64  # address of the copy of the gfp text met last
    gfp_length: i64
    gfp_bits: i64
    other: Annotated[Array[i64], 5]
    fields: Annotated[Array[i64], 64]  # by number of the key
    required: Annotated[Array[i64], 24]  # by kind: keys that must be there, as bits by number
    literals: i64  # address of literal_table()
    guesses: i64  # address of guess_table()
    last_ts: i64  # address of the last time of each CPU
    name_counts: i64  # address of the lines per number of the space NAME
    slots: i64  # address of indices into `known`, plus 1, by hash
    slot_mask: i64
    rows: Array[Row]
    known: Array[Known]


scan_at = pointer_to(Scan)
byte_at = pointer_to(Byte)
word_at = pointer_to(Word)


@kernel
def byte(p: int) -> int:
    """Return the byte at `p`."""
    return byte_at(p).value


@kernel
def word(p: int) -> int:
    """Return the eight bytes at `p`."""
    return word_at(p).value


@kernel
def match(s: Scan, p: int, literal: int) -> int:
    """Return the place behind the literal at `p`, or 0."""
    entry = s.literals + (literal << LITERAL_SHIFT)
    q = entry
    begin = p
    while True:
        mask = word(q + 8)
        if mask == 0:
            return begin + word(entry + 120)
        if (word(p) ^ word(q)) & mask:
            return 0
        p += 8
        q += 16


@kernel
def same_bytes(p: int, q: int, length: int) -> bool:
    """Tell whether two texts are equal."""
    end = p + length - 8
    while p <= end:
        if word(p) != word(q):
            return False
        p += 8
        q += 8
    while p < end + 8:
        if byte(p) != byte(q):
            return False
        p += 1
        q += 1
    return True


@kernel
def end_of_line(p: int) -> int:
    """Return the place of the newline at or behind `p`."""
    while byte(p) != NEWLINE:
        p += 1
    return p


@kernel
def end_of_word(p: int) -> int:
    """Return the place of the blank or newline at or behind `p`."""
    while byte(p) > SPACE:
        p += 1
    return p


@kernel
def skip_spaces(p: int) -> int:
    """Return the place of the first byte at or behind `p` that is no space."""
    while byte(p) == SPACE:
        p += 1
    return p


@kernel
def number(s: Scan, p: int) -> int:
    """Read a number (decimal, 0x hexadecimal, negative) into `s.value`; the place behind, or 0.

    A 64-bit number with its highest bit set comes out negative, as in C.
    """
    negative = byte(p) == DASH
    if negative:
        p += 1
    value = 0
    begin = p
    if byte(p) == ZERO and byte(p + 1) == 120:  # 0x
        p += 2
        begin = p
        while True:
            c = byte(p)
            if ZERO <= c <= NINE:
                digit = c - 48
            elif 97 <= c <= 102:
                digit = c - 87
            else:
                break
            if p - begin == 15 and value >= 1 << 59:
                value -= 1 << 60  # the digit makes bit 63: -(1 << 63) comes of it
            value = value * 16 + digit
            p += 1
        if p - begin > 16:
            return 0
    else:
        while ZERO <= byte(p) <= NINE:
            if p - begin < 18:
                value = value * 10 + (byte(p) - ZERO)
            p += 1
        if p - begin > 20:
            return 0
        if p - begin > 18:  # no 64-bit field is this long but all ones
            value = -1
    if p == begin:
        return 0
    s.value = -value if negative else value
    return p


@kernel
def pointer(s: Scan, p: int) -> int:
    """Read a bare hexadecimal pointer into `s.value`; the place behind, or 0.

    One with its highest bit set comes out negative. One that the kernel hid ("(____ptrval____)")
    comes out as -1.
    """
    begin = p
    value = 0
    while True:
        c = byte(p)
        if ZERO <= c <= NINE:
            digit = c - 48
        elif 97 <= c <= 102:
            digit = c - 87
        else:
            break
        if p - begin == 15 and value >= 1 << 59:
            value -= 1 << 60
        value = value * 16 + digit
        p += 1
    if c == 40:  # (
        s.value = -1
        return end_of_word(p)
    if p == begin or p - begin > 16 or c > SPACE:
        return 0
    s.value = value
    return p


@kernel
def text_hash(begin: int, end: int, space: int) -> int:
    """Hash (FNV-1a, 32 bits) of bytes and space."""
    h = 2166136261 ^ space
    for p in range(begin, end):
        h = ((h ^ byte(p)) * 16777619) & 0xFFFFFFFF
    return h ^ (h >> 15)


@kernel
def lookup(s: Scan, begin: int, end: int, space: int) -> int:
    """Return the entry of a text; -1: not known, and `at`, `length`, `space` name it."""
    slot = text_hash(begin, end, space) & s.slot_mask
    while True:
        entry = word(s.slots + slot * 8) - 1
        if entry < 0:
            s.at = begin
            s.length = end - begin
            s.space = space
            return -1
        known = s.known[entry]
        if (
            known.space == space
            and known.length == end - begin
            and same_bytes(begin, known.start, end - begin)
        ):
            return entry
        slot = (slot + 1) & s.slot_mask


@kernel
def number_of_text(s: Scan, begin: int, end: int, space: int) -> int:
    """Return the number of a text; -1: NEED."""
    entry = lookup(s, begin, end, space)
    return s.known[entry].value if entry >= 0 else s.other[space]


@kernel
def gfp_of_text(s: Scan, p: int) -> int:
    """Read the gfp text at `p` into `s.value`; the place behind, 0: NEED."""
    end = p + s.gfp_length
    if s.gfp_length and byte(end) <= SPACE and same_bytes(p, s.gfp_start, end - p):
        s.value = s.gfp_bits
        return end
    end = end_of_word(p)
    entry = lookup(s, p, end, GFP)
    if entry < 0:
        return 0
    s.gfp_start = s.known[entry].start
    s.gfp_length = end - p
    s.gfp_bits = s.known[entry].value
    s.value = s.gfp_bits
    return end


@kernel
def learn(address: int, value: int) -> bool:
    """Put the text that the scanner asked for into the table; False: no room."""
    s = scan_at(address)
    if s.nr_known == len(s.known) or s.arena_end + s.length + 8 > s.arena_size:
        return False
    known = s.known[s.nr_known]
    known.start = s.arena + s.arena_end
    known.length = s.length
    known.space = s.space
    known.value = value
    for i in range(s.length):
        byte_at(known.start + i).value = byte(s.at + i)
    s.arena_end += s.length
    s.nr_known += 1
    slot = text_hash(s.at, s.at + s.length, s.space) & s.slot_mask
    while word(s.slots + slot * 8) != 0:
        slot = (slot + 1) & s.slot_mask
    word_at(s.slots + slot * 8).value = s.nr_known
    return True
