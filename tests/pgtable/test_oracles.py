# SPDX-License-Identifier: GPL-2.0-or-later
"""Independent MMUs follow our tables in our bytes: to where we say, with faults where we fault.

Each format: >= 200 random mappings of all leaf sizes, 6,000 addresses; Unicorn answers for read,
write and execute, libaddrxlat and drgn for presence and address.
"""

import random

import pytest
from tests.oracles import addrxlat
from tests.oracles.random_maps import Maps

from physmem.pgtable.formats import page_table_format, page_table_formats

MAPPINGS = 200
QUERIES = 6000
ADDRXLAT = addrxlat.load()
USER_FORMATS = (
    *("x86_64", "x86_64_la57", "arm64_4k_39", "arm64_4k_48", "arm64_16k_47", "arm64_64k_48"),
    *("riscv64_sv39", "riscv64_sv48", "riscv64_sv57"),
)


def _in_space(fmt, va):
    return fmt.va_bits > 32 or va < 1 << 32


@pytest.mark.slow
@pytest.mark.parametrize("name", page_table_formats())
def test_unicorn_agrees(name):
    unicorn_mmu = pytest.importorskip("tests.oracles.unicorn_mmu")
    maps = Maps(name, random.Random(f"unicorn {name}"), MAPPINGS, top=_reach(name, 40, 48))
    uc = unicorn_mmu.attach(maps.table)
    if uc is None:
        pytest.skip("Unicorn does not know the format")
    answers = dict.fromkeys(("r", "w", "x", "fault"), 0)
    for va in maps.queries(QUERIES):
        if not _in_space(maps.fmt, va):
            continue
        for access, number in (("r", 1), ("w", 2), ("x", 4)):
            walk = maps.table.translate(va, access)
            ours = walk.paddr if walk.ok else None
            theirs = unicorn_mmu.translate(uc, va, number)
            assert ours == theirs, f"{access} of {va:#x}: {theirs}\n{walk}"
            answers[access if walk.ok else "fault"] += 1
    assert all(count > QUERIES / 20 for count in answers.values()), answers


@pytest.mark.slow
@pytest.mark.parametrize("name", USER_FORMATS)
def test_unicorn_agrees_for_users(name):
    unicorn_mmu = pytest.importorskip("tests.oracles.unicorn_mmu")
    rnd = random.Random(f"user {name}")
    maps = Maps(name, rnd, MAPPINGS, kernel=False, top=_reach(name, 40, 48), bottom=1 << 30)
    uc = unicorn_mmu.attach(maps.table)
    unicorn_mmu.user_mode(uc, maps.table)
    answers = dict.fromkeys(("r", "w", "x", "fault"), 0)
    for va in maps.queries(QUERIES):
        for access, number in (("r", 1), ("w", 2), ("x", 4)):
            walk = maps.table.translate(va, access + "u")
            ours = walk.paddr if walk.ok else None
            theirs = unicorn_mmu.translate(uc, va, number)
            assert ours == theirs, f"{access} of {va:#x}: {theirs}\n{walk} {walk.user}"
            answers[access if walk.ok else "fault"] += 1
    assert all(count > QUERIES / 20 for count in answers.values()), answers


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["x86_32", "x86_32_pae", "x86_64", "x86_64_la57", "riscv64_sv39", "riscv64_sv57"]
)
def test_accessed_and_dirty_bits_are_those_of_unicorn(name):
    """Two equal tables, touched by us and by Unicorn: the same bytes afterwards."""
    unicorn_mmu = pytest.importorskip("tests.oracles.unicorn_mmu")
    ours, theirs = (
        Maps(name, random.Random(f"bits {name}"), MAPPINGS, clean=True) for _ in range(2)
    )
    uc = unicorn_mmu.attach(theirs.table)
    for va in ours.queries(QUERIES // 2):
        if _in_space(ours.fmt, va):
            access, number = ours.rnd.choice((("r", 1), ("w", 2), ("x", 4)))
            walk = ours.table.translate(va, access)
            if walk.size == 1 << 30 and not walk.ok:
                continue  # of 1G pages Unicorn marks those too that it refuses to access
            walk = ours.table.touch(va, access)
            assert (walk.paddr if walk.ok else None) == unicorn_mmu.translate(uc, va, number)
    tables = slice(1 << 20, (1 << 20) + 4096 * ours.table.nr_tables)
    mine, other = (
        maps.ram.read(tables.start, tables.stop - tables.start) for maps in (ours, theirs)
    )
    assert mine == other
    before = Maps(name, random.Random(f"bits {name}"), MAPPINGS, clean=True).ram
    assert mine != before.read(tables.start, tables.stop - tables.start)


@pytest.mark.slow
@pytest.mark.skipif(ADDRXLAT is None, reason="libaddrxlat is not installed")
@pytest.mark.parametrize("name", page_table_formats())
def test_libaddrxlat_agrees(name):
    # libaddrxlat 3.1.4 loses the address bit below those that 52-bit formats put elsewhere: drgn,
    # which does not, checks it
    avoid = {52: 1 << 47 if "64k" in name else 1 << 49}.get(page_table_format(name).pa_bits, 0)
    avoid = avoid if name.startswith("arm64") else 0
    rnd = random.Random(f"addrxlat {name}")
    maps = Maps(name, rnd, MAPPINGS, top=_reach(name), avoid=avoid)
    table, fmt = maps.table, maps.fmt
    low = addrxlat.Walker(ADDRXLAT, table, table.root)
    high = addrxlat.Walker(ADDRXLAT, table, table.root_high)
    found = 0
    for va in maps.queries(QUERIES):
        if not fmt.canonical(va):
            continue
        walk = table.translate(va)
        walker = high if va >> 63 else low
        theirs = walker.translate(va)
        assert walk.paddr == theirs, f"{theirs}, {walker.error}\n{walk}"
        found += theirs is not None
    assert found > QUERIES / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", page_table_formats())
def test_drgn_agrees(name):
    drgn_walker = pytest.importorskip("tests.oracles.drgn_walker")
    if not drgn_walker.knows(page_table_format(name)):
        pytest.skip("drgn does not know the format")
    bottom = 1 << 30
    rnd = random.Random(f"drgn {name}")
    maps = Maps(name, rnd, MAPPINGS, top=_reach(name), bottom=bottom)
    walker = drgn_walker.Walker(maps.table, bottom)
    found = 0
    for query in maps.queries(2 * QUERIES):
        va = query & ~7
        if not va >> 63 or not maps.fmt.canonical(va):
            continue
        walk = maps.table.translate(va)
        theirs = walker.translate(va)
        assert walk.paddr == theirs, f"{theirs}\n{walk}"
        found += theirs is not None
    assert found > QUERIES / 2


def _reach(name, most_x86=52, most=56):
    """End of the physical addresses to map: as high as format and oracle go."""
    fmt = page_table_format(name)
    x86 = fmt.name.startswith("x86")
    return 1 << (32 if fmt.name == "x86_32" else min(fmt.pa_bits, most_x86 if x86 else most))
