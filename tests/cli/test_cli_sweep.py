# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem sweep` and `physmem tune` as programs."""

import json
import shlex
import shutil
import socket
from pathlib import Path

import pytest
from tests.cli_fixtures import program
from tests.sweep_fixtures import GRID, make_study

from physmem.lab.journal import NAME
from physmem.lab.results import read_results
from physmem.lab.sweep import run_file, state_folder
from physmem.trace.capture import read_info

RECORDING = Path(__file__).parents[1] / "recordings" / "linux-6.12-x86_64-256M-short.physmem"
WRONG = '[settings]\nwrong = ["no", "yes"]\nmobility = [true, false]\n'


def refused(*arguments, **options):
    """The one line with which a command refuses its input."""
    done = program(*arguments, **options)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("physmem: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_an_example_to_begin_with():
    done = program("sweep", "--example")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[objective]" in done.stdout


def test_a_plan_runs_nothing(tmp_path):
    study = make_study(tmp_path, body=GRID)
    done = program("sweep", study, "--plan")
    assert done.returncode == 0, done.stderr
    assert "16 tasks: 0 done, 16 to do" in done.stdout
    assert not state_folder(tmp_path / "study.parquet").exists()
    listed = json.loads(program("sweep", study, "--plan", "--json").stdout)
    assert (listed["tasks"], listed["known"], len(listed["rows"])) == (16, 0, 16)
    assert listed["rows"][1] | {"key": ""} == {
        "subject": "c0.physmem",
        "variant": "movablecore=0 mobility=on",
        "seed": 1,
        "settings": {"movablecore": "0", "mobility": "on"},
        "key": "",
        "status": "to do",
    }


@pytest.mark.slow
def test_a_sweep_from_begin_to_end(tmp_path):
    study = make_study(tmp_path, body=GRID)
    done = program("sweep", study.name, "--jobs", "2", "--metric", "free", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    output = tmp_path / "study.parquet"
    lines = done.stdout.splitlines()
    assert lines[0] == "share (more is better)"
    assert lines[1].split() == ["variant", "runs", "mean", "std", "min", "max"]
    assert len([line for line in lines if " mobility=" in line and "winner" not in line]) == 8
    assert any(line.startswith("winner: movablecore=") for line in lines)
    assert lines[-1] == "results  study.parquet"
    assert run_file(output).exists()
    assert (state_folder(output) / NAME).exists()
    again = program("sweep", "--summary", output.name, "--metric", "free", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "16 tasks: 16 done, 0 to do" in program("sweep", study, "--plan").stdout
    told = json.loads(program("sweep", study, "--json").stdout)
    assert (told["tasks"], told["ok"], told["failed"]) == (16, 16, [])
    results = read_results(output)
    assert told["captures"] == results.info.captures
    best = told["variants"][0]
    values = [row.metrics["share"] for row in results.rows if row.variant == best["name"]]
    assert best["mean"] == pytest.approx(sum(values) / len(values))
    assert told["winner"]["name"] == best["name"]
    assert told["winner"]["margin"] == pytest.approx(best["mean"] - told["variants"][1]["mean"])
    quiet = program("sweep", study, "--quiet")
    assert quiet.stdout.count("\n") == 1
    assert quiet.stdout.startswith(f"winner: {best['name']}, share ")


@pytest.mark.slow
def test_failures_are_told_and_end_in_1(tmp_path):
    study = make_study(tmp_path, body=WRONG, seeds=3)
    done = program("sweep", study)
    assert done.returncode == 1
    failures = [line for line in done.stderr.splitlines() if "failed:" in line]
    assert failures[0] == (
        "physmem: failed: c0.physmem, wrong=yes mobility=on, seed 0: c0.physmem: no such order"
    )
    assert failures[-1] == "physmem: failed: and 2 more (--json lists all)"
    assert "failed" in done.stdout.splitlines()[1]
    told = json.loads(program("sweep", study, "--json").stdout)
    assert len(told["failed"]) == 12
    assert told["failed"][0]["error"] == "BadRequestError"


def test_sweeps_that_cannot_be_meant(tmp_path):
    study = make_study(tmp_path, body=GRID)
    assert "--example prints one" in refused("sweep")
    assert "no.toml: No such file" in refused("sweep", tmp_path / "no.toml")
    assert "ends in .parquet" in refused("sweep", study, "-o", tmp_path / "a.csv")
    assert "no directory" in refused("sweep", study, "-o", tmp_path / "no" / "a.parquet")
    assert "leave --jobs out" in refused("sweep", study, "--jobs", "2", "--dask", "tcp://x:1")
    assert "no such file" in refused("sweep", "--summary", tmp_path / "no.parquet")
    study.write_text(study.read_text().replace("seeds", "seed"))
    assert "line 2: seed: no such key; did you mean seeds?" in refused("sweep", study)


@pytest.mark.slow
def test_a_metric_that_does_not_exist_is_told_at_the_first_result(tmp_path):
    study = make_study(tmp_path, metric="shares")
    assert "objective.metric: shares: no such metric; did you mean share?" in refused(
        "sweep", study
    )


@pytest.mark.slow
def test_no_scheduler_is_one_line(tmp_path):
    pytest.importorskip("distributed")
    study = make_study(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert "no Dask scheduler answers" in refused("sweep", study, "--dask", address)


@pytest.mark.slow
def test_a_sweep_of_a_recording(tmp_path):
    shutil.copy(RECORDING, tmp_path / "guest.physmem")
    study = tmp_path / "study.toml"
    study.write_text(
        'captures = ["guest.physmem"]\n[objective]\nmetric = "free_pages"\n'
        "[settings]\nmin_free_kbytes = [2048, 8192]\n"
        '[[variant]]\nname = "baseline"\n'
        '[[experiment]]\nname = "llfree-frag"\n'
    )
    assert "baseline" not in refused("sweep", study)  # the experiment has no such parameters
    study.write_text(study.read_text().partition("[[experiment]]")[0])
    wrong = study.read_text().replace("min_free_kbytes", "min_free_kbyte")
    (tmp_path / "wrong.toml").write_text(wrong)
    assert "did you mean min_free_kbytes?" in refused("sweep", tmp_path / "wrong.toml", "--plan")
    done = program("sweep", study, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    rows = read_results(tmp_path / "study.parquet").rows
    assert [row.variant for row in rows] == [
        "min_free_kbytes=2048",
        "min_free_kbytes=8192",
        "baseline",
    ]
    assert rows[0].metrics["managed_pages"] == rows[2].metrics["managed_pages"] > 0
    assert "capture" not in rows[0].metrics


def tune(folder, *arguments):
    return program(
        *("tune", "c0.physmem", "--objective", "share", "--evaluator", "measure.py:evaluate"),
        *("--knob", "mobility=on|off", "--knob", "size=0..64M:8M", "--trials", "4"),
        *arguments,
        cwd=folder,
    )


@pytest.mark.slow
def test_a_search_from_begin_to_end(tmp_path):
    pytest.importorskip("optuna")
    make_study(tmp_path)
    done = tune(tmp_path, "--set", "x=1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "share:max, 4 trials"
    assert lines[1].split() == ["trial", "mobility", "size", "share"]
    assert lines[-2].startswith("best: share 0.")
    command = shlex.split(lines[-1])
    capture = str(tmp_path / "c0.physmem")
    assert command[:4] == ["physmem", "whatif", capture, "--set"]
    assert command[4].startswith("x=1,mobility=")
    assert command[5:] == ["--seed", "0"]
    assert (tmp_path / "c0.tune.db").exists()
    read_info(tmp_path / "c0.physmem")  # is as it was
    told = json.loads(tune(tmp_path, "--set", "x=1", "--trials", "6", "--json").stdout)
    assert told["known_before"] == 4
    assert len(told["trials"]) == 6
    assert told["best"]["value"] == max(trial["value"] for trial in told["trials"])
    other = tmp_path / "other"
    make_study(other)
    fresh = json.loads(
        tune(other, "--set", "x=1", "--trials", "6", "--json", "--storage", "sqlite:///o.db").stdout
    )
    assert fresh["trials"] == told["trials"]
    assert (other / "o.db").exists()


def test_searches_that_cannot_be_meant(tmp_path):
    make_study(tmp_path)
    given = ("--evaluator", "measure.py:evaluate", "--objective", "share")

    def said(*arguments):
        return refused("tune", *arguments, cwd=tmp_path)

    capture = ("c0.physmem", *given)
    assert "--knob a: write name=low..high" in said(*capture, "--knob", "a")
    assert "a: set more than once" in said(*capture, "--knob", "a=1..2", "--set", "a=3")
    assert "--set a: write NAME=VALUE" in said(*capture, "--knob", "a=1..2", "--set", "a")
    assert "no.physmem: no such file" in said("no.physmem", *given, "--knob", "a=1..2")
    assert "no.py: No such file" in said(*capture, "--knob", "a=1..2", "--evaluator", "no.py:f")
    assert "there is no experiment 'frog'" in said(
        "frog", "--objective", "drift", "--knob", "rounds=1..2"
    )
    assert "did you mean movablecore?" in said(
        "c0.physmem", "--objective", "x", "--knob", "movablecor=1M..2M"
    )
