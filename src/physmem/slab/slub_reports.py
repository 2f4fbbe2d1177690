# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failed check tells: object, cache, slab, offset, last users.

Linux: object_err(), print_trailer(), print_track(), slab_err(), mm/slub.c (6.1)
"""

from typing import Any

from physmem.lib.errors import (
    BadPointerError,
    DoubleFreeError,
    ObjectError,
    OverrunError,
    UseAfterFreeError,
)
from physmem.slab import slub_debug as db
from physmem.slab.flags import SLAB_STORE_USER
from physmem.slab.slub_types import FRAME_SLAB, FRAME_SLAB_TAIL

_KINDS: dict[int, tuple[type[ObjectError], str]] = {
    db.RED_ZONE_LEFT: (OverrunError, "left red zone overwritten"),
    db.RED_ZONE_RIGHT: (OverrunError, "right red zone overwritten"),
    db.POISON_OVERWRITTEN: (UseAfterFreeError, "poison overwritten: written after it was freed"),
    db.PADDING_OVERWRITTEN: (OverrunError, "object padding overwritten"),
    db.FREE_POINTER_CORRUPT: (UseAfterFreeError, "free pointer corrupt"),
    db.SLAB_PADDING: (OverrunError, "slab padding overwritten"),
    db.INVALID_POINTER: (BadPointerError, "invalid pointer: no object begins there"),
    db.ALREADY_FREE: (DoubleFreeError, "object already free"),
    db.WRONG_CACHE: (BadPointerError, "object of another cache"),
    db.NOT_A_SLAB: (BadPointerError, "invalid pointer: not in a slab"),
    db.NOT_LARGE_START: (BadPointerError, "invalid pointer: inside of a large allocation"),
    db.SLAB_CORRUPT: (OverrunError, "slab corrupt: its counters cannot be"),
}


def tracks(slub: Any, record: Any, address: int) -> tuple[str, ...]:
    """What is noted about the last allocation and the last free of an object."""
    if not int(record["cache_flags"]) & SLAB_STORE_USER:
        return ()
    words = []
    size, word = int(record["track_size"]), slub.config.word
    for which, verb in enumerate(("Allocated", "Freed")):
        at = slub.paddr(address) + int(record["track_offset"]) + which * size
        raw = slub.ram.read(at, size)
        site = int.from_bytes(raw[:word], "little")
        cpu = int.from_bytes(raw[word : word + 4], "little")
        when = int.from_bytes(raw[-word:], "little")
        if when:
            name = slub.users[site] if 0 < site < len(slub.users) else "unnamed user"
            words.append(f"{verb} in {name} at step {when} cpu={cpu}")
    return tuple(words)


def report(slub: Any, what: str, address: int, code: int) -> ObjectError:
    """Error for a code of `slub_debug`."""
    kind, text = _KINDS.get(code, (BadPointerError, f"code {code}"))
    m = slub.tables.slub[0]
    pfn = (slub.paddr(address)) >> slub.page_shift
    where = f"{what}({address:#x}): {text}"
    offset = int(m["error_offset"]) if int(m["error"]) == code else 0
    frames = slub.tables.slab_map
    if pfn >= len(frames) or int(frames[pfn]["kind"]) not in {FRAME_SLAB, FRAME_SLAB_TAIL}:
        return kind(f"{where}; {slub.owner(address)}", address=address)
    head = int(frames[pfn]["head"])
    number = int(frames[head]["cache"])
    record = slub.tables.kmem_caches[number]
    name = next((cache.name for cache in slub.caches if cache.number == number), "?")
    base = (slub.page_offset + (head << slub.page_shift) + int(record["red_left_pad"])) & (
        (1 << 64) - 1
    )
    stride = int(record["size"])
    index, within = divmod(address - base, stride)
    obj = base + index * stride
    parts = [
        where,
        f"object {obj:#x} ({index} of {int(frames[head]['objects'])})"
        + (f" + {within}" if within else ""),
        f"cache {name} (object {int(record['object_size'])}, stride {stride})",
        f"slab at frame {head:#x}, {int(frames[head]['inuse'])} in use",
    ]
    if code in {
        db.RED_ZONE_LEFT,
        db.RED_ZONE_RIGHT,
        db.POISON_OVERWRITTEN,
        db.PADDING_OVERWRITTEN,
        db.SLAB_PADDING,
    }:
        parts.append(
            f"offset {offset}: {int(m['error_found']):#04x} instead of"
            f" {int(m['error_expected']):#04x}"
        )
    users = tracks(slub, record, obj)
    parts += users
    return kind(
        "; ".join(parts),
        address=obj,
        cache=name,
        slab=head,
        offset=offset if code < db.INVALID_POINTER else within,
        last_users=users,
    )
