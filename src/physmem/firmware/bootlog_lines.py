# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's boot log as plain lines: read from a file, without time stamps and other prefixes."""

import lzma
import re
from dataclasses import dataclass
from pathlib import Path

from physmem.lib.errors import BadInputError

MAX_BYTES = 256 << 20
"""More than any log buffer holds (log_buf_len goes up to 2 GiB, but no log is that long)."""

_PREFIX = re.compile(
    r"(?:<\d{1,3}>|\w+ *: *\w+ *: (?=\[)|.{0,120}?\bkernel: )?"  # raw priority, dmesg -x, journal
    r"(?:\[ *\d+\.\d{3,9}(?: <[ .\d]+>)?\] ?"  # time stamp; dmesg -d
    r"|\[<[ .\d]+>\] ?|\[ *\+\d+\.\d+\] ?"  # time since the line before
    r"|\[[^][]{3,40} \d\d:\d\d[^][]{0,40}\] ?"  # date and time: dmesg -T, -e
    r"|\d{4}-\d\d-\d\dT[\d:.,]+(?:Z|[+-]\d\d:?\d\d)? )?"  # dmesg --time-format iso
    r"(?:\[ *[TC]\d+\] ?)?"  # task or CPU that wrote the line
)
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[A-Za-z])")
"""Colours and clearings of a terminal: from dmesg --color, or a serial console."""
_KNOWN = re.compile(
    r"Linux version |Command line: |BIOS-e820: |memblock_|MEMBLOCK configuration|Zone ranges:"
    r"|Early memory node ranges|Memory: \d+K/|Built \d+ zonelists|Booting Linux"
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log: its number in the file, counted from 1, and its text without prefix."""

    number: int
    text: str


def read_text(path: Path) -> str:
    """Text of a log file, also of one that xz has packed.

    Raises
    ------
    BadInputError
        The file is missing, unreadable, no text, or far too long.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(6) == b"\xfd7zXZ\x00"
            plain.seek(0)
            if packed:
                with lzma.open(plain) as unpacked:
                    raw = unpacked.read(MAX_BYTES + 1)
            else:
                raw = plain.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise BadInputError(f"{path} is a folder; name the log file in it (dmesg.txt)") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInputError(f"{path}: {reason}; save a log with: dmesg > {path.name}") from None
    if len(raw) > MAX_BYTES:
        raise BadInputError(f"{path} is longer than {MAX_BYTES >> 20} MiB: no boot log")
    if b"\x00" in raw[:4096]:
        raise BadInputError(f"{path} is no text; save a log with: dmesg > {path.name}")
    return raw.decode("utf-8", "replace")


def log_lines(text: str, name: str = "the log") -> list[LogLine]:
    r"""Lines of a log without their prefixes; empty ones are left out.

    Parameters
    ----------
    name : how to call the log in messages

    Raises
    ------
    BadInputError
        The text is empty or holds no line of a starting kernel.

    Examples
    --------
    >>> log_lines("[    0.000000] Zone ranges:\n[    0.000000][    T0]   DMA32    empty\n")
    [LogLine(number=1, text='Zone ranges:'), LogLine(number=2, text='  DMA32    empty')]
    """
    lines = []
    known = False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _ESCAPE.sub("", raw.rstrip("\r")) if "\x1b" in raw else raw.rstrip("\r")
        match = _PREFIX.match(line)
        plain = line[match.end() :] if match else line
        if plain.strip():
            lines.append(LogLine(number, plain))
            known = known or _KNOWN.search(plain) is not None
    if not lines:
        raise BadInputError(f"{name} is empty; save a log with: dmesg > FILE")
    if not known:
        raise BadInputError(
            f"{name}: line {lines[0].number}: {lines[0].text[:60]!r} and the {len(lines) - 1} lines"
            " after it are no boot log of Linux; save one with: dmesg > FILE"
        )
    return lines
