# SPDX-License-Identifier: GPL-2.0-or-later
"""Which slab, and which cache, each recorded object belongs to.

Linux: include/trace/events/kmem.h (6.1); mm/slub.c

An event names the cache only when an object is freed. So each slab's life is found first (from the
events of its frames, or from the first object seen in it), then its cache: by the name in a free of
one of its objects, by kmalloc's size and flags, or by callers that other slabs tell apart.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from physmem.mm.gfp import __GFP_ACCOUNT, __GFP_DMA, __GFP_RECLAIMABLE
from physmem.slab.direct_map import DIRECT_MAPS
from physmem.slab.flags import DEBUG_FLAGS
from physmem.slab.slub_config import SLUB_RULES, SlubConfig
from physmem.slab.slub_merge import debug_flags
from physmem.slab.slub_sizes import SlubGeometry, slub_geometry
from physmem.trace.capture import Capture
from physmem.trace.events import Kind
from physmem.trace.profile import DEFAULT_PROFILE

RECLAIMABLE = __GFP_RECLAIMABLE
ACCOUNT = __GFP_ACCOUNT
DMA = __GFP_DMA
LARGE = -1
"""Slab of an object that the page allocator serves by itself."""
UNKNOWN = -2
"""Slab of a pointer that is in no memory known to hold objects."""
FAILED = -3
"""Slab of an allocation that got nothing."""


@dataclass
class SlabLife:
    """One slab from its first frames to its last.

    Attributes
    ----------
    head, order, size : first frame, order, stride
    row : of the mm_page_alloc that made it; -1: before the recording
    pad : bytes in front of each object
    cache : name
    """

    head: int
    order: int
    size: int
    row: int = -1
    pad: int = 0
    cache: str = ""
    names: Counter[int] = field(default_factory=Counter)
    callers: set[int] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)


@dataclass
class ObjectRows:
    """What `find_slabs` finds: for each row of the capture its slab, and every slab's life.

    Attributes
    ----------
    slab : per row: index into `lives`, LARGE, UNKNOWN, FAILED or None (no event of objects)
    inconsistent : (line, what is wrong) of objects that do not fit their slab
    """

    slab: list[int | None]
    lives: list[SlabLife]
    inconsistent: list[tuple[int, str]]
    geometries: dict[int, SlubGeometry]
    config: SlubConfig

    def checked(self, name: str) -> bool:
        """Tell whether a cache is a debug cache, by the kernel's command line."""
        return bool(debug_flags(self.config, name, 8, 0) & DEBUG_FLAGS)


def config_of(capture: Capture) -> SlubConfig:
    """SLUB of the recorded kernel."""
    machine = capture.info.machine
    kernel = machine.profile if machine.profile in SLUB_RULES else DEFAULT_PROFILE
    word = DIRECT_MAPS[machine.arch].word if machine.arch in DIRECT_MAPS else 8
    shift = machine.page_size.bit_length() - 1
    return SlubConfig(
        kernel=kernel,
        cpus=machine.nr_cpus,
        nr_node_ids=machine.nr_nodes,
        word=word,
        page_shift=shift,
        **slab_options(machine.cmdline),
    )


def slab_options(cmdline: str) -> dict[str, Any]:
    """Fields of `SlubConfig` that a kernel's command line sets.

    Examples
    --------
    >>> slab_options("quiet slub_max_order=1 slab_debug=FZ,dentry slub_min_objects=x")
    {'max_order': 1, 'debug': 'FZ,dentry'}

    Linux: setup_slub_max_order() and its like, setup_slub_debug(), mm/slub.c (6.1, 6.12)
    """
    found: dict[str, Any] = {}
    for word in cmdline.split():
        name, _, value = word.partition("=")
        if name.removeprefix("slub_").removeprefix("slab_") == name:
            continue
        option = name[5:]
        if option in {"min_order", "max_order", "min_objects"} and value.isdecimal():
            found[option] = min(int(value), 10) if option != "min_objects" else int(value)
        elif option == "debug":
            found["debug"] = value
        elif option == "nomerge":
            found["merge"] = False
    least, most = found.get("min_order", 0), found.get("max_order", 3)
    if least > most:
        # what comes later moves the other bound
        found["min_order" if "max_order" in found else "max_order"] = (
            most if "max_order" in found else least
        )
    return found


def page_offset_of(capture: Capture) -> int:
    """Address of physical address 0 in the recorded kernel's direct map (without KASLR)."""
    arch = capture.info.machine.arch
    return DIRECT_MAPS.get(arch, DIRECT_MAPS["x86_64"]).page_offset


class _Finder:
    """One pass over the rows."""

    def __init__(self, capture: Capture) -> None:
        self.config = config_of(capture)
        self.base = page_offset_of(capture)
        self.shift = self.config.page_shift
        state = capture.state0
        self.end = max((zone.end for zone in state.zones), default=0) if state else 1 << 40
        self.lives: list[SlabLife] = []
        self.now: dict[int, int] = {}  # frame -> slab
        self.blocks: dict[int, tuple[int, int, int]] = {}  # frame -> head, order, row
        self.geometries: dict[int, SlubGeometry] = {}
        self.inconsistent: list[tuple[int, str]] = []

    def geometry(self, size: int) -> SlubGeometry:
        """Geometry of a stride."""
        if size not in self.geometries:
            self.geometries[size] = slub_geometry(self.config, size)
        return self.geometries[size]

    def frame(self, pointer: int) -> int:
        """Frame of a pointer; negative: not in memory."""
        pfn = ((pointer & ((1 << 64) - 1)) - self.base) >> self.shift
        return pfn if 0 <= pfn < self.end else -1

    def pages(self, row: int, pfn: int, order: int) -> None:
        """Frames were allocated: what was there is over."""
        for frame in range(pfn, pfn + (1 << order)):
            self.now.pop(frame, None)
            self.blocks[frame] = (pfn, order, row)

    def pages_end(self, pfn: int, order: int) -> int | None:
        """Frames were freed: the slab that was there, if any."""
        slab = self.now.get(pfn)
        for frame in range(pfn, pfn + (1 << order)):
            self.now.pop(frame, None)
            self.blocks.pop(frame, None)
        return slab

    def allocated(self, line: int, kind: int, pointer: int, size: int) -> int:
        """An object was allocated: its slab."""
        if pointer == 0:
            return FAILED
        pfn = self.frame(pointer)
        if pfn < 0:
            return UNKNOWN
        if kind == Kind.KMALLOC and size > 2 << self.shift:
            return LARGE
        slab = self.now.get(pfn)
        g = self.geometry(size)
        if slab is None:
            head, order, row = self.blocks.get(pfn, (pfn >> g.order << g.order, g.order, -1))
            slab = len(self.lives)
            begin = (pointer & ((1 << 64) - 1)) - self.base - (head << self.shift)
            pad = begin % size if self.config.debug is not None else 0  # left red zone
            self.lives.append(SlabLife(head, order, size, row, pad))
            for frame in range(head, head + (1 << order)):
                self.now[frame] = slab
        life = self.lives[slab]
        offset = (pointer & ((1 << 64) - 1)) - self.base - (life.head << self.shift)
        place, rest = divmod(offset, size)
        if life.size != size:
            self.inconsistent.append((line, f"stride {size} in a slab of {life.size}"))
        elif rest != life.pad or not 0 <= place < g.objects:
            self.inconsistent.append((line, f"byte {offset} of a slab of {size}"))
        elif life.order not in {g.order, g.min_order}:
            self.inconsistent.append((line, f"order {life.order} instead of {g.order}"))
        return slab


def find_slabs(capture: Capture) -> ObjectRows:
    """Find the slab of every event of an object, and the cache of every slab."""
    events = capture.events
    finder = _Finder(capture)
    found: list[int | None] = [None] * len(events)
    rows = zip(
        events.line.tolist(),
        events.kind.tolist(),
        events.pfn.tolist(),
        events.order.tolist(),
        events.arg1.tolist(),
        events.gfp.tolist(),
        events.site.tolist(),
        strict=True,
    )
    for row, (line, kind, pfn, order, size, gfp, site) in enumerate(rows):
        if kind == Kind.ALLOC and pfn >= 0:
            finder.pages(row, pfn, order)
        elif kind == Kind.FREE:
            found[row] = finder.pages_end(pfn, order)
        elif kind in {Kind.KMALLOC, Kind.CACHE_ALLOC}:
            slab = found[row] = finder.allocated(line, kind, pfn, size)
            if slab >= 0:
                life = finder.lives[slab]
                life.callers.add(site)
                if kind == Kind.KMALLOC:
                    life.kinds.add(_kmalloc_kind(gfp))
        elif kind in {Kind.KFREE, Kind.CACHE_FREE} and pfn:
            frame = finder.frame(pfn)
            slab = found[row] = finder.now.get(frame, UNKNOWN)
            if slab >= 0 and kind == Kind.CACHE_FREE:
                finder.lives[slab].names[site] += 1
            if slab == UNKNOWN and frame in finder.blocks:
                found[row] = LARGE
    _name(finder.lives, events.sites)
    return ObjectRows(found, finder.lives, finder.inconsistent, finder.geometries, finder.config)


def _kmalloc_kind(gfp: int) -> str:
    if gfp & DMA:
        return "dma-kmalloc"
    if gfp & RECLAIMABLE:
        return "kmalloc-rcl"
    return "kmalloc-cg" if gfp & ACCOUNT else "kmalloc"


def _name(lives: list[SlabLife], sites: list[str]) -> None:
    """Name every slab's cache."""
    by_caller: dict[tuple[int, int], Counter[int]] = {}
    for life in lives:
        for caller in life.callers:
            by_caller.setdefault((caller, life.size), Counter()).update(life.names)
    for life in lives:
        if life.names:
            life.cache = sites[life.names.most_common(1)[0][0]]
        elif life.kinds:
            size = f"{life.size >> 10}k" if life.size >= 1024 else f"{life.size}"
            life.cache = f"{min(life.kinds)}-{size}"
        else:
            votes: Counter[int] = Counter()
            for caller in life.callers:
                votes.update(by_caller[caller, life.size])
            life.cache = sites[votes.most_common(1)[0][0]] if votes else f"of {life.size} bytes"


def caches_of(lives: list[SlabLife]) -> Iterator[str]:
    """Names of all caches, each once."""
    yield from dict.fromkeys(life.cache for life in lives)
