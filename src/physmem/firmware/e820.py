# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory map of a PC's firmware (BIOS call e820): entries, their types, and sanitising.

Addresses and sizes are bytes below 2^64. What a kernel then does with the table is in
`physmem.firmware.e820_table`.

Linux: arch/x86/kernel/e820.c (6.1), arch/x86/kernel/e820_64.c (2.6.24)
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from physmem.lib.errors import BadInputError

ULLONG_MAX = (1 << 64) - 1


class E820Type(IntEnum):
    """What an entry is for. Firmware may use other numbers: those are no memory either."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    PMEM = 7
    PRAM = 12
    RESERVED_KERN = 128
    SOFT_RESERVED = 0xEFFFFFFF


NO_MERGE_BOOTMEM: frozenset[int] = frozenset()
"""Types whose neighbours stay apart when 2.6.24 sanitises: none."""

NO_MERGE_MEMBLOCK: frozenset[int] = frozenset({E820Type.PRAM, E820Type.SOFT_RESERVED})
"""The same for 6.1. Linux: e820_nomerge(), arch/x86/kernel/e820.c (6.1)"""

MAX_ENTRIES_BOOTMEM = 128
"""Linux: E820MAX, include/asm-x86/e820.h (2.6.24)"""

MAX_ENTRIES_MEMBLOCK = 128 + 3 * 1024
"""Linux: E820_MAX_ENTRIES, arch/x86/include/asm/e820/types.h (6.1), with 1024 possible nodes"""

_NAMES: dict[E820Type, str] = {
    E820Type.RAM: "usable",
    E820Type.RESERVED_KERN: "usable",
    E820Type.RESERVED: "reserved",
    E820Type.SOFT_RESERVED: "soft reserved",
    E820Type.ACPI: "ACPI data",
    E820Type.NVS: "ACPI NVS",
    E820Type.UNUSABLE: "unusable",
    E820Type.PMEM: "persistent (type 7)",
    E820Type.PRAM: "persistent (type 12)",
}
_NAMES_BOOTMEM: dict[E820Type, str] = {
    E820Type.RAM: "(usable)",
    E820Type.RESERVED: "(reserved)",
    E820Type.ACPI: "(ACPI data)",
    E820Type.NVS: "(ACPI NVS)",
}


def type_name(kind: int) -> str:
    """The words that 6.1 prints for a type.

    Linux: e820_print_type(), arch/x86/kernel/e820.c (6.1)

    Examples
    --------
    >>> type_name(1), type_name(E820Type.NVS), type_name(99)
    ('usable', 'ACPI NVS', 'type 99')
    """
    return _NAMES[E820Type(kind)] if kind in _NAMES else f"type {kind}"


@dataclass(frozen=True, slots=True)
class E820Entry:
    """One entry: `size` bytes from physical address `addr`, of one type.

    Examples
    --------
    >>> entry = E820Entry(0, 0x9FC00, E820Type.RAM)
    >>> hex(entry.end), str(entry)
    ('0x9fc00', '[mem 0x0000000000000000-0x000000000009fbff] usable')
    """

    addr: int
    size: int
    type: int = E820Type.RAM

    @property
    def end(self) -> int:
        """First byte behind the entry."""
        return self.addr + self.size

    def __str__(self) -> str:
        last = (self.end - 1) & ULLONG_MAX
        return f"[mem {self.addr:#018x}-{last:#018x}] {type_name(self.type)}"

    def line(self, who: str) -> str:
        """The line of a 6.1 boot log, for example "BIOS-e820: [mem 0x...-0x...] usable".

        Linux: e820__print_table(), arch/x86/kernel/e820.c (6.1)
        """
        return f"{who}: {self}"

    def line_bootmem(self, who: str) -> str:
        """The line of a 2.6.24 boot log; its end is the first byte behind the entry.

        Linux: e820_print_map(), arch/x86/kernel/e820_64.c (2.6.24)

        Examples
        --------
        >>> E820Entry(0, 0x9FC00).line_bootmem("BIOS-e820")
        ' BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)'
        """
        known = self.type in _NAMES_BOOTMEM
        name = _NAMES_BOOTMEM[E820Type(self.type)] if known else f"type {self.type}"
        return f" {who}: {self.addr:016x} - {self.end & ULLONG_MAX:016x} {name}"


_LINE = re.compile(
    r"(?P<who>[\w-]+): (?:"
    r"\[mem 0x(?P<first>[0-9a-f]+)-0x(?P<last>[0-9a-f]+)\] (?P<name>.+)"
    r"|(?P<start>[0-9a-f]{16}) - (?P<end>[0-9a-f]{16}) (?P<old>.+)"
    r")\s*$"
)
_TYPES: dict[str, int] = {
    name: kind for kind, name in _NAMES.items() if kind is not E820Type.RESERVED_KERN
}
_TYPES |= {name: kind for kind, name in _NAMES_BOOTMEM.items()}


def parse_line(line: str, who: str = "BIOS-e820") -> E820Entry | None:
    """Entry of a line of a kernel's boot log, of either form; None: not such a line.

    Parameters
    ----------
    who : source named in the line: "BIOS-e820", "user", "modified"

    Raises
    ------
    BadInputError
        The line has an unknown type or ends before it starts.

    Examples
    --------
    >>> parse_line("BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable")
    E820Entry(addr=0, size=654336, type=<E820Type.RAM: 1>)
    >>> parse_line(" BIOS-e820: 00000000fffc0000 - 0000000100000000 (reserved)").type.name
    'RESERVED'
    """
    match = _LINE.search(line)
    if match is None or match["who"] != who:
        return None
    if match["first"] is not None:
        start, end, name = int(match["first"], 16), int(match["last"], 16) + 1, match["name"]
    else:
        start, end, name = int(match["start"], 16), int(match["end"], 16), match["old"]
    kind = _TYPES.get(name)
    if kind is None:
        number = re.fullmatch(r"type (\d+)", name)
        if number is None:
            raise BadInputError(
                f"{line.strip()!r}: {name!r} is no type of memory that Linux prints"
            )
        kind = int(number[1])
    if end < start:
        raise BadInputError(f"{line.strip()!r}: the range ends before it starts")
    return E820Entry(start, end - start, kind)


def sanitize(
    entries: Sequence[E820Entry],
    no_merge: Iterable[int] = NO_MERGE_MEMBLOCK,
    capacity: int = MAX_ENTRIES_MEMBLOCK,
) -> tuple[E820Entry, ...] | None:
    """Non-overlapping ascending entries; where some overlap the largest type number wins.

    Parameters
    ----------
    no_merge : types that are cut at every boundary of any entry
    capacity : entries beyond that are dropped

    Returns
    -------
    tuple or None
        None: refused, as the kernel does with fewer than two entries or one that wraps around

    Linux: e820__update_table(), arch/x86/kernel/e820.c (6.1); sanitize_e820_map(),
    arch/x86/kernel/e820_64.c (2.6.24)

    Examples
    --------
    >>> bios = [E820Entry(0, 0xA0000), E820Entry(0x9FC00, 0x400, E820Type.RESERVED)]
    >>> [(hex(entry.addr), hex(entry.end), int(entry.type)) for entry in sanitize(bios)]
    [('0x0', '0x9fc00', 1), ('0x9fc00', '0xa0000', 2)]
    >>> sanitize(bios[:1]) is None
    True
    """
    if len(entries) < 2 or any(entry.end > ULLONG_MAX for entry in entries):
        return None
    kept_apart = frozenset(no_merge)
    # at one address every start comes before every end, so that touching entries may merge
    points = sorted(
        [(entry.addr, 0, entry.type) for entry in entries if entry.size]
        + [(entry.end, 1, entry.type) for entry in entries if entry.size]
    )
    out: list[E820Entry] = []
    nr_open: dict[int, int] = {}
    last_type = last_addr = 0
    for addr, is_end, kind in points:
        nr_open[kind] = nr_open.get(kind, 0) + (-1 if is_end else 1)
        if not nr_open[kind]:
            del nr_open[kind]
        current = max(nr_open, default=0)
        if current == last_type and current not in kept_apart:
            continue
        if last_type and addr > last_addr:
            out.append(E820Entry(last_addr, addr - last_addr, last_type))
            if len(out) == capacity:
                break
        if current:
            last_addr = addr
        last_type = current
    return tuple(out)
