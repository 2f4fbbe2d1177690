# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples in the docstrings of the slab allocators are true."""

import doctest
import importlib
import pkgutil

import pytest

import physmem.slab

MODULES = [
    *(f"physmem.slab.{each.name}" for each in pkgutil.iter_modules(physmem.slab.__path__)),
    "physmem.machine.objects",
    "physmem.views.slabs",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
