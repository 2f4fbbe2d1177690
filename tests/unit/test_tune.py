# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem tune`: knobs, the search, going on with it."""

import itertools

import pytest
from tests.sweep_fixtures import DirectPool

from physmem.lab.evaluator import Evaluator
from physmem.lab.knob import Aim, Knob, parse_aim, parse_knob
from physmem.lab.local_pool import LocalPool
from physmem.lab.tune import Search, tune
from physmem.lib.errors import BadInputError, BadStudyError

optuna = pytest.importorskip("optuna")

HILL = Evaluator(
    "hill.py:evaluate",
    "from physmem.lib.errors import BadRequestError\n"
    "def evaluate(name, settings, seed):\n"
    "    x = int(settings['x'].removesuffix('M'))\n"
    "    if settings['mode'] == 'bad': raise BadRequestError('no such mode')\n"
    "    return {'height': 100 - (x - 37) ** 2 + 50 * (settings['mode'] == 'up'), 'x': x,\n"
    "            'nan': float('nan'), 'word': 'a'}\n",
)
KNOBS = (parse_knob("x=0..64M:1M"), parse_knob("mode=up|down|bad"))


def search(trials, **changes):
    given = {"aim": Aim("height"), "knobs": KNOBS, "seed": 5, "fixed": {"y": "1"}, **changes}
    return Search("hill", "hill", "", HILL, trials=trials, **given)


def shape(made):
    return [(trial.number, trial.settings, trial.value) for trial in made.trials]


@pytest.mark.slow
def test_it_finds_the_top(tmp_path):
    made = tune(search(30), str(tmp_path / "t.db"), DirectPool())
    assert len(made.trials) == 30
    assert made.best.settings["mode"] == "up"
    assert made.best.value >= 100
    assert made.best == made.ranked[0]
    assert all(a.value >= b.value for a, b in zip(made.ranked, made.ranked[1:], strict=False))
    failed = [trial for trial in made.trials if trial.value is None]
    assert {trial.settings["mode"] for trial in failed} <= {"bad"}
    assert {trial.message for trial in failed} <= {"no such mode"}
    least = tune(search(5, aim=Aim("x", maximise=False)), str(tmp_path / "t.db"), DirectPool())
    assert least.best.value == min(t.value for t in least.trials if t.value is not None)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 3])
def test_equal_seeds_equal_trials_also_in_two_parts(tmp_path, jobs):
    # more than the sampler's ten random trials: what it learns must be the same, too
    whole = tune(search(15), str(tmp_path / "a.db"), DirectPool(), jobs)
    other = tune(search(3, seed=6), str(tmp_path / "a.db"), DirectPool(), jobs)
    assert shape(other) != shape(whole)[:3]
    tune(search(12), str(tmp_path / "c.db"), DirectPool(), jobs)
    pool = DirectPool()
    told = []
    made = tune(
        search(15), str(tmp_path / "c.db"), pool, jobs, progress=lambda *now: told.append(now)
    )
    assert (made.known, shape(made)) == (12, shape(whole))
    assert len(pool.ran) <= 3
    assert (told[0], told[-1]) == ((12, 15), (15, 15))
    again = tune(search(15), str(tmp_path / "c.db"), pool, jobs)
    assert (again.known, shape(again)) == (15, shape(whole))


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path):
    whole = tune(search(12), str(tmp_path / "a.db"), DirectPool())

    class Killed(DirectPool):
        def run(self, tasks):
            if len(self.ran) == 7:
                raise KeyboardInterrupt
            yield from super().run(tasks)

    url = f"sqlite:///{tmp_path / 'b.db'}"
    with pytest.raises(KeyboardInterrupt):
        tune(search(12), url, Killed())
    made = tune(search(12), url, DirectPool())
    assert made.known >= 7
    assert shape(made) == shape(whole)


def test_settings_that_were_tried_are_not_run_again(tmp_path):
    pool = DirectPool()
    knobs = (parse_knob("x=36M..37M"), parse_knob("mode=up|down"))
    made = tune(search(9, knobs=knobs), str(tmp_path / "t.db"), pool)
    assert len(made.trials) == 9
    assert len(pool.ran) <= 4


@pytest.mark.slow
def test_in_processes(tmp_path):
    here = tune(search(6), str(tmp_path / "a.db"), DirectPool(), 2)
    made = tune(search(6), str(tmp_path / "b.db"), LocalPool(2), 2)
    assert shape(made) == shape(here)


def test_what_cannot_succeed_ends_early(tmp_path):
    storage = str(tmp_path / "t.db")
    with pytest.raises(BadStudyError, match=r"--objective heigt: .* did you mean height\?"):
        tune(
            search(9, aim=Aim("heigt"), knobs=KNOBS[:1], fixed={"mode": "up"}),
            storage,
            DirectPool(),
        )
    pool = DirectPool()
    with pytest.raises(BadStudyError, match="all of the first 3 trials failed: no such mode"):
        tune(search(9, knobs=KNOBS[:1], fixed={"mode": "bad"}), storage, pool)
    assert len(pool.ran) == 3
    with pytest.raises(BadStudyError, match="nan is nan, no number"):
        tune(
            search(9, aim=Aim("nan"), knobs=KNOBS[:1], fixed={"mode": "up"}), storage, DirectPool()
        )


def test_storages_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(BadStudyError, match="choose another --storage"):
        tune(search(1), str(tmp_path / "no" / "t.db"), DirectPool())
    with pytest.raises(BadStudyError, match="no storage of Optuna"):
        tune(search(1), "nonsense://x", DirectPool())
    (tmp_path / "t.db").write_text("this is no database, although it is long enough " * 30)
    with pytest.raises(BadStudyError, match="no storage of Optuna"):
        tune(search(1), str(tmp_path / "t.db"), DirectPool())

    class Nested(DirectPool):
        def run(self, tasks):
            tune(search(1), str(tmp_path / "u.db"), DirectPool())
            yield from super().run(tasks)

    with pytest.raises(BadInputError, match="another physmem is at work"):
        tune(search(1), str(tmp_path / "u.db"), Nested())
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(BadStudyError, match=r"install physmem\[tune\]"):
        tune(search(1), str(tmp_path / "v.db"), DirectPool())


def test_the_log_level_of_optuna_is_as_before(tmp_path):
    before = optuna.logging.get_verbosity()
    tune(search(1), str(tmp_path / "t.db"), DirectPool())
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("text", "knob"),
    [
        ("a=1..5", Knob("a", (), 1, 5)),
        ("a=-3..5:2", Knob("a", (), -3, 5, 2)),
        ("a=0..256M:32M", Knob("a", (), 0, 256, 32, unit="M")),
        ("a=512K..2M", Knob("a", (), 512, 2048, unit="K")),
        ("a=1..1024:log", Knob("a", (), 1, 1024, log=True)),
        ("a=0.5..2", Knob("a", (), 0.5, 2.0, whole=False)),
        ("a=0.5..2:0.5", Knob("a", (), 0.5, 2.0, 0.5, whole=False)),
        ("vm.a=x|y=1|z", Knob("vm.a", ("x", "y=1", "z"))),
    ],
)
def test_knobs(text, knob):
    assert parse_knob(text) == knob


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "write name=low..high"),
        ("=1..2", "write name=low..high"),
        ("a=", "write name=low..high"),
        ("a=5", "a fixed value is for --set"),
        ("a=5..1", "an empty range"),
        ("a=5..5", "an empty range"),
        ("a=1..1e400", "an empty range"),
        ("a=1..5:9", "the step does not fit"),
        ("a=1..5:0", "the step does not fit"),
        ("a=0..5:log", "a lower bound above 0"),
        ("a=1..5M", "some numbers have a unit"),
        ("a=x|x", "an empty or repeated choice"),
        ("a=x|", "an empty or repeated choice"),
        ("a=1..5:lin", "a fixed value is for --set"),
    ],
)
def test_what_is_no_knob(text, message):
    with pytest.raises(BadStudyError, match=message) as caught:
        parse_knob(text)
    assert str(caught.value).startswith(f"--knob {text}: ")


def test_values_lie_in_the_range():
    trials = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for low, extent, most in itertools.product((0, 1, 7), (1, 3, 20), (1, 2, 5)):
        step = min(most, extent)
        knob = parse_knob(f"a={low}K..{low + extent}K:{step}K")
        trial = trials.ask()
        text = knob.suggest(trial)
        assert text == knob.value_text(trial.params["a"])
        value = int(text.removesuffix("K"))
        assert text == (f"{value}K" if value else "0")
        assert low <= value <= low + extent
        assert (value - low) % step == 0


def test_objectives():
    assert parse_aim("a:b:min") == Aim("a:b", maximise=False)
    assert parse_aim("a") == Aim("a")
    assert parse_aim("a:maximize") == Aim("a")
    for text in ("", "min", ":max"):
        with pytest.raises(BadStudyError, match="write METRIC"):
            parse_aim(text)
