# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem translate` and `physmem pagetable`: the page table in a memory image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zipfile import is_zipfile

import typer

from physmem.cli.options import Json, complete_file
from physmem.lib.errors import BadInputError

if TYPE_CHECKING:
    from physmem.pgtable.reading import TableReader
    from physmem.pgtable.walked import Walk

_ImageFile = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE",
        show_default=False,
        autocompletion=complete_file,
        help="Memory image: ELF core (vmcore), LiME or raw; a machine that `physmem boot --save`"
        " wrote; or a size such as 1GiB: a machine of that size is booted.",
    ),
]
_FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME",
        show_default=False,
        help="Page-table format, where the image does not tell (x86_64, arm64_4k_48, ...).",
    ),
]
_RootOption = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="PADDR",
        show_default=False,
        help="Physical address of the top table, where the image does not tell.",
    ),
]


def number(text: str, what: str) -> int:
    """Number as programs print it: 0x..., or decimal.

    Raises
    ------
    BadInputError
        It is none.

    Examples
    --------
    >>> number("0x10", "address")
    16
    """
    try:
        value = int(text.replace("_", ""), 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 1 << 64:
        raise BadInputError(f"{what} {text!r}: not a number of 64 bits such as 0xffff888000001000")
    return value


def open_table(image: Path, fmt: str, root: str | None) -> "TableReader":
    """The page table in an image, of a saved machine, or of one booted for the occasion."""
    text = str(image)
    if not image.exists() and text[:1].isdigit() and text[-1:].upper() == "B":
        return _made(text, fmt or "x86_64")
    if not fmt and root is None and is_zipfile(image):
        from physmem.machine.machine import open_machine

        return open_machine(image).page_table
    from physmem.pgtable.image_read import read_image

    return read_image(image).table(fmt, None if root is None else number(root, "root"))


def _made(memory: str, fmt: str) -> "TableReader":
    """The page table of a machine that is booted; by a format that no kernel here has, of a map."""
    from physmem.arch.registry import ARCHS
    from physmem.boot.start import boot
    from physmem.machine.machine import Machine

    arch = next((arch.name for arch in ARCHS.values() if arch.page_table == fmt), None)
    if arch is None:
        return Machine.build(memory).map_memory(fmt)
    return boot(memory, arch=arch).page_table


def translate(
    image: _ImageFile,
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", show_default=False, help="Virtual address.")
    ],
    fmt: _FormatOption = "",
    root: _RootOption = None,
    access: Annotated[
        str,
        typer.Option(metavar="RWXU", help="Access that must be allowed: r, w, x; with u a user's."),
    ] = "",
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            show_default=False,
            autocompletion=complete_file,
            help="Also draw the tables on the way, .png or .svg.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Follow a virtual address through the page table: every level's entry, and where it ends.

    Exits with 1 when the access would fault.
    """
    from physmem.cli.output import print_json
    from physmem.views.table_path import path_text

    if picture is not None:
        from physmem.cli.draw import SUFFIXES
        from physmem.cli.run import check_output

        check_output(picture, image, *SUFFIXES)
    table = open_table(image, fmt, root)
    walk = table.translate(number(address, "address"), access)
    if json:
        print_json(to_dict(walk))
    else:
        print(path_text(table, walk))
    if picture is not None:
        draw(table, walk, picture)
    if not walk.ok:
        raise typer.Exit(1)


def to_dict(walk: "Walk") -> dict[str, object]:
    """Builtins form of a walk."""
    return {
        "va": walk.va,
        "paddr": walk.paddr,
        "reason": walk.reason,
        "size": walk.size,
        "kernel": walk.kernel,
        "user": walk.user,
        "levels": [
            {"name": s.name, "paddr": s.slot, "entry": s.entry, "folded": s.folded}
            for s in walk.steps
        ],
    }


def draw(table: "TableReader", walk: "Walk", path: Path) -> None:
    """Write the picture, whole or not at all."""
    from physmem.lib.output import replace_file
    from physmem.views.table_path import path_png, path_svg

    with replace_file(path) as out:
        if path.suffix.lower() == ".svg":
            out.write(path_svg(table, walk.va).encode())
        else:
            path_png(table, walk.va, out)


def pagetable(
    image: _ImageFile,
    fmt: _FormatOption = "",
    root: _RootOption = None,
    start: Annotated[
        str, typer.Option(metavar="ADDRESS", help="First virtual address to list.")
    ] = "0",
    end: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="First address not to list.", show_default=False),
    ] = str(1 << 64),
    json: Json = False,
) -> None:
    """List a page table as the kernel's ptdump does: ranges, size, permissions, flags, level."""
    from physmem.cli.output import print_json
    from physmem.views.ptdump import ptdump

    table = open_table(image, fmt, root)
    bounds = number(start, "start"), number(end, "end")
    if json:
        names = ("va", "end", "paddr", "level", "size", "flags", "kernel", "user")
        rows = table.leaves(*bounds)
        print_json({"ranges": [{name: getattr(leaf, name) for name in names} for leaf in rows]})
        return
    for line in ptdump(table, *bounds):
        print(line)
