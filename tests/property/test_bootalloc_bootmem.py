# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem against a twin with a list of bits, and its bitmap against one bit at a time."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.model.boot_bootmem import PAGE, BugError, SlowNode

from physmem.bootalloc.bitmap import Bitmap
from physmem.bootalloc.bootmem import Bootmem, BootmemConfig
from physmem.lib.errors import BootAllocError

GIB4 = 1 << 20
START = st.sampled_from([0, 1, 5, 16, 128, 256, 512, GIB4, GIB4 + 3])
ALIGN = st.sampled_from([0, 1, 32, 64, 128, PAGE, 2 * PAGE, 4 * PAGE, 16 * PAGE])
SIZE = st.one_of(st.integers(1, 300), st.integers(1, 5 * PAGE), st.integers(1, 60 * PAGE))


class Pair(RuleBasedStateMachine):
    @initialize(
        starts=st.lists(START, min_size=1, max_size=2, unique=True),
        pages=st.integers(1, 220),
        long_bits=st.sampled_from([32, 64]),
        free=st.booleans(),
    )
    def begin(self, starts, pages, long_bits, free):
        self.real = Bootmem(BootmemConfig(bits_per_long=long_bits, smp_cache_bytes=32))
        self.slow = {}
        for nid, start in enumerate(starts):
            # Nodes of 512 MiB and more apart: their pages are their own.
            start_pfn = start + (nid << 17)
            map_pfn = start_pfn + pages // 2
            size = self.real.init_bootmem_node(nid, map_pfn, start_pfn, start_pfn + pages)
            self.slow[nid] = SlowNode(start_pfn, start_pfn + pages, map_pfn, long_bits)
            assert size == self.slow[nid].map_bytes()
            if free:
                self.real.free(start_pfn * PAGE, pages * PAGE, nid)
                self.slow[nid].free(start_pfn * PAGE, pages * PAGE)

    def _both(self, real, slow):
        try:
            expected = slow()
        except BugError:
            with pytest.raises(BootAllocError, match="kernel BUG"):
                real()
        else:
            assert real() == expected

    def _node(self, which):
        return which % len(self.slow)

    def _address(self, nid, at):
        return max(self.slow[nid].start + at, 0)

    @rule(which=st.integers(0, 1), at=st.integers(-2 * PAGE, 222 * PAGE), size=SIZE)
    def reserve(self, which, at, size):
        nid = self._node(which)
        addr = self._address(nid, at)
        self._both(
            lambda: self.real.reserve(addr, size, nid), lambda: self.slow[nid].reserve(addr, size)
        )

    @rule(
        which=st.integers(0, 1),
        at=st.one_of(
            st.integers(-2 * PAGE, 222 * PAGE), st.integers(0, 220).map(lambda n: n * PAGE)
        ),
        size=st.one_of(SIZE, st.integers(0, 40).map(lambda n: n * PAGE)),
    )
    def free(self, which, at, size):
        nid = self._node(which)
        addr = self._address(nid, at)
        self._both(lambda: self.real.free(addr, size, nid), lambda: self.slow[nid].free(addr, size))

    @rule(which=st.integers(0, 1), page=st.integers(0, 219))
    def free_a_run(self, which, page):
        """All taken pages from a taken one on: frees that succeed."""
        nid = self._node(which)
        bits = self.slow[nid].map
        if page < len(bits) and bits[page]:
            end = next((at for at in range(page, len(bits)) if not bits[at]), len(bits))
            addr = self.slow[nid].start + page * PAGE
            self.real.free(addr, (end - page) * PAGE, nid)
            self.slow[nid].free(addr, (end - page) * PAGE)

    @rule(
        which=st.integers(0, 1),
        size=SIZE,
        align=ALIGN,
        goal=st.one_of(st.just(0), st.integers(0, 230 * PAGE)),
        absolute=st.booleans(),
        limit=st.sampled_from([0, 0, 0, 100, 0xFFFF_FFFF, 60 * PAGE, 100 * PAGE + 5]),
    )
    def alloc(self, which, size, align, goal, absolute, limit):
        nid = self._node(which)
        start = self.slow[nid].start
        goal = goal if absolute or not goal else goal + start
        if limit in (60 * PAGE, 100 * PAGE + 5):
            limit += start
        self._both(
            lambda: self.real.alloc_core(nid, size, align, goal, limit),
            lambda: self.slow[nid].alloc(size, align, goal, limit),
        )

    @rule(size=SIZE, align=st.sampled_from([32, PAGE]), low=st.booleans())
    def alloc_anywhere(self, size, align, low):
        limit = 0xFFFF_FFFF if low else 0
        nodes = sorted(self.slow.values(), key=lambda node: node.start)
        found = (node.alloc(size, align, 0, limit) for node in nodes)
        expected = next((address for address in found if address is not None), None)
        assert self.real.alloc_nopanic(size, align, 0, limit) == expected

    @invariant()
    def same(self):
        if not hasattr(self, "real"):
            return
        self.real.validate()
        for nid, slow in self.slow.items():
            node = self.real.node(nid)
            assert [int(node.bits.test(at)) for at in range(node.pages)] == slow.map
            assert (node.last_pos, node.last_offset, node.last_success) == (
                slow.last_pos,
                slow.last_offset,
                slow.last_success,
            )

    def teardown(self):
        if not hasattr(self, "real"):
            return
        for nid, slow in self.slow.items():
            expected = slow.free_all()
            given_away = self.real.free_all(nid)
            pfns, orders = given_away.arrays()
            assert list(zip(pfns.tolist(), orders.tolist(), strict=True)) == expected
            assert given_away.total == sum(1 << order for _, order in expected)
            parts = [np.concatenate(part) for part in zip(*given_away.batches(), strict=True)]
            assert [part.tolist() for part in parts] == [pfns.tolist(), orders.tolist()]
            for before, after in pairwise(given_away.runs[:-1].tolist()):
                assert before[1] < after[0] or before[2] != after[2]


TestPair = pytest.mark.slow(Pair.TestCase)


@given(
    bits=st.lists(st.booleans(), min_size=1, max_size=3000),
    runs=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.booleans()), max_size=4),
    start=st.integers(0, 3000),
    end=st.integers(0, 3000),
)
def test_a_bitmap_does_what_single_bits_do(bits, runs, start, end):
    bitmap = Bitmap(np.packbits(np.array(bits), bitorder="little"))
    for first, last, value in runs:
        low, high = min(first, len(bits)), min(last, len(bits))
        (bitmap.set_run if value else bitmap.clear_run)(low, high)
        bits[low:high] = [value] * (high - low)
    assert [bitmap.test(at) for at in range(len(bits))] == bits
    end = min(end, len(bits))
    rest = range(start, end)
    assert bitmap.next_zero(start, end) == next((at for at in rest if not bits[at]), end)
    assert bitmap.next_set(start, end) == next((at for at in rest if bits[at]), end)
    assert bitmap.count_zero(end) == bits[:end].count(False)


@given(
    zeros=st.integers(0, 1 << 20),
    hit=st.integers(0, (1 << 20) - 1),
    data=st.sampled_from([0x00, 0xFF]),
)
def test_a_bitmap_finds_a_bit_far_away(zeros, hit, data):
    bitmap = Bitmap(np.full(1 << 17, data, np.uint8))
    bitmap.data[hit >> 3] ^= 1 << (hit & 7)
    find = bitmap.next_zero if data else bitmap.next_set
    assert find(zeros, 1 << 20) == (hit if zeros <= hit else 1 << 20)
