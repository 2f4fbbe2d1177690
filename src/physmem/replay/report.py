# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay found: figures, races, the first divergence and the rule behind it."""

from dataclasses import asdict, dataclass
from typing import Any

from physmem.mm.compare import Comparison
from physmem.mm.mmzone import MIGRATE_PCPTYPES
from physmem.mm.state import State, ZoneState
from physmem.mm.tracepoint import EXTFRAG, PCPU_DRAIN, ZONE_LOCKED
from physmem.replay import request as rq
from physmem.replay.runner import Divergence
from physmem.trace.events import EVENT_NAMES, Events, Kind

CONTEXT_BEFORE = 14
CONTEXT_AFTER = 5
_LIST_SHOWN = 12
_FIRST_THP_LIST = 12


@dataclass(frozen=True)
class RaceLine:
    """A race that an outcome decided: the trace line and what was decided."""

    line: int
    what: str


@dataclass(frozen=True)
class Decays:
    """Decays of per-CPU lists: seen in the trace, inferred, and inferred with an outcome's help."""

    seen: int = 0
    inferred: int = 0
    moved: int = 0


@dataclass(frozen=True)
class ZoneResult:
    """Allocations whose recorded frame lies in one zone."""

    node: int
    name: str
    requests: int
    exact: int

    @property
    def share(self) -> float:
        """Exact / requests; 1.0 when there was none."""
        return self.exact / self.requests if self.requests else 1.0


@dataclass(frozen=True)
class FirstDivergence:
    """Where prediction and recording part, and why.

    Attributes
    ----------
    line : line of the trace text
    expected, predicted : what was recorded and what was predicted, as text
    why : the rule that led to the prediction
    context : lines of the trace around it, the diverging one marked with ">"
    lists : where the two frames were before, with the lists that held them
    """

    line: int
    expected: str
    predicted: str
    why: str
    context: tuple[str, ...]
    lists: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Builtins form."""
        return {
            "line": self.line,
            "expected": self.expected,
            "predicted": self.predicted,
            "why": self.why,
            "context": list(self.context),
            "lists": list(self.lists),
        }


@dataclass(frozen=True, eq=False)
class Result:
    """Everything that `replay_capture` found.

    Attributes
    ----------
    events : rows of the trace between the two states
    allocations, exact : requests that allocate; those whose frame was predicted
    consequences, consequences_exact : refills, drains and fallbacks recorded; those predicted
    consequences_extra : predicted, but not recorded
    unexplained : consequences recorded that belong to no request
    frees, frees_unmatched : frees; those of frames that the model did not have in use
    bulk_pages : frames taken by the bulk allocator without an event
    node_requests : allocations that must have asked for another node than the CPU's
    races : decided with the help of an outcome (none under --strict)
    decays : decays of per-CPU lists that show, that do not, and those of the latter whose time an
        outcome told (nothing of it where the kernel's lists do not decay)
    final : the state at the end against the recorded one; None when none was recorded
    state : the state at the end
    seconds : of separating requests from outcomes and of replaying them; without compiling
    digest : of all predictions, in order; equal predictions have equal digests
    notes : what makes an exact replay unlikely from the start, in sentences
    """

    kernel: str
    strict: bool
    events: int
    allocations: int
    exact: int
    consequences: int
    consequences_exact: int
    consequences_extra: int
    unexplained: int
    frees: int
    frees_unmatched: int
    bulk_pages: int
    node_requests: int
    lost_events: int
    races: tuple[RaceLine, ...]
    decays: Decays
    zones: tuple[ZoneResult, ...]
    first_divergence: FirstDivergence | None
    final: Comparison | None
    state: State
    seconds: float
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def exact_share(self) -> float:
        """Share of allocations whose frame was predicted; 1.0 when there was none."""
        return self.exact / self.allocations if self.allocations else 1.0

    @property
    def events_per_second(self) -> float:
        """Rows of the trace per second of replay."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    @property
    def equal(self) -> bool:
        """True when every answer and the final state are as recorded."""
        return (
            self.first_divergence is None
            and self.exact == self.allocations
            and self.consequences_exact == self.consequences
            and self.consequences_extra == 0
            and self.unexplained == 0
            and (self.final is None or self.final.equal)
        )

    def to_dict(self) -> dict[str, Any]:
        """Object of `physmem replay --json`."""
        final = None
        if self.final is not None:
            final = {
                "free_lists_equal": self.final.free_lists_equal,
                "pcp_lists_equal": self.final.pcp_lists_equal,
                "pageblocks_equal": self.final.pageblocks_equal,
                "buddyinfo_equal": self.final.buddyinfo_equal,
                "pagetypeinfo_equal": self.final.pagetypeinfo_equal,
                "differences": list(self.final.differences),
            }
        first = self.first_divergence
        return {
            "kernel": self.kernel,
            "strict": self.strict,
            "equal": self.equal,
            "events": self.events,
            "allocations": self.allocations,
            "exact": self.exact,
            "exact_share": self.exact_share,
            "consequences": self.consequences,
            "consequences_exact": self.consequences_exact,
            "consequences_extra": self.consequences_extra,
            "consequences_unexplained": self.unexplained,
            "frees": self.frees,
            "frees_unmatched": self.frees_unmatched,
            "bulk_pages": self.bulk_pages,
            "node_requests": self.node_requests,
            "lost_events": self.lost_events,
            "races": len(self.races),
            "race_lines": [{"line": race.line, "what": race.what} for race in self.races],
            "decays": asdict(self.decays),
            "zones": [
                {
                    "node": zone.node,
                    "name": zone.name,
                    "requests": zone.requests,
                    "exact": zone.exact,
                    "share": zone.share,
                }
                for zone in self.zones
            ],
            "first_divergence": first.to_dict() if first is not None else None,
            "final": final,
            "seconds": self.seconds,
            "events_per_second": self.events_per_second,
            "digest": self.digest,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        state = "no final state recorded"
        if self.final is not None:
            state = "final state equal" if self.final.equal else "final state differs"
        return (
            f"<Result {self.exact}/{self.allocations} allocations exact,"
            f" {self.consequences_exact}/{self.consequences} consequences,"
            f" {len(self.races)} races, {state}>"
        )


def format_row(events: Events, row: int) -> str:
    """One row as ftrace would print it (page addresses and flag names left out)."""
    kind = Kind(int(events.kind[row]))
    parts = [f"[{int(events.cpu[row]):03d}]", f"pid {int(events.pid[row])}"]
    if events.context[row] & 12:
        parts.append("(interrupt)")
    parts.append(f"{EVENT_NAMES[kind]}:")
    pfn = int(events.pfn[row])
    if kind <= Kind.EXTFRAG:
        parts.append(f"pfn={pfn:#x}" if pfn >= 0 else "pfn=none")
        parts.append(f"order={int(events.order[row])}")
    if int(events.migratetype[row]) >= 0:
        parts.append(f"migratetype={int(events.migratetype[row])}")
    if kind in (Kind.ALLOC, Kind.BULK):
        parts.append(f"gfp={int(events.gfp[row]):#x}")
    if kind in (Kind.BULK, Kind.BULK_RET):
        parts.append(f"nr={int(events.arg1[row])}")
    return " ".join(parts)


def format_context(events: Events, row: int) -> tuple[str, ...]:
    """Twenty rows around one, with their line numbers; the row itself is marked."""
    low = max(row - CONTEXT_BEFORE, 0)
    high = min(row + CONTEXT_AFTER + 1, len(events))
    return tuple(
        f"{'>' if at == row else ' '} {int(events.line[at])}: {format_row(events, at)}"
        for at in range(low, high)
    )


def frame_text(pfn: int) -> str:
    """A frame, or the lack of one."""
    return f"{pfn:#x}" if pfn >= 0 else "nothing"


def _excerpt(members: list[int], at: int) -> str:
    low = max(at - _LIST_SHOWN // 2, 0)
    shown = members[low : low + _LIST_SHOWN]
    marked = [f"[{pfn:#x}]" if pfn == members[at] else f"{pfn:#x}" for pfn in shown]
    before = "... " if low else "HEAD "
    after = " ..." if low + _LIST_SHOWN < len(members) else " TAIL"
    return before + " ".join(marked) + after


def where_is(state: State, pfn: int) -> str:
    """Where a frame was in the model: on which list, at which position, between which others."""
    if pfn < 0:
        return "nothing: no frame"
    for zone in state.zones:
        if zone.start <= pfn < zone.end:
            return f"{pfn:#x} in zone {zone.name} of node {zone.node}: " + _where_in_zone(
                zone, state, pfn
            )
    return f"{pfn:#x}: outside every zone"


def _where_in_zone(zone: ZoneState, state: State, pfn: int) -> str:
    for pcp in zone.pcp:
        for pindex, members in enumerate(pcp.lists):
            thp = pindex >= _FIRST_THP_LIST
            order = state.pageblock_order if thp else pindex // MIGRATE_PCPTYPES
            for at, head in enumerate(members):
                if head <= pfn < head + (1 << order):
                    mt = pindex % MIGRATE_PCPTYPES if not thp else pindex - _FIRST_THP_LIST
                    return (
                        f"per-CPU list of cpu {pcp.cpu}, order {order}, {state.type_names[mt]},"
                        f" position {at} of {len(members)} (count {pcp.count}, high {pcp.high},"
                        f" batch {pcp.batch}, free_factor {pcp.free_factor}):"
                        f" {_excerpt(members, at)}"
                    )
    for order, row in enumerate(zone.free):
        for mt, members in enumerate(row):
            for at, head in enumerate(members):
                if head <= pfn < head + (1 << order):
                    return (
                        f"free list of order {order}, {state.type_names[mt]}, position {at} of"
                        f" {len(members)}, in the block at {head:#x}: {_excerpt(members, at)}"
                    )
    return "in use"


def explain(divergence: Divergence) -> str:
    """The rule that led to the prediction."""
    recorded, predicted = divergence.consequences
    kinds = [event[0] for event in predicted]
    if divergence.kind in (rq.ALLOC, rq.BULK):
        if divergence.kind == rq.ALLOC and divergence.predicted < 0 <= divergence.expected:
            return "no zone of the zonelist was above its watermark with a block of that order"
        if EXTFRAG in kinds:
            event = predicted[kinds.index(EXTFRAG)]
            return (
                f"the lists of the type were empty: fallback to the block {event[1]:#x} of order"
                f" {event[4] & 0xF} and type {event[4] >> 4 & 7}, then smallest fit"
            )
        if kinds.count(ZONE_LOCKED) > 1:
            return (
                f"the per-CPU list was empty: refilled with {kinds.count(ZONE_LOCKED)} blocks by"
                " smallest fit; its HEAD was taken"
            )
        if ZONE_LOCKED in kinds:
            return "smallest fit: HEAD of the free list of the smallest order that has a block"
        return "HEAD of the CPU's own list of that order and type"
    if PCPU_DRAIN in kinds:
        return (
            f"count reached high: {len(predicted)} blocks drained from TAIL, the freed block's"
            f" list first (recorded: {len(recorded)})"
        )
    return f"count stayed below high: nothing drained (recorded: {len(recorded)})"
