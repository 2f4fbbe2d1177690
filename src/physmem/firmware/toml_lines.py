# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a key stands in a TOML text, which the standard parser does not tell."""

import re
from collections.abc import Sequence

_PART = r"(?:[\w-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")

Path = tuple[str | int, ...]


class WrongValueError(Exception):
    """A value that cannot be; the path tells where, the text what to write.

    Who reads the file adds its name and the line.
    """

    def __init__(self, path: Sequence[str | int], text: str) -> None:
        super().__init__(text)
        self.path = tuple(path)


def line_of(text: str, path: Sequence[str | int]) -> int:
    r"""Line number of a key, or of what it is in; 0: not found.

    Parameters
    ----------
    path : for example ("e820", 2, "type"), ("nodes",) or ("variant", 0, "settings", "mobility")

    Examples
    --------
    >>> line_of('arch = "i386"\n[[e820]]\nstart = 0\n[[e820]]\nstart = 1', ("e820", 1, "start"))
    5
    >>> line_of('[[variant]]\nname = "a"\n[variant.settings]\nx = 1', ("variant", 0, "settings"))
    3
    """
    wanted = tuple(path)
    best = depth = 0
    inside: Path = ()
    seen: dict[Path, int] = {}
    for at, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        key = None if header else _KEY.match(line)
        if header is not None:
            here = inside = _table(_parts(header[2]), seen, array=header[1] == "[[")
        elif key is not None:
            here = (*inside, *_parts(key[1]))
        else:
            continue
        common = min(len(here), len(wanted))
        if here[:common] == wanted[:common] and common > depth:
            best, depth = at, common
    return best


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _table(parts: Path, seen: dict[Path, int], *, array: bool) -> Path:
    """Path of a header's table: each array of tables on the way adds the number of its element."""
    here: Path = ()
    for number, part in enumerate(parts, 1):
        here = (*here, part)
        if array and number == len(parts):
            seen[here] = seen.get(here, -1) + 1
        if here in seen:
            here = (*here, seen[here])
    return here
