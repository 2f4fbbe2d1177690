# SPDX-License-Identifier: GPL-2.0-or-later
"""Sweeps in this process: tasks and their keys, the journal, results, summaries."""

import json
import math
import random
import statistics

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tests.sweep_fixtures import GRID, DirectPool, make_study, run_study, tiny_capture

from physmem.lab import task as task_module
from physmem.lab.evaluator import CAPTURE, Evaluator, load_evaluator, measure
from physmem.lab.journal import NAME, Journal, read_records
from physmem.lab.results import read_results, write_results
from physmem.lab.study import read_study
from physmem.lab.summary import spread_of, summarise
from physmem.lab.sweep import known_outcomes, run_file, state_folder
from physmem.lab.sweep_plan import plan_study
from physmem.lab.task import NEEDS_CAPTURE, OTHER_SOURCES, Outcome, Task, keep_capture, run_task
from physmem.lib.errors import BadInputError, BadStudyError


def test_the_order_of_the_tasks_is_no_part_of_the_results(tmp_path):
    study = make_study(tmp_path, body=GRID)
    made = [
        run_study(study, tmp_path / f"{name}.parquet", DirectPool(order)) and tmp_path
        for name, order in (
            ("a", list),
            ("b", reversed),
            ("c", lambda tasks: random.Random(1).sample(tasks, len(tasks))),
        )
    ]
    assert made
    first, *others = [(tmp_path / f"{name}.parquet").read_bytes() for name in "abc"]
    assert others == [first, first]


def test_results_hold_rows_in_order_and_say_from_what(tmp_path):
    study = make_study(tmp_path, body=GRID)
    output = tmp_path / "r.parquet"
    run_study(study, output)
    table = parquet.read_table(output)
    assert table.column_names == [
        *("subject", "digest", "variant", "seed", "status", "error", "message"),
        *("set.mobility", "set.movablecore", "free", "share", "bytes", "zone"),
    ]
    assert table["seed"].to_pylist() == [0, 1] * 8
    assert table["subject"].to_pylist() == ["c0.physmem"] * 8 + ["c1.physmem"] * 8
    assert table["set.mobility"].to_pylist()[:4] == ["on", "on", "off", "off"]
    assert (table["free"].type, table["share"].type) == (pa.int64(), pa.float64())
    results = read_results(output)
    assert results.info.study == study.read_text()
    assert list(results.info.captures) == ["c0.physmem", "c1.physmem"]
    assert results.rows[0].digest == results.info.captures["c0.physmem"]
    assert results.info.evaluators["capture"].startswith("measure.py:evaluate ")
    assert str(tmp_path).encode() not in output.read_bytes()
    again = tmp_path / "again.parquet"
    write_results(again, results)
    assert again.read_bytes() == output.read_bytes()


def test_what_ran_before_is_not_run_again(tmp_path):
    study = make_study(tmp_path, body=GRID)
    output = tmp_path / "r.parquet"
    whole = DirectPool()
    run_study(study, output, whole)
    assert len(whole.ran) == 16
    first = output.read_bytes()
    output.unlink()
    told = []
    pool = DirectPool()
    made = run_study(study, output, pool, started=lambda *given: told.append(given))
    assert pool.ran == []
    assert (made.known, made.done, told) == (16, 0, [(16, 0, {})])
    assert output.read_bytes() == first


def test_an_interrupted_sweep_goes_on(tmp_path):
    study = make_study(tmp_path, body=GRID)
    run_study(study, tmp_path / "whole.parquet")

    class Interrupted(DirectPool):
        def run(self, tasks):
            for number, outcome in enumerate(super().run(tasks)):
                if number == 11:  # every other one is None
                    raise KeyboardInterrupt
                yield outcome

    output = tmp_path / "r.parquet"
    with pytest.raises(KeyboardInterrupt):
        run_study(study, output, Interrupted())
    assert not output.exists()
    plan = plan_study(read_study(study))
    assert len(known_outcomes(plan, output)) == 5
    pool = DirectPool()
    run_study(study, output, pool)
    assert len(pool.ran) == 11
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_torn_journal_loses_one_task(tmp_path):
    study = make_study(tmp_path, body=GRID)
    output = tmp_path / "r.parquet"
    run_study(study, output)
    first = output.read_bytes()
    journal = state_folder(output) / NAME
    data = journal.read_bytes()
    journal.write_bytes(data[:-20])
    pool = DirectPool()
    run_study(study, output, pool)
    assert len(pool.ran) == 1
    assert output.read_bytes() == first
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"free":', b'"fres":')
    journal.write_bytes(b"".join(lines))
    pool = DirectPool()
    run_study(study, output, pool)
    assert len(pool.ran) == 1
    assert output.read_bytes() == first


def test_changes_are_noticed(tmp_path, monkeypatch):
    study = make_study(tmp_path, body=GRID)
    output = tmp_path / "r.parquet"
    run_study(study, output)
    told = []

    def go():
        pool = DirectPool()
        run_study(study, output, pool, started=lambda *given: told.append(given))
        return len(pool.ran)

    tiny_capture(tmp_path / "c1.physmem", 99)
    assert go() == 8
    assert told.pop() == (8, 8, {"of captures that have changed or left the study": 8})
    study.write_text(study.read_text().replace("seeds = 2", "seeds = 1"))
    assert go() == 0
    assert told.pop()[2]["of settings, seeds or experiments that have left the study"] == 8
    study.write_text(study.read_text().replace("seeds = 1", "seeds = 3"))
    assert go() == 8
    measure_file = tmp_path / "measure.py"
    measure_file.write_text(measure_file.read_text() + "# another measure\n")
    assert go() == 24
    monkeypatch.setattr(task_module, "source_digest", lambda: "other")
    assert go() == 24


def test_a_file_that_a_setting_names_is_an_input(tmp_path):
    measure_text = (
        "from pathlib import Path\n"
        "def evaluate(path, settings, seed):\n"
        "    place, _, name = settings['policy'].rpartition(':')\n"
        "    text = Path(place).read_text()\n"
        "    if 'wrong' in text: raise ValueError('in ' + place)\n"
        "    return {'share': len(text), 'name': name}\n"
    )
    study = make_study(tmp_path, captures=1, body='[settings]\npolicy = "p.py:mine"\n')
    (tmp_path / "measure.py").write_text(measure_text)
    with pytest.raises(BadStudyError, match=r"policy=p\.py:mine: .*p\.py: No such file"):
        run_study(study, tmp_path / "r.parquet")
    (tmp_path / "p.py").write_text("one = 1")
    made = run_study(study, tmp_path / "r.parquet")
    assert made.results.rows[0].metrics == {"share": 7, "name": "mine"}
    assert made.results.rows[0].settings == {"policy": "p.py:mine"}
    task = plan_study(read_study(study)).rows[0].task
    (tmp_path / "p.py").write_text("wrong = 1")
    assert run_task(task, "w").status == NEEDS_CAPTURE
    there = run_task(task, "w", str(tmp_path / "kept"))  # a worker that has another file there
    assert there.metrics == {"share": 7, "name": "mine"}
    pool = DirectPool()
    made = run_study(study, tmp_path / "r.parquet", pool)
    assert len(pool.ran) == 2
    assert made.results.failed[0].message == "internal error: ValueError: in p.py"


def test_a_renamed_capture_is_known(tmp_path):
    study = make_study(tmp_path)
    output = tmp_path / "r.parquet"
    run_study(study, output)
    (tmp_path / "c0.physmem").rename(tmp_path / "z.physmem")
    pool = DirectPool()
    run_study(study, output, pool)
    assert pool.ran == []
    assert read_results(output).rows[-1].subject == "z.physmem"


def test_equal_tasks_run_once(tmp_path):
    body = '[settings]\na = [1, 2]\n[[variant]]\nname = "again"\nsettings = { a = 2 }\n'
    study = make_study(tmp_path, captures=1, body=body)
    pool = DirectPool()
    run_study(study, tmp_path / "r.parquet", pool)
    assert len(pool.ran) == 4
    rows = read_results(tmp_path / "r.parquet").rows
    by_variant = {
        name: [row.metrics for row in rows if row.variant == name] for name in ("a=2", "again")
    }
    assert by_variant["a=2"] == by_variant["again"]


WRONG = '[settings]\nwrong = ["no", "yes"]\nmobility = [true, false]\n'


def test_a_task_that_fails_is_a_row(tmp_path):
    study = make_study(tmp_path, body=WRONG)
    output = tmp_path / "r.parquet"
    made = run_study(study, output)
    assert len(made.results.failed) == 8
    row = made.results.failed[0]
    assert (row.status, row.error) == ("failed", "BadRequestError")
    assert row.message == "c0.physmem: no such order"  # not the path, which others do not have
    assert row.metrics == {}
    assert parquet.read_table(output)["free"].null_count == 8
    pool = DirectPool()
    run_study(study, output, pool)
    assert pool.ran == []
    run_study(study, output, pool, retry_failed=True)
    assert len(pool.ran) == 8
    summary = summarise(made.results)
    assert [one.failed for one in summary.variants] == [0, 0, 4, 4]
    assert summary.winner.name.startswith("wrong=no")


def test_a_bug_of_a_measure_is_a_row_too(tmp_path):
    study = make_study(tmp_path, captures=1, body='[settings]\nbug = ["no", "yes"]\n')
    made = run_study(study, tmp_path / "r.parquet")
    assert {row.message for row in made.results.failed} == {
        "internal error: ZeroDivisionError: a bug of the measure"
    }
    assert summarise(made.results).winner is None


def test_a_misspelt_metric_ends_the_sweep_at_once(tmp_path):
    study = make_study(tmp_path, body=GRID, metric="shar")
    pool = DirectPool()
    with pytest.raises(BadStudyError, match=r"objective\.metric: shar: .*did you mean share\?"):
        run_study(study, tmp_path / "r.parquet", pool)
    assert len(pool.ran) == 1
    study.write_text(study.read_text().replace('"shar"', '"share"'))
    run_study(study, tmp_path / "r.parquet", pool)
    assert len(pool.ran) == 16
    with pytest.raises(BadInputError, match="known are free, share"):
        summarise(read_results(tmp_path / "r.parquet"), "x")


def test_the_record_of_a_run_stands_beside_the_results(tmp_path):
    study = make_study(tmp_path, body=GRID)
    output = tmp_path / "r.parquet"
    run_study(study, output)
    record = json.loads(run_file(output).read_text())
    assert record["pool"] == {"kind": "direct"}
    assert len(record["tasks"]) == 16
    assert {task["worker"] for task in record["tasks"]} == {"here"}


def test_two_sweeps_do_not_share_a_journal(tmp_path):
    with (
        Journal(tmp_path / "s"),
        pytest.raises(BadInputError, match="another physmem is at work"),
    ):
        Journal(tmp_path / "s")
    Journal(tmp_path / "s").close()


@settings(deadline=None, max_examples=50)
@given(
    values=st.dictionaries(
        st.text(max_size=5), st.integers() | st.floats() | st.text(max_size=5), max_size=4
    )
)
def test_a_journal_gives_back_what_it_got(values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("j")
    task = Task("a", "a", "", {}, 0, CAPTURE, "s")
    with Journal(folder) as journal:
        journal.append(task, Outcome(task.key, "ok", values))
    got = read_records(folder)[task.key].metrics
    assert list(got) == list(values)
    for name, value in values.items():
        assert repr(got[name]) == repr(value)


def test_a_key_tells_inputs_apart():
    base = {
        "subject": "a",
        "target": "path/a",
        "digest": "d",
        "settings": {"x": "1"},
        "seed": 0,
        "evaluator": CAPTURE,
        "source": "s",
    }
    key = Task(**base).key
    assert Task(**{**base, "subject": "b", "target": "elsewhere"}).key == key
    for change in (
        {"digest": "e"},
        {"settings": {"x": "2"}},
        {"settings": {"y": "1"}},
        {"seed": 1},
        {"evaluator": Evaluator("m.py:f", "def f(): pass")},
        {"source": "t"},
        {"version": "9"},
    ):
        assert Task(**{**base, **change}).key != key


def test_a_worker_with_other_sources_says_so(tmp_path):
    path = tiny_capture(tmp_path / "a.physmem", 1)
    task = Task("a", str(path), "", {}, 0, Evaluator("m.py:f", "f = lambda *_: {}"), "other")
    assert run_task(task, "w").status == OTHER_SOURCES


def test_a_worker_without_the_capture_asks_for_its_bytes(tmp_path):
    path = tiny_capture(tmp_path / "a.physmem", 1)
    digest = task_module.file_digest(path)
    own = Evaluator("m.py:f", "def f(path, settings, seed): return {'n': len(path)}")
    source = task_module.source_digest()
    task = Task("a", str(path), digest, {}, 0, own, source)
    assert run_task(task, "w").metrics == {"n": len(str(path))}
    data = path.read_bytes()
    tiny_capture(path, 2)  # the same path, other bytes
    folder = tmp_path / "kept"
    assert run_task(task, "w", str(folder)).status == NEEDS_CAPTURE
    assert keep_capture(digest, data[:-1], str(folder)) != digest
    assert run_task(task, "w", str(folder)).status == NEEDS_CAPTURE
    assert keep_capture(digest, data, str(folder)) == digest
    assert run_task(task, "w", str(folder)).status == "ok"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(*_): return 3", "returned int, not a mapping"),
        ("def f(*_): return {'a': [1]}", "metric a is a list"),
        ("def f(*_): return {'a': None}", "metric a is a NoneType"),
        ("g = 1", "cannot be loaded"),
        ("1 / 0", "cannot be loaded .ZeroDivisionError"),
    ],
)
def test_a_measure_that_gives_no_numbers(source, message):
    with pytest.raises(BadInputError, match=message):
        measure(Evaluator("m.py:f", source), "a", {}, 0)


def test_metrics_become_plain_values():
    source = (
        "import numpy as np\n"
        "def f(*_): return {'i': np.int32(3), 'f': np.float32(.5), 'b': np.bool_(True), 't': True,"
        " 's': np.str_('x')}"
    )
    made = measure(Evaluator("m.py:f", source), "a", {}, 0)
    assert made == {"i": 3, "f": 0.5, "b": 1, "t": 1, "s": "x"}
    assert [type(value) for value in made.values()] == [int, float, int, int, str]
    assert load_evaluator(Evaluator("json:dumps")) is json.dumps


def test_a_metric_may_be_called_as_a_column_and_mixed(tmp_path):
    source = (
        "def f(path, settings, seed):\n"
        "    if seed == 2: return {'seed': 1.5, 'word': 'x', 'big': 2**70, 'x': float('nan')}\n"
        "    return {'seed': seed, 'word': 1, 'big': 1, 'x': 1.0, 'set.y': 7}\n"
    )
    study = make_study(tmp_path, captures=1, seeds=3, metric="x")
    (tmp_path / "measure.py").write_text(source.replace("def f", "def evaluate"))
    output = tmp_path / "r.parquet"
    made = run_study(study, output)
    table = parquet.read_table(output)
    assert table["seed"].to_pylist() == [0, 1, 2]
    assert table["metric.seed"].to_pylist() == [0.0, 1.0, 1.5]
    assert table["word"].to_pylist() == ["1", "1", "x"]
    assert table["big"].to_pylist() == [1.0, 1.0, 2.0**70]
    assert table["metric.set.y"].to_pylist() == [7, 7, None]
    assert math.isnan(table["x"].to_pylist()[2])
    assert read_results(output).rows[0].metrics["seed"] == 0
    assert summarise(made.results).variants[0].count == 2


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_spread(values):
    mean, std, low, high = spread_of(values)
    assert mean == pytest.approx(statistics.fmean(values))
    assert std == pytest.approx(statistics.stdev(values), abs=1e-6)
    assert (low, high) == (min(values), max(values))
    assert spread_of(values[::-1]) == (mean, std, low, high)


def test_the_winner_and_its_margin(tmp_path):
    source = (
        "def evaluate(path, settings, seed):\n"
        "    return {'share': {'a': 5, 'b': 2 + 8 * (seed == 0), 'c': 1}[settings['x']]}\n"
    )
    body = '[settings]\nx = ["a", "b", "c"]\n'
    study = make_study(tmp_path, captures=1, seeds=4, body=body)
    (tmp_path / "measure.py").write_text(source)
    made = run_study(study, tmp_path / "r.parquet")
    summary = summarise(made.results)
    assert [one.name for one in summary.variants] == ["x=a", "x=b", "x=c"]
    winner = summary.winner
    assert (winner.name, winner.second, winner.margin, winner.share) == ("x=a", "x=b", 1.0, 0.25)
    assert (winner.better, winner.pairs, winner.tied) == (3, 4, ())
    text = study.read_text().replace('share"', 'share"\ngoal = "minimize"')
    study.write_text(text)
    made = run_study(study, tmp_path / "r.parquet")
    summary = summarise(made.results)
    assert summary.goal == "minimise"
    assert (summary.winner.name, summary.winner.second, summary.winner.better) == ("x=c", "x=b", 4)


def test_files_that_are_no_results(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read_results(tmp_path / "no.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(BadInputError, match="no results, or damaged"):
        read_results(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(BadInputError, match="no results of a sweep"):
        read_results(tmp_path / "b.parquet")
    output = tmp_path / "r.parquet"
    run_study(make_study(tmp_path), output)
    results = read_results(output)
    results.info.format = 99
    write_results(output, results)
    with pytest.raises(BadInputError, match="newer physmem"):
        read_results(output)
