# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock against a twin that keeps one object for every byte."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.model.boot_memblock import (
    DRIVER,
    HOTPLUG,
    MIRROR,
    NOMAP,
    UNKNOWN,
    KernelBugError,
    SlowMemblock,
)

from physmem.bootalloc.handover import decompose
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.bootalloc.ranges import Wanted, free_downwards, free_upwards
from physmem.lib.errors import BootAllocError

BITS, PAGE_SHIFT, REGION_SIZE = 9, 4, 4
TOP = (1 << BITS) - 1
ADDRESS = st.one_of(st.integers(0, TOP), st.integers(0, TOP >> 4).map(lambda page: page << 4))
SIZE = st.one_of(st.integers(0, 48), st.integers(0, TOP + 9))
SMALL = st.integers(1, 40)
NODE = st.sampled_from([-1, 0, 1, UNKNOWN])
ALIGN = st.sampled_from([0, 1, 2, 8, 16, 64])
FLAGS = st.sampled_from([0, 0, 0, HOTPLUG, NOMAP, DRIVER, HOTPLUG | NOMAP])


def _cells(array):
    return [(region.base, region.end, region.nid, region.flags) for region in array]


class Pair(RuleBasedStateMachine):
    """Both do the same; after every step their arrays, their free memory and their sizes agree."""

    capacity = 64
    resize = False

    @initialize(movable_node=st.booleans(), mirror=st.booleans())
    def begin(self, movable_node, mirror):
        self._begin(movable_node, mirror)

    def _begin(self, movable_node, mirror):
        config = MemblockConfig(
            page_shift=PAGE_SHIFT,
            smp_cache_bytes=8,
            phys_addr_bits=BITS,
            region_size=REGION_SIZE,
            memory_regions=self.capacity,
            reserved_regions=self.capacity,
            movable_node=movable_node,
            mirrored_kernelcore=mirror,
        )
        self.real = Memblock(config)
        self.slow = SlowMemblock(BITS, 1 << PAGE_SHIFT, self.capacity, REGION_SIZE)
        self.slow.movable_node = movable_node
        if self.resize:
            self.real.allow_resize()
            self.slow.resize = True
        self.real.add(0, TOP - 40)
        self.slow.add(self.slow.memory, 0, TOP - 40)

    def _both(self, real, slow):
        """The real one raises exactly where the slow one fails; else they return the same."""
        try:
            expected = slow()
        except KernelBugError:
            with pytest.raises(BootAllocError, match="kernel BUG"):
                real()
            # A dead kernel: a new one boots.
            config = self.real.config
            self._begin(config.movable_node, config.mirrored_kernelcore)
            return
        if expected is False:
            with pytest.raises(BootAllocError, match="-ENOMEM"):
                real()
        else:
            found = real()
            assert found == (None if expected is True else expected)

    @rule(base=ADDRESS, size=SIZE, nid=NODE.filter(lambda nid: nid >= 0), flags=FLAGS)
    def add_node(self, base, size, nid, flags):
        self._both(
            lambda: self.real.add_node(base, size, nid, flags),
            lambda: self.slow.add(self.slow.memory, base, size, nid, flags),
        )

    @rule(base=ADDRESS, size=SIZE)
    def remove(self, base, size):
        self._both(
            lambda: self.real.remove(base, size),
            lambda: self.slow.remove(self.slow.memory, base, size),
        )

    @rule(base=ADDRESS, size=SIZE.filter(lambda size: size < 100))
    def reserve(self, base, size):
        self._both(
            lambda: self.real.reserve(base, size),
            lambda: self.slow.add(self.slow.reserved, base, size),
        )

    @rule(base=ADDRESS, size=SIZE)
    def phys_free(self, base, size):
        # A range from 0 on is no range to keep off to the kernel: the new array may lie in it.
        assume(base > 0 or not self.resize)
        for array in (self.real.memory, self.real.reserved):
            if array.area is not None:
                end = array.area + self.real.page_align(array.max * REGION_SIZE)
                # Whoever frees the kernel's own array breaks the kernel.
                assume(base + size <= array.area or end <= base)
        self._both(
            lambda: self.real.phys_free(base, size),
            lambda: self.slow.remove(self.slow.reserved, base, size),
        )

    @rule(base=ADDRESS, size=SIZE, nid=st.integers(0, 2), reserved=st.booleans())
    def set_node(self, base, size, nid, reserved):
        real = self.real.reserved if reserved else self.real.memory
        slow = self.slow.reserved if reserved else self.slow.memory
        self._both(
            lambda: self.real.set_node(base, size, nid, array=real),
            lambda: self.slow.set_node(slow, base, size, nid),
        )

    @rule(
        base=ADDRESS,
        size=SIZE,
        what=st.sampled_from(
            [
                ("mark_hotplug", HOTPLUG, True),
                ("clear_hotplug", HOTPLUG, False),
                ("mark_nomap", NOMAP, True),
                ("clear_nomap", NOMAP, False),
            ]
        ),
    )
    def flag(self, base, size, what):
        name, bit, on = what
        self._both(
            lambda: getattr(self.real, name)(base, size),
            lambda: self.slow.flag(self.slow.memory, base, size, bit, on),
        )

    @rule(base=ADDRESS, size=SIZE)
    def mark_mirror(self, base, size):
        if self.real.config.mirrored_kernelcore:
            self.slow.mirror = True
            self._both(
                lambda: self.real.mark_mirror(base, size),
                lambda: self.slow.flag(self.slow.memory, base, size, MIRROR, on=True),
            )

    @rule(up=st.booleans(), limit=st.one_of(st.just(TOP), ADDRESS))
    def switches(self, up, limit):
        self.real.set_bottom_up(enable=up)
        self.real.set_current_limit(limit)
        self.slow.bottom_up, self.slow.limit = up, limit

    @rule(size=SMALL, align=ALIGN, low=ADDRESS, high=ADDRESS, nid=NODE, exact=st.booleans())
    def alloc_range_nid(self, size, align, low, high, nid, exact):
        any_or = -1 if nid == UNKNOWN else nid
        self._both(
            lambda: self.real.alloc_range_nid(size, align, low, high, nid, exact_nid=exact),
            lambda: self.slow.alloc_range(size, align, low, high, any_or, exact),
        )

    @rule(
        size=SMALL,
        align=ALIGN,
        low=st.one_of(st.just(0), ADDRESS),
        high=st.one_of(st.just(0), ADDRESS),
        nid=st.integers(-1, 2),
        kind=st.sampled_from(["alloc_try_nid", "alloc_try_nid_raw", "alloc_exact_nid_raw"]),
    )
    def alloc(self, size, align, low, high, nid, kind):
        self._both(
            lambda: getattr(self.real, kind)(size, align, low, high, nid),
            lambda: self.slow.alloc(size, align, low, high, nid, "exact" in kind),
        )

    @rule(align=st.sampled_from([1, 16, 32]))
    def trim(self, align):
        self.real.trim_memory(align)
        self.slow.trim(align)

    @precondition(lambda self: not self.resize)
    @rule(limit=st.integers(TOP // 4, 2 * TOP), base=ADDRESS, size=SIZE)
    def cut(self, limit, base, size):
        which = limit % 3
        if which == 0:
            self.real.enforce_memory_limit(limit)
            self.slow.enforce(limit)
        elif which == 1:
            self.real.mem_limit_remove_map(limit)
            self.slow.limit_map(limit)
        else:
            self.real.cap_memory_range(base, size)
            self.slow.cap(base, size)

    @rule(nid=NODE, flags=st.sampled_from([0, HOTPLUG, MIRROR, NOMAP, DRIVER, NOMAP | DRIVER]))
    def walk(self, nid, flags):
        expected = self.slow.free_ranges(nid, flags)
        assert [tuple(found) for found in self.real.free_ranges(nid, flags)] == expected
        backwards = list(self.real.free_ranges(nid, flags, reverse=True))
        assert [tuple(found) for found in reversed(backwards)] == expected
        wanted = Wanted(nid, flags, self.real.config.movable_node)
        arrays = self.real.memory, self.real.reserved
        plain = [(start, end) for start, end, _ in expected]
        assert list(free_upwards(*arrays, wanted)) == plain
        assert list(free_downwards(*arrays, wanted)) == plain[::-1]

    @rule(addr=ADDRESS, size=st.integers(1, TOP))
    def questions(self, addr, size):
        addr = min(addr, TOP - 1)
        memory, reserved = self.slow.memory.cells, self.slow.reserved.cells
        assert self.real.is_memory(addr) == (memory[addr] is not None)
        assert self.real.is_reserved(addr) == (reserved[addr] is not None)
        held = memory[addr] is not None
        assert self.real.is_map_memory(addr) == bool(held and not memory[addr][1] & NOMAP)
        end = min(addr + size, TOP)
        one = any(low <= addr and end <= high for low, high, *_ in self.slow.memory.regions())
        assert self.real.is_region_memory(addr, size) == one
        taken = any(cell is not None for cell in reserved[addr:end])
        assert self.real.is_region_reserved(addr, size) == taken

    @invariant()
    def same(self):
        if not hasattr(self, "real"):
            return
        self.real.validate()
        for real, slow in (
            (self.real.memory, self.slow.memory),
            (self.real.reserved, self.slow.reserved),
        ):
            assert _cells(real) == slow.regions()
            assert (real.max, real.area, real.total_size) == (slow.max, slow.area, slow.total)

    def teardown(self):
        if not hasattr(self, "real"):
            return
        deferred = {0: TOP >> PAGE_SHIFT + 1}
        room = len(self.slow.memory.regions()) + 2 <= self.slow.memory.max
        if not room:
            return
        self.slow.flag(self.slow.memory, 0, TOP, HOTPLUG, on=False)
        expected = self.slow.blocks(TOP >> PAGE_SHIFT, 4, deferred)
        every = self.slow.blocks(TOP >> PAGE_SHIFT, 4)
        given = self.real.free_all(TOP >> PAGE_SHIFT, 4, deferred)
        found = [
            (int(pfn), int(order))
            for _, (pfns, orders) in given.blocks()
            for pfn, order in zip(pfns, orders, strict=True)
        ]
        assert found == expected
        assert given.pages == sum(1 << order for _, order in every)
        touched = {page for start, end, _ in given.reserved for page in range(start, end)}
        memory, reserved = self.slow.memory.cells, self.slow.reserved.cells
        assert touched == {
            at >> PAGE_SHIFT
            for at in range(TOP)
            if reserved[at] is not None or (memory[at] is not None and memory[at][1] & NOMAP)
        }


class Growing(Pair):
    """The same with arrays that are soon too small and lie in the memory they describe."""

    capacity = 4
    resize = True


class Full(Pair):
    """The same with arrays that are soon too small and may not grow."""

    capacity = 4


TestPair = pytest.mark.slow(Pair.TestCase)
TestGrowing = pytest.mark.slow(Growing.TestCase)
TestFull = pytest.mark.slow(Full.TestCase)


@given(start=st.integers(0, 5000), pages=st.integers(0, 5000), max_order=st.integers(1, 12))
def test_blocks_are_the_largest_that_fit(start, pages, max_order):
    pfns, orders = decompose(start, start + pages, max_order)
    at = start
    for pfn, order in zip(pfns.tolist(), orders.tolist(), strict=True):
        assert pfn == at
        assert pfn % (1 << order) == 0
        at += 1 << order
        assert at <= start + pages
        larger = 1 << (order + 1)
        assert order == max_order - 1 or pfn % larger or pfn + larger > start + pages
    assert at == start + pages
