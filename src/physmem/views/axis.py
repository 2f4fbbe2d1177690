# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the ticks of an axis stand and what they say."""

import math

_UNITS = ((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h"))
_SHORTEST = 3.0  # a unit is used from three of it on


def time_unit(span_ns: int) -> tuple[float, str]:
    """Unit for an axis of this length: its nanoseconds, its name.

    Examples
    --------
    >>> time_unit(12_000_000_000), time_unit(600 * 10**9)[1], time_unit(900_000)[1]
    ((1000000000.0, 's'), 'min', 'us')
    """
    seconds, name = _UNITS[0]
    for unit, label in _UNITS:
        if span_ns >= unit * 1e9 * _SHORTEST:
            seconds, name = unit, label
    return seconds * 1e9, name


def nice_step(span: float, most: int) -> float:
    """Step of the form 1, 2 or 5 times a power of ten, at most `most` of which fit into `span`.

    Examples
    --------
    >>> nice_step(12, 10), nice_step(0.9, 10), nice_step(490, 8)
    (2.0, 0.1, 100.0)
    """
    if span <= 0:
        return 1.0
    least = span / most
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1, 2, 5, 10):
        if factor * power >= least * (1 - 1e-9):
            break
    return factor * power


def ticks(span: float, most: int) -> list[tuple[float, str]]:
    """Positions 0..span and labels of the ticks of an axis that starts at 0.

    Examples
    --------
    >>> ticks(1.0, 4)
    [(0.0, '0'), (0.5, '0.5'), (1.0, '1')]
    """
    step = nice_step(span, most)
    count = math.floor(span / step + 1e-9)
    return [(index * step, f"{index * step:g}") for index in range(count + 1)]


def block_step(blocks: int, most: int) -> int:
    """Power of two, at most `most` multiples of which lie in a run of pageblocks.

    Examples
    --------
    >>> block_step(256, 8), block_step(3, 8)
    (32, 1)
    """
    return 1 << max(0, math.ceil(math.log2(max(1.0, blocks / max(1, most)))))


def spread(wanted: list[float], distance: float, low: float, high: float) -> list[float]:
    """Move positions (ascending) apart to at least `distance`, within [low, high] if they fit.

    Examples
    --------
    >>> spread([10, 12, 50], 15, 0, 100)
    [10, 25, 50]
    >>> spread([90, 95], 15, 0, 100)
    [85, 100]
    """
    placed: list[float] = []
    for position in wanted:
        placed.append(max(position, placed[-1] + distance if placed else low))
    limit = high
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - distance
    return placed
