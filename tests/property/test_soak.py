# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak run itself: it ends well, repeats itself, and finds the first bad operation."""

from tests import soak
from tests.property import native
from tests.property.worker import Worker


def test_a_short_soak(capsys):
    assert soak.main(["--operations", "60000", "--seed", "1"]) == 0
    told = capsys.readouterr().out
    assert "seed 1" in told
    assert "60,000 operations in" in told


def test_equal_seeds_do_equal_work():
    def result(seed):
        worker = Worker(soak.SHAPES["normal"], seed)
        worker.run(20_000)
        return worker.result()

    assert result(1) == result(1) != result(2)


def test_work_is_of_all_kinds():
    worker = Worker(soak.SHAPES["normal"], 1)
    worker.against_twin(3000)
    worker.run(100_000)
    worker.check()
    for field in (native.GOT, native.FAILED, native.FREED):
        assert worker.ctl[field] > 1000
    assert worker.machine.tables.zones["nr_claims"].sum() > 100


def test_the_first_bad_operation_is_found(monkeypatch, capsys):
    good = Worker.check

    def check(worker):
        if worker.done >= 12_345:
            worker.machine.tables.zones["nr_free_pages"] += 1
        good(worker)

    monkeypatch.setattr(Worker, "check", check)
    assert soak.main(["--operations", "50000", "--seed", "7", "--shape", "dma"]) == 1
    told = capsys.readouterr().out
    assert "shape dma, seed 7, operation 12345: nr_free_pages" in told
    assert "--seed 7 --shape dma" in told


def test_a_difference_to_the_twin_is_found(monkeypatch, capsys):
    monkeypatch.setattr("tests.property.shapes.Twin.alloc_pages", lambda *_, **__: None)
    assert soak.main(["--operations", "50000", "--seed", "7", "--shape", "dma"]) == 1
    assert "against the twin: step" in capsys.readouterr().out


def test_a_frame_given_twice_is_found(monkeypatch, capsys):
    monkeypatch.setattr(soak, "SLICE", 0)
    start = Worker.__init__

    def init(worker, *args):
        start(worker, *args)
        worker.owned[2000] = 1

    monkeypatch.setattr(Worker, "__init__", init)
    assert soak.main(["--operations", "50000", "--seed", "7", "--shape", "dma"]) == 1
    assert "frame 0x7d0: given twice" in capsys.readouterr().out
