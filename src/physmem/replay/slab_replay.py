# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaying the objects of a recording: which slab serves, when slabs come and go.

Linux: mm/slub.c (6.1)
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from physmem.lib.errors import BadCaptureError
from physmem.replay.slab_model import NEW, CacheModel
from physmem.replay.slab_objects import FAILED, LARGE, UNKNOWN, config_of, find_slabs
from physmem.slab.slub_config import SlubFeature
from physmem.trace.capture import Capture
from physmem.trace.events import Kind

NOT_KNOWN = "the cache's state is not known: no new slab was seen since the recording began"
UNSEEN_FREE = "an object was freed without an event (in bulk, or later through RCU)"
UNSEEN_ALLOC = "an object was allocated without an event (in bulk)"
CHANCE = "the kernel leaves other nodes out by chance (get_any_partial)"
OTHER = "not explained"
_CAUSES = (NOT_KNOWN, UNSEEN_FREE, UNSEEN_ALLOC, CHANCE, OTHER)


@dataclass(frozen=True)
class CacheResult:
    """Figures of one cache between the states."""

    name: str
    size: int
    allocations: int
    exact: int
    slabs_made: int
    slabs_made_exact: int
    slabs_ended: int
    slabs_ended_exact: int
    causes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SlabResult:
    """What `replay_slab` found between the states of a recording.

    Attributes
    ----------
    objects : events of objects; unknown_pointers : of them outside of memory, or hidden
    large : served by the page allocator
    inconsistent : objects that do not fit the geometry of their slab, as text
    allocations, exact : objects of slabs; those whose slab (frame) was predicted
    known, known_exact : the same over caches whose state is known at that moment
    slabs_made, slabs_made_exact : slab-page allocations; those predicted at that event
    slabs_ended, slabs_ended_exact : slab-page frees; those predicted at that event
    slabs_unknown : of slabs made and ended: of caches whose state is not known
    extra : slabs predicted to be made or to end that were not
    causes : of allocations and slabs that were not predicted
    """

    kernel: str
    objects: int
    unknown_pointers: int
    large: int
    inconsistent: tuple[str, ...]
    allocations: int
    exact: int
    known: int
    known_exact: int
    slabs_made: int
    slabs_made_exact: int
    slabs_ended: int
    slabs_ended_exact: int
    slabs_unknown: int
    extra: int
    causes: tuple[tuple[str, int], ...]
    caches: tuple[CacheResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Everything that could be known was predicted."""
        return (
            not self.inconsistent
            and self.known == self.known_exact
            and self.slabs_made + self.slabs_ended - self.slabs_unknown
            == self.slabs_made_exact + self.slabs_ended_exact
            and not self.extra
        )

    def to_dict(self) -> dict[str, Any]:
        """Builtins form."""
        import msgspec

        made: dict[str, Any] = msgspec.to_builtins(self)
        return {**made, "equal": self.equal}


class _Replay:
    """One pass over the rows, all of them: what lies before the start state teaches."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.found = find_slabs(capture)
        machine = capture.info.machine
        config = config_of(capture)
        self.lone = bool(config.features & SlubFeature.PARTIAL_UNFROZEN)
        self.debug = config.debug
        last = int(capture.events.cpu.max(initial=0))
        nodes = [*machine.cpu_node, *([0] * (last + 1))]
        self.cpu_node = nodes[: max(last + 1, machine.nr_cpus)]
        self.bounds = sorted(
            (zone.start, zone.end, zone.node) for zone in machine.zones if zone.spanned
        )
        self.models: dict[tuple[str, int], CacheModel] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.live: dict[int, int] = {}  # pointer -> slab
        self.held: Counter[int] = Counter()  # slab -> objects seen allocated and not freed
        self.unseen: dict[str, str] = {}  # cache -> what no event told
        self.made: set[int] = set()
        self.ending: dict[int, int] = {}  # slab -> pid
        self.last: dict[int, int] = {}  # pid -> its last event of objects
        self.total: Counter[str] = Counter()
        self.extra = 0
        self.counting = False

    def model(self, name: str, size: int) -> CacheModel:
        """Model of a cache."""
        if (name, size) not in self.models:
            geometry = self.found.geometries[size]
            self.models[name, size] = CacheModel(
                geometry,
                self.cpu_node,
                self.node_of,
                lone=self.lone,
                checked=self.found.checked(name),
            )
        return self.models[name, size]

    def node_of(self, slab: int) -> int:
        """Node of a slab."""
        head = self.found.lives[slab].head
        return next((node for start, end, node in self.bounds if start <= head < end), 0)

    def count(self, name: str, what: str) -> None:
        """Count while between the states."""
        if self.counting:
            self.counts.setdefault(name, Counter())[what] += 1
            self.total[what] += 1

    def missed(self, name: str, cause: str | None = None) -> None:
        """Count a cause."""
        self.count(name, cause or self.unseen.get(name, OTHER))

    def alloc(self, slab: int, pointer: int, cpu: int) -> None:
        """An object was allocated."""
        life = self.found.lives[slab]
        name = life.cache
        model = self.model(name, life.size)
        new = life.row >= 0 and slab not in self.made
        self.made.add(slab)
        before = self.live.get(pointer)
        if before is not None:
            self.unseen[name] = UNSEEN_FREE
            self.held[before] -= 1
        self.live[pointer] = slab
        self.held[slab] += 1
        self.count(name, "allocations")
        certain = model.certain
        predicted = model.alloc(cpu)
        right = (predicted == NEW and certain) if new else predicted == slab
        if certain:
            self.count(name, "known")
        if right:
            self.count(name, "exact")
            self.count(name, "known exact" if certain else "guessed")
        else:
            elsewhere = predicted != NEW and self.node_of(predicted) != self.cpu_node[cpu]
            unknown = NOT_KNOWN if not certain and name not in self.unseen else None
            self.missed(name, CHANCE if new and certain and elsewhere else unknown)
        if new:
            self.count(name, "made")
            if not certain:
                self.count(name, "slab unknown")
            elif right:
                self.count(name, "made exact")
            model.new_slab(cpu, slab)
        elif right:
            model.agreed(cpu)
        else:
            self.extra += self.counting and certain and predicted == NEW
            model.resync(cpu, slab, model.objects - self.held[slab])

    def free(self, slab: int, pointer: int, cpu: int, pid: int) -> None:
        """An object was freed."""
        life = self.found.lives[slab]
        model = self.model(life.cache, life.size)
        if self.live.pop(pointer, None) is not None:
            self.held[slab] -= 1
        elif life.row >= 0 and model.certain:
            self.unseen[life.cache] = UNSEEN_ALLOC
        certain = model.certain
        for ended in model.release(slab, cpu):
            if certain:
                self.ending[ended] = pid

    def slab_end(self, slab: int, pid: int) -> None:
        """The frames of a slab were freed."""
        life = self.found.lives[slab]
        model = self.model(life.cache, life.size)
        self.count(life.cache, "ended")
        self.held.pop(slab, None)
        predicted = self.ending.pop(slab, None)
        if predicted == pid:
            self.count(life.cache, "ended exact")
            return
        certain = model.certain
        if not certain:
            self.count(life.cache, "slab unknown")
        self.missed(life.cache, None if certain or life.cache in self.unseen else NOT_KNOWN)
        model.lost(slab)

    def settle(self, pid: int) -> None:
        """A task's next event: what should have ended by then has not."""
        for slab in [slab for slab, by in self.ending.items() if by == pid]:
            del self.ending[slab]
            self.extra += self.counting
            life = self.found.lives[slab]
            model = self.model(life.cache, life.size)
            for cpu in range(len(self.cpu_node)):
                model.doubt(cpu)

    def run(self) -> SlabResult:
        """Go through all rows."""
        events, info = self.capture.events, self.capture.info
        first = info.state0_row or 0
        last = len(events) if info.state1_row is None else info.state1_row
        columns = zip(
            events.kind.tolist(),
            events.pfn.tolist(),
            events.pid.tolist(),
            events.cpu.tolist(),
            strict=True,
        )
        for row, (kind, pointer, pid, cpu) in enumerate(columns):
            self.counting = first <= row < last
            slab = self.found.slab[row]
            if kind >= Kind.KMALLOC:
                if self.ending:
                    self.settle(pid)
                self.count("", "objects")
                if slab == UNKNOWN:
                    self.count("", "unknown")
                elif slab == LARGE:
                    self.count("", "large")
                elif slab is None or slab == FAILED:
                    continue
                elif kind in {Kind.KMALLOC, Kind.CACHE_ALLOC}:
                    self.alloc(slab, pointer, cpu)
                else:
                    self.free(slab, pointer, cpu, pid)
            elif kind == Kind.FREE and slab is not None:
                self.slab_end(slab, pid)
        return self._result(first, last)

    def _result(self, first: int, last: int) -> SlabResult:
        total = self.total
        lines = (self.capture.events.line[first], self.capture.events.line[last - 1])
        inconsistent = tuple(
            f"line {line}: {what}"
            for line, what in self.found.inconsistent
            if lines[0] <= line <= lines[1]
        )
        sizes = {life.cache: life.size for life in self.found.lives}
        return SlabResult(
            kernel=self.capture.info.machine.kernel,
            objects=total["objects"],
            unknown_pointers=total["unknown"],
            large=total["large"],
            inconsistent=inconsistent,
            allocations=total["allocations"],
            exact=total["exact"],
            known=total["known"],
            known_exact=total["known exact"],
            slabs_made=total["made"],
            slabs_made_exact=total["made exact"],
            slabs_ended=total["ended"],
            slabs_ended_exact=total["ended exact"],
            slabs_unknown=total["slab unknown"],
            extra=self.extra,
            causes=tuple((cause, total[cause]) for cause in _CAUSES if total[cause]),
            caches=tuple(
                CacheResult(
                    name,
                    sizes[name],
                    counts["allocations"],
                    counts["exact"],
                    counts["made"],
                    counts["made exact"],
                    counts["ended"],
                    counts["ended exact"],
                    tuple((cause, counts[cause]) for cause in _CAUSES if counts[cause]),
                )
                for name, counts in sorted(
                    self.counts.items(), key=lambda item: -item[1]["allocations"]
                )
                if name
            ),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        notes = []
        info = self.capture.info
        if len(self.cpu_node) > 1:
            notes.append(
                f"{len(self.cpu_node)} CPUs: where two work on one cache at the same time, the"
                " order of the lines may not be the order of the locks"
            )
        if self.total["objects"] and self.total["unknown"] * 2 > self.total["objects"]:
            notes.append(
                "most pointers lie in no known memory: record with no_hash_pointers and nokaslr"
            )
        if info.lost:
            notes.append(f"{info.lost:,} events were lost while recording")
        return notes


def replay_slab(capture: Capture) -> SlabResult:
    """Hold the slab allocator's answers against the recorded ones.

    Raises
    ------
    BadCaptureError
        The capture has no events of objects.
    """
    if not (capture.events.kind >= Kind.KMALLOC).any():
        raise BadCaptureError(
            "the capture has no events of objects: record kmem:kmalloc, kmem:kfree,"
            " kmem:kmem_cache_alloc and kmem:kmem_cache_free, and import again"
        )
    return _Replay(capture).run()
