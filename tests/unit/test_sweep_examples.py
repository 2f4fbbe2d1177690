# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the examples in the docstrings of sweeps and searches."""

import doctest
import importlib

import pytest

MODULES = (
    "digest",
    "evaluator",
    "grid",
    "journal",
    "knob",
    "local_pool",
    "setting_file",
    "study",
    "summary",
    "sweep",
    "task",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    ran = doctest.testmod(importlib.import_module(f"physmem.lab.{name}"))
    assert ran.attempted > 0
    assert ran.failed == 0


def test_examples_of_refusals():
    for name in ("lab.measure", "experiments.measure"):
        module = importlib.import_module(f"physmem.{name}")
        finder = doctest.DocTestFinder(recurse=False)
        runner = doctest.DocTestRunner()
        for test in finder.find(module.check, globs=vars(module)):
            assert runner.run(test).failed == 0


@pytest.mark.slow
def test_examples_that_run_an_experiment():
    module = importlib.import_module("physmem.experiments.measure")
    for test in doctest.DocTestFinder(recurse=False).find(module.measure, globs=vars(module)):
        assert doctest.DocTestRunner().run(test).failed == 0
