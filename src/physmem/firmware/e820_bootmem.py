# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own e820 table of 2.6.24, for 32 and for 64 bits.

Linux: arch/x86/kernel/e820_32.c, arch/x86/kernel/e820_64.c (2.6.24)
"""

from collections.abc import Iterable, Sequence

from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import (
    MAX_ENTRIES_BOOTMEM,
    NO_MERGE_BOOTMEM,
    ULLONG_MAX,
    E820Entry,
    E820Type,
    sanitize,
)
from physmem.lib.errors import BadMachineError

_HIGH_MEMORY = 1 << 20
_LOWMEM_SIZE = 0x9F000
_BIOS_BEGIN = 0xA0000
_BIOS_END = 0x100000
_FIRST_SAFE = 0x8000
_PAGE = 4096
NO_USER_LIMIT = ULLONG_MAX >> 12

_USER_TYPES = {"@": E820Type.RAM, "#": E820Type.ACPI, "$": E820Type.RESERVED}


class E820Bootmem:
    """The table and what was printed about it.

    Parameters
    ----------
    wide : of a 64-bit kernel
    log : lines go there; a new list unless given

    Attributes
    ----------
    entries : list of E820Entry
    end_user_pfn : mem= of a 64-bit kernel, in frames
    end_pfn_map : first frame number behind all entries, of any type (64 bits)
    """

    def __init__(self, *, wide: bool, log: list[str] | None = None) -> None:
        self.wide = wide
        self.entries: list[E820Entry] = []
        self.log: list[str] = [] if log is None else log
        self.end_user_pfn = NO_USER_LIMIT
        self.end_pfn_map = 0

    # -- building --

    def append(self, addr: int, size: int, kind: int) -> None:
        """Add an entry at the end, unless the table is full.

        Linux: add_memory_region()
        """
        if len(self.entries) == MAX_ENTRIES_BOOTMEM:
            self.log.append("Ooops! Too many entries in the memory map!")
            return
        self.entries.append(E820Entry(addr, size, kind))

    def memory_setup(self, bios: Sequence[E820Entry], alt_mem_kib: int = 0) -> None:
        """Take over the firmware's map and print it.

        Parameters
        ----------
        alt_mem_kib : memory above 1 MiB that older BIOS calls tell of (32 bits)

        Linux: machine_specific_memory_setup(), setup_memory_region()

        Raises
        ------
        BadMachineError
            A 64-bit kernel finds no valid map: it panics.

        Examples
        --------
        >>> table = E820Bootmem(wide=False)
        >>> table.memory_setup([E820Entry(0, 2 << 20), E820Entry(3 << 20, 61 << 20)])
        >>> for line in table.log: print(line)
        BIOS-provided physical RAM map:
         BIOS-e820: 0000000000000000 - 00000000000a0000 (usable)
         BIOS-e820: 0000000000100000 - 0000000000200000 (usable)
         BIOS-e820: 0000000000300000 - 0000000004000000 (usable)
        """
        given = sanitize(bios, NO_MERGE_BOOTMEM, MAX_ENTRIES_BOOTMEM)
        who = "BIOS-e820"
        if not self._copy(bios if given is None else given):
            if self.wide:
                raise BadMachineError(
                    "e820: fewer than two entries, or one that wraps around "
                    '(the kernel panics: "Cannot find a valid memory map"); give it two or more'
                )
            who = "BIOS-e801"
            self.entries.clear()
            self.append(0, _LOWMEM_SIZE, E820Type.RAM)
            self.append(_HIGH_MEMORY, alt_mem_kib << 10, E820Type.RAM)
        self.log.append("BIOS-provided physical RAM map:")
        self.print(who)

    def _copy(self, entries: Sequence[E820Entry]) -> bool:
        """Linux: copy_e820_map()"""
        if len(entries) < 2:
            return False
        for entry in entries:
            if entry.end > ULLONG_MAX:
                return False
            start = entry.addr
            # some BIOSes claim memory between 640 KiB and 1 MiB; only the 32-bit kernel cuts it
            if (
                not self.wide
                and entry.type == E820Type.RAM
                and start < _BIOS_END
                and entry.end > _BIOS_BEGIN
            ):
                if start < _BIOS_BEGIN:
                    self.append(start, _BIOS_BEGIN - start, entry.type)
                if entry.end <= _BIOS_END:
                    continue
                start = _BIOS_END
            self.append(start, entry.end - start, entry.type)
        return True

    def print(self, who: str) -> None:
        """Log all entries.

        Linux: print_memory_map(), e820_print_map()
        """
        self.log += [entry.line_bootmem(who) for entry in self.entries]

    def apply(self, cmdline: CommandLine) -> None:
        """Follow mem= and memmap=. What the user adds is neither sorted nor checked.

        Linux: parse_mem(), parse_memmap(), parse_memmap_opt(), parse_memopt()

        Examples
        --------
        >>> table = E820Bootmem(wide=False)
        >>> table.memory_setup([E820Entry(0, 0x9F000), E820Entry(1 << 20, 63 << 20)])
        >>> table.apply(CommandLine.parse("mem=32M"))
        >>> table.entries[-1].end >> 20, table.log[-1]
        (32, ' user: 0000000000100000 - 0000000002000000 (usable)')
        """
        changed = False
        for name, value in cmdline.options:
            one = CommandLine.parse(f"{name}={value or ''}", strict=False)
            if name == "mem" and one.mem:
                changed |= self._limit(one.mem)
            elif name == "memmap":
                for request in one.memmap:
                    changed = True
                    if request.kind == "exactmap":
                        self.entries.clear()
                        self.end_pfn_map = 0
                    elif request.kind == "limit":
                        self._limit(request.size)
                    elif request.kind in _USER_TYPES:
                        kind = _USER_TYPES[request.kind]
                        self.append(request.start, request.size, kind)
        if changed:
            self.log.append("user-defined physical RAM map:")
            self.print("user")

    def _limit(self, size: int) -> bool:
        """Follow mem=; whether the table itself changed."""
        if self.wide:
            self.end_user_pfn = size >> 12
            return False
        self.limit_regions(size)
        return True

    def limit_regions(self, size: int) -> None:
        """End the table with the first memory that reaches a limit.

        Linux: limit_regions(), arch/x86/kernel/e820_32.c (2.6.24)
        """
        self.print("limit_regions start")
        where = "limit_regions endfunc"
        for at, entry in enumerate(self.entries):
            if entry.end < size or entry.type != E820Type.RAM:
                continue
            del self.entries[at:]
            if entry.addr < size:
                self.entries.append(E820Entry(entry.addr, size - entry.addr, entry.type))
            where = "limit_regions endfor"
            break
        self.print(where)

    # -- asking --

    def ram_pfns(self) -> list[tuple[int, int]]:
        """Whole frames [start, end) of memory, in table order."""
        found = [
            (-(-entry.addr // _PAGE), entry.end // _PAGE)
            for entry in self.entries
            if entry.type == E820Type.RAM
        ]
        return [(start, end) for start, end in found if start < end]

    def max_pfn(self) -> int:
        """First frame number behind the memory (32 bits).

        Linux: find_max_pfn(), arch/x86/kernel/e820_32.c (2.6.24)
        """
        return max((end for _, end in self.ram_pfns()), default=0)

    def active_regions(
        self, start_pfn: int = 0, end_pfn: int = NO_USER_LIMIT
    ) -> list[tuple[int, int]]:
        """Frames [start, end) to register for a node that spans so much (64 bits).

        Linux: e820_register_active_regions(), arch/x86/kernel/e820_64.c (2.6.24)

        Examples
        --------
        >>> table = E820Bootmem(wide=True)
        >>> table.memory_setup([E820Entry(0, 0x9FC00), E820Entry(1 << 20, 63 << 20)])
        >>> table.active_regions(0, 8192)
        [(0, 159), (256, 8192)]
        """
        found = []
        for entry in self.entries:
            start, end = -(-entry.addr // _PAGE), entry.end // _PAGE
            if start >= end:
                continue
            if entry.type != E820Type.RAM:
                self.end_pfn_map = max(self.end_pfn_map, end)
                continue
            if end <= start_pfn or start >= end_pfn:
                continue
            start, end = max(start, start_pfn), min(end, end_pfn)
            if start < self.end_user_pfn:
                found.append((start, min(end, self.end_user_pfn)))
        return found

    def end_of_ram(self, max_arch_pfn: int) -> int:
        """First frame number behind the memory; sets `end_pfn_map` (64 bits).

        Linux: e820_end_of_ram(), arch/x86/kernel/e820_64.c (2.6.24)
        """
        end = max((last for _, last in self.active_regions()), default=0)
        self.end_pfn_map = min(max(self.end_pfn_map, end), max_arch_pfn)
        self.log.append(f"end_pfn_map = {self.end_pfn_map}")
        return min(end, self.end_user_pfn, self.end_pfn_map)

    def mapped_any(self, start: int, end: int, kind: int | None = None) -> bool:
        """Some entry (of that type) overlaps the range.

        Linux: e820_any_mapped(), arch/x86/kernel/e820_64.c (2.6.24)
        """
        return any(
            entry.addr < end and entry.end > start and kind in {None, entry.type}
            for entry in self.entries
        )

    def hole_pages(self, start_pfn: int, end_pfn: int) -> int:
        """Frames of a range that are no memory.

        Linux: e820_hole_size(), arch/x86/kernel/e820_64.c (2.6.24)
        """
        found = self.active_regions(start_pfn, end_pfn)
        return end_pfn - start_pfn - sum(end - start for start, end in found)

    def find_area(
        self,
        start: int,
        end: int,
        size: int,
        taken: Iterable[tuple[int, int]] = (),
        node_map: tuple[int, int] = (0, 0),
    ) -> int | None:
        """First place for `size` bytes before there is any allocator, or None.

        Parameters
        ----------
        start, end : bytes between which to look
        taken : ranges [start, end) that are in use, in the order in which the kernel tests them:
            tables of the direct map, RAM disk, kernel, EBDA
        node_map : table of nodes, tested last; the kernel does not round its end up to a page

        Linux: find_e820_area(), bad_addr(), arch/x86/kernel/e820_64.c (2.6.24)

        Examples
        --------
        >>> table = E820Bootmem(wide=True)
        >>> table.memory_setup([E820Entry(0, 0x9FC00), E820Entry(1 << 20, 63 << 20)])
        >>> hex(table.find_area(0, 64 << 20, 0x3000)), hex(table.find_area(0, 64 << 20, 0x200000))
        ('0x8000', '0x100000')
        """
        zones = [(low, high, high + _PAGE - 1 & -_PAGE) for low, high in taken]
        zones = [(0, _FIRST_SAFE, _FIRST_SAFE), *zones, (*node_map, node_map[1])]
        for entry in self.entries:
            addr = max(entry.addr, start)
            if entry.type != E820Type.RAM or addr > entry.end:
                continue
            while (behind := _bad_addr(addr, size, zones)) is not None:
                addr = behind
                if addr + size > entry.end:
                    break
            last = (addr + _PAGE - 1 & -_PAGE) + size
            if last <= entry.end and last <= end:
                return addr
        return None


def _bad_addr(addr: int, size: int, zones: Iterable[tuple[int, int, int]]) -> int | None:
    """Where to go on when a zone is in the way; a block that ends where one starts clashes."""
    for start, end, behind in zones:
        if end > start and addr + size >= start and addr < end:
            return behind
    return None
