# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sweep or a search measures of an experiment: the figures of its report, by name."""

from collections.abc import Mapping

from physmem.experiments.params import fill
from physmem.experiments.registry import find, run


def measure(name: str, params: Mapping[str, str], seed: int) -> dict[str, float | int | str]:
    """Figures of an experiment's report; those that it could not compute are left out.

    Raises
    ------
    BadRequestError, BadMachineError
        As `run`.

    Examples
    --------
    >>> sorted(measure("llfree-frag", {"memory": "128MiB", "rounds": "2"}, 42))[:2]
    ['drift', 'holds']
    """
    figures = run(name, params, seed).metrics()
    return {key: value for key, value in figures.items() if value is not None}


def check(name: str, params: Mapping[str, str]) -> None:
    """Refuse an experiment or parameters that do not exist, before the work.

    Raises
    ------
    BadRequestError
        No such experiment or parameter, or a value that is not possible.

    Examples
    --------
    >>> check("llfree-frag", {"rounds": "2"})
    """
    fill(find(name).parameters, params, name)
