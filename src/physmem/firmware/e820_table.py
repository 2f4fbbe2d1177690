# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own e820 table of 6.1: built from the firmware's, then changed, then asked.

Linux: arch/x86/kernel/e820.c (6.1)
"""

from collections.abc import Iterable, Sequence

from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import (
    MAX_ENTRIES_MEMBLOCK,
    NO_MERGE_MEMBLOCK,
    ULLONG_MAX,
    E820Entry,
    E820Type,
    sanitize,
    type_name,
)
from physmem.lib.errors import BadMachineError

_HIGH_MEMORY = 1 << 20
_LOWMEM_SIZE = 0x9F000
_BIOS_BEGIN = 0xA0000
_BIOS_END = 0x100000

_USER_TYPES = {
    "@": E820Type.RAM,
    "#": E820Type.ACPI,
    "$": E820Type.RESERVED,
    "!": E820Type.PRAM,
}


class E820Table:
    """Entries in the order in which the kernel holds them, and what it printed about them.

    Parameters
    ----------
    entries : to start with
    capacity : further entries are dropped, with a message
    no_merge : types whose neighbours stay apart
    log : lines go there; a new list unless given

    Attributes
    ----------
    entries : list of E820Entry
    log : list of str

    Examples
    --------
    >>> table = E820Table([E820Entry(0, 0x9FC00), E820Entry(0x100000, 0x3FF00000)])
    >>> table.update(0, 4096, E820Type.RAM, E820Type.RESERVED)
    4096
    >>> table.log
    ['e820: update [mem 0x00000000-0x00000fff] usable ==> reserved']
    >>> [(hex(entry.addr), int(entry.type)) for entry in table.entries]
    [('0x1000', 1), ('0x100000', 1), ('0x0', 2)]
    """

    def __init__(
        self,
        entries: Iterable[E820Entry] = (),
        *,
        capacity: int = MAX_ENTRIES_MEMBLOCK,
        no_merge: Iterable[int] = NO_MERGE_MEMBLOCK,
        log: list[str] | None = None,
    ) -> None:
        self.entries: list[E820Entry] = []
        self.capacity = capacity
        self.no_merge = frozenset(no_merge)
        self.log: list[str] = [] if log is None else log
        for entry in entries:
            self.append(entry.addr, entry.size, entry.type)

    # -- building --

    def append(self, addr: int, size: int, kind: int) -> None:
        """Add an entry at the end, unless the table is full.

        Linux: e820__range_add()
        """
        if len(self.entries) >= self.capacity:
            last = (addr + size - 1) & ULLONG_MAX
            told = f"e820: too many entries; ignoring [mem {addr:#010x}-{last:#010x}]"
            self.log.append(told)
            return
        self.entries.append(E820Entry(addr, size, kind))

    def memory_setup(self, bios: Sequence[E820Entry], alt_mem_kib: int = 0) -> None:
        """Take over the firmware's map, or invent one when that is no use, and print it.

        Parameters
        ----------
        alt_mem_kib : memory above 1 MiB that older BIOS calls tell of

        Linux: e820__memory_setup()

        Examples
        --------
        >>> table = E820Table()
        >>> table.memory_setup([], alt_mem_kib=65536)
        >>> table.log[1:]
        ['BIOS-e801: [mem 0x0000000000000000-0x000000000009efff] usable', \
'BIOS-e801: [mem 0x0000000000100000-0x00000000040fffff] usable']
        """
        who = "BIOS-e820"
        usable = len(bios) >= 2
        if usable:
            for entry in bios:
                if entry.size and entry.end > 1 << 64:
                    usable = False
                    break
                self.append(entry.addr, entry.size, entry.type)
        if not usable:
            who = "BIOS-e801"
            self.entries.clear()
            self.append(0, _LOWMEM_SIZE, E820Type.RAM)
            self.append(_HIGH_MEMORY, alt_mem_kib << 10, E820Type.RAM)
        self.sanitize()
        self.log.append("BIOS-provided physical RAM map:")
        self.print(who)

    def print(self, who: str) -> None:
        """Log all entries.

        Linux: e820__print_table()
        """
        self.log += [entry.line(who) for entry in self.entries]

    def sanitize(self) -> bool:
        """Sort and cut entries; False: refused, nothing changed.

        Linux: e820__update_table()
        """
        result = sanitize(self.entries, self.no_merge, self.capacity)
        if result is None:
            return False
        self.entries[:] = result
        return True

    # -- changing --

    def update(self, start: int, size: int, old: int, new: int) -> int:
        """Change the type of what is `old` in a range; the table is not sorted afterwards.

        Returns
        -------
        int
            bytes that changed

        Linux: __e820__range_update()
        """
        size = min(size, ULLONG_MAX - start)
        end = start + size
        span = f"[mem {start:#010x}-{end - 1:#010x}]"
        self.log.append(f"e820: update {span} {type_name(old)} ==> {type_name(new)}")
        changed = 0
        at = 0
        # the list may grow: what is appended is visited, too
        while at < len(self.entries):
            entry = self.entries[at]
            if entry.type == old:
                if start <= entry.addr and entry.end <= end:
                    self.entries[at] = E820Entry(entry.addr, entry.size, new)
                    changed += entry.size
                elif entry.addr < start and end < entry.end:
                    self.append(start, size, new)
                    self.append(end, entry.end - end, old)
                    self.entries[at] = E820Entry(entry.addr, start - entry.addr, old)
                    changed += size
                else:
                    changed += self._cut(at, start, end, new)
            at += 1
        return changed

    def remove(self, start: int, size: int, kind: int | None = E820Type.RAM) -> int:
        """Take a range out of the entries of one type, or of all.

        Returns
        -------
        int
            bytes that were taken out

        Linux: e820__range_remove()

        Examples
        --------
        >>> table = E820Table([E820Entry(0x100000, 0x3FF00000)])
        >>> table.remove(512 << 20, (1 << 64) - 1, E820Type.RAM) >> 20
        512
        >>> table.entries[0].end >> 20, table.log[0]
        (512, 'e820: remove [mem 0x20000000-0xfffffffffffffffe] usable')
        """
        size = min(size, ULLONG_MAX - start)
        end = start + size
        named = "" if kind is None else type_name(kind)
        self.log.append(f"e820: remove [mem {start:#010x}-{end - 1:#010x}] {named}")
        removed = 0
        at = 0
        while at < len(self.entries):
            entry = self.entries[at]
            if kind is None or entry.type == kind:
                if start <= entry.addr and entry.end <= end:
                    # stays as an empty one until the table is sanitised
                    self.entries[at] = E820Entry(0, 0, 0)
                    removed += entry.size
                elif entry.addr < start and end < entry.end:
                    self.append(end, entry.end - end, entry.type)
                    self.entries[at] = E820Entry(entry.addr, start - entry.addr, entry.type)
                    removed += size
                else:
                    removed += self._cut(at, start, end, None)
            at += 1
        return removed

    def _cut(self, at: int, start: int, end: int, new: int | None) -> int:
        """Take one end off an entry; what is cut off may live on as another type."""
        entry = self.entries[at]
        low, high = max(start, entry.addr), min(end, entry.end)
        if low >= high:
            return 0
        if new is not None:
            self.append(low, high - low, new)
        addr = entry.addr if entry.addr < low else high
        self.entries[at] = E820Entry(addr, entry.size - (high - low), entry.type)
        return high - low

    def apply(self, cmdline: CommandLine) -> None:
        """Follow mem= and memmap=; print the result if there were any.

        Linux: parse_memopt(), parse_memmap_one(), e820__finish_early_params()

        Raises
        ------
        BadMachineError
            No usable map is left: the kernel panics.

        Examples
        --------
        >>> table = E820Table([E820Entry(0, 0x9FC00), E820Entry(0x100000, 0x3FF00000)])
        >>> table.apply(CommandLine.parse("mem=512M memmap=64M$256M"))
        >>> for line in table.log[1:]: print(line)
        user-defined physical RAM map:
        user: [mem 0x0000000000000000-0x000000000009fbff] usable
        user: [mem 0x0000000000100000-0x000000000fffffff] usable
        user: [mem 0x0000000010000000-0x0000000013ffffff] reserved
        user: [mem 0x0000000014000000-0x000000001fffffff] usable
        """
        if cmdline.mem is None and not cmdline.memmap:
            return
        for name, value in cmdline.options:
            if name == "mem" and cmdline.mem is not None and value not in {None, "nopentium"}:
                one = CommandLine.parse(f"mem={value}", strict=False)
                if one.mem:
                    self.remove(one.mem, ULLONG_MAX, E820Type.RAM)
            elif name == "memmap":
                self._memmap(CommandLine.parse(f"memmap={value}", strict=False))
        if not self.sanitize():
            raise BadMachineError(
                "mem=, memmap=: fewer than two entries are left, or one wraps around "
                '(the kernel panics: "Invalid user supplied memory map"); '
                "give the low 640 KiB and the rest"
            )
        self.log.append("user-defined physical RAM map:")
        self.print("user")

    def _memmap(self, cmdline: CommandLine) -> None:
        for request in cmdline.memmap:
            start, size = request.start, request.size
            if request.kind == "exactmap":
                self.entries.clear()
            elif request.kind == "limit":
                self.remove(size, ULLONG_MAX, E820Type.RAM)
            elif request.kind in _USER_TYPES:
                self.append(start, size, _USER_TYPES[request.kind])
            elif request.old is not None and request.new is not None:
                self.update(start, size, request.old, request.new)
            elif request.new is not None:
                self.append(start, size, request.new)
            else:
                self.remove(start, size, request.old)

    def reserve_setup_data(self, data: Iterable[tuple[int, int]]) -> None:
        """Keep what the boot loader passed on: (base, size) of each.

        Linux: e820__reserve_setup_data()
        """
        ranges = list(data)
        for base, size in ranges:
            self.update(base, size, E820Type.RAM, E820Type.RESERVED_KERN)
        if ranges:
            self.sanitize()
            self.log.append("extended physical RAM map:")
            self.print("reserve setup_data")

    def add_kernel_range(self, start: int, end: int) -> None:
        """The running kernel is in memory, whatever the firmware says.

        Linux: e820_add_kernel_range(), arch/x86/kernel/setup.c
        """
        if self.mapped_all(start, end, E820Type.RAM):
            return
        self.log.append(".text .data .bss are not marked as E820_TYPE_RAM!")
        self.remove(start, end - start, None)
        self.append(start, end - start, E820Type.RAM)

    def trim_bios_range(self) -> None:
        """Frame 0 and the BIOS area are no memory.

        Linux: trim_bios_range(), arch/x86/kernel/setup.c
        """
        self.update(0, 4096, E820Type.RAM, E820Type.RESERVED)
        self.remove(_BIOS_BEGIN, _BIOS_END - _BIOS_BEGIN, E820Type.RAM)
        self.sanitize()

    # -- asking --

    def ranges(self, *kinds: int) -> list[tuple[int, int]]:
        """(start, end) in bytes of all entries of these types, in table order."""
        return [(entry.addr, entry.end) for entry in self.entries if entry.type in kinds]

    def mapped_any(self, start: int, end: int, kind: int | None = None) -> bool:
        """Some entry (of that type) overlaps the range.

        Linux: e820__mapped_any()
        """
        return any(
            entry.addr < end and entry.end > start and kind in {None, entry.type}
            for entry in self.entries
        )

    def mapped_all(self, start: int, end: int, kind: int) -> bool:
        """Entries of that type cover the range (the table is sorted).

        Linux: e820__mapped_all()
        """
        for entry in self.entries:
            if entry.type == kind and entry.addr < end and entry.end > start:
                if entry.addr <= start:
                    start = entry.end
                if start >= end:
                    return True
        return False

    def end_pfn(self, limit_pfn: int, max_arch_pfn: int) -> int:
        """First frame number behind the memory below a limit.

        Linux: e820_end_pfn()

        Examples
        --------
        >>> table = E820Table([E820Entry(0x100000, 0x3FED9000)])
        >>> hex(table.end_pfn(1 << 34, 1 << 34)), table.log
        ('0x3ffd9', ['last_pfn = 0x3ffd9 max_arch_pfn = 0x400000000'])
        """
        last = 0
        for start, end in self.ranges(E820Type.RAM):
            if start >> 12 >= limit_pfn:
                continue
            if end >> 12 > limit_pfn:
                last = limit_pfn
                break
            last = max(last, end >> 12)
        last = min(last, max_arch_pfn)
        self.log.append(f"last_pfn = {last:#x} max_arch_pfn = {max_arch_pfn:#x}")
        return last
