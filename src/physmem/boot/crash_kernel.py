# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory set aside for a second kernel that starts when the first one crashes.

Linux: reserve_crashkernel(), arch/x86/kernel/setup.c, arch/arm64/mm/init.c (6.1)
"""

from physmem.boot.boot import Boot

OWNER = "crash kernel"
_MIB = 20


def reserve_crashkernel(boot: Boot) -> None:
    """Follow crashkernel=: at the asked place, else as high as its low limit allows.

    Nothing is set aside where there is no room; the kernel says so and goes on.
    """
    memblock, arch = boot.memblock, boot.arch
    ram = memblock.phys_mem_size()
    for asked in boot.cmdline.crashkernel:
        size = asked.size_for(ram)
        if not size or asked.place == "low":  # a low part only comes with a high one
            continue
        size = -(-size // arch.page_size) * arch.page_size
        start, end, align = arch.crash_align, arch.crash_low_max, arch.crash_align
        if asked.offset:
            start, end, align = asked.offset, asked.offset + size, 1
        elif asked.place == "high":
            end = max(memblock.end_of_dram(), end)
        boot.owners.purpose = OWNER
        found = memblock.phys_alloc_range(size, align, start, end, caller="reserve_crashkernel")
        boot.owners.purpose = ""
        if not found:
            boot.say("crashkernel reservation failed - No suitable area found.")
            continue
        boot.say(
            f"Reserving {size >> _MIB}MB of memory at {found >> _MIB}MB for crashkernel"
            f" (System RAM: {ram >> _MIB}MB)"
        )
