# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulated machine: its memory, to be asked for and given back from Python."""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from physmem.lib.errors import (
    BadFreeError,
    BadInputError,
    BadRequestError,
    CorruptStateError,
    PolicyError,
)
from physmem.lib.jit import ready
from physmem.machine.buffers import reserve
from physmem.machine.build import grouping_disabled, plan, setup_sizes
from physmem.machine.consequences import Consequence, read_trace
from physmem.machine.describe import why_not_free
from physmem.machine.handover import Handover, hand_over
from physmem.machine.layout import Layout
from physmem.machine.load import fill_tables
from physmem.machine.memory_bytes import MachineMemory
from physmem.machine.objects import Objects
from physmem.machine.origin import Origin
from physmem.machine.policed import Policed
from physmem.machine.policy import Policy
from physmem.machine.profiles import feature_bits
from physmem.machine.reading import Reading
from physmem.machine.store import DAMAGE, Stored, damaged, open_tables, save_tables
from physmem.machine.tables import TRACE_EVENTS, Tables, build_tables
from physmem.machine.validate import validate_tables
from physmem.mm.entry import (
    do_alloc_pages_bulk,
    do_drain,
    do_free_cold_page,
    do_setup_reserve,
    do_tick,
)
from physmem.mm.features import HOT_COLD, RESERVE_BLOCKS
from physmem.mm.gfp_bits import GFP_ACCOUNT_BIT
from physmem.mm.mmzone import NONE
from physmem.mm.page_check import OUTSIDE
from physmem.mm.state import State, block_letters


class Machine(Policed, Reading, MachineMemory, Objects):
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
        kernel: str = "6.1",
    ) -> "Machine":
        """Machine with all memory free, every pageblock MOVABLE, and the sizes that Linux chooses.

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
        kernel : str
            Linux whose rules the machine follows: one of `physmem.machine.profiles.PROFILES`. With
            2.6.24, some pageblocks are set aside at once (MIGRATE_RESERVE).

        Raises
        ------
        BadMachineError
            No such machine can exist, or this computer is too small for it.

        Examples
        --------
        >>> [zone.name for zone in Machine.build("8GiB", cpus=4).zones]
        ['DMA', 'DMA32', 'Normal']
        >>> old = Machine.build("1GiB", arch="i386", kernel="2.6.24")
        >>> old.alloc_pages(gfp="GFP_HIGHUSER_MOVABLE|__GFP_COLD") == (1 << 18) - 1024
        True
        """
        state, layout = plan(memory, arch, nodes, cpus, kernel)
        setup_sizes(state, layout, min_free_kbytes)
        ungrouped = grouping_disabled(state)
        if ungrouped:
            for zone in state.zones:
                zone.pageblocks = zone.pageblocks.replace("M", "U")
        machine = cls.from_state(state, layout)
        machine.tables.zones["grouping_disabled"] = int(ungrouped)
        if feature_bits(kernel) & RESERVE_BLOCKS:
            for number in range(len(state.zones)):
                ready(do_setup_reserve)(machine._h, number)  # noqa: SLF001 - our own
        return machine

    @classmethod
    def from_boot(cls, plan: Handover) -> "Machine":
        """Machine as a start-up leaves it; `physmem.boot` makes the plan.

        Raises
        ------
        BadMachineError
            The boot allocator's memory and the zones do not fit together.
        """
        tables, frames = hand_over(plan)
        origin = Origin(tuple(sorted(plan.reserved)), tuple(plan.mem_map), plan.page_table)
        machine = cls(tables, plan.layout, plan.state.nr_migratetypes, origin, plan.ram)
        machine.link_tables(plan.early_tables, frames)
        return machine

    def copy(self) -> "Machine":
        """Independent machine in the same state (a traced one stays traced)."""
        made = self.with_tables(self.tables.copy(), self.layout)
        if self._slab is not None:
            made._slab_adopt(self._slab, self._vmalloc)  # noqa: SLF001 - our own
        made._adopt_policy(self.policy)  # noqa: SLF001 - our own
        return made

    def with_tables(self, tables: Tables, layout: Layout) -> "Machine":
        """Machine of other tables with a copy of the bytes of this one, and without its slabs."""
        ram = None if self._ram is None else self._ram.copy()
        return Machine(tables, layout, self.nr_migratetypes, self.origin_now(), ram)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the machine to a file that `open_machine` reads; it appears whole or not at all.

        Of a policy the name and `zone.scratch` are kept, not its code.

        Raises
        ------
        OSError
            The file cannot be written.

        Notes
        -----
        A slab allocator that runs is kept, with all caches and objects. Constructors are functions,
        which no file holds: set `Cache.ctor` again after opening.
        """
        name = "" if self.policy is None else self.policy.name
        slab = self._slab_saved()
        origin = self.origin_now()
        save_tables(Stored(self.tables, self.layout, origin, self._ram, slab, name), path)

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
            Flags as names joined by "|", or their bits, as in the machine's Linux.
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
            self._check_bulk(out[:got].tolist(), cpu)
        frames_got: list[int] = out[:got].tolist()
        if nr and not got:
            # as in the kernel: one frame by the ordinary way, so that callers make progress
            pfn = self._alloc(self._h, 0, bits, nid, cpu)
            frames_got += [pfn] if pfn >= 0 else []
        return frames_got

    def free_pages(self, pfn: int, order: int = 0, *, cpu: int = 0, cold: bool = False) -> None:
        """Give back 2**order frames that were allocated together.

        Frames that were in use in a loaded state can be freed in blocks of any order. A single
        frame that no CPU has in its cache is `cold`, for kernels with a cold list.

        Raises
        ------
        BadFreeError
            Double free, never allocated, outside memory, misaligned or another order than it was
            allocated with. The message says what the frame is now; nothing was changed.
        BadRequestError
            No such order or CPU; `cold` on a kernel without a cold list, or of several frames.

        Linux: __free_pages(), mm/page_alloc.c (6.1); free_cold_page(), mm/page_alloc.c (2.6.24)
        """
        if not pfn.__class__ is order.__class__ is cpu.__class__ is int:
            order, cpu, pfn = self._order(order), self._cpu(cpu), self._integer("pfn", pfn)
        try:
            code = (
                self._free_cold(pfn, order, cpu) if cold else self._free(self._h, pfn, order, cpu)
            )
        except OverflowError:
            code = OUTSIDE
        if code:
            order, _ = self._order(order), self._cpu(cpu)
            message = why_not_free(self.tables, self.layout.zone_names, (pfn, order), code)
            raise BadFreeError(message)

    def _free_cold(self, pfn: int, order: int, cpu: int) -> int:
        if not feature_bits(self.layout.kernel) & HOT_COLD:
            raise BadRequestError(f"cold: Linux {self.layout.kernel} has no cold per-CPU list")
        if self._order(order) != 0:
            raise BadRequestError(f"order {order}: only single frames go to the cold list")
        return ready(do_free_cold_page)(self._h, pfn, cpu)

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
        self.check_policy()

    def tick(self, cpu: int | None = None) -> None:
        """Let a second pass for one CPU or all: per-CPU lists that size themselves decay.

        Nothing happens on a machine whose kernel does not do so (6.1).

        Raises
        ------
        BadRequestError
            No such CPU.

        Examples
        --------
        >>> machine = Machine.build("64MiB", kernel="6.12")
        >>> for pfn in machine.alloc_pages_bulk(600):
        ...     machine.free_pages(pfn)
        >>> before = machine.nr_free_pages
        >>> for second in range(20):
        ...     machine.tick()
        >>> machine.nr_free_pages > before
        True

        Linux: vmstat_update(), mm/vmstat.c (6.12)
        """
        for each in range(self._nr_cpus) if cpu is None else [self._cpu(cpu)]:
            ready(do_tick)(self._h, each)
        self.check_policy()

    # -- tracing and checking ----------------------------------------------------------------------

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
        features = feature_bits(self.layout.kernel)
        return read_trace(self.tables.trace, block_letters(features, self.nr_migratetypes))

    def validate(self) -> None:
        """Check every invariant that `physmem.mm.mmzone` lists.

        Raises
        ------
        CorruptStateError
            The first that does not hold: a bug in a kernel, or tables that were written to.
        """
        validate_tables(self.tables, self.layout.zone_names)


def open_machine(path: str | os.PathLike[str], policy: Policy | None = None) -> Machine:
    """Machine from a file that `Machine.save` wrote.

    Parameters
    ----------
    policy : Policy, optional
        The one that the machine had: its code is not in the file.

    Raises
    ------
    BadInputError
        No such file, not a machine, damaged, cut off, or written by a newer physmem.
    PolicyError
        The machine was saved under a policy, and none or another one is given.
    """
    tables, layout, origin, ram, slab, name = open_tables(path)
    given = "" if policy is None else policy.name
    if given != name:
        raise PolicyError(
            f"{os.fspath(path)}: saved under {f'the policy {name}' if name else 'no policy'};"
            f" open it with that{' (policy=...)' if name else ''}, not with {given or 'none'}"
        )
    made = Machine(tables, layout, int(tables.zones[0]["isolate_type"]) + 1, origin, ram)
    if slab is not None:
        try:
            made._slab_opened(slab)  # noqa: SLF001 - our own
        except CorruptStateError as error:
            raise BadInputError(f"{path}: the slab allocator is damaged ({error})") from None
        except DAMAGE as error:
            raise damaged(os.fspath(path), error) from None
    if policy is not None:
        made.set_policy(policy, scratch=tables.scratch)
    return made
