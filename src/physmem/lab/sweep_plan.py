# SPDX-License-Identifier: GPL-2.0-or-later
"""What a sweep has to do: one row per capture, variant and seed; equal rows share a task."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from physmem.lab.digest import file_digest
from physmem.lab.evaluator import Evaluator, check_settings
from physmem.lab.setting_file import place_files, setting_files
from physmem.lab.study import Study
from physmem.lab.task import Task, tasks_of
from physmem.lib.errors import BadStudyError, PhysmemError


@dataclass(frozen=True)
class Row:
    """One row of the results, before it is computed."""

    subject: str
    variant: str
    task: Task
    key: str


@dataclass(frozen=True)
class Plan:
    """Rows of a study in its order, and the digests of its captures by name."""

    study: Study
    rows: tuple[Row, ...]
    digests: Mapping[str, str]

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Tasks by key, in the order of their first rows."""
        made: dict[str, Task] = {}
        for row in self.rows:
            made.setdefault(row.key, row.task)
        return made

    def used_evaluators(self) -> set[Evaluator]:
        """What measures the captures and experiments of this plan."""
        return {task.evaluator for task in self.tasks.values()}

    def missing(self, known: Iterable[str]) -> list[Task]:
        """Tasks whose keys are not known yet."""
        done = set(known)
        return [task for key, task in self.tasks.items() if key not in done]


def plan_study(study: Study) -> Plan:
    """Plan of a study; reads all captures once, for their digests.

    Raises
    ------
    BadStudyError
        An experiment or a setting does not exist.
    BadInputError
        A capture cannot be read.
    """
    _check(study)
    digests = {name: file_digest(path) for name, path in study.captures.items()}
    subjects: dict[str, tuple[str, str, Evaluator, Mapping[str, Any]]] = {
        name: (str(path), digests[name], study.evaluators["capture"], {})
        for name, path in study.captures.items()
    }
    for one in study.experiments:
        label = " ".join([one.name, *(f"{knob}={value}" for knob, value in one.params.items())])
        subjects[label] = (one.name, "", study.evaluators["experiment"], one.params)
    variants = {variant.name: variant.settings for variant in study.variants}
    rows = [
        Row(*made, made[2].key) for made in tasks_of(subjects, variants, study.seeds, study.folder)
    ]
    return Plan(study, tuple(rows), digests)


def _check(study: Study) -> None:
    """Let those who will measure refuse settings that do not exist."""
    first = next(iter(study.captures.values()), None)
    asked: list[tuple[str, str, Mapping[str, str]]] = []
    if first is not None:
        asked.append(("capture", str(first), {}))
    asked += [("experiment", one.name, one.params) for one in study.experiments]
    for kind, target, shared in asked:
        for variant in study.variants:
            settings = {**shared, **variant.settings}
            try:
                files = setting_files(settings, study.folder)
                here = place_files(settings, files, "") or settings
                check_settings(study.evaluators[kind], target, here)
            except PhysmemError as error:
                where = variant.name if kind == "capture" else f"{variant.name}, {target}"
                raise BadStudyError(f"{study.name}: {where}: {error}") from None
