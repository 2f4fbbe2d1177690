# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's boot log, read for what it tells about memory.

Logs of 6.1 and 6.12 of x86_64, i386, arm64 and riscv64 are understood, with or without time
stamps. With `memblock=debug` on the kernel's command line the log holds every call of the boot
allocator, in order; without it, only the firmware's map, the zones and the totals.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from physmem.firmware.bootlog_events import (
    AllocCall,
    CmaReserved,
    Event,
    Freed,
    MemblockCall,
    MemblockDump,
    Moment,
    NodeData,
    RamdiskMoved,
    Step,
)
from physmem.firmware.bootlog_figures import Figures
from physmem.firmware.bootlog_lines import LogLine, log_lines, read_text
from physmem.firmware.bootlog_memblock import MemblockLines, infer_requests
from physmem.firmware.e820 import E820Entry, parse_line
from physmem.firmware.hardware import MemoryAffinity, Reservation
from physmem.lib.errors import BadInputError

_MEM = r"\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]"
_PROC_VERSION = re.compile(r"Linux (?:version )?(?:\S+ )??((\d+)\.(\d+)\.\S*)")
_VERSION = re.compile(r"Linux version ((\d+)\.(\d+)\S*)")
_CMDLINE = re.compile(r"(?:Kernel c|C)ommand line: ?(.*)")
_SRAT = re.compile(
    r"(?:ACPI: )?SRAT: Node (\d+) PXM (\d+) " + _MEM + r"(?P<hot> hotplug)?(?P<nv> non-volatile)?"
)
_NODE_DATA = re.compile(
    r"(?:NUMA: )?NODE_DATA(?:\((?P<nid>\d+)\) allocated)? \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]"
)
_ACPI_TABLE = re.compile(r"ACPI: Reserving (\w+) table memory at " + _MEM)
_RAMDISK = re.compile(r"RAMDISK: " + _MEM)
_NEW_RAMDISK = re.compile(r"Allocated new RAMDISK: " + _MEM)
_CMA = re.compile(r"cma: Reserved (\d+) MiB at 0x([0-9a-f]+)")
_FREED = re.compile(r"Freeing (.+?)(?: memory)?: (\d+)K")
_MEGABYTES = re.compile(r"(\d+)MB (HIGHMEM|LOWMEM) available")
_FAKE = re.compile(r"(?:NUMA: )?Faking a node at " + _MEM)

_ARCH_OF_PFN = {20: "i386", 24: "i386-pae", 34: "x86_64", 40: "x86_64-la57"}
"""Architecture by the logarithm of "max_arch_pfn"."""
_ARCH_OF_NAME = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "686-pae": "i386-pae",
    "686": "i386",
    "arm64": "arm64",
    "arm64-16k": "arm64-16k",
    "arm64-64k": "arm64-64k",
    "aarch64": "arm64",
    "riscv64": "riscv64",
}
_ARM64_PAGES = {4096: "arm64", 16384: "arm64-16k", 65536: "arm64-64k"}
_ARCH_SIGNS = (
    (re.compile(r"Booting Linux on physical CPU|psci: |GICv\d|arch_timer: "), "arm64"),
    (re.compile(r"SBI (?:specification|implementation)|riscv: "), "riscv64"),
    (re.compile(r"e820: |BIOS-e820: |x86/"), "x86_64"),
)
_NARROW = re.compile(r"memblock_\w+: \[0x[0-9a-f]{8}-")
"""Physical addresses of 32 bits."""
_MOMENTS = (
    (
        re.compile(r"SRAT: |No NUMA configuration|NUMA turned off|Faking .*node|NODE_DATA"),
        Step.NUMA,
    ),
    (re.compile(r"Zone ranges:"), Step.ZONES),
    (re.compile(r"SLUB: |Memory: \d+K/"), Step.HANDOVER),
    (re.compile(r"Memory: \d+K/"), Step.MEMORY_LINE),
    (re.compile(r"devtmpfs: initialized|smp: Brought up"), Step.INITCALLS),
)


@dataclass(frozen=True, kw_only=True)
class BootLog:
    """What a boot log tells about memory.

    Attributes
    ----------
    name : how messages call the log: its path
    release : for example "6.1.0-47-cloud-amd64"; "" when that line is lost
    version : major and minor number; (0, 0) when lost
    arch : name of `physmem.arch`
    cmdline : the kernel's command line
    e820 : the firmware's map of a PC
    srat : memory affinity; the domain of an entry is its node
    acpi_tables : ranges of the firmware's tables, in the order in which they are reserved
    initrd : range of the initial RAM disk, where the boot loader put it
    fake_node : range of the only node, when the kernel found no NUMA description
    debug : the kernel ran with memblock=debug
    headless : the log does not begin at the kernel's first lines
    late_memory_line : the memory line comes after the slab allocator's (6.12)
    slit : the firmware tells distances of nodes, which the log does not print
    events : calls, dumps and steps in order
    figures : lines to compare with

    Examples
    --------
    >>> log = parse_boot_log(EXAMPLE, "example")
    >>> log.arch, log.version, log.debug, [type(event).__name__ for event in log.events][:2]
    ('x86_64', (6, 1), True, ['MemblockCall', 'AllocCall'])
    """

    name: str
    release: str
    version: tuple[int, int]
    arch: str
    cmdline: str
    e820: tuple[E820Entry, ...]
    srat: tuple[MemoryAffinity, ...]
    acpi_tables: tuple[Reservation, ...]
    initrd: tuple[int, int] | None
    fake_node: tuple[int, int] | None
    debug: bool
    headless: bool
    events: tuple[Event, ...]
    figures: Figures
    highmem_mib: int = 0
    lowmem_mib: int = 0
    late_memory_line: bool = False
    slit: bool = False


def read_boot_log(path: str | Path) -> BootLog:
    """Read a boot log from a file, plain or packed by xz.

    Raises
    ------
    BadInputError
        No such file, no boot log, or one that is damaged or cut off.
    """
    path = Path(path)
    text = read_text(path)
    log = parse_boot_log(text, str(path))
    beside = path.parent / "version"
    if not log.release and beside.is_file():
        # the log has lost its first line; a copy of /proc/version tells the same
        match = _PROC_VERSION.search(read_text(beside))
        if match:
            number = int(match[2]), int(match[3])
            return replace(log, release=match[1], version=number)
    return log


def parse_boot_log(text: str, name: str = "the log") -> BootLog:
    """Read a boot log.

    Parameters
    ----------
    name : how to call the log in messages

    Raises
    ------
    BadInputError
        The text is no boot log, or one that is damaged or cut off; the message says where, and what
        to do.
    """
    reader = _Reader(name)
    for line in log_lines(text, name):
        reader.feed(line)
    return reader.result()


@dataclass
class _Reader:
    name: str
    events: list[Event] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    e820: list[E820Entry] = field(default_factory=list)
    srat: list[MemoryAffinity] = field(default_factory=list)
    acpi_tables: list[Reservation] = field(default_factory=list)
    release: str = ""
    version: tuple[int, int] = (0, 0)
    cmdline: str = ""
    initrd: tuple[int, int] | None = None
    fake_node: tuple[int, int] | None = None
    highmem_mib: int = 0
    lowmem_mib: int = 0
    first_line: LogLine | None = None
    last_line: LogLine | None = None
    sign: str = ""
    narrow: bool = False
    slab_line: int = 0
    slit: bool = False
    steps: set[Step] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.memblock = MemblockLines(self.name, self.events)

    def feed(self, line: LogLine) -> None:
        self.first_line = self.first_line or line
        self.last_line = line
        if line.text.startswith("SLUB: "):
            self.slab_line = self.slab_line or line.number
        elif line.text.startswith("ACPI: SLIT "):
            self.slit = True
        elif not self.narrow and _NARROW.match(line.text):
            self.narrow = True
        for pattern, step in _MOMENTS:
            if step not in self.steps and pattern.search(line.text):
                self._step(step, line.number)
        if self.memblock.feed(line) or self._known(line):
            return
        self.figures.feed(line)
        if not self.sign:
            self.sign = next((arch for sign, arch in _ARCH_SIGNS if sign.search(line.text)), "")

    def _step(self, step: Step, number: int) -> None:
        self.memblock.finish_dump()
        self.steps.add(step)
        self.events.append(Moment(step, number))

    def _known(self, line: LogLine) -> bool:
        text, number = line.text, line.number
        if "BIOS-e820: " in text:
            try:
                entry = parse_line(text)
            except BadInputError:
                entry = None
            if entry is None:
                raise BadInputError(
                    f"{self.name}: line {number}: {text.strip()[:80]!r} is damaged; save the log"
                    " again with: dmesg > FILE"
                )
            self.e820.append(entry)
            return True
        for pattern, method in _TEXTS:
            match = pattern.match(text)
            if match:
                method(self, match, number)
                return True
        return False

    def on_version(self, match: re.Match[str], _number: int) -> None:
        if not self.release:
            self.release = match[1]
            self.version = (int(match[2]), int(match[3]))

    def on_cmdline(self, match: re.Match[str], _number: int) -> None:
        self.cmdline = self.cmdline or match[1]

    def on_affinity(self, match: re.Match[str], _number: int) -> None:
        base, end = int(match[3], 16), int(match[4], 16) + 1
        self.srat.append(
            MemoryAffinity(
                domain=int(match[1]),
                base=base,
                length=end - base,
                hotpluggable=match["hot"] is not None,
                nonvolatile=match["nv"] is not None,
            )
        )

    def on_node_data(self, match: re.Match[str], number: int) -> None:
        known = sum(isinstance(event, NodeData) for event in self.events)
        nid = known if match["nid"] is None else int(match["nid"])
        self.events.append(NodeData(nid, int(match[2], 16), int(match[3], 16) + 1, number))

    def on_acpi_table(self, match: re.Match[str], _number: int) -> None:
        base, end = int(match[2], 16), int(match[3], 16) + 1
        self.acpi_tables.append(Reservation(base=base, size=end - base, name=match[1]))

    def on_ramdisk(self, match: re.Match[str], _number: int) -> None:
        self.initrd = int(match[1], 16), int(match[2], 16) + 1

    def on_new_ramdisk(self, match: re.Match[str], number: int) -> None:
        self.events.append(RamdiskMoved(int(match[1], 16), int(match[2], 16) + 1, number))

    def on_cma(self, match: re.Match[str], number: int) -> None:
        self.events.append(CmaReserved(int(match[2], 16), int(match[1]) << 20, number))

    def on_freed(self, match: re.Match[str], number: int) -> None:
        self.events.append(Freed(match[1], int(match[2]), number))

    def on_megabytes(self, match: re.Match[str], _number: int) -> None:
        if match[2] == "HIGHMEM":
            self.highmem_mib = int(match[1])
        else:
            self.lowmem_mib = int(match[1])

    def on_fake(self, match: re.Match[str], _number: int) -> None:
        self.fake_node = int(match[1], 16), int(match[2], 16) + 1

    def result(self) -> BootLog:
        self.memblock.finish_dump()
        headless = not self.release
        self._check(headless=headless)
        memory = self.figures.memory
        return BootLog(
            name=self.name,
            release=self.release,
            version=self.version,
            arch=self._arch(),
            cmdline=self.cmdline,
            e820=tuple(self.e820),
            srat=tuple(self.srat),
            acpi_tables=tuple(self.acpi_tables),
            initrd=self.initrd,
            fake_node=self.fake_node,
            debug=self.memblock.seen,
            headless=headless,
            events=tuple(infer_requests(self.events)),
            figures=self.figures,
            highmem_mib=self.highmem_mib,
            lowmem_mib=self.lowmem_mib,
            late_memory_line=memory is not None and 0 < self.slab_line < memory.line,
            slit=self.slit,
        )

    def _arch(self) -> str:
        """Architecture; hash tables tell the size of a page: their bytes by their order."""
        arch = self._arch_of_family()
        if arch == "arm64":
            sizes = {
                table.size >> table.order for table in self.figures.hash_tables if table.order > 0
            }
            if len(sizes) == 1:
                return _ARM64_PAGES.get(sizes.pop(), arch)
        return arch

    def _arch_of_family(self) -> str:
        bits = self.figures.max_arch_pfn.bit_length() - 1
        if bits in _ARCH_OF_PFN:
            return _ARCH_OF_PFN[bits]
        for suffix, arch in _ARCH_OF_NAME.items():
            if self.release.endswith(suffix):
                return arch
        if self.sign == "x86_64" and (self.narrow or self._has_highmem()):
            return "i386" if self.narrow else "i386-pae"
        if self.sign:
            return self.sign
        raise BadInputError(
            f"{self.name}: the log does not tell the architecture; its first lines are lost: boot"
            " with log_buf_len=16M and save it with: dmesg > FILE"
        )

    def _has_highmem(self) -> bool:
        memory = self.figures.memory
        return memory is not None and memory.highmem > 0

    def _check(self, *, headless: bool) -> None:
        """Refuse a log without memory, or one that ends before the page allocator starts."""
        first, last = self.first_line, self.last_line
        if first is None or last is None:  # log_lines() found no line: cannot be
            raise BadInputError(f"{self.name} is empty")
        dumps = any(isinstance(event, MemblockDump) for event in self.events)
        added = any(isinstance(event, MemblockCall) for event in self.events)
        if not (self.e820 or dumps or self.figures.node_ranges or (added and not headless)):
            raise BadInputError(
                f"{self.name}: line {first.number}: the log starts at {first.text[:50]!r} and"
                " nothing in it tells what memory there is; boot with memblock=debug"
                " log_buf_len=16M and save it with: dmesg > FILE"
            )
        if Step.HANDOVER not in self.steps:
            raise BadInputError(
                f"{self.name}: line {last.number}: the log ends at {last.text[:50]!r}, before the"
                " page allocator takes over (line 'Memory: ...'); save all of it with:"
                " dmesg > FILE"
            )
        if headless and self.memblock.seen and not dumps:
            raise BadInputError(
                f"{self.name}: line {first.number}: the log starts at {first.text[:50]!r}: its"
                " beginning is lost, and with it what was reserved first; boot with"
                " log_buf_len=16M and save it with: dmesg > FILE"
            )
        asked = [event for event in self.events if isinstance(event, AllocCall)]
        if asked and not any(event.start is not None for event in asked):
            raise BadInputError(
                f"{self.name}: line {asked[0].line}: no allocation shows what it got; the log is"
                " filtered: save all of it with: dmesg > FILE"
            )


_TEXTS = (
    (_VERSION, _Reader.on_version),
    (_CMDLINE, _Reader.on_cmdline),
    (_SRAT, _Reader.on_affinity),
    (_NODE_DATA, _Reader.on_node_data),
    (_ACPI_TABLE, _Reader.on_acpi_table),
    (_RAMDISK, _Reader.on_ramdisk),
    (_NEW_RAMDISK, _Reader.on_new_ramdisk),
    (_CMA, _Reader.on_cma),
    (_FREED, _Reader.on_freed),
    (_MEGABYTES, _Reader.on_megabytes),
    (_FAKE, _Reader.on_fake),
)

EXAMPLE = """\
[    0.000000] Linux version 6.1.0-47-cloud-amd64
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000001ffd9fff] usable
[    0.000000] memblock_add: [0x0000000000100000-0x000000001ffd9fff] e820__memblock_setup+0x65/0x7d
[    0.000000] memblock_alloc_try_nid: 64 bytes align=0x40 nid=-1 from=0x0000000000000000 \
max_addr=0x0000000000000000 sparse_init+0x9f/0x200
[    0.000000] memblock_reserve: [0x000000001ffd9fc0-0x000000001ffd9fff] \
memblock_alloc_range_nid+0xb0/0x13d
[    0.000000] Memory: 219836K/523744K available (14343K kernel code, 2327K rwdata, 8328K rodata, \
2596K init, 5460K bss, 52620K reserved, 0K cma-reserved)
"""
"""A log of a few lines, for examples and tests."""
