# SPDX-License-Identifier: GPL-2.0-or-later
"""What every part of a machine's interface needs: its tables, its bytes, checked arguments."""

from collections.abc import Hashable
from operator import index
from typing import Any

from physmem.lib.errors import BadRequestError, OutOfMemoryError
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address
from physmem.machine.describe import ZoneInfo, free_counts, zone_info
from physmem.machine.layout import Layout
from physmem.machine.origin import Origin, lay_mem_map
from physmem.machine.tables import Tables
from physmem.mm.entry import do_alloc_pages, do_free_pages
from physmem.mm.gfp import TABLES, format_gfp, parse_gfp


class MachineBase:
    """Tables, layout and origin of a machine; arguments of its calls."""

    def __init__(
        self,
        tables: Tables,
        layout: Layout,
        nr_migratetypes: int,
        origin: Origin | None = None,
        ram: Ram | None = None,
    ) -> None:
        self.tables = tables
        self.layout = layout
        self.nr_migratetypes = nr_migratetypes
        self.origin = origin or Origin()
        self._h = address(tables.memory)
        self._max_order = layout.max_order
        self._nr_cpus = layout.nr_cpus
        self._nr_nodes = len(tables.zonelist) // len(tables.zones)
        self._cpu_node = layout.cpu_node
        self._names = TABLES[layout.kernel]
        self._gfp: dict[Hashable, int] = {}
        self._alloc = ready(do_alloc_pages)
        self._free = ready(do_free_pages)
        self._ram = ram
        if ram is not None:
            lay_mem_map(tables, ram, self.origin.mem_map)

    @property
    def ram(self) -> Ram:
        """The machine's memory as bytes, by physical address; nothing is touched until written."""
        if self._ram is None:
            self._ram = Ram(int(self.tables.memory[0]["max_pfn"]) << self.layout.page_shift)
            lay_mem_map(self.tables, self._ram, self.origin.mem_map)
        return self._ram

    @property
    def zones(self) -> tuple[ZoneInfo, ...]:
        """Every zone as it is now, nodes ascending, zones of a node from low to high."""
        names = self.layout.zone_names
        return tuple(zone_info(self.tables, n, names) for n in range(len(self.tables.zones)))

    def _integer(self, what: str, value: Any) -> int:
        try:
            return index(value)
        except TypeError:
            raise BadRequestError(f"{what} {value!r}: a whole number is needed") from None

    def _order(self, order: Any) -> int:
        number = self._integer("order", order)
        if not 0 <= number <= self._max_order:
            raise BadRequestError(f"order {number}: this machine has orders 0 .. {self._max_order}")
        return number

    def _cpu(self, cpu: Any) -> int:
        number = self._integer("cpu", cpu)
        if not 0 <= number < self._nr_cpus:
            raise BadRequestError(f"cpu {number}: this machine has cpus 0 .. {self._nr_cpus - 1}")
        return number

    def _node(self, node: Any) -> int:
        number = self._integer("node", node)
        if not 0 <= number < self._nr_nodes:
            raise BadRequestError(
                f"node {number}: this machine has nodes 0 .. {self._nr_nodes - 1}"
            )
        return number

    def _parse(self, gfp: Any) -> int:
        if not isinstance(gfp, str):
            gfp = self._integer("gfp", gfp)
        bits = self._gfp[gfp] = self._names.internal(parse_gfp(gfp, self._names))
        return bits

    def _zone_numbers(self, zone: str | int | None) -> list[int]:
        names = [info.name for info in self.zones]
        if zone is None:
            return list(range(len(names)))
        if isinstance(zone, str):
            numbers = [number for number, name in enumerate(names) if name == zone]
        else:
            number = self._integer("zone", zone)
            numbers = [number] if 0 <= number < len(names) else []
        if not numbers:
            known = ", ".join(f"{number} {name}" for number, name in enumerate(names))
            raise BadRequestError(f"zone {zone!r}: this machine has {known}")
        return numbers

    def _refused(self, order: int, bits: int, cpu: int, node: int | None) -> OutOfMemoryError:
        nid = self._node(self._cpu_node[cpu] if node is None else node)
        flags = format_gfp(self._names.external(bits), self._names)
        request = f"alloc_pages(order={order}, gfp={flags}, {cpu=}, node={nid})"
        return OutOfMemoryError(f"{request}: no zone can serve it; {free_counts(self.zones)}")
