# SPDX-License-Identifier: GPL-2.0-or-later
"""The page on experiments shows what the experiments give."""

import re

import pytest
from tests.docs.experiments import kept, stored
from tests.docs.generated import DOCS, renewed

from physmem.experiments import EXPERIMENTS

PAGE = DOCS / "experiments.md"


def test_generated_parts_are_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text


def test_every_experiment_has_a_part():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^### (\S+)$", text) == list(EXPERIMENTS)


def test_parameters_of_the_figures_are_the_defaults():
    for name, found in stored().items():
        defaults = {each.name: each.default for each in EXPERIMENTS[name].parameters}
        assert found["params"] == defaults
        assert found["seed"] == 42


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_figures_are_those_of_a_run(name):
    assert stored()[name] == kept(name)


def test_the_example_runs():
    code = re.search(r"(?s)```python\n(.*?)```", PAGE.read_text(encoding="utf-8"))[1]
    space = {}
    exec(code, space)  # noqa: S102 - the page's own example
    assert space["report"].verdict.holds
    assert space["machine"].nr_free_pages > 0
