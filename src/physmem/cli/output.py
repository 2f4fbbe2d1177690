# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: numbers, tables and colours on stdout, notes on stderr.

Rich is left to progress bars and pictures: loading it takes as long as a replay of 500,000 events.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def has_colour(stream: TextIO) -> bool:
    """Tell whether a stream shows colours: a terminal, unless NO_COLOR or TERM=dumb says no."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, *styles: str) -> str:
    """Text with styles where stdout shows them."""
    if not has_colour(sys.stdout):
        return text
    return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


def note(text: str, *, quiet: bool = False) -> None:
    """One line on stderr, next to what a program reads from stdout."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=2))


def share_text(part: int, whole: int) -> str:
    """Percentage, rounded down: only what is equal in all cases is 100 %.

    Examples
    --------
    >>> share_text(1, 1), share_text(999_999_999, 10**9), share_text(1, 3), share_text(0, 0)
    ('100 %', '99.9999 %', '33.3333 %', '-')
    """
    if not whole:
        return "-"
    if part == whole:
        return "100 %"
    return f"{part * 1_000_000 // whole / 10_000:.4f} %"


def of(part: int, whole: int) -> str:
    """Part of a whole.

    Examples
    --------
    >>> of(1234, 5678)
    '1,234 of 5,678'
    """
    return f"{part:,} of {whole:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns with a heading; the first `left` are words, the others numbers.

    Examples
    --------
    >>> print(table(["zone", "requests"], [["Normal", "1,000"]]))
      zone    requests
      Normal     1,000
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            f"{cell:<{width}}" if at < left else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  " + "  ".join(cells).rstrip()

    return "\n".join([paint(text(lines[0]), "dim"), *map(text, lines[1:])])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines of a name and a value.

    Examples
    --------
    >>> print(facts([("kernel", "6.1"), ("lost events", "none")]))
      kernel       6.1
      lost events  none
    """
    kept = list(pairs)
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in kept)
