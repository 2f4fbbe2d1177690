# SPDX-License-Identifier: GPL-2.0-or-later
"""Sweeps in processes: equal results, processes that die, a sweep that is killed."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli_fixtures import PROGRAM, environment
from tests.sweep_fixtures import GRID, DirectPool, make_study, run_study, tiny_capture

from physmem.lab.journal import NAME
from physmem.lab.local_pool import LocalPool
from physmem.lab.sweep import state_folder
from physmem.lib.errors import BadInputError

pytestmark = pytest.mark.slow  # a process takes half a second to start


def test_the_number_of_processes_is_no_part_of_the_results(tmp_path):
    study = make_study(tmp_path, body=GRID)
    run_study(study, tmp_path / "direct.parquet")
    made = run_study(study, tmp_path / "one.parquet", LocalPool(1))
    run_study(study, tmp_path / "two.parquet", LocalPool(2))
    assert (made.known, made.done) == (0, 16)
    expected = (tmp_path / "direct.parquet").read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == expected
    assert (tmp_path / "two.parquet").read_bytes() == expected


def test_a_process_that_dies_is_replaced(tmp_path):
    tally = tmp_path / "tally"
    body = f'[settings]\ntimes = 1\ndies = ["", "{tally}"]\n'
    study = make_study(tmp_path, captures=1, seeds=3, body=body)
    made = run_study(study, tmp_path / "r.parquet", LocalPool(2))
    assert made.results.failed == ()
    assert len(tally.read_text()) == 3 + 1  # once for each seed, and once killed
    run_study(study, tmp_path / "direct.parquet", DirectPool())
    assert (tmp_path / "r.parquet").read_bytes() == (tmp_path / "direct.parquet").read_bytes()


def test_a_task_that_kills_its_process_fails_alone(tmp_path):
    tally = tmp_path / "tally"
    body = f'[settings]\ntimes = 100\ndies = ["", "{tally}"]\n'
    study = make_study(tmp_path, captures=1, seeds=1, body=body)
    made = run_study(study, tmp_path / "r.parquet", LocalPool(2))
    assert [row.error for row in made.results.rows] == ["", "WorkerDied"]
    assert made.results.failed[0].message.startswith("its worker died 3 times")
    assert 3 <= len(tally.read_text()) <= 4
    pool = DirectPool(order=lambda _tasks: [])  # not noted: it would be tried again
    with pytest.raises(KeyError):
        run_study(study, tmp_path / "r.parquet", pool)


def test_a_capture_that_changes_in_between_ends_the_sweep(tmp_path):
    study = make_study(tmp_path, body=f"{GRID}sleep = 0.1\n")

    def change(done, _total):
        if done == 2:
            tiny_capture(tmp_path / "c1.physmem", 99)

    with pytest.raises(BadInputError, match=r"c1\.physmem: changed or gone since the start"):
        run_study(study, tmp_path / "r.parquet", LocalPool(1), progress=change)
    made = run_study(study, tmp_path / "r.parquet", LocalPool(2))
    assert (made.known, made.done) == (8, 8)
    assert list(made.unused) == []


def test_kill_9_and_the_same_command_again(tmp_path):
    body = f"{GRID}sleep = 0.1\n"
    study = make_study(tmp_path, body=body, seeds=3)
    whole = tmp_path / "whole.parquet"
    run_study(study, whole, DirectPool())
    output = tmp_path / "r.parquet"
    command = [*PROGRAM, "sweep", str(study), "-o", str(output), "--jobs", "2"]
    journal = state_folder(output) / NAME
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    ) as first:
        limit = time.monotonic() + 30
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < limit
            time.sleep(0.02)
        workers = _children(first.pid)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert workers
    assert not output.exists()
    limit = time.monotonic() + 10
    while any(map(_is_alive, workers)):  # they notice that nobody waits for them
        assert time.monotonic() < limit
        time.sleep(0.05)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert "tasks are done from before" in done.stderr
    assert output.read_bytes() == whole.read_bytes()


def test_an_interrupt_says_that_nothing_is_lost(tmp_path):
    study = make_study(tmp_path, body=f"{GRID}sleep = 0.2\n", seeds=5)
    output = tmp_path / "r.parquet"
    command = [*PROGRAM, "sweep", str(study), "-o", str(output), "--jobs", "1"]
    # a shell may have started these tests in the background, with interrupts ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as first:
        signal.signal(signal.SIGINT, before)
        limit = time.monotonic() + 30
        journal = state_folder(output) / NAME
        while not journal.exists() or not journal.read_bytes():
            assert time.monotonic() < limit
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=20)
    assert (first.returncode, out) == (130, "")
    assert "the same command goes on" in err
    assert err.endswith("physmem: interrupted\n")
    assert "Traceback" not in err


def _stat(pid):
    """State and parent of a process (Linux); None: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def _children(pid):
    """Processes that a process has started."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [child for child in pids for stat in [_stat(child)] if stat and stat[1] == pid]


def _is_alive(pid):
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"
