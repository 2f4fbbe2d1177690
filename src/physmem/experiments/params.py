# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of experiments: what may be chosen, checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from physmem.firmware.size import parse_size
from physmem.lib.errors import BadMachineError, BadRequestError

SIZE = "size"
INT = "int"
FLOAT = "float"
CHOICE = "choice"


@dataclass(frozen=True)
class Parameter:
    """One parameter of an experiment.

    Attributes
    ----------
    name : as in `--param name=value`
    kind : SIZE (bytes, written as "8GiB"), INT, FLOAT or CHOICE
    default : value where none is given
    text : what it changes
    least, most : bounds, both allowed (sizes in bytes)
    choices : of a CHOICE
    """

    name: str
    kind: str
    default: Any
    text: str
    least: float = 0
    most: float = float("inf")
    choices: tuple[str, ...] = ()

    def parse(self, value: Any) -> Any:
        """Value in its own type; a size stays as written, if it can be read.

        Raises
        ------
        BadRequestError
            Not of this kind, or out of bounds.
        """
        if self.kind == CHOICE:
            if value not in self.choices:
                near = suggestion(str(value), self.choices)
                raise BadRequestError(f"{self.name} {value!r}: choose {_list(self.choices)}{near}")
            return value
        number = self._number(value)
        if not self.least <= number <= self.most:
            bounds = f"{self._text(self.least)} to {self._text(self.most)}"
            if self.most == float("inf"):
                bounds = f"at least {self._text(self.least)}"
            raise BadRequestError(f"{self.name} {value!r}: must be {bounds}")
        return value if self.kind == SIZE else number

    def _number(self, value: Any) -> float:
        if isinstance(value, bool):
            raise BadRequestError(f"{self.name} {value!r}: a number is needed")
        try:
            if self.kind == SIZE:
                return parse_size(value)
            if self.kind == INT:
                return int(str(value).replace("_", ""), 0)
            return float(value)
        except (BadMachineError, ValueError, TypeError):
            wanted = {SIZE: "a size such as 8GiB", INT: "a whole number", FLOAT: "a number"}
            raise BadRequestError(f"{self.name} {value!r}: {wanted[self.kind]} is needed") from None

    def _text(self, number: float) -> str:
        if self.kind != SIZE:
            return f"{number:g}"
        for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
            if number >= 1 << shift:
                return f"{number / (1 << shift):g} {unit}"
        return f"{number:g} bytes"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]


def suggestion(name: str, known: Sequence[str]) -> str:
    """'; did you mean ...?' for a name that is nearly right, else nothing.

    Examples
    --------
    >>> suggestion("gormann", ["gorman", "fragmenters"])
    '; did you mean gorman?'
    """
    near = get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def fill(known: Sequence[Parameter], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters, the given ones checked and the others at their default.

    Raises
    ------
    BadRequestError
        A name that the experiment does not have, or a value that is not possible.
    """
    names = [parameter.name for parameter in known]
    for name in given:
        if name not in names:
            near = suggestion(name, names)
            raise BadRequestError(f"{where} has no parameter {name!r}; it has {_list(names)}{near}")
    return {
        parameter.name: parameter.parse(given.get(parameter.name, parameter.default))
        for parameter in known
    }
