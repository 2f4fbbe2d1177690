# SPDX-License-Identifier: GPL-2.0-or-later
"""setup_arch() of 2.6.24: the architecture's stages, one after the other, and what they leave.

Linux: setup_arch(), arch/x86/kernel/setup_32.c, arch/x86/kernel/setup_64.c (2.6.24)
"""

from collections.abc import Iterable, Sequence

from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.noted_bootmem import FIRMWARE
from physmem.firmware.e820 import E820Entry
from physmem.lib.errors import BadMachineError

PAGE_TABLES = "page tables"
_OWNERS = {"smp_alloc_memory": "code to start CPUs", "pagetable_init": PAGE_TABLES}
"""Who needs what a stage of setup_arch() takes, where it is not the firmware."""
_FOUR_GIB = 1 << 32
_LEAST_GAP = 4 << 20


def run_arch_stages(boot: BootBootmem) -> None:
    """Run all stages that the architecture has, in its order."""
    setup = boot.setup
    unknown = setup.limits
    for step in boot.arch.stages:
        before = setup.scratch.get("table_end", 0)
        regions, lines = len(setup.active_regions), len(setup.log)
        with boot.stage(step.name, step.text, _OWNERS.get(step.name, FIRMWARE)):
            step.run(setup)
            if setup.scratch.get("table_end", 0) != before:
                # found in the firmware's map, before bootmem is there to reserve it
                start, end = setup.scratch["table_start"], setup.scratch["table_end"]
                boot.bootmem.notes.append((start, end, PAGE_TABLES))
            if boot.ram is None and setup.limits is not unknown:
                boot.find_end_of_memory()
                _tell_all_regions(boot, lines)
            if len(setup.active_regions) != regions:
                _tell_regions(boot, lines)
    boot.distance = tuple(tuple(row) for row in setup.distance)
    _name_owners(boot)


def _tell_all_regions(boot: BootBootmem, since: int) -> None:
    """A 64-bit kernel notes all memory to find its end; nodes are found later.

    Linux: e820_register_active_regions(), arch/x86/kernel/e820_64.c (2.6.24)
    """
    table = boot.setup.e820_bootmem
    if table is None or not table.wide:
        return
    for start, end in table.active_regions():
        boot.node_map.add(0, start, end)
    boot.setup.log[since:since] = boot.node_map.lines
    boot.node_map.lines.clear()
    boot.node_map.clear()


def _tell_regions(boot: BootBootmem, since: int) -> None:
    """Memory of the nodes is noted before bootmem is set up on the first one."""
    for start, end, nid in boot.setup.active_regions:
        boot.node_map.add(nid, start, end)
    log = boot.setup.log
    at = next((n for n in range(since, len(log)) if log[n].startswith("Bootmem setup")), len(log))
    log[at:at] = boot.node_map.lines
    boot.node_map.lines.clear()


def _name_owners(boot: BootBootmem) -> None:
    """Say whose the early reservations are: the machine tells."""
    setup, notes = boot.setup, boot.bootmem.notes
    image = setup.image
    behind = max(image.end, boot.limits.min_low_pfn << boot.page_shift)
    notes.append((image.end, behind, PAGE_TABLES))
    notes.append((image.start, image.end, "kernel image"))
    if setup.scratch.get("table_end"):
        notes.append((setup.scratch["table_start"], setup.scratch["table_end"], PAGE_TABLES))
    for start, end in setup.node_data.values():
        notes.append((start, end, "NODE_DATA"))
    if setup.initrd is not None:
        notes.append((*setup.initrd, "initial RAM disk"))


def reserve_resources(boot: BootBootmem) -> None:
    """Records of the firmware's map, and where devices may have their registers.

    Linux: e820_reserve_resources(), e820_setup_gap(), arch/x86/kernel/e820_64.c;
    e820_register_memory(), arch/x86/kernel/e820_32.c (2.6.24)
    """
    table = boot.setup.e820_bootmem
    if table is None:
        raise BadMachineError("the firmware's map was not read yet; run the stages in order")
    if boot.config.resource_bytes:
        for _ in table.entries:
            boot.bootmem.alloc_low(boot.config.resource_bytes)
    found = pci_gap(table.entries)
    if found is None:
        boot.say(
            "PCI: Warning: Cannot find a gap in the 32bit address range",
            "PCI: Unassigned devices with 32bit resource registers may break!",
        )
    gap, size = found or ((boot.limits.max_pfn << boot.page_shift) + (1 << 20), 0x400000)
    width = 1 if table.wide else 8
    at = pci_start(gap, size)
    where = f"{at:0{width}x} (gap: {gap:0{width}x}:{size:0{width}x})"
    boot.say(f"Allocating PCI resources starting at {where}")


def pci_gap(entries: Sequence[E820Entry]) -> tuple[int, int] | None:
    """The largest hole below 4 GiB that the firmware's map leaves, (start, bytes); None: too small.

    Examples
    --------
    >>> gap = pci_gap([E820Entry(0x100000, 0x1FF00000), E820Entry(0xFFFF0000, 0x10000, 2)])
    >>> [hex(figure) for figure in gap], hex(pci_start(*gap))
    (['0x20000000', '0xdfff0000'], '0x30000000')

    Linux: e820_setup_gap(), arch/x86/kernel/e820_64.c; e820_register_memory(),
    arch/x86/kernel/e820_32.c (2.6.24)
    """
    last, best = _FOUR_GIB, (0, _LEAST_GAP)
    for entry in reversed(entries):
        if last > entry.end and last - entry.end > best[1]:
            best = entry.end, last - entry.end
        last = min(last, entry.addr)
    return best if best[1] > _LEAST_GAP else None


def pci_start(gap: int, size: int) -> int:
    """First address for devices: the hole's start, rounded up by the more the larger it is."""
    step = 1 << 20
    while size >> 4 > step:
        step += step
    return gap + step & -step


def ram_frames(boot: BootBootmem) -> Iterable[tuple[int, int]]:
    """Frames [start, end) that are memory, as the kernel's tests see it (holes left out).

    Linux: page_is_ram(), arch/x86/mm/init_32.c (2.6.24)
    """
    table = boot.setup.e820_bootmem
    if table is None:
        raise BadMachineError("the firmware's map was not read yet; run the stages in order")
    if table.wide:
        return [(memory.start_pfn, memory.end_pfn) for memory in boot.node_map.sorted()]
    end = boot.limits.max_pfn
    return [(start, min(last, end)) for start, last in table.ram_pfns() if start < end]
