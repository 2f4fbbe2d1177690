# SPDX-License-Identifier: GPL-2.0-or-later
"""A what-if as text: variants side by side, who pollutes, prediction against reality."""

from collections.abc import Callable, Sequence

from physmem.cli.output import facts, paint, table
from physmem.lab.against import Against, ZoneAgainst
from physmem.lab.report import Report, VariantReport

_MOST_NAME = 38
_ORDERS_SHOWN = (0, 3, 9, 10)


def describe(report: Report) -> str:
    """The whole report."""
    work = report.workload
    head = facts(
        [
            ("recording", f"{report.capture} (Linux {report.kernel or 'of unknown version'})"),
            ("operations", f"{work['operations']:,}"),
            ("allocations", f"{work['allocations']:,}"),
            ("before the trace", f"{work['early_pages']:,} pages"),
        ]
    )
    letters = [chr(ord("A") + number) for number in range(len(report.variants))]
    sections = [
        f"{paint('What if', 'bold')}\n{head}",
        facts((letters[n], variant.name) for n, variant in enumerate(report.variants)),
        _side_by_side(report.variants, letters),
        _orders(report.variants, letters),
        *(_polluters(variant, letters[n]) for n, variant in enumerate(report.variants)),
    ]
    if report.against is not None:
        sections.append(_against(report.against))
    notes = list(report.assumptions)
    for number, variant in enumerate(report.variants):
        notes += [f"{letters[number]}: {text}" for text in variant.assumptions]
    sections.append(paint("Assumed", "bold") + "\n" + "\n".join(f"  - {text}" for text in notes))
    return "\n\n".join(part for part in sections if part)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _side_by_side(variants: Sequence[VariantReport], letters: Sequence[str]) -> str:
    lines: list[tuple[str, Callable[[VariantReport], str]]] = [
        ("free pages", lambda v: f"{v.whole.free_pages:,}"),
        ("on per-CPU lists", lambda v: f"{v.whole.pcp_pages:,}"),
        ("2 MiB pages now", lambda v: f"{v.whole.huge_now:,}"),
        ("... after perfect compaction", lambda v: f"{v.whole.huge_compacted:,}"),
        ("2 MiB blocks", lambda v: f"{v.whole.blocks:,}"),
        ("... free", lambda v: _percent(v.whole.free, v.whole.blocks)),
        ("... movable only", lambda v: _percent(v.whole.movable_only, v.whole.blocks)),
        ("... polluted by unmovable pages", lambda v: _percent(v.whole.polluted, v.whole.blocks)),
        ("... of these with other pages", lambda v: _percent(v.whole.mixed, v.whole.blocks)),
        ("unmovable pages", lambda v: f"{v.whole.unmovable_pages:,}"),
        ("movable pages", lambda v: f"{v.whole.movable_pages:,}"),
        ("fallbacks", lambda v: f"{v.counters['fallbacks']:,}"),
        ("... that took the pageblock", lambda v: f"{v.counters['claims']:,}"),
        ("... that left it mixed", lambda v: f"{v.counters['fragmenting']:,}"),
        ("failed allocations", lambda v: f"{v.counters['failed']:,}"),
        ("below low in every zone", lambda v: f"{v.counters['slowpath']:,}"),
        ("left a zone below low", lambda v: f"{v.counters['below_low']:,}"),
        ("left a zone below min", lambda v: f"{v.counters['below_min']:,}"),
    ]
    rows = [[name, *(value(variant) for variant in variants)] for name, value in lines]
    return table(["whole machine, at the end", *letters], rows)


def _orders(variants: Sequence[VariantReport], letters: Sequence[str]) -> str:
    """Free blocks and both indices per order."""
    most = max(len(variant.whole.nr_free) for variant in variants)
    rows = []
    for order in range(most):
        row = [f"order {order}"]
        for variant in variants:
            whole = variant.whole
            if order >= len(whole.nr_free):
                row += ["-", "-", "-"]
                continue
            row += [
                f"{whole.nr_free[order]:,}",
                f"{whole.unusable_index[order] / 1000:.3f}",
                f"{whole.fragmentation_index[order] / 1000:.3f}",
            ]
        rows.append(row)
    head = ["whole machine"]
    for letter in letters:
        head += [f"{letter} free", "unusable", "extfrag"]
    text = table(head, rows)
    return (
        f"{text}\n  unusable: unusable_index (FMFI in most papers); extfrag: extfrag_index"
        " (fragmentation index)"
    )


def _polluters(variant: VariantReport, letter: str) -> str:
    if not variant.polluters:
        return ""
    rows = [
        [
            each.comm if each.pid < 0 else f"{each.comm}-{each.pid}",
            each.gfp if len(each.gfp) <= _MOST_NAME else each.gfp[: _MOST_NAME - 3] + "...",
            each.site,
            str(each.order),
            f"{each.pages:,}",
            f"{each.blocks:,}",
            f"{each.alone:,}",
        ]
        for each in variant.polluters[:6]
    ]
    head = [f"{letter}: who pollutes", "flags", "for", "order", "pages", "2 MiB blocks", "alone"]
    return table(head, rows, left=3)


def _difference(zone: ZoneAgainst) -> list[list[str]]:
    ours, theirs = zone.predicted, zone.actual
    name = f"{zone.node} {zone.name}"
    if zone.there != "both":
        who = "predicted only" if zone.there == "predicted" else "not predicted"
        return [[name, who, "-", "-", "-", ""]]
    free = f"{100 * zone.free_error:+.2f} % of managed"
    rows = [
        [name, "free pages", f"{ours.free_pages:,}", f"{theirs.free_pages:,}", free],
        [
            "",
            "usable at order 9",
            f"{100 * ours.usable_order9_share:.1f} %",
            f"{100 * theirs.usable_order9_share:.1f} %",
            f"{100 * zone.usable_error:+.1f} points",
        ],
    ]
    for kind in theirs.pageblocks:
        mine, real = ours.pageblocks.get(kind, 0), theirs.pageblocks[kind]
        if mine or real:
            rows.append(["", f"{kind} blocks", f"{mine:,}", f"{real:,}", f"{mine - real:+,}"])
    rows[0].append(paint("holds", "green") if zone.holds else paint("differs", "red"))
    return [[*row, *[""] * (6 - len(row))] for row in rows]


def _against(against: Against) -> str:
    rows = [line for zone in against.zones for line in _difference(zone)]
    head = ["zone", "at the end", "predicted", "actual", "difference", ""]
    verdict = (
        paint("The prediction holds", "green", "bold") + " in every zone"
        if against.holds
        else paint("The prediction does not hold", "red", "bold") + " in every zone"
    )
    notes = "".join(f"\n  note: {note}" for note in against.notes)
    return (
        f"{paint('Prediction against reality', 'bold')}: {against.variant}, against"
        f" {against.name}\n{table(head, rows, left=2)}\n  {verdict}: free pages within 3 % of"
        f" managed, share within 5 points, blocks of each type within 5 %{notes}"
    )


def summary(report: Report) -> str:
    """One line."""
    parts = [f"{v.name}: {v.whole.huge_now:,} huge pages" for v in report.variants]
    if report.against is not None:
        parts.append("prediction holds" if report.against.holds else "prediction does not hold")
    return "; ".join(parts)
