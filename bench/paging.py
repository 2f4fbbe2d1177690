# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables: how fast pages are mapped, addresses translated, a terabyte mapped directly."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from physmem.lib.jit import ready
from physmem.lib.ram import Ram
from physmem.lib.struct import attach
from physmem.machine.machine import Machine
from physmem.pgtable.formats import page_table_format
from physmem.pgtable.source import Buddy, bump
from physmem.pgtable.table import PageTable
from physmem.pgtable.walk import do_translate

PAGE_OFFSET = 0xFFFF888000000000
TIB = 1 << 40


def _best(repeat, function):
    least = float("inf")
    for _ in range(repeat):
        start = time.process_time()  # others do not count
        function()
        least = min(least, time.process_time() - start)
    return least


def measure_paging(repeat: int, size: int = 1 << 30, fmt: str = "x86_64") -> dict[str, float]:
    """Millions of 4K pages mapped, unmapped and translated per second; tables by the allocator."""
    machine = Machine.build(size)
    table = PageTable(page_table_format(fmt), machine.ram, Buddy(machine._h))
    pages = size >> 12
    table.map(PAGE_OFFSET, 0, size, largest=4096)  # compiles, and touches the bytes once
    rnd = np.random.default_rng(1)
    where = (rnd.integers(0, size, 1 << 22) + (PAGE_OFFSET - (1 << 64))).astype(np.int64)
    out = np.zeros_like(where)
    attach(table._row, "queries", where)
    attach(table._row, "answers", out)
    run = ready(do_translate)
    assert run(table.handle) == len(where)
    walk = _best(repeat, lambda: run(table.handle))
    assert (out == where - (PAGE_OFFSET - (1 << 64))).all()
    unmap = mapping = float("inf")
    for _ in range(repeat):
        unmap = min(unmap, _best(1, lambda: table.unmap(PAGE_OFFSET, size)))
        mapping = min(mapping, _best(1, lambda: table.map(PAGE_OFFSET, 0, size, largest=4096)))
    return {
        "map_4k_mpages_s": pages / mapping / 1e6,
        "unmap_4k_mpages_s": pages / unmap / 1e6,
        "translate_random_m_s": len(where) / walk / 1e6,
    }


def measure_faults(repeat: int) -> dict[str, float]:
    """Millions of page faults per second that bring a process of 512 MiB into memory."""
    machine = Machine.build("1GiB")
    machine.map_memory()
    rnd = np.random.default_rng(2)
    best = 0.0
    for _ in range(repeat):
        mm = machine.new_process()
        va = mm.mmap(512 << 20)
        where = va + (rnd.permutation(512 << 8) << 12)
        writes = np.ones(len(where), bool)
        start = time.process_time()
        did = mm.fault_stream(where, writes)
        best = max(best, len(where) / (time.process_time() - start) / 1e6)
        assert (did == 1).all()
        mm.exit()
    return {"faults_m_s": best}


def measure_direct_map(repeat: int) -> dict[str, float]:
    """Milliseconds to map 1 TiB with leaves of 1 GiB, in a machine that exists."""
    ram = Ram(TIB)

    def build():
        table = PageTable(page_table_format("x86_64"), ram, bump(1 << 20, 1 << 24))
        table.map(PAGE_OFFSET, 0, TIB)
        assert table.nr_tables == 3

    return {"direct_map_1tib_ms": _best(repeat, build) * 1e3}


def measure_oracle(count: int = 50_000) -> dict[str, float]:
    """Millions of addresses per second through Unicorn and libaddrxlat, on the same tables."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    ram = Ram(1 << 30)
    table = PageTable(page_table_format("x86_64"), ram, bump(1 << 20, 1 << 24))
    table.map(PAGE_OFFSET, 0, 1 << 30, largest=4096)
    rnd = np.random.default_rng(1)
    where = (rnd.integers(0, 1 << 30, count)).astype(np.uint64) + np.uint64(PAGE_OFFSET)
    asked = where.tolist()
    found = {}
    if importlib.util.find_spec("unicorn"):
        from tests.oracles import unicorn_mmu

        uc = unicorn_mmu.attach(table)
        for va in asked:
            assert unicorn_mmu.translate(uc, va) == va - PAGE_OFFSET
        seconds = _best(3, lambda: [unicorn_mmu.translate(uc, va) for va in asked])
        found["unicorn_translate_m_s"] = count / seconds / 1e6
    from tests.oracles import addrxlat

    lib = addrxlat.load()
    if lib is not None:
        walker = addrxlat.Walker(lib, table, table.root)
        seconds = _best(3, lambda: [walker.translate(va) for va in asked])
        found["addrxlat_translate_m_s"] = count / seconds / 1e6
    return found


if __name__ == "__main__":
    figures = measure_paging(9) | measure_direct_map(5) | measure_faults(3) | measure_oracle()
    large = measure_paging(5, 4 << 30)
    figures |= {f"{name}_over_4gib": value for name, value in large.items()}
    fastest = max(
        (figures[name] for name in figures if name.startswith(("uni", "addr"))), default=0
    )
    if fastest:
        for size in ("", "_over_4gib"):
            ratio = figures[f"translate_random_m_s{size}"] / fastest
            figures[f"translate_ratio_to_fastest_oracle{size}"] = ratio
    for name, value in figures.items():
        print(f"{name:36} {value:12.3f}")
