# SPDX-License-Identifier: GPL-2.0-or-later
"""All experiments by name, and the one call that runs one."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from physmem.experiments.params import fill, suggestion
from physmem.experiments.random32 import MOST_SEED
from physmem.experiments.registry_types import Experiment, Progress
from physmem.experiments.report import Report
from physmem.lib.errors import BadRequestError

_MODULES = {
    "llfree-frag": "llfree_frag",
    "gorman": "gorman",
    "merge-tail": "merge_tail",
    "pcp-stranding": "pcp_stranding",
    "pageblock-cma": "pageblock_cma",
    "fragmenters": "fragmenters",
    "meta-7-34": "meta_7_34",
    "scale": "scale",
}


class _Registry(Mapping[str, Experiment]):
    """Experiments, each loaded when it is first looked at."""

    def __getitem__(self, name: str) -> Experiment:
        module = import_module(f"physmem.experiments.{_MODULES[name]}")
        found: Experiment = module.EXPERIMENT
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


EXPERIMENTS: Mapping[str, Experiment] = _Registry()
"""Name -> experiment."""


def _silent(_done: int, _total: int) -> None:
    """Tell nobody."""


def find(name: str) -> Experiment:
    """Experiment of a name.

    Raises
    ------
    BadRequestError
        There is none; the message names those that there are.
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = suggestion(name, list(EXPERIMENTS))
    raise BadRequestError(f"there is no experiment {name!r}{near}; known: {', '.join(EXPERIMENTS)}")


def run(
    name: str,
    params: Mapping[str, Any] | None = None,
    seed: int = 42,
    progress: Progress | None = None,
) -> Report:
    """Run an experiment: the same name, parameters and seed always give the same report.

    Parameters
    ----------
    name : a key of `EXPERIMENTS`
    params : parameters that are not to have their defaults; text is read as on the command line
    seed : 0 .. 2**63 - 1
    progress : called with what is done and what there is in all

    Raises
    ------
    BadRequestError
        No such experiment or parameter, or a value that is not possible.
    BadMachineError
        The machine cannot exist.

    Examples
    --------
    >>> report = run("llfree-frag", {"memory": "128MiB", "rounds": 2})
    >>> report.verdict.holds, sorted(report.metrics())[:2]
    (True, ['drift', 'holds'])
    """
    experiment = find(name)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise BadRequestError(f"seed {seed!r}: must be a whole number from 0 to {MOST_SEED}")
    checked = fill(experiment.parameters, params or {}, name)
    start = time.perf_counter()
    report = experiment.run(checked, seed, progress or _silent)
    return replace(report, seconds=time.perf_counter() - start)


def experiment(name: str, *, seed: int = 42, **params: Any) -> Report:
    """Run an experiment with parameters as keywords (see `run`).

    Raises
    ------
    BadRequestError
        No such experiment or parameter, or a value that is not possible.

    Examples
    --------
    >>> report = experiment("pageblock-cma", memory="64MiB", turnover=0.5)
    >>> report.table("alignment").column("cma_min_alignment_mib")
    [4, 32, 512, 128, 128, 512]
    """
    return run(name, params, seed)
