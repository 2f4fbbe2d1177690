# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory images read back: raw, LiME or ELF core, ours or another program's."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from physmem.lib.errors import BadInputError
from physmem.lib.ram import MAX_BYTES, Ram
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.kernel_layout import kernel_layout
from physmem.pgtable.reading import TableReader

_CHUNK = 1 << 24


@dataclass
class Image:
    """Bytes of a machine and what the file says about its page table.

    Attributes
    ----------
    format : name of the page-table format, or ""
    root : physical address of the kernel's top table, or -1
    """

    ram: Ram
    form: str
    format: str = ""
    root: int = -1

    def table(self, fmt: str = "", root: int | None = None) -> TableReader:
        """The page table, as the file or the caller names it.

        Raises
        ------
        BadInputError
            Neither tells format and root.
        """
        name, top = fmt or self.format, self.root if root is None else root
        if not name or top < 0:
            raise BadInputError(
                f"a {self.form} image does not tell where its page table is: give its format and"
                " the physical address of its top table"
            )
        return TableReader(page_table_format(name), self.ram, top, top)


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image; what is a hole in the file costs nothing.

    Raises
    ------
    BadInputError
        No such file, empty, cut off, or memory that is too large.
    """
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            return _read(file.fileno(), size, Path(path).name)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
    except struct.error:
        raise BadInputError(f"{path}: cut off inside a header") from None


def _read(fd: int, size: int, name: str) -> Image:
    magic = os.pread(fd, 4, 0)
    if magic == b"\x7fELF":
        return _elf(fd, size, name)
    if magic == b"EMiL":
        return _lime(fd, size, name)
    if not size:
        raise BadInputError(f"{name}: empty")
    return Image(_load(fd, name, [(0, 0, size)], size), "raw")


def _load(fd: int, name: str, parts: list[tuple[int, int, int]], size: int) -> Ram:
    """Memory from parts of a file: (offset, physical address, bytes)."""
    end = max((paddr + count for _, paddr, count in parts), default=0)
    if not 0 < end <= MAX_BYTES:
        raise BadInputError(f"{name}: no memory in it, or too much: it ends at {end:#x}")
    if any(offset + count > size for offset, _, count in parts):
        raise BadInputError(f"{name}: cut off")
    ram = Ram(end)
    for offset, paddr, count in parts:
        at, stop = offset, offset + count
        while at < stop:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
                hole = min(os.lseek(fd, at, os.SEEK_HOLE), stop)
            except OSError:  # no data behind it
                break
            while at < hole:
                data = os.pread(fd, min(_CHUNK, hole - at), at)
                ram.write(paddr + at - offset, data)
                at += len(data)
    return ram


def _lime(fd: int, size: int, name: str) -> Image:
    parts = []
    at = 0
    while at < size:
        magic, _, start, last, _ = struct.unpack("<IIQQQ", os.pread(fd, 32, at))
        if magic != 0x4C694D45 or last < start:
            raise BadInputError(f"{name}: no LiME header at offset {at:#x}")
        parts.append((at + 32, start, last + 1 - start))
        at += 32 + last + 1 - start
    return Image(_load(fd, name, parts, size), "lime")


def _elf(fd: int, size: int, name: str) -> Image:
    head = os.pread(fd, 64, 0)
    if head[4:6] != b"\x02\x01":
        raise BadInputError(f"{name}: only ELF files of 64 bits, little endian, are read")
    machine, offset, count = (
        struct.unpack_from("<H", head, 18)[0],
        struct.unpack_from("<Q", head, 32)[0],
        struct.unpack_from("<H", head, 56)[0],
    )
    parts, text = [], ""
    for n in range(count):
        kind, _, at, _, paddr, filled, *_ = struct.unpack(
            "<IIQQQQQQ", os.pread(fd, 56, offset + 56 * n)
        )
        if kind == 1 and filled:
            parts.append((at, paddr, filled))
        elif kind == 4:
            text = os.pread(fd, min(filled, 1 << 20), at).decode("latin-1")
    image = Image(_load(fd, name, parts, size), "vmcore")
    image.format = _format(machine, text)
    top = re.search(r"SYMBOL\(swapper_pg_dir\)=([0-9a-f]+)", text)
    if image.format and top:
        image.root = int(top[1], 16) - kernel_layout(page_table_format(image.format)).image
    return image


def _format(machine: int, text: str) -> str:
    """Name of the format by the machine and VMCOREINFO, or "" if it cannot be told."""

    def number(key: str) -> int:
        found = re.search(rf"NUMBER\({key}\)=(0x[0-9a-f]+|\d+)", text)
        return int(found[1], 0) if found else 0

    if machine == 3:
        return "x86_32_pae" if "CONFIG_X86_PAE=y" in text else "x86_32"
    if machine == 62:
        return "x86_64_la57" if number("pgtable_l5_enabled") else "x86_64"
    bits = number("VA_BITS")
    if machine == 243 and bits:
        return f"riscv64_sv{bits}"
    page = re.search(r"PAGESIZE=(\d+)", text)
    if machine == 183 and bits and page:
        return f"arm64_{int(page[1]) >> 10}k_{bits}"
    return ""
