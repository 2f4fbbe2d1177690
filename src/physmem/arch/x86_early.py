# SPDX-License-Identifier: GPL-2.0-or-later
"""x86 up to the direct map, in kernels with memblock: reservations and the memory itself.

Linux: setup_arch(), early_reserve_memory(), arch/x86/kernel/setup.c (6.1)
"""

from physmem.arch.setup import Setup
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.e820 import E820Type
from physmem.firmware.e820_table import E820Table
from physmem.firmware.hardware import Hardware
from physmem.firmware.platform import KernelImage
from physmem.lib.errors import BootAllocError

_PAGE = 4096
_MIB = 1 << 20
_BIOS_START_MIN = 0x20000
_BIOS_START_MAX = 0x9F000
_SANDY_BRIDGE_PAGES = (0x20050000, 0x20110000, 0x20130000, 0x20138000, 0x40004000)


def early_reserve_memory(memblock: Memblock, hardware: Hardware, image: KernelImage) -> None:
    """Take what must not be used, before there is any memory.

    Linux: early_reserve_memory(), arch/x86/kernel/setup.c (6.1)

    Examples
    --------
    >>> memblock = Memblock()
    >>> machine = Hardware.of(memory="512MiB")
    >>> early_reserve_memory(memblock, machine, machine.image)
    >>> for start, end, _ in memblock.reserved_ranges(): print(hex(start), hex(end))
    0x0 0x10000
    0x9f000 0x100000
    0x1000000 0x3800000
    0x1fe51000 0x1ffd0000
    """
    caller = "setup_arch"
    memblock.reserve(image.start, image.size, caller=caller)
    # BIOSes scribble there, and page tables could leak secrets from there (L1TF)
    memblock.reserve(0, 64 << 10, caller=caller)
    if hardware.initrd is not None:
        start, end = hardware.initrd
        memblock.reserve(start, _page_up(end) - start, caller=caller)
    for data in hardware.setup_data:
        memblock.reserve(data.base, data.size, caller=caller)
    bios = bios_start(hardware)
    memblock.reserve(bios, _MIB - bios, caller=caller)
    if hardware.sandy_bridge_graphics:
        for page in _SANDY_BRIDGE_PAGES:
            memblock.reserve(page, _PAGE, caller=caller)


def bios_start(hardware: Hardware) -> int:
    """First byte of what the BIOS keeps below 1 MiB.

    Linux: reserve_bios_regions(), arch/x86/kernel/ebda.c (6.1)

    Examples
    --------
    >>> hex(bios_start(Hardware(bios_kib=639))), hex(bios_start(Hardware(bios_kib=512)))
    ('0x9f000', '0x80000')
    """
    start = hardware.bios_kib << 10
    if not _BIOS_START_MIN <= start <= _BIOS_START_MAX:
        start = _BIOS_START_MAX
    if _BIOS_START_MIN <= hardware.ebda < start:
        start = hardware.ebda
    return start


def brk_range(setup: Setup) -> tuple[int, int]:
    """The brk area as far as it is used when the image's end is fixed: tables come last in it."""
    needed = (setup.arch.init_pgt_buf_pages + 1) * _PAGE
    start = setup.image.end
    return start, start + (setup.image.brk_bytes or needed)


def pgt_buf(setup: Setup) -> tuple[int, int]:
    """Pages of the brk area set aside for page tables.

    Linux: early_alloc_pgt_buf(), arch/x86/mm/init.c (6.1)
    """
    start, end = brk_range(setup)
    return max(start, end - setup.arch.init_pgt_buf_pages * _PAGE), end


def reserve_brk(setup: Setup) -> None:
    """Take the part of brk that is in use; the rest is given up.

    Linux: reserve_brk(), arch/x86/kernel/setup.c (6.1)
    """
    start, end = brk_range(setup)
    setup.boot.reserve(start, end - start, caller="setup_arch")
    setup.boot.set_current_limit(_MIB)


def memblock_setup(memblock: Memblock, table: E820Table, pa_bits: int = 64) -> None:
    """What the firmware calls memory becomes memory.

    Parameters
    ----------
    pa_bits : width of a physical address in the kernel; what ends beyond is left out

    Linux: e820__memblock_setup(), arch/x86/kernel/e820.c (6.1)

    Examples
    --------
    >>> memblock = Memblock()
    >>> table = E820Table(Hardware.of(memory="512MiB").e820)
    >>> memblock_setup(memblock, table)
    >>> [(hex(start), hex(end)) for start, end, _ in memblock.mem_ranges()]
    [('0x0', '0x9f000'), ('0x100000', '0x1ffda000')]
    """
    memblock.allow_resize()
    last = min(memblock.phys_addr_max, (1 << pa_bits) - 1)
    for entry in table.entries:
        if entry.end > last:
            # the end does not fit into the kernel's type for physical addresses
            continue
        if entry.type == E820Type.SOFT_RESERVED:
            memblock.reserve(entry.addr, entry.size, caller="e820__memblock_setup")
        if entry.type in {E820Type.RAM, E820Type.RESERVED_KERN}:
            memblock.add(entry.addr, entry.size, caller="e820__memblock_setup")
    memblock.trim_memory(_PAGE)


def reserve_real_mode(memblock: Memblock, hardware: Hardware, log: list[str]) -> None:
    """A place for the code that starts other CPUs; then nothing below 1 MiB is used at all.

    Linux: reserve_real_mode(), arch/x86/realmode/init.c (6.1)
    """
    size = _page_up(hardware.real_mode_bytes)
    if not memblock.phys_alloc_range(size, _PAGE, 0, _MIB, caller="reserve_real_mode"):
        log.append("No sub-1M memory is available for the trampoline")
    memblock.reserve(0, _MIB, caller="reserve_real_mode")


def initial_mapped(setup: Setup) -> int:
    """Physical byte up to which the entry code of x86-32 has mapped memory with small pages.

    Linux: mk_early_pgtbl_32(), arch/x86/kernel/head32.c; head_32.S (6.1)

    Examples
    --------
    >>> from physmem.arch.registry import arch_for
    >>> machine = Hardware.of(memory="1200MiB", arch="i386")
    >>> hex(initial_mapped(Setup(arch=arch_for("i386"), hardware=machine)))
    '0x2400000'
    """
    arch = setup.arch
    low_pages = (1 << 32) - arch.layout.page_offset >> 12
    # tables for all low memory twice: in the brk area, and as room to work behind it
    tables = low_pages >> arch.levels[-1].bits
    brk = (setup.arch.init_pgt_buf_pages + 16 + tables) * _PAGE
    end = setup.image.end + brk + tables * _PAGE
    pmd = 1 << arch.huge_shift
    return -(-end // pmd) * pmd


def reserve_initrd(setup: Setup) -> None:
    """The initial RAM disk stays where it is if that is mapped, else it is copied.

    Linux: reserve_initrd(), arch/x86/kernel/setup.c (6.1)

    Raises
    ------
    BootAllocError
        There is no place for it: the kernel panics.
    """
    if setup.initrd is None:
        return
    start, end = setup.initrd
    size, area_end = end - start, _page_up(end)
    setup.log.append(f"RAMDISK: [mem {start:#010x}-{area_end - 1:#010x}]")
    if setup.direct_map.is_mapped(start & -_PAGE, area_end & -_PAGE):
        return
    area = _page_up(size)
    limit = setup.direct_map.max_mapped
    place = setup.boot.phys_alloc_range(area, _PAGE, 0, limit, caller="setup_arch")
    if not place:
        raise BootAllocError(
            f"Cannot find place for new RAMDISK of size {size} (the kernel panics); "
            "give the machine more low memory or a smaller one"
        )
    new = f"[mem {place:#x}-{place + size - 1:#x}]"
    setup.log.append(f"Allocated new RAMDISK: {new}")
    setup.log.append(f"Move RAMDISK from [mem {start:#x}-{end - 1:#x}] to {new}")
    setup.initrd = (place, place + size)
    setup.boot.phys_free(start, area_end - start, caller="setup_arch")


def _page_up(value: int) -> int:
    return -(-value // _PAGE) * _PAGE
