# SPDX-License-Identifier: GPL-2.0-or-later
"""e820 tables against twins that look at every unit of address space.

Each rule runs on a few hundred examples that Hypothesis can make smaller when one fails, and on
thousands of plain random tables.
"""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.firmware.e820 import (
    NO_MERGE_BOOTMEM,
    NO_MERGE_MEMBLOCK,
    E820Entry,
    E820Type,
    sanitize,
)
from physmem.firmware.e820_bootmem import E820Bootmem
from physmem.firmware.e820_table import E820Table

TYPES = [1, 1, 1, 2, 3, 4, 5, 7, 12, 128, 0xEFFFFFFF]
SPACE = 48

entries = st.lists(
    st.builds(
        E820Entry,
        st.integers(0, SPACE - 1),
        st.integers(0, 12),
        st.sampled_from(TYPES),
    ),
    max_size=12,
)
ranges = st.tuples(st.integers(0, SPACE), st.integers(0, SPACE))


def random_tables(number, seed):
    """Plain random tables, ranges and types."""
    rng = random.Random(seed)
    for _ in range(number):
        table = [
            E820Entry(rng.randrange(SPACE), rng.randrange(13), rng.choice(TYPES))
            for _ in range(rng.randrange(13))
        ]
        yield table, (rng.randrange(SPACE), rng.randrange(SPACE)), rng.sample(sorted(set(TYPES)), 2)


def sanitize_twin(table, no_merge):
    """Type of each stretch between two borders; then equal neighbours become one."""
    if len(table) < 2:
        return None
    real = [entry for entry in table if entry.size]
    borders = sorted({border for entry in real for border in (entry.addr, entry.end)})
    out = []
    for start, end in pairwise(borders):
        kinds = [entry.type for entry in real if entry.addr <= start and end <= entry.end]
        if not kinds:
            continue
        kind = max(kinds)
        if out and out[-1][1] == start and out[-1][2] == kind and kind not in no_merge:
            out[-1] = (out[-1][0], end, kind)
        else:
            out.append((start, end, kind))
    return [(start, end - start, kind) for start, end, kind in out]


def units(table):
    """How often each unit is there as each type: what a table says, whatever its order."""
    return Counter((unit, entry.type) for entry in table for unit in range(entry.addr, entry.end))


def check_sanitize(table, no_merge):
    found = sanitize(table, no_merge)
    given_back = None if found is None else [(e.addr, e.size, e.type) for e in found]
    assert given_back == sanitize_twin(table, no_merge)
    if found is not None and len(found) > 1:
        assert sanitize(found, no_merge) == found


def check_update(table, span, old, new):
    mine = E820Table(table)
    start, size = span
    changed = mine.update(start, size, old, new)
    wanted = Counter()
    moved = 0
    for (unit, kind), number in units(table).items():
        inside = kind == old and start <= unit < start + size
        wanted[unit, new if inside else kind] += number
        moved += number * inside
    assert units(mine.entries) == wanted
    assert changed == moved


def check_remove(table, span, kind):
    mine = E820Table(table)
    start, size = span
    removed = mine.remove(start, size, kind)
    gone = {
        key: number
        for key, number in units(table).items()
        if start <= key[0] < start + size and kind in (None, key[1])
    }
    assert units(mine.entries) == units(table) - Counter(gone)
    assert removed == sum(gone.values())


NO_MERGE = [NO_MERGE_BOOTMEM, NO_MERGE_MEMBLOCK]


@given(entries, st.sampled_from(NO_MERGE))
def test_sanitize(table, no_merge):
    check_sanitize(table, no_merge)


@given(entries, ranges, st.sampled_from(TYPES), st.sampled_from(TYPES))
def test_update(table, span, old, new):
    if old != new:
        check_update(table, span, old, new)


@given(entries, ranges, st.sampled_from([None, *TYPES]))
def test_remove(table, span, kind):
    check_remove(table, span, kind)


@pytest.mark.parametrize("no_merge", NO_MERGE)
def test_sanitize_of_3000_random_tables(no_merge):
    for table, _, _ in random_tables(3000, 1):
        check_sanitize(table, no_merge)


def test_update_of_2000_random_tables():
    for table, span, (old, new) in random_tables(2000, 2):
        check_update(table, span, old, new)


def test_remove_of_2000_random_tables():
    for table, span, (kind, other) in random_tables(2000, 3):
        check_remove(table, span, None if kind > other else kind)


@given(entries, ranges)
def test_mapped_all_needs_every_unit(table, span):
    clean = sanitize(table, NO_MERGE_MEMBLOCK)
    start, end = min(span), max(span)
    if clean is None or start == end:
        return
    ram = {unit for entry in clean if entry.type == 1 for unit in range(entry.addr, entry.end)}
    mine = E820Table(clean)
    assert mine.mapped_all(start, end, E820Type.RAM) == (set(range(start, end)) <= ram)
    assert mine.mapped_any(start, end, E820Type.RAM) == bool(set(range(start, end)) & ram)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=5),
    st.integers(1, 8 * 4096),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=4),
)
def test_first_fit_finds_a_place_that_is_free(ram, size, taken):
    page = 4096
    table = E820Bootmem(wide=True)
    for start, length in ram:
        table.append(start * page, length * page, E820Type.RAM)
    busy = [(start * page, (start + length) * page) for start, length in taken]
    found = table.find_area(0, 1 << 40, size, busy)
    if found is None:
        return
    assert found >= 0x8000
    assert any(s * page <= found and found + size <= (s + n) * page for s, n in ram)
    assert not any(found < end and start < found + size for start, end in busy)
