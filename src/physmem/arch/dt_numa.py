# SPDX-License-Identifier: GPL-2.0-or-later
"""NUMA nodes of machines with a device tree, as a stage of setup_arch()."""

from physmem.arch.setup import Setup
from physmem.firmware.devicetree import ArchNuma
from physmem.lib.errors import BadMachineError


def arch_numa_init(setup: Setup) -> None:
    """Linux: arch_numa_init(), drivers/base/arch_numa.c (6.1)

    Raises
    ------
    BadMachineError
        The machine has more nodes than the kernel is built for (it would put all into one).
    """
    most = setup.arch.max_numnodes
    if setup.hardware.domains[-1] >= most:
        raise BadMachineError(
            f"node {setup.hardware.domains[-1]}: kernels of {setup.arch.name} have {most} nodes; "
            "number them from 0, and use fewer"
        )
    numa = ArchNuma(
        setup.boot,
        setup.hardware,
        setup.log,
        sizeof_pgdat=setup.arch.sizeof_pgdat,
        max_numnodes=setup.arch.max_numnodes,
    ).run(off=setup.cmdline.numa == "off")
    setup.node_data, setup.distance = numa.node_data, numa.distance
    setup.possible, setup.cpu_node = numa.possible, numa.cpu_node
