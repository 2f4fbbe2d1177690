# SPDX-License-Identifier: GPL-2.0-or-later
"""One zone: taking chunks from its buddy lists, the HIGHATOMIC reserve, watermarks."""

from dataclasses import dataclass

from .fallback import Fallback
from .features import (
    ALLOC_CMA,
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_HIGH,
    ALLOC_WMARK_MASK,
    ALLOC_WMARK_MIN,
    FALLBACKS,
    Features,
    GfpBits,
)
from .free_area import Event, ZoneSpec

RMQUEUE_NORMAL, RMQUEUE_CMA, RMQUEUE_CLAIM, RMQUEUE_STEAL = range(4)


@dataclass
class RmqueueMode:
    """Where the last chunk of this refill was found: the next search starts there (6.12.29)."""

    value: int = RMQUEUE_NORMAL


class Zone(Fallback):
    """Free lists plus the policies that work on one whole zone."""

    no_highatomic = False  # nothing is set aside

    def __init__(
        self,
        spec: ZoneSpec,
        features: Features,
        pageblock_order: int,
        max_order: int,
        events: list[Event],
        movable: set[int],
    ) -> None:
        super().__init__(spec, features, pageblock_order, max_order, events, movable)
        self.lowmem_reserve = list(spec.lowmem_reserve)
        self.nr_reserved_highatomic = spec.highatomic
        self.reclaim_active = False  # two more of the zone's flag bits
        self.below_high = False
        self.nr_in_use = 0  # frames handed out: for the conservation invariant
        self.index = self.movable_index = (
            0  # places of this zone and of Movable: set by the machine
        )

    # ---- one chunk from the buddy lists (__rmqueue) ----------------------------------------------

    def rmqueue_one(
        self, order: int, letter: str, alloc_flags: int, mode: RmqueueMode
    ) -> int | None:
        """Find a chunk by smallest fit, CMA or fallback; the caller counts the frames."""
        cma = bool(self.features.cma and alloc_flags & ALLOC_CMA)
        if cma and self.nr_free_cma_pages > self.nr_free_pages // 2:
            pfn = self.rmqueue_smallest(order, "C")
            if pfn is not None:
                return pfn
        if self.features.fallback_claims_or_steals:
            return self._rmqueue_by_mode(order, letter, alloc_flags, mode)
        while True:
            pfn = self.rmqueue_smallest(order, letter)
            if pfn is None and cma:
                pfn = self.rmqueue_smallest(order, "C")
            if pfn is not None:
                return pfn
            if self.fallback_rule != "linux":
                pfn = self.rmqueue_own_rule(order, letter, alloc_flags)
                if pfn is None and self.features.reserve_is_last_resort:
                    pfn = self.rmqueue_smallest(order, "X")
                return pfn
            if self.features.fallback_takes_largest_at_once:
                return self.rmqueue_fallback_largest(order, letter, alloc_flags)
            if not self.rmqueue_fallback(order, letter, alloc_flags):
                return None

    def _rmqueue_by_mode(
        self, order: int, letter: str, alloc_flags: int, mode: RmqueueMode
    ) -> int | None:
        pfn = None
        if mode.value <= RMQUEUE_NORMAL:
            pfn = self.rmqueue_smallest(order, letter)
            if pfn is not None:
                return pfn
        if mode.value <= RMQUEUE_CMA and self.features.cma and alloc_flags & ALLOC_CMA:
            pfn = self.rmqueue_smallest(order, "C")
            if pfn is not None:
                mode.value = RMQUEUE_CMA
                return pfn
        if self.fallback_rule != "linux":
            pfn = self.rmqueue_own_rule(order, letter, alloc_flags)
            if pfn is not None:
                mode.value = RMQUEUE_NORMAL
            return pfn
        if mode.value <= RMQUEUE_CLAIM:
            pfn = self.rmqueue_claim(order, letter, alloc_flags)
            if pfn is not None:
                mode.value = RMQUEUE_NORMAL  # our lists are filled again
                return pfn
        if not alloc_flags & ALLOC_NOFRAGMENT:
            pfn = self.rmqueue_steal(order, letter)
            if pfn is not None:
                mode.value = RMQUEUE_STEAL
        return pfn

    def rmqueue_bulk(self, order: int, count: int, letter: str, alloc_flags: int) -> list[int]:
        """Fetch up to `count` chunks for a per-CPU list, in the order they were found."""
        mode = RmqueueMode()
        found: list[int] = []
        uncounted = 0
        for _ in range(count):
            pfn = self.rmqueue_one(order, letter, alloc_flags, mode)
            if pfn is None:
                break
            found.append(pfn)
            if self.features.refill_counted_at_end:
                uncounted += 1 << order
                if self.pcppage_migratetype[pfn] == "C":
                    self.nr_free_cma_pages -= 1 << order
            else:
                self.mod_freepage_state(-(1 << order), self.pcppage_migratetype[pfn])
        self.nr_free_pages -= uncounted
        return found

    def rmqueue_buddy(self, order: int, letter: str, alloc_flags: int) -> int | None:
        """Take one chunk directly from the buddy lists."""
        pfn = None
        if order > 0 and self.features.highatomic and alloc_flags & ALLOC_HIGHATOMIC:
            pfn = self.rmqueue_smallest(order, "H")
        if pfn is None:
            pfn = self.rmqueue_one(order, letter, alloc_flags, RmqueueMode())
            last_resort = alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK)
            if pfn is None and self.features.highatomic and last_resort:
                pfn = self.rmqueue_smallest(order, "H")
        if pfn is not None:
            self.mod_freepage_state(-(1 << order), self.pcppage_migratetype[pfn])
        return pfn

    # ---- HIGHATOMIC ------------------------------------------------------------------------------

    def reserve_highatomic_pageblock(self, pfn: int, order: int) -> None:
        if self.no_highatomic:
            return
        limit = self.managed // 100 + self.pageblock_nr_pages
        if self.features.list_type_is_block_type:  # rounded up to blocks; small zones have none
            if self.managed // 100 < self.pageblock_nr_pages:
                return
            limit = -(-(self.managed // 100) // self.pageblock_nr_pages) * self.pageblock_nr_pages
        if self.nr_reserved_highatomic >= limit:
            return
        if self.get_pageblock_migratetype(pfn) not in FALLBACKS:
            return
        if self.features.list_type_is_block_type:
            if order >= self.pageblock_order:  # every block of the chunk
                self.change_pageblock_range(pfn, order, "H")
                self.nr_reserved_highatomic += 1 << order
                return
            if self.block_walk_range(pfn) is None:
                return
        self.nr_reserved_highatomic += self.pageblock_nr_pages
        self.set_pageblock_migratetype(pfn, "H")
        self.move_freepages_block(pfn, "H")

    def unreserve_highatomic_pageblock(self, letter: str, *, force: bool) -> bool:
        """Give one H block to the requester's type; True if that moved a free chunk."""
        if not force and self.nr_reserved_highatomic <= self.pageblock_nr_pages:
            return False
        for order in range(self.max_order + 1):
            if not self.free_list[order]["H"]:
                continue
            pfn = self.free_list[order]["H"][0]
            if self.features.list_type_is_block_type and order >= self.pageblock_order:
                self.nr_reserved_highatomic -= min(1 << order, self.nr_reserved_highatomic)
                self.change_pageblock_range(pfn, order, letter)
                self.move_to_free_list(pfn, letter)
                return True
            if self.get_pageblock_migratetype(pfn) == "H":
                self.nr_reserved_highatomic -= min(
                    self.pageblock_nr_pages, self.nr_reserved_highatomic
                )
            self.set_pageblock_migratetype(pfn, letter)
            if self.move_freepages_block(pfn, letter):
                return True
        return False

    # ---- watermarks ------------------------------------------------------------------------------

    def wmark_pages(self, level: int) -> int:
        return self.wmark[level] + self.watermark_boost

    def zone_watermark_unusable_free(self, order: int, alloc_flags: int) -> int:
        unusable = (1 << order) - 1
        if not alloc_flags & ALLOC_RESERVES:
            if self.features.reserved_means_free_highatomic:
                unusable += sum(
                    len(lists["H"]) << o for o, lists in enumerate(self.free_list)
                )  # fmt: skip
            else:
                unusable += self.nr_reserved_highatomic
        if self.features.cma and not alloc_flags & ALLOC_CMA:
            unusable += self.nr_free_cma_pages
        return unusable

    def zone_watermark_ok(
        self, order: int, mark: int, highest_zoneidx: int, alloc_flags: int
    ) -> bool:
        if self.features.watermark_halves_per_order:
            return self._zone_watermark_ok_halving(order, mark, highest_zoneidx, alloc_flags)
        free = self.nr_free_pages - self.zone_watermark_unusable_free(order, alloc_flags)
        if alloc_flags & ALLOC_MIN_RESERVE:
            mark -= mark // 2
            if alloc_flags & ALLOC_NON_BLOCK:
                mark -= mark // 4
        if alloc_flags & ALLOC_OOM:
            mark -= mark // 2
        if free <= mark + self.lowmem_reserve[highest_zoneidx]:
            return False
        if order == 0:
            return True
        usable = "UMR"
        if self.features.cma and alloc_flags & ALLOC_CMA:
            usable += "C"
        if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
            usable += "H"
        return any(
            self.free_list[o][letter]
            for o in range(order, self.max_order + 1)
            for letter in usable
        )  # fmt: skip

    def _zone_watermark_ok_halving(
        self, order: int, mark: int, classzone: int, alloc_flags: int
    ) -> bool:
        free = self.nr_free_pages - (1 << order) + 1
        if alloc_flags & ALLOC_MIN_RESERVE:
            mark -= mark // 2
        if alloc_flags & ALLOC_NON_BLOCK:
            mark -= mark // 4
        if free <= mark + self.lowmem_reserve[classzone]:
            return False
        for o in range(order):
            free -= self.nr_free[o] << o  # too small for this request
            mark >>= 1
            if free <= mark:
                return False
        return True

    def zone_watermark_fast(
        self, order: int, mark: int, highest_zoneidx: int, alloc_flags: int, gfp: int
    ) -> bool:
        """Test as the walk over the zones does (`mark` contains the boost)."""
        if self.features.watermark_halves_per_order:
            return self.zone_watermark_ok(order, mark, highest_zoneidx, alloc_flags)
        if order == 0:
            free = self.nr_free_pages
            usable = free - min(free, self.zone_watermark_unusable_free(0, alloc_flags))
            if usable > mark + self.lowmem_reserve[highest_zoneidx]:
                return True
        if self.zone_watermark_ok(order, mark, highest_zoneidx, alloc_flags):
            return True
        bits: GfpBits = self.features.gfp
        excepted = gfp & bits.ATOMIC
        if self.features.boost_exception_needs_min_reserve:
            excepted = alloc_flags & ALLOC_MIN_RESERVE
        level = alloc_flags & ALLOC_WMARK_MASK
        if order == 0 and excepted and self.watermark_boost and level == ALLOC_WMARK_MIN:
            unboosted = self.wmark[ALLOC_WMARK_MIN]
            return self.zone_watermark_ok(order, unboosted, highest_zoneidx, alloc_flags)
        return False

    def high_watermark_ok_for_clearing(self) -> bool:
        """Test after a drain whether the zone is no longer below its HIGH mark (6.7)."""
        return self.zone_watermark_ok(0, self.wmark_pages(ALLOC_WMARK_HIGH), self.movable_index, 0)
