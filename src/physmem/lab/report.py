# SPDX-License-Identifier: GPL-2.0-or-later
"""What `physmem.whatif` returns: variants side by side, and what was assumed."""

from typing import Any

import msgspec

from physmem.lab.against import Against
from physmem.lab.metrics import Metrics
from physmem.lab.pollution import Polluter
from physmem.mm.state import NAME_OF_LETTER

BASELINE = "as recorded"


class Failure(msgspec.Struct, frozen=True):
    """Allocations that failed, by order and type of their flags."""

    order: int
    migratetype: str
    count: int


class VariantReport(msgspec.Struct, frozen=True):
    """One variant at the end of the workload.

    Attributes
    ----------
    name : its settings as they were written; the first variant is `BASELINE`
    kernel, cmdline, page_size, pageblock_order : what ran
    counters : `physmem.lab.evaluate.counters_of`
    failures : failed allocations, most first
    zones : metrics per zone; the whole machine is the last
    polluters : whose allocations keep blocks of 2 MiB, most blocks first
    samples : one row per sample and zone, when samples were taken
    assumptions : what its boot had to assume
    """

    name: str
    kernel: str
    cmdline: str
    page_size: int
    pageblock_order: int
    counters: dict[str, int]
    failures: list[Failure]
    zones: list[Metrics]
    polluters: list[Polluter]
    samples: list[dict[str, Any]] = []
    assumptions: list[str] = []

    @property
    def whole(self) -> Metrics:
        """Metrics of the whole machine."""
        return self.zones[-1]


class Report(msgspec.Struct, frozen=True):
    """Everything that a what-if tells. The same input and seed give the same report, byte for byte.

    Attributes
    ----------
    capture, digest : the recording, and the SHA-256 of what was read
    version : of physmem
    seed : for settings that draw lots
    until : row of the events before which the workload ends; None: at the recorded end state
    workload : how many operations, allocations, frames before the trace, and what was worked out
    variants : the recorded machine first
    against : the comparison with another recording, of the first variant that has settings
    assumptions : what holds for every variant
    """

    capture: str
    digest: str
    version: str
    kernel: str
    seed: int
    until: int | None
    workload: dict[str, int]
    variants: list[VariantReport]
    against: Against | None
    assumptions: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Builtins form, for JSON."""
        result: dict[str, Any] = msgspec.to_builtins(self)
        return result


def failures_of(table: Any) -> list[Failure]:
    """Failed allocations from their counts by order and migratetype.

    Examples
    --------
    >>> import numpy as np
    >>> failures_of(np.array([[0, 0, 0, 0], [3, 5, 0, 0]]))[0]
    Failure(order=1, migratetype='Movable', count=5)
    """
    names = [NAME_OF_LETTER[letter] for letter in "UMR"] + ["Movable"]
    found = [
        Failure(order, names[mt], int(count))
        for order, row in enumerate(table)
        for mt, count in enumerate(row)
        if count
    ]
    return sorted(found, key=lambda each: (-each.count, each.order, each.migratetype))
