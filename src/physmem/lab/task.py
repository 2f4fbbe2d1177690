# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of a sweep: its inputs, the key they give, what came out, and how a worker runs it."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from physmem.lab.digest import bytes_digest, file_digest, key_of, source_digest
from physmem.lab.evaluator import Evaluator, Metrics, measure
from physmem.lab.setting_file import SettingFile, place_files, setting_files
from physmem.lib.errors import BadInputError, PhysmemError
from physmem.lib.output import replace_file
from physmem.lib.version import __version__

FAILED = "failed"
OK = "ok"
NEEDS_CAPTURE = "needs capture"
"""The worker cannot read the capture: it wants its bytes."""
OTHER_SOURCES = "other sources"
"""The worker has another physmem than the one that asks."""


class Task(msgspec.Struct, frozen=True):
    """One capture (or experiment) under one group of settings with one seed.

    Attributes
    ----------
    subject : what it is called in tables
    target : what the evaluator is given: path of the capture, or name of the experiment
    digest : of the capture's bytes; "" for an experiment
    source : digest of the sources that are to compute it
    files : files that settings name, by knob
    """

    subject: str
    target: str
    digest: str
    settings: dict[str, str]
    seed: int
    evaluator: Evaluator
    source: str
    version: str = __version__
    files: dict[str, SettingFile] = {}

    @property
    def key(self) -> str:
        """What the result depends on, as a digest; where the capture lies is no part of it."""
        return key_of(
            {
                "what": self.digest or self.target,
                "settings": self.settings,
                "files": {knob: file.digest for knob, file in self.files.items()},
                "seed": self.seed,
                "evaluator": self.evaluator.identity,
                "source": self.source,
                "version": self.version,
            }
        )


class Outcome(msgspec.Struct):
    """What came of a task. `worker` and `seconds` are about this run and no part of the result.

    Attributes
    ----------
    status : "ok", "failed", or one of the wishes above
    error : class of the error of a task that failed, `message` its text
    lasting : the same task would give the same again; False: worth another attempt
    """

    key: str
    status: str
    metrics: Metrics = {}
    error: str = ""
    message: str = ""
    lasting: bool = True
    worker: str = ""
    seconds: float = 0.0


def died(task: Task, times: int) -> Outcome:
    """Outcome of a task that took its worker with it again and again."""
    return Outcome(
        task.key,
        FAILED,
        error="WorkerDied",
        message=f"its worker died {times} times (is there enough memory for it?)",
        lasting=False,
    )


def check_outcome(task: Task, outcome: Outcome) -> Outcome:
    """Refuse the outcome of a process of this computer that found other inputs than were planned.

    Raises
    ------
    BadInputError
        The capture or the sources of physmem have changed since.
    """
    if outcome.status == NEEDS_CAPTURE:
        what = [task.target, *(file.path for file in task.files.values())]
        raise BadInputError(f"{' or '.join(what)}: changed or gone since the start; start again")
    if outcome.status == OTHER_SOURCES:
        raise BadInputError("the sources of physmem have changed since the start; start again")
    return outcome


def run_task(task: Task, worker: str, folder: str = "") -> Outcome:
    """Run a task in this process; whatever the evaluator raises becomes an outcome.

    Parameters
    ----------
    worker : name of this process, for the record
    folder : where `keep_capture` has put captures that were sent; "": nowhere

    Examples
    --------
    >>> own = Evaluator("m.py:one", "def one(name, settings, seed): return {'n': seed}")
    >>> run_task(Task("frag", "frag", "", {}, 3, own, source_digest()), "me").metrics
    {'n': 3}
    """
    start = time.perf_counter()
    outcome = _run(task, folder)
    outcome.worker = worker
    outcome.seconds = time.perf_counter() - start
    return outcome


def _run(task: Task, folder: str) -> Outcome:
    if source_digest() != task.source:
        return Outcome(task.key, OTHER_SOURCES, message=f"{__version__} ({source_digest()[:12]})")
    target = _find(task, folder)
    settings = place_files(task.settings, task.files, folder)
    if target is None or settings is None:
        return Outcome(task.key, NEEDS_CAPTURE)
    lasting = True
    try:
        metrics = measure(task.evaluator, target, settings, task.seed)
    except PhysmemError as error:
        name, text = type(error).__name__, str(error)
    except Exception as error:  # noqa: BLE001 - one bad variant must not end a sweep
        name, text = type(error).__name__, f"internal error: {type(error).__name__}: {error}"
        lasting = not isinstance(error, MemoryError | OSError)
    else:
        return Outcome(task.key, OK, metrics)
    # Paths differ between workers, the message must not.
    text = " ".join(text.replace(target, task.subject).split())
    for knob in task.files:
        here, told = (named[knob].rpartition(".py")[0] for named in (settings, task.settings))
        text = text.replace(here, told)
    return Outcome(task.key, FAILED, error=name, message=text, lasting=lasting)


def _find(task: Task, folder: str) -> str | None:
    """Path of the capture that has the wanted bytes; None: there is none here."""
    if not task.digest:
        return task.target
    places = [task.target]
    if folder:
        places.append(str(_kept(folder, task.digest)))
    for place in places:
        try:
            if file_digest(place) == task.digest:
                return place
        except BadInputError:
            continue
    return None


def _kept(folder: str, digest: str) -> Path:
    return Path(folder) / f"{digest}.physmem"


def keep_capture(digest: str, data: bytes, folder: str) -> str:
    """Put a capture that was sent where `run_task` finds it; the digest of what arrived.

    Examples
    --------
    >>> import tempfile
    >>> keep_capture(bytes_digest(b"x"), b"x", tempfile.mkdtemp()) == bytes_digest(b"x")
    True
    """
    arrived = bytes_digest(data)
    if arrived == digest:
        path = _kept(folder, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as out:
            out.write(data)
    return arrived


def tasks_of(
    subjects: Mapping[str, tuple[str, str, Evaluator, Mapping[str, str]]],
    variants: Mapping[str, Mapping[str, str]],
    seeds: tuple[int, ...],
    folder: Path,
) -> list[tuple[str, str, Task]]:
    """Tasks in the order of the study, each with the names of its subject and its variant.

    Parameters
    ----------
    subjects : name -> target, digest, evaluator, settings that a variant may override
    variants : name -> settings
    folder : where files are that settings name

    Raises
    ------
    BadStudyError
        There is no such file.
    """
    source = source_digest()
    made: list[tuple[str, str, Task]] = []
    for subject, (target, digest, evaluator, shared) in subjects.items():
        for variant, settings in variants.items():
            merged: dict[str, str] = {**shared, **settings}
            files = setting_files(merged, folder)
            for seed in seeds:
                task = Task(subject, target, digest, merged, seed, evaluator, source, files=files)
                made.append((subject, variant, task))
    return made
