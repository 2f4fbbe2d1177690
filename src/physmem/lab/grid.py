# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants of a grid of settings: all of them, or a sample."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Settings = dict[str, str]
"""Value by knob, as `physmem whatif --set` takes them."""


@dataclass(frozen=True)
class Variant:
    """A named group of settings."""

    name: str
    settings: Settings


def setting_text(value: str | float) -> str:
    """Value of a setting as the command line has it.

    Examples
    --------
    >>> setting_text(True), setting_text(9), setting_text(0.5), setting_text("128M")
    ('on', '9', '0.5', '128M')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def count_points(grid: Mapping[str, Sequence[str]]) -> int:
    """Count the points of a grid.

    Examples
    --------
    >>> count_points({"a": ["1", "2"], "b": ["x", "y", "z"]})
    6
    """
    return math.prod(len(values) for values in grid.values())


def grid_points(
    grid: Mapping[str, Sequence[str]], sample: tuple[int, int] | None = None
) -> list[Variant]:
    """Points of a grid; the last knob changes fastest.

    Parameters
    ----------
    sample : how many of them, and the seed of the choice

    Examples
    --------
    >>> grid = {"a": ["1", "2"], "b": ["x", "y"]}
    >>> [point.name for point in grid_points(grid)]
    ['a=1 b=x', 'a=1 b=y', 'a=2 b=x', 'a=2 b=y']
    >>> [point.name for point in grid_points(grid, (2, 1))]
    ['a=2 b=x', 'a=2 b=y']
    """
    total = count_points(grid)
    numbers: Sequence[int] = range(total)
    if sample is not None and sample[0] < total:
        numbers = _sample(total, *sample)
    return [_point(grid, number) for number in numbers]


def _sample(total: int, count: int, seed: int) -> list[int]:
    """Numbers below `total` without repetition; drawn by digests, which no release changes."""
    chosen: set[int] = set()
    left_out = count > total // 2  # drawing what is left out takes fewer attempts
    wanted = total - count if left_out else count
    draw = 0
    while len(chosen) < wanted:
        digest = hashlib.blake2b(f"{seed} {draw}".encode(), digest_size=16).digest()
        chosen.add(int.from_bytes(digest, "little") % total)
        draw += 1
    return [n for n in range(total) if n not in chosen] if left_out else sorted(chosen)


def _point(grid: Mapping[str, Sequence[str]], number: int) -> Variant:
    settings: Settings = {}
    for knob in reversed(list(grid)):
        number, at = divmod(number, len(grid[knob]))
        settings[knob] = grid[knob][at]
    settings = {knob: settings[knob] for knob in grid}
    return Variant(" ".join(f"{knob}={value}" for knob, value in settings.items()), settings)
