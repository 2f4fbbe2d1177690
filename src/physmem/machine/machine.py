# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulated machine: its memory, to be asked for and given back from Python."""

import os
from collections.abc import Hashable, Iterable
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from physmem.lib.errors import BadFreeError, BadRequestError, OutOfMemoryError
from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import address
from physmem.machine.buffers import reserve
from physmem.machine.build import grouping_disabled, plan, setup_sizes
from physmem.machine.consequences import Consequence, read_trace
from physmem.machine.describe import ZoneInfo, frame_state, free_counts, why_not_free, zone_info
from physmem.machine.layout import Layout
from physmem.machine.load import fill_tables, read_tables
from physmem.machine.objects import Objects
from physmem.machine.sizing import PAGE_SHIFT
from physmem.machine.store import open_tables, save_tables
from physmem.machine.tables import TRACE_EVENTS, Tables, build_tables
from physmem.machine.validate import validate_tables
from physmem.mm.compare import compare_states
from physmem.mm.entry import do_alloc_pages, do_alloc_pages_bulk, do_drain, do_free_pages
from physmem.mm.gfp import GFP_6_1, format_gfp, parse_gfp
from physmem.mm.gfp_bits import GFP_ACCOUNT_BIT
from physmem.mm.mmzone import HEAD_IN_USE, NONE, PG_IN_USE, PG_MOVABLE
from physmem.mm.page_check import OUTSIDE
from physmem.mm.state import State

if TYPE_CHECKING:
    import pyarrow as pa


class Machine(Objects):
    """The memory of one computer and the page allocator at work in it.

    Make one with `Machine.build`, `Machine.from_state`, `physmem.load` or `open_machine`. Machines
    are independent of each other. One machine is not thread-safe: calls on it from several threads
    must not overlap (the kernels run without the interpreter's lock, nothing else serialises them).

    Examples
    --------
    >>> machine = Machine.build("64MiB")
    >>> pfn = machine.alloc_pages(order=3, gfp="GFP_KERNEL|__GFP_ZERO")
    >>> machine.free_pages(pfn, order=3)
    >>> machine
    Machine(64 MiB in 2 zones, 1 node, 1 cpu: 16368 of 16384 frames free)

    Linux: pg_data_t, struct zone, include/linux/mmzone.h; the API of mm/page_alloc.c (6.1)
    """

    def __init__(self, tables: Tables, layout: Layout, nr_migratetypes: int) -> None:
        self.tables = tables
        self.layout = layout
        self.nr_migratetypes = nr_migratetypes
        self._h = address(tables.memory)
        self._max_order = layout.max_order
        self._nr_cpus = layout.nr_cpus
        self._nr_nodes = len(tables.zonelist) // len(tables.zones)
        self._cpu_node = layout.cpu_node
        self._gfp: dict[Hashable, int] = {}
        self._ram: Ram | None = None
        self._alloc = ready(do_alloc_pages)
        self._free = ready(do_free_pages)

    # -- making one -------------------------------------------------------------------------------

    @classmethod
    def from_state(
        cls, state: State, layout: Layout, movable: Iterable[tuple[int, int]] = ()
    ) -> "Machine":
        """Machine in a given state, for example a recorded one.

        Parameters
        ----------
        movable : iterable of (first pfn, count)
            Frames in use that hold movable memory; the state itself does not tell.

        Raises
        ------
        BadStateError
            The state contradicts itself.
        BadMachineError
            Such a machine cannot exist.
        """
        tables = build_tables(state, layout)
        fill_tables(tables, state, movable)
        return cls(tables, layout, state.nr_migratetypes)

    @classmethod
    def build(
        cls,
        memory: str | int = "1GiB",
        *,
        arch: str = "x86_64",
        nodes: int = 1,
        cpus: int = 1,
        min_free_kbytes: int | None = None,
    ) -> "Machine":
        """Machine with all memory free, every pageblock MOVABLE, and the sizes of Linux 6.1.

        Zones are those of the architecture, split evenly among nodes; watermarks, reserves and
        per-CPU lists follow the rules of a kernel that starts with all of this memory. It is no
        boot: there is no kernel image, no memory map and no hole (a true boot comes in a later
        version), and frame 0 exists.

        Parameters
        ----------
        memory : str or int
            Size as text ("512MiB", "1TiB") or in bytes; 4 KiB pages.
        arch : str
            x86_64, i386, arm64 or riscv64.
        nodes, cpus : int
            CPUs are spread over the nodes.
        min_free_kbytes : int, optional
            Reserve as an administrator would set it (sysctl vm.min_free_kbytes).

        Raises
        ------
        BadMachineError
            No such machine can exist, or this computer is too small for it.

        Examples
        --------
        >>> [zone.name for zone in Machine.build("8GiB", cpus=4).zones]
        ['DMA', 'DMA32', 'Normal']
        """
        state, layout = plan(memory, arch, nodes, cpus)
        setup_sizes(state, layout, min_free_kbytes)
        ungrouped = grouping_disabled(state)
        if ungrouped:
            for zone in state.zones:
                zone.pageblocks = zone.pageblocks.replace("M", "U")
        machine = cls.from_state(state, layout)
        machine.tables.zones["grouping_disabled"] = int(ungrouped)
        return machine

    def copy(self) -> "Machine":
        """Independent machine in the same state (a traced one stays traced)."""
        made = Machine(self.tables.copy(), self.layout, self.nr_migratetypes)
        made._ram = None if self._ram is None else self._ram.copy()
        if self._slab is not None:
            made._slab_adopt(self._slab)
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the machine to a file that `open_machine` reads; it appears whole or not at all.

        Raises
        ------
        OSError
            The file cannot be written.
        BadRequestError
            The slab allocator runs: its caches would be lost.
        """
        if self._slab is not None:
            raise BadRequestError("a machine whose slab allocator runs cannot be saved; copy() it")
        save_tables(self.tables, self.layout, path)

    # -- the allocator ----------------------------------------------------------------------------

    def alloc_pages(
        self,
        order: int = 0,
        gfp: str | int = "GFP_KERNEL",
        *,
        cpu: int = 0,
        node: int | None = None,
    ) -> int:
        """Allocate 2**order frames that lie together; the first frame's number.

        Parameters
        ----------
        order : int
            0 .. `layout.max_order`.
        gfp : str or int
            Flags as names joined by "|", or their bits as in Linux 6.1.
        cpu : int
            CPU that asks: its per-CPU lists are used.
        node : int, optional
            Node to look at first; by default the CPU's.

        Raises
        ------
        OutOfMemoryError
            No zone could serve it. Reclaim, compaction and the OOM killer are not modelled.
        BadRequestError
            No such order, CPU, node or flag.

        Linux: __alloc_pages(), mm/page_alloc.c (6.1)
        """
        bits = self._gfp.get(gfp)
        if bits is None:
            bits = self._parse(gfp)
        nid = NONE if node is None else self._node(node)
        # A compiled kernel would take 1.5 for 1, or overflow; smaller ranges are checked there.
        if not order.__class__ is cpu.__class__ is int or order >> 32 or cpu >> 32:
            order, cpu = self._order(order), self._cpu(cpu)
        pfn = self._alloc(self._h, order, bits, nid, cpu)
        if pfn < 0:
            raise self._refused(self._order(order), bits, self._cpu(cpu), node)
        return pfn

    def alloc_pages_bulk(
        self,
        nr: int,
        gfp: str | int = "GFP_KERNEL",
        *,
        cpu: int = 0,
        node: int | None = None,
    ) -> list[int]:
        """Allocate up to `nr` single frames at once; fewer (even none) when memory is short.

        Raises
        ------
        BadRequestError
            No such count, CPU, node or flag.

        Linux: __alloc_pages_bulk(), mm/page_alloc.c (6.1)
        """
        bits = self._parse(gfp)
        cpu = self._cpu(cpu)
        nid = self._node(self._cpu_node[cpu] if node is None else node)
        nr = self._integer("nr", nr)
        frames = int(self.tables.memory[0]["max_pfn"])
        if not 0 <= nr <= frames:
            raise BadRequestError(f"nr {nr}: 0 .. {frames} frames can be asked for")
        out: Any = np.empty(nr, np.int64)
        got = 0
        if nr > 1 and not bits & GFP_ACCOUNT_BIT:
            got = ready(do_alloc_pages_bulk)(self._h, bits, nid, cpu, out)
        frames_got: list[int] = out[:got].tolist()
        if nr and not got:
            # as in the kernel: one frame by the ordinary way, so that callers make progress
            pfn = self._alloc(self._h, 0, bits, nid, cpu)
            frames_got += [pfn] if pfn >= 0 else []
        return frames_got

    def free_pages(self, pfn: int, order: int = 0, *, cpu: int = 0) -> None:
        """Give back 2**order frames that were allocated together.

        Frames that were in use in a loaded state can be freed in blocks of any order.

        Raises
        ------
        BadFreeError
            Double free, never allocated, outside memory, misaligned or another order than it was
            allocated with. The message says what the frame is now; nothing was changed.
        BadRequestError
            No such order or CPU.

        Linux: __free_pages(), mm/page_alloc.c (6.1)
        """
        if not pfn.__class__ is order.__class__ is cpu.__class__ is int:
            order, cpu, pfn = self._order(order), self._cpu(cpu), self._integer("pfn", pfn)
        try:
            code = self._free(self._h, pfn, order, cpu)
        except OverflowError:
            code = OUTSIDE
        if code:
            order, _ = self._order(order), self._cpu(cpu)
            message = why_not_free(self.tables, self.layout.zone_names, (pfn, order), code)
            raise BadFreeError(message)

    def drain(self, cpu: int | None = None, zone: str | int | None = None) -> None:
        """Give the blocks on per-CPU lists back to the free lists.

        Parameters
        ----------
        cpu : int, optional
            Only this CPU's lists.
        zone : str or int, optional
            Only this zone, by number (position in `zones`) or by name (on every node).

        Raises
        ------
        BadRequestError
            No such CPU or zone.

        Linux: drain_pages_zone(), mm/page_alloc.c (6.1)
        """
        cpus = range(self._nr_cpus) if cpu is None else [self._cpu(cpu)]
        run = ready(do_drain)
        for number in self._zone_numbers(zone):
            for each in cpus:
                run(self._h, number, each, True)  # noqa: FBT003 - kernels take positions

    # -- looking at it ----------------------------------------------------------------------------

    @property
    def zones(self) -> tuple[ZoneInfo, ...]:
        """Every zone as it is now, nodes ascending, zones of a node from low to high."""
        names = self.layout.zone_names
        return tuple(zone_info(self.tables, n, names) for n in range(len(self.tables.zones)))

    @property
    def nr_free_pages(self) -> int:
        """Frames on the free lists of all zones (those on per-CPU lists are not among them)."""
        return int(self.tables.zones["nr_free_pages"].sum())

    @property
    def ram(self) -> Ram:
        """The machine's memory as bytes, by physical address; nothing is touched until written."""
        if self._ram is None:
            self._ram = Ram(int(self.tables.memory[0]["max_pfn"]) << PAGE_SHIFT)
        return self._ram

    @property
    def memory_use(self) -> int:
        """Bytes of address space that the tables take; parts never touched need no RAM."""
        return self.tables.nbytes

    @property
    def bytes_per_page(self) -> float:
        """Bytes of tables per simulated frame: 16 for the frame itself, the rest shared."""
        return self.memory_use / int(self.tables.zones["spanned_pages"].sum())

    def snapshot(self) -> State:
        """State of all lists as plain data, equal in form to a recorded one."""
        return read_tables(self.tables, self.layout.zone_names, self.nr_migratetypes)

    def frame(self, pfn: int) -> str:
        """What a frame is now, in words.

        Examples
        --------
        >>> Machine.build("64MiB").frame(0x1001)
        'free, in the block of order 10 at 0x1000 on the Movable list of node 0, zone DMA32'
        """
        return frame_state(self.tables, self.layout.zone_names, self._integer("pfn", pfn))

    def buddyinfo(self) -> str:
        """Text of /proc/buddyinfo, byte for byte as the kernel prints it."""
        from physmem.views.buddyinfo import buddyinfo

        return buddyinfo(self.snapshot())

    def pagetypeinfo(self) -> str:
        """Text of /proc/pagetypeinfo, byte for byte as the kernel prints it."""
        from physmem.views.pagetypeinfo import pagetypeinfo

        return pagetypeinfo(self.snapshot())

    def free_blocks(self) -> "pa.Table":
        """Every free block as a row of an Arrow table.

        Columns: node, zone, order, migratetype, position on its list (0 is the head), pfn.
        """
        from physmem.views.table import to_arrow

        return to_arrow(self.snapshot(), "chunks")

    def tracing(self, on: bool = True) -> None:  # noqa: FBT001, FBT002 - one switch
        """Start to collect what requests cause, with room for 262,143 events; or stop."""
        self.tables = replace(self.tables, trace=reserve(TRACE_EVENTS if on else 0, np.int64))
        self.tables.attach()

    def events(self) -> list[Consequence]:
        """What requests caused since the last call: refills and splits, drains, fallbacks.

        Empty unless `tracing` is on. A last event named "lost" tells how many did not fit.

        Examples
        --------
        >>> machine = Machine.build("64MiB")
        >>> machine.tracing()
        >>> _ = machine.alloc_pages(order=4)
        >>> machine.events()[-1]
        mm_page_alloc_zone_locked: pfn=0x1000 order=4 migratetype=0 percpu_refill=0
        """
        return read_trace(self.tables.trace)

    def validate(self) -> None:
        """Check every invariant that `physmem.mm.mmzone` lists.

        Raises
        ------
        CorruptStateError
            The first that does not hold: a bug in a kernel, or tables that were written to.
        """
        validate_tables(self.tables, self.layout.zone_names)

    # -- comparing --------------------------------------------------------------------------------

    def differences(self, other: "Machine") -> tuple[str, ...]:
        """Lines about what differs, at most some twenty; empty when the machines are equal."""
        if self.layout != other.layout:
            return (f"layout: {self.layout}, the other has {other.layout}",)
        mine, theirs = self.snapshot(), other.snapshot()
        lines = list(compare_states(mine, theirs).differences)
        if not lines and mine != theirs:
            lines += [
                f"Node {a.node}, zone {a.name}, {field}: {getattr(a, field)}, {getattr(b, field)}"
                for a, b in zip(mine.zones, theirs.zones, strict=True)
                for field in a.__struct_fields__
                if getattr(a, field) != getattr(b, field)
            ]
        if not lines:
            pfns = np.flatnonzero(self._use() != other._use())  # noqa: SLF001 - the same class
            if len(pfns):
                pfn = int(pfns[0])
                lines.append(
                    f"frame {pfn:#x}: {self.frame(pfn)}; {other.frame(pfn)}"
                    f" ({len(pfns)} frames differ in their use)"
                )
        return tuple(lines[:20])

    def __eq__(self, other: object) -> bool:
        """Equal lists, counters and sizes, and the same frames in use in the same blocks."""
        if not isinstance(other, Machine):
            return NotImplemented
        return not self.differences(other)

    __hash__ = None  # type: ignore[assignment]  # it changes with every request

    def _use(self) -> Any:
        """For each frame: flags that say how it is used, and order of the block it begins."""
        frames = self.tables.mem_map[: int(self.tables.memory[0]["max_pfn"])]
        use = frames["flags"] & (PG_IN_USE | PG_MOVABLE)
        marks = frames["order"]
        return use.astype(np.uint16) << 8 | np.where(marks & HEAD_IN_USE, marks, 0)

    # -- arguments --------------------------------------------------------------------------------

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
        bits = self._gfp[gfp] = parse_gfp(gfp)
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
        request = f"alloc_pages(order={order}, gfp={format_gfp(bits, GFP_6_1)}, {cpu=}, node={nid})"
        return OutOfMemoryError(f"{request}: no zone can serve it; {free_counts(self.zones)}")

    def __repr__(self) -> str:
        from physmem.views.blocks import size_text

        zones = self.tables.zones
        frames = int(zones["spanned_pages"].sum())
        nodes = len(set(zones["node"].tolist()))
        parts = [
            f"{number} {word}{'s' if number != 1 else ''}"
            for number, word in ((len(zones), "zone"), (nodes, "node"), (self._nr_cpus, "cpu"))
        ]
        return (
            f"Machine({size_text(frames)} in {parts[0]}, {parts[1]}, {parts[2]}: "
            f"{self.nr_free_pages} of {frames} frames free)"
        )

    def _repr_html_(self) -> str:
        from physmem.views.html import state_html

        return state_html(self.snapshot())


def open_machine(path: str | os.PathLike[str]) -> Machine:
    """Machine from a file that `Machine.save` wrote.

    Raises
    ------
    BadInputError
        No such file, not a machine, damaged, cut off, or written by a newer physmem.
    """
    tables, layout = open_tables(path)
    return Machine(tables, layout, int(tables.zones[0]["isolate_type"]) + 1)
