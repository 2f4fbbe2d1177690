# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of the command line that are more than a number, and how each is written.

A text that cannot be read raises `ValueError` or `BadInputError`; `physmem.firmware.cmdline` knows
the option's name and says what to write.
"""

import re
from dataclasses import dataclass

from physmem.firmware.size import memparse


@dataclass(frozen=True, slots=True)
class Amount:
    """Value of kernelcore= or movablecore=: bytes, per cent of all memory, or "mirror".

    Examples
    --------
    >>> parse_amount("30%")
    Amount(size=0, percent=30, mirror=False)
    """

    size: int = 0
    percent: int = 0
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class MemMap:
    """One memmap= request.

    Attributes
    ----------
    kind : "exactmap", "limit" (a size alone), "@", "#", "$", "!" (add memory of that type), or "%"
    size, start : bytes
    old, new : for "%": type of memory to change, and what to; None: not given
    """

    kind: str
    size: int = 0
    start: int = 0
    old: int | None = None
    new: int | None = None


@dataclass(frozen=True, slots=True)
class CrashKernel:
    """Value of crashkernel=.

    Attributes
    ----------
    ranges : (start, end or None, size): the size for machines of so many bytes
    offset : where; None: anywhere
    place : "", "high" or "low"
    """

    ranges: tuple[tuple[int, int | None, int], ...]
    offset: int | None = None
    place: str = ""

    def size_for(self, ram: int) -> int:
        """Bytes to set aside on a machine with so much memory; 0: nothing.

        Examples
        --------
        >>> parse_crashkernel("512M-2G:64M,2G-:128M").size_for(1 << 30)
        67108864
        """
        for start, end, size in self.ranges:
            if start <= ram and (end is None or ram < end):
                return size
        return 0


@dataclass(frozen=True, slots=True)
class Cma:
    """Value of cma=: size, and where: [base, limit), 0 is anywhere."""

    size: int
    base: int = 0
    limit: int = 0
    fixed: bool = False


def whole(text: str) -> int:
    """Bytes of a text that is a size and nothing else."""
    number, rest = memparse(text)
    if rest:
        raise ValueError(rest)
    if number >= 1 << 64:
        raise ValueError(text)
    return number


def parse_amount(text: str, *, mirror: bool = False) -> Amount:
    """Linux: cmdline_parse_core(), mm/page_alloc.c (6.1)"""
    if mirror and text == "mirror":
        return Amount(mirror=True)
    number, rest = memparse(text)
    if rest == "%" and text.removesuffix("%").isdecimal():
        return Amount(percent=number)
    if rest or number >= 1 << 64:
        raise ValueError(text)
    return Amount(size=number)


def parse_memmap(text: str) -> MemMap:
    """Linux: parse_memmap_one(), arch/x86/kernel/e820.c (6.1)"""
    if text == "exactmap":
        return MemMap("exactmap")
    size, rest = memparse(text)
    if not size or size >= 1 << 64:
        raise ValueError(text)
    if not rest:
        return MemMap("limit", size)
    kind = rest[0]
    start, rest = memparse(rest[1:])
    if start + size > 1 << 64:
        raise ValueError(text)
    if kind in "@#$!" and not rest:
        return MemMap(kind, size, start)
    match = re.fullmatch(r"(?:-(0x[0-9a-fA-F]+|\d+))?(?:\+(0x[0-9a-fA-F]+|\d+))?", rest)
    if kind != "%" or match is None:
        raise ValueError(text)
    old, new = (None if number is None else whole(number) for number in match.groups())
    return MemMap(kind, size, start, old, new)


def parse_cma(text: str) -> Cma:
    """Linux: early_cma(), kernel/dma/contiguous.c (6.1)"""
    size, rest = memparse(text)
    if not rest:
        return Cma(size)
    if rest[0] != "@":
        raise ValueError(text)
    base, rest = memparse(rest[1:])
    if not rest:
        return Cma(size, base, base + size, fixed=True)
    if rest[0] != "-":
        raise ValueError(text)
    return Cma(size, base, whole(rest[1:]))


def parse_crashkernel(text: str) -> CrashKernel:
    """Linux: parse_crashkernel(), kernel/crash_core.c (6.1)"""
    body, comma, place = text.rpartition(",")
    if not comma or place not in {"high", "low"}:
        body, place = text, ""
    body, at, where = body.partition("@")
    offset = whole(where) if at else None
    ranges: list[tuple[int, int | None, int]] = []
    if ":" not in body:
        ranges.append((0, None, whole(body)))
    else:
        for part in body.split(","):
            span, _, size = part.partition(":")
            start, dash, end = span.partition("-")
            if not dash:
                raise ValueError(part)
            ranges.append((whole(start), whole(end) if end else None, whole(size)))
    return CrashKernel(tuple(ranges), offset, place)
