# SPDX-License-Identifier: GPL-2.0-or-later
"""What ACPI says about NUMA: node numbers of proximity domains, and distances.

Linux: drivers/acpi/numa/srat.c (6.1), drivers/acpi/numa.c (2.6.24)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from physmem.firmware.hardware import LOCAL_DISTANCE, REMOTE_DISTANCE, Hardware


def node_numbers(domains: Iterable[int]) -> dict[int, int]:
    """Node of each proximity domain: the first free number, in order of appearance.

    Linux: acpi_map_pxm_to_node(), drivers/acpi/numa/srat.c (6.1)

    Examples
    --------
    >>> node_numbers([7, 3, 7])
    {7: 0, 3: 1}
    """
    numbers: dict[int, int] = {}
    for domain in domains:
        numbers.setdefault(domain, len(numbers))
    return numbers


def nodes_of(hardware: Hardware) -> dict[int, int]:
    """The same for a machine: its CPUs are listed before its memory.

    Linux: acpi_numa_init(), drivers/acpi/numa/srat.c (6.1)

    Examples
    --------
    >>> nodes_of(Hardware.of(nodes=2, cpus=2))
    {0: 0, 1: 1}
    """
    cpus = list(hardware.cpu_domain)
    return node_numbers(cpus + [entry.domain for entry in hardware.srat if entry.enabled])


def slit_valid(matrix: Sequence[Sequence[int]]) -> bool:
    """10 on the diagonal, more elsewhere.

    Linux: slit_valid(), drivers/acpi/numa/srat.c (6.1), arch/x86/mm/srat_64.c (2.6.24)

    Examples
    --------
    >>> slit_valid([[10, 20], [20, 10]]), slit_valid([[10, 10], [20, 10]])
    (True, False)
    """
    return all(
        value == LOCAL_DISTANCE if a == b else value > LOCAL_DISTANCE
        for a, row in enumerate(matrix)
        for b, value in enumerate(row)
    )


def default_distance(nr_nodes: int) -> list[list[int]]:
    """Distances when nobody tells them.

    Examples
    --------
    >>> default_distance(2)
    [[10, 20], [20, 10]]
    """
    return [
        [LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nr_nodes)]
        for a in range(nr_nodes)
    ]


@dataclass
class Numa:
    """The nodes that a kernel made of it.

    Attributes
    ----------
    nodes : (start, end) of each node's memory in bytes, by node number; holes included
    possible : all node numbers, also of nodes without memory
    cpu_node : node of each CPU
    distance : matrix by node number
    node_data : (start, end) in bytes of each node's descriptor
    faked : the kernel found no (valid) description and made one node of all memory
    """

    nodes: dict[int, tuple[int, int]] = field(default_factory=dict)
    possible: tuple[int, ...] = (0,)
    cpu_node: tuple[int, ...] = ()
    distance: list[list[int]] = field(default_factory=lambda: default_distance(1))
    node_data: dict[int, tuple[int, int]] = field(default_factory=dict)
    faked: bool = False
