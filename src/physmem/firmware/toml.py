# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as a TOML file: in short (how much memory, how many nodes) or in full.

The short form::

    arch = "x86_64"
    memory = "64GiB"
    nodes = 2
    cpus = 8

In full, on a PC (sizes and addresses are numbers, or text such as "639KiB")::

    arch = "x86_64"
    cpus = [0, 0, 1, 1]              # proximity domain of each CPU
    distance = [[10, 21], [21, 10]]
    initrd = { start = 0x1fe51000, end = 0x1ffd0000 }

    [[e820]]
    start = 0
    size = "639KiB"
    type = "usable"                  # as a kernel prints it, or a number

    [[srat]]
    domain = 0
    start = 0
    size = "32GiB"

and on a machine with a device tree `[[memory]]` (start, size, node, hotpluggable) and
`[[reserved]]` (start, size, nomap, name). `KEYS` lists everything; each key is a field of
`Hardware`. Keys beside the short form change what that gives.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from physmem.firmware.e820 import E820Entry, E820Type, type_name
from physmem.firmware.hardware import (
    DtMemory,
    DynamicReservation,
    Hardware,
    MemoryAffinity,
    Reservation,
)
from physmem.firmware.platform import KernelImage
from physmem.firmware.size import parse_size
from physmem.firmware.toml_lines import WrongValueError, line_of
from physmem.lib.errors import BadInputError, BadMachineError

_RANGE = {"start": "base", "size": "size"}
RECORDS: dict[str, tuple[type, dict[str, str]]] = {
    "e820": (E820Entry, {"start": "addr", "size": "size", "type": "type"}),
    "memory": (DtMemory, {**_RANGE, "node": "nid", "hotpluggable": "hotpluggable"}),
    "reserved": (Reservation, {**_RANGE, "nomap": "nomap", "name": "name"}),
    "dynamic": (
        DynamicReservation,
        {name: name for name in ("size", "alignment", "ranges", "nomap", "name")},
    ),
    "srat": (
        MemoryAffinity,
        {
            "domain": "domain",
            "start": "base",
            "size": "length",
            "enabled": "enabled",
            "hotpluggable": "hotpluggable",
            "nonvolatile": "nonvolatile",
        },
    ),
    "acpi_tables": (Reservation, {**_RANGE, "name": "name"}),
    "setup_data": (Reservation, {**_RANGE, "name": "name"}),
    "mp_table": (Reservation, {**_RANGE, "name": "name"}),
}
"""Arrays of tables: the class of an element, and its fields by key."""

PAIRS = {"initrd": ("start", "end"), "dtb": ("start", "end"), "usable_range": ("start", "size")}
SWITCHES = ("huge_1g", "pse", "pge", "nx", "sandy_bridge_graphics", "athlon")
NUMBERS = (
    "ebda",
    "ebda_kib",
    "alt_mem_kib",
    "bios_kib",
    "real_mode_bytes",
    "pa_bits",
    "dma_bits",
)
_IMAGE_KEYS = tuple(item.name for item in fields(KernelImage))
KEYS = (
    "arch",
    "memory",
    "nodes",
    "cpus",
    "distance",
    "image",
    "mirror",
    *(key for key in RECORDS if key != "memory"),
    *PAIRS,
    *SWITCHES,
    *NUMBERS,
)
"""All keys of a machine file."""

_TYPES = {type_name(kind): kind for kind in E820Type if kind is not E820Type.RESERVED_KERN}


def read_machine(path: str | Path) -> Hardware:
    """Machine of a TOML file.

    Raises
    ------
    BadInputError
        It cannot be read, or a key or value is wrong; names file and line, says what to write.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}; give a machine file") from None
    except UnicodeDecodeError:
        raise BadInputError(f"{path}: not a text file; give a machine file in TOML") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str = "machine.toml") -> Hardware:
    r"""Machine of a TOML text.

    Parameters
    ----------
    name : how to call the text in messages

    Raises
    ------
    BadInputError
        As `read_machine`.

    Examples
    --------
    >>> machine = parse_toml('memory = "4GiB"\nnodes = 2\ncpus = 4')
    >>> machine == Hardware.of(memory="4GiB", nodes=2, cpus=4)
    True
    >>> parse_toml('memory = "4GiB"\nnods = 2')
    Traceback (most recent call last):
        ...
    physmem.lib.errors.BadInputError: machine.toml: line 2: nods: no such key; did you mean nodes?
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{name}: not TOML: {error}") from None
    try:
        return _machine(data).check()
    except WrongValueError as error:
        line = line_of(text, error.path)
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path
        ).lstrip(".")
        at = f"line {line}: " if line else ""
        raise BadInputError(f"{name}: {at}{where}: {error}") from None
    except BadMachineError as error:
        raise BadInputError(f"{name}: {error}") from None


def _machine(data: Mapping[str, Any]) -> Hardware:
    for key in data:
        if key not in KEYS:
            raise WrongValueError([key], _unknown(key, KEYS))
    values = {key: _value(key, value) for key, value in data.items()}
    cpus = values.pop("cpus", 1)
    nodes = values.pop("nodes", None)
    if isinstance(values.get("memory"), int):
        for key in ("e820", "srat", "distance"):
            if key in values:
                raise WrongValueError([key], "not beside memory = a size; write one or the other")
        short = Hardware.of(
            memory=values.pop("memory"),
            nodes=1 if nodes is None else nodes,
            cpus=cpus if isinstance(cpus, int) else len(cpus),
            arch=values.pop("arch", "x86_64"),
            image=values.get("image"),
        )
        return replace(short, **values)
    if nodes is not None:
        raise WrongValueError(
            ["nodes"], "only beside memory = a size; here [[srat]] or node tell it"
        )
    values["cpu_domain"] = (0,) * cpus if isinstance(cpus, int) else cpus
    return Hardware(**values)


def _value(key: str, value: Any) -> Any:
    if key == "arch":
        return _text([key], value)
    if key == "nodes" or (key == "cpus" and not isinstance(value, list)):
        return _whole([key], value)
    if key == "cpus":
        return tuple(_whole([key, at], domain) for at, domain in enumerate(value))
    if key == "distance":
        rows = _list([key], value)
        return tuple(
            tuple(_whole([key, at], one) for one in _list([key, at], row))
            for at, row in enumerate(rows)
        )
    if key in SWITCHES:
        return _switch([key], value)
    if key in NUMBERS:
        return _bytes([key], value)
    if key in PAIRS:
        return _pair([key], value, PAIRS[key])
    if key == "mirror":
        items = enumerate(_list([key], value))
        return tuple(_pair([key, at], item, ("start", "size")) for at, item in items)
    if key == "image":
        return _image(value)
    if key == "memory" and not isinstance(value, list):
        return _bytes([key], value)
    return tuple(_record(key, at, item) for at, item in enumerate(_list([key], value)))


def _record(key: str, at: int, item: Any) -> Any:
    made, names = RECORDS[key]
    path: list[str | int] = [key, at]
    table = _table(path, item, tuple(names))
    known: dict[str, Field[Any]] = {entry.name: entry for entry in fields(made)}
    values: dict[str, Any] = {}
    for name, attribute in names.items():
        if name in table:
            values[attribute] = _field([*path, name], name, table[name])
        elif known[attribute].default is MISSING:
            raise WrongValueError(path, f"{name} is missing; write {name} = a number")
    return made(**values)


def _field(path: Sequence[str | int], name: str, value: Any) -> Any:
    if name in {"enabled", "hotpluggable", "nonvolatile", "nomap"}:
        return _switch(path, value)
    if name == "name":
        return _text(path, value)
    if name == "type":
        return _type(path, value)
    if name in {"node", "domain"}:
        return _whole(path, value)
    if name == "ranges":
        items = enumerate(_list(path, value))
        return tuple(_pair([*path, at], item, ("start", "size")) for at, item in items)
    return _bytes(path, value)


def _image(value: Any) -> KernelImage:
    table = _table(["image"], value, _IMAGE_KEYS)
    values: dict[str, Any] = {}
    for name, given in table.items():
        path = ["image", name]
        pair = name == "boot_tables"
        values[name] = _pair(path, given, ("start", "end")) if pair else _bytes(path, given)
    for name in ("start", "end"):
        if name not in values:
            raise WrongValueError(
                ["image"], f"{name} is missing; write {name} = a physical address"
            )
    return KernelImage(**values)


# -- single values --


def _unknown(key: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, 1)
    if near:
        return f"no such key; did you mean {near[0]}?"
    return f"no such key; known are {', '.join(known)}"


def _table(path: Sequence[str | int], value: Any, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WrongValueError(path, f"{value!r}: write a table with {', '.join(names)}")
    for name in value:
        if name not in names:
            raise WrongValueError([*path, name], _unknown(name, names))
    return value


def _list(path: Sequence[str | int], value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WrongValueError(path, f"{value!r}: write a list")
    return value


def _pair(path: Sequence[str | int], value: Any, names: tuple[str, str]) -> tuple[int, int]:
    table = _table(path, value, names)
    missing = [name for name in names if name not in table]
    if missing:
        raise WrongValueError(
            path, f"{missing[0]} is missing; write {{ {names[0]} = , {names[1]} = }}"
        )
    first, second = (_bytes([*path, name], table[name]) for name in names)
    return first, second


def _bytes(path: Sequence[str | int], value: Any) -> int:
    if isinstance(value, str):
        try:
            value = parse_size(value)
        except BadMachineError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise WrongValueError(
            path, 'write a number below 2^64, or text such as "512MiB" or "0x1000"'
        )
    return value


def _whole(path: Sequence[str | int], value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise WrongValueError(path, f"{value!r}: write a number")
    return value


def _switch(path: Sequence[str | int], value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(path, f"{value!r}: write true or false")
    return value


def _text(path: Sequence[str | int], value: Any) -> str:
    if not isinstance(value, str):
        raise WrongValueError(path, f"{value!r}: write text in quotes")
    return value


def _type(path: Sequence[str | int], value: Any) -> int:
    if isinstance(value, str) and value in _TYPES:
        return _TYPES[value]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 32:
        known = ", ".join(f'"{name}"' for name in _TYPES)
        raise WrongValueError(path, f"{value!r}: write a number, or one of {known}")
    return E820Type(value) if value in set(E820Type) else value
