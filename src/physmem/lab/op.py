# SPDX-License-Identifier: GPL-2.0-or-later
"""One operation of a workload: what was asked, by the identity of the allocation."""

from physmem.lib.struct import struct, u8, u16, u32

TAKE = 1
"""An allocation: its frames belong to a slot from now on."""
GIVE = 2
"""A slot, or a piece of it, is freed."""
TAKE_BULK = 3
"""One frame of a bulk request: it comes silently off the per-CPU list."""
GIVE_BOOT = 4
"""A frame that the boot had reserved is given back; `slot` numbers such frames."""
GIVE_DEFERRED = 5
"""The frames whose records were initialised late are handed over."""
DRAIN_ALL = 6
DRAIN_BATCH = 7
DECAY = 8
TICK = 9
"""A second has passed on a CPU of a kernel whose lists do not decay: only others act on it."""
TRY = 10
"""An allocation that failed when it was recorded: what it gets now is given back at once."""

BUSY = 1
"""`Op.flags`: an interrupt found the per-CPU lists locked."""
SILENT = 2
"""`Op.flags`: no event; worked out from what is known of the frames."""
STATIC = 4
"""`Op.flags`: TAKE by the part before the trace."""

NO_NODE = 255
"""`Op.node`: the node of the CPU."""


@struct
class Op:
    """One operation (24 bytes)."""

    slot: u32  # TAKE*, GIVE: number of the allocation; DRAIN_*: number of the recorded zone
    row: u32  # of the event
    gfp: u32
    key: u32  # number of the request, for the order
    cpu: u16
    offset: u16  # GIVE: of the piece in its slot, in frames
    kind: u8
    order: u8
    flags: u8
    node: u8  # where an allocation looks first, or NO_NODE
