# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of a what-if as files: Parquet for programs, pictures for people."""

import os
from pathlib import Path

import msgspec
import numpy as np

from physmem.lab.report import Report
from physmem.lab.run import Study
from physmem.lib.output import replace_file

KEY = b"physmem.whatif"
"""Metadata of the Parquet file: the report without its samples, as JSON."""


def write_parquet(report: Report, path: str | os.PathLike[str]) -> None:
    """Write samples: one row per variant, sample and zone; the last sample is the end state.

    The metadata hold the report itself (`KEY`): from what capture, settings, seed and version it
    was computed, and all metrics at the end. The same report gives the same bytes.

    Raises
    ------
    OSError
        The file cannot be written; nothing of it stays behind.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {"variant": number, "settings": variant.name, **row}
        for number, variant in enumerate(report.variants)
        for row in variant.samples
    ]
    table = pa.Table.from_pylist(rows)
    bare = [msgspec.structs.replace(variant, samples=[]) for variant in report.variants]
    told = msgspec.structs.replace(report, variants=bare)
    table = table.replace_schema_metadata({KEY: msgspec.json.encode(told)})
    with replace_file(path) as out:
        parquet.write_table(table, out, compression="zstd")


def draw(study: Study, path: str | os.PathLike[str]) -> None:
    """Draw availability of huge pages and maps of memory over time (.png or .svg).

    Raises
    ------
    OSError
        The file cannot be written; nothing of it stays behind.
    """
    from physmem.views.availability import Curve, draw_availability

    report = study.report
    if report is None or len(study.samples) != len(report.variants):
        raise RuntimeError("pictures are drawn from samples that were kept")
    curves = []
    for run, samples, variant in zip(study.runs, study.samples, report.variants, strict=True):
        whole = [row for row in variant.samples if row["node"] < 0]
        times = np.array([row["time_ns"] for row in whole], np.float64)
        curves.append(
            Curve(
                variant.name,
                (times - times[0]) / 1e9,
                np.array([row["huge_now"] for row in whole], np.int64),
                np.array([row["huge_compacted"] for row in whole], np.int64),
                samples.maps(run),
            )
        )
    suffix = Path(path).suffix.lower()
    title = f"{report.capture}: huge pages under {len(curves)} variants"
    with replace_file(path) as out:
        draw_availability(curves, out, suffix=suffix, title=title)
