# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is made of, apart from the state of its memory."""

from dataclasses import dataclass, field

from physmem.arch.registry import arch_for
from physmem.lib.errors import BadMachineError

ZONELIST_ORDERS = ("", "node", "zone")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Zones, CPUs and nodes of a machine.

    Attributes
    ----------
    zone_names : names of all zones of the architecture, populated or not; position = zone index
    cpu_node : node of each CPU
    node_distance : nr_nodes x nr_nodes, 10 is local; empty: 20 between any two nodes
    max_order : largest order of a free block, inclusive
    thp : blocks of pageblock order go through the per-CPU lists
    watermark_boost_factor : as the sysctl of that name
    kernel : profile whose rules the machine follows (`physmem.machine.profiles`)
    zonelist_order : "node" or "zone", as the boot parameter numa_zonelist_order; empty: the kernel
        decides (kernels without ZONE_ORDER know node order only)
    page_shift : log2 of the bytes of a frame
    """

    zone_names: tuple[str, ...]
    cpu_node: tuple[int, ...] = (0,)
    node_distance: tuple[tuple[int, ...], ...] = field(default=())
    max_order: int = 10
    thp: bool = True
    watermark_boost_factor: int = 15000
    kernel: str = "6.1"
    zonelist_order: str = ""
    page_shift: int = 12

    @property
    def nr_cpus(self) -> int:
        """Number of CPUs."""
        return len(self.cpu_node)

    def zone_idx(self, name: str) -> int:
        """Index of a zone by its name.

        Raises
        ------
        BadMachineError
            The architecture has no such zone.
        """
        try:
            return self.zone_names.index(name)
        except ValueError:
            known = ", ".join(self.zone_names)
            msg = f"zone {name!r}: this architecture has {known}"
            raise BadMachineError(msg) from None


def zone_names(arch: str) -> tuple[str, ...]:
    """Zone names of an architecture.

    Raises
    ------
    BadMachineError
        The architecture is not known.

    Examples
    --------
    >>> zone_names("i386")
    ('DMA', 'Normal', 'HighMem', 'Movable')
    """
    return arch_for(arch).zones
