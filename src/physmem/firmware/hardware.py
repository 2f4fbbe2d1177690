# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine before its kernel runs: what the firmware and the boot loader hand over.

All addresses are physical bytes, ranges are half open.
"""

from dataclasses import dataclass

from physmem.firmware.e820 import E820Entry
from physmem.firmware.platform import KernelImage

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20


@dataclass(frozen=True, kw_only=True)
class DtMemory:
    """A memory node of the device tree.

    Attributes
    ----------
    nid : its property "numa-node-id"; None: it has none
    hotpluggable : its property "hotpluggable"

    Examples
    --------
    >>> DtMemory(base=1 << 30, size=1 << 29).end >> 20
    1536
    """

    base: int
    size: int
    nid: int | None = None
    hotpluggable: bool = False

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.base + self.size


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Memory that the firmware or the loader keeps: a child of /reserved-memory, an ACPI table.

    Attributes
    ----------
    nomap : the kernel must not map it either

    Examples
    --------
    >>> Reservation(base=0x1000, size=0x1000).end
    8192
    """

    base: int
    size: int
    nomap: bool = False
    name: str = ""

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.base + self.size


@dataclass(frozen=True, kw_only=True)
class DynamicReservation:
    """A child of /reserved-memory without an address: the kernel chooses one.

    Attributes
    ----------
    alignment : bytes, a power of two; 0: a cache line
    ranges : where it may lie (base, size); none: anywhere
    """

    size: int
    alignment: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    nomap: bool = False
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class MemoryAffinity:
    """An entry of the ACPI table SRAT: memory that belongs to a proximity domain.

    Examples
    --------
    >>> MemoryAffinity(domain=1, base=1 << 30, length=1 << 30).end >> 30
    2
    """

    domain: int
    base: int
    length: int
    enabled: bool = True
    hotpluggable: bool = False
    nonvolatile: bool = False

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.base + self.length


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine as its kernel finds it.

    Attributes
    ----------
    arch : name of `physmem.arch`, for example "x86_64"
    e820 : the firmware's map of a PC; empty on machines with a device tree
    memory : memory nodes of the device tree; empty on a PC
    reserved : what the device tree reserves at fixed places (or the ACPI tables need) ...
    dynamic : ... and what the kernel shall find a place for
    usable_range : (base, size) that memory is capped to (property "linux,usable-memory-range")
    srat : memory affinity of a PC; empty: one node
    cpu_domain : proximity domain (device tree: node) of each CPU
    distance : matrix of domains in ascending order, 10 is local; empty: 10 and 20
    image : the kernel's frames; None: the typical one of the architecture
    initrd : range of the initial RAM disk; None: there is none
    dtb : range of the device tree itself
    acpi_tables : ranges of the ACPI tables, in the order of the firmware's list
    setup_data : what the boot loader passes on (x86)
    mp_table : pages of the MultiProcessor table (x86)
    mirror : (base, size) of memory that the firmware mirrors
    ebda, ebda_kib : first byte and size of the extended BIOS data area; 0: there is none
    alt_mem_kib : KiB of memory above 1 MiB that older BIOS calls tell of
    bios_kib : KiB of memory below the BIOS, the word at 0x413
    real_mode_bytes : size of the start-up code of secondary CPUs (x86)
    huge_1g, pse, pge, nx : the CPU has 1 GiB pages, 2/4 MiB pages, global pages, no-execute
    pa_bits : width of a physical address; 0: the most that the architecture has
    dma_bits : width of the address that every device can reach (arm64)
    sandy_bridge_graphics : this graphics unit needs five pages left alone (x86)
    athlon : AMD family 6: the page below 640 KiB is not used (2.6.24)

    Examples
    --------
    >>> machine = Hardware.of(memory="64GiB", nodes=2, cpus=4)
    >>> len(machine.srat), machine.cpu_domain, machine.distance
    (4, (0, 0, 1, 1), ((10, 20), (20, 10)))
    >>> Hardware.of(memory="512MiB", arch="arm64").memory
    (DtMemory(base=1073741824, size=536870912, nid=None, hotpluggable=False),)
    """

    arch: str = "x86_64"
    e820: tuple[E820Entry, ...] = ()
    memory: tuple[DtMemory, ...] = ()
    reserved: tuple[Reservation, ...] = ()
    dynamic: tuple[DynamicReservation, ...] = ()
    usable_range: tuple[int, int] | None = None
    srat: tuple[MemoryAffinity, ...] = ()
    cpu_domain: tuple[int, ...] = (0,)
    distance: tuple[tuple[int, ...], ...] = ()
    image: KernelImage | None = None
    initrd: tuple[int, int] | None = None
    dtb: tuple[int, int] | None = None
    acpi_tables: tuple[Reservation, ...] = ()
    setup_data: tuple[Reservation, ...] = ()
    mp_table: tuple[Reservation, ...] = ()
    mirror: tuple[tuple[int, int], ...] = ()
    ebda: int = 0
    ebda_kib: int = 1
    alt_mem_kib: int = 0
    bios_kib: int = 639
    real_mode_bytes: int = 28672
    huge_1g: bool = True
    pse: bool = True
    pge: bool = True
    nx: bool = True
    pa_bits: int = 0
    dma_bits: int = 32
    sandy_bridge_graphics: bool = False
    athlon: bool = False

    @property
    def nr_cpus(self) -> int:
        """Number of CPUs."""
        return len(self.cpu_domain)

    @property
    def domains(self) -> tuple[int, ...]:
        """All proximity domains (device tree: nodes) in ascending order."""
        found = {entry.domain for entry in self.srat}
        found |= {entry.nid for entry in self.memory if entry.nid is not None}
        return tuple(sorted(found | set(self.cpu_domain)))

    @classmethod
    def of(
        cls,
        *,
        memory: str | int = "1GiB",
        nodes: int = 1,
        cpus: int = 1,
        arch: str = "x86_64",
        image: KernelImage | None = None,
    ) -> "Hardware":
        """A plausible machine from a few words, laid out as QEMU does it.

        Parameters
        ----------
        memory : bytes, or text such as "64GiB": all nodes together
        nodes, cpus : how many; the memory is split evenly, so are the CPUs
        image : the kernel; None: a typical one of 6.1

        Raises
        ------
        BadMachineError
            An unknown architecture, no size, too little or too much memory, too many nodes.
        """
        # deferred: that module builds this class
        from physmem.firmware.short import plausible

        return plausible(memory=memory, nodes=nodes, cpus=cpus, arch=arch, image=image)

    def check(self) -> "Hardware":
        """The machine itself, when it can exist.

        Raises
        ------
        BadMachineError
            It cannot; the message says what, where and what to do.

        Examples
        --------
        >>> Hardware.of().check().nr_cpus
        1
        """
        # deferred: that module reads this class
        from physmem.firmware.check import check_hardware

        check_hardware(self)
        return self
