# SPDX-License-Identifier: GPL-2.0-or-later
"""Knobs that a search may turn: `name=low..high[:log|:step]` or `name=a|b|c`."""

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from physmem.lib.errors import BadStudyError

if TYPE_CHECKING:
    from optuna.trial import Trial

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?[KMGT]?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(log|{_NUMBER}))?")


class Knob(msgspec.Struct, frozen=True):
    """A setting and the values that it may have.

    Attributes
    ----------
    choices : words to choose from; () when it is a range of numbers
    low, high, step : of numbers, in `unit`; step None: any number of the range
    log : the logarithm is spread evenly
    whole : no fractions
    unit : suffix of the value, such as M
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    whole: bool = True
    unit: str = ""

    def suggest(self, trial: "Trial") -> str:
        """Value that the sampler wants to try, as text of a setting."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            step = int(self.step or 1)
            low, high = int(self.low), int(self.high)
            return self._text(trial.suggest_int(self.name, low, high, step=step, log=self.log))
        return self._text(
            trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        )

    def _text(self, value: float) -> str:
        return f"{value}{self.unit if value else ''}"

    @property
    def first(self) -> str:
        """One of its values, to try its name."""
        return self.value_text(self.choices[0] if self.choices else self.low)

    def value_text(self, value: Any) -> str:
        """Text of a value that the search has stored."""
        return str(value) if self.choices else self._text(value)


def parse_knob(text: str) -> Knob:
    """Read a knob as the command line has it.

    Raises
    ------
    BadStudyError
        It is no knob, its range is empty, or its step does not fit.

    Examples
    --------
    >>> parse_knob("mobility=on|off").choices
    ('on', 'off')
    >>> knob = parse_knob("movablecore=0..256M:32M")
    >>> knob.low, knob.high, knob.step, knob.unit
    (0, 256, 32, 'M')
    >>> knob = parse_knob("min_free_kbytes=1024..65536:log")
    >>> knob.log, knob.whole
    (True, True)
    >>> parse_knob("share=0.1..0.9").whole
    False
    >>> parse_knob("pcp=high")
    Traceback (most recent call last):
        ...
    physmem.lib.errors.BadStudyError: --knob pcp=high: write low..high, or a|b|c; a fixed value is \
for --set
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or not value:
        raise BadStudyError(f"--knob {text}: write name=low..high, name=low..high:log or name=a|b")
    found = _RANGE.fullmatch(value)
    if found:
        return _number_knob(text, name, found)
    choices = tuple(value.split("|"))
    if len(choices) < 2:
        raise BadStudyError(f"--knob {text}: write low..high, or a|b|c; a fixed value is for --set")
    if "" in choices or len(set(choices)) != len(choices):
        raise BadStudyError(f"--knob {text}: an empty or repeated choice; leave it out")
    return Knob(name, choices)


def _number_knob(text: str, name: str, found: re.Match[str]) -> Knob:
    parts = [found[1], found[2], *([found[3]] if found[3] and found[3] != "log" else [])]
    numbers = [_split(part) for part in parts]
    units = {unit for number, unit in numbers if number}
    unit = min(units, key=lambda unit: _UNITS[unit], default="")
    scaled = [number * _UNITS[own] / _UNITS[unit] if own else number for number, own in numbers]
    if "" in units and len(units) > 1:
        raise BadStudyError(f"--knob {text}: some numbers have a unit, some have not; give all one")
    low, high = scaled[:2]
    step = scaled[2] if len(scaled) > 2 else None
    log = found[3] == "log"
    if not -(2**53) < low < high < 2**53:
        raise BadStudyError(f"--knob {text}: an empty range; write the lower bound first")
    if step is not None and not 0 < step <= high - low:
        raise BadStudyError(f"--knob {text}: the step does not fit into the range")
    whole = all(number == int(number) for number in scaled) and "." not in "".join(parts)
    if log and (low <= 0 or (whole and low < 1)):
        raise BadStudyError(f"--knob {text}: a logarithm needs a lower bound above 0")
    if step is not None:
        high = low + math.floor((high - low) / step + 1e-9) * step  # the last value of the steps
    if whole:
        low, high, step = int(low), int(high), None if step is None else int(step)
    return Knob(name, (), low, high, step, log, whole, unit)


def _split(text: str) -> tuple[float, str]:
    unit = text[-1] if text[-1] in _UNITS else ""
    return float(text.removesuffix(unit)), unit


class Aim(msgspec.Struct, frozen=True):
    """Metric of a search, and whether more of it is better."""

    metric: str
    maximise: bool = True

    def __str__(self) -> str:
        return f"{self.metric}:{'max' if self.maximise else 'min'}"


def parse_aim(text: str) -> Aim:
    """Read an objective: `METRIC`, `METRIC:max` or `METRIC:min`.

    Raises
    ------
    BadStudyError
        It is none of these.

    Examples
    --------
    >>> str(parse_aim("steals:min")), str(parse_aim("zone:Normal.free"))
    ('steals:min', 'zone:Normal.free:max')
    """
    metric, _, goal = text.rpartition(":")
    goals = {"max": True, "maximise": True, "maximize": True}
    goals |= {"min": False, "minimise": False, "minimize": False}
    if metric and goal in goals:
        return Aim(metric, goals[goal])
    if not text or goal in goals:
        raise BadStudyError(f"--objective {text}: write METRIC, METRIC:max or METRIC:min")
    return Aim(text)
