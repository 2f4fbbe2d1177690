# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6.24 does about memory once it runs: watermarks, reserves, and memory that comes back.

Linux: init_per_zone_pages_min(), mm/page_alloc.c; populate_rootfs(), init/initramfs.c;
free_init_pages(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)
"""

from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.booted import LateFree
from physmem.boot.mem_init import pages_by_zone
from physmem.boot.mem_init_bootmem import init_section
from physmem.boot.sizes import SizedZone, boot_watermarks, lowmem_reserve
from physmem.boot.zones import is_highmem

POISON_FREE_INITMEM = 0xCC
"""What freed memory of the start-up is filled with, to catch who still uses it.

Linux: include/linux/poison.h (2.6.24)
"""


def init_per_zone_pages_min(boot: BootBootmem) -> None:
    """Work out min_free_kbytes, watermarks, and what zones keep from other requests.

    All follow present_pages, which memory that comes back does not change.

    Linux: init_per_zone_pages_min(), mm/page_alloc.c (2.6.24), a device_initcall
    """
    zones = boot.made_zones
    sized = [
        SizedZone(
            nid=node.nid,
            index=zone.index,
            name=zone.name,
            pages=zone.present,
            highmem=is_highmem(zone.index, zones.limits, zones.placement),
        )
        for node in zones.nodes
        for zone in node.zones
    ]
    marks = boot_watermarks(sized, zones.limits.normal, (boot.geometry, boot.features))
    boot.min_free_kbytes = marks.min_free_kbytes
    for zone, mark in zip(sized, marks.zones, strict=True):
        boot.marks[zone.nid, zone.index] = mark
    for node in zones.nodes:
        pages = [zone.present for zone in node.zones]
        table = lowmem_reserve(pages, zones.limits.names, boot.features)
        for zone_index, row in enumerate(table):
            boot.reserve[node.nid, zone_index] = tuple(row)


def free_initrd(boot: BootBootmem) -> None:
    """Give the initial RAM disk back, unpacked: before the watermarks are set.

    Linux: populate_rootfs(), free_initrd(), init/initramfs.c (2.6.24), a rootfs_initcall
    """
    if boot.setup.initrd is not None:
        _free_init_pages(boot, "initrd", boot.setup.initrd, after_marks=False)


def free_initmem(boot: BootBootmem) -> None:
    """Give the code and data of the start-up back.

    Linux: free_initmem(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)
    """
    _free_init_pages(boot, "unused kernel", init_section(boot.setup.image), after_marks=True)


def _free_init_pages(
    boot: BootBootmem, what: str, span: tuple[int, int], *, after_marks: bool
) -> None:
    """Fill pages with a pattern and free them one by one.

    Linux: free_init_pages(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)
    """
    shift = boot.page_shift
    start = span[0] >> shift
    end = start + (-(-(span[1] - span[0]) >> shift))
    if start >= end:
        return
    if boot.ram is not None:
        boot.ram.view(start << shift, end - start << shift)[:] = POISON_FREE_INITMEM
    boot.late.append(LateFree(what, start, end, after_marks))
    for ref, pages in pages_by_zone(boot.made_zones, [(start, end, -1)]).items():
        boot.managed[ref] += pages
        boot.totalram += pages
    boot.say(f"Freeing {what} memory: {span[1] - span[0] >> 10}k freed")
