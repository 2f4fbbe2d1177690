# SPDX-License-Identifier: GPL-2.0-or-later
"""Each variant's mean and spread over captures and seeds, and which variant is best."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from physmem.lab.results import Results
from physmem.lab.task import OK
from physmem.lib.errors import BadInputError

Place = tuple[str, int]
"""Capture or experiment, and seed: what two variants have in common in a fair comparison."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one variant; None where there is no value (for `std`: less than two).

    Attributes
    ----------
    failed : tasks that failed, or gave no number
    std : of the sample, with n - 1
    """

    name: str
    settings: dict[str, str]
    count: int
    failed: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Winner:
    """The best variant, and how far ahead of the second.

    Attributes
    ----------
    margin : difference of the means, >= 0
    share : margin as a share of the second's mean; None when that is 0
    better, pairs : of so many pairs with the same capture and seed it was better in so many
    tied : other variants with the same mean
    """

    name: str
    mean: float
    second: str
    margin: float
    share: float | None
    better: int
    pairs: int
    tied: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Variants, best first; `winner` is None when there is nothing to compare."""

    metric: str
    goal: str
    variants: tuple[Spread, ...]
    winner: Winner | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        from dataclasses import asdict

        return asdict(self)


def spread_of(values: Sequence[float]) -> tuple[float | None, ...]:
    """Mean, standard deviation of the sample, least and greatest; independent of the order.

    Examples
    --------
    >>> spread_of([1.0, 2.0, 3.0])
    (2.0, 1.0, 1.0, 3.0)
    >>> spread_of([])
    (None, None, None, None)
    """
    if not values:
        return None, None, None, None
    mean = math.fsum(values) / len(values)
    std = None
    if len(values) > 1:
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, std, min(values), max(values)


def summarise(results: Results, metric: str | None = None) -> Summary:
    """Mean and spread of a metric; default: the objective.

    A variant of which a task failed cannot win: its mean is over other inputs than those of the
    others.

    Raises
    ------
    BadInputError
        No row has this metric.
    """
    objective = results.info.objective
    metric = metric or objective.metric
    known = [row for row in results.rows if row.status == OK]
    if known and metric not in results.info.metrics:
        raise BadInputError(no_such_metric(metric, results.info.metrics))
    values: dict[str, dict[Place, float]] = {name: {} for name in results.info.variants}
    totals = dict.fromkeys(results.info.variants, 0)
    for row in results.rows:
        totals[row.variant] += 1
        value = row.metrics.get(metric)
        if isinstance(value, int | float) and math.isfinite(value):
            values[row.variant][row.subject, row.seed] = float(value)
    spreads = [
        Spread(name, settings, len(found), totals[name] - len(found), *spread_of([*found.values()]))
        for name, settings in results.info.variants.items()
        for found in [values[name]]
    ]
    sign = -1 if objective.maximise else 1
    spreads.sort(key=lambda one: math.inf if one.mean is None else sign * one.mean)
    return Summary(metric, objective.goal, tuple(spreads), _winner(spreads, values, sign))


def _winner(
    spreads: Sequence[Spread], values: dict[str, dict[Place, float]], sign: int
) -> Winner | None:
    whole = [one for one in spreads if not one.failed and one.mean is not None]
    if len(whole) < 2:
        return None
    first, second = whole[:2]
    if first.mean is None or second.mean is None:
        return None
    places = values[first.name].keys() & values[second.name].keys()
    better = sum(
        sign * (values[first.name][place] - values[second.name][place]) < 0 for place in places
    )
    margin = abs(first.mean - second.mean)
    return Winner(
        name=first.name,
        mean=first.mean,
        second=second.name,
        margin=margin,
        share=margin / abs(second.mean) if second.mean else None,
        better=better,
        pairs=len(places),
        tied=tuple(one.name for one in whole[1:] if one.mean == first.mean),
    )


def no_such_metric(metric: str, known: Iterable[str]) -> str:
    """Message for a metric that an evaluator does not give.

    Examples
    --------
    >>> no_such_metric("fre", ["free", "steals"])
    'fre: no such metric; did you mean free? Known are free, steals'
    """
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(metric, names, 1)
    guess = f"did you mean {near[0]}? Known" if near else "known"
    return f"{metric}: no such metric; {guess} are {', '.join(names)}"
