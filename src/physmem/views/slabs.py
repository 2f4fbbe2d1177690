# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts about caches: the busiest ones, what they waste, which blocks they pin."""

from collections.abc import Iterable

from physmem.slab.owners import BlockPins, Pin
from physmem.slab.rows import CacheRow
from physmem.slab.waste import CacheWaste


def slabtop(rows: Iterable[CacheRow], count: int = 20) -> str:
    """Totals, then the caches with the most memory, as slabtop shows them.

    Examples
    --------
    >>> print(slabtop([CacheRow("dentry", 5, 21, 192, 21, 1, num_slabs=1)]).splitlines()[0])
     Active / Total Objects (% used)    : 5 / 21 (23.8%)
    """
    caches = [row for row in rows if row.num_slabs]
    active, total = sum(r.active_objs for r in caches), sum(r.num_objs for r in caches)
    slabs, busy = sum(r.num_slabs for r in caches), sum(r.active_slabs for r in caches)
    size = sum(r.num_objs * r.objsize for r in caches)
    used = sum(r.active_objs * r.objsize for r in caches)

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole if whole else 100.0:.1f}%"

    def kib(number: int) -> str:
        return f"{number / 1024:.2f}K"

    lines = [
        f" Active / Total Objects (% used)    : {active} / {total} ({share(active, total)})",
        f" Active / Total Slabs (% used)      : {busy} / {slabs} ({share(busy, slabs)})",
        f" Active / Total Size (% used)       : {kib(used)} / {kib(size)} ({share(used, size)})",
        "",
        "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME",
    ]
    caches.sort(key=lambda row: (-row.frames, row.name))
    for row in caches[:count]:
        percent = 100 * row.active_objs // max(row.num_objs, 1)
        lines.append(
            f"{row.num_objs:6d} {row.active_objs:6d} {percent:3d}% {row.objsize / 1024:7.2f}K"
            f" {row.num_slabs:6d} {row.objperslab:8d} {row.frames * 4:9d}K {row.name}"
        )
    return "\n".join(lines) + "\n"


def waste_text(accounts: Iterable[CacheWaste]) -> str:
    """Bytes of each cache, and of all together."""
    found = list(accounts)
    fields = ("total", "used", "internal", "left_over", "partial", "per_cpu")
    total = CacheWaste("all", *(sum(getattr(each, name) for each in found) for name in fields))
    lines = ["cache                 total    used internal left-over partial per-cpu  (KiB)"]
    for each in [*found, total]:
        numbers = [f"{getattr(each, name) / 1024:.1f}" for name in fields]
        lines.append(
            f"{each.name:<20s} {numbers[0]:>7s} {numbers[1]:>7s} {numbers[2]:>8s}"
            f" {numbers[3]:>9s} {numbers[4]:>7s} {numbers[5]:>7s}"
        )
    return "\n".join(lines) + "\n"


def pins_text(pins: Iterable[Pin], pageblock_order: int) -> str:
    """Who pins which pageblock."""
    lines = []
    block = None
    for pin in pins:
        if pin.block != block:
            block = pin.block
            first = block << pageblock_order
            lines.append(
                f"block {block} (frames {first:#x} to {first + (1 << pageblock_order):#x})"
            )
        state = f"{pin.objects} objects in use" if pin.objects else "no object in use"
        lines.append(f"  {pin.cache:<24s} {pin.frames:5d} frames, {pin.slabs:4d} slabs, {state}")
    return "\n".join(lines) + "\n" if lines else "no slab\n"


def block_text(found: BlockPins) -> str:
    """Who pins one pageblock."""
    lines = [
        found.owner,
        (
            f"block {found.block} (frames {found.first:#x} to {found.end:#x}):"
            f" {found.slab_frames} frames of slabs ({found.idle_frames} of slabs without an object"
            f" in use), {found.other_frames} frames in use otherwise, {found.free_frames} free"
        ),
    ]
    for pin in found.pins:
        state = f"{pin.objects} objects in use" if pin.objects else "no object in use"
        lines.append(f"  {pin.cache:<24s} {pin.frames:5d} frames, {pin.slabs:4d} slabs, {state}")
    return "\n".join(lines) + "\n"


def attributes_text(attributes: dict[str, str]) -> str:
    """Attributes of a cache, as files of /sys/kernel/slab/NAME and what is in them.

    Examples
    --------
    >>> print(attributes_text({"slabs": "3 N0=3", "ctor": ""}), end="")
    slabs: 3 N0=3
    ctor:
    """
    return "".join(f"{name}: {value}".rstrip() + "\n" for name, value in attributes.items())
