# SPDX-License-Identifier: GPL-2.0-or-later
"""What an experiment gives: figures beside the published ones, tables, series, and from what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from physmem.lib.errors import BadRequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from physmem.machine.machine import Machine

Scalar = float | int | str | bool | None

EQUAL = "equal"
"""Bit for bit, or the closed form itself."""
SAME_SHAPE = "same shape"
"""Direction and course of the published figure, not its digits."""
CALIBRATED = "calibrated scenario"
"""A parameter was chosen so that one published figure comes out; the others follow from it."""


@dataclass(frozen=True)
class Figure:
    """One number of ours beside the published one.

    Attributes
    ----------
    key : name in `Report.metrics`
    text : what it is, with its unit
    ours : number
    published : number, or a text where the source gives more than a number; None: nothing published
    word : EQUAL, SAME_SHAPE or CALIBRATED; empty: not compared
    """

    key: str
    text: str
    ours: float
    published: float | str | None = None
    word: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of one kind: `columns` name the cells of each row."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]

    def column(self, name: str) -> list[Scalar]:
        """Cells of one column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


@dataclass(frozen=True)
class Line:
    """One line of a plot: y over x; `published` lines are drawn as points."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    published: bool = False


@dataclass(frozen=True)
class Series:
    """Lines with common axes; `bars`: x counts categories, whose names are `ticks`."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    ticks: tuple[str, ...] = ()
    log_y: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether what the source claims holds here, and the sentence that says so."""

    holds: bool
    text: str


@dataclass(frozen=True)
class Report:
    """Result of an experiment: the same for the same name, parameters and seed.

    Attributes
    ----------
    name, title : of the experiment
    params : every parameter, also those left at their default
    seed : of all random choices
    source : where the published figures are from
    figures, tables, series : what was measured
    notes : what may be compared with the source and what may not
    verdict : whether the claim of the source holds
    provenance : what it was computed from
    machines : machines that the experiment left, by name (not part of the result)
    seconds : time the experiment took (not part of the result)
    measured : other figures of this run on this computer, such as memory (not part of the result)
    operations : requests and frees that it made
    """

    name: str
    title: str
    params: Mapping[str, Scalar]
    seed: int
    source: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    series: tuple[Series, ...]
    notes: tuple[str, ...]
    verdict: Verdict
    provenance: Mapping[str, Scalar]
    operations: int = 0
    machines: Mapping[str, "Machine"] = field(default_factory=dict, compare=False, repr=False)
    seconds: float = field(default=0.0, compare=False)
    measured: Mapping[str, float] = field(default_factory=dict, compare=False)

    def metrics(self) -> dict[str, float]:
        """Figures by their keys, and `holds` as 0 or 1: a flat row for sweeps."""
        found: dict[str, float] = {figure.key: figure.ours for figure in self.figures}
        found["holds"] = int(self.verdict.holds)
        return found

    def table(self, name: str | None = None) -> Table:
        """One of the tables; without a name the first.

        Raises
        ------
        BadRequestError
            No table of that name.
        """
        for table in self.tables:
            if name is None or table.name == name:
                return table
        known = ", ".join(table.name for table in self.tables)
        raise BadRequestError(f"table {name!r}: {self.name} has {known}")

    def to_dict(self) -> dict[str, Any]:
        """Builtins form for JSON: nothing in it depends on the time or the computer."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "params": dict(self.params),
            "seed": self.seed,
            "figures": [
                {
                    "key": figure.key,
                    "text": figure.text,
                    "ours": figure.ours,
                    "published": figure.published,
                    "comparison": figure.word,
                }
                for figure in self.figures
            ],
            "verdict": {"holds": self.verdict.holds, "text": self.verdict.text},
            "tables": {
                table.name: [dict(zip(table.columns, row, strict=True)) for row in table.rows]
                for table in self.tables
            },
            "notes": list(self.notes),
            "operations": self.operations,
            "provenance": dict(self.provenance),
        }

    def to_arrow(self, name: str | None = None) -> "pa.Table":
        """One of the tables for Arrow and Parquet; the rest of the report is its metadata.

        Raises
        ------
        BadRequestError
            No table of that name.
        """
        import json

        import pyarrow as pa

        table = self.table(name)
        columns = {column: table.column(column) for column in table.columns}
        text = json.dumps({k: v for k, v in self.to_dict().items() if k != "tables"})
        return pa.table(columns).replace_schema_metadata({"physmem.experiment": text})
