# SPDX-License-Identifier: GPL-2.0-or-later
"""The function that measures one variant, named by text so that another process finds it.

An evaluator takes the path of a capture (or the name of an experiment), the settings as text and a
seed, and returns flat numbers and words by name. It is `module:function`, resolved where the task
runs; so this layer needs not import what stands above it.
"""

import functools
import importlib
import numbers
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from physmem.lab.digest import bytes_digest
from physmem.lib.errors import BadInputError, BadStudyError

Scalar = int | float | str
Metrics = dict[str, Scalar]


class Evaluator(msgspec.Struct, frozen=True):
    """`module:function`, or `file.py:function` with the text of the file.

    Attributes
    ----------
    name : as above
    source : text of the file, which travels to the worker with the task; "" for a module
    """

    name: str
    source: str = ""

    @property
    def identity(self) -> str:
        """What tasks are known by: the name, and the digest of an own file."""
        digest = f" {bytes_digest(self.source.encode())}" if self.source else ""
        return f"{self.name}{digest}"


CAPTURE = Evaluator("physmem.lab.measure:measure")
"""What `physmem whatif` computes of one variant."""
EXPERIMENT = Evaluator("physmem.experiments.measure:measure")
"""What `physmem experiment` computes."""


def read_evaluator(name: str, folder: Path) -> Evaluator:
    """Evaluator that a study names; a file is looked for in `folder`.

    Raises
    ------
    BadStudyError
        The name has no function, or the file cannot be read.

    Examples
    --------
    >>> read_evaluator("measure:evaluate", Path())
    Evaluator(name='measure:evaluate', source='')
    """
    where, _, function = name.rpartition(":")
    if not where or not function.isidentifier():
        raise BadStudyError(f'{name!r}: write "module:function" or "file.py:function"')
    if not where.endswith(".py"):
        return Evaluator(name)
    try:
        return Evaluator(name, (folder / where).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadStudyError(f"{folder / where}: {reason}; name a Python file") from None


@functools.lru_cache(maxsize=64)
def _load_module(evaluator: Evaluator) -> types.ModuleType:
    where = evaluator.name.rpartition(":")[0]
    if not evaluator.source:
        return importlib.import_module(where)
    module = types.ModuleType(Path(where).stem)
    exec(compile(evaluator.source, where, "exec"), module.__dict__)  # noqa: S102 - the user's own file
    return module


def load_evaluator(evaluator: Evaluator) -> Callable[..., Mapping[str, Any]]:
    """Find the function in this process.

    Raises
    ------
    BadInputError
        There is no such module or function, or the file fails when it is run.

    Examples
    --------
    >>> own = Evaluator("m.py:one", "def one(path, settings, seed): return {'n': seed}")
    >>> load_evaluator(own)("", {}, 7)
    {'n': 7}
    """
    try:
        found: Callable[..., Mapping[str, Any]] = getattr(
            _load_module(evaluator), evaluator.name.rpartition(":")[2]
        )
    except Exception as error:  # noqa: BLE001 - the user's file may fail in any way
        what = f"{type(error).__name__}: {error}"
        raise BadInputError(f"{evaluator.name}: cannot be loaded ({what})") from None
    return found


def check_settings(evaluator: Evaluator, subject: str, settings: Mapping[str, str]) -> None:
    """Let the evaluator's module refuse settings before the work, if it has a function `check`.

    Raises
    ------
    PhysmemError
        What `check` raises; or BadInputError, when the evaluator cannot be loaded.

    Examples
    --------
    >>> check_settings(CAPTURE, "a.physmem", {"movablecore": "1G"})
    """
    load_evaluator(evaluator)
    check: Callable[..., object] | None = getattr(_load_module(evaluator), "check", None)
    if check is not None:
        check(subject, dict(settings))


def measure(evaluator: Evaluator, subject: str, settings: Mapping[str, str], seed: int) -> Metrics:
    """Call an evaluator; its metrics as plain numbers and words.

    Raises
    ------
    BadInputError
        What it returned is not flat: no mapping, or a value that is no number and no text.

    Examples
    --------
    >>> source = "def one(path, settings, seed): return {'on': settings['x'] == '1', 'n': seed}"
    >>> measure(Evaluator("m.py:one", source), "a.physmem", {"x": "1"}, 7)
    {'on': 1, 'n': 7}
    """
    made = load_evaluator(evaluator)(subject, dict(settings), seed)
    if not isinstance(made, Mapping):
        raise BadInputError(f"{evaluator.name}: returned {type(made).__name__}, not a mapping")
    return {str(name): _scalar(evaluator, name, value) for name, value in made.items()}


def _scalar(evaluator: Evaluator, name: str, value: Any) -> Scalar:
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()  # a scalar of NumPy
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    kind = type(value).__name__
    raise BadInputError(f"{evaluator.name}: metric {name} is a {kind}; return numbers and text")
