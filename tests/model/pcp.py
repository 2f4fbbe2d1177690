# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU lists of one zone and one CPU, in three generations.

6.1: a list per (order, type), `free_factor`. 6.12: the same lists, `high` tunes itself.
2.6.24: one hot and one cold list, order 0 only, all types mixed.
`count` is in frames, the length of a list in chunks.
"""

from .features import (
    ALLOC_COLD,
    ALLOC_NOFRAGMENT,
    FALLBACKS,
    PAGE_ALLOC_COSTLY_ORDER,
    PCP_BATCH_SCALE_MAX,
)
from .free_area import ZoneSpec
from .zone import Zone

NR_LOWORDER_PCP_LISTS = 12
NR_PCP_LISTS = 14


def clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


class PerCpuPages:
    """Per-CPU lists of 6.1."""

    def __init__(self, zone: Zone, cpu: int, spec: ZoneSpec) -> None:
        self.zone, self.cpu = zone, cpu
        self.batch, self.high = spec.batch, spec.high
        self.count = 0
        self.free_factor = 0
        self.lists: list[list[int]] = [[] for _ in range(NR_PCP_LISTS)]

    # ---- which list ------------------------------------------------------------------------------

    def order_to_pindex(self, letter: str, order: int) -> int:
        if order > PAGE_ALLOC_COSTLY_ORDER:
            return NR_LOWORDER_PCP_LISTS + (letter == "M")
        return 3 * order + self.zone.features.number(letter)

    def pindex_to_order(self, pindex: int) -> int:
        return self.zone.pageblock_order if pindex >= NR_LOWORDER_PCP_LISTS else pindex // 3

    # ---- allocate --------------------------------------------------------------------------------

    def rmqueue_pcplist(self, order: int, letter: str, alloc_flags: int) -> int | None:
        self.free_factor >>= 1
        return self.rmqueue_pcplist_locked(order, letter, alloc_flags)

    def rmqueue_pcplist_locked(self, order: int, letter: str, alloc_flags: int) -> int | None:
        """Take the head of the list, after a refill if it is empty (__rmqueue_pcplist)."""
        pages = self.lists[self.order_to_pindex(letter, order)]
        if not pages:
            batch = self.nr_pcp_alloc(order)
            found = self.zone.rmqueue_bulk(order, batch, letter, alloc_flags)
            pages.extend(found)
            self.count += len(found) << order
            if not pages:
                return None
        self.count -= 1 << order
        return pages.pop(0)

    def nr_pcp_alloc(self, order: int) -> int:
        """Return how many chunks a refill asks for."""
        return max(self.batch >> order, 2) if self.batch > 1 else self.batch

    # ---- free ------------------------------------------------------------------------------------

    def free_unref_page_commit(self, pfn: int, order: int, list_letter: str) -> None:
        """Put a prepared chunk at the head of its list; give some back if there are too many."""
        pindex = self.order_to_pindex(list_letter, order)
        self.lists[pindex].insert(0, pfn)
        self.count += 1 << order
        free_high = self.free_factor > 0 and 1 <= order <= PAGE_ALLOC_COSTLY_ORDER
        limit = self.nr_pcp_high(free_high=free_high)
        if self.count >= limit:
            self.free_pcppages_bulk(self.nr_pcp_free(limit, free_high=free_high), pindex)

    def nr_pcp_high(self, *, free_high: bool) -> int:
        if self.high == 0 or free_high:
            return 0
        if self.zone.reclaim_active:
            return min(4 * self.batch, self.high)
        return self.high

    def nr_pcp_free(self, limit: int, *, free_high: bool) -> int:
        """Return how many frames to give back; the more, the longer nothing was allocated."""
        if free_high:
            return self.count
        if limit < self.batch:
            return 1
        low, high = self.batch, limit - self.batch
        wanted = self.batch << self.free_factor
        if wanted < high and self.free_factor < PCP_BATCH_SCALE_MAX:
            self.free_factor += 1
        return clamp(wanted, low, high)

    # ---- give back -------------------------------------------------------------------------------

    def free_pcppages_bulk(self, count: int, pindex: int) -> None:
        """Give back at least `count` frames: the oldest of list `pindex`, then of the next lists.

        The last chunk may go beyond `count`.
        """
        count = min(count, self.count)
        while count > 0:
            while not self.lists[pindex]:
                pindex = (pindex + 1) % NR_PCP_LISTS
            order = self.pindex_to_order(pindex)
            while count > 0 and self.lists[pindex]:
                pfn = self.lists[pindex].pop()
                count -= 1 << order
                self.count -= 1 << order
                letter = self.remembered(pfn)
                if self.zone.fallback_rule == "confined":  # the border stays where it is
                    letter = self.zone.get_pageblock_migratetype(pfn)
                used = self.zone.free_one_page(pfn, order, letter)
                self.zone.trace("dr", pfn, order, self.zone.features.number(used))

    def remembered(self, pfn: int) -> str:
        """Type kept in the struct page since the chunk was freed or put here by a refill."""
        return self.zone.pcppage_migratetype[pfn]

    def drain_zone_pages(self) -> None:
        """Give back one batch (the slow tick of remote nodes)."""
        self.free_pcppages_bulk(min(self.count, self.batch), 0)

    def drain_pages_zone(self) -> None:
        """Give back everything, in portions (the order is that of one go)."""
        while self.count:
            self.free_pcppages_bulk(min(self.count, self.batch << PCP_BATCH_SCALE_MAX), 0)

    # ---- for states and checks -------------------------------------------------------------------

    def chunks(self) -> list[tuple[int, int]]:
        """List (pfn, order) of everything here."""
        return [
            (pfn, self.pindex_to_order(pindex))
            for pindex, pages in enumerate(self.lists)
            for pfn in pages
        ]


class PerCpuPagesAuto(PerCpuPages):
    """Per-CPU lists of 6.12: `high` moves between two bounds, refills double."""

    def __init__(self, zone: Zone, cpu: int, spec: ZoneSpec) -> None:
        super().__init__(zone, cpu, spec)
        self.high_min = spec.high
        self.high_max = spec.high if spec.high_max is None else spec.high_max
        self.high = 0
        self.alloc_factor = 0
        self.free_count = 0
        self.prev_free_high_order = False
        self.free_high_batch = False

    def rmqueue_pcplist(self, order: int, letter: str, alloc_flags: int) -> int | None:
        self.free_count >>= 1
        return self.rmqueue_pcplist_locked(order, letter, alloc_flags)

    def nr_pcp_alloc(self, order: int) -> int:
        self.high = clamp(self.high, self.high_min, self.high_max)
        if self.high < self.batch:
            return 1
        batch = self.batch if order else self.batch << self.alloc_factor
        if self.high_min != self.high_max and not self.zone.below_high:
            self.high = min(self.high + batch, self.high_max)
        if order == 0:
            room = max(self.high - self.count - self.batch, self.batch)
            if batch <= room and self.alloc_factor < PCP_BATCH_SCALE_MAX:
                self.alloc_factor += 1
            batch = min(batch, room)
        return max(batch >> order, 2) if batch > 1 else batch

    def free_unref_page_commit(self, pfn: int, order: int, list_letter: str) -> None:
        self.alloc_factor >>= 1
        pindex = self.order_to_pindex(list_letter, order)
        self.lists[pindex].insert(0, pfn)
        self.count += 1 << order
        free_high = False
        if 1 <= order <= PAGE_ALLOC_COSTLY_ORDER:
            free_high = (
                self.free_count >= self.batch
                and self.prev_free_high_order
                and (not self.free_high_batch or self.count >= self.batch)
            )
            self.prev_free_high_order = True
        else:
            self.prev_free_high_order = False
        if self.free_count < self.batch << PCP_BATCH_SCALE_MAX:
            self.free_count += 1 << order
        limit = self.nr_pcp_high(free_high=free_high)
        if self.count >= limit:
            self.free_pcppages_bulk(self.nr_pcp_free(limit, free_high=free_high), pindex)
            if self.zone.below_high and self.zone.high_watermark_ok_for_clearing():
                self.zone.below_high = False

    def nr_pcp_high(self, *, free_high: bool) -> int:
        self.high = high = clamp(self.high, self.high_min, self.high_max)
        if high == 0:
            return 0
        if free_high:
            self.high = max(high - (self.batch << PCP_BATCH_SCALE_MAX), self.high_min)
            return 0
        lowered = max(high - max(self.free_count, self.batch), self.high_min)
        if self.zone.reclaim_active:
            self.high = lowered
            return min(4 * self.batch, self.high)
        if self.high_min == self.high_max:
            return high
        if self.zone.below_high:
            self.high = lowered
            return max(self.count, self.high_min)
        need = self.free_count + self.batch
        if self.count >= high and high < need:
            self.high = clamp(need, self.high_min, self.high_max)
        return high

    def nr_pcp_free(self, limit: int, *, free_high: bool) -> int:
        if free_high:
            return min(self.count, self.batch << PCP_BATCH_SCALE_MAX)
        if limit < self.batch:
            return 1
        return clamp(self.free_count, self.batch, limit - self.batch)

    def decay_pcp_high(self) -> None:
        """Lower `high` once a second and give back what is above it."""
        if self.high > self.high_min:
            lowest = max(self.high_min, self.count - (self.batch << PCP_BATCH_SCALE_MAX))
            self.high = max(lowest, self.high - (self.high >> 3))
        to_drain = self.count - self.high
        while to_drain > 0:  # batch by batch: each may go beyond its portion by a part of a chunk
            self.free_pcppages_bulk(min(to_drain, self.batch), 0)
            to_drain -= self.batch


class PerCpuPagesHotCold(PerCpuPages):
    """Per-CPU lists of 2.6.24: lists[0] hot, lists[1] cold; each page carries a type."""

    def __init__(self, zone: Zone, cpu: int, spec: ZoneSpec) -> None:
        super().__init__(zone, cpu, spec)
        self.lists = [[], []]
        self.batches = [spec.batch, spec.cold_batch]
        self.highs = [spec.high, spec.cold_high]
        self.private: dict[int, str] = {}

    def pindex_to_order(self, pindex: int) -> int:
        del pindex
        return 0

    def refill(self, cold: int, letter: str, alloc_flags: int) -> bool:
        """Put a batch in front of the list, in the order found, marked with the type wanted."""
        flags = alloc_flags & ALLOC_NOFRAGMENT  # no flag of this kernel: defrag only
        found = self.zone.rmqueue_bulk(0, self.batches[cold], letter, flags)
        self.lists[cold][:0] = found
        self.private.update(dict.fromkeys(found, letter))
        self.count += len(found)
        return bool(found)

    def rmqueue_pcplist_locked(self, order: int, letter: str, alloc_flags: int) -> int | None:
        assert order == 0
        cold = int(bool(alloc_flags & ALLOC_COLD))
        pages = self.lists[cold]
        if not pages and not self.refill(cold, letter, alloc_flags):
            return None
        place = next((i for i, pfn in enumerate(pages) if self.private[pfn] == letter), None)
        if place is None:
            # When this refill finds nothing, the head is an old page of the wrong type: so be it.
            self.refill(cold, letter, alloc_flags)
            place = 0
        self.count -= 1
        return pages.pop(place)

    def free_unref_page_commit(self, pfn: int, order: int, list_letter: str, cold: int = 0) -> None:
        assert order == 0
        del list_letter
        self.private[pfn] = self.zone.get_pageblock_migratetype(pfn)
        self.zone.pcppage_migratetype[pfn] = self.private[pfn]
        self.lists[cold].insert(0, pfn)
        self.count += 1
        if len(self.lists[cold]) >= self.highs[cold]:
            self._give_back(cold, self.batches[cold])

    def _give_back(self, cold: int, count: int) -> None:
        for _ in range(min(count, len(self.lists[cold]))):
            pfn = self.lists[cold].pop()
            self.count -= 1
            used = self.zone.free_one_page(pfn, 0, self.private[pfn])  # reads the block's type anew
            self.zone.trace("dr", pfn, 0, self.zone.features.number(used))

    def drain_zone_pages(self) -> None:
        for cold in (0, 1):
            self._give_back(cold, self.batches[cold])

    def drain_pages_zone(self) -> None:
        for cold in (0, 1):
            self._give_back(cold, len(self.lists[cold]))


def pcp_list_letter(block_letter: str) -> str:
    """Return the list a freed chunk goes to: H and C have none of their own."""
    return block_letter if block_letter in FALLBACKS else "M"
