# SPDX-License-Identifier: GPL-2.0-or-later
"""The free lists of one zone: split, merge, pageblock types, moving blocks, isolation.

Lists are written head first. Nothing here is fast; everything is looked up afresh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .features import FALLBACKS, PAGE_ALLOC_COSTLY_ORDER, Features

Event = tuple[object, ...]


@dataclass
class ZoneSpec:
    """What a zone is before any memory is in it. Sizes and frame numbers in frames."""

    node: int
    name: str
    start: int
    spanned: int
    managed: int | None = None
    present: int | None = None
    wmark: Sequence[int] = (0, 0, 0, 0)  # min, low, high, promo
    lowmem_reserve: Sequence[int] = (0, 0, 0, 0, 0)
    boost: int = 0
    highatomic: int = 0
    batch: int = 1
    high: int = 0  # with auto-tuning: the lower bound
    high_max: int | None = None  # with auto-tuning: the upper bound
    cold_batch: int = 1  # 2.6.24
    cold_high: int = 0  # 2.6.24


class FreeArea:
    """Free lists and pageblock types of one zone."""

    list_order = "linux"  # or lifo, fifo, address

    def __init__(
        self,
        spec: ZoneSpec,
        features: Features,
        pageblock_order: int,
        max_order: int,
        events: list[Event],
        movable: set[int],
    ) -> None:
        self.features = features
        self.node, self.name = spec.node, spec.name
        self.start, self.spanned = spec.start, spec.spanned
        self.end = spec.start + spec.spanned
        self.managed = spec.spanned if spec.managed is None else spec.managed
        self.present = spec.spanned if spec.present is None else spec.present
        self.pageblock_order, self.max_order = pageblock_order, max_order
        self.events = events
        self.movable = movable  # frames of movable requests now in use: stands for "is on an LRU"

        # free_list[order][letter] = heads of the free chunks, head of the list first.
        self.free_list: list[dict[str, list[int]]] = [
            {letter: [] for letter in features.letters} for _ in range(max_order + 1)
        ]
        self.nr_free = [0] * (max_order + 1)
        # The same chunks by head frame: (order, letter of the list it is on).
        self.buddy: dict[int, tuple[int, str]] = {}
        # Head frame of a chunk that left the lists -> type remembered in its struct page.
        self.pcppage_migratetype: dict[int, str] = {}
        # Aligned first frame of a block -> its letter; None where there is no memory at all.
        size = 1 << pageblock_order
        blocks = range(self.start // size * size, self.end, size)
        self.pageblock: dict[int, str | None] = dict.fromkeys(blocks, "M")
        self.nr_free_pages = 0
        self.nr_free_cma_pages = 0
        self.has_had_special_blocks = False
        self.page_group_by_mobility_disabled = False

    # ---- pageblocks ------------------------------------------------------------------------------

    @property
    def pageblock_nr_pages(self) -> int:
        return 1 << self.pageblock_order

    def pageblock_start(self, pfn: int) -> int:
        return pfn // self.pageblock_nr_pages * self.pageblock_nr_pages

    def get_pageblock_migratetype(self, pfn: int) -> str:
        letter = self.pageblock[self.pageblock_start(pfn)]
        assert letter is not None, f"frame {pfn} lies in a block without memory"
        return letter

    def set_pageblock_migratetype(self, pfn: int, letter: str) -> None:
        if self.page_group_by_mobility_disabled and (letter in FALLBACKS or letter == "X"):
            letter = "U"
        self.has_had_special_blocks |= letter not in FALLBACKS
        self.pageblock[self.pageblock_start(pfn)] = letter

    def change_pageblock_range(self, pfn: int, order: int, letter: str) -> None:
        """Set every block that a chunk of at least pageblock order covers."""
        for block in range(pfn, pfn + (1 << order), self.pageblock_nr_pages):
            self.set_pageblock_migratetype(block, letter)

    @property
    def nr_isolate_pageblock(self) -> int:
        return sum(letter == "I" for letter in self.pageblock.values())

    # ---- lists -----------------------------------------------------------------------------------

    def zone_spans_pfn(self, pfn: int) -> bool:
        return self.start <= pfn < self.end

    def add_to_free_list(self, pfn: int, order: int, letter: str, *, tail: bool = False) -> None:
        chunks = self.free_list[order][letter]
        if self.list_order in ("lifo", "fifo"):
            tail = self.list_order == "fifo"
        chunks.insert(len(chunks) if tail else 0, pfn)
        if self.list_order == "address":
            chunks.sort()
        self.nr_free[order] += 1
        self.buddy[pfn] = (order, letter)

    def del_page_from_free_list(self, pfn: int) -> tuple[int, str]:
        order, letter = self.buddy.pop(pfn)
        self.free_list[order][letter].remove(pfn)
        self.nr_free[order] -= 1
        return order, letter

    def move_to_free_list(self, pfn: int, letter: str) -> None:
        order, _ = self.del_page_from_free_list(pfn)
        self.add_to_free_list(pfn, order, letter, tail=self.features.moved_chunks_go_to_tail)

    def mod_freepage_state(self, frames: int, letter: str) -> None:
        """Count frames in or out; 2.6.24 counts isolated frames as free, later kernels do not."""
        if letter == "I" and not self.features.isolated_counts_as_free:
            return
        self.nr_free_pages += frames
        if letter == "C":
            self.nr_free_cma_pages += frames

    # ---- split -----------------------------------------------------------------------------------

    def expand(self, pfn: int, low: int, high: int, letter: str) -> None:
        """Cut an unlisted chunk of order `high` down to `low`; the upper halves become free.

        The chunk that is left remembers the list it came from.
        """
        while high > low:
            high -= 1
            self.add_to_free_list(pfn + (1 << high), high, letter)
        self.pcppage_migratetype[pfn] = letter

    def rmqueue_smallest(self, order: int, letter: str) -> int | None:
        """Take the head of the smallest list that has a chunk; split it. Counters: the caller."""
        for current_order in range(order, self.max_order + 1):
            if self.free_list[current_order][letter]:
                pfn = self.free_list[current_order][letter][0]
                self.del_page_from_free_list(pfn)
                self.expand(pfn, order, current_order, letter)
                self.trace_zone_locked(pfn, order, letter)
                return pfn
        return None

    def pcp_allowed_order(self, order: int) -> bool:
        if self.features.pcp_one_list_of_mixed_types:
            return order == 0
        if order <= PAGE_ALLOC_COSTLY_ORDER:
            return True
        return self.features.pcp_thp and order == self.pageblock_order

    def trace(self, *event: object) -> None:
        if self.features.tracepoints:
            self.events.append(event)

    def trace_zone_locked(self, pfn: int, order: int, letter: str) -> None:
        refill = self.pcp_allowed_order(order) and letter in FALLBACKS
        self.trace("zl", pfn, order, self.features.number(letter), int(refill))

    # ---- merge -----------------------------------------------------------------------------------

    def page_is_buddy(self, pfn: int, order: int) -> bool:
        """Tell whether a free chunk of exactly this order starts here, in this zone."""
        return pfn in self.buddy and self.buddy[pfn][0] == order

    def buddy_merge_likely(self, pfn: int, order: int) -> bool:
        """Tell whether only our own buddy is missing for two merges in a row.

        `pair` is the chunk that we and our buddy would make; is the buddy of that pair free?
        """
        if order >= self.max_order - 1:
            return False
        pair = pfn & ~(1 << order)
        return self.page_is_buddy(pair ^ (1 << (order + 1)), order + 1)

    def _free_one_page(self, pfn: int, order: int, letter: str, *, to_tail: bool = False) -> None:
        """Merge with free buddies as far as possible and list the result (__free_one_page)."""
        self.pcppage_migratetype.pop(pfn, None)
        self.mod_freepage_state(1 << order, letter)
        while order < self.max_order:
            buddy = pfn ^ (1 << order)
            if not self.page_is_buddy(buddy, order):
                break
            if order >= self.pageblock_order and self.features.special_blocks_do_not_merge:
                buddy_letter = self.get_pageblock_migratetype(buddy)
                both_ordinary = letter in FALLBACKS and buddy_letter in FALLBACKS
                if letter != buddy_letter and not both_ordinary:
                    break
            self.del_page_from_free_list(buddy)
            if order >= self.pageblock_order and self.features.list_type_is_block_type:
                self.change_pageblock_range(buddy, order, letter)
            pfn &= ~(1 << order)
            order += 1
        likely = self.features.merge_likely_goes_to_tail and self.buddy_merge_likely(pfn, order)
        self.add_to_free_list(pfn, order, letter, tail=to_tail or likely)

    def free_one_page(self, pfn: int, order: int, letter: str, *, to_tail: bool = False) -> str:
        """Free to the buddy lists; return the type used (of the last piece).

        `letter` is the type the caller has for the chunk. It is read again from the block while
        blocks are isolated, and always where lists and blocks must agree (or in 2.6.24).
        """
        if self.features.list_type_is_block_type:
            piece_order = min(order, self.pageblock_order)
            for piece in range(pfn, pfn + (1 << order), 1 << piece_order):
                letter = self.get_pageblock_migratetype(piece)
                self._free_one_page(piece, piece_order, letter, to_tail=to_tail)
            return letter
        if self.nr_isolate_pageblock or self.features.frees_read_block_type:
            letter = self.get_pageblock_migratetype(pfn)
        self._free_one_page(pfn, order, letter, to_tail=to_tail)
        return letter

    # ---- whole blocks ----------------------------------------------------------------------------

    def block_walk_range(self, pfn: int) -> tuple[int, int] | None:
        """Return the frames of the block to be walked, or None if it crosses the zone's edge.

        A block cut by the start of the zone is walked from the chunk itself on (before hygiene).
        """
        first = self.pageblock_start(pfn)
        end = first + self.pageblock_nr_pages
        if not self.zone_spans_pfn(first):
            if self.features.list_type_is_block_type:
                return None
            first = pfn
        return (first, end) if self.zone_spans_pfn(end - 1) else None

    def count_block(self, pfn: int) -> tuple[int, int] | None:
        """Count (free frames, movable frames in use) over the block; None: crosses the edge."""
        frames = self.block_walk_range(pfn)
        if frames is None:
            return None
        free = movable = 0
        p, end = frames
        while p < end:
            if p in self.buddy:
                size = 1 << self.buddy[p][0]
                free += size
                p += size
            else:
                movable += p in self.movable
                p += 1
        return free, movable

    def move_freepages_block(self, pfn: int, letter: str) -> int:
        """Move the block's free chunks to the lists of `letter`, ascending; return the frames.

        A chunk whose head lies before the block is not seen; one that reaches beyond it goes whole.
        """
        frames = self.block_walk_range(pfn)
        if frames is None:
            return 0
        moved = 0
        p, end = frames
        while p < end:
            if p in self.buddy:
                size = 1 << self.buddy[p][0]
                self.move_to_free_list(p, letter)
                moved += size
                p += size
            else:
                p += 1
        return moved

    # ---- isolation -------------------------------------------------------------------------------

    def set_migratetype_isolate(self, pfn: int) -> None:
        assert self.get_pageblock_migratetype(pfn) != "I", "block is isolated already"
        was = self.get_pageblock_migratetype(pfn)
        self.set_pageblock_migratetype(pfn, "I")
        moved = self.move_freepages_block(pfn, "I")
        if not self.features.isolated_counts_as_free:
            self.mod_freepage_state(-moved, was)

    def unset_migratetype_isolate(self, pfn: int, letter: str) -> None:
        first = self.pageblock_start(pfn)
        if first in self.buddy:
            order = self.buddy[first][0]
            buddy = first ^ (1 << order)
            if self.pageblock_order <= order < self.max_order and (
                self.page_is_buddy(buddy, order) and self.get_pageblock_migratetype(buddy) != "I"
            ):  # freed anew, so that the two can merge
                self.del_page_from_free_list(first)
                self.set_pageblock_migratetype(first, letter)
                self._free_one_page(first, order, letter, to_tail=True)
                return
        moved = self.move_freepages_block(pfn, letter)
        if not self.features.isolated_counts_as_free:
            self.mod_freepage_state(moved, letter)
        self.set_pageblock_migratetype(pfn, letter)

    def isolate_free_page(self, pfn: int) -> int:
        """Take a free chunk off its list, as compaction does; return its order."""
        order, _ = self.del_page_from_free_list(pfn)
        self.mod_freepage_state(-(1 << order), self.get_pageblock_migratetype(pfn))
        if order >= self.pageblock_order - 1:
            for block in range(pfn, pfn + (1 << order), self.pageblock_nr_pages):
                if self.get_pageblock_migratetype(block) in FALLBACKS:
                    self.set_pageblock_migratetype(block, "M")
        return order
