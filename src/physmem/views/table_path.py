# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of one address through the tables, as a picture and as text.

Each table is a strip of all its entries: used ones are coloured, the one on the way is marked.
"""

from typing import Any

from physmem.pgtable.reading import TableReader
from physmem.pgtable.walked import Walk
from physmem.views.canvas import Box, Canvas, PngCanvas, Style, SvgCanvas, text_width
from physmem.views.palette import HOLE, INK, MUTED, PAPER, RGB
from physmem.views.ptdump import size_text

WIDTH, ROW, LEFT, STRIP = 940, 92, 24, 880
EMPTY: RGB = HOLE
TABLE: RGB = (86, 130, 190)
LEAF: RGB = (82, 160, 110)
CHOSEN: RGB = (214, 84, 56)
_CELLS = 256


def entries_of(table: TableReader, walk: Walk) -> list[tuple[str, int, list[int], int]]:
    """For each real level of a walk: name, table's address, kind of each entry, index taken.

    Kinds: 0 empty, 1 points to a table, 2 maps memory.
    """
    fmt = table.format
    found = []
    real = [step for step in walk.steps if not step.folded]
    for position, step in enumerate(real):
        level = fmt.levels[position]
        index = fmt.index(walk.va, position)
        start = step.slot - index * fmt.entry_bytes
        data = table.ram.read(start, fmt.entry_bytes << level.bits)
        kinds = []
        for at in range(0, len(data), fmt.entry_bytes):
            entry = int.from_bytes(data[at : at + fmt.entry_bytes], "little")
            kinds.append(
                0 if not fmt.is_present(entry) else 1 if fmt.is_table(entry, position) else 2
            )
        found.append((level.name, start, kinds, index))
    return found


def draw_path(canvas: Canvas, table: TableReader, walk: Walk) -> None:
    """Draw the tables on the way of an address, one below the other."""
    canvas.text((LEFT, 30), f"{walk.va:#x}", Style(size=18))
    end = f"{walk.paddr:#x}" if walk.paddr is not None else walk.detail
    canvas.text((LEFT + STRIP, 30), f"{table.format.name}: {end}", Style(size=14, anchor="r"))
    levels = entries_of(table, walk)
    came = None
    for row, (name, start, kinds, index) in enumerate(levels):
        top = 56 + row * ROW
        entry = [step for step in walk.steps if not step.folded][row].entry
        folded = [step.name for step in walk.steps if step.folded and step.entry == entry]
        also = f" (and {', '.join(folded)})" if folded else ""
        shift = table.format.levels[row].shift
        cells = min(len(kinds), _CELLS)
        per, width = len(kinds) // cells, STRIP / cells
        for cell in range(cells):
            inside = kinds[cell * per : (cell + 1) * per]
            colour = (EMPTY, TABLE, LEAF)[max(inside)]
            here = index // per == cell
            box = Box(LEFT + cell * width, top + 20, max(width - (width > 4), 1), 22)
            canvas.rect(box, CHOSEN if here else colour, f"{name} {cell * per}")
        middle = LEFT + (index // per + 0.5) * width
        if came is not None:
            canvas.line([came, (middle, top + 18)], MUTED)
        text = f"{name}{also}   table {start:#x}   entry {index} of {len(kinds)}: {entry:#x}"
        canvas.rect(Box(LEFT - 2, top, text_width(text, 12) + 6, 16), PAPER)  # over the line
        canvas.text((LEFT, top + 12), text, Style(size=12))
        canvas.text(
            (LEFT + STRIP, top + 12), f"{size_text(1 << shift)} each", Style(size=12, anchor="r")
        )
        came = (middle, top + 44)
        canvas.line([(middle, top + 42), came], INK, 2)
    if came is not None:
        what = f"{end}   {walk.kernel} {walk.user}" if walk.size else end
        side = "r" if came[0] > WIDTH / 2 else "l"
        canvas.text((came[0], came[1] + 18), what, Style(size=13, colour=CHOSEN, anchor=side))


def _height(walk: Walk) -> int:
    return 76 + ROW * max(len([step for step in walk.steps if not step.folded]), 1)


def path_svg(table: TableReader, va: int) -> str:
    """Picture of the way of an address as SVG text."""
    walk = table.translate(va)
    canvas = SvgCanvas(WIDTH, _height(walk), f"{va:#x} in {table.format.name}")
    draw_path(canvas, table, walk)
    return canvas.svg()


def path_png(table: TableReader, va: int, path: Any) -> None:
    """Picture of the way of an address as PNG: into a file, by its path or open."""
    walk = table.translate(va)
    canvas = PngCanvas(WIDTH, _height(walk))
    draw_path(canvas, table, walk)
    canvas.save(path)


def path_text(table: TableReader, walk: Walk) -> str:
    """The way of an address, a line per generic level, and where it ends."""
    lines = []
    position = -1
    for step in walk.steps:
        position += not step.folded
        level = table.format.levels[position]
        if step.folded:
            lines.append(f"  {step.name}  folded: the same entry")
            continue
        index = table.format.index(walk.va, position)
        kind = "table" if table.format.is_table(step.entry, position) else "leaf"
        if not table.format.is_present(step.entry):
            kind = "not present"
        lines.append(
            f"  {step.name}  entry {index:4} at {step.slot:#012x} = {step.entry:#018x}"
            f"  {kind}, {size_text(1 << level.shift)}"
        )
    if walk.paddr is None:
        lines.append(f"{walk.va:#x}: fault, {walk.detail}")
    else:
        more = "" if walk.ok else f"; fault, {walk.detail}"
        lines.append(
            f"{walk.va:#x} -> {walk.paddr:#x}  in a page of {size_text(walk.size)},"
            f" kernel {walk.kernel}, user {walk.user}{more}"
        )
    return "\n".join(lines)
