# SPDX-License-Identifier: GPL-2.0-or-later
"""Colours of all pictures: the hue names the migratetype, the lightness tells how much is free.

Used memory is dark ink, free memory lets the paper through. A wholly free pageblock, all that a
huge page can use, is a clear step lighter than one with a single used frame. The three common types
stay apart for colour-blind readers: orange, blue, and a green that they see as grey.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

INK: RGB = (31, 35, 40)
MUTED: RGB = (99, 107, 116)
RULE: RGB = (216, 220, 225)
PAPER: RGB = (255, 255, 255)
HOLE: RGB = (236, 238, 241)
"""Background of pageblocks without memory."""
ACCENT: RGB = (9, 90, 160)

_HUES: dict[str, tuple[float, float, float]] = {
    # OKLCH hue in degrees, strength of colour, lightness of a full pageblock
    "Unmovable": (50.0, 1.1, 0.56),
    "Movable": (252.0, 1.0, 0.49),
    "Reclaimable": (160.0, 0.85, 0.52),
    "HighAtomic": (0.0, 1.2, 0.50),
    "Reserve": (0.0, 1.2, 0.50),
    "CMA": (305.0, 1.2, 0.50),
    "Isolate": (110.0, 0.8, 0.50),
}
_OTHER = (0.0, 0.0, 0.5)
_FULL_CHROMA = 0.135
_NEARLY_FREE = (0.845, 0.085)  # OKLCH lightness and chroma where all but a little is free,
_FREE = (0.945, 0.032)  # and where everything is


def _srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: float
) -> NDArray[np.uint8]:
    """Convert OKLCH to 8-bit sRGB (B. Ottosson, A perceptual color space, 2020)."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    lms = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_rgb @ lms**3).clip(0, 1)
    gamma = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    rgb: NDArray[np.uint8] = np.rint(gamma.T * 255).astype(np.uint8)
    return rgb


def ramp(name: str) -> NDArray[np.uint8]:
    """Colours of one migratetype, uint8 [256, 3], by free share 0..255; unknown names are grey.

    Examples
    --------
    >>> ramp("Movable").shape
    (256, 3)
    """
    hue, strength, darkest = _HUES.get(name, _OTHER)
    share = np.arange(256) / 254
    lightness = darkest + (_NEARLY_FREE[0] - darkest) * share
    chroma = _FULL_CHROMA + (_NEARLY_FREE[1] - _FULL_CHROMA) * share
    lightness[255], chroma[255] = _FREE
    return _srgb(lightness, chroma * strength, hue)


def colours(type_names: Sequence[str]) -> NDArray[np.uint8]:
    """Colour of every (migratetype, free share): uint8 [256, 256, 3]; type 255 is a hole."""
    table = np.empty((256, 256, 3), np.uint8)
    table[:] = HOLE
    for mt, name in enumerate(type_names):
        table[mt] = ramp(name)
    return table


def hex_colour(rgb: Sequence[int] | NDArray[np.uint8]) -> str:
    """Colour as #rrggbb."""
    return "#" + bytes(int(part) for part in rgb).hex()
