# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks on a Dask cluster. What a worker that dies had to do is done by another one.

A task carries the path of its capture. A worker that has no file with the wanted bytes there says
so, is sent the bytes, and keeps them in its own folder. `distributed` is an optional requirement.
"""

import logging
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

from physmem.lab.digest import source_digest
from physmem.lab.task import (
    NEEDS_CAPTURE,
    OTHER_SOURCES,
    Outcome,
    Task,
    died,
    keep_capture,
    run_task,
)
from physmem.lib.errors import ClusterError

_BEAT = 0.5  # seconds
_PER_THREAD = 3
"""Tasks under way for each thread of the cluster: one runs, the others wait beside it."""
_SHIPMENTS = 3
"""Times that a capture is sent to one worker."""
_KEPT = "finished tasks are kept, and the same command goes on with the others"


class DaskPool:
    """Cluster behind a scheduler that is running already.

    Parameters
    ----------
    address : such as tcp://10.0.0.1:8786
    patience : seconds to wait for the scheduler, and for a first worker, and for another one when
        all have gone

    Raises
    ------
    ClusterError
        On entering: `distributed` is not installed, or no scheduler answers. In `run`: no worker,
        another physmem on a worker, or the scheduler went away.
    """

    def __init__(self, address: str, patience: float = 15.0) -> None:
        self._address = address
        self._patience = patience
        self._client: Any = None
        self._token = token_hex(4)
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._sent: Counter[tuple[str, str]] = Counter()
        self._quiet: list[tuple[logging.Logger, int]] = []
        self._workers: set[str] = set()
        self._lonely_since: float | None = None
        self.notes: list[str] = []

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of a run."""
        return {"kind": "dask", "address": self._address, "workers": sorted(self._workers)}

    def __enter__(self) -> Self:
        try:
            import distributed
        except ImportError:
            raise ClusterError(
                "a Dask cluster needs the package distributed; install physmem[dask]"
            ) from None
        # It would log what becomes an error of ours, with a traceback.
        for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
            logger = logging.getLogger(name)
            self._quiet.append((logger, logger.level))
            logger.setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                self._client = self._connect(distributed)
        except BaseException:
            self._restore()
            raise
        if any(one.category is distributed.versions.VersionMismatchWarning for one in said):
            self.notes.append(
                "the cluster has other versions of some packages than this computer: results may "
                "differ in their last digits"
            )
        return self

    def _connect(self, distributed: Any) -> Any:
        try:
            return distributed.Client(
                self._address,
                timeout=self._patience,
                set_as_default=False,
                name="physmem-sweep",
            )
        except (OSError, ValueError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ClusterError(
                f"{self._address}: no Dask scheduler answers within {self._patience:g} s "
                f"({reason}); start one with `dask scheduler`, or leave --dask out"
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(Exception):  # a scheduler that is gone cannot be told goodbye
            self._client.close(timeout=5)
        self._restore()

    def _restore(self) -> None:
        for logger, level in self._quiet:
            logger.setLevel(level)
        self._quiet = []

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they come; None twice a second while there are none."""
        todo = deque(tasks)
        flying: dict[str, tuple[Any, Task]] = {}
        try:
            if todo:
                self._first_worker()
            while todo or flying:
                room = _PER_THREAD * max(self._threads(), 1) - len(flying)
                for _ in range(min(room, len(todo))):
                    self._submit(todo.popleft(), flying)
                try:
                    future = self._ended.get(timeout=_BEAT)
                except Empty:
                    self._check_alive()
                    yield None
                    continue
                if future.key not in flying:  # of an earlier run that was given up
                    continue
                _, task = flying.pop(future.key)
                outcome = self._outcome(future, task)
                if outcome.status == NEEDS_CAPTURE:
                    self._send(task, outcome.worker)
                    self._submit(task, flying, outcome.worker)
                    continue
                self._lonely_since = None
                self._workers.add(outcome.worker)
                yield outcome
        finally:
            if flying:
                with suppress(Exception):  # what is no longer wanted, if anyone is there to tell
                    self._client.cancel([future for future, _ in flying.values()])

    def _submit(
        self, task: Task, flying: dict[str, tuple[Any, Task]], worker: str | None = None
    ) -> None:
        future = self._ask(
            lambda: self._client.submit(
                _on_worker,
                task,
                key=f"physmem-{task.key[:12]}-{self._token}-{token_hex(4)}",
                pure=False,
                workers=worker,
                allow_other_workers=worker is not None,
            )
        )
        flying[future.key] = (future, task)
        future.add_done_callback(self._ended.put)

    def _outcome(self, future: Any, task: Task) -> Outcome:
        """Result of a future that has ended, or the error that ends the sweep."""
        from distributed import KilledWorker

        if future.status == "finished":
            outcome: Outcome = self._ask(future.result)
            if outcome.status == OTHER_SOURCES:
                raise ClusterError(
                    f"{outcome.worker}: runs physmem {outcome.message}, not the sources of this "
                    f"computer ({source_digest()[:12]}); install the same on all; {_KEPT}"
                )
            return outcome
        if future.status == "error":
            error = self._ask(future.exception)
            if isinstance(error, KilledWorker):
                return died(task, int(getattr(error, "allowed_failures", 3)) + 1)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ClusterError(
                f"{self._address}: a worker cannot run physmem ({reason}); is it installed on the "
                f"scheduler and on all workers, in the same version? {_KEPT}"
            )
        raise self._gone(f"it gave up a task: {future.status}")

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask the cluster; any of the many ways in which it may be gone is one error of ours."""
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - distributed, tornado and asyncio have their own
            raise self._gone(f"{type(error).__name__}: {error}") from None

    def _gone(self, reason: str) -> ClusterError:
        reason = " ".join(reason.split())[:160].rstrip(": ")
        return ClusterError(f"{self._address}: the Dask scheduler went away ({reason}); {_KEPT}")

    def _threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return sum(worker["nthreads"] for worker in workers.values())

    def _first_worker(self) -> None:
        from distributed import TimeoutError as OutOfTime

        try:
            self._client.wait_for_workers(1, timeout=self._patience)
        except OutOfTime:
            raise self._no_worker() from None

    def _no_worker(self) -> ClusterError:
        return ClusterError(
            f"{self._address}: the Dask scheduler has had no worker for {self._patience:g} s; "
            f"start one with `dask worker {self._address} --nthreads 1`; {_KEPT}"
        )

    def _check_alive(self) -> None:
        """End the wait for something that cannot come."""
        if self._client.status != "running":
            raise self._gone(f"the connection is {self._client.status}")
        if self._ask(self._client.nthreads):
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = time.monotonic()
        elif time.monotonic() - self._lonely_since > self._patience:
            raise self._no_worker()

    def _send(self, task: Task, worker: str) -> None:
        """Send a worker the bytes of a capture; should it die of it, another one will ask."""
        self._sent[worker, task.digest] += 1
        if self._sent[worker, task.digest] > _SHIPMENTS:
            raise ClusterError(
                f"{worker}: cannot keep {task.subject}, sent {_SHIPMENTS} times; is there space in "
                f"its --local-directory? {_KEPT}"
            )
        data = Path(task.target).read_bytes()
        with suppress(Exception):  # it is gone, or has no space: the next attempt will tell
            self._client.run(_keep, task.digest, data, workers=[worker])


def _on_worker(task: Task) -> Outcome:
    """Run a task, with what was sent to this worker."""
    from distributed import get_worker

    worker = get_worker()
    return run_task(task, worker.address, worker.local_directory)


def _keep(digest: str, data: bytes, dask_worker: Any) -> str:
    """Keep a capture in the folder of this worker. Dask gives the last argument by its name."""
    return keep_capture(digest, data, dask_worker.local_directory)
