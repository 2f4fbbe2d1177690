# SPDX-License-Identifier: GPL-2.0-or-later
"""What setup_arch() knows so far, passed from stage to stage."""

from collections.abc import Callable
from dataclasses import dataclass, field

from physmem.arch.descriptor import Arch, Limits
from physmem.arch.direct_map import DirectMap
from physmem.bootalloc.bootmem import Bootmem
from physmem.bootalloc.dump import memblock_dump_lines
from physmem.bootalloc.memblock import Memblock
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.e820_table import E820Table
from physmem.firmware.hardware import Hardware
from physmem.firmware.platform import KernelImage
from physmem.lib.errors import BadMachineError


@dataclass(kw_only=True)
class Setup:
    """A machine on its way to a running kernel.

    Attributes
    ----------
    arch, hardware, cmdline : what is given
    memblock : boot allocator of kernels that have it ...
    bootmem : ... or of older ones
    log : lines that the kernel would print
    e820 : the kernel's table of a PC with memblock; `e820_bootmem` : of an older one
    limits : where memory ends; set by the stages
    direct_map : set when memory is mapped
    min_alloc_addr : physical address above which ordinary boot allocations lie if they can
    max_possible_pfn : first frame number behind memory that may be plugged in later
    initrd : where the initial RAM disk is now; None: there is none, or it was given up
    whole_page_node_data : node descriptors take whole pages (x86 up to 6.11)
    dma_reserve : frames of ZONE_DMA that the kernel counts as its own (2.6.24)
    active_regions : frames [start, end) that are memory, with node (2.6.24)
    node_data : node id -> (start, end) of its descriptor in bytes; (0, 0): inside the image
    possible : nodes that the machine may have, also without memory
    distance : matrix of node distances, by node id
    cpu_node : node of each CPU
    scratch : what one stage leaves for a later one
    on_early_param : called when the command line is read: from then on memblock=debug prints
    """

    arch: Arch
    hardware: Hardware
    cmdline: CommandLine = field(default_factory=CommandLine)
    memblock: Memblock | None = None
    bootmem: Bootmem | None = None
    log: list[str] = field(default_factory=list)
    e820: E820Table | None = None
    e820_bootmem: E820Bootmem | None = None
    limits: Limits = field(default_factory=lambda: Limits(max_low_pfn=0, max_pfn=0))
    direct_map: DirectMap = field(default_factory=DirectMap)
    min_alloc_addr: int = 0
    max_possible_pfn: int = 0
    initrd: tuple[int, int] | None = None
    whole_page_node_data: bool = True
    dma_reserve: int = 0
    active_regions: list[tuple[int, int, int]] = field(default_factory=list)
    node_data: dict[int, tuple[int, int]] = field(default_factory=dict)
    possible: tuple[int, ...] = ()
    distance: list[list[int]] = field(default_factory=list)
    cpu_node: tuple[int, ...] = ()
    scratch: dict[str, int] = field(default_factory=dict)
    on_early_param: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """The RAM disk is where the loader put it; 16 MiB are left to devices on a PC."""
        self.initrd = self.hardware.initrd
        self.min_alloc_addr = self.arch.max_dma_address
        self.cpu_node = self.cpu_node or (0,) * self.hardware.nr_cpus

    @property
    def image(self) -> KernelImage:
        """The kernel's frames: the machine's, else the typical ones of the architecture."""
        return self.hardware.image or self.arch.image

    @property
    def boot(self) -> Memblock:
        """The boot allocator of kernels with memblock.

        Raises
        ------
        BadMachineError
            This kernel has the other one.
        """
        if self.memblock is None:
            raise BadMachineError(f"{self.arch.name}: this kernel has no memblock; give it one")
        return self.memblock

    @property
    def old_boot(self) -> Bootmem:
        """The boot allocator of kernels with bootmem.

        Raises
        ------
        BadMachineError
            This kernel has the other one.
        """
        if self.bootmem is None:
            raise BadMachineError(f"{self.arch.name}: this kernel has no bootmem; give it one")
        return self.bootmem

    def dump_memblock(self) -> None:
        """Print what memblock holds, if the command line asks for it.

        Linux: memblock_dump_all(), mm/memblock.c (6.1)
        """
        if self.memblock is not None and self.cmdline.memblock_debug:
            self.log += memblock_dump_lines(self.memblock, self.arch.phys_addr_bits)

    def run(self) -> "Setup":
        """All stages of setup_arch() that the architecture has, in order.

        Examples
        --------
        >>> from physmem.arch.registry import arch_for
        >>> machine = Hardware.of(memory="1GiB")
        >>> setup = Setup(arch=arch_for("x86_64"), hardware=machine, memblock=Memblock()).run()
        >>> hex(setup.limits.max_pfn), setup.direct_map.nr_tables()
        ('0x3ffda', 4)
        """
        for stage in self.arch.stages:
            stage.run(self)
        return self
