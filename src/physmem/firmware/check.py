# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a machine can exist. A kernel would panic, or boot with less than was asked for."""

from collections.abc import Iterable, Sequence

from physmem.firmware.e820 import MAX_ENTRIES_MEMBLOCK, E820Type
from physmem.firmware.hardware import LOCAL_DISTANCE, Hardware
from physmem.firmware.platform import platform
from physmem.lib.errors import BadMachineError

MAX_CPUS = 8192
MAX_NODES = 1024
MAX_BANKS = 1024
"""Most memory nodes of a device tree. Linux: INIT_MEMBLOCK_MEMORY_REGIONS of arm64 (6.1)"""

_DMA_END = 16 << 20


def check_hardware(hardware: Hardware) -> None:
    """Raise when the machine cannot exist.

    Raises
    ------
    BadMachineError
        Says what, where and what to do.

    Examples
    --------
    >>> check_hardware(Hardware.of(memory="1GiB"))
    """
    kind = platform(hardware.arch)
    if kind.firmware == "e820":
        if hardware.memory:
            raise BadMachineError(f"memory nodes: {hardware.arch} has no device tree; use e820")
        ram = _check_e820(hardware)
        _check_srat(hardware)
    else:
        if hardware.e820 or hardware.srat:
            raise BadMachineError(f"e820, srat: {hardware.arch} has a device tree; use memory")
        ram = _check_banks(hardware)
    _check_size(hardware.arch, ram)
    _check_cpus(hardware)
    _check_distance(hardware)
    _check_inside(hardware, ram)


def check_size(hardware: Hardware) -> None:
    """Raise when there is more memory, or at higher addresses, than the architecture can have.

    Raises
    ------
    BadMachineError
        Says how much is too much.

    Examples
    --------
    >>> check_size(Hardware.of(memory="1TiB"))
    """
    ram = [(e.addr, e.end) for e in hardware.e820 if e.type == E820Type.RAM]
    ram += [(bank.base, bank.end) for bank in hardware.memory]
    if ram:
        _check_size(hardware.arch, _joined(sorted(ram)))


def _check_size(arch: str, ram: Sequence[tuple[int, int]]) -> None:
    total, last = sum(end - start for start, end in ram), max(end for _, end in ram)
    most = platform(arch).max_bytes
    if total > most or last > 1 << 52:
        raise BadMachineError(
            f"{total >> 30} GiB of memory up to {last:#x}: "
            f"{arch} takes at most {most >> 30} GiB, below 2^52"
        )


def _hex(start: int, end: int) -> str:
    return f"[{start:#x}, {end:#x})"


def _check_range(what: str, base: int, size: int) -> None:
    if base < 0 or size <= 0:
        raise BadMachineError(f"{what}: start {base:#x}, size {size:#x}: give it at least one byte")
    if base + size > 1 << 64:
        raise BadMachineError(f"{what}: {_hex(base, base + size)} ends beyond 2^64")


def _check_e820(hardware: Hardware) -> list[tuple[int, int]]:
    if len(hardware.e820) > MAX_ENTRIES_MEMBLOCK:
        raise BadMachineError(
            f"e820 has {len(hardware.e820)} entries; a kernel keeps at most {MAX_ENTRIES_MEMBLOCK}"
        )
    for number, entry in enumerate(hardware.e820):
        _check_range(f"e820 entry {number}", entry.addr, entry.size)
        if not 0 < entry.type < 1 << 32:
            raise BadMachineError(f"e820 entry {number}: type {entry.type}: 1 is RAM, 2 reserved")
    ram = sorted((e.addr, e.end) for e in hardware.e820 if e.type == E820Type.RAM)
    if not ram:
        raise BadMachineError('e820: no entry of type "usable" (RAM): a machine needs memory')
    if min(start for start, _ in ram) >= _DMA_END:
        raise BadMachineError(
            f"e820: memory starts at {ram[0][0]:#x}; {hardware.arch} needs some below 16 MiB"
        )
    return _joined(ram)


def _check_banks(hardware: Hardware) -> list[tuple[int, int]]:
    if not hardware.memory:
        raise BadMachineError("memory: no node of the device tree: a machine needs memory")
    if len(hardware.memory) > MAX_BANKS:
        raise BadMachineError(
            f"memory has {len(hardware.memory)} nodes; a kernel keeps at most {MAX_BANKS}"
        )
    for number, bank in enumerate(hardware.memory):
        _check_range(f"memory {number}", bank.base, bank.size)
        if bank.nid is not None and not 0 <= bank.nid < MAX_NODES:
            raise BadMachineError(f"memory {number}: node {bank.nid}: write 0 to {MAX_NODES - 1}")
    _check_disjoint("memory", [(b.base, b.end, f"{b.nid}") for b in hardware.memory])
    return _joined(sorted((bank.base, bank.end) for bank in hardware.memory))


def _check_srat(hardware: Hardware) -> None:
    for number, entry in enumerate(hardware.srat):
        _check_range(f"srat entry {number}", entry.base, entry.length)
        if entry.domain < 0:
            raise BadMachineError(f"srat entry {number}: domain {entry.domain}: write 0 or more")
    by_start = sorted(
        (e for e in hardware.srat if e.enabled), key=lambda entry: (entry.base, entry.end)
    )
    reach = None
    for entry in by_start:
        if reach is not None and entry.base < reach.end and entry.domain != reach.domain:
            raise BadMachineError(
                f"srat: {_hex(entry.base, entry.end)} of domain {entry.domain} overlaps "
                f"{_hex(reach.base, reach.end)} of domain {reach.domain}; each byte has one domain"
            )
        if reach is None or entry.end > reach.end:
            reach = entry


def _check_disjoint(what: str, ranges: Iterable[tuple[int, int, str]]) -> None:
    last: tuple[int, int, str] | None = None
    for item in sorted(ranges):
        if last is not None and item[0] < last[1]:
            raise BadMachineError(
                f"{what}: {_hex(item[0], item[1])} overlaps {_hex(last[0], last[1])}: "
                "move or shorten one"
            )
        last = item


def _check_cpus(hardware: Hardware) -> None:
    if not 1 <= hardware.nr_cpus <= MAX_CPUS:
        raise BadMachineError(f"cpus {hardware.nr_cpus}: a machine has 1 to {MAX_CPUS}")
    if min(hardware.cpu_domain) < 0:
        raise BadMachineError(f"cpus {hardware.cpu_domain}: a domain is 0 or more")
    if len(hardware.domains) > MAX_NODES:
        raise BadMachineError(f"{len(hardware.domains)} domains: a kernel has {MAX_NODES} nodes")


def _check_distance(hardware: Hardware) -> None:
    if not hardware.distance:
        return
    domains = hardware.domains
    rows = hardware.distance
    if len(rows) != len(domains) or any(len(row) != len(domains) for row in rows):
        raise BadMachineError(
            f"distance: {len(domains)} domains need {len(domains)} rows of {len(domains)} numbers"
        )
    for a, row in enumerate(rows):
        for b, value in enumerate(row):
            good = value == LOCAL_DISTANCE if a == b else LOCAL_DISTANCE < value <= 255
            if not good:
                raise BadMachineError(
                    f"distance[{a}][{b}] is {value}: write 10 on the diagonal, 11 to 255 elsewhere"
                )


def _check_inside(hardware: Hardware, ram: Sequence[tuple[int, int]]) -> None:
    wanted = []
    if hardware.image is not None:
        wanted.append(("image", hardware.image.start, hardware.image.end))
    if hardware.initrd is not None:
        wanted.append(("initrd", *hardware.initrd))
    for what, start, end in wanted:
        if end <= start:
            raise BadMachineError(f"{what}: {_hex(start, end)} is empty: the end lies behind")
        if not any(low <= start and end <= high for low, high in ram):
            raise BadMachineError(
                f"{what}: {_hex(start, end)} is not in memory; move it or add memory there"
            )
    if len(wanted) == 2:
        _check_disjoint("image and initrd", [(start, end, what) for what, start, end in wanted])


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Union of sorted ranges."""
    out: list[tuple[int, int]] = []
    for start, end in ranges:
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
