# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of a sweep as one Parquet file that says from what it was computed.

Same study, same captures, same physmem: the same bytes, whoever computed them in whatever order.
So there is no time, no path and no name of a computer in it.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from physmem.lab.digest import source_digest
from physmem.lab.evaluator import Metrics, Scalar
from physmem.lab.study import Objective
from physmem.lab.sweep_plan import Plan
from physmem.lab.task import OK, Outcome
from physmem.lib.errors import BadInputError
from physmem.lib.output import replace_file
from physmem.lib.version import __version__

KEY = b"physmem.sweep"
FORMAT = 1
BASE = ("subject", "digest", "variant", "seed", "status", "error", "message")
"""Columns of every file; then `set.KNOB` for each knob, then one for each metric."""


class Info(msgspec.Struct, kw_only=True):
    """What a file of results says about itself.

    Attributes
    ----------
    study_name, study : the file's name and its text
    version, source : of physmem, and the digest of its sources
    captures : name -> digest (BLAKE2b, 128 bits)
    variants : name -> settings, in the order of the study
    metrics : name -> column
    """

    format: int
    version: str
    source: str
    study_name: str
    study: str
    objective: Objective
    captures: dict[str, str]
    experiments: list[str]
    variants: dict[str, dict[str, str]]
    seeds: list[int]
    evaluators: dict[str, str]
    metrics: dict[str, str]


class ResultRow(msgspec.Struct, frozen=True):
    """One capture or experiment under one variant with one seed."""

    subject: str
    digest: str
    variant: str
    seed: int
    status: str
    error: str
    message: str
    settings: dict[str, str]
    metrics: Metrics


@dataclass(frozen=True)
class Results:
    """All rows, in the order of the study."""

    info: Info
    rows: tuple[ResultRow, ...]

    @property
    def failed(self) -> tuple[ResultRow, ...]:
        """Rows without metrics, because their task failed."""
        return tuple(row for row in self.rows if row.status != OK)


def collect(plan: Plan, outcomes: Mapping[str, Outcome]) -> Results:
    """Results of a plan whose tasks are all done."""
    rows = []
    for row in plan.rows:
        out = outcomes[row.key]
        rows.append(
            ResultRow(
                row.subject,
                row.task.digest,
                row.variant,
                row.task.seed,
                out.status,
                out.error,
                out.message,
                row.task.settings,
                dict(out.metrics),
            )
        )
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    study = plan.study
    used = {"capture": bool(study.captures), "experiment": bool(study.experiments)}
    info = Info(
        format=FORMAT,
        version=__version__,
        source=source_digest(),
        study_name=study.name,
        study=study.text,
        objective=study.objective,
        captures=dict(plan.digests),
        experiments=[one.name for one in study.experiments],
        variants={variant.name: variant.settings for variant in study.variants},
        seeds=list(study.seeds),
        evaluators={
            kind: evaluator.identity for kind, evaluator in study.evaluators.items() if used[kind]
        },
        metrics={name: _column(name) for name in names},
    )
    return Results(info, tuple(rows))


def _column(metric: str) -> str:
    taken = metric in BASE or metric.startswith(("set.", "metric."))
    return f"metric.{metric}" if taken else metric


def write_results(path: str | os.PathLike[str], results: Results) -> None:
    """Write results; the file appears when it is whole.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = results.rows
    columns: dict[str, Any] = {
        name: pa.array([getattr(row, name) for row in rows], _TYPES.get(name, "string"))
        for name in BASE
    }
    for knob in sorted({knob for row in rows for knob in row.settings}):
        columns[f"set.{knob}"] = pa.array([row.settings.get(knob) for row in rows], "string")
    for name, column in results.info.metrics.items():
        columns[column] = _metric([row.metrics.get(name) for row in rows])
    table = pa.table(columns)
    with (
        replace_file(path) as out,
        # All that a later release of Arrow may choose otherwise is said here.
        parquet.ParquetWriter(
            out,
            table.schema,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=3,
            use_dictionary=True,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,
        ) as writer,
    ):
        writer.write_table(table, row_group_size=1 << 16)
        writer.add_key_value_metadata({KEY: msgspec.json.encode(results.info)})


_TYPES = {"seed": "int64"}


def _metric(values: Sequence[Scalar | None]) -> Any:
    """Array of a metric: whole numbers, numbers, or text when one value is text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if str in kinds:
        texts = [None if value is None else str(value) for value in values]
        return pa.array(texts, "string")
    small = all(-(1 << 63) <= value < 1 << 63 for value in values if isinstance(value, int))
    if kinds <= {int} and small:
        return pa.array(values, "int64")
    return pa.array([None if value is None else float(value) for value in values], "float64")


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read what `write_results` wrote.

    Raises
    ------
    BadInputError
        No such file, no results of a sweep, damaged, or of a newer physmem.
    """
    import pyarrow as pa
    from pyarrow import parquet

    name = os.fspath(path)
    what = "name the file that `physmem sweep` wrote"
    if not Path(path).is_file():
        raise BadInputError(f"{name}: no such file; {what}")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            text = (file.metadata.metadata or {}).get(KEY)
            if text is None:
                raise BadInputError(f"{name}: a Parquet file, but no results of a sweep; {what}")
            info = _info(name, text)
            return Results(info, tuple(_rows(file.read().to_pylist(), info)))
    except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError) as error:
        reason = str(error).split("\n", maxsplit=1)[0][:120]
        raise BadInputError(f"{name}: no results, or damaged ({reason}); {what}") from None


def _info(name: str, text: bytes) -> Info:
    number = json.loads(text).get("format")
    if isinstance(number, int) and number > FORMAT:
        raise BadInputError(f"{name}: written by a newer physmem; upgrade physmem")
    return msgspec.json.decode(text, type=Info)


def _rows(lines: Iterable[Mapping[str, Any]], info: Info) -> Iterable[ResultRow]:
    for line in lines:
        yield ResultRow(
            **{name: line[name] for name in BASE},
            settings={
                column.removeprefix("set."): value
                for column, value in line.items()
                if column.startswith("set.") and value is not None
            },
            metrics={
                metric: line[column]
                for metric, column in info.metrics.items()
                if line[column] is not None
            },
        )
