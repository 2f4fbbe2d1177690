# SPDX-License-Identifier: GPL-2.0-or-later
"""The slow obvious twin of the page allocator: zones, per-CPU lists, requests and frees.

An oracle for tests: plain lists and dictionaries, the kernel's function names, no speed.
Not modelled: reclaim, compaction and the OOM killer (a request that needs them fails), cpusets,
the per-CPU differentials of counters, deferred initialisation.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from .features import (
    ALLOC_CMA,
    ALLOC_COLD,
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_WMARK_HIGH,
    ALLOC_WMARK_LOW,
    ALLOC_WMARK_MASK,
    PAGE_ALLOC_COSTLY_ORDER,
    V61,
    Features,
)
from .pcp import PerCpuPagesHotCold, pcp_list_letter
from .requests import AllocContext, Requests
from .state import load_state, snapshot, spec_from_state
from .validate import validate
from .zone import Zone


class Machine(Requests):
    """The allocator of a machine, and the events that requests cause (`events`).

    A new machine has no free memory: hand some over with `memblock_free_pages`, or start from a
    recorded state with `from_state`.
    """

    # ---- allocate --------------------------------------------------------------------------------

    defrag = False  # whole pageblocks only, until a request would fail

    def alloc_pages(
        self,
        order: int,
        gfp: int,
        cpu: int = 0,
        alloc_flags: int | None = None,
        nid: int | None = None,
        *,
        pcp_busy: bool = False,
    ) -> int | None:
        """Serve one request; return the first frame, or None.

        `alloc_flags`, if given, replaces fast and slow path by a single walk with these flags.
        `pcp_busy`: the per-CPU lock was held by the interrupted code, the lists are passed by.
        """
        if order > self.max_order:
            return None
        ac = self.prepare_alloc_pages(gfp, cpu, nid)
        if not ac.zones:
            return None
        if alloc_flags is not None:
            return self.get_page_from_freelist(order, gfp, alloc_flags, ac, cpu, pcp_busy)
        flags = ALLOC_WMARK_LOW | self.gfp_to_alloc_flags_cma(ac)
        flags |= self.alloc_flags_nofragment(gfp, ac) | ALLOC_NOFRAGMENT * self.defrag
        pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        if pfn is None:
            pfn = self.alloc_pages_slowpath(order, gfp, ac, cpu, pcp_busy)
        return pfn

    def get_page_from_freelist(
        self, order: int, gfp: int, flags: int, ac: AllocContext, cpu: int, pcp_busy: bool
    ) -> int | None:
        if gfp & self.features.gfp.COLD:
            flags |= ALLOC_COLD
        while True:
            for zone in ac.zones:
                if (
                    flags & ALLOC_NOFRAGMENT
                    and not self.defrag
                    and self.nr_online_nodes > 1
                    and zone.node != ac.preferred.node
                ):
                    break  # staying local is worth more than not fragmenting
                if not self.zone_may_serve(zone, order, gfp, flags, ac):
                    continue
                pfn = self.rmqueue(zone, order, ac.letter, flags, cpu, pcp_busy)
                if pfn is not None:
                    self.prep_new_page(zone, pfn, order, gfp)
                    if self.features.highatomic and flags & ALLOC_HIGHATOMIC:
                        zone.reserve_highatomic_pageblock(pfn, order)
                    return pfn
            if not flags & ALLOC_NOFRAGMENT or self.defrag:
                return None
            flags &= ~ALLOC_NOFRAGMENT

    def zone_may_serve(
        self, zone: Zone, order: int, gfp: int, flags: int, ac: AllocContext
    ) -> bool:
        index = ac.highest_zoneidx
        if self.features.below_high_flag and not zone.below_high:
            high = zone.wmark_pages(ALLOC_WMARK_HIGH)
            if zone.zone_watermark_fast(order, high, index, flags, gfp):
                return True
            zone.below_high = True
        mark = zone.wmark_pages(flags & ALLOC_WMARK_MASK)
        ok = zone.zone_watermark_fast(order, mark, index, flags, gfp)
        return ok or bool(flags & ALLOC_NO_WATERMARKS)

    def rmqueue(
        self, zone: Zone, order: int, letter: str, flags: int, cpu: int, pcp_busy: bool
    ) -> int | None:
        pfn = None
        # The lists of movable pages may hold CMA frames, which not every request may have.
        cma_forbidden = self.features.cma and letter == "M" and not flags & ALLOC_CMA
        if zone.pcp_allowed_order(order) and not cma_forbidden and not pcp_busy:
            pfn = self.pcp_of(zone, cpu).rmqueue_pcplist(order, letter, flags)
        if pfn is None:
            pfn = zone.rmqueue_buddy(order, letter, flags)
        if pfn is not None and zone.boosted_watermark:
            zone.boosted_watermark = False
            self.wakeups.append(self.zones.index(zone))
        return pfn

    def prep_new_page(self, zone: Zone, pfn: int, order: int, gfp: int) -> None:
        zone.nr_in_use += 1 << order
        if gfp & self.features.gfp.MOVABLE:
            self.movable.update(range(pfn, pfn + (1 << order)))

    def alloc_pages_slowpath(
        self, order: int, gfp: int, ac: AllocContext, cpu: int, pcp_busy: bool
    ) -> int | None:
        """Try with the MIN mark and the request's rights; what reclaim would give is not there."""
        bits = self.features.gfp
        if self.gives_up_early(gfp):
            return None
        flags = self.gfp_to_alloc_flags(gfp, order, ac) | ALLOC_NOFRAGMENT * self.defrag
        pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        if pfn is None and gfp & bits.MEMALLOC and not gfp & bits.NOMEMALLOC:
            flags = ALLOC_NO_WATERMARKS | self.gfp_to_alloc_flags_cma(ac) | (flags & ALLOC_KSWAPD)
            pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        waits = bool(gfp & bits.DIRECT_RECLAIM) and not gfp & bits.NORETRY
        if order > PAGE_ALLOC_COSTLY_ORDER and not gfp & bits.RETRY_MAYFAIL:
            waits = False
        while pfn is None and waits and self.unreserve_highatomic_pageblock(ac, force=True):
            pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        if pfn is None and flags & ALLOC_NOFRAGMENT:  # defrag: rather mixed than nothing
            flags &= ~ALLOC_NOFRAGMENT
            pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        if pfn is None and waits:  # a last look before something would be killed
            flags = ALLOC_WMARK_HIGH | ALLOC_CPUSET
            pfn = self.get_page_from_freelist(order, gfp, flags, ac, cpu, pcp_busy)
        return pfn

    def gives_up_early(self, gfp: int) -> bool:
        """Tell whether the request wants this node's memory only while there is plenty."""
        only = self.features.gfp.LOCAL_ONLY
        return self.nr_online_nodes > 1 and only != 0 and gfp & only == only

    def unreserve_highatomic_pageblock(self, ac: AllocContext, *, force: bool) -> bool:
        if not self.features.highatomic:
            return False
        return any(zone.unreserve_highatomic_pageblock(ac.letter, force=force) for zone in ac.zones)

    def alloc_bulk(
        self, nr: int, gfp: int, cpu: int = 0, nid: int | None = None, *, pcp_busy: bool = False
    ) -> list[int]:
        """Take several single frames from one per-CPU list (alloc_pages_bulk).

        The walk has neither NOFRAGMENT nor KSWAPD, and the reserve that counts in the watermark
        test is the one against the preferred zone's index.
        """
        ac = self.prepare_alloc_pages(gfp, cpu, nid)
        flags = ALLOC_WMARK_LOW | self.gfp_to_alloc_flags_cma(ac)
        found: list[int] = []
        if not self.features.bulk:  # one request after another
            for _ in range(nr):
                pfn = self.alloc_pages(0, gfp, cpu, nid=nid, pcp_busy=pcp_busy)
                if pfn is None:
                    break
                found.append(pfn)
            return found
        if nr > 1 and not gfp & self.features.gfp.ACCOUNT and not pcp_busy:
            zone = self._bulk_zone(nr, gfp, flags, ac)
            while zone is not None and len(found) < nr:
                pcp = self.pcp_of(zone, cpu)
                pfn = pcp.rmqueue_pcplist_locked(0, ac.letter, flags)
                if pfn is None:
                    break
                self.prep_new_page(zone, pfn, 0, gfp)
                found.append(pfn)
        if nr > 0 and not found:
            pfn = self.alloc_pages(0, gfp, cpu, nid=nid, pcp_busy=pcp_busy)
            found = [] if pfn is None else [pfn]
        return found

    def _bulk_zone(self, nr: int, gfp: int, flags: int, ac: AllocContext) -> Zone | None:
        for zone in ac.zones:
            if zone.node != ac.preferred.node:
                return None
            mark = zone.wmark_pages(ALLOC_WMARK_LOW) + nr
            if zone.zone_watermark_fast(0, mark, ac.preferred.index, flags, gfp):
                return zone
        return None

    # ---- free ------------------------------------------------------------------------------------

    def free_pages(
        self, pfn: int, order: int, cpu: int = 0, *, pcp_busy: bool = False, cold: int = 0
    ) -> None:
        """Free one chunk: prepare and commit in one go, or straight to the buddy lists."""
        if self.page_zone(pfn).pcp_allowed_order(order):
            if self.free_prepare(pfn, order):
                self.free_commit(pfn, cpu, pcp_busy=pcp_busy, cold=cold)
            return
        self._forget_contents(pfn, order)
        self._free_direct(pfn, order, self.page_zone(pfn).get_pageblock_migratetype(pfn))

    def free_prepare(self, pfn: int, order: int = 0) -> bool:
        """Take a chunk out of use and remember its type; False: it is freed already.

        A chunk in an isolated block never goes to a per-CPU list.
        """
        zone = self.page_zone(pfn)
        self._forget_contents(pfn, order)
        letter = zone.get_pageblock_migratetype(pfn)
        zone.pcppage_migratetype[pfn] = letter
        if letter == "I" and not self.features.pcp_one_list_of_mixed_types:
            self._free_direct(pfn, order, letter)
            return False
        self.prepared[pfn] = order
        return True

    def free_commit(self, pfn: int, cpu: int = 0, *, pcp_busy: bool = False, cold: int = 0) -> None:
        """Put a prepared chunk on a per-CPU list (free_unref_page)."""
        zone, order = self.page_zone(pfn), self.prepared.pop(pfn)
        letter = zone.pcppage_migratetype[pfn]
        if self.features.frees_read_block_type:
            letter = zone.pcppage_migratetype[pfn] = zone.get_pageblock_migratetype(pfn)
        if pcp_busy or (letter == "I" and not self.features.pcp_one_list_of_mixed_types):
            self._free_direct(pfn, order, letter)
            return
        zone.nr_in_use -= 1 << order
        pcp = self.pcp_of(zone, cpu)
        if isinstance(pcp, PerCpuPagesHotCold):
            pcp.free_unref_page_commit(pfn, order, letter, cold)
        else:
            pcp.free_unref_page_commit(pfn, order, pcp_list_letter(letter))

    def _forget_contents(self, pfn: int, order: int) -> None:
        frames = range(pfn, pfn + (1 << order))
        assert pfn % len(frames) == 0, f"frame {pfn} is not aligned to order {order}"
        self.assert_in_use(pfn, order)
        self.movable.difference_update(frames)

    def _free_direct(self, pfn: int, order: int, letter: str) -> None:
        zone = self.page_zone(pfn)
        zone.nr_in_use -= 1 << order
        zone.free_one_page(pfn, order, letter)

    def assert_in_use(self, pfn: int, order: int) -> None:
        """Refuse a free of what is free already, waits on a per-CPU list, or lies outside."""
        zone = self.page_zone(pfn)
        end = pfn + (1 << order)
        assert zone.zone_spans_pfn(end - 1), f"chunk {pfn} order {order} leaves its zone"
        for o in range(self.max_order + 1):  # a free chunk that contains us
            head = pfn >> o << o
            assert not zone.page_is_buddy(head, o), f"frame {pfn} is free already"
        for frame in range(pfn, end):  # free chunks inside us
            assert frame not in zone.buddy, f"frame {frame} is free already"
            assert frame not in self.prepared, f"frame {frame} is being freed already"

    # ---- drain, boot -----------------------------------------------------------------------------

    def drain_zone_pages(self, zone: int, cpu: int) -> None:
        """Give back one batch of one CPU's lists of one zone."""
        self.pcp[zone][cpu].drain_zone_pages()

    def drain_pages_zone(self, zone: int, cpu: int) -> None:
        """Give back everything one CPU has of one zone."""
        self.pcp[zone][cpu].drain_pages_zone()

    def drain_all_pages(self) -> None:
        for cpu in range(self.nr_cpus):
            for zone in range(len(self.zones)):
                self.drain_pages_zone(zone, cpu)

    def memblock_free_pages(self, start: int, end: int) -> None:
        """Hand the frames [start, end) over at boot."""
        while start < end:
            order = self.max_order
            while start % (1 << order) or start + (1 << order) > end:
                order -= 1
            zone = self.page_zone(start)
            if self.features.boot_frees_words_to_head:
                order = 6 if order >= 6 else 0  # a word of the bitmap, or frame by frame
                if order == 0:
                    self.free_pages(start, 0)
                    start += 1
                    continue
            zone.nr_in_use -= 1 << order
            letter = zone.get_pageblock_migratetype(start)
            tail = not self.features.boot_frees_words_to_head
            zone.free_one_page(start, order, letter, to_tail=tail)
            start += 1 << order

    # ---- states ----------------------------------------------------------------------------------

    def snapshot(self, *, remembered_types: bool = False) -> dict[str, Any]:
        """Return the state in the JSON form of recordings."""
        return snapshot(self, remembered_types=remembered_types)

    @classmethod
    def from_state(
        cls,
        state: dict[str, Any],
        nr_cpus: int | None = None,
        cpu_node: Sequence[int] | None = None,
        features: Features = V61,
        node_distance: Sequence[Sequence[int]] | None = None,
        zone_names: Sequence[str] | None = None,
        *,
        zonelist_order: str = "",
        movable: Iterable[int] = (),
        watermark_boost_factor: int = 15000,
    ) -> "Machine":
        """Build a machine from a recorded state; `movable`: frames in use by movable requests."""
        zones = state["zones"]
        machine = cls(
            [spec_from_state(zone) for zone in zones],
            nr_cpus or len(zones[0]["pcp"]),
            cpu_node,
            features,
            state["pageblock_order"],
            len(zones[0]["free"]) - 1,
            node_distance,
            zone_names,
            watermark_boost_factor=watermark_boost_factor,
            zonelist_order=zonelist_order,
        )
        load_state(machine, state)
        machine.movable.update(movable)
        return machine

    def validate(self) -> None:
        """Check every invariant; AssertionError names the one that is broken."""
        validate(self)
