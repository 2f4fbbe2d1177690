# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a machine that is described, not recorded."""

from collections.abc import Iterator

from physmem.arch.registry import arch_for
from physmem.arch.setup import Setup
from physmem.boot.boot import Boot, CallObserver, geometry_of
from physmem.boot.calls_formula import FormulaCalls
from physmem.boot.features import boot_features
from physmem.boot.kernel_config import KernelConfig, kernel_config
from physmem.boot.owners import OwnerBook
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.firmware.check import check_size
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.hardware import Hardware
from physmem.lib.ram import Ram


def boot_of_hardware(
    hardware: Hardware,
    *,
    kernel: str = "6.1",
    cmdline: str | CommandLine = "",
    config: KernelConfig | None = None,
    ram: Ram | None = None,
) -> Boot:
    """The state of a kernel before its first stage; `start_kernel` does the rest.

    Parameters
    ----------
    hardware : the machine
    kernel : profile with memblock
    config : the build; None: a typical one
    ram : contents of memory, cleared where the kernel clears what it allocates

    Raises
    ------
    BadMachineError
        The machine, the architecture or the kernel cannot be.
    BadInputError
        An option of the command line has a value that makes no sense.

    Examples
    --------
    >>> boot = boot_of_hardware(Hardware.of(memory="1GiB"), cmdline="movablecore=128M")
    >>> boot.arch.name, boot.geometry.pageblock_order, boot.config.deferred_pages
    ('x86_64', 9, True)
    """
    check_size(hardware)
    config = config or kernel_config(hardware.arch, kernel)
    arch = arch_for(hardware.arch)
    options = CommandLine.parse(cmdline) if isinstance(cmdline, str) else cmdline
    owners = OwnerBook()
    log: list[str] = []
    observer = CallObserver(owners, log, bits=arch.phys_addr_bits, debug=options.memblock_debug)
    observer.quiet = True
    memblock = Memblock(
        MemblockConfig(
            page_shift=arch.page_shift,
            smp_cache_bytes=arch.smp_cache_bytes,
            numa=config.numa,
            movable_node=options.movable_node,
            mirrored_kernelcore=options.value("kernelcore") == "mirror",
        ),
        ram=ram,
        on_call=observer,
    )
    setup = Setup(
        arch=arch,
        hardware=hardware,
        cmdline=options,
        memblock=memblock,
        log=log,
        whole_page_node_data=config.whole_page_node_data,
        on_early_param=observer.read_early_params,
    )
    return Boot(
        arch=arch,
        hardware=hardware,
        kernel=kernel,
        cmdline=options,
        config=config,
        calls=FormulaCalls(setup),
        memblock=memblock,
        owners=owners,
        geometry=geometry_of(arch, config),
        features=boot_features(kernel),
        cpu_node=tuple(sorted(hardware.cpu_domain)),
        log=log,
        assumptions=list(_without_effect(options)),
    )


_NOT_FOLLOWED = (
    *("nr_cpus", "maxcpus", "possible_cpus", "log_buf_len", "page_owner", "page_poison"),
    *("init_on_alloc", "init_on_free", "thash_entries", "noexec"),
)


def _without_effect(options: CommandLine) -> Iterator[str]:
    """A note for each option that is known, but not followed here."""
    for name, _ in options.options:
        if name.replace("-", "_") in _NOT_FOLLOWED:
            yield f"{name}= is read, but changes nothing in this model"
