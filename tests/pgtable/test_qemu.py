# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's processors follow our tables: what other oracles lack (LPA2, Svnapot, HAFDBS) and more.

Opt-in: `PHYSMEM_QEMU=1 pytest -m qemu`.
"""

import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.oracles import qemu_mmu as qemu
from tests.oracles.random_maps import Maps

from physmem.pgtable.formats import page_table_formats

pytestmark = [pytest.mark.qemu, pytest.mark.slow]
ARM64 = [name for name in page_table_formats() if name.startswith("arm64")]
RISCV64 = [name for name in page_table_formats() if name.startswith("riscv64")]
MAPPINGS, QUERIES = 200, 6000
AT = {"r": qemu.AT_READ, "w": qemu.AT_WRITE, "ru": qemu.AT_USER_READ, "wu": qemu.AT_USER_WRITE}
REAL = {"r": qemu.LOAD, "w": qemu.STORE, "x": qemu.RUN}
needs_arm64 = pytest.mark.skipif(
    qemu.binary("aarch64") is None, reason="PHYSMEM_QEMU=1 and qemu-system-aarch64"
)
needs_riscv64 = pytest.mark.skipif(
    qemu.binary("riscv64") is None, reason="PHYSMEM_QEMU=1 and qemu-system-riscv64"
)
FAULTS = {0: "size", 1: "not_present", 2: "not_accessed", 3: "permission"}


@pytest.fixture
def ram_file(tmp_path):
    """File for the guest's memory, gone afterwards; in memory where the system has a place."""
    shared = Path("/dev/shm")  # noqa: S108 - a directory with a random name is made in it
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as directory:
        yield Path(directory) / "ram"


def maps_for(name, seed, *, user_tables=False, **how):
    """Random maps whose tables lie in the guest's RAM."""
    base = qemu.base(name)
    first = partial(qemu.identity, user_tables=user_tables) if name.startswith("arm64") else None
    tables = (base + qemu.TABLES, base + qemu.DATA)
    return Maps(name, random.Random(seed), MAPPINGS, tables=tables, first=first, **how)


def in_ram(name, seed, **how):
    """The same, with all that is mapped in the guest's RAM too."""
    base = qemu.base(name)
    return maps_for(name, seed, bottom=base + qemu.DATA, top=base + qemu.RAM_BYTES, **how)


def reason_of(walk):
    """Class of a fault as the hardware tells it."""
    if walk.ok:
        return "ok"
    kind = walk.reason
    if kind in {"no_read", "no_write", "no_exec", "no_user"}:
        return "permission"
    return "not_present" if kind in {"not_canonical", "prot_none"} else kind


def level_of(fmt, walk):
    """Number of the level where a walk ended, as arm64 counts: the last is 3."""
    real = [step for step in walk.steps if not step.folded]
    return 3 - len(fmt.levels) + max(len(real), 1)


@needs_arm64
@pytest.mark.parametrize("name", ARM64)
def test_translations_of_arm64(ram_file, name):
    """AT for reading and writing, by the kernel and by users: addresses, fault classes, levels."""
    maps = maps_for(name, f"at {name}", kernel=False, user_tables=True)
    fmt = maps.fmt
    guest = qemu.Guest(maps.table, ram_file)
    asked = [(va, access) for va in maps.queries(QUERIES) for access in AT]
    answers = guest.ask([(va, AT[access], 0, 0) for va, access in asked])
    seen = dict.fromkeys((*FAULTS.values(), "ok"), 0)
    for (va, access), (par, _) in zip(asked, answers.tolist(), strict=True):
        walk = maps.table.translate(va, access)
        reason = reason_of(walk)
        seen[reason] += 1
        if not par & 1:
            theirs = par & ((1 << 52) - 1) & -4096 | va & 4095
            assert (reason, walk.paddr) == ("ok", theirs), f"{access} {theirs:#x}\n{walk}"
            continue
        status = par >> 1 & 0x3F
        if status == 0x2B:  # a translation fault at level -1
            found, level = "not_present", -1
        else:
            found, level = FAULTS[status >> 2], status & 3
        assert found == reason, f"{access} {status:#x}\n{walk}"
        if walk.reason != "not_canonical":
            assert level == level_of(fmt, walk), f"{access} {status:#x}\n{walk}"
    assert min(seen[kind] for kind in ("ok", "not_present", "permission")) > QUERIES / 10, seen


def accesses(maps, count, kinds):
    """Aligned addresses with a kind of access; what is run lies 8 bytes behind what is read."""
    for va in maps.queries(count):
        paddr = where(maps.table, va)
        own = qemu.base(maps.fmt.name) + qemu.DATA  # below it are the program and its queries
        if paddr is not None and (paddr < own or paddr >> 21 == qemu.DEVICE_TREE >> 21):
            continue
        kind = maps.rnd.choice(kinds)
        yield (va & ~15) + (8 if "x" in kind else 0), kind


def where(table, va):
    """Physical address, whatever accesses are allowed; or None."""
    walk = table.translate(va)
    if walk.reason != "not_accessed":
        return walk.paddr
    real = [step for step in walk.steps if not step.folded]
    base = table.format.leaf_address(real[-1].entry, len(real) - 1)
    return base | va & (walk.size - 1)


def fill(guest, table, asked, code):
    """Let memory say its own address, and hold an instruction where something is run."""
    for va, kind in asked:
        paddr = where(table, va)
        if paddr is not None and guest.base <= paddr < guest.base + qemu.RAM_BYTES:
            guest.words[paddr - guest.base >> 3] = code if "x" in kind else paddr


@needs_arm64
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("name", ARM64)
def test_accesses_of_arm64(ram_file, name, managed):
    """Real loads, stores and jumps; accessed and dirty bits (HAFDBS) in the same places as ours."""
    maps = in_ram(name, f"real {name}", kernel=False, clean=managed)
    table = maps.table
    guest = qemu.Guest(table, ram_file)
    untouched = guest.tables()
    asked = list(accesses(maps, QUERIES, ("r", "w", "x")))
    fill(guest, table, asked, qemu.ARM64_RET)
    rows = [(va, REAL[kind], (where(table, va) or 0) + 1, 0) for va, kind in asked]
    answers = guest.ask(rows, qemu.HA_HD if managed else 0)
    stored = set()
    counts = dict.fromkeys(("r", "w", "x", "fault"), 0)
    for (va, kind), (value, far) in zip(asked, answers.tolist(), strict=True):
        walk = table.touch(va, kind, managed=managed)
        if far:  # a fault: value is ESR_EL1
            assert far == va ^ (1 << 64) - 1
            assert not walk.ok, f"{kind} {value:#x}\n{walk}"
            assert value >> 26 == (0x21 if kind == "x" else 0x25)
            status = value & 0x3F
            found = "not_present" if status == 0x2B else FAULTS[status >> 2]
            assert found == reason_of(walk), f"{kind} {value:#x}\n{walk}"
            counts["fault"] += 1
            continue
        assert walk.ok, f"{kind}\n{walk}"
        counts[kind] += 1
        if kind == "r":
            assert value in {walk.paddr, walk.paddr + 1}
            assert value == walk.paddr or walk.paddr in stored
        elif kind == "w":
            stored.add(walk.paddr)
    assert all(guest.words[paddr - guest.base >> 3] == paddr + 1 for paddr in stored)
    base = qemu.base(name)
    ours = table.ram.read(base + qemu.TABLES, qemu.DATA - qemu.TABLES)
    assert guest.tables() == ours
    assert (ours != untouched) == managed
    assert min(counts.values()) > QUERIES / 50, counts


@needs_riscv64
@pytest.mark.parametrize("name", RISCV64)
def test_accesses_of_riscv64(ram_file, name):
    """Loads, stores, jumps by kernel and users, groups of 64K (Svnapot); A and D bits as ours."""
    maps = in_ram(name, f"real {name}", kernel=False, clean=True, napot=True)
    table, fmt = maps.table, maps.fmt
    guest = qemu.Guest(table, ram_file)
    asked = list(accesses(maps, QUERIES, ("r", "w", "x", "ru", "wu", "xu")))
    fill(guest, table, asked, qemu.RISCV64_ECALL)
    rows = []
    for va, kind in asked:
        number = REAL[kind[0]] - qemu.LOAD | (0 if "u" in kind else qemu.SUPERVISOR)
        rows.append((va, number, 0, (where(table, va) or 0) + 1))
    answers = guest.ask(rows)
    stored = set()
    counts = dict.fromkeys(("r", "w", "x", "ru", "wu", "xu", "fault", "napot"), 0)
    for (va, kind), (value, cause) in zip(asked, answers.tolist(), strict=True):
        walk = table.touch(va, kind)
        allowed = {"r": 0, "w": 0, "x": 9, "ru": 0, "wu": 0, "xu": 8}[kind]
        refused = {"r": 13, "w": 15, "x": 12}[kind[0]]
        assert cause == (allowed if walk.ok else refused), f"{kind} {cause}\n{walk}"
        counts[kind if walk.ok else "fault"] += 1
        if not walk.ok:
            continue
        counts["napot"] += walk.size == 1 << 16
        if kind[0] == "r":
            assert value in {walk.paddr, walk.paddr + 1}
            assert value == walk.paddr or walk.paddr in stored
        elif kind[0] == "w":
            stored.add(walk.paddr)
    assert all(guest.words[paddr - guest.base >> 3] == paddr + 1 for paddr in stored)
    base = qemu.base(name)
    assert guest.tables() == table.ram.read(base + qemu.TABLES, qemu.DATA - qemu.TABLES)
    assert min(counts.values()) > QUERIES / 200, counts
    assert fmt.cont_low


@needs_riscv64
def test_a_malformed_group_faults(ram_file):
    """Of all sizes that Svnapot could have, one is defined."""
    maps = in_ram("riscv64_sv48", "bad group", napot=True)
    table, fmt = maps.table, maps.fmt
    va = next(va for va, size, _ in maps.ranges if table.translate(va).size == 1 << 16)
    slot = table.translate(va).steps[-1].slot
    good = int.from_bytes(table.ram.read(slot, 8), "little")
    for low in (0x0, 0x4, 0x8, 0xC):
        entry = good & ~(0xF << 10) | low << 10
        table.ram.write(slot, entry.to_bytes(8, "little"))
        guest = qemu.Guest(table, ram_file)
        cause = guest.ask([(va, qemu.SUPERVISOR, 0, 0)])[0, 1]
        walk = table.translate(va, "r")
        assert (cause == 0) == walk.ok == (low == 0x8)
    assert np.uint64(fmt.cont_bit) & np.uint64(good)
