# SPDX-License-Identifier: GPL-2.0-or-later
"""A progress bar on stderr, where that is a terminal; elsewhere nothing."""

import sys
import time
from types import TracebackType
from typing import Any, Self

_PATIENCE = 0.15  # seconds after which there is a bar: work of a blink needs none


class Bar:
    """Progress of one piece of work: call it with what is done and what there is in all.

    Examples
    --------
    >>> with Bar("replay", "requests") as bar:
    ...     bar(1, 2)
    """

    def __init__(self, what: str, unit: str, *, quiet: bool = False) -> None:
        self._what = what
        self._unit = unit
        self._shown = not quiet and sys.stderr.isatty()
        self._start = time.monotonic()
        self._rich: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show how far the work is."""
        if not self._shown:
            return
        if self._rich is None:
            if time.monotonic() - self._start < _PATIENCE:
                return
            self._open(total)
        self._rich.update(self._task, completed=done, total=total)

    def _open(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._rich = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.completed:>13,.0f} of {task.total:,.0f} " + self._unit),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task = self._rich.add_task(self._what, total=total)
        self._rich.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
