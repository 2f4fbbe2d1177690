# SPDX-License-Identifier: GPL-2.0-or-later
"""What-if against kernels that were really booted so, and against the recording itself."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.cli_fixtures import EVENTS, PROGRAM, environment, tiny_recording

import physmem
from physmem.lab.evaluate import evaluate
from physmem.lab.run import run_study
from physmem.lib.errors import BadCaptureError, BadInputError, BadMachineError, PhysmemError

RECORDINGS = Path(__file__).parents[1] / "recordings"
BASE = RECORDINGS / "linux-6.1-x86_64-512M.physmem"
MOVABLE = RECORDINGS / "linux-6.1-x86_64-512M-movablecore.physmem"
EVERY = sorted(RECORDINGS.glob("*.physmem"), key=lambda path: path.name)


def told(zone):
    return (
        f"{zone.node} {zone.name}: free {zone.free_error:+.4f} usable {zone.usable_error:+.4f}"
        f" blocks {zone.blocks_error:.4f}"
    )


@pytest.mark.parametrize(
    ("capture", "settings", "against"),
    [(BASE, "movablecore=128M", MOVABLE), (MOVABLE, "movablecore=0", BASE)],
    ids=["to-movablecore", "from-movablecore"],
)
def test_prediction_holds_against_a_kernel_booted_so(capture, settings, against):
    report = physmem.whatif(capture, settings, against=against)
    assert report.against is not None
    assert not report.against.notes
    assert len(report.against.zones) == len(physmem.load(against).zones)
    for zone in report.against.zones:
        assert zone.there == "both"
        assert zone.predicted.managed_pages == zone.actual.managed_pages
        assert zone.holds, told(zone)
    assert report.against.holds


@pytest.mark.slow
@pytest.mark.parametrize("capture", EVERY, ids=lambda path: path.stem)
def test_the_unchanged_machine_ends_where_the_recording_ends(capture):
    report = physmem.whatif(capture, against=capture)
    assert report.against is not None
    assert report.variants[0].counters["failed"] == 0
    for zone in report.against.zones:
        assert zone.there == "both"
        assert zone.holds, told(zone)


def test_the_wrong_variant_does_not_hold():
    report = physmem.whatif(BASE, "movablecore=300M", against=MOVABLE)
    assert report.against is not None
    assert not report.against.holds
    assert any("movablecore" in note for note in report.against.notes)


def test_a_zone_of_one_side_only_is_listed():
    report = physmem.whatif(BASE, against=MOVABLE)
    assert report.against is not None
    movable = {zone.name: zone for zone in report.against.zones}["Movable"]
    assert movable.there == "actual"
    assert movable.predicted.managed_pages == 0
    assert movable.actual.managed_pages > 0
    assert not report.against.holds


def test_the_same_seed_gives_the_same_bytes():
    settings = ("shuffle=on", "mobility=off")
    first = run_study(BASE, settings, sample=200_000, seed=5)
    second = run_study(BASE, settings, sample=200_000, seed=5)
    assert first.report is not None
    assert second.report is not None
    assert json.dumps(first.report.to_dict()) == json.dumps(second.report.to_dict())
    other = run_study(BASE, settings[:1], seed=6)
    assert other.runs[1].machine.differences(first.runs[1].machine)


def test_evaluate_tells_the_same_as_whatif():
    row = evaluate(BASE, {"movablecore": "128M"})
    report = physmem.whatif(BASE, "movablecore=128M")
    whole = report.variants[1].whole
    assert row["huge_now"] == whole.huge_now
    assert row["polluted"] == whole.polluted
    assert row["digest"] == report.digest
    assert row["node0_Movable_free_pages"] == report.variants[1].zones[2].free_pages
    assert all(isinstance(value, int | float | str) for value in row.values())


def test_metrics_add_up():
    report = physmem.whatif(BASE, "movablecore=128M", sample=0)
    for variant in report.variants:
        whole = variant.whole
        assert whole.free + whole.movable_only + whole.polluted == whole.blocks
        assert whole.huge_now <= whole.huge_compacted + whole.pcp_pages
        assert sum(zone.free_pages for zone in variant.zones[:-1]) == whole.free_pages
        assert whole.mixed <= whole.polluted
        last = [row for row in variant.samples if row["node"] < 0][-1]
        assert last["huge_now"] == whole.huge_now
        assert last["polluted"] == whole.polluted
        assert last["done"] == report.workload["operations"]


def test_polluters_hold_the_unmovable_pages():
    study = run_study(BASE)
    assert study.report is not None
    variant = study.report.variants[0]
    assert variant.polluters[0].blocks >= variant.polluters[1].blocks
    for each in variant.polluters:
        assert each.alone <= each.blocks <= each.allocations
        assert "MOVABLE" not in each.gfp or each.pid == -1


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        *("mem=400M", "kernel=6.12", "kernel=2.6.24", "mobility=off", "pcp=off", "max_order=8"),
        *("list_order=address", "min_free_kbytes=20000", "percpu_pagelist_high_fraction=8"),
        *("lowmem_reserve_ratio=32:32:32:0:0", "kernelcore=256M", "watermark_scale_factor=200"),
    ],
)
def test_variants_stay_consistent(settings):
    study = run_study(BASE, [settings])
    study.runs[1].machine.validate()
    assert study.runs[1].count("gives_refused") == 0
    assert study.runs[1].count("early_failed") == 0


def test_what_cannot_be_booted_is_refused():
    with pytest.raises(BadMachineError, match="no such pages"):
        physmem.whatif(BASE, "page_size=64K")
    with pytest.raises(BadInputError, match="has 2"):
        physmem.whatif(BASE, until=1 << 40)
    with pytest.raises(BadCaptureError, match="no such file"):
        physmem.whatif(BASE, against="/no/such/file.physmem")


def test_a_recording_of_an_unknown_machine_is_refused(tmp_path):
    places = {"state0_before_line": 2, "state1_before_line": 7}
    trace = {"lines": 7, "events": EVENTS, "lost": 0}
    folder = tiny_recording(tmp_path / "a", manifest={"arch": "", "trace": trace, **places})
    with pytest.raises(BadCaptureError, match="cannot be booted again"):
        physmem.whatif(folder)
    # 4 MiB at 16 MiB: no kernel starts on that
    with pytest.raises(PhysmemError):
        physmem.whatif(tiny_recording(tmp_path / "b"))


def run(*arguments):
    return subprocess.run(
        [*PROGRAM, "whatif", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_the_command_prints_variants_and_the_comparison():
    done = run(BASE, "--set", "movablecore=128M", "--against", MOVABLE)
    assert done.returncode == 0, done.stderr
    for words in ("as recorded", "unusable", "who pollutes", "holds", "Assumed"):
        assert words in done.stdout
    assert run(BASE, "--against", MOVABLE, "-q").returncode == 1


def test_json_parquet_and_plot(tmp_path):
    table, picture = tmp_path / "a.parquet", tmp_path / "a.png"
    done = run(
        *(BASE, "--set", "movablecore=128M", "--against", MOVABLE, "--json"),
        *("--sample", "150000", "--parquet", table, "--plot", picture),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    zone = report["against"]["zones"][1]
    assert (zone["node"], zone["name"]) == (0, "DMA32")
    for side in ("predicted", "actual"):
        assert set(zone[side]) == {
            "managed_pages",
            "free_pages",
            "usable_order9_share",
            "pageblocks",
        }
        assert 0 <= zone[side]["usable_order9_share"] <= 1
        assert zone[side]["pageblocks"]["Unmovable"] > 0
    from pyarrow import parquet

    rows = parquet.read_table(table)
    told_there = json.loads(rows.schema.metadata[b"physmem.whatif"])
    assert told_there["digest"] == report["digest"]
    assert set(rows["settings"].to_pylist()) == {"as recorded", "movablecore=128M"}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "movablecor=1G"], "did you mean movablecore"),
        (["--plot", "a.txt"], ".png or .svg"),
        (["--against", "/no/such"], "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments, words):
    done = run(BASE, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
