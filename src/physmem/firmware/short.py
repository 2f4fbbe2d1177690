# SPDX-License-Identifier: GPL-2.0-or-later
"""A plausible machine from a few words: memory, nodes, CPUs, architecture."""

from physmem.firmware.e820 import E820Entry, E820Type
from physmem.firmware.hardware import (
    LOCAL_DISTANCE,
    REMOTE_DISTANCE,
    DtMemory,
    Hardware,
    MemoryAffinity,
)
from physmem.firmware.platform import GIB, MIB, KernelImage, Platform, platform
from physmem.firmware.size import parse_size
from physmem.lib.errors import BadMachineError

MAX_CPUS = 8192
MAX_NODES = 64
_PAGE = 4096
_FOUR_GIB = 4 * GIB
_EBDA = 0x9FC00
_LOADER_LIMIT = 2 * GIB  # "initrd_addr_max" of Linux's boot header
_VGA = (0xA0000, MIB)
_NODE_UNIT = 8 * MIB  # QEMU gives each node but the last a multiple of this
_HYPER_TRANSPORT = (0xFD00000000, 1 << 40)


def plausible(
    *, memory: str | int, nodes: int, cpus: int, arch: str, image: KernelImage | None
) -> Hardware:
    """The machine; see `Hardware.of`.

    Raises
    ------
    BadMachineError
        An unknown architecture, no size, too little or too much memory, too many nodes or CPUs.

    Examples
    --------
    >>> machine = plausible(memory="4GiB", nodes=1, cpus=1, arch="x86_64", image=None)
    >>> for entry in machine.e820: print(entry)
    [mem 0x0000000000000000-0x000000000009fbff] usable
    [mem 0x000000000009fc00-0x000000000009ffff] reserved
    [mem 0x00000000000f0000-0x00000000000fffff] reserved
    [mem 0x0000000000100000-0x00000000bffd9fff] usable
    [mem 0x00000000bffda000-0x00000000bfffffff] reserved
    [mem 0x00000000fffc0000-0x00000000ffffffff] reserved
    [mem 0x0000000100000000-0x000000013fffffff] usable
    [mem 0x000000fd00000000-0x000000ffffffffff] reserved
    """
    kind = platform(arch)
    for what, number, most in (("nodes", nodes, MAX_NODES), ("cpus", cpus, MAX_CPUS)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise BadMachineError(f"{what} {number!r}: a machine has 1 to {most}")
    total = parse_size(memory) & -_PAGE
    if total > kind.max_bytes:
        most_gib = kind.max_bytes >> 30
        raise BadMachineError(f"memory {memory!r}: {arch} takes at most {most_gib} GiB")
    image = image or kind.image
    initrd = _initrd(total, kind)
    brk = image.end + image.brk_bytes
    if initrd[0] < brk or initrd[1] > _low_end(total, kind):
        least = -(-(brk - kind.ram_base + 2 * kind.initrd_bytes + 2 * kind.firmware_bytes) // MIB)
        if kind.dtb_bytes:
            least = 2 * (least + -(-kind.dtb_bytes // MIB))
        message = f"memory {memory!r}: kernel and RAM disk need more; give it {least}MiB or more"
        raise BadMachineError(message)
    cpu_domain = tuple(cpu * nodes // cpus for cpu in range(cpus))
    distance = tuple(
        tuple(LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nodes))
        for a in range(nodes if nodes > 1 else 0)
    )
    parts = _split(total, nodes, memory)
    if kind.firmware == "e820":
        return Hardware(
            arch=arch,
            e820=_pc_map(total, kind),
            srat=_srat(parts, _low_end(total, kind)) if nodes > 1 else (),
            cpu_domain=cpu_domain,
            distance=distance,
            image=image,
            initrd=initrd,
            ebda=_EBDA,
        ).check()
    base = kind.ram_base
    banks = []
    for nid, size in enumerate(parts):
        banks.append(DtMemory(base=base, size=size, nid=nid if nodes > 1 else None))
        base += size
    dtb = -(-initrd[1] // (2 * MIB)) * (2 * MIB)
    return Hardware(
        arch=arch,
        memory=tuple(banks),
        cpu_domain=cpu_domain,
        distance=distance,
        image=image,
        initrd=initrd,
        dtb=(dtb, dtb + kind.dtb_bytes),
    ).check()


def _low_end(total: int, kind: Platform) -> int:
    """End of the memory below the hole for devices."""
    if kind.lowmem_split and total >= kind.lowmem_split:
        return kind.lowmem_bytes
    return kind.ram_base + total


def _initrd(total: int, kind: Platform) -> tuple[int, int]:
    """A PC's loader puts it as high as it can, the others' 128 MiB into the memory."""
    size = kind.initrd_bytes
    if kind.firmware == "e820":
        end = min(_low_end(total, kind) - kind.initrd_gap, _LOADER_LIMIT)
        return end - size, end
    start = kind.ram_base + min(total // 2, 128 * MIB)
    return start, start + size


def _pc_map(total: int, kind: Platform) -> tuple[E820Entry, ...]:
    low = _low_end(total, kind)
    ranges = [
        (0, _EBDA, E820Type.RAM),
        (_EBDA, _VGA[0], E820Type.RESERVED),
        (0xF0000, MIB, E820Type.RESERVED),
        (MIB, low - kind.firmware_bytes, E820Type.RAM),
        (low - kind.firmware_bytes, low, E820Type.RESERVED),
        (0xFFFC0000, _FOUR_GIB, E820Type.RESERVED),
    ]
    high_end = _FOUR_GIB + total - low
    if high_end > _FOUR_GIB:
        ranges.append((_FOUR_GIB, high_end, E820Type.RAM))
    if kind.hyper_transport and high_end <= _HYPER_TRANSPORT[0]:
        ranges.append((*_HYPER_TRANSPORT, E820Type.RESERVED))
    return tuple(E820Entry(start, end - start, kind) for start, end, kind in ranges)


def _split(total: int, nodes: int, memory: str | int) -> list[int]:
    """Bytes of each node."""
    each = total // nodes // _NODE_UNIT * _NODE_UNIT if nodes > 1 else total
    if not each:
        raise BadMachineError(
            f"memory {memory!r}: {nodes} nodes need at least {nodes * _NODE_UNIT // MIB}MiB"
        )
    return [each] * (nodes - 1) + [total - each * (nodes - 1)]


def _srat(parts: list[int], low_end: int) -> tuple[MemoryAffinity, ...]:
    """Each node's memory, without the video area and the hole for devices."""
    found = []
    at = 0
    for domain, size in enumerate(parts):
        pieces = []
        below = min(max(low_end - at, 0), size)
        if below:
            pieces += _without_vga(at, at + below)
        if size > below:
            start = max(at - low_end, 0) + _FOUR_GIB
            pieces.append((start, start + size - below))
        at += size
        found += [MemoryAffinity(domain=domain, base=s, length=e - s) for s, e in pieces]
    return tuple(found)


def _without_vga(start: int, end: int) -> list[tuple[int, int]]:
    if start < _VGA[0] and end > _VGA[1]:
        return [(start, _VGA[0]), (_VGA[1], end)]
    return [(start, end)]
