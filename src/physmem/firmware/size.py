# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and addresses as people and the kernel's command line write them."""

import re
from fractions import Fraction

from physmem.lib.errors import BadInputError, BadMachineError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_SIZE = re.compile(
    r"\s*(0x[0-9a-f]{1,16}|\d{1,30}(?:\.\d{1,9})?)\s*(?:([KMGTPE]?)(?:I?B)?)\s*", re.IGNORECASE
)
_MEMPARSE = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGTPEkmgtpe]?)")


def parse_size(size: str | int) -> int:
    """Bytes of a size: a number, or text such as "512 MiB", "3.5g", "0x1000" (powers of 1024).

    Raises
    ------
    BadMachineError
        No size.

    Examples
    --------
    >>> parse_size("512 MiB") == parse_size("512m") == parse_size(512 << 20)
    True
    """
    if isinstance(size, int) and not isinstance(size, bool):
        return int(size)
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise BadMachineError(f"size {size!r}: write one such as 512MiB, 1GiB or 0x1000")
    digits = match[1]
    number = int(digits, 16) if digits[:2] in {"0x", "0X"} else Fraction(digits)
    return int(number * (1 << _UNITS[match[2].upper()]))


def memparse(text: str) -> tuple[int, str]:
    """Number with an optional unit at the start of a text, and the rest of the text.

    A leading 0x means hexadecimal, a leading 0 octal, as in C.

    Linux: memparse(), lib/cmdline.c (6.1)

    Raises
    ------
    BadInputError
        The text does not start with a number.

    Examples
    --------
    >>> memparse("64M@0x10000000")
    (67108864, '@0x10000000')
    >>> memparse("010")
    (8, '')
    """
    match = _MEMPARSE.match(text)
    if match is None:
        raise BadInputError(f"{text!r} does not start with a size such as 512M, 4G or 0x1000")
    digits = match[1]
    base = 16 if digits[:2] in {"0x", "0X"} else 8 if digits[0] == "0" else 10
    try:
        number = int(digits, base)
    except ValueError:
        message = f"{digits!r}: a number that starts with 0 is octal and has no digit 8 or 9"
        raise BadInputError(message) from None
    return number << _UNITS[match[2].upper()], text[match.end() :]
