# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples in the docstrings of physmem.arch run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import physmem.arch

NAMES = [module.name for module in pkgutil.iter_modules(physmem.arch.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    module = importlib.import_module(f"physmem.arch.{name}")
    assert doctest.testmod(module).failed == 0
