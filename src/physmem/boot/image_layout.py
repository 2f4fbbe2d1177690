# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in the kernel's image lies what a running kernel gives back.

A log tells how much is freed, not where. The order of the sections in the linker script and the
sizes of the memory line give the place.

Linux: arch/x86/kernel/vmlinux.lds.S, arch/arm64/kernel/vmlinux.lds.S (6.1)
"""

from dataclasses import dataclass

from physmem.firmware.platform import KernelImage

_PMD = 2 << 20
_SEGMENT = 64 << 10
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """Bytes [start, end) of the image; `exact`: the layout leaves no other place."""

    start: int
    end: int
    exact: bool = True


def pc_image_place(image: KernelImage, what: str, size: int, nosave_pages: int) -> ImagePlace:
    """Place of what a PC gives back.

    Text, read-only data and data each start on a 2 MiB boundary (64 bits), so that gaps remain;
    then come init memory, the alternatives for one CPU, `nosave_pages` pages, and the bss, whose
    last 2 MiB are for decrypted memory.

    Parameters
    ----------
    what : text of the log's line
    size : bytes that it tells

    Examples
    --------
    >>> image = KernelImage(start=1 << 24, end=0x3800000, code_kib=14343, rodata_kib=8328,
    ...     init_kib=2596, bss_kib=5460)
    >>> [hex(pc_image_place(image, what, size, 1).start >> 12) for what, size in (
    ...     ("SMP alternatives", 0x9000), ("unused decrypted", 0x1fd000),
    ...     ("unused kernel image (text/rodata gap)", 0x1fe000),
    ...     ("unused kernel image (rodata/data gap)", 0x1de000))]
    ['0x32a1', '0x3603', '0x1e02', '0x2822']
    """
    bss = image.end - (image.bss_kib << 10)
    locks_end = bss - nosave_pages * _PAGE
    code_end = _up(image.start + (image.code_kib << 10), _PAGE)
    rodata = _up(code_end, _PMD)
    rodata_end = rodata + (image.rodata_kib << 10)
    if "alternatives" in what:
        return ImagePlace(locks_end - size, locks_end)
    if "decrypted" in what:
        return ImagePlace(image.end - size, image.end)
    if "text/rodata" in what:
        return ImagePlace(code_end, code_end + size, code_end + size == rodata)
    if "rodata/data" in what:
        end = _up(rodata_end, _PMD)
        return ImagePlace(end - size, end, end - size == rodata_end)
    # init memory ends where the alternatives begin; how large those are only their line tells
    return ImagePlace(locks_end - size, locks_end, exact=False)


def image_gaps(image: KernelImage) -> dict[str, int]:
    """Bytes between the parts of an image whose parts start on 2 MiB boundaries.

    Examples
    --------
    >>> image = KernelImage(start=1 << 24, end=0x3800000, code_kib=14343, rodata_kib=8328)
    >>> {name: size >> 10 for name, size in image_gaps(image).items()}
    {'text/rodata': 2040, 'rodata/data': 1912}
    """
    code_end = _up(image.start + (image.code_kib << 10), _PAGE)
    rodata = _up(code_end, _PMD)
    rodata_end = rodata + (image.rodata_kib << 10)
    return {"text/rodata": rodata - code_end, "rodata/data": _up(rodata_end, _PMD) - rodata_end}


def flat_image_place(image: KernelImage, size: int) -> ImagePlace:
    """Place of init memory where it follows the read-only data, on a 64 KiB boundary (arm64).

    Examples
    --------
    >>> image = KernelImage(start=0x40210000, end=0x41CA0000, code_kib=12032, rodata_kib=7808)
    >>> hex(flat_image_place(image, 4608 << 10).start)
    '0x41580000'
    """
    if image.init_end - image.init_start == size:
        return ImagePlace(image.init_start, image.init_end)
    # the first page tables lie between
    after = image.start + (image.code_kib + image.rodata_kib << 10) + _PAGE
    start = _up(after, _SEGMENT)
    start = min(start, image.end - size)
    return ImagePlace(start, start + size, exact=False)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
