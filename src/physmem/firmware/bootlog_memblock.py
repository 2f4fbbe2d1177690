# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines that `memblock=debug` adds to a boot log, and the dumps of memblock's arrays.

A call prints what it asks for, then the range that `memblock_reserve` took for it. Some callers
(node descriptors, CMA) print only the range: their request is told from the line that follows.

Linux: memblock_dbg() calls of mm/memblock.c (6.1, 6.12)
"""

import re
from collections.abc import Sequence
from dataclasses import replace

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
    Step,
)
from physmem.firmware.bootlog_lines import LogLine
from physmem.lib.errors import BadInputError

SMP_CACHE_BYTES = 64
"""Alignment of a node's descriptor; 64 on all architectures here."""
CMA_MIN_ALIGNMENT_BYTES = 2 << 20
"""Smallest alignment of a CMA area: one pageblock."""

_RANGE = r"\[0x(?P<first>[0-9a-f]+)-0x(?P<last>[0-9a-f]+)\]"
_DIRECT = re.compile(
    r"(?P<op>memblock_(?:add|remove|reserve|free|phys_free|add_node)): "
    + _RANGE
    + r"(?: nid=(?P<nid>\d+) flags=(?P<flags>[0-9a-f]+))?(?: (?P<caller>\S+))?"
)
_ALLOC = re.compile(
    r"(?P<function>memblock_\w*alloc\w*): (?P<size>\d+) bytes align=0x(?P<align>[0-9a-f]+)"
    r"(?: nid=(?P<nid>-?\d+))? from=0x(?P<from>[0-9a-f]+) max_addr=0x(?P<max>[0-9a-f]+)"
    r" (?P<caller>\S+)"
)
_REGION = re.compile(
    r"\s*(?P<array>memory|reserved)\[0x[0-9a-f]+\]\s*"
    + _RANGE
    + r", 0x[0-9a-f]+ bytes(?: on node (?P<nid>\d+))? flags: 0x(?P<flags>[0-9a-f]+)"
)
_DUMP_OTHER = re.compile(r"\s*(?:memory|reserved)(?:\.cnt\s*=| size\s*=)|\s*physmem")
_OPS = {
    "memblock_add": MemblockOp.ADD,
    "memblock_add_node": MemblockOp.ADD,
    "memblock_remove": MemblockOp.REMOVE,
    "memblock_reserve": MemblockOp.RESERVE,
    "memblock_free": MemblockOp.FREE,
    "memblock_phys_free": MemblockOp.FREE,
}


class MemblockLines:
    """Reads the memblock lines of a log one by one and appends what they tell to `events`.

    Attributes
    ----------
    seen : whether any call was found, that is, whether the kernel ran with memblock=debug
    """

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name = name
        self.events = events
        self.seen = False
        self._memory: list[DumpRegion] = []
        self._reserved: list[DumpRegion] = []
        self._dump_line = 0

    def feed(self, line: LogLine) -> bool:
        """Take one line; False when it is not about memblock.

        Raises
        ------
        BadInputError
            The line is damaged.
        """
        text = line.text
        if text.startswith("MEMBLOCK configuration"):
            self.finish_dump()
            self._dump_line = line.number
            return True
        if self._dump_line:
            if self._dump(line):
                return True
            self.finish_dump()
        if not text.startswith("memblock_"):
            return False
        match = _ALLOC.match(text)
        if match:
            self.seen = True
            self.events.append(
                AllocCall(
                    function=match["function"],
                    size=int(match["size"]),
                    align=int(match["align"], 16),
                    nid=int(match["nid"] or -1),
                    min_addr=int(match["from"], 16),
                    max_addr=int(match["max"], 16),
                    caller=match["caller"],
                    line=line.number,
                )
            )
            return True
        match = _DIRECT.match(text)
        if match is None:
            raise self._damaged(line)
        self.seen = True
        self._direct(match, line)
        return True

    def _direct(self, match: re.Match[str], line: LogLine) -> None:
        start, end = int(match["first"], 16), int(match["last"], 16) + 1
        op = _OPS[match["op"]]
        if end < start and op is MemblockOp.REMOVE:
            end = 1 << 64  # all from there on: the printed end has wrapped around
        if end < start:
            raise self._damaged(line)
        call = MemblockCall(
            op,
            start,
            end,
            match["caller"] or "",
            line.number,
            None if match["nid"] is None else int(match["nid"]),
            int(match["flags"] or "0", 16),
        )
        if call.op is MemblockOp.RESERVE and self._answers(call):
            return
        self.events.append(call)

    def _answers(self, call: MemblockCall) -> bool:
        """Whether the range is what the last allocation got; then it is noted there."""
        if not self.events or not isinstance(self.events[-1], AllocCall):
            return False
        asked = self.events[-1]
        if asked.start is not None or asked.size != call.end - call.start:
            return False
        self.events[-1] = replace(asked, start=call.start, end=call.end)
        return True

    def _dump(self, line: LogLine) -> bool:
        match = _REGION.match(line.text)
        if match is None:
            return _DUMP_OTHER.match(line.text) is not None
        start, end = int(match["first"], 16), int(match["last"], 16) + 1
        nid = None if match["nid"] is None else int(match["nid"])
        if end <= start and end != start:
            raise self._damaged(line)
        region = DumpRegion(start, end, int(match["flags"], 16), nid)
        (self._memory if match["array"] == "memory" else self._reserved).append(region)
        return True

    def finish_dump(self) -> None:
        """Note the dump that was being read, if any."""
        if self._dump_line and (self._memory or self._reserved):
            dump = MemblockDump(tuple(self._memory), tuple(self._reserved), self._dump_line)
            self.events.append(dump)
        self._memory, self._reserved, self._dump_line = [], [], 0

    def _damaged(self, line: LogLine) -> BadInputError:
        return BadInputError(
            f"{self.name}: line {line.number}: {line.text.strip()[:100]!r} is damaged; save the"
            " log again with: dmesg > FILE"
        )


def infer_requests(events: Sequence[Event]) -> list[Event]:
    """Events in which a range that only an allocation can have taken is that allocation.

    A node's descriptor: on its node, cache-line aligned. A CMA area: aligned to a pageblock. The
    steps of the start-up that lie between the two lines do not matter.

    Linux: alloc_node_data(), arch/x86/mm/numa.c; setup_node_data(), drivers/base/arch_numa.c;
    cma_declare_contiguous_nid(), mm/cma.c (6.1)
    """
    result: list[Event] = []
    known = False
    for index, event in enumerate(events):
        known = known or (isinstance(event, Moment) and event.step is Step.NUMA)
        bare = (
            isinstance(event, MemblockCall)
            and event.op is MemblockOp.RESERVE
            and event.caller.startswith("memblock_alloc_range_nid")
        )
        if bare and isinstance(event, MemblockCall):
            asked = _purpose(event, events[index + 1 : index + 4])
            if isinstance(asked, AllocCall) and asked.nid >= 0 and not known:
                # with a device tree nothing is printed when the nodes become known
                result.append(Moment(Step.NUMA, event.line))
                known = True
            result.append(asked)
        else:
            result.append(event)
    return result


def _purpose(call: MemblockCall, later: Sequence[Event]) -> Event:
    for event in later:
        if isinstance(event, Moment) and event.step is Step.NUMA:
            continue
        if isinstance(event, NodeData) and event.start == call.start:
            return _asked(call, "memblock_phys_alloc_try_nid", SMP_CACHE_BYTES, event.nid)
        if isinstance(event, CmaReserved) and event.base == call.start:
            return _asked(call, "cma_declare_contiguous_nid", CMA_MIN_ALIGNMENT_BYTES, -1)
        break
    return call


def _asked(call: MemblockCall, function: str, align: int, nid: int) -> AllocCall:
    return AllocCall(
        function=function,
        size=call.end - call.start,
        align=align,
        nid=nid,
        min_addr=0,
        max_addr=0,
        caller=call.caller,
        line=call.line,
        start=call.start,
        end=call.end,
        inferred=True,
    )
