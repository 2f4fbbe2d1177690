# SPDX-License-Identifier: GPL-2.0-or-later
"""What the registry knows of an experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from physmem.experiments.params import Parameter
from physmem.experiments.report import Report

Progress = Callable[[int, int], None]
"""Told what is done and what there is in all."""


@dataclass(frozen=True)
class Experiment:
    """A published experiment that can be run here.

    Attributes
    ----------
    name, title : short and long name
    source : where the published figures are from
    claim : what the source found, in a sentence
    word : how ours compares with it: EQUAL, SAME_SHAPE or CALIBRATED
    parameters : what may be chosen, with defaults
    run : from checked parameters, a seed and a progress function to the report
    """

    name: str
    title: str
    source: str
    claim: str
    word: str
    parameters: tuple[Parameter, ...]
    run: Callable[[dict[str, Any], int, Progress], Report]
