# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples in the docstrings of the start-up of 2.6.24."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    *("boot_bootmem", "initcalls_bootmem", "hashes_bootmem", "kernel_config_bootmem"),
    *("mem_init_bootmem", "mem_map_bootmem", "noted_bootmem", "result_bootmem"),
    *("self_made_bootmem", "setup_arch_bootmem", "start_kernel_bootmem", "zones_bootmem"),
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(import_module(f"physmem.boot.{name}")).failed == 0
