# SPDX-License-Identifier: GPL-2.0-or-later
"""Write a machine as TOML; reading it back gives the same machine."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from physmem.firmware.e820 import E820Type, type_name
from physmem.firmware.hardware import Hardware
from physmem.firmware.platform import KernelImage
from physmem.firmware.toml import NUMBERS, PAIRS, RECORDS, SWITCHES

_PLAIN = {"domain", "node"}


def write_machine(hardware: Hardware, path: str | Path) -> None:
    """Write a machine to a file.

    Raises
    ------
    OSError
        It cannot be written.
    """
    Path(path).write_text(to_toml(hardware), encoding="utf-8")


def to_toml(hardware: Hardware) -> str:
    r"""A machine as TOML; what is as usual is left out.

    Examples
    --------
    >>> from physmem.firmware.toml import parse_toml
    >>> machine = Hardware.of(memory="4GiB", nodes=2)
    >>> parse_toml(to_toml(machine)) == machine
    True
    >>> print(to_toml(Hardware.of(memory="512MiB", arch="arm64")).split("\n\n")[0])
    arch = "arm64"
    cpus = [0]
    initrd = { start = 0x48000000, end = 0x48163000 }
    dtb = { start = 0x48200000, end = 0x48300000 }
    """
    usual = Hardware()
    lines = [f'arch = "{hardware.arch}"', f"cpus = {list(hardware.cpu_domain)}"]
    if hardware.distance:
        lines.append(f"distance = {[list(row) for row in hardware.distance]}")
    for key, (first, second) in PAIRS.items():
        pair = getattr(hardware, key)
        if pair is not None:
            lines.append(f"{key} = {_inline({first: pair[0], second: pair[1]})}")
    if hardware.mirror:
        items = [_inline({"start": base, "size": size}) for base, size in hardware.mirror]
        lines.append(f"mirror = [{', '.join(items)}]")
    for key in (*SWITCHES, *NUMBERS):
        value = getattr(hardware, key)
        if value != getattr(usual, key):
            lines.append(f"{key} = {_scalar(key, value)}")
    if hardware.image is not None:
        lines += ["", "[image]", *_image(hardware.image)]
    for key, (made, names) in RECORDS.items():
        defaults = {item.name: item.default for item in fields(made)}
        for item in getattr(hardware, key):
            lines += ["", f"[[{key}]]"]
            for name, attribute in names.items():
                value = getattr(item, attribute)
                # the type is written even if it is memory: it is what a reader looks for
                if value != defaults[attribute] or name == "type":
                    lines.append(f"{name} = {_scalar(name, value)}")
    return "\n".join(lines) + "\n"


def _image(image: KernelImage) -> Iterable[str]:
    for item in fields(image):
        value = getattr(image, item.name)
        if value == item.default:
            continue
        if isinstance(value, tuple):
            yield f"{item.name} = {_inline({'start': value[0], 'end': value[1]})}"
        elif item.name.endswith("_kib"):
            yield f"{item.name} = {value}"
        else:
            yield f"{item.name} = {_address(value)}"


def _inline(pairs: Mapping[str, int]) -> str:
    return "{ " + ", ".join(f"{name} = {_address(value)}" for name, value in pairs.items()) + " }"


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # text of JSON is text of TOML, but for this one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        items = [_inline({"start": base, "size": size}) for base, size in value]
        return f"[{', '.join(items)}]"
    if name == "type":
        known = value in set(E820Type) - {E820Type.RESERVED_KERN}
        return f'"{type_name(value)}"' if known else str(int(value))
    if name in _PLAIN or name.endswith(("_kib", "_bits", "_bytes")):
        return str(int(value))
    return _address(value)


def _address(value: int) -> str:
    # numbers of TOML have 64 bits with a sign
    return f"{value:#x}" if value < 1 << 63 else f'"{value:#x}"'
