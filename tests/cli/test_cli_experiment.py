# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem experiment`: listing, running, files, and what is refused."""

import json
from pathlib import Path

import pytest

from physmem.cli.main import run
from physmem.experiments import EXPERIMENTS
from physmem.machine.machine import open_machine

SMALL = ("llfree-frag", "--memory", "128MiB", "--rounds", "2")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHYSMEM_DEBUG", raising=False)


def told(capsys, *arguments, code=0):
    assert run(["experiment", *arguments]) == code
    return capsys.readouterr().out


def test_without_a_name_they_are_listed(capsys):
    text = told(capsys)
    for name, each in EXPERIMENTS.items():
        assert f"{name} " in text
        assert each.claim in text
    listed = json.loads(told(capsys, "--json"))["experiments"]
    assert [each["name"] for each in listed] == list(EXPERIMENTS)
    assert listed[0]["parameters"]["memory"] == "8GiB"


def test_a_report_has_both_figures(capsys):
    text = told(capsys, *SMALL)
    assert "USENIX ATC 2023" in text
    assert "15.06" in text
    assert "same shape" in text
    assert "HOLDS: " in text
    assert "seed=42" in text
    assert told(capsys, *SMALL, "--quiet").startswith("HOLDS: ")


def test_json_is_the_same_for_the_same_seed(capsys):
    first = told(capsys, *SMALL, "--json", "--seed", "9")
    assert first == told(capsys, *SMALL, "--json", "--seed", "9")
    found = json.loads(first)
    assert found["params"] == {
        "memory": "128MiB",
        "rounds": 2,
        "fill": 0.9,
        "part": 0.1,
        "order": "batch",
        "placement": "linux",
        "cpus": 1,
        "kernel": "6.1",
    }
    assert found["seed"] == 9
    assert {figure["comparison"] for figure in found["figures"]} <= {"", "same shape"}
    assert len(found["tables"]["rounds"]) == 3
    assert found["provenance"]["physmem"]


def test_files_are_written(capsys):
    import pyarrow.parquet as pq
    from PIL import Image

    options = ("--parquet", "a.parquet", "--plot", "a.png", "--save", "a.machine", "--quiet")
    told(capsys, *SMALL, *options)
    table = pq.read_table("a.parquet")
    assert table.num_rows == 3
    assert b"physmem.experiment" in table.schema.metadata
    with Image.open("a.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20
    assert open_machine("a.machine").nr_free_pages > 0
    told(capsys, *SMALL, "--table", "published", "--parquet", "b.parquet", "--quiet")
    assert "allocator" in pq.read_table("b.parquet").column_names
    told(capsys, *SMALL, "--plot", "a.svg", "--quiet")
    first = Path("a.svg").read_bytes()
    told(capsys, *SMALL, "--plot", "a.svg", "--quiet")
    assert Path("a.svg").read_bytes() == first
    assert b"possible huge pages" in first or b"<path" in first


def test_a_chosen_machine_is_kept(capsys):
    small = ("fragmenters", "--memory", "128MiB", "-q")
    told(capsys, *small, "--save", "a.machine", "--machine", "moderate")
    assert open_machine("a.machine").snapshot().zones
    told(capsys, *small, "--save", "a.machine", "--machine", "other", code=2)


def test_what_does_not_hold_is_told(capsys):
    # too short a load fragments nothing
    told(capsys, "gorman", "--memory", "128MiB", "-p", "turnover=0.1", "-q", code=1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("gormann",), "did you mean gorman?"),
        (("gorman", "--param", "x=1"), "no parameter 'x'"),
        (("gorman", "--param", "turnover"), "name=value"),
        (("gorman", "-p", "jobs=4", "-p", "jobs=5"), "given twice"),
        (("gorman", "--memory", "1GiB", "-p", "memory=2GiB"), "say the same"),
        (("gorman", "--rounds", "3"), "no parameter 'rounds'"),
        (("gorman", "--memory", "1KiB"), "must be"),
        ((*SMALL, "--seed", "-1"), "seed -1"),
        ((*SMALL, "--plot", "a.pdf"), ".png or .svg"),
        ((*SMALL, "--parquet", "a.csv"), ".parquet"),
        ((*SMALL, "--save", "no/such/a"), "no directory"),
        ((*SMALL, "--parquet", "a.parquet", "--table", "x"), "has rounds, published"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, reason):
    assert run(["experiment", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert len(error.splitlines()) == 1
