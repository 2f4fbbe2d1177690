# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a key stands in a TOML text. The standard parser does not tell."""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\s*(\[\[?)\s*([\w-]+)\s*\]")


def line_of(text: str, path: Sequence[str | int]) -> int:
    r"""Line number of a key, or of what it is in; 0: not found.

    Parameters
    ----------
    path : for example ("e820", 2, "type") or ("nodes",)

    Examples
    --------
    >>> line_of('arch = "i386"\n[[e820]]\nstart = 0\n[[e820]]\nstart = 1', ("e820", 1, "start"))
    5
    """
    top, number, name = path[0], None, None
    for part in path[1:]:
        if isinstance(part, int):
            number = part if number is None else number
        else:
            name = part
    best = 0
    inside, seen = "", -1
    for at, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            inside = header[2]
            if inside == top:
                seen += 1
                if number is None or seen == number:
                    best = at
            continue
        key = re.match(r"\s*\"?([\w-]+)\"?\s*[=.]", line)
        if key is None:
            continue
        if not inside and key[1] == top:
            return at
        if inside == top and key[1] == name and (number is None or seen == number):
            return at
    return best
