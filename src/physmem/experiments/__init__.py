# SPDX-License-Identifier: GPL-2.0-or-later
"""Workloads without a trace: published experiments, made anew on the allocator itself.

`physmem.experiments.run(name, params, seed)` runs one; `EXPERIMENTS` lists them.
"""

from importlib import import_module

TYPE_CHECKING = False  # `typing` would double the time of `import physmem`

if TYPE_CHECKING:
    from physmem.experiments.registry import EXPERIMENTS, experiment, run
    from physmem.experiments.report import Report

_FROM = {
    "EXPERIMENTS": "physmem.experiments.registry",
    "experiment": "physmem.experiments.registry",
    "run": "physmem.experiments.registry",
    "Report": "physmem.experiments.report",
}

__all__ = ["EXPERIMENTS", "Report", "experiment", "run"]


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module 'physmem.experiments' has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)
