# SPDX-License-Identifier: GPL-2.0-or-later
"""A described machine on which a kernel with bootmem (2.6.24) starts."""

from dataclasses import replace

from physmem.arch.descriptor import Arch, Generation
from physmem.arch.registry import arch_for
from physmem.arch.setup import Setup
from physmem.arch.x86_lowmem import maxmem
from physmem.boot.active_range import EarlyNodeMap, max_active_regions
from physmem.boot.boot_bootmem import BootBootmem
from physmem.boot.features import boot_features
from physmem.boot.kernel_config_bootmem import (
    BootmemKernelConfig,
    bootmem_geometry,
    bootmem_kernel_config,
)
from physmem.boot.noted_bootmem import NotedBootmem
from physmem.bootalloc.bootmem import BootmemConfig
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820 import E820Type
from physmem.firmware.hardware import Hardware
from physmem.firmware.platform import platform

_LOADER_LIMIT = 0x20000000
"""Where loaders of that time end the RAM disk at the latest: "ramdisk_max" of the boot header."""
_HYPER_TRANSPORT = 0xFD00000000
"""From here on newer firmware reserves 12 GiB below 1 TiB."""


def boot_of_hardware_bootmem(
    hardware: Hardware,
    *,
    kernel: str = "2.6.24",
    cmdline: str | CommandLine = "",
    config: BootmemKernelConfig | None = None,
) -> BootBootmem:
    """The state of a kernel before its first stage; `start_kernel_bootmem` does the rest.

    Parameters
    ----------
    hardware : the machine; if it has the typical kernel image of a newer Linux, it is made older:
        this Linux' typical image takes its place, the RAM disk moves to where its loader puts it,
        and the firmware does not reserve the end of the first terabyte
    kernel : profile with bootmem
    config : the build; None: a typical one

    Raises
    ------
    BadMachineError
        The machine, the architecture or the kernel cannot be.
    BadInputError
        An option of the command line has a value that makes no sense.

    Examples
    --------
    >>> boot = boot_of_hardware_bootmem(Hardware.of(memory="1GiB", arch="i386"))
    >>> boot.arch.max_order, boot.geometry.pageblock_order, hex(boot.hardware.image.start)
    (11, 10, '0x100000')
    """
    arch = arch_for(hardware.arch, Generation.BOOTMEM)
    config = config or bootmem_kernel_config(arch)
    options = CommandLine.parse(cmdline) if isinstance(cmdline, str) else cmdline
    hardware = _of_its_time(hardware, arch).check()
    geometry = bootmem_geometry(arch, config)
    bootmem = NotedBootmem(
        BootmemConfig(
            page_shift=arch.page_shift,
            bits_per_long=arch.bits_per_long,
            smp_cache_bytes=arch.smp_cache_bytes,
            max_dma_address=arch.max_dma_address,
            low_limit=arch.bootmem_goal_low,
        )
    )
    boot = BootBootmem(
        setup=Setup(arch=arch, hardware=hardware, cmdline=options, bootmem=bootmem),
        kernel=kernel,
        features=boot_features(kernel),
        geometry=geometry,
        config=config,
        bootmem=bootmem,
        node_map=EarlyNodeMap(capacity=max_active_regions(arch.max_numnodes)),
    )
    boot.assumptions.append("the sizes of the kernel image and of its records are typical ones")
    if hardware.srat and not config.numa:
        boot.assumptions.append(f"{arch.name}: this kernel knows no NUMA; all memory is one node")
    return boot


def _of_its_time(hardware: Hardware, arch: Arch) -> Hardware:
    """A machine with a kernel image of this generation, firmware's map and RAM disk likewise."""
    if hardware.image is not None and hardware.image != platform(hardware.arch).image:
        return hardware
    known = tuple(
        entry
        for entry in hardware.e820
        if entry.type == E820Type.RAM or entry.addr != _HYPER_TRANSPORT
    )
    hardware = replace(hardware, image=arch.image, e820=known)
    if hardware.initrd is None:
        return hardware
    start, end = hardware.initrd
    limit = min(_LOADER_LIMIT, maxmem(arch)) if arch.highmem else end
    if end <= limit:
        return hardware
    return replace(hardware, initrd=(limit - (end - start), limit))
