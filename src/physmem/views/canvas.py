# SPDX-License-Identifier: GPL-2.0-or-later
"""One drawing surface with two outputs: PNG by Pillow, and stand-alone SVG text.

Lengths are in CSS pixels from the upper left corner; a PNG has `scale` times as many pixels. Text
stands on its base line. Pillow's own font has letters and signs of Latin-1 only.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from physmem.views.palette import INK, PAPER, RGB, hex_colour

Point = tuple[float, float]
Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """Rectangle: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float


class Style(NamedTuple):
    """Look of a text: size, colour, and which end (l, m or r) stands at the given point."""

    size: float = 12
    colour: RGB = INK
    anchor: str = "l"


PLAIN = Style()


class Canvas(Protocol):
    """What a picture is drawn with."""

    def text(self, at: Point, text: str, style: Style = PLAIN) -> None:
        """Write one line."""

    def rect(self, box: Box, fill: RGB, title: str = "") -> None:
        """Fill a rectangle; `title` is shown when the mouse rests on it (SVG only)."""

    def line(self, points: Sequence[Point], colour: RGB, width: float = 1) -> None:
        """Draw a polygonal line."""

    def area(self, points: Sequence[Point], fill: RGB) -> None:
        """Fill a polygon."""

    def image(self, box: Box, pixels: Pixels) -> None:
        """Fill a rectangle with an image, uint8 [height, width, 3]; pixels stay sharp."""


def text_width(text: str, size: float) -> float:
    """Width of a line of text in Pillow's own font (close to that of common sans-serif fonts)."""
    from PIL import ImageFont

    return float(ImageFont.load_default(size).getlength(text))


class PngCanvas:
    """Canvas on a Pillow image."""

    _SMOOTH = 4  # lines are drawn this much larger and reduced: Pillow's own have steps

    def __init__(self, width: float, height: float, scale: int = 2) -> None:
        from PIL import Image, ImageDraw

        self.scale = scale
        self._size = (round(width * scale), round(height * scale))
        self._image: Any = Image.new("RGB", self._size, PAPER)
        self._draw: Any = ImageDraw.Draw(self._image)

    def text(self, at: Point, text: str, style: Style = PLAIN) -> None:
        """Write one line."""
        from PIL import ImageFont

        font = ImageFont.load_default(style.size * self.scale)
        place = (at[0] * self.scale, at[1] * self.scale)
        self._draw.text(place, text, style.colour, font, anchor=style.anchor + "s")

    def rect(self, box: Box, fill: RGB, title: str = "") -> None:  # noqa: ARG002 - as in SVG
        """Fill a rectangle."""
        left, top = round(box.x * self.scale), round(box.y * self.scale)
        right = round((box.x + box.w) * self.scale) - 1
        bottom = round((box.y + box.h) * self.scale) - 1
        if right >= left and bottom >= top:
            self._draw.rectangle((left, top, right, bottom), fill)

    def line(self, points: Sequence[Point], colour: RGB, width: float = 1) -> None:
        """Draw a polygonal line."""
        self._smooth(points, colour, width)

    def area(self, points: Sequence[Point], fill: RGB) -> None:
        """Fill a polygon."""
        self._smooth(points, fill, 0)

    def _smooth(self, points: Sequence[Point], colour: RGB, width: float) -> None:
        from PIL import Image, ImageDraw

        place = np.array(points) * self.scale
        margin = width * self.scale + 1
        left, top = np.floor(place.min(axis=0) - margin).astype(int)
        right, bottom = np.ceil(place.max(axis=0) + margin).astype(int)
        mask = Image.new("L", ((right - left) * self._SMOOTH, (bottom - top) * self._SMOOTH))
        draw = ImageDraw.Draw(mask)
        path = [tuple(point) for point in ((place - (left, top)) * self._SMOOTH).tolist()]
        if width:
            thick = round(width * self.scale * self._SMOOTH)
            draw.line(path, 255, thick, joint="curve")
        else:
            draw.polygon(path, 255)
        mask = mask.reduce(self._SMOOTH)
        self._image.paste(colour, (int(left), int(top)), mask)

    def image(self, box: Box, pixels: Pixels) -> None:
        """Fill a rectangle with an image."""
        from PIL import Image

        left, top = round(box.x * self.scale), round(box.y * self.scale)
        right, bottom = (
            round((box.x + box.w) * self.scale),
            round((box.y + box.h) * self.scale),
        )
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        size = (right - left, bottom - top)
        self._image.paste(picture.resize(size, Image.Resampling.NEAREST), (left, top))

    def save(self, path: str | Path) -> None:
        """Write the PNG file."""
        dpi = 96.0 * self.scale
        self._image.save(path, format="PNG", optimize=True, dpi=(dpi, dpi))


class SvgCanvas:
    """Canvas that collects SVG elements."""

    _ANCHORS = {"l": "", "m": ' text-anchor="middle"', "r": ' text-anchor="end"'}  # noqa: RUF012

    def __init__(self, width: float, height: float, title: str) -> None:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
            f'viewBox="0 0 {_n(width)} {_n(height)}" role="img" shape-rendering="crispEdges" '
            'font-family="Helvetica,Arial,sans-serif">'
        )
        self._parts = [head, f"<title>{escape(title)}</title>"]
        self.rect(Box(0, 0, width, height), PAPER)

    def text(self, at: Point, text: str, style: Style = PLAIN) -> None:
        """Write one line."""
        self._parts.append(
            f'<text x="{_n(at[0])}" y="{_n(at[1])}" font-size="{_n(style.size)}" '
            f'fill="{hex_colour(style.colour)}"{self._ANCHORS[style.anchor]}>{escape(text)}</text>'
        )

    def rect(self, box: Box, fill: RGB, title: str = "") -> None:
        """Fill a rectangle; `title` is shown when the mouse rests on it."""
        shape = (
            f'<path fill="{hex_colour(fill)}" d="M{_n(box.x)} {_n(box.y)}h{_n(box.w)}v{_n(box.h)}'
            f'h-{_n(box.w)}z"'
        )
        self._parts.append(
            f"{shape}><title>{escape(title)}</title></path>" if title else shape + "/>"
        )

    def _path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)

    def line(self, points: Sequence[Point], colour: RGB, width: float = 1) -> None:
        """Draw a polygonal line."""
        self._parts.append(
            f'<polyline points="{self._path(points)}" fill="none" stroke="{hex_colour(colour)}" '
            f'stroke-width="{_n(width)}" shape-rendering="auto" stroke-linejoin="round"/>'
        )

    def area(self, points: Sequence[Point], fill: RGB) -> None:
        """Fill a polygon."""
        self._parts.append(
            f'<polygon points="{self._path(points)}" fill="{hex_colour(fill)}" '
            'shape-rendering="auto"/>'
        )

    def image(self, box: Box, pixels: Pixels) -> None:
        """Fill a rectangle with an embedded PNG image."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        self._parts.append(
            f'<image x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}" '
            'preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{data}"/>'
        )

    def svg(self) -> str:
        """Text of the SVG file."""
        return "\n".join([*self._parts, "</svg>\n"])


def _n(number: float) -> str:
    """Write a number with at most two digits behind the point."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
