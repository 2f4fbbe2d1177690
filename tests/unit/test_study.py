# SPDX-License-Identifier: GPL-2.0-or-later
"""The grammar of a study, and what it says of one that cannot be meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sweep_fixtures import GRID, make_study, tiny_capture

from physmem.firmware.toml_lines import line_of
from physmem.lab.grid import count_points, grid_points
from physmem.lab.study import parse_study, read_study
from physmem.lab.study_example import EXAMPLE
from physmem.lab.sweep_plan import plan_study
from physmem.lib.errors import BadStudyError

HEAD = '[objective]\nmetric = "free"\n[[experiment]]\nname = "frag"\n'


def test_a_study_in_full(tmp_path):
    body = (
        f"{GRID}"
        '[[variant]]\nname = "small"\nsettings = { pageblock_order = 7, vm.x = 0.5 }\n'
        '[[experiment]]\nname = "frag"\nparams = { rounds = 20 }\n'
    )
    study = read_study(make_study(tmp_path, body=body, seeds="[9, 4]"))
    assert list(study.captures) == ["c0.physmem", "c1.physmem"]
    assert [variant.name for variant in study.variants] == [
        "movablecore=0 mobility=on",
        "movablecore=0 mobility=off",
        "movablecore=128M mobility=on",
        "movablecore=128M mobility=off",
        "small",
    ]
    assert study.variants[4].settings == {"pageblock_order": "7", "vm.x": "0.5"}
    assert study.variants[1].settings == {"movablecore": "0", "mobility": "off"}
    assert study.seeds == (9, 4)
    assert (study.objective.metric, study.objective.maximise) == ("share", True)
    plan = plan_study(study)
    assert len(plan.rows) == len(plan.tasks) == 3 * 5 * 2
    assert plan.rows[-1].subject == "frag rounds=20"
    assert plan.rows[-1].task.settings == {"rounds": "20", "pageblock_order": "7", "vm.x": "0.5"}


def test_without_settings_there_is_the_baseline():
    study = parse_study(HEAD)
    assert [(one.name, one.settings) for one in study.variants] == [("baseline", {})]
    assert study.seeds == (0,)


def test_the_example_is_a_study(tmp_path):
    tiny_capture(tmp_path / "guest.physmem", 1)
    (tmp_path / "more").mkdir()
    tiny_capture(tmp_path / "more" / "b.physmem", 2)
    study = parse_study(EXAMPLE, folder=tmp_path)
    assert list(study.captures) == ["guest.physmem", "more/b.physmem"]
    assert len(study.variants) == 3 + 2
    commented = "".join(
        line.removeprefix("# ") + "\n" if line.startswith(("# [[", "# name", "# params")) else ""
        for line in EXAMPLE.splitlines()
    )
    study = parse_study(EXAMPLE + commented, folder=tmp_path)
    assert [(one.name, one.params) for one in study.experiments] == [
        ("llfree-frag", {"rounds": "20"})
    ]


def test_a_file_named_twice_is_one_capture(tmp_path):
    path = make_study(tmp_path)
    path.write_text(path.read_text().replace('["*.', '["c1.physmem", "./*.'))
    assert list(read_study(path).captures) == ["c1.physmem", "c0.physmem"]


def test_a_glob_from_the_root(tmp_path):
    path = make_study(tmp_path)
    path.write_text(path.read_text().replace('["*.', f'["{tmp_path}/c1.'))
    path.write_text(path.read_text().replace("c1.", "c[1]."))
    assert list(read_study(path).captures) == ["c1.physmem"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("captures = [", "not TOML"),
        ("seeds = 1", "objective: missing"),
        ('[objective]\nmetrik = "x"', "line 2: objective.metrik: no such key; did you mean metric"),
        ("[objective]\ngoal = 'minimise'", "line 1: objective: metric is missing"),
        ("[objective]\nmetric = 'x'\ngoal = 'best'", "line 3: objective.goal: invalid enum value"),
        ("[objective]\nmetric = ''\n", "captures: nothing to study"),
        (
            "captures = 'x'\n[objective]\nmetric = 'x'",
            "line 1: captures: expected a list, got text",
        ),
        ("captures = ['a', 3]\n[objective]\nmetric = 'x'", "line 1: captures[1]: expected text"),
        (
            "capture = ['a']\n[objective]\nmetric = 'x'",
            "line 1: capture: no such key; did you mean",
        ),
        ("captures = ['no.physmem']\n[objective]\nmetric = 'x'", "no.physmem: no such file"),
        ("captures = ['no*.physmem']\n[objective]\nmetric = 'x'", "no*.physmem: no file in"),
        ("captures = ['.']\n[objective]\nmetric = 'x'", "no such file"),
        ("seeds = 0\n" + HEAD, "line 1: seeds: expected a number >= 1"),
        ("seeds = []\n" + HEAD, "line 1: seeds: write a number of seeds"),
        ("seeds = [1, 1]\n" + HEAD, "line 1: seeds: write a number of seeds"),
        ("seeds = [-1]\n" + HEAD, "line 1: seeds[0]: -1: write a number"),
        ("seeds = 1.5\n" + HEAD, "line 1: seeds: expected"),
        ("evaluator = 'x'\n" + HEAD, "line 1: evaluator: 'x': write \"module:function\""),
        ("evaluator = 'no.py:f'\n" + HEAD, "no.py: No such file"),
        (HEAD + "[settings]\na = []", "line 6: settings.a: an empty list"),
        (HEAD + "[settings]\na = [1, '1']", "line 6: settings.a: a value stands there twice"),
        (HEAD + "[settings]\nvm.a = [1, [2]]", "line 6: settings.vm.a[1]: [2]: write a number"),
        (HEAD + "[sample]\ncount = 3", "line 5: sample: there is no grid"),
        (
            HEAD + "[settings]\na = 1\n[sample]\ncount = 0",
            "line 8: sample.count: expected a number",
        ),
        (HEAD + "[sample]\nseed = 0", "line 5: sample: count is missing"),
        (HEAD + "[[variant]]\nname = ' '", "line 6: variant[0].name: write a name"),
        (HEAD + "[[variant]]\nname = 'a'\n" * 2, "line 8: variant[1].name: a: two variants"),
        (HEAD + "[[variant]]\nname = 'a'\nset = {}", "line 7: variant[0].set: no such key"),
        (HEAD + "[[variant]]\nname = 3", "line 6: variant[0].name: expected text in quotes"),
        (HEAD + "[[variant]]\nname = 'a'\n[variant.settings]\nx = [1]", "line 8: variant[0]"),
        (HEAD + "[[experiment]]\nname = 'frag'", "line 5: experiment[1]: frag stands there twice"),
        (HEAD + "[[experiment]]\nname = ''", "line 6: experiment[1].name: write the name"),
        (HEAD + "[[experiment]]\nparam = {}", "line 6: experiment[1].param: no such key; did you"),
    ],
)
def test_what_cannot_be_meant(text, message, tmp_path):
    with pytest.raises(BadStudyError) as caught:
        parse_study(text, "my.toml", tmp_path)
    assert str(caught.value).startswith("my.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(BadStudyError, match=r"no\.toml: No such file .*--example"):
        read_study(tmp_path / "no.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadStudyError, match="not a text file"):
        read_study(tmp_path / "a.toml")


def test_too_many_tasks_ask_for_a_sample():
    grid = "[settings]\n" + "".join(f"k{n} = {list(range(10))}\n" for n in range(7))
    with pytest.raises(BadStudyError, match="10,000,000 points; take a sample"):
        parse_study(HEAD + grid)
    study = parse_study(HEAD + grid + "[sample]\ncount = 50\nseed = 3\n")
    assert len({variant.name for variant in study.variants}) == 50
    with pytest.raises(BadStudyError, match="5,000,000 tasks"):
        parse_study("seeds = 100000\n" + HEAD + grid + "[sample]\ncount = 50\n")


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    count=st.integers(1, 300),
    seed=st.integers(0, 5),
)
def test_a_sample_is_part_of_the_grid(sizes, count, seed):
    grid = {f"k{at}": [str(n) for n in range(size)] for at, size in enumerate(sizes)}
    every = grid_points(grid)
    names = [point.name for point in every]
    assert len(set(names)) == len(names) == count_points(grid)
    part = grid_points(grid, (count, seed))
    assert part == grid_points(grid, (count, seed))
    assert len(part) == min(count, len(every))
    chosen = {point.name for point in part}
    assert [name for name in names if name in chosen] == [point.name for point in part]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("list", 1), 2),
        (("table",), 5),
        (("table", "a.b"), 6),
        (("table", "x", "y"), 7),
        (("row",), 8),
        (("row", 0, "k"), 9),
        (("row", 1, "k"), 13),
        (("row", 1, "sub", "z"), 15),
        (("row", 0, "sub", "z"), 11),
        (("row", 1, "none"), 12),
        (("none",), 0),
    ],
)
def test_lines_of_keys(path, line):
    text = (
        'top = 1\nlist = [\n  "a",\n]\n[table]\n"a.b" = 1\nx.y = 2\n'
        "[[row]]\nk = 1\n[row.sub]\nz = 1\n[[row]]\nk = 2\n[row.sub]\nz = 2\n"
    )
    assert line_of(text, path) == line
