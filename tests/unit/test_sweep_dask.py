# SPDX-License-Identifier: GPL-2.0-or-later
"""Sweeps on a real Dask cluster on loopback: scheduler and workers are processes of their own."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli_fixtures import PROGRAM, environment
from tests.sweep_fixtures import GRID, DirectPool, make_study, run_study

from physmem.lab.dask_cluster import DaskPool
from physmem.lab.journal import read_records
from physmem.lab.study import read_study
from physmem.lab.sweep import run_file, state_folder, sweep
from physmem.lab.sweep_plan import plan_study
from physmem.lib.errors import ClusterError

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

DASK = (sys.executable, "-m", "dask")
LIMIT = 60  # seconds until a process must have done what a test waits for


def wait_until(true, what):
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.05)


class Cluster:
    """Scheduler and workers; all end with the test."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()
        self.processes = contextlib.ExitStack()
        self.workers = []
        self._file = folder / "scheduler.json"
        self.scheduler = self._start(
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(self._file)),
        )
        wait_until(self._has_address, "the scheduler does not start")

    def _has_address(self):
        try:
            self.address = json.loads(self._file.read_text())["address"]
        except (OSError, ValueError):
            return False
        return True

    def _start(self, *arguments):
        log = self.processes.enter_context((self.folder / f"{len(self.workers)}.log").open("ab"))
        return self.processes.enter_context(
            _Ended(
                [*DASK, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED="False"),
                cwd=self.folder,
            )
        )

    def add_worker(self):
        number = len(self.workers)
        self.workers.append(None)
        self.workers[number] = self._start(
            *("worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"),
            *("--host", "127.0.0.1", "--local-directory", str(self.folder / f"w{number}")),
            *("--death-timeout", str(LIMIT)),
        )
        return self.workers[number]


class _Ended(subprocess.Popen):
    """A process that ends with its block."""

    def __exit__(self, *given):
        self.kill()
        return super().__exit__(*given)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path / "cluster")
    with made.processes:
        yield made


def test_a_cluster_whose_worker_is_killed_gives_the_same_bytes(tmp_path, cluster):
    for _ in range(2):
        cluster.add_worker()
    folder = tmp_path / "study"
    study = make_study(folder, body=f"{GRID}sleep = 0.1\n", seeds=4)
    local = folder / "local.parquet"
    run_study(study, local, DirectPool())
    output = folder / "r.parquet"
    command = [*PROGRAM, "sweep", str(study), "-o", str(output), "--dask", cluster.address]

    def both_have_worked():
        records = read_records(state_folder(output)).values()
        return len({record.worker for record in records}) == 2

    with _Ended(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as run:
        wait_until(lambda: both_have_worked() or run.poll() is not None, "no task is done")
        assert run.poll() is None, run.communicate()[1]
        cluster.workers[0].kill()
        out, err = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, err
    assert "winner: " in out
    assert output.read_bytes() == local.read_bytes()
    record = json.loads(run_file(output).read_text())
    assert (record["pool"]["kind"], record["done_now"]) == ("dask", 32)
    assert len({task["worker"] for task in record["tasks"]}) == 2
    assert cluster.workers[1].poll() is None


def test_a_worker_is_sent_the_captures_that_it_cannot_read(tmp_path, cluster, monkeypatch):
    cluster.add_worker()
    study = make_study(tmp_path / "study", body='[settings]\nbug = ["no", "yes"]\n', captures=3)
    run_study(study, tmp_path / "local.parquet", DirectPool())
    monkeypatch.chdir(study.parent)
    # names relative to this process: the worker, in another folder, finds nothing there
    study = read_study(study)
    plan = plan_study(replace(study, captures={name: Path(name) for name in study.captures}))
    assert plan.rows[0].task.target == "c0.physmem"
    made = sweep(plan, tmp_path / "r.parquet", DaskPool(cluster.address))
    assert (tmp_path / "r.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert len(made.results.failed) == 6
    kept = {path.stem for path in cluster.folder.rglob("*.physmem")}
    assert kept == set(plan.digests.values())


def test_a_scheduler_that_goes_away(tmp_path, cluster):
    cluster.add_worker()
    study = make_study(tmp_path / "study", body=f"{GRID}sleep = 0.2\n")
    output = tmp_path / "r.parquet"

    def kill_after_three(done, _total):
        if done == 3:
            cluster.scheduler.kill()

    pool = DaskPool(cluster.address)
    with pytest.raises(ClusterError, match="the same command goes on"):
        run_study(study, output, pool, progress=kill_after_three)
    assert not output.exists()
    rest = DirectPool()
    run_study(study, output, rest)
    assert 10 <= len(rest.ran) <= 13
    run_study(study, tmp_path / "local.parquet", DirectPool())
    assert output.read_bytes() == (tmp_path / "local.parquet").read_bytes()


def test_a_cluster_without_workers(tmp_path, cluster):
    study = make_study(tmp_path / "study")
    with pytest.raises(ClusterError, match="no worker for 1 s; start one with `dask worker tcp"):
        run_study(study, tmp_path / "r.parquet", DaskPool(cluster.address, patience=1))


def test_no_scheduler_there(tmp_path):
    study = make_study(tmp_path / "study")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"no Dask scheduler answers within 1 s"):
            run_study(study, tmp_path / "r.parquet", DaskPool(address, patience=1))
    for address in ("nonsense", "tcp://", "foo://127.0.0.1:1", "tcp://127.0.0.1:x"):
        with pytest.raises(ClusterError, match="no Dask scheduler answers"):
            run_study(study, tmp_path / "r.parquet", DaskPool(address, patience=1))


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    study = make_study(tmp_path / "study")
    with pytest.raises(ClusterError, match=r"install physmem\[dask\]"):
        run_study(study, tmp_path / "r.parquet", DaskPool("tcp://127.0.0.1:1"))
