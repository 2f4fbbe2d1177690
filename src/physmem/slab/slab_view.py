# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be read off SLAB: counts, attributes, who owns an address; what failed checks tell.

Linux: s_show(), print_objinfo(), slab_error(), mm/slab.c (2.6.24)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import (
    BadPointerError,
    DoubleFreeError,
    ObjectError,
    OverrunError,
    UseAfterFreeError,
)
from physmem.slab import slab_debug as db
from physmem.slab.flags import (
    CFLGS_OFF_SLAB,
    SLAB_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    SLAB_TYPESAFE_BY_RCU,
)
from physmem.slab.rows import CacheRow
from physmem.slab.slab_types import FRAME_HEAD, FRAME_NONE, NO_SLAB, ON_FREE, ON_FULL, ON_PARTIAL

if TYPE_CHECKING:
    from physmem.slab.cache import Cache
    from physmem.slab.slab import SlabAllocator

MASK = (1 << 64) - 1
_KINDS: dict[int, tuple[type[ObjectError], str]] = {
    db.RED_ZONE: (OverrunError, "memory outside object was overwritten"),
    db.POISON_OVERWRITTEN: (UseAfterFreeError, "slab corruption: written after it was freed"),
    db.DOUBLE_FREE: (DoubleFreeError, "double free detected"),
    db.INVALID_POINTER: (BadPointerError, "invalid pointer: no object begins there"),
    db.NOT_A_SLAB: (BadPointerError, "invalid pointer: not in a slab"),
    db.WRONG_CACHE: (BadPointerError, "object of another cache"),
}


def lists_of(slab: "SlabAllocator", cache: "Cache") -> NDArray[Any]:
    """Records of the nodes."""
    nodes = slab.tables.shape[1]
    return slab.tables.nodelists[cache.number * nodes : (cache.number + 1) * nodes]


def slab_list(slab: "SlabAllocator", l3: Any, which: int) -> list[int]:
    """Slabs of a list, head first."""
    found: list[int] = []
    pfn = int(l3["first"][which])
    while pfn != NO_SLAB and len(found) <= len(slab.tables.slab_frames):
        found.append(pfn)
        pfn = int(slab.tables.slab_frames[pfn]["next"])
    return found


def slabinfo_rows(slab: "SlabAllocator") -> list[CacheRow]:
    """Counts of all caches, newest first."""
    rows = []
    nodes = slab.tables.shape[1]
    for cache in slab.caches:
        record = slab.tables.slab_caches[cache.number]
        active = full = partial = free = avail = 0
        for nid, l3 in enumerate(lists_of(slab, cache)):
            full += len(slab_list(slab, l3, ON_FULL))
            members = slab_list(slab, l3, ON_PARTIAL)
            partial += len(members)
            active += int(slab.tables.slab_frames[members]["inuse"].astype(np.int64).sum())
            free += len(slab_list(slab, l3, ON_FREE))
            if ("shared", cache.number, nid) in slab.tables.entries:
                avail += int(slab.tables.shared[cache.number * nodes + nid]["avail"])
        num = int(record["num"])
        counts = record["statistic"].tolist()
        rows.append(
            CacheRow(
                name=cache.name,
                active_objs=active + num * full,
                num_objs=num * (full + partial + free),
                objsize=int(record["buffer_size"]),
                objperslab=num,
                pagesperslab=1 << int(record["gfporder"]),
                limit=int(record["limit"]),
                batchcount=int(record["batchcount"]),
                sharedfactor=int(record["sharedfactor"]),
                active_slabs=full + partial,
                num_slabs=full + partial + free,
                sharedavail=avail,
                statistics=(tuple(counts[:9]), tuple(counts[9:13])),
            )
        )
    return rows


def cache_frames(slab: "SlabAllocator", cache: "Cache") -> NDArray[np.int64]:
    """First frame of every slab, ascending."""
    frames = slab.tables.slab_frames
    mine = (frames["kind"] == FRAME_HEAD) & (frames["cache"] == cache.number)
    return np.flatnonzero(mine).astype(np.int64)


def is_live(slab: "SlabAllocator", paddr: int) -> bool:
    """Tell whether an object that begins there is allocated."""
    return bool(int(slab.tables.live_objects[paddr >> 5]) >> (paddr >> 2 & 7) & 1)


def live_addresses(slab: "SlabAllocator", cache: "Cache") -> list[int]:
    """Objects that are allocated, ascending."""
    g = cache.geometry
    found = []
    for pfn in cache_frames(slab, cache).tolist():
        base = int(slab.tables.slab_frames[pfn]["s_mem"]) + g.obj_offset
        for index in range(g.num):
            address = (base + index * g.buffer_size) & MASK
            if is_live(slab, slab.paddr(address)):
                found.append(address)
    return found


def locate(slab: "SlabAllocator", address: int) -> tuple["Cache", int, int, int] | None:
    """Cache, first frame, number of the object, bytes into its stride; None: in no slab."""
    frames = slab.tables.slab_frames
    pfn = slab.paddr(address) >> slab.page_shift
    if pfn >= len(frames) or int(frames[pfn]["kind"]) == FRAME_NONE:
        return None
    head = int(frames[pfn]["head"])
    number = int(frames[pfn]["cache"])
    cache = next(each for each in slab.caches if each.number == number)
    base = int(frames[head]["s_mem"]) & MASK
    index, within = divmod(address - base, cache.geometry.buffer_size)
    return cache, head, index, within


def owner_text(slab: "SlabAllocator", address: int) -> str:
    """What an address belongs to, in one clause."""
    found = locate(slab, address)
    if found is None:
        pfn = slab.paddr(address) >> slab.page_shift
        if pfn >= len(slab.tables.slab_frames):
            return "outside of the memory"
        return f"frame {pfn:#x} holds no slab"
    cache, head, index, within = found
    where = f"cache {cache.name}, slab at frame {head:#x}"
    if not 0 <= index < cache.geometry.num:
        return f"management or colour of {where}"
    g = cache.geometry
    begin = slab.paddr(address) - within + g.obj_offset
    state = "allocated" if is_live(slab, begin) else "free"
    return f"byte {within - g.obj_offset} of object {index} ({state}) of {where}"


def users(slab: "SlabAllocator", cache: "Cache", begin: int) -> tuple[str, ...]:
    """The noted last caller of the object whose stride begins there."""
    g = cache.geometry
    if not g.flags & SLAB_STORE_USER:
        return ()
    word = slab.config.word
    raw = slab.ram.read(slab.paddr(begin) + g.buffer_size - word, word)
    site = int.from_bytes(raw, "little")
    return (f"Last user: {slab.users[site]}",) if 0 < site < len(slab.users) else ()


def report(slab: "SlabAllocator", what: str, address: int, code: int) -> ObjectError:
    """Error for a code of `slab_debug`."""
    kind, text = _KINDS.get(code, (BadPointerError, f"code {code}"))
    m = slab.tables.slab[0]
    where = f"{what}({address:#x}): {text}"
    found = locate(slab, address)
    if found is None:
        return kind(f"{where}; {owner_text(slab, address)}", address=address)
    cache, head, index, within = found
    g = cache.geometry
    begin = address - within
    offset = within - g.obj_offset
    parts = [
        where,
        f"object {begin + g.obj_offset:#x} ({index} of {g.num})"
        + (f" {offset:+d}" if offset else ""),
        f"cache {cache.name} (object {g.obj_size}, stride {g.buffer_size})",
        f"slab at frame {head:#x}, {int(slab.tables.slab_frames[head]['inuse'])} in use",
    ]
    if code in {db.RED_ZONE, db.POISON_OVERWRITTEN}:
        offset = int(m["error_offset"])
        found_byte, wanted = int(m["error_found"]), int(m["error_expected"])
        parts.append(f"offset {offset}: {found_byte:#04x} instead of {wanted:#04x}")
        if code == db.POISON_OVERWRITTEN and (found_byte ^ wanted).bit_count() == 1:
            parts.append("single bit error")
    last = users(slab, cache, begin)
    parts += last
    return kind(
        "; ".join(parts),
        address=begin + g.obj_offset,
        cache=cache.name,
        slab=head,
        offset=offset,
        last_users=last,
    )


def attributes(slab: "SlabAllocator", cache: "Cache") -> dict[str, str]:
    """What is known of a cache, under the names that /sys/kernel/slab has for SLUB."""
    g = cache.geometry
    row = next(row for row in slabinfo_rows(slab) if row.name == cache.name)
    found = {
        "align": str(g.align),
        "batchcount": str(row.batchcount),
        "colour": str(g.colour),
        "colour_off": str(g.colour_off),
        "ctor": getattr(cache.ctor, "__name__", "") if cache.ctor else "",
        "destroy_by_rcu": str(int(bool(g.flags & SLAB_TYPESAFE_BY_RCU))),
        "hwcache_align": str(int(bool(g.flags & SLAB_HWCACHE_ALIGN))),
        "limit": str(row.limit),
        "object_size": str(g.obj_size),
        "objects": str(row.active_objs),
        "objs_per_slab": str(g.num),
        "off_slab": str(int(bool(cache.flags & CFLGS_OFF_SLAB or g.off_slab))),
        "order": str(g.gfporder),
        "poison": str(int(bool(g.flags & SLAB_POISON))),
        "reclaim_account": str(int(bool(g.flags & SLAB_RECLAIM_ACCOUNT))),
        "red_zone": str(int(bool(g.flags & SLAB_RED_ZONE))),
        "sharedfactor": str(row.sharedfactor),
        "slab_mgmt": str(g.slab_size),
        "slab_size": str(g.buffer_size),
        "slabs": str(row.num_slabs),
        "store_user": str(int(bool(g.flags & SLAB_STORE_USER))),
        "total_objects": str(row.num_objs),
    }
    for name, value in zip(
        ("listallocs", "maxobjs", "grown", "reaped", "error", "maxfreeable", "nodeallocs",
         "remotefrees", "alienoverflow", "allochit", "allocmiss", "freehit", "freemiss"),
        row.statistics[0] + row.statistics[1],
        strict=True,
    ):  # fmt: skip
        found[name] = str(value)
    return found
