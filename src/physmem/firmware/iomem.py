# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine from /proc/iomem of a running one. Only root sees the addresses there.

What the file does not tell (nodes, CPUs, RAM disk) is as in a machine with one node and one CPU.

Linux: kernel/resource.c, arch/x86/kernel/e820.c, arch/arm64/kernel/setup.c (6.1)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from physmem.firmware.e820 import E820Entry, E820Type
from physmem.firmware.hardware import DtMemory, Hardware, Reservation
from physmem.firmware.platform import KernelImage, platform
from physmem.lib.errors import BadInputError, BadMachineError

_LINE = re.compile(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)")
_TYPES = {
    "System RAM": E820Type.RAM,
    "System RAM (kexec)": E820Type.RAM,
    "reserved": E820Type.RESERVED,
    "Reserved": E820Type.RESERVED,
    "ACPI Tables": E820Type.ACPI,
    "ACPI Non-volatile Storage": E820Type.NVS,
    "Unusable memory": E820Type.UNUSABLE,
    "Persistent Memory": E820Type.PMEM,
    "Persistent Memory (legacy)": E820Type.PRAM,
    "Soft Reserved": E820Type.SOFT_RESERVED,
}
_ROOT = "read it as root (sudo cat /proc/iomem)"


@dataclass(frozen=True, slots=True)
class Resource:
    """A line of the file: bytes [start, end), how deep it is nested, what it is.

    Examples
    --------
    >>> read_lines("00001000-0009fbff : System RAM")
    [Resource(depth=0, start=4096, end=654336, name='System RAM')]
    """

    depth: int
    start: int
    end: int
    name: str


def read_iomem(path: str | Path, arch: str = "", cpus: int = 1) -> Hardware:
    """Machine of a copy of /proc/iomem.

    Parameters
    ----------
    arch : architecture; "": x86_64 or arm64, by what the file names
    cpus : number of CPUs, which the file does not tell

    Raises
    ------
    BadInputError
        It cannot be read, or is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from None
    machine = parse_iomem(text, arch, str(path))
    return replace(machine, cpu_domain=(0,) * cpus).check()


def parse_iomem(text: str, arch: str = "", name: str = "/proc/iomem") -> Hardware:
    """Machine of the text of /proc/iomem.

    Memory that a device tree's kernel reserved later looks like firmware's; it is left out, unless
    it lies outside of "System RAM" (what must not be mapped).

    Parameters
    ----------
    arch : architecture; "": x86_64 or arm64, by what the file names
    name : how to call the text in messages

    Raises
    ------
    BadInputError
        No such text, or one whose addresses are hidden.

    Examples
    --------
    >>> machine = parse_iomem('''
    ... 00001000-0009fbff : System RAM
    ... 00100000-3ffd9fff : System RAM
    ...   01000000-01e01ef1 : Kernel code
    ...   02000000-02821fff : Kernel rodata
    ...   02a00000-02c45bff : Kernel data
    ...   032ab000-037fffff : Kernel bss
    ... 3ffda000-3fffffff : Reserved
    ... ''')
    >>> machine.arch, len(machine.e820), machine.image.code_kib, hex(machine.image.end)
    ('x86_64', 3, 14343, '0x3800000')
    """
    resources = read_lines(text, name)
    names = {resource.name for resource in resources}
    if not arch:
        # only firmware of a PC has entries for what is not memory
        arch = "x86_64" if names & {"Reserved", "PCI Bus 0000:00", "ACPI Tables"} else "arm64"
    try:
        if platform(arch).firmware == "e820":
            machine = Hardware(arch=arch, e820=_e820(resources), image=_image(resources))
        else:
            machine = Hardware(
                arch=arch,
                memory=tuple(
                    DtMemory(base=r.start, size=r.end - r.start)
                    for r in resources
                    if r.depth == 0 and r.name == "System RAM"
                ),
                reserved=tuple(
                    Reservation(base=r.start, size=r.end - r.start, nomap=True, name=r.name)
                    for r in resources
                    if r.depth == 0 and r.name == "reserved"
                ),
                image=_image(resources),
            )
        return machine.check()
    except BadMachineError as error:
        raise BadInputError(f"{name}: {error}") from None


def read_lines(text: str, name: str = "/proc/iomem") -> list[Resource]:
    """All lines of the file.

    Raises
    ------
    BadInputError
        No such text, or one whose addresses are hidden.
    """
    resources = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise BadInputError(
                f"{name}: line {number}: {line.strip()[:60]!r} is not of the form "
                f"start-end : name; give a copy of /proc/iomem"
            )
        start, last = int(match[2], 16), int(match[3], 16)
        if last < start:
            raise BadInputError(f"{name}: line {number}: the range ends before it starts")
        resources.append(Resource(len(match[1]) // 2, start, last + 1, match[4]))
    if not resources:
        raise BadInputError(f"{name}: empty; {_ROOT}")
    if all(resource.start == 0 and resource.end == 1 for resource in resources):
        raise BadInputError(f"{name}: all addresses are 0, the kernel hides them; {_ROOT}")
    if not any(resource.name.startswith("System RAM") for resource in resources):
        raise BadInputError(f'{name}: no "System RAM" in it; give a copy of /proc/iomem')
    return resources


def _e820(resources: Sequence[Resource]) -> tuple[E820Entry, ...]:
    return tuple(
        E820Entry(resource.start, resource.end - resource.start, _TYPES[resource.name])
        for resource in resources
        if resource.depth == 0 and resource.name in _TYPES
    )


def _image(resources: Sequence[Resource]) -> KernelImage | None:
    """The kernel from its parts; None: the file does not name them."""
    parts = {
        resource.name.removeprefix("Kernel "): resource
        for resource in resources
        if resource.name.startswith("Kernel ")
    }
    if not {"code", "data"} <= parts.keys():
        return None

    def kib(part: str) -> int:
        return parts[part].end - parts[part].start >> 10 if part in parts else 0

    start = min(part.start for part in parts.values())
    end = -(-max(part.end for part in parts.values()) // 4096) * 4096
    init = (0, 0)
    if "bss" not in parts:
        # arm64: the section between code and data is given back after the start
        init = parts["code"].end, parts["data"].start
    return KernelImage(
        start=start,
        end=end,
        code_kib=kib("code"),
        rodata_kib=kib("rodata"),
        rwdata_kib=kib("data"),
        bss_kib=kib("bss"),
        init_kib=init[1] - init[0] >> 10,
        init_start=init[0],
        init_end=init[1],
    )
