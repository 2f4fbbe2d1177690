# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sweep measures of a capture: `evaluate` without its labels."""

from collections.abc import Mapping

from physmem.lab.evaluate import evaluate
from physmem.lab.settings import Settings

LABELS = ("capture", "digest", "settings", "seed")
"""They say from what a row is: in a sweep the task says it, and a capture may have many names."""


def measure(
    capture_path: str, settings: Mapping[str, str], seed: int
) -> dict[str, float | int | str]:
    """Metrics of one variant (`physmem.lab.evaluate.evaluate`), without its labels.

    Raises
    ------
    BadInputError, BadMachineError, BadCaptureError
        As `evaluate`.
    """
    row = evaluate(capture_path, settings, seed)
    return {name: value for name, value in row.items() if name not in LABELS}


def check(_capture_path: str, settings: Mapping[str, str]) -> None:
    """Refuse settings that do not exist, before the work.

    Raises
    ------
    BadInputError
        No such setting, or a value that it cannot have.

    Examples
    --------
    >>> check("a.physmem", {"movablecore": "128M"})
    >>> check("a.physmem", {"movablecores": "128M"})
    Traceback (most recent call last):
        ...
    physmem.lib.errors.BadInputError: movablecores: no such setting; did you mean movablecore?
    """
    Settings.parse(settings)
