# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of the start-up that the running kernel gives back: from the lines of a log.

Each line tells how much came back; where it lies follows from the image and the initial RAM disk.
Watermarks and per-CPU sizes are computed by the first initcalls: what comes later leaves them.

Linux: free_reserved_area(), mm/page_alloc.c; free_initmem(), free_initrd_mem(),
arch/x86/mm/init.c, init/initramfs.c, arch/arm64/mm/init.c (6.1)
"""

from physmem.boot.boot import Boot
from physmem.boot.booted import LateFree
from physmem.boot.image_layout import ImagePlace, flat_image_place, pc_image_place
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import Freed, Moment, RamdiskMoved, Step


def late_frees(boot: Boot, log: BootLog) -> tuple[LateFree, ...]:
    """What the lines "Freeing ..." of a log give back, in order."""
    found: list[LateFree] = []
    initcalls = False
    initrd = boot.hardware.initrd
    locks_kib = next((e.kib for e in log.events if isinstance(e, Freed) and _locks(e)), 0)
    for event in log.events:
        if isinstance(event, Moment) and event.step is Step.INITCALLS:
            initcalls = True
        elif isinstance(event, RamdiskMoved):
            initrd = event.start, event.end
        elif isinstance(event, Freed):
            place = _place(boot, event, initrd, locks_kib)
            if place is None:
                boot.assumptions.append(
                    f"line {event.line}: where the {event.kib} KiB of {event.what!r} lie is not"
                    " known; they are left out"
                )
                continue
            found.append(late_free(boot, event.what, place, after_marks=initcalls))
    return tuple(found)


def late_free(boot: Boot, what: str, place: ImagePlace, *, after_marks: bool) -> LateFree:
    """Frames wholly inside a place."""
    shift = boot.geometry.page_shift
    start, end = -(-place.start >> shift), place.end >> shift
    return LateFree(what, start, max(start, end), after_marks, place.exact)


def _locks(event: Freed) -> bool:
    return "SMP alternatives" in event.what


def _place(
    boot: Boot, event: Freed, initrd: tuple[int, int] | None, locks_kib: int
) -> ImagePlace | None:
    size = event.kib << 10
    image = boot.hardware.image
    if "initrd" in event.what:
        if initrd is None:
            return None
        # the log's size counts: whether the last page is freed as a whole differs by architecture
        start = initrd[0] & -boot.geometry.page_size
        return ImagePlace(start, start + size)
    if image is None or not ("kernel" in event.what or "decrypted" in event.what or _locks(event)):
        return None
    if not boot.hardware.e820:
        return flat_image_place(image, size)
    place = pc_image_place(image, event.what, size, boot.config.nosave_pages)
    if "initmem" in event.what or event.what == "unused kernel":
        below = locks_kib << 10
        return ImagePlace(place.start - below, place.end - below, exact=locks_kib > 0)
    return place
