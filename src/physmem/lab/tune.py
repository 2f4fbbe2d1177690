# SPDX-License-Identifier: GPL-2.0-or-later
"""Search for the settings that make one metric best: Optuna's TPE over a storage that lasts.

Same inputs and seed, same trials, also when the search was interrupted in between: the sampler is
seeded anew for each trial, by the search's seed and the number of trials that are finished. With
several jobs it proposes so many trials at once and is told their results in that order.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physmem.lab.digest import key_of, source_digest
from physmem.lab.evaluator import Evaluator
from physmem.lab.journal import lock_file
from physmem.lab.knob import Aim, Knob
from physmem.lab.local_pool import Pool
from physmem.lab.setting_file import setting_files
from physmem.lab.summary import no_such_metric
from physmem.lab.task import OK, Outcome, Task
from physmem.lib.errors import BadInputError, BadStudyError

if TYPE_CHECKING:
    import sqlite3

    import optuna

_INTERRUPTED = "interrupted"
_HOPELESS = 3
"""So many trials in a row, from the first, must not fail: then no trial will succeed."""


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes
    ----------
    subject : what it is called; `target` what the evaluator gets; `digest` of a capture's bytes
    fixed : settings that all trials share
    trials : in all, with those of earlier runs
    """

    subject: str
    target: str
    digest: str
    evaluator: Evaluator
    aim: Aim
    knobs: tuple[Knob, ...]
    trials: int
    seed: int = 0
    fixed: Mapping[str, str] = ()  # type: ignore[assignment] # an empty mapping that none can change

    @property
    def name(self) -> str:
        """Name in the storage: what the trials depend on, all but their number."""
        import msgspec

        files = setting_files(self.fixed, Path())
        inputs = {
            "files": {knob: file.digest for knob, file in files.items()},
            "what": self.digest or self.target,
            "evaluator": self.evaluator.identity,
            "aim": str(self.aim),
            "knobs": msgspec.to_builtins(self.knobs),
            "fixed": dict(self.fixed),
            "seed": self.seed,
            "source": source_digest(),
        }
        return f"{self.subject} {self.aim} {key_of(inputs)[:16]}"

    def task(self, settings: Mapping[str, str]) -> Task:
        """Task of one trial. Its seed is the search's: trials differ by settings only."""
        merged = {**dict(self.fixed), **settings}
        return Task(
            self.subject,
            self.target,
            self.digest,
            merged,
            self.seed,
            self.evaluator,
            source_digest(),
            files=setting_files(merged, Path()),
        )


@dataclass(frozen=True)
class TrialResult:
    """A finished trial; `value` is None when it failed, `message` says why."""

    number: int
    settings: dict[str, str]
    value: float | None
    message: str = ""


@dataclass(frozen=True)
class Tuned:
    """All trials, in order; `best` is None when none succeeded.

    Attributes
    ----------
    known : trials of earlier runs
    """

    search: Search
    trials: tuple[TrialResult, ...]
    known: int

    @property
    def ranked(self) -> tuple[TrialResult, ...]:
        """Trials that succeeded, best first; of equals the earlier one."""
        sign = -1 if self.search.aim.maximise else 1
        done = [trial for trial in self.trials if trial.value is not None]
        return tuple(sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number)))

    @property
    def best(self) -> TrialResult | None:
        """The best trial."""
        return next(iter(self.ranked), None)


def tune(
    search: Search,
    storage: str,
    pool: Pool,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Tuned:
    """Search until there are `search.trials` trials; goes on with what the storage holds.

    Parameters
    ----------
    storage : URL such as sqlite:///tune.db, or the path of a SQLite file
    jobs : trials that are proposed at once

    Raises
    ------
    BadStudyError
        Optuna is not installed, the storage cannot be used, the metric does not exist, or the
        first trials all fail.
    BadInputError
        Another search is at work on the same SQLite file.
    """
    try:
        import optuna
    except ImportError:
        raise BadStudyError("a search needs the package optuna; install physmem[tune]") from None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage if "://" in storage else f"sqlite:///{storage}"
    lock = opened = None
    try:
        lock = _lock(url)
        opened = _open(url)
        study = _study(search, opened)
        known = _clear(study)
        with pool:
            progress(known, search.trials)
            _go_on(search, study, pool, jobs, progress)
        return Tuned(search, tuple(_results(search, study)), known)
    finally:
        if opened is not None:
            opened.remove_session()
            opened.engine.dispose()
        optuna.logging.set_verbosity(verbosity)
        if lock is not None:
            os.close(lock)


def _lock(url: str) -> int | None:
    """Hold the lock beside a SQLite file: two searches would take each other's trials for dead."""
    if not url.startswith("sqlite:///"):
        return None
    path = Path(url.removeprefix("sqlite:///"))
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadStudyError(f"{path}: {error.strerror}; choose another --storage") from None
    try:
        lock_file(descriptor, path)
    except BadInputError:
        os.close(descriptor)
        raise
    return descriptor


def _open(url: str) -> "optuna.storages.RDBStorage":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    options = {}
    if url.startswith("sqlite:///") and "?" not in url:
        options["creator"] = partial(_connect, url.removeprefix("sqlite:///"))
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
        raise _no_storage(url, error) from None


def _connect(path: str) -> "sqlite3.Connection":
    """Connection that does not wait for the disk at each of the many commits of a trial.

    With a write-ahead log, a killed process loses nothing by that, a power cut the last trials.
    """
    import sqlite3

    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _no_storage(url: str, error: Exception) -> BadStudyError:
    reason = " ".join(str(error).split())[:160]
    return BadStudyError(f"{url}: no storage of Optuna ({reason}); choose another --storage")


def _study(search: Search, storage: "optuna.storages.RDBStorage") -> "optuna.Study":
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.create_study(
            storage=storage,
            study_name=search.name,
            direction="maximize" if search.aim.maximise else "minimize",
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise _no_storage(str(storage.engine.url), error) from None


def _clear(study: "optuna.Study") -> int:
    """Trials that are finished; those that a killed search left running are given up."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study._storage.set_trial_system_attr(trial._trial_id, _INTERRUPTED, True)  # noqa: SLF001 - the public way needs the trial's object
        study.tell(trial.number, state=TrialState.FAIL)
    return len(_finished(study))


def _finished(study: "optuna.Study") -> list[Any]:
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and _INTERRUPTED not in trial.system_attrs
    ]


def _go_on(
    search: Search,
    study: "optuna.Study",
    pool: Pool,
    jobs: int,
    progress: Callable[[int, int], None],
) -> None:
    from optuna.trial import TrialState

    finished = _finished(study)
    values: dict[str, tuple[float | None, str]] = {
        trial.user_attrs["key"]: (trial.value, trial.user_attrs.get("message", ""))
        for trial in finished
        if "key" in trial.user_attrs
    }
    done = len(finished)
    while done < search.trials:
        asked = []
        for at in range(min(jobs, search.trials - done)):
            study.sampler = _sampler(search.seed, done + at, several=jobs > 1)
            trial = study.ask()
            settings = {knob.name: knob.suggest(trial) for knob in search.knobs}
            asked.append((trial, search.task(settings)))
        wanted = {task.key: task for _, task in asked if task.key not in values}
        ready = done + len(asked) - len(wanted)
        for outcome in pool.run(wanted.values()):
            if outcome is not None:
                values[outcome.key] = _value(search, outcome)
                ready += 1
            progress(ready, search.trials)
        for trial, task in asked:
            value, message = values[task.key]
            trial.set_user_attr("key", task.key)
            if message:
                trial.set_user_attr("message", message)
            if value is None:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, value)
            done += 1
        progress(done, search.trials)
        if done >= _HOPELESS and all(value is None for value, _ in values.values()):
            reason = next(message for _, message in values.values())
            raise BadStudyError(f"all of the first {done} trials failed: {reason}")


def _sampler(seed: int, number: int, *, several: bool) -> Any:
    """Sampler of one trial: what it draws depends on nothing that an interrupted run forgets."""
    from optuna.samplers import TPESampler

    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=4).digest()
    return TPESampler(seed=int.from_bytes(digest, "little"), constant_liar=several)


def _value(search: Search, outcome: Outcome) -> tuple[float | None, str]:
    if outcome.status != OK:
        return None, outcome.message
    value = outcome.metrics.get(search.aim.metric)
    if value is None:
        raise BadStudyError(f"--objective {no_such_metric(search.aim.metric, outcome.metrics)}")
    if isinstance(value, str) or not math.isfinite(value):
        return None, f"{search.aim.metric} is {value}, no number to compare"
    return float(value), ""


def _results(search: Search, study: "optuna.Study") -> Sequence[TrialResult]:
    made = []
    for number, trial in enumerate(_finished(study)):
        settings = {
            knob.name: knob.value_text(trial.params[knob.name])
            for knob in search.knobs
            if knob.name in trial.params
        }
        made.append(TrialResult(number, settings, trial.value, trial.user_attrs.get("message", "")))
    return made
