# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of the boot allocator as a log tells them: each is made on the model and compared.

What the log shows as a result is never taken for granted: the model searches for itself, and only
when it finds another place is it put right, so that the calls after that are compared fairly.
"""

from collections.abc import Iterable, Iterator

from physmem.boot.boot import Boot
from physmem.boot.booted import LateFree, Mismatch, Prediction
from physmem.boot.cma import place_cma
from physmem.boot.late_frees import late_frees
from physmem.boot.log_nodes import assign_nodes
from physmem.boot.log_stages import STAGES, stage_events
from physmem.boot.memmap_init import memmap_init
from physmem.boot.silent import silent_ranges
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.region import MAX_NUMNODES
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import (
    AllocCall,
    CmaReserved,
    DumpRegion,
    Event,
    MemblockCall,
    MemblockDump,
    MemblockOp,
    Moment,
    NodeData,
    RamdiskMoved,
    Step,
)

Span = tuple[int, int]


class LogCalls:
    """The calls of a log, stage by stage.

    Attributes
    ----------
    equal, calls, applied, unexplained, mismatches : see `Prediction`
    """

    def __init__(self, log: BootLog) -> None:
        self.log = log
        self.calls = 0
        self.equal = 0
        self.applied = 0
        self.unexplained = 0
        self.mismatches: list[Mismatch] = []
        self.dumps = 0
        self.dumps_equal = 0
        self._stages = stage_events(log.events)
        self._nodes_known = False

    # -- CallSource ----------------------------------------------------------------------------

    def run(self, boot: Boot, stage: str) -> None:
        """Make the calls of a stage.

        Raises
        ------
        BootAllocError
            The log asks for what memblock cannot do.
        """
        if stage == STAGES[0]:
            self._begin(boot)
        if stage == "free_area_init":
            self._check_deferred(boot)
        for event in self._stages[stage]:
            self._one(boot, event)

    def late_frees(self, boot: Boot) -> tuple[LateFree, ...]:
        """Memory of the start-up that comes back later, as the log tells it."""
        return late_frees(boot, self.log)

    def prediction(self) -> Prediction:
        """How the calls came out so far."""
        return Prediction(
            calls=self.calls,
            equal=self.equal,
            applied=self.applied,
            unexplained=self.unexplained,
            mismatches=tuple(self.mismatches),
            dumps=self.dumps,
            dumps_equal=self.dumps_equal,
        )

    # -- what happened before the log tells of calls -----------------------------------------------

    def _begin(self, boot: Boot) -> None:
        silent = silent_ranges(self.log)
        boot.assumptions.extend(silent.assumptions)
        for region in silent.memory:
            boot.memblock.add(region.start, region.end - region.start)
            if region.flags:
                _mark(boot.memblock, region)
        boot.memblock.allow_resize()
        boot.owners.purpose = "reserved early"
        for start, end in silent.reserved:
            boot.memblock.reserve(start, end - start)
        boot.owners.purpose = ""
        moments = {event.step for event in self.log.events if isinstance(event, Moment)}
        if Step.NUMA not in moments:
            # that part of the log is lost: the nodes are known from the start
            self._nodes_known = True
            assign_nodes(boot, self.log)

    def _check_deferred(self, boot: Boot) -> None:
        """A kernel that comes to its initcalls and tells of no deferred pages has none."""
        up = any(isinstance(e, Moment) and e.step is Step.INITCALLS for e in self.log.events)
        late = boot.memmap is not None and boot.memmap.first_deferred_pfn
        if up and late and not self.log.figures.deferred and boot.zones is not None:
            boot.memmap = memmap_init(boot.zones, deferred=False)
            boot.assumptions.append(
                "no line tells of deferred pages: the kernel initialises all struct pages at once"
            )

    # -- events --------------------------------------------------------------------------------

    def _one(self, boot: Boot, event: Event) -> None:
        if isinstance(event, AllocCall):
            self._alloc(boot, event)
        elif isinstance(event, MemblockCall):
            self._direct(boot, event)
        elif isinstance(event, MemblockDump):
            self._dump(boot, event)
        elif isinstance(event, NodeData):
            boot.node_data.setdefault(event.nid, event.start)
            boot.owners.take(event.start, event.end, "NODE_DATA")
        elif isinstance(event, CmaReserved):
            boot.cma_areas.append((event.base, event.base + event.size))
            boot.owners.take(event.base, event.base + event.size, "CMA")
        elif isinstance(event, RamdiskMoved):
            boot.owners.take(event.start, event.end, "initial RAM disk")
        elif isinstance(event, Moment) and event.step is Step.NUMA and not self._nodes_known:
            self._nodes_known = True
            assign_nodes(boot, self.log)

    def _direct(self, boot: Boot, call: MemblockCall) -> None:
        memblock, size = boot.memblock, call.end - call.start
        self.applied += 1
        if call.op is MemblockOp.RESERVE:
            if call.caller.startswith("memblock_double_array") and not list(
                _uncovered(memblock, call.start, call.end)
            ):
                return  # the model's array has grown by itself, into the same place
            if call.caller.startswith("memblock_alloc_range_nid"):
                self.applied -= 1
                self.unexplained += 1
            memblock.reserve(call.start, size, caller=call.caller)
        elif call.op is MemblockOp.FREE:
            memblock.phys_free(call.start, size, caller=call.caller)
        elif call.op is MemblockOp.REMOVE:
            memblock.remove(call.start, min(size, memblock.phys_addr_max), caller=call.caller)
        elif call.nid is not None:
            memblock.add_node(call.start, size, call.nid, call.flags, caller=call.caller)
        else:
            memblock.add(call.start, size, caller=call.caller)

    def _alloc(self, boot: Boot, call: AllocCall) -> None:
        ours = _allocate(boot, call)
        theirs = call.start or 0
        self.calls += 1
        if ours == theirs:
            self.equal += 1
            return
        self.mismatches.append(Mismatch(call.line, call.function, ours, theirs))
        if ours:
            boot.memblock.phys_free(ours, call.size)
        if theirs:
            boot.memblock.reserve(theirs, call.size, caller=call.caller)

    def _same_nodes(self, boot: Boot, dump: MemblockDump) -> bool:
        """Whether memory has the nodes that the dump tells, if it tells any."""
        if not self._nodes_known or not any(region.nid is not None for region in dump.memory):
            return True
        ours = [(region.base, region.end, region.nid) for region in boot.memblock.memory]
        wanted = [(region.start, region.end, region.nid) for region in dump.memory]
        return ours == wanted

    def _dump(self, boot: Boot, dump: MemblockDump) -> None:
        memblock = boot.memblock
        if any(
            region.base % memblock.page_size or region.end % memblock.page_size
            for region in memblock.memory
        ):
            # x86 does so right before the first dump; on the others all is whole pages already
            memblock.trim_memory(memblock.page_size)
        self.dumps += 1
        same = self._same_nodes(boot, dump)
        for array, theirs in ((memblock.memory, dump.memory), (memblock.reserved, dump.reserved)):
            ours = [(region.base, region.end) for region in array]
            wanted = [(region.start, region.end) for region in theirs]
            missing, extra = list(_minus(wanted, ours)), list(_minus(ours, wanted))
            same = same and not missing and not extra
            for start, end in missing:
                if array is memblock.memory:
                    memblock.add(start, end - start)
                else:
                    memblock.reserve(start, end - start)
            for start, end in extra:
                if array is memblock.memory:
                    memblock.remove(start, end - start)
                else:
                    memblock.phys_free(start, end - start)
        for region in dump.memory:
            if region.nid is not None and not self._nodes_known:
                memblock.set_node(region.start, region.end - region.start, region.nid)
            if region.flags:
                _mark(memblock, region)
        self.dumps_equal += same
        if not same:
            boot.assumptions.append(
                f"line {dump.line}: the dump of memblock tells of ranges that no line before it"
                " explains; they are taken from the dump"
            )


def _mark(memblock: Memblock, region: DumpRegion) -> None:
    size = region.end - region.start
    if region.flags & 1:
        memblock.mark_hotplug(region.start, size)
    if region.flags & 2:
        memblock.mark_mirror(region.start, size)
    if region.flags & 4:
        memblock.mark_nomap(region.start, size)


def _allocate(boot: Boot, call: AllocCall) -> int:
    """Make an allocation; 0: there is no room, as in the kernel."""
    memblock = boot.memblock
    if call.function == "cma_declare_contiguous_nid":
        return place_cma(boot, call.size)
    if call.function == "memblock_phys_alloc_range":
        return memblock.phys_alloc_range(
            call.size, call.align, call.min_addr, call.max_addr, caller=call.caller
        )
    if call.inferred:
        return memblock.alloc_range_nid(
            call.size, call.align, call.min_addr, call.max_addr, call.nid
        )
    make = memblock.alloc_try_nid
    if "exact" in call.function:
        make = memblock.alloc_exact_nid_raw
    elif call.function.endswith("_raw"):
        make = memblock.alloc_try_nid_raw
    nid = MAX_NUMNODES if call.nid < 0 else call.nid
    return make(call.size, call.align, call.min_addr, call.max_addr, nid, caller=call.caller)


def _uncovered(memblock: Memblock, start: int, end: int) -> Iterator[Span]:
    yield from memblock.reserved.uncovered(start, end)


def _minus(left: Iterable[Span], right: Iterable[Span]) -> Iterator[Span]:
    """Parts of `left` outside `right`; both ascending and disjoint."""
    taken = list(right)
    at = 0
    for start, end in left:
        low = start
        while at < len(taken) and taken[at][1] <= low:
            at += 1
        index = at
        while index < len(taken) and taken[index][0] < end:
            if taken[index][0] > low:
                yield low, taken[index][0]
            low = max(low, taken[index][1])
            index += 1
        if low < end:
            yield low, end
