# SPDX-License-Identifier: GPL-2.0-or-later
"""One request: the record that a replay carries out."""

from physmem.lib.struct import struct, u8, u16, u32

ALLOC = 1
FREE = 2
PREPARE = 3
COMMIT = 4
BULK = 5
DRAIN_ALL = 6
DRAIN_BATCH = 7
DECAY = 8

BUSY = 1
"""`Request.race`: an interrupt found the per-CPU lists locked and went to the free lists."""
EARLY = 2
"""`Request.race`: carried out where its first consequence was seen, before a BUSY interrupt."""
COUNTED = 16
"""`Request.race`: the first request of a race that an outcome decided."""
NODE = 4
"""`Request.race`: asked for another node than the CPU's, as its frame tells."""

UNSEEN = 8
"""`Request.race`: a decay that shows in no line; when it came is inferred."""

REORDERED = 32
"""`Request.race`: moved or turned by an accepted candidate (`physmem.replay.races`)."""


@struct
class Request:
    """One request, in the order in which it is carried out."""

    row: u32  # of the event that asks
    first: u32  # its consequences: expected[first : first + nr_expected]
    nr_expected: u32
    pfn: u32  # frees: the frame; BULK: frames wanted; DRAIN_*: zone number; DECAY: 1 = left out
    gfp: u32
    cpu: u16  # DRAIN_ALL: the CPU whose lists are drained
    kind: u8
    order: u8
    race: u8  # BUSY | EARLY | NODE | UNSEEN | COUNTED | REORDERED
    node: u8  # where an allocation looks first
