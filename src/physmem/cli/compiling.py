# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling kernels before a command needs them: with a note, and on all CPUs."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from physmem.cli.output import note

_CHILD = """
from importlib import import_module
from physmem.lib.jit import ready
ready(getattr(import_module({module!r}), {name!r}))
"""


def compile_now(*kernels: Callable[..., Any], quiet: bool = False) -> None:
    """Load kernels; compile what is missing, each but the last in a process of its own.

    Numba compiles on one CPU at a time. Machine code from other processes is found in the cache;
    where there is none, or a process fails, the kernel is compiled here after all.
    """
    from physmem.lib.jit import is_compiled, ready

    missing = [kernel for kernel in kernels if not is_compiled(kernel)]
    if missing:
        note("compiling the kernels (first run only) ...", quiet=quiet)
    spare = (os.cpu_count() or 1) - 1
    helpers = [_start(kernel) for kernel in missing[:-1][:spare]]
    try:
        for kernel in missing[len(helpers) :]:
            ready(kernel)
        for helper in helpers:
            helper.wait()
    finally:
        for helper in helpers:
            helper.kill()
    for kernel in kernels:
        ready(kernel)


def needs_compiling(*kernels: Callable[..., Any]) -> bool:
    """Tell whether one of the kernels would have to be compiled now."""
    from physmem.lib.jit import is_compiled

    return not all(map(is_compiled, kernels))


def _start(kernel: Callable[..., Any]) -> "subprocess.Popen[bytes]":
    program = _CHILD.format(module=kernel.__module__, name=kernel.__name__)
    return subprocess.Popen(  # noqa: S603 - this interpreter, a program of our own
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
