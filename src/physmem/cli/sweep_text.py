# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of a sweep for people, and as one JSON object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physmem.cli.output import paint, table
from physmem.lab.results import Results
from physmem.lab.summary import Summary
from physmem.lab.sweep_plan import Plan
from physmem.lab.task import OK, Outcome

_SHOWN = 10
_ROWS_SHOWN = 200


def number(value: float | None) -> str:
    """Six digits of a number.

    Examples
    --------
    >>> number(None), number(3), number(1234567.0), number(0.1234567), number(12.5)
    ('-', '3', '1,234,567', '0.123457', '12.5')
    """
    if value is None:
        return "-"
    if value == int(value) if abs(value) < 1e15 else False:
        return f"{int(value):,}"
    return f"{value:,.6g}"


def plan_text(plan: Plan, known: Mapping[str, Outcome]) -> str:
    """All tasks, and which of them are done."""
    rows = [
        (
            row.subject,
            row.variant,
            str(row.task.seed),
            known[row.key].status if row.key in known else "to do",
        )
        for row in plan.rows[:_ROWS_SHOWN]
    ]
    text = table(("subject", "variant", "seed", "status"), rows, left=2)
    more = len(plan.rows) - len(rows)
    if more:
        text += f"\n  and {more:,} more (--json lists all)"
    todo = len(plan.tasks) - len(known)
    return f"{text}\n\n{len(plan.tasks):,} tasks: {len(known):,} done, {todo:,} to do"


def summary_text(summary: Summary, results: Results) -> str:
    """Table of variants, best first, and the winner."""
    columns = ["variant", "runs", "mean", "std", "min", "max"]
    failed = any(one.failed for one in summary.variants)
    rows = []
    for one in summary.variants:
        cells = [number(value) for value in (one.mean, one.std, one.low, one.high)]
        rows.append([one.name, f"{one.count:,}", *cells, *([f"{one.failed:,}"] if failed else [])])
    better = "more" if results.info.objective.maximise else "less"
    is_objective = summary.metric == results.info.objective.metric
    aim = f" ({better} is better)" if is_objective else ""
    text = [
        f"{paint(summary.metric, 'bold')}{aim}",
        table([*columns, *(["failed"] if failed else [])], rows),
    ]
    if is_objective:
        text += ["", winner_text(summary)]
    return "\n".join(text)


def winner_text(summary: Summary) -> str:
    """The winner and its margin in a line."""
    winner = summary.winner
    if winner is None:
        if len(summary.variants) < 2:
            return f"winner: none, there is one variant ({summary.variants[0].name})"
        return "winner: none, fewer than two variants have all their results"
    if winner.tied:
        names = [winner.name, *winner.tied]
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        mean = number(winner.mean)
        return f"winner: none, equal means {mean} of {', '.join(names[:3])}{more}"
    share = "" if winner.share is None else f" ({winner.share:.2%})"
    return (
        f"winner: {paint(winner.name, 'green')}, {summary.metric} {number(winner.mean)}, "
        f"ahead of {winner.second} by {number(winner.margin)}{share}; "
        f"better in {winner.better:,} of {winner.pairs:,} pairs"
    )


def failures_text(results: Results) -> str:
    """Tasks that failed, each with its reason."""
    lines = [
        f"physmem: failed: {row.subject}, {row.variant}, seed {row.seed}: {row.message}"
        for row in results.failed[:_SHOWN]
    ]
    more = len(results.failed) - len(lines)
    if more:
        lines.append(f"physmem: failed: and {more:,} more (--json lists all)")
    return "\n".join(lines)


def results_dict(results: Results, path: Path, summaries: Sequence[Summary]) -> dict[str, Any]:
    """Summary, failures and provenance; all rows are in the Parquet file."""
    info = results.info
    return {
        "results": str(path),
        "study": info.study_name,
        "physmem": {"version": info.version, "source": info.source},
        "captures": info.captures,
        "experiments": info.experiments,
        "seeds": info.seeds,
        "tasks": len(results.rows),
        "ok": sum(row.status == OK for row in results.rows),
        "metrics": list(info.metrics),
        **summaries[0].to_dict(),
        "more": [one.to_dict() for one in summaries[1:]],
        "failed": [
            {
                "subject": row.subject,
                "variant": row.variant,
                "seed": row.seed,
                "error": row.error,
                "message": row.message,
            }
            for row in results.failed
        ],
    }
