# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory images for other programs: raw, LiME, ELF core of a crashed kernel.

Whatever was never written stays a hole in the file.

Linux: fs/proc/vmcore.c, kernel/crash_core.c (VMCOREINFO); LiME: github.com/504ensicsLabs/LiME
"""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from physmem.lib.errors import BadRequestError
from physmem.lib.output import replace_file
from physmem.lib.ram import Ram
from physmem.pgtable.format import Format
from physmem.pgtable.kernel_layout import kernel_layout
from physmem.pgtable.reading import TableReader

FORMS = ("raw", "lime", "vmcore")
_LIME_MAGIC = 0x4C694D45
_CHUNK = 1 << 24
_PAGE = 4096
_EM = {"x86_32": 3, "x86_64": 62, "arm64": 183, "riscv64": 243}
_PT_LOAD, _PT_NOTE = 1, 4
_NT_PRSTATUS = 1
Range = tuple[int, int]


def machine_number(fmt: Format) -> int:
    """The ELF machine of a format."""
    return next(number for name, number in _EM.items() if fmt.name.startswith(name))


def vmcoreinfo(table: TableReader, release: str = "6.1.0-physmem") -> str:
    """What a debugger must know of the kernel: the text of its VMCOREINFO note."""
    fmt = table.format
    layout = kernel_layout(fmt)
    lines = [f"OSRELEASE={release}", f"PAGESIZE={fmt.page_size}", "KERNELOFFSET=0"]
    lines.append(f"SYMBOL(swapper_pg_dir)={layout.image + table.root_high:x}")
    if fmt.name.startswith("x86_64"):
        lines.append("NUMBER(phys_base)=0")
        lines.append(f"NUMBER(pgtable_l5_enabled)={int(fmt.va_bits == 57)}")
    elif fmt.name == "x86_32_pae":
        lines.append("CONFIG_X86_PAE=y")
    elif fmt.name.startswith("arm64"):
        lines.append(f"NUMBER(VA_BITS)={fmt.va_bits}")
        lines.append(f"NUMBER(TCR_EL1_T1SZ)=0x{64 - fmt.va_bits:x}")
        lines.append(f"NUMBER(kimage_voffset)=0x{layout.image:x}")
        lines.append("NUMBER(PHYS_OFFSET)=0x0")
    elif fmt.name.startswith("riscv64"):
        lines.append(f"NUMBER(VA_BITS)={fmt.va_bits}")
        lines.append(f"NUMBER(PAGE_OFFSET)=0x{layout.page_offset:x}")
        lines.append(f"NUMBER(va_kernel_pa_offset)=0x{layout.image:x}")
    return "\n".join(lines) + "\n"


def _used(ram: Ram, start: int, end: int) -> Iterator[Range]:
    """Parts of a range that may hold anything but zeros, in order."""
    parts = [*ram.written(), *ram.overlays()]
    for low, high in sorted(parts):
        if max(low, start) < min(high, end):
            yield max(low, start), min(high, end)


def _copy(ram: Ram, out: BinaryIO, bounds: Range, offset: int) -> None:
    """Write a range at an offset of the file, leaving holes."""
    start, end = bounds
    for low, high in _used(ram, start, end):
        for at in range(low, high, _CHUNK):
            data = ram.read(at, min(_CHUNK, high - at))
            out.seek(offset + at - start)
            out.write(data)


def _whole(ram: Ram, ranges: Iterable[Range] | None) -> list[Range]:
    found = sorted(ranges) if ranges is not None else [(0, ram.size)]
    if not found or any(not 0 <= a < b <= ram.size for a, b in found):
        raise BadRequestError(f"memory ranges {found}: must be inside [0, {ram.size:#x})")
    return found


def write_raw(ram: Ram, path: str | os.PathLike[str]) -> None:
    """Image whose offset is the physical address; holes stay holes."""
    with replace_file(path) as out:
        _copy(ram, out, (0, ram.size), 0)
        out.truncate(ram.size)


def write_lime(
    ram: Ram, path: str | os.PathLike[str], ranges: Iterable[Range] | None = None
) -> None:
    """LiME image: a header of 32 bytes and the bytes, range by range."""
    with replace_file(path) as out:
        at = 0
        for start, end in _whole(ram, ranges):
            out.seek(at)
            out.write(struct.pack("<IIQQQ", _LIME_MAGIC, 1, start, end - 1, 0))
            _copy(ram, out, (start, end), at + 32)
            at += 32 + end - start
        out.truncate(at)


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    def padded(text: bytes) -> bytes:
        return text + bytes(-len(text) % 4)

    head = struct.pack("<III", len(name) + 1, len(data), kind)
    return head + padded(name + b"\0") + padded(data)


def write_vmcore(
    table: TableReader,
    path: str | os.PathLike[str],
    ranges: Iterable[Range] | None = None,
    *,
    info: str | None = None,
) -> None:
    """ELF core as kdump writes it, with the page table's place in VMCOREINFO."""
    ram, fmt = table.ram, table.format
    parts = _whole(ram, ranges)
    text = vmcoreinfo(table) if info is None else info
    notes = _note(b"CORE", _NT_PRSTATUS, bytes(336)) + _note(b"VMCOREINFO", 0, text.encode())
    heads = 64 + 56 * (len(parts) + 1)
    first = -(-(heads + len(notes)) // _PAGE) * _PAGE
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 4, machine_number(fmt), 1, 0, 64, 0, 0, 64, 56, len(parts) + 1, 0, 0, 0
    )
    offset = kernel_layout(fmt).page_offset
    table_of = [(_PT_NOTE, 0, heads, 0, 0, len(notes), len(notes), 4)]
    at = first
    for start, end in parts:
        va = offset + start & (1 << 64) - 1
        table_of.append((_PT_LOAD, 7, at, va, start, end - start, end - start, _PAGE))
        at += end - start
    with replace_file(path) as out:
        out.write(header + b"".join(struct.pack("<IIQQQQQQ", *entry) for entry in table_of))
        out.write(notes)
        for (start, end), entry in zip(parts, table_of[1:], strict=True):
            _copy(ram, out, (start, end), entry[2])
        out.truncate(at)
