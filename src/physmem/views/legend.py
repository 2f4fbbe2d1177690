# SPDX-License-Identifier: GPL-2.0-or-later
"""Legend of the pictures: one ramp per migratetype, from full to wholly free."""

from collections.abc import Iterable, Sequence

import numpy as np

from physmem.views.canvas import Box, Canvas, Point, Style, text_width
from physmem.views.palette import HOLE, MUTED, ramp

HEIGHT = 40
_BARS = (56.0, 40.0, 28.0, 16.0)  # the widest that fits is taken
_SWATCH = 12.0
_GAP = 24.0
_ALWAYS = 3  # the first three migratetypes, the ones that requests name

CAPTION = "dark = full, light = nearly free, lightest square = wholly free"


def shown_types(type_names: Sequence[str], present: Iterable[int]) -> list[str]:
    """Names that a legend has to explain: the common ones, and others that occur."""
    seen = set(present)
    return [name for mt, name in enumerate(type_names) if mt < _ALWAYS or mt in seen]


def draw_legend(
    canvas: Canvas, at: Point, width: float, names: Sequence[str], *, holes: bool
) -> None:
    """Draw the ramps in one row, the caption below; `at` is the upper left corner."""
    x, y = at
    words = [*names, *(["no memory"] if holes else [])]
    fixed = sum(text_width(word, 12) + _SWATCH + 10 + _GAP for word in words) - _GAP
    fitting = [bar for bar in _BARS if fixed + bar * len(names) <= width]
    bar = fitting[0] if fitting else _BARS[-1]
    for name in names:
        shades = ramp(name)
        canvas.image(Box(x, y, bar, _SWATCH), shades[np.newaxis, :255])
        canvas.rect(Box(x + bar + 2, y, _SWATCH, _SWATCH), _rgb(shades[255]))
        x += bar + _SWATCH + 10
        canvas.text((x, y + 10), name)
        x += text_width(name, 12) + _GAP
    if holes:
        canvas.rect(Box(x, y, _SWATCH, _SWATCH), HOLE)
        canvas.text((x + _SWATCH + 8, y + 10), "no memory")
    canvas.text((at[0], y + 30), CAPTION, Style(11, MUTED))


def _rgb(colour: "np.typing.NDArray[np.uint8]") -> tuple[int, int, int]:
    red, green, blue = colour.tolist()
    return red, green, blue
