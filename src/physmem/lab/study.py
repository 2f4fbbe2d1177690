# SPDX-License-Identifier: GPL-2.0-or-later
"""A study as a TOML file: which captures or experiments, under which settings, how often.

`EXAMPLE` of `physmem.lab.study_example` shows all keys. `read_study` gives a `Study`, in which the
grid is spelled out and captures are files.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from physmem.firmware.toml_lines import WrongValueError, line_of
from physmem.lab.evaluator import CAPTURE, EXPERIMENT, Evaluator, read_evaluator
from physmem.lab.grid import Settings, Variant, count_points, grid_points, setting_text
from physmem.lib.errors import BadInputError, BadStudyError

MAX_TASKS = 1_000_000


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of a study: no key that is not known."""


class Objective(_Strict, frozen=True):
    """What the winner is best in: a metric, to be maximised or minimised."""

    metric: str
    goal: Literal["maximise", "minimise", "maximize", "minimize"] = "maximise"

    @property
    def maximise(self) -> bool:
        """Tell whether more is better."""
        return not self.goal.startswith("min")


class _Sample(_Strict, frozen=True):
    count: Annotated[int, msgspec.Meta(ge=1)]
    seed: int = 0


class _Named(_Strict, frozen=True):
    name: str
    settings: dict[str, Any] = {}


class _Experiment(_Strict, frozen=True):
    name: str
    params: dict[str, Any] = {}


_Seeds = Annotated[int, msgspec.Meta(ge=1, le=MAX_TASKS)] | list[int]


class _File(_Strict, frozen=True):
    """The file as it is written."""

    objective: Objective
    captures: list[str] = []
    experiments: list[_Experiment] = msgspec.field(name="experiment", default_factory=list)
    settings: dict[str, Any] = {}
    sample: _Sample | None = None
    variants: list[_Named] = msgspec.field(name="variant", default_factory=list)
    seeds: _Seeds = 1
    evaluator: str = ""


@dataclass(frozen=True)
class Experiment:
    """An experiment of a study, with parameters that all its variants share."""

    name: str
    params: Settings


@dataclass(frozen=True)
class Study:
    """What a study asks for.

    Attributes
    ----------
    name : of the file
    folder : of the file; what settings name is relative to it
    text : of the file, for provenance
    captures : name (relative to the study) -> path
    variants : named groups of settings: those of the grid, then those with a name of their own
    evaluators : what measures captures and experiments
    """

    name: str
    folder: Path
    text: str
    objective: Objective
    captures: Mapping[str, Path]
    experiments: tuple[Experiment, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    evaluators: Mapping[str, Evaluator]


def read_study(path: str | Path) -> Study:
    """Study of a TOML file; names of files in it are relative to it.

    Raises
    ------
    BadStudyError
        It cannot be read, or a key or value is wrong; names file and line, says what to write.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadStudyError(
            f"{path}: {error.strerror or error}; give a study (physmem sweep --example prints one)"
        ) from None
    except UnicodeDecodeError:
        raise BadStudyError(f"{path}: not a text file; give a study in TOML") from None
    return parse_study(text, str(path), Path(path).absolute().parent)


def parse_study(text: str, name: str = "study.toml", folder: Path | None = None) -> Study:
    r"""Study of a TOML text.

    Parameters
    ----------
    name : how to call the text in messages
    folder : where the files are that it names

    Raises
    ------
    BadStudyError
        As `read_study`.

    Examples
    --------
    >>> text = '''seeds = [4, 5]
    ... [objective]
    ... metric = "free"
    ... [settings]
    ... mobility = [true, false]
    ... [[experiment]]
    ... name = "frag"
    ... '''
    >>> study = parse_study(text)
    >>> [variant.name for variant in study.variants], study.seeds
    (['mobility=on', 'mobility=off'], (4, 5))
    >>> parse_study('[objective]\nmetrik = "x"', "s")
    Traceback (most recent call last):
        ...
    physmem.lib.errors.BadStudyError: s: line 2: objective.metrik: no such key; did you mean metric?
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadStudyError(f"{name}: not TOML: {error}") from None
    try:
        return _study(data, text, name, folder or Path.cwd())
    except WrongValueError as error:
        line = line_of(text, error.path)
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path
        ).lstrip(".")
        at = f"line {line}: " if line else ""
        raise BadStudyError(f"{name}: {at}{where}: {error}") from None


def _study(data: Mapping[str, Any], text: str, name: str, folder: Path) -> Study:
    try:
        file = msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        raise _translated(str(error)) from None
    if not file.captures and not file.experiments:
        raise WrongValueError(["captures"], 'nothing to study; write captures = ["a.physmem"]')
    if not file.objective.metric:
        raise WrongValueError(["objective", "metric"], "name the figure that decides")
    study = Study(
        name=Path(name).name,
        folder=folder,
        text=text,
        objective=Objective(
            metric=file.objective.metric,
            goal="maximise" if file.objective.maximise else "minimise",
        ),
        captures=_captures(file.captures, folder),
        experiments=_experiments(file.experiments),
        variants=_variants(file),
        seeds=_seeds(file.seeds),
        evaluators=_evaluators(file, folder),
    )
    tasks = (len(study.captures) + len(study.experiments)) * len(study.variants) * len(study.seeds)
    if tasks > MAX_TASKS:
        raise WrongValueError(
            ["settings"], f"{tasks:,} tasks; take a sample: [sample] count = 1000"
        )
    return study


def _captures(patterns: Sequence[str], folder: Path) -> dict[str, Path]:
    """Files by their names relative to the study, each once."""
    from physmem.trace.capture import read_info

    found: dict[Path, str] = {}
    for at, pattern in enumerate(patterns):
        if any(sign in pattern for sign in "*?["):
            base = Path(Path(pattern).anchor) if Path(pattern).is_absolute() else folder
            inner = Path(pattern).relative_to(base) if Path(pattern).is_absolute() else pattern
            paths = sorted(path for path in base.glob(str(inner)) if path.is_file())
            if not paths:
                raise WrongValueError(
                    ["captures", at], f"{pattern}: no file in {folder} is called so"
                )
        else:
            paths = [folder / pattern]
        for path in paths:
            try:
                read_info(path)
            except BadInputError as error:
                raise WrongValueError(["captures", at], str(error)) from None
            name = _relative(path, folder)
            found.setdefault(path.resolve(), name)
    return {name: path for path, name in found.items()}


def _relative(path: Path, folder: Path) -> str:
    from os.path import relpath

    return Path(relpath(path, folder)).as_posix()


def _experiments(tables: Sequence[_Experiment]) -> tuple[Experiment, ...]:
    made = []
    for at, table in enumerate(tables):
        if not table.name:
            raise WrongValueError(["experiment", at, "name"], "write the name of an experiment")
        params = _settings(table.params, ["experiment", at, "params"])
        made.append(Experiment(table.name, params))
    labels = [(one.name, tuple(one.params.items())) for one in made]
    for at, label in enumerate(labels):
        if label in labels[:at]:
            raise WrongValueError(
                ["experiment", at], f"{label[0]} stands there twice; leave one out"
            )
    return tuple(made)


def _variants(file: _File) -> tuple[Variant, ...]:
    grid = _grid(file.settings)
    total = count_points(grid)
    if file.sample is None and total > MAX_TASKS:
        raise WrongValueError(
            ["settings"], f"{total:,} points; take a sample: [sample] count = 1000"
        )
    if file.sample is not None and not grid:
        raise WrongValueError(["sample"], "there is no grid to take it from; write [settings]")
    if file.sample is not None and file.sample.count > MAX_TASKS:
        raise WrongValueError(["sample", "count"], f"write at most {MAX_TASKS:,}")
    sample = None if file.sample is None else (file.sample.count, file.sample.seed)
    made = grid_points(grid, sample) if grid else []
    names = {variant.name for variant in made}
    for at, table in enumerate(file.variants):
        if not table.name.strip() or not table.name.isprintable():
            raise WrongValueError(["variant", at, "name"], "write a name to print")
        if table.name in names:
            raise WrongValueError(
                ["variant", at, "name"], f"{table.name}: two variants are called so"
            )
        names.add(table.name)
        settings = _settings(table.settings, ["variant", at, "settings"])
        made.append(Variant(table.name, settings))
    return tuple(made) or (Variant("baseline", {}),)


def _flat(table: Mapping[str, Any], path: list[str | int]) -> dict[str, Any]:
    """Values by knob: `vm.overcommit = 1` is a table in TOML, and a knob's name here."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            for inner, deep in _flat(value, [*path, name]).items():
                flat[f"{name}.{inner}"] = deep
        else:
            flat[name] = value
    return flat


def _settings(table: Mapping[str, Any], path: list[str | int]) -> Settings:
    return {
        knob: _text(value, [*path, *knob.split(".")]) for knob, value in _flat(table, path).items()
    }


def _grid(table: Mapping[str, Any]) -> dict[str, list[str]]:
    grid = {}
    for knob, value in _flat(table, ["settings"]).items():
        path: list[str | int] = ["settings", *knob.split(".")]
        values = value if isinstance(value, list) else [value]
        if not values:
            raise WrongValueError(path, "an empty list; write the values to try")
        texts = [_text(one, [*path, at]) for at, one in enumerate(values)]
        if len(set(texts)) != len(texts):
            raise WrongValueError(path, "a value stands there twice; leave one out")
        grid[knob] = texts
    return grid


def _text(value: Any, path: Sequence[str | int]) -> str:
    if not isinstance(value, str | int | float):
        raise WrongValueError(path, f"{value!r}: write a number, text in quotes, true or false")
    return setting_text(value)


def _seeds(seeds: int | list[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        return tuple(range(seeds))
    if not seeds or len(set(seeds)) != len(seeds):
        raise WrongValueError(["seeds"], "write a number of seeds, or a list without repetition")
    for at, seed in enumerate(seeds):
        if not 0 <= seed < 1 << 63:
            raise WrongValueError(["seeds", at], f"{seed}: write a number from 0 to 2^63 - 1")
    return tuple(seeds)


def _evaluators(file: _File, folder: Path) -> dict[str, Evaluator]:
    if not file.evaluator:
        return {"capture": CAPTURE, "experiment": EXPERIMENT}
    try:
        own = read_evaluator(file.evaluator, folder)
    except BadStudyError as error:
        raise WrongValueError(["evaluator"], str(error)) from None
    return {"capture": own, "experiment": own}


_AT = re.compile(r"(?s)(.*) - at `\$(.*)`")
_PART = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WORDS = {
    "`object`": "a table",
    "`array`": "a list",
    "`str`": "text in quotes",
    "`int`": "a number",
}


def _translated(message: str) -> WrongValueError:
    """Turn an error of msgspec into one that speaks of TOML."""
    found = _AT.fullmatch(message)
    text, where = (found[1], found[2]) if found else (message, "")
    path: list[str | int] = [
        name or (int(number) if number.isdigit() else 0) for name, number in _PART.findall(where)
    ]
    unknown = _UNKNOWN.fullmatch(text)
    if unknown:
        return WrongValueError([*path, unknown[1]], _no_such_key(path, unknown[1]))
    missing = _MISSING.fullmatch(text)
    if missing:
        what = f"{missing[1]} is missing"
        if not path:
            return WrongValueError([missing[1]], 'missing; write [objective] metric = "..."')
        return WrongValueError(path, f"{what}; write {missing[1]} = ...")
    for word, plain in _WORDS.items():
        text = text.replace(word, plain)
    return WrongValueError(path or ["study"], text[:1].lower() + text[1:])


_TABLES: dict[str, type[msgspec.Struct]] = {
    "": _File,
    "objective": Objective,
    "sample": _Sample,
    "variant": _Named,
    "experiment": _Experiment,
}


def _no_such_key(path: Sequence[str | int], key: str) -> str:
    from difflib import get_close_matches

    table = _TABLES.get(str(path[0]) if path else "", _File)
    known = [field.encode_name for field in msgspec.structs.fields(table)]
    near = get_close_matches(key, known, 1)
    if near:
        return f"no such key; did you mean {near[0]}?"
    return f"no such key; known are {', '.join(known)}"
