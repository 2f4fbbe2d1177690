# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks in processes of this computer. A process that dies is replaced, its task repeated."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from physmem.lab.task import Outcome, Task, check_outcome, died, run_task

ATTEMPTS = 3
"""Times that a task may take its process with it, while no other runs."""
_BEAT = 0.5  # seconds


class Pool(Protocol):
    """What runs tasks: processes of this computer, or a cluster."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they come; None now and then while there are none."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of a run."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class LocalPool:
    """So many processes, each a fresh interpreter that keeps its compiled kernels between tasks.

    The processes end when this one does, even when it is killed: each watches a pipe that it holds.

    Parameters
    ----------
    jobs : processes; default: CPUs
    before : called before processes start, if any task is to be run at all

    Examples
    --------
    >>> with LocalPool(1) as pool:
    ...     list(pool.run([]))
    []
    """

    def __init__(self, jobs: int | None = None, before: Callable[[], None] = lambda: None) -> None:
        self.jobs = jobs or os.cpu_count() or 1
        self._before = before
        self._executor: ProcessPoolExecutor | None = None
        self._leash: Connection | None = None

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of a run."""
        return {"kind": "local", "jobs": self.jobs}

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they come; None twice a second while there are none.

        When a process dies, the tasks that were running are repeated one at a time, so that only
        the one at fault can die again; after `ATTEMPTS` times it counts as failed.
        """
        todo = deque(tasks)
        suspects: deque[Task] = deque()
        suspected: set[str] = set()
        deaths: Counter[str] = Counter()
        flying: dict[Future[Outcome], Task] = {}
        while todo or suspects or flying:
            queue = suspects or todo
            alone = bool(suspects) or any(task.key in suspected for task in flying.values())
            while queue and len(flying) < (1 if alone else self.jobs):
                try:
                    future = self._open().submit(run_task, queue[0], "local")
                except BrokenProcessPool:  # a process died that had nothing to do
                    break
                flying[future] = queue.popleft()
            done, _ = wait(flying, timeout=_BEAT, return_when=FIRST_COMPLETED)
            lost = []
            for future in done:
                task = flying.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    lost.append(task)
                else:
                    yield check_outcome(task, outcome)
            if lost or self._is_broken():
                lost += flying.values()
                flying.clear()
                self._close()
                suspected.update(task.key for task in lost)
                if len(lost) == 1:
                    deaths[lost[0].key] += 1
                for task in lost:
                    if deaths[task.key] < ATTEMPTS:
                        suspects.append(task)
                    else:
                        yield died(task, ATTEMPTS)
            elif not done:
                yield None

    def _is_broken(self) -> bool:
        # There is no public way to ask: only submit() tells, by an exception.
        return bool(getattr(self._executor, "_broken", False))

    def _open(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._before()
            context = get_context("spawn")
            end, self._leash = context.Pipe(duplex=False)
            self._executor = ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=_start_worker, initargs=(end,)
            )
        return self._executor

    def _close(self) -> None:
        """Let go of the processes; those at work end at once."""
        if self._leash is not None:
            self._leash.close()
            self._leash = None
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def _start_worker(leash: Connection) -> None:
    """Leave interrupts to the parent, and end when its end of the pipe is closed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(leash,), daemon=True).start()


def _watch(leash: Connection) -> None:
    try:
        leash.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
