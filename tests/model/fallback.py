# SPDX-License-Identifier: GPL-2.0-or-later
"""Fallback: what a request does when the free lists of its own migratetype are empty.

Three generations: 2.6.24 takes the largest chunk at once; 6.1 moves chunks to the requester's
lists and lets smallest fit try again; 6.12 claims a whole block or steals one chunk.
"""

from .features import ALLOC_KSWAPD, ALLOC_NOFRAGMENT, FALLBACKS, Features
from .free_area import Event, FreeArea, ZoneSpec


class Fallback(FreeArea):
    """Free lists, and the ways to move memory between migratetypes."""

    fallback_rule = "linux"  # or none, confined

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
        self.wmark = list(spec.wmark)
        self.watermark_boost = spec.boost
        self.watermark_boost_factor = 15000
        self.boosted_watermark = False  # flag bit of the zone: kswapd is to be woken

    # ---- fallback: which chunk -------------------------------------------------------------------

    def can_steal_fallback(self, order: int, start_type: str) -> bool:
        """Tell whether a request of this type may try to take the whole block of such a chunk."""
        return (
            order >= self.pageblock_order // 2
            or start_type in "UR"
            or self.page_group_by_mobility_disabled
        )

    def find_suitable_fallback(self, order: int, start_type: str) -> str | None:
        """Return the first donor type, in the order of the table, with a chunk of this order."""
        for donor in FALLBACKS[start_type]:
            if self.free_list[order][donor]:
                return donor
        return None

    def trace_extfrag(self, pfn: int, order: int, current: int, start: str, donor: str) -> None:
        number = self.features.number
        own = self.get_pageblock_migratetype(pfn) == start
        self.trace("xf", pfn, order, current, number(start), number(donor), int(own))

    def lowest_fallback_order(self, order: int, alloc_flags: int) -> int:
        if order < self.pageblock_order and alloc_flags & ALLOC_NOFRAGMENT:
            return self.pageblock_order
        return order

    # ---- fallback of 6.1: move to the requester's lists, then let smallest fit try again ---------

    def rmqueue_fallback(self, order: int, start_type: str, alloc_flags: int) -> bool:
        lowest = self.lowest_fallback_order(order, alloc_flags)
        for current in range(self.max_order, lowest - 1, -1):  # the largest chunk does least harm
            donor = self.find_suitable_fallback(current, start_type)
            if donor is None:
                continue
            can_steal = self.can_steal_fallback(current, start_type)
            if not can_steal and start_type == "M" and current > order:
                break  # no block to be had: then rather the smallest chunk
            self._steal(order, current, start_type, donor, alloc_flags)
            return True
        else:
            return False
        for current in range(order, self.max_order + 1):
            donor = self.find_suitable_fallback(current, start_type)
            if donor is not None:
                self._steal(order, current, start_type, donor, alloc_flags)
                return True
        raise AssertionError("the chunk seen a moment ago is gone")

    def _steal(self, order: int, current: int, start: str, donor: str, alloc_flags: int) -> None:
        pfn = self.free_list[current][donor][0]
        self.steal_suitable_fallback(
            pfn, start, alloc_flags, whole_block=self.can_steal_fallback(current, start)
        )
        self.trace_extfrag(pfn, order, current, start, donor)

    def steal_suitable_fallback(
        self, pfn: int, start_type: str, alloc_flags: int, *, whole_block: bool
    ) -> None:
        current_order = self.buddy[pfn][0]
        old_block_type = self.get_pageblock_migratetype(pfn)
        if old_block_type == "H":
            self.move_to_free_list(pfn, start_type)
            return
        if current_order >= self.pageblock_order:
            self.change_pageblock_range(pfn, current_order, start_type)
            self.move_to_free_list(pfn, start_type)
            return
        self.boost_watermark(alloc_flags)
        counts = self.count_block(pfn) if whole_block else None
        if counts is None or counts[0] == 0:
            self.move_to_free_list(pfn, start_type)
            return
        self.move_freepages_block(pfn, start_type)
        self._claim_if_mostly_ours(pfn, start_type, old_block_type, counts)

    def _claim_if_mostly_ours(
        self, pfn: int, start_type: str, old_type: str, counts: tuple[int, int]
    ) -> bool:
        """Give the block to the requester if at least half is free or of its own kind."""
        free, movable = counts
        alike = 0
        if start_type == "M":
            alike = movable
        elif old_type == "M":
            alike = self.pageblock_nr_pages - (free + movable)
        enough = free + alike >= self.pageblock_nr_pages // 2
        if enough or self.page_group_by_mobility_disabled:
            self.set_pageblock_migratetype(pfn, start_type)
            return True
        return False

    def boost_watermark(self, alloc_flags: int) -> None:
        """Raise the watermarks for a while, so that kswapd makes room for whole blocks."""
        high, factor = self.wmark[2], self.watermark_boost_factor
        if factor == 0 or 4 * self.pageblock_nr_pages > self.managed:
            return
        max_boost = high // 10000 * factor + high % 10000 * factor // 10000
        if max_boost == 0:
            return
        max_boost = max(max_boost, self.pageblock_nr_pages)
        self.watermark_boost = min(self.watermark_boost + self.pageblock_nr_pages, max_boost)
        if alloc_flags & ALLOC_KSWAPD:
            self.boosted_watermark = True

    # ---- rules of nobody's kernel ----------------------------------------------------------------

    def rmqueue_own_rule(self, order: int, letter: str, alloc_flags: int) -> int | None:
        """Take a chunk of another type where `fallback_rule` allows it: the rest stays there."""
        if self.fallback_rule == "none" or (letter == "M" and alloc_flags & ALLOC_NOFRAGMENT):
            return None
        donors = {"M": FALLBACKS["M"], "U": "R", "R": "U"}[letter]
        orders = list(range(order, self.max_order + 1))
        if letter != "M":  # a whole block rather than a part of one
            whole = [o for o in orders if o >= self.pageblock_order]
            orders = whole[::-1] + [o for o in orders if o < self.pageblock_order]
        for current in orders:
            for donor in donors:
                if not self.free_list[current][donor]:
                    continue
                pfn = self.free_list[current][donor][0]
                self.del_page_from_free_list(pfn)
                taken = letter != "M" and current >= self.pageblock_order
                if taken:
                    self.change_pageblock_range(pfn, current, letter)
                self.expand(pfn, order, current, letter if taken else donor)
                self.pcppage_migratetype[pfn] = letter
                self.trace_extfrag(pfn, order, current, letter, donor)
                return pfn
        return None

    # ---- fallback of 2.6.24: the largest chunk, at once ------------------------------------------

    def rmqueue_fallback_largest(
        self, order: int, start_type: str, alloc_flags: int = 0
    ) -> int | None:
        lowest = self.lowest_fallback_order(order, alloc_flags)
        for current in range(self.max_order, lowest - 1, -1):
            donor = self.find_suitable_fallback(current, start_type)
            if donor is None:
                continue
            pfn = self.free_list[current][donor][0]
            letter = donor  # the list type of the remainders
            if current >= self.pageblock_order // 2 or start_type == "R":
                moved = self.move_freepages_block(pfn, start_type)
                if moved >= self.pageblock_nr_pages // 2:
                    self.set_pageblock_migratetype(pfn, start_type)
                letter = start_type
            self.del_page_from_free_list(pfn)
            if current == self.pageblock_order:
                self.set_pageblock_migratetype(pfn, start_type)
            self.expand(pfn, order, current, letter)
            self.trace_extfrag(pfn, order, current, start_type, donor)
            return pfn
        return self.rmqueue_smallest(order, "X")

    def setup_zone_migrate_reserve(self, pages_min: int, reserved: frozenset[int]) -> None:
        """Keep the lowest suitable blocks as MIGRATE_RESERVE (2.6.24); `reserved`: boot frames."""
        want = -(-pages_min // self.pageblock_nr_pages)
        for pfn in range(self.start, self.end, self.pageblock_nr_pages):
            if pfn in reserved or self.pageblock[self.pageblock_start(pfn)] is None:
                continue
            letter = self.get_pageblock_migratetype(pfn)
            if want > 0 and letter == "X":
                want -= 1
            elif want > 0 and letter == "M":
                self.set_pageblock_migratetype(pfn, "X")
                self.move_freepages_block(pfn, "X")
                want -= 1
            elif letter == "X":
                self.set_pageblock_migratetype(pfn, "M")
                self.move_freepages_block(pfn, "M")

    # ---- fallback of 6.12: claim a block, else steal one chunk -----------------------------------

    def rmqueue_claim(self, order: int, start_type: str, alloc_flags: int) -> int | None:
        lowest = self.lowest_fallback_order(order, alloc_flags)
        for current in range(self.max_order, lowest - 1, -1):
            donor = self.find_suitable_fallback(current, start_type)
            if donor is None:
                continue
            if not self.can_steal_fallback(current, start_type):
                break
            head = self.free_list[current][donor][0]
            pfn = self.try_to_claim_block(head, current, order, start_type, alloc_flags)
            if pfn is not None:
                self.trace_extfrag(pfn, order, current, start_type, donor)
                return pfn
        return None

    def try_to_claim_block(
        self, pfn: int, current: int, order: int, start_type: str, alloc_flags: int
    ) -> int | None:
        block_type = self.get_pageblock_migratetype(pfn)
        if block_type == "H":
            return None
        if current >= self.pageblock_order:
            self.del_page_from_free_list(pfn)
            self.change_pageblock_range(pfn, current, start_type)
            self.expand(pfn, order, current, start_type)
            return pfn
        self.boost_watermark(alloc_flags)
        counts = self.count_block(pfn)
        if counts is None or not self._claim_if_mostly_ours(pfn, start_type, block_type, counts):
            return None
        self.move_freepages_block(pfn, start_type)
        return self.rmqueue_smallest(order, start_type)

    def rmqueue_steal(self, order: int, start_type: str) -> int | None:
        for current in range(order, self.max_order + 1):
            donor = self.find_suitable_fallback(current, start_type)
            if donor is not None:
                pfn = self.free_list[current][donor][0]
                self.del_page_from_free_list(pfn)
                self.expand(pfn, order, current, donor)
                self.trace_extfrag(pfn, order, current, start_type, donor)
                return pfn
        return None
