# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a plausible machine of each architecture has its memory: tables, no code.

The figures are those of QEMU's machines ("pc" for x86, "virt" for arm64 and riscv64) with Debian's
kernels of 6.1.
"""

from dataclasses import dataclass, replace

from physmem.lib.errors import BadMachineError

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class KernelImage:
    """The kernel's own frames, and the sizes that it prints.

    Attributes
    ----------
    start, end : physical bytes `_text` and `_end` (half open)
    code_kib, rwdata_kib, rodata_kib, init_kib, bss_kib : figures of the "Memory:" line
    brk_bytes : bytes behind `end` taken from the brk area before the page allocator runs (x86)
    init_start, init_end : physical bytes that `free_initmem()` gives back; 0, 0: not known
    boot_tables : first page tables within the image, given up once others exist (arm64)

    Examples
    --------
    >>> KernelImage(start=1 << 24, end=0x3800000).size >> 20
    40
    """

    start: int
    end: int
    code_kib: int = 0
    rwdata_kib: int = 0
    rodata_kib: int = 0
    init_kib: int = 0
    bss_kib: int = 0
    brk_bytes: int = 0
    init_start: int = 0
    init_end: int = 0
    boot_tables: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Bytes from `_text` to `_end`."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a machine of one architecture looks like when nobody says otherwise.

    Attributes
    ----------
    firmware : "e820" (a PC) or "device tree"
    ram_base : physical byte where memory starts
    max_bytes : largest machine
    lowmem_split : a machine of at least so many bytes leaves a hole for devices ...
    lowmem_bytes : ... from this byte up to 4 GiB; 0: no hole
    firmware_bytes : bytes at the end of low memory that the firmware keeps
    initrd_gap : bytes between the initial RAM disk and the end of low memory (a PC)
    initrd_bytes : size of a typical one
    hyper_transport : the firmware reserves the last 12 GiB below 1 TiB
    image : a typical kernel of 6.1
    dtb_bytes : size of the device tree; it lies on the first 2 MiB boundary behind the initrd
    """

    firmware: str
    ram_base: int = 0
    max_bytes: int
    lowmem_split: int = 0
    lowmem_bytes: int = 0
    firmware_bytes: int = 0
    initrd_gap: int = 0
    initrd_bytes: int = 0x17F000
    hyper_transport: bool = False
    image: KernelImage
    dtb_bytes: int = 0


_X86_IMAGE = KernelImage(
    start=0x1000000,
    end=0x3800000,
    code_kib=14343,
    rwdata_kib=2327,
    rodata_kib=8328,
    init_kib=2596,
    bss_kib=5460,
    brk_bytes=0x11000,
)
_X86 = Platform(
    firmware="e820",
    max_bytes=1 << 46,
    lowmem_split=0xE0000000,
    lowmem_bytes=0xC0000000,
    firmware_bytes=0x26000,
    initrd_gap=0x30000,
    hyper_transport=True,
    image=_X86_IMAGE,
)
_I386_IMAGE = KernelImage(
    start=0x1000000,
    end=0x1EE3000,
    code_kib=9323,
    rwdata_kib=1242,
    rodata_kib=3188,
    init_kib=908,
    bss_kib=464,
    brk_bytes=0x10000,
)
_I386 = Platform(
    firmware="e820",
    max_bytes=1 << 36,
    lowmem_split=0xE0000000,
    lowmem_bytes=0xC0000000,
    firmware_bytes=0x26000,
    initrd_gap=0x30000,
    initrd_bytes=0x183000,
    image=_I386_IMAGE,
)
_ARM64 = Platform(
    firmware="device tree",
    ram_base=GIB,
    max_bytes=1 << 47,
    initrd_bytes=0x163000,
    image=KernelImage(
        start=0x40210000,
        end=0x41CA0000,
        code_kib=12032,
        rwdata_kib=2020,
        rodata_kib=7808,
        init_kib=4608,
        bss_kib=587,
        init_start=0x41580000,
        init_end=0x41A00000,
        boot_tables=(0x41C8D000, 0x41C92000),
    ),
    dtb_bytes=MIB,
)
_RISCV = Platform(
    firmware="device tree",
    ram_base=2 * GIB,
    max_bytes=1 << 46,
    initrd_bytes=0x163000,
    image=KernelImage(
        start=0x80200000,
        end=0x81C00000,
        code_kib=8192,
        rwdata_kib=5120,
        rodata_kib=4096,
        init_kib=2224,
        bss_kib=512,
    ),
    dtb_bytes=0x2000,
)

PLATFORMS: dict[str, Platform] = {
    "x86_64": _X86,
    "x86_64-la57": replace(_X86, max_bytes=1 << 52),
    "i386": _I386,
    "i386-pae": _I386,
    "arm64": _ARM64,
    "arm64-16k": _ARM64,
    "arm64-64k": _ARM64,
    "riscv64": _RISCV,
    "riscv64-sv39": replace(_RISCV, max_bytes=124 * GIB),
    "riscv64-sv57": replace(_RISCV, max_bytes=1 << 52),
}
"""Platform of each architecture; `physmem.arch` describes the same names."""


def platform(arch: str) -> Platform:
    """Platform of an architecture.

    Raises
    ------
    BadMachineError
        No such architecture.

    Examples
    --------
    >>> platform("arm64").ram_base >> 30
    1
    """
    try:
        return PLATFORMS[arch]
    except (KeyError, TypeError):
        known = ", ".join(PLATFORMS)
        raise BadMachineError(f"architecture {arch!r} is not known; known are {known}") from None
