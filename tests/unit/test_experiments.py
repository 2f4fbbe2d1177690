# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments without a trace: random numbers, counts, closed forms, and what is claimed."""

import doctest
import json
import pkgutil
from importlib import import_module
from math import comb

import numpy as np
import pytest

import physmem
import physmem.experiments
from physmem.experiments import EXPERIMENTS, run
from physmem.experiments.census import (
    FREE,
    MOVABLE,
    PCP,
    RESERVED,
    UNMOVABLE,
    Census,
    census,
)
from physmem.experiments.fragmenters import pair_shares, pinned_for, tolerance
from physmem.experiments.gorman import OWN, POLICIES
from physmem.experiments.holder import Holder
from physmem.experiments.load import Load, Settings, allocatable
from physmem.experiments.machines import booted, managed, recommended_min_free, set_min_free
from physmem.experiments.pcp_stranding import movable_node
from physmem.experiments.random32 import Random, draw, start_random
from physmem.lib.errors import BadMachineError, BadRequestError
from physmem.lib.jit import ready
from physmem.lib.struct import dtype_of
from physmem.machine.machine import Machine

MODULES = [each.name for each in pkgutil.iter_modules(physmem.experiments.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(import_module(f"physmem.experiments.{name}")).failed == 0


# -- random numbers -------------------------------------------------------------------------------


def sfc32(seed, stream):
    """The generator as its author writes it, on Python's integers."""
    mask = 0xFFFFFFFF
    a, b, c, counter = seed & mask, seed >> 32, stream, 1

    def step():
        nonlocal a, b, c, counter
        word = (a + b + counter) & mask
        counter = (counter + 1) & mask
        a = b ^ (b >> 9)
        b = (c + (c << 3)) & mask
        c = (((c << 21) & mask | c >> 11) + word) & mask
        return word

    for _ in range(15):
        step()
    return step


def drawn(seed, bound, count, stream=0):
    random = np.zeros(1, dtype_of(Random))
    ready(start_random)(random, seed, stream)
    out = np.zeros(count, np.int64)
    ready(draw)(random, bound, out)
    return out


@pytest.mark.parametrize("seed", [0, 1, 42, (1 << 63) - 1])
@pytest.mark.parametrize("bound", [1, 2, 7, 1000, (1 << 31) - 1])
def test_random_numbers_are_those_of_sfc32(seed, bound):
    step = sfc32(seed, 3)
    wanted = []
    while len(wanted) < 200:
        product = step() * bound
        if product & 0xFFFFFFFF >= (1 << 32) % bound:
            wanted.append(product >> 32)
    assert drawn(seed, bound, 200, 3).tolist() == wanted


def test_random_numbers_are_even():
    counts = np.bincount(drawn(7, 10, 100_000), minlength=10)
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert chi_square < 33.7  # 9 degrees of freedom: one seed in ten thousand
    assert drawn(7, 10, 100).tolist() != drawn(8, 10, 100).tolist()
    assert drawn(7, 10, 100).tolist() != drawn(7, 10, 100, stream=1).tolist()


# -- counts ---------------------------------------------------------------------------------------


def test_a_census_agrees_with_the_lists():
    machine = booted("128MiB", cpus=2)
    before = census(machine)
    holder = Holder(machine, seed=3)
    holder.need(9000)
    holder.shuffle()
    holder.free(5000)
    kept = [machine.alloc_pages(order, "GFP_KERNEL") for order in (0, 3, 9)]
    state = machine.snapshot()
    frames = np.zeros((int(machine.tables.memory[0]["max_pfn"]) >> 9) + 1, np.int64)
    pcp = sum(pcp.count for zone in state.zones for pcp in zone.pcp)
    for zone in state.zones:
        for order, row in enumerate(zone.free):
            for pfn in (pfn for members in row for pfn in members):
                for part in range(pfn, pfn + (1 << order)):
                    frames[part >> 9] += 1
    found = census(machine)
    assert found.frames[FREE] == frames.sum() == machine.nr_free_pages
    assert found.frames[PCP] == pcp
    assert found.frames[MOVABLE] == 4000
    assert found.frames[UNMOVABLE] == before.frames[UNMOVABLE] + 1 + 8 + 512
    assert found.free_blocks == (frames == 512).sum()
    assert before.polluted <= found.polluted <= before.polluted + len({pfn >> 9 for pfn in kept})
    assert sum(found.frames) == int(machine.tables.zones["spanned_pages"].sum())


def greedy_moves(free, size):
    """Two pointers, block by block: empty the emptiest block into the fullest ones."""
    blocks = sorted((count for count in free if 0 < count < size), reverse=True)
    best = moves = 0
    for emptied in range(1, len(blocks) + 1):
        moves += size - blocks[emptied - 1]
        if moves > sum(blocks[emptied:]):
            break
        best = moves
    return best


@pytest.mark.parametrize("seed", range(5))
def test_moves_are_those_of_the_greedy_walk(seed):
    free = np.random.default_rng(seed).integers(0, 513, 60)
    counts = np.zeros((60, 5), np.int64)
    counts[:, FREE] = free
    counts[:, MOVABLE] = 512 - free
    found = Census(9, counts, tuple(counts.sum(axis=0).tolist()))
    assert found.moves == greedy_moves(free.tolist(), 512)


def test_moves_of_whole_blocks_only_are_none():
    counts = np.array([[512, 0, 0, 0, 0], [0, 0, 512, 0, 0], [0, 0, 0, 0, 512]])
    found = Census(9, counts, (512, 0, 512, 0, 512))
    assert found.moves == 0
    assert (found.blocks, found.free_blocks, found.reachable) == (2, 1, 2)
    assert found.counts[2, RESERVED] == 512


# -- the load -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["2.6.24", "6.1", "6.12"])
def test_a_load_leaves_a_sound_machine(kernel):
    machine = booted("128MiB", kernel, cpus=2)
    before = census(machine).frames[UNMOVABLE]
    load = Load(machine, Settings(peak=0.1, swing=0.5), seed=5)
    load.run(60_000)
    machine.validate()
    record = load._record[0]
    held = census(machine)
    ours = record["unmovable_pages"] + record["nr_cache_pages"]
    assert held.frames[UNMOVABLE] == before + ours
    assert load.operations > 60_000
    copy = machine.copy()
    huge = allocatable(machine, 9)
    assert machine == copy  # asking changes nothing
    assert 0 <= huge <= managed(machine) >> 9


def test_grouping_off_leaves_one_type():
    off = booted("128MiB", "6.1", grouping=False)
    assert set("".join(zone.pageblocks for zone in off.snapshot().zones)) <= {"U", "."}
    Load(off, Settings(), seed=1).run(20_000)
    assert int(off.tables.zones["nr_steals"].sum()) == 0
    on = booted("128MiB", "6.1")
    assert "M" in on.snapshot().zones[1].pageblocks


def test_a_reserve_is_set_as_by_sysctl():
    machine = booted("768MiB", "2.6.24", arch="i386")
    before = machine.tables.zones["watermark"][:, :3].copy()
    kbytes = recommended_min_free(machine)
    set_min_free(machine, kbytes)
    after = machine.tables.zones["watermark"][:, :3]
    assert (after > before).all()
    assert abs(int(after[:, 0].sum()) - (kbytes >> 2)) <= 2
    machine.validate()
    with pytest.raises(BadMachineError, match=r"6\.1"):
        set_min_free(booted("64MiB", "6.1"), 1000)


# -- closed forms ---------------------------------------------------------------------------------


def test_pair_shares_are_combinatorics():
    whole = comb(512, 256)
    pair = comb(510, 254) / whole  # two given frames are both free
    four = comb(508, 252) / whole
    assert pair_shares() == pytest.approx((1 - 2 * pair, 2 * pair - 2 * four, 2 * four))


def test_pinned_blocks_give_the_ratio():
    for ratio in (0.1, 0.25, 0.5, 0.9):
        pinned = pinned_for(ratio, 10_000)
        free = 10_000 * 512 - pinned
        assert (10_000 - pinned) * 512 / free == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fragmenters_leave_what_was_computed(seed):
    report = run("fragmenters", {"memory": "128MiB", "ratio": 0.3}, seed)
    assert report.verdict.holds, report.verdict.text
    blocks = report.table("presets").rows[0][-1]
    shares = [report.metrics()[f"extreme_order{order}"] for order in range(3)]
    for ours, share in zip(shares, pair_shares(), strict=True):
        assert abs(ours / 100 - share) <= tolerance(share, blocks)
    assert tolerance(0.5, blocks) < 0.06  # the bound means something
    assert report.metrics()["mimicos_large"] == 100
    for machine in report.machines.values():
        machine.validate()


def test_unmovable_pages_can_stay(tmp_path):
    report = run("fragmenters", {"memory": "64MiB", "preset": "extreme", "kept": "unmovable"})
    machine = report.machines["extreme"]
    assert census(machine).frames[UNMOVABLE] > 256
    machine.save(tmp_path / "extreme.machine")
    assert physmem.open(tmp_path / "extreme.machine").buddyinfo() == machine.buddyinfo()


def test_the_table_of_alignments_is_exact():
    rows = run("pageblock-cma", {"memory": "64MiB", "turnover": 0.2}).table("alignment").rows
    assert rows == (
        ("default", "4K", 10, 10, 4),
        ("default", "16K", 11, 11, 32),
        ("default", "64K", 13, 13, 512),
        ("extreme", "4K", 15, 15, 128),
        ("extreme", "16K", 13, 13, 128),
        ("extreme", "64K", 13, 13, 512),
    )


# -- what is claimed ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 42])
def test_reallocation_stays_flat(seed):
    report = run("llfree-frag", {"memory": "512MiB", "rounds": 20}, seed)
    assert report.verdict.holds
    metrics = report.metrics()
    assert metrics["drift"] <= 1
    assert metrics["huge_start"] > 10
    rounds = report.table("rounds")
    assert rounds.column("round") == list(range(21))
    assert all(free <= most for free, most in (row[1:3] for row in rounds.rows))
    free = [row[4] + row[5] for row in rounds.rows]
    assert len(set(free)) == 1  # each round gives back what it took


@pytest.mark.parametrize("order", ["single", "batch"])
def test_in_one_zone_hardly_anything_moves(order):
    report = run("llfree-frag", {"memory": "256MiB", "rounds": 10, "order": order})
    assert 0.8 < report.metrics()["moves_ratio"] < 1.1


@pytest.mark.slow
def test_packed_requests_bring_huge_pages_back():
    report = run("llfree-frag", {"memory": "512MiB", "placement": "tree"})
    assert report.metrics()["huge_end"] > 80
    assert report.verdict.holds


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_grouping_gives_ten_times_the_huge_pages(seed):
    report = run("gorman", {"memory": "640MiB", "turnover": 4}, seed)
    assert report.verdict.holds, report.verdict.text
    assert report.metrics()["ratio"] >= 10
    table = report.table("policies")
    assert table.column("policy") == [*POLICIES, *(name + OWN for name in POLICIES[:2])]
    unmovable = table.column("unmovable_percent")
    assert max(unmovable) - min(unmovable) < 2  # one load, not an easier one for the winner
    for machine in report.machines.values():
        machine.validate()


@pytest.mark.slow
def test_r1_at_full_size():
    report = run("llfree-frag", {"memory": "8GiB"})
    assert report.metrics()["drift"] <= 1
    assert 17 < report.metrics()["huge_start"] < 20
    assert report.operations > 19_000_000
    assert report.seconds < 30


def test_lists_strand_huge_pages():
    report = run("pcp-stranding", {"memory": "256MiB", "cpus": 8, "used": 20_000})
    assert report.verdict.holds, report.verdict.text
    wanted = 128
    for row in report.table("cases").rows:
        history, _, asked, before, after, stranded, frames, blocks = row
        assert asked == wanted
        assert after == wanted - 1
        assert before + stranded == after
        # each block that frames on lists come from is missing, and no other
        assert abs((wanted - before) - max(1, blocks)) <= 1, row
        assert frames > 0
        assert history in {"fresh", "used"}


def test_a_movable_node_serves_only_movable_requests():
    machine = movable_node("64MiB", 4, "6.12")
    machine.validate()
    zone = machine.zones[-1]
    assert (zone.name, zone.node, zone.managed_pages) == ("Movable", 1, 16384)
    assert list(machine.tables.zones[-1]["watermark"][:3]) == [32, 48, 64]
    pfn = machine.alloc_pages(gfp="GFP_KERNEL", node=1)
    assert pfn < 1 << 20
    assert machine.alloc_pages(gfp="GFP_HIGHUSER_MOVABLE", node=1) >= 1 << 20


@pytest.mark.slow
def test_few_unmovable_pages_pollute_many_blocks():
    report = run("meta-7-34", {"memory": "512MiB", "turnover": 4})
    metrics = report.metrics()
    assert metrics["unmovable"] == pytest.approx(7, abs=0.2)
    assert metrics["polluted_off"] > 2 * metrics["polluted_on"]
    assert metrics["polluted_on"] > 2 * metrics["unmovable"]
    assert metrics["huge_off"] < metrics["huge_on"]


def test_a_rule_is_toggled_alone():
    report = run("merge-tail", {"memory": "128MiB", "turnover": 1, "runs": 1})
    on, off = report.machines["on"], report.machines["off"]
    bits = int(on.tables.memory[0]["features"]) ^ int(off.tables.memory[0]["features"])
    assert bits.bit_count() == 1
    assert len(report.table("runs").rows) == 4


@pytest.mark.slow
def test_a_large_machine_costs_little():
    report = run("scale", {"memory": "256GiB", "part": "256MiB", "rounds": 3})
    assert report.verdict.holds
    assert report.metrics()["bytes_per_frame"] < 20
    assert report.metrics()["frames"] > 60 << 20


# -- the interface --------------------------------------------------------------------------------

SMALL = {
    "llfree-frag": {"memory": "128MiB", "rounds": 2},
    "gorman": {"memory": "128MiB", "turnover": 0.3},
    "merge-tail": {"memory": "128MiB", "turnover": 0.3, "runs": 1},
    "pcp-stranding": {"memory": "64MiB", "cpus": 4, "used": 2000},
    "pageblock-cma": {"memory": "64MiB", "turnover": 0.3},
    "fragmenters": {"memory": "64MiB"},
    "meta-7-34": {"memory": "128MiB", "turnover": 0.3},
    "scale": {"memory": "1GiB", "part": "16MiB", "rounds": 2},
}


def test_every_experiment_is_tried():
    assert set(SMALL) == set(EXPERIMENTS)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_report(name):
    seen = []
    first = run(name, SMALL[name], 7, lambda done, total: seen.append((done, total)))
    again = run(name, SMALL[name], 7)
    assert first.to_dict() == again.to_dict()
    assert first == again
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    text = json.dumps(first.to_dict())
    assert json.loads(text)["seed"] == 7
    assert first.provenance["kernel"] == first.params.get("kernel", "6.1")


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"pageblock-cma", "fragmenters", "scale"}))
def test_another_seed_is_another_run(name):
    tables = [run(name, SMALL[name], seed).to_dict()["tables"] for seed in (1, 2)]
    if name != "pcp-stranding":  # its counts may agree
        assert tables[0] != tables[1]


@pytest.mark.parametrize("name", SMALL)
def test_metrics_are_flat_numbers(name):
    report = run(name, SMALL[name])
    metrics = report.metrics()
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert len(metrics) == len(report.figures) + 1  # keys differ
    assert metrics["holds"] in {0, 1}
    for table in report.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    for series in report.series:
        assert all(len(line.x) == len(line.y) for line in series.lines)
    arrow = report.to_arrow()
    assert arrow.num_rows == len(report.tables[0].rows)
    assert json.loads(arrow.schema.metadata[b"physmem.experiment"])["name"] == name


def test_keywords_are_parameters():
    report = physmem.experiment("llfree-frag", memory="128MiB", rounds=1, seed=3)
    assert report.to_dict() == run("llfree-frag", {"memory": "128MiB", "rounds": "1"}, 3).to_dict()
    assert report.params["rounds"] == 1


@pytest.mark.parametrize(
    ("name", "params", "seed", "told"),
    [
        ("gormann", {}, 42, "did you mean gorman"),
        ("nothing at all", {}, 42, "known: llfree-frag"),
        ("gorman", {"turnovr": 1}, 42, "did you mean turnover"),
        ("gorman", {"memory": "many"}, 42, "a size such as 8GiB"),
        ("gorman", {"memory": "1MiB"}, 42, "128 MiB"),
        ("gorman", {"jobs": 1.5}, 42, "a whole number"),
        ("gorman", {"jobs": True}, 42, "a number"),
        ("gorman", {"jobs": 0}, 42, "4 to 4096"),
        ("gorman", {"anonymous": "nan"}, 42, "0.01 to 0.6"),
        ("gorman", {"kernel": "5.0"}, 42, "choose 2.6.24, 6.1 or 6.12"),
        ("gorman", {}, -1, "seed -1"),
        ("gorman", {}, 1 << 63, "seed"),
        ("gorman", {}, "x", "seed 'x'"),
        ("scale", {"memory": "128MiB", "part": "1GiB"}, 42, "at most nine tenths"),
    ],
)
def test_what_cannot_be_is_refused(name, params, seed, told):
    with pytest.raises(BadRequestError, match=told):
        run(name, params, seed)


def test_too_small_a_machine_says_so():
    holder = Holder(Machine.build("64MiB"), seed=1)
    with pytest.raises(BadRequestError, match="fell to its watermarks"):
        holder.need(16384)
    with pytest.raises(BadRequestError, match="it has"):
        run("llfree-frag", {"size": 1})
    report = run("llfree-frag", {"memory": "128MiB", "rounds": 1})
    with pytest.raises(BadRequestError, match="has rounds, published"):
        report.table("other")
